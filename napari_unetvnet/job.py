"""A run is a folder: what is to be done, what was said while doing it, and the results.

``job.json`` holds the settings, ``events.jsonl`` an event a line, ``log.txt`` what a child process printed,
``model.safetensors`` or ``labels.npy`` the result, and a file called ``stop`` asks the run to end. The viewer writes
such a folder, starts ``napari-unetvnet run FOLDER`` as a child process and follows its events, so it never imports
torch, and whatever the viewer did can be repeated from the command line, to the byte.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from napari_unetvnet import work
from napari_unetvnet.card import runs_folder
from napari_unetvnet.errors import FileProblem, RunProblem, SettingsProblem, UserError
from napari_unetvnet.events import Event, RunFinished, SlabDone, StepDone, from_line, to_line
from napari_unetvnet.pairs import resolve
from napari_unetvnet.processes import ALONE, Team, from_environment
from napari_unetvnet.record import RECORD
from napari_unetvnet.settings import SegmentJob, TrainJob, checked

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping


__all__ = [
    "absolute_paths",
    "ask_to_stop",
    "create",
    "discard_if_empty",
    "follow",
    "new_folder",
    "read",
    "read_settings",
    "run",
    "start",
]

JOB, EVENTS, LOG, STOP, LOCK = "job.json", "events.jsonl", "log.txt", "stop", ".lock"
COMMANDS: dict[str, type[TrainJob | SegmentJob]] = {"train": TrainJob, "segment": SegmentJob}
SOURCES = ("image", "label", "mask")
PATHS = ("pairs", "output", "probabilities", "start_from")
LONGEST_NAME = 80
STEP_SECONDS = 0.25


def new_folder(name: str, parent: Path | None = None) -> Path:
    """Make an empty run folder.

    Parameters
    ----------
    name : str
        What it should be called; a number is appended if that is taken.
    parent : Path, optional
        Where (default: the runs folder).

    Returns
    -------
    Path

    Raises
    ------
    FileProblem
        If no folder can be made there.
    """
    parent = parent or runs_folder()
    clean = "".join(c if c.isalnum() or c in "-_." else "_" for c in name).strip(".")[:LONGEST_NAME] or "run"
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    for number in range(1000):
        folder = parent / (f"{clean}-{stamp}" + (f"-{number}" if number else ""))
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise FileProblem(f"No run folder can be made in {parent} ({error.strerror}); choose another.") from None
        return folder
    raise FileProblem(f"{parent} is full of runs called {clean}-{stamp}; remove some.")


def create(folder: Path, job: TrainJob | SegmentJob) -> None:
    """Write what is to be done; the folder is a run from then on.

    Parameters
    ----------
    folder : Path
        Must exist and may hold inputs.
    job : TrainJob or SegmentJob

    Raises
    ------
    FileProblem
        If it cannot be written.
    """
    command = "train" if isinstance(job, TrainJob) else "segment"
    # What was not set stays open, to be chosen from the data.
    text = json.dumps({"command": command, **job.model_dump(mode="json", exclude_unset=True)}, indent=2)
    part = folder / f"{JOB}.part"
    try:
        part.write_text(text + "\n", encoding="utf-8")
        part.replace(folder / JOB)
    except OSError as error:
        raise FileProblem(f"{folder / JOB} cannot be written ({error.strerror}).") from None


def read_settings(path: Path) -> dict[str, Any]:
    """Read a settings file: a run's ``job.json``, or any part of one.

    Parameters
    ----------
    path : Path

    Returns
    -------
    dict
        Relative paths start from the file's folder and are made absolute.

    Raises
    ------
    FileProblem
        If there is no such file.
    SettingsProblem
        If it is no JSON object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileProblem(f"The settings file {path} cannot be read ({error.strerror}).") from None
    except (ValueError, RecursionError) as error:
        raise SettingsProblem(f"{path} is no JSON or is cut off ({error}); write it again.") from None
    if not isinstance(values, dict):
        raise SettingsProblem(f"{path} should hold a JSON object with settings, not {type(values).__name__}.")
    return absolute_paths(values, path.parent)


