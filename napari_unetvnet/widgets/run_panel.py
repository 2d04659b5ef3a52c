"""The lower half of a widget: the start and stop button, and the progress of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_unetvnet.errors import UserError
from napari_unetvnet.runs.folder import JOB
from napari_unetvnet.runs.kept import described
from napari_unetvnet.runs.state import last_events
from napari_unetvnet.widgets.run_list import RunList
from napari_unetvnet.widgets.run_view import RunView
from napari_unetvnet.widgets.scroll import folded, wrapped
from napari_unetvnet.widgets.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from napari_unetvnet.events import Event, RunFinished
    from napari_unetvnet.widgets.task import Prepare

__all__ = ["RunPanel"]

KILL_OFFER_MILLISECONDS = 15_000


class RunPanel(QWidget):  # type: ignore[misc]
    """Starts, stops and shows one run after the other.

    Parameters
    ----------
    kind : {"train", "segment", "inspect"}
        A run of this kind that a closed widget has started is adopted.
    verb, participle : str
        Texts of the button and of the status, such as "Train" and "Training".
    curves : bool
        Whether loss and Dice are drawn.
    """

    start_requested = Signal()
    """The button was pressed to start."""
    state_changed = Signal(str)
    """State of the task."""
    finished = Signal(object)
    """RunFinished of a run that is done or was stopped."""
    failed = Signal(object)
    """Error messages of a run that failed."""
    followed = Signal(object)
    """Folder of a run that was taken up: one that had ended, or one of another viewer or terminal."""

    def __init__(self, kind: str, viewer: Any, verb: str, participle: str, *, curves: bool) -> None:
        super().__init__()
        self._verb, self._participle = verb, participle
        self.button = QPushButton(verb)
        self.view = RunView(curves=curves)
        self.buttons = QHBoxLayout()
        self.buttons.addWidget(self.button, 2)
        self.again = self._resume_button()
        self.buttons.addWidget(self.again, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(self.buttons)
        layout.addWidget(self.view)
        self.list = self._add_list(kind, layout)
        self.task = Task.find_active(kind, viewer) or Task(kind, viewer)
        self.task.changed.connect(self._state_changed)
        self.task.event_received.connect(self._on_event)
        self.task.finished.connect(self._finished)
        self.task.failed.connect(self._failed)
        self.button.clicked.connect(self._pressed)
        self._kill_timer = QTimer(self)
        self._kill_timer.setSingleShot(True)
        self._kill_timer.setInterval(KILL_OFFER_MILLISECONDS)
        self._kill_timer.timeout.connect(self._offer_kill)
        self._state_changed(self.task.state)

    def attempt(self, start: Callable[[], tuple[str, Prepare]]) -> bool:
        """Start a run, or show the error.

        Parameters
        ----------
        start : callable
            Validates layers and settings and returns the name of the run and the function that writes its inputs; may
            raise UserError.

        Returns
        -------
        bool
            Whether it was started.
        """
        self.view.show_error(())
        try:
            name, prepare = start()
            self.view.clear()  # only now, so that after an error the progress of the last run stays visible
            self.task.start(name, prepare)
        except UserError as problem:
            self._failed(problem.lines)
            return False
        return True

    def follow(self, folder: Path, *, resume: bool = False) -> None:
        """Take up a run: one that is under way elsewhere, or, to continue it, one that has ended."""
        self.view.show_error(())
        try:
            self.task.follow(folder, resume=resume)
        except UserError as problem:
            self._failed(problem.lines)
            return
        self.view.clear()
        for event in last_events(folder):
            self.view.show_event(event)
        self.followed.emit(folder)

    def _add_list(self, kind: str, layout: QVBoxLayout) -> RunList:
        """Add the folded list of runs; what it holds is read when it is opened."""
        section, inside = folded("Runs")
        runs = RunList(kind)
        column = QVBoxLayout(inside)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(runs)
        section.toggled.connect(lambda _opened: runs.refresh())
        runs.follow_requested.connect(lambda folder, resume: self.follow(folder, resume=resume))
        layout.addWidget(section)
        return runs

    def _resume_button(self) -> QPushButton:
        button = QPushButton("Resume")
        button.setToolTip(wrapped("Continue the run where it ended, with its own layers and settings."))
        button.clicked.connect(self._resume)
        button.hide()
        return button

    def _resume(self) -> None:
        if self.task.folder is not None:
            self.follow(self.task.folder, resume=True)

    def _offer_resume(self) -> None:
        """Offer to continue the run that has just ended, if that is possible."""
        folder = self.task.folder
        self.again.setVisible(folder is not None and (folder / JOB).exists() and described(folder).resumable)

    def _pressed(self) -> None:
        if self.task.state == "idle":
            self.start_requested.emit()
        elif self.task.state == "stopping":
            self.task.kill()
        else:
            self.task.stop()

    def _state_changed(self, state: str) -> None:
        self.button.setText({"idle": self._verb, "stopping": "Stopping ..."}.get(state, "Stop"))
        self.button.setEnabled(state != "stopping")
        if state != "idle":
            self.again.hide()
        self.view.show_busy(visible=state in {"preparing", "running"})
        texts = {
            "preparing": "Writing the layers to the run folder ...",
            "running": "Starting ...",
            "stopping": "Stopping after the current step; progress is saved ...",
        }
        self.view.set_status(texts.get(state, ""))
        if state == "stopping":
            self._kill_timer.start()
        else:
            self._kill_timer.stop()
        if self.list.isVisible():
            self.list.refresh()
        self.state_changed.emit(state)

    def _offer_kill(self) -> None:
        """Let the user kill a run that does not stop."""
        if self.task.process_id is None:  # of another viewer or terminal
            return
        self.button.setText("Stop now")
        self.button.setEnabled(True)

    def _on_event(self, event: Event) -> None:
        if self.task.state == "running":
            self.view.set_status(f"{self._participle} ...")
        self.view.show_event(event)

    def _finished(self, event: RunFinished) -> None:
        self.view.bar.hide()
        self.view.show_end()
        self._offer_resume()
        self.finished.emit(event)

    def _failed(self, lines: Sequence[str]) -> None:
        self.view.bar.hide()
        self.view.set_status("")
        self.view.show_error(lines)
        self._offer_resume()
        self.failed.emit(lines)
