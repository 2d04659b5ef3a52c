"""The rows that say what labels mean: those that apply to what is chosen, and no others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QComboBox, QSpinBox

from napari_unetvnet.widgets.form import show_row
from napari_unetvnet.widgets.scroll import narrow, wrapped

if TYPE_CHECKING:
    from napari_unetvnet.widgets.form import SettingsForm
    from napari_unetvnet.widgets.pickers import LabelsPicker

__all__ = ["LabelRows", "Unpainted"]


class Unpainted:
    """What unpainted voxels mean, and which painted value means background."""

    MEANINGS = {"ignored": "ignore", "background": "background"}  # noqa: RUF012 (never changed)

    def __init__(self) -> None:
        self.meaning, self.background = narrow(QComboBox()), QSpinBox()
        self.meaning.addItems(list(self.MEANINGS))
        self.meaning.setToolTip(
            wrapped(
                "Ignored: paint strokes of every class, the background among them; nothing is learnt from the rest. "
                "Background: everything that is not painted is background, so paint all of what you look for."
            )
        )
        self.background.setRange(0, 255)
        self.background.setValue(1)
        self.background.setPrefix("label ")
        self.background.setSpecialValueText("no label")
        self.background.setToolTip(
            wrapped("The painted value that means background; results carry 0 there. Paint the others with 2, 3, ...")
        )
        self.meaning.currentTextChanged.connect(self._meaning_chosen)

    def values(self) -> dict[str, Any]:
        """Read both.

        Returns
        -------
        dict
        """
        meaning = self.MEANINGS[self.meaning.currentText()]
        return {"unlabelled": meaning, "background": (self.background.value() or None) if meaning == "ignore" else None}

    def _meaning_chosen(self, meaning: str) -> None:
        self.background.setEnabled(meaning == "ignored")


class LabelRows:
    """Shows the rows that go with the labels layer and with what its values are.

    Object ids have a background of their own, and so have lines that were drawn. Masks of overlapping classes mostly
    are painted whole: what is unpainted is then proposed to be background, and what it was before comes back with the
    choice before.

    Parameters
    ----------
    layout : QFormLayout
        Holds the rows of ``unpainted``.
    settings : SettingsForm
    labels : LabelsPicker
    unpainted : Unpainted
    """

    def __init__(self, layout: Any, settings: SettingsForm, labels: LabelsPicker, unpainted: Unpainted) -> None:
        self._layout, self._settings, self._labels, self._unpainted = layout, settings, labels, unpainted
        self._kind, self._meaning_before = "classes", ""
        self.refresh()

    @property
    def kind(self) -> str:
        """What the labels are: classes, objects, overlapping, or drawn."""
        return "drawn" if self._labels.drawn else str(self._settings.fields["label_values"].read())

    def refresh(self) -> None:
        """Show what applies and hide the rest."""
        kind, before = self.kind, self._kind
        self._kind = kind
        for name, kinds in APPLIES.items():
            self._settings.show(name, visible=kind in kinds)
        for row in (self._unpainted.meaning, self._unpainted.background):
            show_row(self._layout, row, visible=kind in {"classes", "overlapping"})
        if kind != before and "overlapping" in {kind, before}:
            self._overlap(kind == "overlapping")

    def values(self) -> dict[str, Any]:
        """Read what the labels layer itself decides.

        Returns
        -------
        dict
            Plain values that complete those of the settings form.
        """
        if self.kind in {"classes", "overlapping"}:
            return self._unpainted.values()
        return {"unlabelled": "background", "background": None} | ({"lines": (1,)} if self.kind == "drawn" else {})

    def _overlap(self, overlapping: bool) -> None:
        meaning = self._unpainted.meaning
        self._labels.allow_further(allowed=overlapping)
        if overlapping:
            self._meaning_before = meaning.currentText()
        meaning.setCurrentText("background" if overlapping else self._meaning_before)


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
"""Rows that are there for some kinds of labels only."""