def absolute_paths(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Make the files that settings name independent of the present folder.

    Parameters
    ----------
    values : dict
        Settings, not yet checked.
    folder : Path
        What relative paths start from.

    Returns
    -------
    dict
        Values of another type than text are left for the check to refuse; a model may be a name and is a path only if
        there is such a file.
    """
    made = dict(values)
    for name in SOURCES:
        if isinstance(value := values.get(name), str):
            made[name] = resolve(value, folder)
        elif isinstance(value, list | tuple) and all(isinstance(source, str) for source in value):
            made[name] = [resolve(source, folder) for source in value]
    for name in PATHS:
        if isinstance(value := values.get(name), str | Path):
            made[name] = str(folder.absolute() / Path(value).expanduser())
    model = values.get("model")
    if isinstance(model, str) and model and (folder / model).is_file():
        made["model"] = str(folder.absolute() / model)
    return made


def read(folder: Path) -> TrainJob | SegmentJob:
    """Read what a run folder is to do.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    TrainJob or SegmentJob

    Raises
    ------
    RunProblem
        If the folder is no run or is half written.
    SettingsProblem
        If its settings are not valid.
    """
    if not (folder / JOB).is_file():
        raise RunProblem(f"{folder} is no run, or was only half written: it has no {JOB}. Start a new one.")
    try:
        values = read_settings(folder / JOB)
    except UserError as problem:
        raise RunProblem(f"{folder} is half written: {problem} Start a new run.") from None
    command = values.pop("command", None)
    if command not in COMMANDS:
        raise RunProblem(f"{folder / JOB} says command {command!r}; it should be train or segment.")
    return checked(COMMANDS[command], values)


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
    job, team = _with_budget(read(folder), budget or {}), from_environment()
    if not isinstance(job, TrainJob):
        yield from _led(folder, job, ALONE, resume=resume) if team.first else (RunFinished("done"),)
        return
    with team.joined(job):
        yield from (_led if team.first else _followed)(folder, job, team, resume=resume)


def _with_budget(job: TrainJob | SegmentJob, budget: Mapping[str, Any]) -> TrainJob | SegmentJob:
    """Give a job with another budget."""
    if not budget:
        return job
    if not isinstance(job, TrainJob):
        raise SettingsProblem(f"A segmentation has no budget; leave out {' and '.join(budget)}.")
    kept = {name: getattr(job, name) for name in job.model_fields_set - {"minutes", "epochs", "steps"}}
    return checked(TrainJob, kept | dict(budget))


def _led(folder: Path, job: TrainJob | SegmentJob, team: Team, *, resume: bool) -> Generator[Event]:
    """Do the job as the process that the run folder belongs to."""
    with _held(folder, resume=resume) as recorder:
        if job != read(folder):
            create(folder, job)
        yield from _recorded(folder, job, recorder, team, resume=resume)


def _followed(folder: Path, job: TrainJob, team: Team, *, resume: bool) -> Generator[Event]:
    """Do the job with the first process, which says and keeps what comes of it."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        yield RunFinished((yield from _drive(folder, job, _Recorder(nowhere), team, resume=resume)))


@contextmanager
def _held(folder: Path, *, resume: bool) -> Iterator[_Recorder]:
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
            raise RunProblem(f"{folder} was run before; go on with --resume, or copy its {JOB} to a new folder.")
        _drop_half_line(folder / EVENTS)
        with (folder / EVENTS).open("a", encoding="utf-8") as file:
            yield _Recorder(file)


def _recorded(
    folder: Path, job: TrainJob | SegmentJob, recorder: _Recorder, team: Team, *, resume: bool
) -> Generator[Event]:
    """Do the job and write each event and how it ended to the folder."""
    try:
        try:
            state = yield from _drive(folder, job, recorder, team, resume=resume)
            finished = RunFinished(state, results=work.deliver(folder, job) | {"run": str(folder)})
        except OSError as error:
            raise FileProblem(f"A file of the run cannot be read or written: {error}.") from error
        recorder.write(finished)
        yield finished
    except GeneratorExit:  # the consumer asks for no more
        recorder.write(RunFinished("stopped", results=work.deliver(folder, job)))
        raise
    except UserError as problem:
        recorder.write(RunFinished("failed", problem.lines, results=_what_there_is(folder, job)))
        raise
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        recorder.write(RunFinished("failed", (f"The run broke off: {text}",), _what_there_is(folder, job), fault=True))
        raise


def _what_there_is(folder: Path, job: TrainJob | SegmentJob) -> dict[str, str]:
    """Deliver what a failed run has reached; that this fails too adds nothing to what is told already."""
    try:
        return work.deliver(folder, job)
    except UserError:
        return {}


def _drop_half_line(path: Path) -> None:
    """Cut what a killed run left of a line, so that the next event begins on one of its own."""
    if path.exists():
        whole, newline, _ = path.read_bytes().rpartition(b"\n")
        path.write_bytes(whole + newline)


def _drive(
    folder: Path, job: TrainJob | SegmentJob, recorder: _Recorder, team: Team, *, resume: bool
) -> Generator[Event, None, Literal["done", "stopped"]]:
    """Ask for one event after the other until the work is done or somebody wants it to stop."""
    if isinstance(job, TrainJob):
        events = work.train(folder, job, resume=resume, team=team)
    else:
        events = work.segment(folder, job, finished=_finished_planes(folder) if resume else 0)
    try:
        for event in events:
            recorder.write(event)
            yield event
            if _ends_here(folder, event, team):
                return "stopped"
    except KeyboardInterrupt:
        return "stopped"
    except RuntimeError as error:
        if (lost := team.loss_of(error)) is None:
            raise
        raise lost from error
    finally:
        events.close()
    return "done"


def _ends_here(folder: Path, event: Event, team: Team) -> bool:
    """Whether somebody wants the run to stop; several processes ask after a step, which all of them take."""
    if not team.several:
        return (folder / STOP).exists()
    return isinstance(event, StepDone) and bool(team.agreed((folder / STOP).exists()))


class _Recorder:
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
    """Give how many planes an interrupted segmentation has finished."""
    events, _ = follow(folder)
    return max((event.stop for event in events if isinstance(event, SlabDone)), default=0)


def discard_if_empty(folder: Path) -> None:
    """Remove a run folder that has no result and no inputs of its own.

    Parameters
    ----------
    folder : Path
    """
    if {path.name for path in folder.iterdir()} <= {JOB, EVENTS, STOP, LOCK, work.PLAN, RECORD}:
        shutil.rmtree(folder)


def start(folder: Path, *, resume: bool = False) -> subprocess.Popen[bytes]:
    """Do what a run folder says in a child process that outlives this one.

    Parameters
    ----------
    folder : Path
    resume : bool

    Returns
    -------
    subprocess.Popen
        Follow it with `follow`; stop it with `ask_to_stop`.
    """
    command = [sys.executable, "-m", "napari_unetvnet", "run", str(folder), *(["--resume"] if resume else [])]
    # Two spinning OpenMP threads beside a busy viewer run three times slower than one thread.
    environment = {"OMP_WAIT_POLICY": "passive"} | os.environ | {"PYTHONUNBUFFERED": "1"}
    with (folder / LOG).open("ab") as log:
        return subprocess.Popen(  # noqa: S603 (a list, no shell; the folder is the only word that varies)
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )


def follow(folder: Path, offset: int = 0) -> tuple[list[Event], int]:
    """Read the events that were written since the last look.

    Parameters
    ----------
    folder : Path
    offset : int
        As returned by the last call; 0 to begin.

    Returns
    -------
    events : list of Event
    offset : int
        For the next call.
    """
    if not (folder / EVENTS).exists():
        return [], offset
    with (folder / EVENTS).open("rb") as file:
        file.seek(offset)
        whole, _, _ = file.read().rpartition(b"\n")
    if not whole:
        return [], offset
    lines = whole.decode("utf-8").split("\n")
    return [from_line(line) for line in lines], offset + len(whole) + 1


def ask_to_stop(folder: Path) -> None:
    """Ask a run, wherever it works, to end after its present step and keep what it has.

    Parameters
    ----------
    folder : Path
    """
    (folder / STOP).touch()
