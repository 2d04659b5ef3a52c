"""Follow a run from the viewer without blocking it.

A task goes from idle to preparing (a thread writes the inputs and starts the child process), to running, perhaps to
stopping, and back to idle. One timer polls the thread, the events and the child process; a run has ended when its
process has exited, so that its memory is free for the next run. Every task is registered with napari: its close dialog
lists them, and closing the viewer anyway stops the run, which saves the best model so far.
"""

from __future__ import annotations

import shutil
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal

from qtpy.QtCore import QObject, QTimer, Signal

from napari_unetvnet import runs
from napari_unetvnet.errors import RunProblem, UserError
from napari_unetvnet.events import RunFinished
from napari_unetvnet.files import FULL_BYTES
from napari_unetvnet.runs.state import is_held, whole_size

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from napari_unetvnet.settings import Job

    Prepare = Callable[[Path, threading.Event], Job]

__all__ = ["State", "Task", "unwrapped"]

State = Literal["idle", "preparing", "running", "stopping"]
POLL_MILLISECONDS = 100
EXIT_SECONDS, LOOK_SECONDS = 10.0, 0.5
LOG_BYTES, LOG_LINES = 4096, 6
_ACTIVE: set[Task] = set()
"""Active tasks, which continue when their widget is closed."""


def unwrapped(viewer: Any) -> Any:
    """Return the viewer behind the proxy that napari gives to widgets, through which each access wraps a layer anew."""
    return getattr(viewer, "__wrapped__", viewer)


