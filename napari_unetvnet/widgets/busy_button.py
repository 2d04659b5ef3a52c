"""A button that is disabled while its worker is busy."""

from __future__ import annotations

from typing import Any

from qtpy.QtWidgets import QPushButton

from napari_unetvnet.widgets.scroll import wrapped

__all__ = ["BusyButton"]


class BusyButton(QPushButton):  # type: ignore[misc]
    """Is disabled, with another text, from `wait` until its worker has finished or failed.

    Parameters
    ----------
    text, busy_text : str
        Text of the button, and while the worker is busy.
    worker : QObject
        With the signals ``finished`` and ``failed``.
    """

    def __init__(self, text: str, busy_text: str, tooltip: str, worker: Any) -> None:
        super().__init__(text)
        self._text, self._busy_text = text, busy_text
        self.setToolTip(wrapped(tooltip))
        worker.finished.connect(self._enable)
        worker.failed.connect(self._enable)

    def wait(self) -> None:
        """Disable the button until the worker has finished or failed."""
        self.setEnabled(False)
        self.setText(self._busy_text)

    def _enable(self, _result: object) -> None:
        self.setEnabled(True)
        self.setText(self._text)
