"""Helpers for many settings in a narrow dock: narrow combo boxes and tooltips, collapsible sections, a scroll area."""

from __future__ import annotations

import textwrap
from typing import Any

from qtpy.QtCore import QEvent, QSize, Qt
from qtpy.QtWidgets import QComboBox, QFrame, QLabel, QScrollArea, QSizePolicy, QVBoxLayout, QWidget
from superqt import QCollapsible

__all__ = ["Scrolling", "WrappedLabel", "folded", "narrow", "wrapped"]

LEAST_WIDTH, LEAST_HEIGHT = 300, 90
UNBOUNDED = (1 << 24) - 1
"""Height of a widget without a maximum (Qt's QWIDGETSIZE_MAX)."""
BORDER = 4
"""Width of the border that the style of napari draws around a scroll area."""


class Scrolling(QScrollArea):  # type: ignore[misc]
    """A scroll area that is as high as its content, and scrolls if there is less space.

    Parameters
    ----------
    *parts : QLayout or QWidget
        Content, from top to bottom.
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
        """Return the height of the content at the current width."""
        inside = self.widget()
        hint = inside.sizeHint()
        width = self.width() - BORDER  # without a scroll bar, unlike the viewport
        height = inside.heightForWidth(width) if inside.hasHeightForWidth() else hint.height()
        least = inside.minimumSizeHint().height()  # Qt never goes below it; wrapped text makes it larger
        return QSize(hint.width(), max(height, least, LEAST_HEIGHT) + BORDER)

    def eventFilter(self, watched: Any, event: Any) -> bool:  # noqa: N802 (Qt's name)
        """Update the height when the content changes."""
        if event.type() in {QEvent.Type.LayoutRequest, QEvent.Type.Resize}:
            bar = self.verticalScrollBar().sizeHint().width()
            self.setMinimumWidth(max(LEAST_WIDTH, self.widget().minimumSizeHint().width() + bar + BORDER))
            self.updateGeometry()
        return bool(super().eventFilter(watched, event))


class WrappedLabel(QLabel):  # type: ignore[misc]
    """Text in lines of the width that there is, always as high as these: Qt cuts off lines in a form otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.setWordWrap(True)
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)

    def setText(self, text: str) -> None:  # noqa: N802 (Qt's name)
        """Show a text."""
        super().setText(text)
        self._grow()

    def resizeEvent(self, event: Any) -> None:  # noqa: N802 (Qt's name)
        """Adapt the height to a new width."""
        super().resizeEvent(event)
        self._grow()

    def _grow(self) -> None:
        # A height that is set is a part of the answer for a width, so a text that became shorter would keep it.
        self.setMinimumHeight(0)
        self.setMaximumHeight(UNBOUNDED)
        self.setFixedHeight(self.heightForWidth(self.width()) if self.text() else 0)


def folded(title: str) -> tuple[Any, Any]:
    """Create a collapsible section.

    Returns
    -------
    section : QCollapsible
    inside : QWidget
        Empty; add a layout to it.
    """
    section = QCollapsible(title, expandedIcon="▾", collapsedIcon="▸")
    section.setDuration(0)
    inside = QWidget()
    section.addWidget(inside)
    return section, inside


def narrow(combo: Any) -> Any:
    """Let a combo box be narrower than its longest entry, so that long names do not widen the dock.

    Returns
    -------
    QComboBox
        The given one.
    """
    combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    combo.setMinimumContentsLength(6)
    combo.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    return combo


def wrapped(text: str) -> str:
    """Wrap a tooltip, because Qt does not wrap plain text."""
    return textwrap.fill(text.replace("``", ""), 60)