class Task(QObject):  # type: ignore[misc]
    """A run in a child process and its events.

    Parameters
    ----------
    kind : {"train", "segment", "inspect"}
    """

    event_received = Signal(object)
    """An event of the run."""
    changed = Signal(str)
    """The state."""
    finished = Signal(object)
    """RunFinished of a run that is done or was stopped."""
    failed = Signal(object)
    """Error messages of a run that failed, tuple of str."""

    def __init__(self, kind: str, viewer: Any) -> None:
        super().__init__()
        self.kind, self.viewer = kind, unwrapped(viewer)
        self.state: State = "idle"
        self.folder: Path | None = None
        self._window = getattr(self.viewer, "window", None)
        self._ticket: Any = None
        self._cancelled = threading.Event()
        self._launch: Future[subprocess.Popen[bytes] | None] | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._offset = 0
        self._last: RunFinished | None = None
        self._last_time = self._next_look = 0.0
        self._timer = QTimer(self)
        self._timer.setInterval(POLL_MILLISECONDS)
        self._timer.timeout.connect(self._poll)

    @classmethod
    def find_active(cls, kind: str, viewer: Any) -> Task | None:
        """Find an active task of a widget that was closed.

        Parameters
        ----------
        kind : {"train", "segment", "inspect"}

        Returns
        -------
        Task or None
        """
        tasks = (task for task in _ACTIVE if task.kind == kind and task.viewer is unwrapped(viewer))
        return next(tasks, None)

    @property
    def process_id(self) -> int | None:
        """Process id of the child, None if there is none."""
        return self._child.pid if self._child else None

    def start(self, name: str, prepare: Prepare) -> None:
        """Create a run folder and start the run.

        Parameters
        ----------
        name : str
            Name of the folder.
        prepare : callable (folder, cancelled) -> TrainJob, SegmentJob or InspectJob
            Writes the inputs in a worker thread; should return early once ``cancelled`` is set.

        Raises
        ------
        RunProblem
            If the task is active already.
        FileProblem
            If no folder can be created.
        """
        if self.state != "idle":
            raise RunProblem("A run is active already; stop it, or wait until it has ended.")
        self.folder = runs.new_folder(name)
        self._cancelled = threading.Event()
        self._offset, self._last, self._child = 0, None, None
        executor = ThreadPoolExecutor(1, thread_name_prefix="napari-unetvnet")
        self._launch = executor.submit(_launched, self.folder, prepare, self._cancelled)
        executor.shutdown(wait=False)
        _ACTIVE.add(self)
        self._register(f"{name} in {self.folder}")
        self._become("preparing")
        self._timer.start()

    def follow(self, folder: Path, *, resume: bool = False) -> None:
        """Follow a run that is under way in a process of another viewer or terminal, or continue one that has ended.

        Its earlier events are not received again.

        Parameters
        ----------
        resume : bool
            Whether to continue it.

        Raises
        ------
        RunProblem
            If the task is active already, or the run cannot be continued or is not under way.
        """
        if self.state != "idle":
            raise RunProblem("A run is active already; stop it, or wait until it has ended.")
        if resume == is_held(folder):
            raise RunProblem(f"{folder.name} {'is under way already; follow it' if resume else 'has ended'}.")
        self.folder, self._cancelled = folder, threading.Event()
        self._offset, self._last, self._launch = whole_size(folder), None, None
        try:
            self._child = runs.start(folder, resume=True) if resume else None
        except OSError as error:
            raise RunProblem(f"{folder.name} cannot be continued ({error.strerror or error}).") from error
        self._next_look = time.monotonic() + LOOK_SECONDS
        _ACTIVE.add(self)
        if resume:  # napari asks before it closes the window; a run of another process goes on anyway
            self._register(f"{folder.name} in {folder}")
        self._become("running")
        self._timer.start()

    def stop(self) -> bool:
        """Ask the run to save its progress and end after the current step.

        Returns
        -------
        bool
            Whether a run was active.
        """
        if self.state == "idle" or self.folder is None:
            return False
        self._cancelled.set()
        if self._launch is None:  # otherwise the folder may be about to be deleted; see _check_launch
            try:
                runs.ask_to_stop(self.folder)
            except OSError:  # the folder is gone; that the run has ended is told as soon as it has
                return True
        self._become("stopping")
        return True

    def kill(self) -> None:
        """Kill a child that does not stop; its saved progress is kept."""
        if self._child is not None:
            self._child.kill()

    def _become(self, state: State) -> None:
        if state != self.state:
            self.state = state
            self.changed.emit(state)

    def _poll(self) -> None:
        try:
            if self._launch is not None and not self._check_launch():
                return
            if self.state != "idle":
                self._read_events()
        except UserError as problem:
            self._end(problem.lines)
        except Exception as error:  # noqa: BLE001 (on any error the buttons must be enabled again)
            self._end((f"The run could not be followed: {type(error).__name__}: {error}",))

    def _check_launch(self) -> bool:
        """Return whether the worker thread has finished, and take over the child that it started."""
        if self._launch is None or not self._launch.done():
            return False
        future, self._launch = self._launch, None
        self._child = future.result()
        if self._child is None:
            self._last = RunFinished("stopped")
            self._end(())
        elif self._cancelled.is_set() and self.folder is not None:
            runs.ask_to_stop(self.folder)  # a stop was requested while the child was started
        else:
            self._become("running")
        return True

    def _read_events(self) -> None:
        """Emit new events; the run has ended when its process has exited."""
        if self.folder is None:
            return
        exited = self._exited()  # before the events are read, so that none is missed
        events, self._offset = runs.follow(self.folder, self._offset)
        for event in events:
            if isinstance(event, RunFinished):
                self._last, self._last_time = event, time.monotonic()
            self.event_received.emit(event)
        if exited or (self._last and time.monotonic() - self._last_time > EXIT_SECONDS):
            self._end(self._error_lines())

    def _exited(self) -> bool:
        """Whether the process of the run has ended; that of another viewer or terminal holds the lock of the folder."""
        if self._child is not None:
            return self._child.poll() is not None
        if time.monotonic() < self._next_look or self.folder is None:
            return False
        self._next_look = time.monotonic() + LOOK_SECONDS
        return not is_held(self.folder)

    def _error_lines(self) -> tuple[str, ...]:
        """Return the error messages of the run, empty if it did not fail."""
        log = None if self.folder is None else self.folder / runs.LOG
        if self.folder is not None and not (self.folder / runs.JOB).exists():
            return (f"The run folder {self.folder} was removed while the run was under way; its progress is lost.",)
        if self._last is None:
            code = self._child.returncode if self._child else None
            how = f"was killed (signal {-code})" if code is not None and code < 0 else f"crashed (exit status {code})"
            how = "ended" if self._child is None else how
            text = f"The run {how} without an error message; perhaps {_lack(self.folder)} ran out."
            resume = f"Resume it with the button, or with: napari-unetvnet run {self.folder} --resume"
            return (text, *_tail(log), f"Log: {log}", resume)
        if self._last.state != "failed":
            return ()
        return (*self._last.lines, f"Log: {log}") if self._last.fault else self._last.lines

    def _end(self, lines: tuple[str, ...]) -> None:
        self._timer.stop()
        self._launch = None
        _ACTIVE.discard(self)
        self._unregister(failed=bool(lines))
        self._become("idle")
        if lines or self._last is None:
            self.failed.emit(lines)
        else:
            self.finished.emit(self._last)

    def _register(self, description: str) -> None:
        """Register with napari, which asks before it closes the window during a task, and then calls `stop`."""
        register = getattr(self._window, "_register_task_status", None)
        if register is not None:
            from napari.utils.task_status import Status

            self._ticket = register("napari-unetvnet", Status.BUSY, description, cancel_callback=self.stop)

    def _unregister(self, *, failed: bool) -> None:
        update = getattr(self._window, "_update_task_status", None)
        if update is not None and self._ticket is not None:
            from napari.utils.task_status import Status

            update(self._ticket, Status.FAILED if failed else Status.COMPLETED, "")
        self._ticket = None


def _launched(folder: Path, prepare: Prepare, cancelled: threading.Event) -> subprocess.Popen[bytes] | None:
    """Write the inputs and start the child; if cancelled, remove the folder and return None."""
    try:
        job = prepare(folder, cancelled)
        if not cancelled.is_set():
            runs.create(folder, job)
            return runs.start(folder)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise RunProblem(f"The run cannot be started in {folder} ({error}); check the disk and the memory.") from error
    except Exception:
        shutil.rmtree(folder, ignore_errors=True)  # incomplete inputs may be large
        raise
    shutil.rmtree(folder, ignore_errors=True)
    return None


def _lack(folder: Path | None) -> str:
    """Say what a run without a last event may have lacked: room for it where the disk is full, else memory."""
    full = folder is not None and folder.exists() and shutil.disk_usage(folder).free < FULL_BYTES
    return f"the room on the disk of {folder}" if full else "memory"


def _tail(log: Path | None) -> tuple[str, ...]:
    """Return the last lines of a log."""
    if log is None or not log.exists():
        return ()
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LOG_BYTES))
        text = file.read().decode("utf-8", errors="replace")
    lines = [line.rpartition("\r")[2].strip() for line in text.splitlines()]
    return tuple(line for line in lines if line)[-LOG_LINES:]
