"""Rows set to auto, which are chosen from the data; after planning, the row also shows the chosen value."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QAbstractSpinBox, QComboBox, QLineEdit

from napari_unetvnet.errors import FileProblem
from napari_unetvnet.settings.decision import read_decisions
from napari_unetvnet.widgets.scroll import narrow, wrapped

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["AUTO", "CHOSEN", "Choice", "Planned", "describe", "is_auto", "planned_in", "reasons", "show_planned"]

AUTO = "auto"
CHOSEN = "Auto: chosen from the data when the training begins."


class Planned(NamedTuple):
    """The value that a run chose for a row, as text, and the reason."""

    name: str
    value: str
    reason: str


def planned_in(path: Path) -> tuple[Planned, ...]:
    """Read the plan of a run; each option of the network is a separate item.

    Parameters
    ----------
    path : Path
        The plan in the run folder.

    Returns
    -------
    tuple of Planned
        Empty if there is no readable plan.
    """
    try:
        decisions = read_decisions(path, "start a new run")
    except FileProblem:  # the run says so itself
        return ()
    return tuple(
        Planned(name, _model(value) if name == "start_from" else _written(value), each.reason)
        for each in decisions
        for name, value in (each.value if isinstance(each.value, dict) else {each.name: each.value}).items()
    )


def _model(value: Any) -> str:
    return Path(str(value)).stem if value else "nothing"


def _written(value: Any) -> str:
    """Format a value as its row expects it."""
    return (" ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)


def is_auto(text: str) -> bool:
    """Return whether a row is set to auto.

    Parameters
    ----------
    text : str
        Text of the row: "auto", or "auto: value" after planning.

    Returns
    -------
    bool
    """
    return text.partition(":")[0].strip().lower() == AUTO


def reasons(planned: Sequence[Planned]) -> str:
    """Give one line for each choice of a plan, with its reason."""
    return "\n".join(f"{item.name.replace('_', ' ')} {item.value}: {item.reason}" for item in planned)


class Choice(QComboBox):  # type: ignore[misc]
    """A combo box, optionally with free text; has the interface of a magicgui widget.

    Parameters
    ----------
    value : str
        Initial value.
    typed : bool
        Whether free text is allowed.
    """

    def __init__(self, choices: Sequence[str], value: str, tooltip: str, *, typed: bool = True) -> None:
        super().__init__()
        self.native, self.tooltip = self, tooltip
        self.setEditable(typed)
        self.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.addItems(list(choices))
        self.setToolTip(tooltip)
        self.value = value
        self.changed = self.currentTextChanged
        narrow(self)

    @property
    def value(self) -> str:
        """The text; just "auto" if the row also shows the chosen value."""
        text = str(self.currentText()).strip()
        return AUTO if is_auto(text) else text

    @value.setter
    def value(self, text: str) -> None:
        self.setCurrentText(str(self.itemText(0)) if is_auto(text) and is_auto(self.itemText(0)) else text)


def show_planned(widget: Any, value: str = "", reason: str = "") -> None:
    """Show the value that auto stands for in a row; without a value, just "auto".

    Parameters
    ----------
    widget : QComboBox, QSpinBox, QDoubleSpinBox or QLineEdit
        A combo box has auto as its first item, a spin box as its special value, an empty line as its placeholder.
    """
    text = f"{AUTO}: {value}" if value else AUTO
    with QSignalBlocker(widget):
        if isinstance(widget, QComboBox) and is_auto(widget.itemText(0)):
            typed = widget.currentText()
            widget.setItemText(0, text)
            if widget.isEditable():  # the text is not an item, so typed text is kept
                widget.setEditText(text if is_auto(typed) else typed)
        elif isinstance(widget, QLineEdit):
            widget.setPlaceholderText(text if value else str(widget.property("empty") or AUTO))
        elif isinstance(widget, QAbstractSpinBox) and is_auto(widget.specialValueText()):
            widget.setSpecialValueText(text)
    about = widget.property("about")
    widget.setProperty("planned", wrapped(f"Auto chose {value}: {reason}.") if value else "")
    describe(widget, widget.toolTip() if about is None else about)


def describe(widget: Any, about: str) -> None:
    """Set the tooltip of a row, followed by the value that auto stands for."""
    widget.setProperty("about", about)
    widget.setToolTip("\n\n".join(filter(None, (about, widget.property("planned")))))
