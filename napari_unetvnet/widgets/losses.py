"""The choice of a loss: losses in conflict with other settings are greyed out, with the reason; options become rows.

If the loss is auto, nothing is validated and there are no options.
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

__all__ = ["LossBox", "LossOptions", "loss_conflicts"]

LOSS_RELEVANT = ("head", "label_values", "objects_as", "regions", "lines", "class_names", "network", "option")
"""Settings that determine whether a loss is valid."""
LONGEST_HINT = 160
HINT_STYLE = "QLabel { color: #e06c60; }"


def loss_conflicts(values: Mapping[str, Any], losses: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the conflicts of losses with other settings.

    Parameters
    ----------
    values : mapping of str to value
        Settings for training, as plain values.
    losses : sequence of str
        Names or sums.

    Returns
    -------
    dict of str to tuple of str
        Error messages for each loss, empty if it is valid; messages that every loss causes are left out.
    """
    settings = {name: values[name] for name in LOSS_RELEVANT if name in values}
    lines = {loss: _errors(settings | {"loss": loss}) for loss in (*LOSSES, *losses)}
    common = set.intersection(*(set(lines[loss]) for loss in LOSSES))
    return {loss: tuple(line for line in lines[loss] if line not in common) for loss in losses}


def _errors(values: dict[str, Any]) -> tuple[str, ...]:
    try:
        checked(TrainSettings, values)
    except SettingsProblem as problem:
        return problem.lines
    return ()


class LossBox(QComboBox):  # type: ignore[misc]
    """Chooses a loss or auto, and accepts a typed weighted sum."""

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
        self._auto_items = [AUTO] if "loss" in TrainJob.left_open else []
        self.addItems([*self._auto_items, *LOSSES])
        self.setCurrentText(self.itemText(0) if self._auto_items else "dice_ce")
        self.currentTextChanged.connect(self._text_changed)
        self.lineEdit().editingFinished.connect(self._validate)
        self.refresh({})

    def values(self) -> dict[str, Any]:
        """Read the loss.

        Returns
        -------
        dict
            Plain value; empty for auto.
        """
        return {} if is_auto(self.currentText()) else {"loss": self.currentText()}

    def refresh(self, values: Mapping[str, Any]) -> None:
        """Grey out the losses that are in conflict with the other settings.

        Parameters
        ----------
        values : mapping of str to value
            The other settings, as plain values.
        """
        self._values = dict(values)
        for index, (name, reasons) in enumerate(
            loss_conflicts(values, list(LOSSES)).items(), start=len(self._auto_items)
        ):
            item = self.model().item(index)
            item.setEnabled(not reasons)
            item.setToolTip("\n\n".join([*map(wrapped, reasons), _about(name)]))
        self._validate()

    def _text_changed(self, _text: str) -> None:
        if self.lineEdit().hasFocus():
            self.hint.hide()  # incomplete text is not an error yet
        else:
            self._validate()

    def _validate(self) -> None:
        """Show the conflicts of the current text."""
        text = self.currentText()
        reasons = () if is_auto(text) else loss_conflicts(self._values, [text])[text]
        self.hint.setText("\n".join(map(_short, reasons)))
        self.hint.setVisible(bool(reasons))
        syntax = (
            "Weighted sums, options and losses by class can be typed: dice + 10*bce, tversky(alpha=0.2, beta=0.8), or "
            "cell: dice + bce; rest: dice."
        )
        about = _about(text) if text in LOSSES else CHOSEN if is_auto(text) else ""
        parts = [*map(wrapped, reasons), wrapped(f"Loss function. {syntax}"), about]
        describe(self, "\n\n".join(filter(None, parts)))


def _short(sentence: str) -> str:
    """Shorten a long message to its first clause; the tooltip has all of it."""
    return sentence if len(sentence) <= LONGEST_HINT else f"{sentence.partition(';')[0]}."


def _about(name: str) -> str:
    """Describe a loss: summary, formula and reference."""
    described = LOSSES.describe(name)
    sections = [f"{name}: {described.summary}"]
    sections += [described.section(title) for title in ("Notes", "References")]
    parts = [part for text in sections for part in text.split("\n\n")]
    return "\n\n".join(wrapped(part.replace("[1]_", "[1]").replace(".. [", "[")) for part in parts if part.strip())


class LossOptions:
    """Rows for the options of a single loss (not a sum); changes are written to the loss box.

    Parameters
    ----------
    layout : QFormLayout
        The rows are appended to it.
    """

    def __init__(self, box: LossBox, layout: Any) -> None:
        self.form = OptionsForm(LOSSES, layout, changed=self._write)
        self._box, self._shown, self._writing = box, LossTerm(name=""), False
        box.currentTextChanged.connect(self._read)
        self._read(box.currentText())

    def _read(self, text: str) -> None:
        """Show the rows of the loss in the box; incomplete text is ignored."""
        if self._writing:
            return
        try:
            terms = () if is_auto(text) else parse_loss(text)
        except SettingsProblem:
            return
        if terms == (self._shown,):
            return
        if len(terms) == 1 and not terms[0].classes:
            self._shown = terms[0]
            self.form.choose(terms[0].name, terms[0].option)
        else:
            self._shown = LossTerm(name="")
            self.form.clear()

    def _write(self) -> None:
        """Write the options that differ from the defaults to the box, even invalid ones, which the box reports."""
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
