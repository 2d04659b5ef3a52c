"""The names of classes, beside their label values or mask layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QHeaderView, QTableWidget, QTableWidgetItem

from napari_unetvnet.losses import BACKGROUND, REST
from napari_unetvnet.settings.class_names import FORBIDDEN
from napari_unetvnet.widgets.scroll import wrapped

if TYPE_CHECKING:
    from napari_unetvnet.widgets.pickers import LabelsPicker

__all__ = ["ClassNameTable", "named_values"]

MOST_ROWS, SHOWN_ROWS, ROW_HEIGHT = 64, 4, 22
READ_VOXELS = 1 << 26
"""Of larger layers values are not looked for: that would stop the viewer."""


class ClassNameTable(QTableWidget):  # type: ignore[misc]
    """A row for each painted value, or for each mask, with its name.

    Values and layers are looked up when the mouse enters the table and when `refresh` is called.
    """

    changed = Signal()
    """A name was edited."""

    def __init__(self, labels: LabelsPicker) -> None:
        super().__init__(0, 2)
        self._labels, self._kind = labels, "classes"
        self._typed: dict[tuple[str, int], str] = {}
        self.setHorizontalHeaderLabels(["value", "name"])
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)
        self.horizontalHeader().setSectionResizeMode(1, QHeaderView.ResizeMode.Stretch)
        self.setColumnWidth(0, 60)
        self.setToolTip(
            wrapped(
                "Names of the classes, for scores, results and losses by class; empty: the value. Masks have the names "
                "of their layers."
            )
        )
        self.itemChanged.connect(self._edited)

    def refresh(self, kind: str | None = None) -> None:
        """Show the values or masks that are there.

        Parameters
        ----------
        kind : {"classes", "objects", "overlapping", "drawn"}, optional
            What labels are; by default as before. Only classes and masks have rows.
        """
        self._kind = kind or self._kind
        rows = self._rows()
        if rows == self._shown():
            return
        self.blockSignals(True)
        self.setRowCount(len(rows))
        for row, (value, name) in enumerate(rows):
            number, text = QTableWidgetItem(str(value)), QTableWidgetItem(name)
            number.setFlags(Qt.ItemFlag.ItemIsEnabled)
            self.setItem(row, 0, number)
            self.setItem(row, 1, text)
        self.blockSignals(False)
        height = (1 + max(1, min(SHOWN_ROWS, len(rows)))) * ROW_HEIGHT + 4
        self.setFixedHeight(height)
        self.changed.emit()

    def values(self) -> dict[str, Any]:
        """Read the names.

        Returns
        -------
        dict
            Plain value of ``class_names``; empty without a name.
        """
        names = [f"{value}={name}" for value, name in self._shown() if name]
        return {"class_names": names} if names and self._kind in {"classes", "overlapping"} else {}

    def enterEvent(self, event: Any) -> None:  # noqa: N802 (Qt's name)
        """Look for newly painted values."""
        self.refresh()
        super().enterEvent(event)

    def _shown(self) -> list[tuple[int, str]]:
        texts = [(self.item(row, 0).text(), self.item(row, 1).text().strip()) for row in range(self.rowCount())]
        return [(int(value), name) for value, name in texts]

    def _rows(self) -> list[tuple[int, str]]:
        """Give value and name of each class, as typed or by default."""
        if self._kind == "overlapping":
            usual = {i: _usable(str(layer.name)) for i, layer in enumerate(self._labels.layers, 1)}
        elif self._kind == "classes" and self._labels.layer is not None:
            usual = named_values(self._labels.layer)
        else:
            usual = {}
        return [(value, self._typed.get((self._kind, value), name)) for value, name in usual.items()]

    def _edited(self, item: QTableWidgetItem) -> None:
        if item.column() == 1:
            self._typed[self._kind, int(self.item(item.row(), 0).text())] = item.text().strip()
            self.changed.emit()


def named_values(layer: Any) -> dict[int, str]:
    """Find the painted values of a labels layer, and their names in its table of features.

    Returns
    -------
    dict of int to str
        Names are empty where the table has none; nothing for a large layer or one with very many values.
    """
    data = getattr(layer, "data", None)
    if not isinstance(data, np.ndarray) or data.size > READ_VOXELS:
        return {}
    values = [int(value) for value in np.unique(data) if value]
    features = layer.features
    table = dict(zip(features["index"], features["name"], strict=True)) if {"index", "name"} <= {*features} else {}
    return {value: str(table.get(value, "")) for value in values} if len(values) <= MOST_ROWS else {}


def _usable(name: str) -> str:
    """Take out what a name of a class may not have; a name that cannot be used at all becomes none."""
    usable = " ".join("".join(" " if letter in FORBIDDEN else letter for letter in name).split())
    return "" if usable.isdecimal() or usable in {REST, BACKGROUND} else usable
