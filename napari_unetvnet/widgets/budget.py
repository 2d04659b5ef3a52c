"""The row of a form for the budget of a training."""

from __future__ import annotations

from typing import Any

from qtpy.QtWidgets import QComboBox, QDoubleSpinBox, QHBoxLayout, QWidget

from napari_unetvnet.widgets.auto import AUTO
from napari_unetvnet.widgets.scroll import wrapped

__all__ = ["Budget"]


class Budget(QWidget):  # type: ignore[misc]
    """Training budget in minutes, epochs or steps; at the minimum, auto."""

    STARTS = {"minutes": 0.0, "epochs": 20.0, "steps": 500.0}  # noqa: RUF012 (never changed)

    def __init__(self) -> None:
        super().__init__()
        self.amount, self.unit = QDoubleSpinBox(), QComboBox()
        self.unit.addItems(list(self.STARTS))
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.amount, 1)
        layout.addWidget(self.unit)
        self.amount.setSpecialValueText(AUTO)
        self.setToolTip(
            wrapped("Time, number of epochs or number of steps. Stop ends earlier and saves the best model.")
        )
        self.unit.currentTextChanged.connect(self._unit_chosen)
        self._unit_chosen(self.unit.currentText())

    def choose(self, amount: float, unit: str) -> None:
        """Set the budget.

        Parameters
        ----------
        unit : {"minutes", "epochs", "steps"}
        """
        self.unit.setCurrentText(unit)
        self.amount.setValue(amount)

    def values(self) -> dict[str, Any]:
        """Read the budget.

        Returns
        -------
        dict
            One of minutes, epochs, steps; empty for auto.
        """
        unit, amount = self.unit.currentText(), self.amount.value()
        return {} if amount == self.amount.minimum() else {unit: amount if unit == "minutes" else int(amount)}

    def _unit_chosen(self, unit: str) -> None:
        whole = unit != "minutes"
        self.amount.setDecimals(0 if whole else 1)
        self.amount.setRange(0, 1e6)
        self.amount.setValue(self.STARTS[unit])
