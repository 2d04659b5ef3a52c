"""A run: do what its folder says, write down each event and how it ended, and stop when asked to."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from napari_unetvnet.errors import DeviceProblem, FileProblem, RunProblem, SettingsProblem, UserError
from napari_unetvnet.events import Event, RunFinished, SlabDone, StepDone, to_line
from napari_unetvnet.runs.folder import EVENTS, JOB, LOCK, STOP, create, follow, read
from napari_unetvnet.runs.results import deliver
from napari_unetvnet.runs.segment import segment
from napari_unetvnet.runs.train import train
from napari_unetvnet.settings import SegmentJob, TrainJob, checked
from napari_unetvnet.training.processes import SINGLE, ProcessGroup, from_environment

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

__all__ = ["run"]

STEP_SECONDS = 0.25


def run(folder: Path, *, resume: bool = False, budget: Mapping[str, Any] | None = None) -> Iterator[Event]:
    """Do what a run folder says, here; each event is also written to the folder.

    Of several processes that torchrun started, all train, and the first one alone writes, or segments.

    Parameters
    ----------
    folder : Path
    resume : bool
        Whether to go on where an earlier run of the folder ended.
    budget : mapping, optional
        Minutes, epochs or steps in all, with which to go on for longer than the job says.

    Yields
    ------
    Event
        The last one is RunFinished.

    Raises
    ------
    RunProblem
        If the folder is no run, or was used already and ``resume`` is False.
    UserError
        Whatever the user can mend; it is written to the folder as RunFinished first.
    GeneratorExit
        When the consumer asks for no more: the run is stopped and what it has is kept.
    """
    job, group = _with_budget(read(folder), budget or {}), from_environment()
    if not isinstance(job, TrainJob):
        yield from _led(folder, job, SINGLE, resume=resume) if group.is_first else (RunFinished("done"),)
        return
    with group.joined(job):
        yield from (_led if group.is_first else _followed)(folder, job, group, resume=resume)


def _with_budget(job: TrainJob | SegmentJob, budget: Mapping[str, Any]) -> TrainJob | SegmentJob:
    """Give a job with another budget."""
    if not budget:
        return job
    if not isinstance(job, TrainJob):
        raise SettingsProblem(f"A segmentation has no budget; leave out {' and '.join(budget)}.")
    kept = {name: getattr(job, name) for name in job.model_fields_set - {"minutes", "epochs", "steps"}}
    return checked(TrainJob, kept | dict(budget))


def _led(folder: Path, job: TrainJob | SegmentJob, group: ProcessGroup, *, resume: bool) -> Generator[Event]:
    """Do the job as the process that the run folder belongs to."""
    with _held(folder, resume=resume) as writer:
        if job != read(folder):
            create(folder, job)
        yield from _logged(folder, job, writer, group, resume=resume)


def _followed(folder: Path, job: TrainJob, group: ProcessGroup, *, resume: bool) -> Generator[Event]:
    """Do the job with the first process, which says and keeps what comes of it."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        yield RunFinished((yield from _drive(folder, job, _EventWriter(nowhere), group, resume=resume)))


@contextmanager
def _held(folder: Path, *, resume: bool) -> Iterator[_EventWriter]:
    """Keep a run folder from other processes and its events file open."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunProblem(f"{folder} is being worked on by another process; wait for it, or stop it.") from None
    with lock:
        if resume:
            (folder / STOP).unlink(missing_ok=True)
        elif (folder / EVENTS).exists():
            raise RunProblem(f"{folder} was run before; add --resume to continue, or copy its {JOB} to a new folder.")
        _drop_half_line(folder / EVENTS)
        with (folder / EVENTS).open("a", encoding="utf-8") as file:
            yield _EventWriter(file)


def _logged(
    folder: Path, job: TrainJob | SegmentJob, writer: _EventWriter, group: ProcessGroup, *, resume: bool
) -> Generator[Event]:
    """Do the job and write each event and how it ended to the folder."""
    try:
        try:
            state = yield from _drive(folder, job, writer, group, resume=resume)
            finished = RunFinished(state, results=deliver(folder, job) | {"run": str(folder)})
        except OSError as error:
            raise FileProblem(f"A file of the run cannot be read or written: {error}.") from error
        writer.write(finished)
        yield finished
    except GeneratorExit:  # the consumer asks for no more
        writer.write(RunFinished("stopped", results=deliver(folder, job)))
        raise
    except UserError as problem:
        writer.write(RunFinished("failed", problem.lines, results=_what_there_is(folder, job)))
        raise
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        writer.write(RunFinished("failed", (f"The run broke off: {text}",), _what_there_is(folder, job), fault=True))
        raise


def _what_there_is(folder: Path, job: TrainJob | SegmentJob) -> dict[str, str]:
    """Deliver what a failed run has reached; that this fails too adds nothing to what is told already."""
    try:
        return deliver(folder, job)
    except UserError:
        return {}


def _drop_half_line(path: Path) -> None:
    """Cut what a killed run left of a line, so that the next event begins on one of its own."""
    if path.exists():
        whole, newline, _ = path.read_bytes().rpartition(b"\n")
        os.truncate(path, len(whole + newline))


def _drive(
    folder: Path, job: TrainJob | SegmentJob, writer: _EventWriter, group: ProcessGroup, *, resume: bool
) -> Generator[Event, None, Literal["done", "stopped"]]:
    """Ask for one event after the other until the work is done or somebody wants it to stop."""
    if isinstance(job, TrainJob):
        events = train(folder, job, resume=resume, group=group)
    else:
        events = segment(folder, job, finished=_finished_planes(folder) if resume else 0)
    try:
        for event in events:
            if type(event) is not Event:
                writer.write(event)
                yield event
            if _ends_here(folder, event, group):
                return "stopped"
    except KeyboardInterrupt:
        return "stopped"
    except RuntimeError as error:
        if (problem := group.lost_process(error) or _fault_of_device(folder, error)) is None:
            raise
        raise problem from error
    finally:
        events.close()
    return "done"


def _fault_of_device(folder: Path, error: RuntimeError) -> DeviceProblem | None:
    """Say what is kept where the GPU failed; None of any other fault."""
    from napari_unetvnet.model.device import device_failed  # with torch, which whatever raised the error has loaded

    if not device_failed(error):
        return None
    planes = _finished_planes(folder)
    kept = f"The first {planes} planes are finished and kept" if planes else "Progress is saved"
    return DeviceProblem(
        f"The GPU failed ({(str(error) or type(error).__name__).splitlines()[0].rstrip('.')}). {kept}; resume with: "
        f"napari-unetvnet run {folder} --resume"
    )


def _ends_here(folder: Path, event: Event, group: ProcessGroup) -> bool:
    """Whether somebody wants the run to stop; several processes ask after a step, which all of them take."""
    if not group.distributed:
        return (folder / STOP).exists()
    return isinstance(event, StepDone) and bool(group.broadcast((folder / STOP).exists()))


class _EventWriter:
    """Writes events to a run's file, of the many steps only a few a second."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._last_step = 0.0

    def write(self, event: Event) -> None:
        if isinstance(event, StepDone):
            if time.monotonic() - self._last_step < STEP_SECONDS:
                return
            self._last_step = time.monotonic()
        self._file.write(to_line(event) + "\n")
        self._file.flush()


def _finished_planes(folder: Path) -> int:
    """Give how many planes an interrupted segmentation has finished, as it has said last."""
    events, _ = follow(folder)
    return next((event.stop for event in reversed(events) if isinstance(event, SlabDone)), 0)
