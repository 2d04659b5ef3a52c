"""A button that shows something as layers, and waits while it is computed."""

from __future__ import annotations

from typing import Any

from qtpy.QtWidgets import QPushButton

from napari_unetvnet.widgets.scroll import wrapped

__all__ = ["LookButton"]


class LookButton(QPushButton):  # type: ignore[misc]
    """Is grey, and says so, from `wait` until its worker has finished or failed.

    Parameters
    ----------
    text, waiting : str
        What stands on it, and while it waits.
    about : str
        Its tooltip.
    worker : QObject
        With the signals ``finished`` and ``failed``.
    """

    def __init__(self, text: str, waiting: str, about: str, worker: Any) -> None:
        super().__init__(text)
        self._text, self._waiting = text, waiting
        self.setToolTip(wrapped(about))
        worker.finished.connect(self._over)
        worker.failed.connect(self._over)

    def wait(self) -> None:
        """Wait for the worker."""
        self.setEnabled(False)
        self.setText(self._waiting)

    def _over(self, _told: object) -> None:
        self.setEnabled(True)
        self.setText(self._text)
