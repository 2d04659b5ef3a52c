"""The choice of a loss: what does not fit the other choices is greyed out, with the reason, and options become rows.

Where the loss is left to the data there is nothing to judge and there are no options.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QComboBox, QLabel, QSizePolicy

from napari_unetvnet.errors import SettingsProblem
from napari_unetvnet.losses import LOSSES, LossTerm, parse_loss, write_loss
from napari_unetvnet.settings import TrainJob, TrainSettings, checked
from napari_unetvnet.widgets.auto import AUTO, CHOSEN, describe, is_auto
from napari_unetvnet.widgets.form import OptionsForm
from napari_unetvnet.widgets.scroll import narrow, wrapped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["LossBox", "LossOptions", "misfits"]

MATTERING = ("head", "label_values", "objects_as", "regions", "lines", "network", "option")
"""Settings that decide whether a loss fits."""
LONGEST_HINT = 160
HINT_STYLE = "QLabel { color: #e06c60; }"


def misfits(values: Mapping[str, Any], losses: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Say what speaks against losses, beside other choices.

    Parameters
    ----------
    values : mapping of str to value
        Settings for training, as plain values.
    losses : sequence of str
        Names or sums.

    Returns
    -------
    dict of str to tuple of str
        Sentences for each loss, none if it fits: those of the settings, but for what no loss could mend.
    """
    chosen = {name: values[name] for name in MATTERING if name in values}
    found = {loss: _refusal(chosen | {"loss": loss}) for loss in (*LOSSES, *losses)}
    common = set.intersection(*(set(found[loss]) for loss in LOSSES))
    return {loss: tuple(line for line in found[loss] if line not in common) for loss in losses}


def _refusal(values: dict[str, Any]) -> tuple[str, ...]:
    try:
        checked(TrainSettings, values)
    except SettingsProblem as problem:
        return problem.lines
    return ()


class LossBox(QComboBox):  # type: ignore[misc]
    """Chooses a loss, takes a weighted sum that is typed, or leaves it to the data."""

    def __init__(self) -> None:
        super().__init__()
        narrow(self)
        self.setEditable(True)
        self.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.hint = QLabel()
        self.hint.setWordWrap(True)
        self.hint.setStyleSheet(HINT_STYLE)
        self.hint.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
        self.hint.hide()
        self._values: dict[str, Any] = {}
        self._open = [AUTO] if "loss" in TrainJob.left_open else []
        self.addItems([*self._open, *LOSSES])
        self.setCurrentText(self.itemText(0) if self._open else "dice_ce")
        self.currentTextChanged.connect(self._text_changed)
        self.lineEdit().editingFinished.connect(self._judge)
        self.refresh({})

    def values(self) -> dict[str, Any]:
        """Read the loss.

        Returns
        -------
        dict
            Plain value, without one if it is left to the data.
        """
        return {} if is_auto(self.currentText()) else {"loss": self.currentText()}

    def refresh(self, values: Mapping[str, Any]) -> None:
        """Grey out what does not fit.

        Parameters
        ----------
        values : mapping of str to value
            The other settings, as plain values.
        """
        self._values = dict(values)
        for index, (name, reasons) in enumerate(misfits(values, list(LOSSES)).items(), start=len(self._open)):
            item = self.model().item(index)
            item.setEnabled(not reasons)
            item.setToolTip("\n\n".join([*map(wrapped, reasons), _about(name)]))
        self._judge()

    def _text_changed(self, _text: str) -> None:
        if self.lineEdit().hasFocus():
            self.hint.hide()  # half a word is no mistake yet
        else:
            self._judge()

    def _judge(self) -> None:
        """Say what speaks against the present text."""
        text = self.currentText()
        reasons = () if is_auto(text) else misfits(self._values, [text])[text]
        self.hint.setText("\n".join(map(_short, reasons)))
        self.hint.setVisible(bool(reasons))
        how = "A weighted sum can be typed, such as dice + 10*bce, and options: tversky(alpha=0.2, beta=0.8)."
        about = _about(text) if text in LOSSES else CHOSEN if is_auto(text) else ""
        parts = [*map(wrapped, reasons), wrapped(f"What is minimised. {how}"), about]
        describe(self, "\n\n".join(filter(None, parts)))


def _short(sentence: str) -> str:
    """Leave the advice to the tooltip if it lists half of the table."""
    return sentence if len(sentence) <= LONGEST_HINT else f"{sentence.partition(';')[0]}."


def _about(name: str) -> str:
    """Tell a loss: its sentence, its formula, its source."""
    described = LOSSES.describe(name)
    told = [f"{name}: {described.summary}"]
    told += [described.section(title) for title in ("Notes", "References")]
    parts = [part for text in told for part in text.split("\n\n")]
    return "\n\n".join(wrapped(part.replace("[1]_", "[1]").replace(".. [", "[")) for part in parts if part.strip())


class LossOptions:
    """Rows for the options of a loss that is chosen by itself; what is changed in them is written into the box.

    Parameters
    ----------
    box : LossBox
    layout : QFormLayout
        Gets the rows.
    """

    def __init__(self, box: LossBox, layout: Any) -> None:
        self.form = OptionsForm(LOSSES, layout, changed=self._write)
        self._box, self._shown, self._writing = box, LossTerm(name=""), False
        box.currentTextChanged.connect(self._read)
        self._read(box.currentText())

    def _read(self, text: str) -> None:
        """Show the rows of the loss that is in the box; what is half typed changes nothing."""
        if self._writing:
            return
        try:
            terms = () if is_auto(text) else parse_loss(text)
        except SettingsProblem:
            return
        if terms == (self._shown,):
            return
        if len(terms) == 1:
            self._shown = terms[0]
            self.form.choose(terms[0].name, terms[0].option)
        else:
            self._shown = LossTerm(name="")
            self.form.clear()

    def _write(self) -> None:
        """Write what differs from the defaults into the box, right or wrong: the box says what is wrong with it."""
        defaults = LOSSES.describe(self._shown.name).defaults
        option = {}
        for name, value in self.form.values().items():
            try:
                value = LOSSES.check_options(self._shown.name, {name: value})[name]
            except SettingsProblem:
                option[name] = value
                continue
            if value != defaults[name]:
                option[name] = value
        self._writing = True
        self._shown = self._shown.model_copy(update={"option": option})
        self._box.setCurrentText(write_loss((self._shown,)))
        self._writing = False
