"""Ask what label 0 means before a training, where labels and image do not tell it or contradict what is set."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QLabel, QPushButton, QVBoxLayout, QWidget

from napari_unetvnet.data.meaning import Answer, Question, UnclearLabels, contradictions, measured, understand
from napari_unetvnet.images.pairs import Pair
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.settings import TrainJob, checked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.widgets.layers import Channel, Snapshot

__all__ = ["Asking", "question_about", "with_meaning"]

LINE = 44
"""Letters on a line; a wrapped label inside a layout of a dock is given too little height."""
ANYWAY = Answer("train all the same", {"label_checks": "warn"})


def question_about(inputs: Snapshot, job: TrainJob) -> Question | None:
    """Find what must be asked before a training.

    Returns
    -------
    Question or None
    """
    pairs = [_pair(part) for part in inputs.parts]
    try:
        complete = _complete(pairs, job)
    except UnclearLabels as problem:
        return problem.questions[0]
    if complete.label_checks == "warn" or complete.multilabel or complete.label_values == "objects":
        return None
    found = contradictions(measured(pairs, complete), complete)
    senseless = [each.question for each in found if each.senseless]
    return Question(senseless[0].text, (*senseless[0].answers, ANYWAY)) if senseless else None


def with_meaning(inputs: Snapshot, job: TrainJob) -> TrainJob:
    """Choose the meaning of label 0 as the training does, if it is left open.

    Returns
    -------
    TrainJob

    Raises
    ------
    UnclearLabels
        If it must be asked for.
    """
    return _complete([_pair(part) for part in inputs.parts], job)


def _complete(pairs: Sequence[Pair], job: TrainJob) -> TrainJob:
    found = understand(pairs, job)
    values = {name: getattr(job, name) for name in job.model_fields_set}
    return checked(TrainJob, values | {"unlabelled": found.unlabelled, "background": found.background})


def _pair(inputs: Snapshot) -> Pair:
    image, labels = (Volume(_Channels(channels)) for channels in (inputs.channels, inputs.labels))
    return Pair(image, labels, mask=None if inputs.mask is None else Volume(_Channels([inputs.mask])))


class _Channels:
    """Channels of layers as an array (C, Z, Y, X) that is read by slicing.

    Parameters
    ----------
    channels : sequence of Channel
        Of shape (Y, X) or (Z, Y, X).
    """

    def __init__(self, channels: Sequence[Channel]) -> None:
        shape = channels[0].shape
        self._channels, self.dtype, self.ndim = channels, np.dtype(channels[0].data.dtype), 4
        self.shape = (len(channels), *(1,) * (3 - len(shape)), *shape)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        key = key if isinstance(key, tuple) else (key,)
        z, *plane = list(key[1:]) + [slice(None)] * (4 - len(key))
        if isinstance(key[0], slice):
            return np.stack([self._read(channel, z, plane) for channel in self._channels[key[0]]])
        return self._read(self._channels[key[0]], z, plane)

    def _read(self, channel: Channel, z: Any, plane: Sequence[slice]) -> NDArray[Any]:
        if len(channel.shape) == 2:
            found: NDArray[Any] = np.asarray(channel.read(tuple(plane)))[None][z]
            return found
        if isinstance(z, slice):
            return np.asarray(channel.read((z, *plane)))
        one: NDArray[Any] = np.asarray(channel.read((slice(int(z), int(z) + 1), *plane)))[0]
        return one


class Asking(QWidget):  # type: ignore[misc]
    """Shows a question with a button for each answer."""

    answered = Signal(object)
    """The `Answer`."""

    def __init__(self) -> None:
        super().__init__()
        self.text = QLabel()
        self.buttons: list[QPushButton] = []
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.addWidget(self.text)
        self.hide()

    def ask(self, question: Question | None) -> None:
        """Show a question; None hides the last one."""
        for button in self.buttons:
            self._layout.removeWidget(button)
            button.hide()
            button.deleteLater()
        self.buttons = [] if question is None else [self._button(answer) for answer in question.answers]
        self.text.setText("" if question is None else textwrap.fill(question.text, LINE))
        self.setVisible(question is not None)

    def _button(self, answer: Answer) -> QPushButton:
        """Make a button with a sentence on several lines."""
        button = QPushButton(textwrap.fill(answer.text[0].upper() + answer.text[1:], LINE))
        button.clicked.connect(lambda _checked=False: self.answered.emit(answer))
        self._layout.addWidget(button)
        return button
