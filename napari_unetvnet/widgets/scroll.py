"""Many settings in a narrow dock: narrow choices and tooltips, a section that folds away, a scrolling area."""

from __future__ import annotations

import textwrap
from typing import Any

from qtpy.QtCore import QEvent, QSize, Qt
from qtpy.QtWidgets import QComboBox, QFrame, QScrollArea, QSizePolicy, QVBoxLayout, QWidget
from superqt import QCollapsible

__all__ = ["Scrolling", "folded", "narrow", "wrapped"]

LEAST_WIDTH, LEAST_HEIGHT = 300, 90
BORDER = 4
"""Napari's style draws a border around every scroll area."""


class Scrolling(QScrollArea):  # type: ignore[misc]
    """As high as what is in it; scrolls where there is less space, so that no form is ever cut off.

    Parameters
    ----------
    *parts : QLayout or QWidget
        Put below each other.
    """

    def __init__(self, *parts: Any) -> None:
        super().__init__()
        inside = QWidget()
        column = QVBoxLayout(inside)
        column.setContentsMargins(0, 0, 4, 0)
        for part in parts:
            if isinstance(part, QWidget):
                column.addWidget(part)
            else:
                column.addLayout(part)
        column.addStretch(1)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        self.setMinimumHeight(LEAST_HEIGHT)
        self.setWidget(inside)
        inside.installEventFilter(self)

    def sizeHint(self) -> Any:  # noqa: N802 (Qt's name)
        """Ask for the height of the content at the present width.

        Returns
        -------
        QSize
        """
        inside = self.widget()
        hint = inside.sizeHint()
        width = self.width() - BORDER  # not that of the viewport: without a scroll bar it would be this wide
        height = inside.heightForWidth(width) if inside.hasHeightForWidth() else hint.height()
        least = inside.minimumSizeHint().height()  # what Qt gives it in any case; wrapped text makes it larger
        return QSize(hint.width(), max(height, least, LEAST_HEIGHT) + BORDER)

    def eventFilter(self, watched: Any, event: Any) -> bool:  # noqa: N802 (Qt's name)
        """Ask for another height when the content changes.

        Parameters
        ----------
        watched : QObject
        event : QEvent

        Returns
        -------
        bool
        """
        if event.type() in {QEvent.Type.LayoutRequest, QEvent.Type.Resize}:
            bar = self.verticalScrollBar().sizeHint().width()
            self.setMinimumWidth(max(LEAST_WIDTH, self.widget().minimumSizeHint().width() + bar + BORDER))
            self.updateGeometry()
        return bool(super().eventFilter(watched, event))


def folded(title: str) -> tuple[Any, Any]:
    """Make a section that opens when its title is pressed.

    Parameters
    ----------
    title : str

    Returns
    -------
    section : QCollapsible
    inside : QWidget
        Still empty.
    """
    section = QCollapsible(title, expandedIcon="▾", collapsedIcon="▸")
    section.setDuration(0)
    inside = QWidget()
    section.addWidget(inside)
    return section, inside


def narrow(combo: Any) -> Any:
    """Let a combo box be narrower than its longest entry, so that long names do not widen the dock.

    Parameters
    ----------
    combo : QComboBox

    Returns
    -------
    QComboBox
        The same.
    """
    combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    combo.setMinimumContentsLength(6)
    combo.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    return combo


def wrapped(text: str) -> str:
    """Break a tooltip into lines, which Qt does not.

    Parameters
    ----------
    text : str

    Returns
    -------
    str
    """
    return textwrap.fill(text.replace("``", ""), 60)
