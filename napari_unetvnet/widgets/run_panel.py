"""The lower half of a widget: the button that starts and stops, and what is seen of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_unetvnet.errors import UserError
from napari_unetvnet.widgets.run_view import RunView
from napari_unetvnet.widgets.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_unetvnet.events import Event, RunFinished
    from napari_unetvnet.widgets.task import Prepare

__all__ = ["RunPanel"]

PATIENCE_MILLISECONDS = 15_000


class RunPanel(QWidget):  # type: ignore[misc]
    """Starts, stops and shows one run after the other.

    Parameters
    ----------
    kind : {"train", "segment"}
        A run of this kind that goes on from a closed widget is taken over.
    viewer : napari Viewer or ViewerModel
    verb, doing : str
        On the button and in the status, such as "Train" and "Training".
    curves : bool
        Whether loss and Dice are drawn.
    """

    wanted = Signal()
    """The button was pressed to start."""
    state_changed = Signal(str)
    """State of the task."""
    finished = Signal(object)
    """RunFinished of a run that is done or was stopped."""
    failed = Signal(object)
    """Sentences of a run that failed."""

    def __init__(self, kind: str, viewer: Any, verb: str, doing: str, *, curves: bool) -> None:
        super().__init__()
        self._verb, self._doing = verb, doing
        self.button = QPushButton(verb)
        self.view = RunView(curves=curves)
        self.buttons = QHBoxLayout()
        self.buttons.addWidget(self.button, 2)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(self.buttons)
        layout.addWidget(self.view)
        self.task = Task.under_way(kind, viewer) or Task(kind, viewer)
        self.task.changed.connect(self._state_changed)
        self.task.happened.connect(self._happened)
        self.task.finished.connect(self._finished)
        self.task.failed.connect(self._failed)
        self.button.clicked.connect(self._pressed)
        self._patience = QTimer(self)
        self._patience.setSingleShot(True)
        self._patience.setInterval(PATIENCE_MILLISECONDS)
        self._patience.timeout.connect(self._offer_kill)
        self._state_changed(self.task.state)

    def attempt(self, start: Callable[[], tuple[str, Prepare]]) -> bool:
        """Start a run, or show why that cannot be.

        Parameters
        ----------
        start : callable
            Looks at layers and settings and gives the run's name and what writes its inputs; may raise UserError.

        Returns
        -------
        bool
            Whether it was started.
        """
        self.view.complain(())
        try:
            name, prepare = start()
            self.view.clear()  # only now: a refusal leaves what the last run has shown
            self.task.begin(name, prepare)
        except UserError as problem:
            self._failed(problem.lines)
            return False
        return True

    def _pressed(self) -> None:
        if self.task.state == "idle":
            self.wanted.emit()
        elif self.task.state == "stopping":
            self.task.kill()
        else:
            self.task.stop()

    def _state_changed(self, state: str) -> None:
        self.button.setText({"idle": self._verb, "stopping": "Stopping ..."}.get(state, "Stop"))
        self.button.setEnabled(state != "stopping")
        self.view.wait(visible=state in {"preparing", "running"})
        sentences = {
            "preparing": "Writing the layers to the run folder ...",
            "running": "Starting ...",
            "stopping": "Stopping after the present step; what was reached is kept ...",
        }
        self.view.say(sentences.get(state, ""))
        if state == "stopping":
            self._patience.start()
        else:
            self._patience.stop()
        self.state_changed.emit(state)

    def _offer_kill(self) -> None:
        """Let the user end a run that does not stop."""
        self.button.setText("End it now")
        self.button.setEnabled(True)

    def _happened(self, event: Event) -> None:
        if self.task.state == "running":
            self.view.say(f"{self._doing} ...")
        self.view.show_event(event)

    def _finished(self, event: RunFinished) -> None:
        self.view.bar.hide()
        self.view.show_end()
        self.finished.emit(event)

    def _failed(self, lines: Sequence[str]) -> None:
        self.view.bar.hide()
        self.view.say("")
        self.view.complain(lines)
        self.failed.emit(lines)
