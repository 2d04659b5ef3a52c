"""Execute a run: run the job of its folder, log the events and the final state, and stop on request."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from napari_unetvnet.errors import DeviceProblem, FileProblem, RunProblem, SettingsProblem, UserError
from napari_unetvnet.events import Event, Notice, RunFinished, SlabDone, StepDone, to_line
from napari_unetvnet.files import FULL, write_problem
from napari_unetvnet.runs.disk import done_before, drop_copies, keep_within_limit, kept_text
from napari_unetvnet.runs.folder import EVENTS, JOB, LOCK, PLACES, STOP, check_own_files, create, follow, read
from napari_unetvnet.runs.inspect import inspect
from napari_unetvnet.runs.results import deliver
from napari_unetvnet.runs.segment import segment
from napari_unetvnet.runs.train import train
from napari_unetvnet.settings import InspectJob, Job, SegmentJob, TrainJob, checked
from napari_unetvnet.training.processes import SINGLE, ProcessGroup, from_environment

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping
    from io import FileIO

__all__ = ["run"]

STEP_SECONDS = 0.25
LOCK_SECONDS = 0.5
"""Of waiting for the lock of a folder, which whoever asks whether a run is under way holds for a moment."""


def run(folder: Path, *, resume: bool = False, budget: Mapping[str, Any] | None = None) -> Iterator[Event]:
    """Run the job of a run folder in this process; each event is also written to the folder.

    In a process group started by torchrun all ranks train, and only rank 0 writes files. Other jobs run on rank 0.

    Parameters
    ----------
    resume : bool
        Whether to continue an interrupted run of the folder.
    budget : mapping, optional
        Total minutes, epochs or steps, which replace the budget of the job.

    Yields
    ------
    Event
        The last one is RunFinished.

    Raises
    ------
    RunProblem
        If the folder is not a run, or was used before and ``resume`` is False.
    UserError
        Any user-correctable error; it is written to the folder as RunFinished first.
    GeneratorExit
        If the consumer closes the generator: the run is stopped and its progress is saved.
    """
    job, group = _with_budget(read(folder), budget or {}), from_environment()
    if not isinstance(job, TrainJob):
        yield from _run_as_first(folder, job, SINGLE, resume=resume) if group.is_first else (RunFinished("done"),)
        return
    with group.joined(job):
        yield from (_run_as_first if group.is_first else _run_as_other)(folder, job, group, resume=resume)


def _with_budget(job: Job, budget: Mapping[str, Any]) -> Job:
    """Return the job with its budget replaced."""
    if not budget:
        return job
    if not isinstance(job, TrainJob):
        raise SettingsProblem(f"Only a training has a budget; leave out {' and '.join(budget)}.")
    values = {name: getattr(job, name) for name in job.model_fields_set - {"minutes", "epochs", "steps"}}
    return checked(TrainJob, values | dict(budget))


def _run_as_first(folder: Path, job: Job, group: ProcessGroup, *, resume: bool) -> Generator[Event]:
    """Run the job as rank 0, which owns the run folder."""
    with ExitStack() as open_until_end:
        with _file_problems(folder):
            writer = open_until_end.enter_context(_locked(folder, resume=resume))
        if job != read(folder):
            create(folder, job)
        yield from _logged(folder, job, writer, group, resume=resume)


def _run_as_other(folder: Path, job: TrainJob, group: ProcessGroup, *, resume: bool) -> Generator[Event]:
    """Run the job as another rank, whose events are discarded."""
    with Path(os.devnull).open("wb", buffering=0) as null:
        yield RunFinished((yield from _drive(folder, job, _EventWriter(null), group, resume=resume)))


@contextmanager
def _locked(folder: Path, *, resume: bool) -> Iterator[_EventWriter]:
    """Lock a run folder against other processes and open its events file."""
    from filelock import FileLock, Timeout

    check_own_files(folder)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=LOCK_SECONDS)
    except Timeout:
        raise RunProblem(f"{folder} is in use by another process; wait until it ends, or stop it.") from None
    with lock:
        if resume:
            (folder / STOP).unlink(missing_ok=True)
        elif (folder / EVENTS).exists():
            raise RunProblem(f"{folder} was run before; add --resume to continue, or copy its {JOB} to a new folder.")
        else:
            (folder / PLACES).unlink(missing_ok=True)  # copied with the job, and of another run
        _drop_incomplete_line(folder / EVENTS)
        with (folder / EVENTS).open("ab", buffering=0) as file:
            yield _EventWriter(file)


@contextmanager
def _file_problems(folder: Path) -> Iterator[None]:
    """Turn a failure to read or write a file of a run into a sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            advice = "choose other folders for the run and the output"
            raise write_problem(error, Path(str(error.filename or folder)), advice) from error
        raise FileProblem(f"A file of the run in {folder} cannot be read or written: {error}.") from error


