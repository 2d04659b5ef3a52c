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
from dataclasses import replace
from datetime import datetime
from typing import IO, TYPE_CHECKING, Any

from napari_unetvnet.card import find_model, read_card, runs_folder
from napari_unetvnet.errors import FileProblem, RunProblem, SettingsProblem, UserError
from napari_unetvnet.events import Event, Notice, RunFinished, SlabDone, StepDone, from_line, to_line
from napari_unetvnet.settings import SegmentJob, TrainJob, checked

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from napari_unetvnet.data import Pair
    from napari_unetvnet.volume import Volume

__all__ = [
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

JOB, EVENTS, LOG, STOP = "job.json", "events.jsonl", "log.txt", "stop"
MODEL, LABELS, PROBABILITIES = "model.safetensors", "labels.npy", "probabilities.npy"
COMMANDS: dict[str, type[TrainJob | SegmentJob]] = {"train": TrainJob, "segment": SegmentJob}
PATHS = ("image", "label", "pairs", "model", "output", "probabilities", "start_from")
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
    clean = "".join(c if c.isalnum() or c in "-_." else "_" for c in name).strip(".") or "run"
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
    text = json.dumps({"command": command, **job.model_dump(mode="json")}, indent=2)
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
        Paths that exist relative to the file's folder are made absolute.

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
    except ValueError as error:
        raise SettingsProblem(f"{path} is no JSON or is cut off ({error}); write it again.") from None
    if not isinstance(values, dict):
        raise SettingsProblem(f"{path} should hold a JSON object with settings, not {type(values).__name__}.")
    for name in PATHS:
        if isinstance(values.get(name), str):
            values[name] = _beside(values[name], path.parent)
        elif isinstance(values.get(name), list):
            values[name] = [_beside(str(item), path.parent) for item in values[name]]
    return values


def _beside(source: str, folder: Path) -> str:
    """Make the files of ``a|b`` absolute where they lie beside the settings file."""
    parts = [str((folder / part).resolve()) if (folder / part).exists() else part for part in source.split("|")]
    return "|".join(parts)


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


def run(folder: Path, *, resume: bool = False) -> Iterator[Event]:
    """Do what a run folder says, here; each event is also written to the folder.

    Parameters
    ----------
    folder : Path
    resume : bool
        Whether to go on where an earlier, interrupted run of the folder ended.

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
    job = read(folder)
    if resume:
        (folder / STOP).unlink(missing_ok=True)
    elif (folder / EVENTS).exists():
        raise RunProblem(f"{folder} was run before; go on with --resume, or copy its {JOB} to a new folder.")
    work = _train(folder, job, resume) if isinstance(job, TrainJob) else _segment(folder, job, resume)
    _drop_half_line(folder / EVENTS)
    with (folder / EVENTS).open("a", encoding="utf-8") as file:
        recorder = _Recorder(file)
        try:
            state = yield from _drive(folder, work, recorder)
            finished = RunFinished(state, results=_deliver(folder, job))
            recorder.write(finished)
            yield finished
        except GeneratorExit:  # the consumer asks for no more
            recorder.write(RunFinished("stopped", results=_deliver(folder, job)))
            raise
        except UserError as problem:
            recorder.write(RunFinished("failed", problem.lines))
            raise
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            recorder.write(RunFinished("failed", (f"The run broke off: {text}",), fault=True))
            raise


def _drop_half_line(path: Path) -> None:
    """Cut what a killed run left of a line, so that the next event begins on one of its own."""
    if path.exists():
        whole, newline, _ = path.read_bytes().rpartition(b"\n")
        path.write_bytes(whole + newline)


def _drive(folder: Path, work: Generator[Event], recorder: _Recorder) -> Generator[Event, None, Any]:
    """Ask for one event after the other until the work is done or somebody wants it to stop."""
    try:
        for event in work:
            recorder.write(event)
            yield event
            if (folder / STOP).exists():
                return "stopped"
    except KeyboardInterrupt:
        return "stopped"
    finally:
        work.close()
    return "done"


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


def _train(folder: Path, job: TrainJob, resume: bool) -> Generator[Event]:
    from napari_unetvnet import training
    from napari_unetvnet.io import check_writable

    if job.output is not None:
        check_writable(job.output, "model")
    yield from training.steps(_read_pairs(job), job, folder, resume=resume)


def _read_pairs(job: TrainJob) -> list[Pair]:
    from napari_unetvnet.data import Pair
    from napari_unetvnet.io import PairFiles, find_pairs, read_labels, read_pairs_csv

    if job.pairs is not None:
        files = read_pairs_csv(job.pairs)
    else:
        files = [PairFiles(image, label, "") for image, label in find_pairs(job.image, job.label)]
    return [Pair(_read_image(f.image, job), read_labels(f.label, job.spacing), f.split) for f in files]


def _read_image(source: str, job: TrainJob | SegmentJob) -> Volume:
    """Read an image; what its file does not say of space, the job may."""
    from napari_unetvnet.io import read_volume

    volume = read_volume(source, job.spacing)
    return replace(volume, unit=job.unit) if volume.unit == "pixel" else volume


def _segment(folder: Path, job: SegmentJob, resume: bool) -> Generator[Event]:
    import numpy as np
    from numpy.lib.format import open_memmap

    from napari_unetvnet import inference
    from napari_unetvnet.io import check_writable, write_labels, write_probabilities
    from napari_unetvnet.model import load_model

    if job.output is not None:
        check_writable(job.output, "labels")
    if job.probabilities is not None:
        check_writable(job.probabilities, "probabilities")
    path = find_model(job.model)
    volume = _read_image(job.image, job)
    model = load_model(path, job)
    values = model.card.values
    first = _finished_planes(folder) if resume else 0
    mode = "r+" if first else "w+"
    if first:
        yield Notice(f"Going on from plane {first}.")
    labels = open_memmap(folder / LABELS, mode, np.min_scalar_type(max(values)), volume.shape)
    wanted = job.probabilities is not None
    shares = open_memmap(folder / PROBABILITIES, mode, np.float16, (len(values), *volume.shape)) if wanted else None
    for slab in inference.steps(model, volume, job, first_plane=first, probabilities=wanted):
        stop = slab.start + len(slab.labels)
        labels[slab.start : stop] = slab.labels
        labels.flush()
        if shares is not None:
            shares[:, slab.start : stop] = slab.probabilities
            shares.flush()
        yield SlabDone(slab.start, stop, volume.shape[0])
    if job.output is not None:
        write_labels(job.output, labels, volume)
    if job.probabilities is not None and shares is not None:
        write_probabilities(job.probabilities, shares, volume)


def _finished_planes(folder: Path) -> int:
    """Give how many planes an interrupted segmentation has finished."""
    if not (folder / LABELS).exists():
        return 0
    events, _ = follow(folder)
    return max((event.stop for event in events if isinstance(event, SlabDone)), default=0)


def _deliver(folder: Path, job: TrainJob | SegmentJob) -> dict[str, str]:
    """Put the model where it was wanted and say where the results are."""
    results = {}
    if isinstance(job, TrainJob) and (folder / MODEL).exists():
        results = {"model": str(folder / MODEL), "steps": str(read_card(folder / MODEL).steps)}
        if job.output is not None:
            part = job.output.with_name(job.output.name + ".part")
            shutil.copyfile(folder / MODEL, part)
            part.replace(job.output)
            results["model"] = str(job.output)
    if isinstance(job, SegmentJob) and (folder / LABELS).exists():
        results = {"labels": str(job.output or folder / LABELS)}
    return results


def discard_if_empty(folder: Path) -> None:
    """Remove a run folder that has no result and no inputs of its own.

    Parameters
    ----------
    folder : Path
    """
    if {path.name for path in folder.iterdir()} <= {JOB, EVENTS, STOP}:
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
