"""The rows that define the meaning of labels; only those that apply to the chosen labels are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtGui import QValidator
from qtpy.QtWidgets import QSpinBox

from napari_unetvnet.widgets.auto import AUTO, Choice
from napari_unetvnet.widgets.form import show_row
from napari_unetvnet.widgets.scroll import wrapped

if TYPE_CHECKING:
    from napari_unetvnet.widgets.form import SettingsForm
    from napari_unetvnet.widgets.pickers import LabelsPicker

__all__ = ["LabelRows", "PaintedValue", "Unpainted"]


class PaintedValue(QSpinBox):  # type: ignore[misc]
    """A painted value: auto, no label, or a label."""

    NONE = 0

    def __init__(self) -> None:
        super().__init__()
        self.setRange(-1, 65535)
        self.setValue(-1)
        self.setSpecialValueText(AUTO)

    def textFromValue(self, value: int) -> str:  # noqa: N802 (name of Qt)
        """Write a value."""
        return f"label {value}" if value else "no label"

    def valueFromText(self, text: str) -> int:  # noqa: N802 (name of Qt)
        """Read a value."""
        digits = "".join(letter for letter in text if letter.isdigit())
        return int(digits) if digits else self.NONE if text.startswith("no") else self.minimum()

    def validate(self, text: str, position: int) -> tuple[QValidator.State, str, int]:
        """Accept any text; what is no number is auto or no label."""
        return QValidator.State.Acceptable, text, position


class Unpainted:
    """The meaning of unpainted voxels, and the painted value of the background."""

    MEANINGS = {"ignored": "ignore", "background": "background"}  # noqa: RUF012 (never changed)

    def __init__(self) -> None:
        about = wrapped(
            "Auto: found out from labels and image, or asked for before the training. Ignored: paint strokes of every "
            "class, including background; training ignores the rest. Background: everything unpainted is background, "
            "so paint every object completely."
        )
        self.meaning, self.background = Choice([AUTO, *self.MEANINGS], AUTO, about, typed=False), PaintedValue()
        self.background.setToolTip(
            wrapped("The painted value of the background, which is 0 in results. Auto: the value that looks like it.")
        )
        self.meaning.currentTextChanged.connect(self._meaning_chosen)

    def values(self) -> dict[str, Any]:
        """Read both rows; what is auto is left out."""
        meaning = self.meaning.value
        values: dict[str, Any] = {} if meaning == AUTO else {"unlabelled": self.MEANINGS[meaning]}
        if meaning == "background":
            return values | {"background": None}
        return values | ({} if self.background.value() < 0 else {"background": self.background.value()})

    def choose(self, values: dict[str, Any]) -> None:
        """Set the rows to settings."""
        names = {setting: name for name, setting in self.MEANINGS.items()}
        if "unlabelled" in values:
            self.meaning.value = names[values["unlabelled"]]
        if values.get("background") is not None:
            self.background.setValue(values["background"])

    def _meaning_chosen(self, _meaning: str) -> None:
        self.background.setEnabled(self.meaning.value != "background")


class LabelRows:
    """Shows the rows that apply to the labels layer and to the meaning of its values.

    Object ids and drawn lines define their own background. Masks of overlapping classes are usually painted completely,
    so unpainted voxels become background with this choice, and return to their earlier meaning with another one.

    Parameters
    ----------
    layout : QFormLayout
        Holds the rows of ``unpainted``.
    """

    def __init__(self, layout: Any, settings: SettingsForm, labels: LabelsPicker, unpainted: Unpainted) -> None:
        self._layout, self._settings, self._labels, self._unpainted = layout, settings, labels, unpainted
        self._kind, self._meaning_before = "classes", AUTO
        self.refresh()

    @property
    def kind(self) -> str:
        """Kind of labels: classes, objects, overlapping or drawn."""
        return "drawn" if self._labels.drawn else str(self._settings.fields["label_values"].read())

    def refresh(self) -> None:
        """Show the rows that apply and hide the others."""
        kind, before = self.kind, self._kind
        self._kind = kind
        for name, kinds in APPLIES.items():
            self._settings.show(name, visible=kind in kinds)
        for row in (self._unpainted.meaning, self._unpainted.background):
            show_row(self._layout, row, visible=kind in {"classes", "overlapping"})
        if kind != before and "overlapping" in {kind, before}:
            self._overlap(kind == "overlapping")

    def values(self) -> dict[str, Any]:
        """Return the settings that follow from the labels layer.

        Returns
        -------
        dict
            Plain values, in addition to those of the settings form.
        """
        if self.kind in {"classes", "overlapping"}:
            return self._unpainted.values()
        return {"unlabelled": "background", "background": None} | ({"lines": (1,)} if self.kind == "drawn" else {})

    def _overlap(self, overlapping: bool) -> None:
        meaning = self._unpainted.meaning
        self._labels.allow_further(allowed=overlapping)
        if overlapping:
            self._meaning_before = meaning.value
        meaning.value = "background" if overlapping else self._meaning_before


APPLIES = {
    "label_values": ("classes", "objects", "overlapping"),
    "objects_as": ("objects",),
    "boundary_width": ("objects",),
    "regions": ("classes",),
    "lines": ("classes",),
    "ignore_value": ("classes", "objects", "overlapping"),
    "label_blur": ("classes", "objects", "overlapping"),
    "head": ("classes", "objects"),
}
"""Kinds of labels for which a row is shown."""