def _logged(folder: Path, job: Job, writer: _EventWriter, group: ProcessGroup, *, resume: bool) -> Generator[Event]:
    """Run the job and write each event and the final state to the folder."""
    try:
        with _file_problems(folder):
            if resume and (before := done_before(folder, job)) is not None:
                yield Notice("The run is done, and its results are as it wrote them.")
                yield before
                return
            state = yield from _drive(folder, job, writer, group, resume=resume)
            results, notices = _delivered(folder, job, writer)
            if state == "done":
                drop_copies(folder, job)
            notices += _noted((kept_text(folder), *keep_within_limit(folder)), writer)
            finished = RunFinished(state, results=results | {"run": str(folder)})
            writer.write(finished)
        yield from notices
        yield finished
    except GeneratorExit:  # the consumer closed the generator
        writer.write(RunFinished("stopped", results=_delivered(folder, job, writer)[0]))
        raise
    except UserError as problem:
        writer.write_last(RunFinished("failed", problem.lines, _partial_results(folder, job, writer)))
        raise
    except Exception as error:
        lines = (f"The run crashed: {type(error).__name__}: {error}",)
        writer.write_last(RunFinished("failed", lines, _partial_results(folder, job, writer), fault=True))
        raise


def _delivered(folder: Path, job: Job, writer: _EventWriter) -> tuple[dict[str, str], tuple[Notice, ...]]:
    """Deliver the results; what is to be said about them is also written to the folder."""
    results, texts = deliver(folder, job)
    return results, _noted(texts, writer)


def _noted(texts: Iterable[str], writer: _EventWriter) -> tuple[Notice, ...]:
    """Write sentences to the folder."""
    notices = tuple(Notice(text) for text in texts)
    for notice in notices:
        writer.write(notice)
    return notices


def _partial_results(folder: Path, job: Job, writer: _EventWriter) -> dict[str, str]:
    """Deliver the results of a failed run; a second error is dropped, because the first one is reported."""
    try:
        return _delivered(folder, job, writer)[0]
    except (UserError, OSError):
        return {}


def _drop_incomplete_line(path: Path) -> None:
    """Remove the incomplete last line of a killed run, so that the next event starts on a new line."""
    if path.exists():
        whole, newline, _ = path.read_bytes().rpartition(b"\n")
        os.truncate(path, len(whole + newline))


def _drive(
    folder: Path, job: Job, writer: _EventWriter, group: ProcessGroup, *, resume: bool
) -> Generator[Event, None, Literal["done", "stopped"]]:
    """Consume the events one by one until the job is done or a stop is requested."""
    events = _events(folder, job, group, resume=resume)
    try:
        for event in events:
            if type(event) is not Event:
                writer.write(event)
                yield event
            if _should_stop(folder, event, group):
                return "stopped"
    except KeyboardInterrupt:
        return "stopped"
    except RuntimeError as error:
        if (problem := group.lost_process(error) or _device_problem(folder, job, error)) is None:
            raise
        raise problem from error
    finally:
        events.close()
    return "done"


def _events(folder: Path, job: Job, group: ProcessGroup, *, resume: bool) -> Generator[Event]:
    """Start the job."""
    if isinstance(job, TrainJob):
        return train(folder, job, resume=resume, group=group)
    if isinstance(job, InspectJob):
        return inspect(folder, job)
    return segment(folder, job, finished=_finished_planes(folder) if resume else 0)


def _device_problem(folder: Path, job: Job, error: RuntimeError) -> DeviceProblem | None:
    """Convert the failure of a GPU to an error that says what was saved; None for any other error."""
    from napari_unetvnet.model.device import device_failed  # imports torch, which is loaded after such an error

    if not device_failed(error):
        return None
    planes = _finished_planes(folder) if isinstance(job, SegmentJob) else 0
    progress = f"The first {planes} planes are finished and saved" if planes else "Progress is saved"
    progress = "The maps are not finished" if isinstance(job, InspectJob) else progress
    return DeviceProblem(
        f"The GPU failed ({(str(error) or type(error).__name__).splitlines()[0].rstrip('.')}). {progress}; resume "
        f"with: napari-unetvnet run {folder} --resume"
    )


def _should_stop(folder: Path, event: Event, group: ProcessGroup) -> bool:
    """Whether a stop is requested; a process group checks only after a step, so that all ranks stop together."""
    if not group.distributed:
        return (folder / STOP).exists()
    return isinstance(event, StepDone) and bool(group.broadcast((folder / STOP).exists()))


class _EventWriter:
    """Writes events to the events file of a run; steps at most once every ``STEP_SECONDS``."""

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._last_step = 0.0

    def write(self, event: Event) -> None:
        if isinstance(event, StepDone):
            if time.monotonic() - self._last_step < STEP_SECONDS:
                return
            self._last_step = time.monotonic()
        self._write(event)

    def write_last(self, event: RunFinished) -> None:
        """Write why a run failed; a disk that is full as well is not told, because the reason is shown to the user."""
        with suppress(OSError):
            self._write(event)

    def _write(self, event: Event) -> None:
        """Write a whole line or none, so that the next one begins a line."""
        line, begin = (to_line(event) + "\n").encode(), os.fstat(self._file.fileno()).st_size
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError as error:
            error.filename = str(self._file.name)
            self._file.truncate(begin)
            raise


def _finished_planes(folder: Path) -> int:
    """Return the number of planes that an interrupted segmentation last reported as finished."""
    events, _ = follow(folder)
    return next((event.stop for event in reversed(events) if isinstance(event, SlabDone)), 0)
