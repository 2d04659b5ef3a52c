"""The files of a run folder: the job, the events, the results and the request to stop."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from napari_unetvnet.errors import FileProblem, RunProblem
from napari_unetvnet.events import Count, Event, Seconds, from_line
from napari_unetvnet.files import check_regular, user_folder, writing
from napari_unetvnet.images.pair_table import resolve
from napari_unetvnet.json_files import read_json, write_json
from napari_unetvnet.settings import InspectJob, Job, SegmentJob, TrainJob, checked
from napari_unetvnet.temporary import TEMPORARY
from napari_unetvnet.training.files import TrainingFiles

__all__ = [
    "ATTEMPTS",
    "CLEANED",
    "DELIVERED",
    "EVENTS",
    "FALLBACK",
    "FINAL_FIT",
    "FIRST_MODEL",
    "FOUND_REGION",
    "INDEX",
    "JOB",
    "LABELS",
    "LOCK",
    "LOG",
    "MAPS",
    "MODEL",
    "OBJECTS",
    "OWN_FILES",
    "PAIRS",
    "PLACES",
    "PLAN",
    "PREVIEW",
    "PROBABILITIES",
    "PROVENANCE",
    "REGION",
    "REPLACED",
    "SETTLED",
    "STATE",
    "STOP",
    "UNCERTAINTY",
    "Attempts",
    "absolute_paths",
    "ask_to_stop",
    "check_own_files",
    "clean_name",
    "create",
    "discard_if_empty",
    "follow",
    "new_folder",
    "read",
    "read_attempts",
    "read_settings",
    "runs_folder",
    "training_files",
]  # fmt: skip

JOB, EVENTS, LOG, STOP, LOCK = "job.json", "events.jsonl", "log.txt", "stop", ".lock"
MODEL, STATE, PREVIEW = "model.safetensors", "last.safetensors", "preview.npy"
PLAN, PROVENANCE, ATTEMPTS, PAIRS = "plan.json", "provenance.json", "attempts.json", "pairs.csv"
FIRST_MODEL, FINAL_FIT = "first_plan.safetensors", "final_fit.safetensors"
DELIVERED, REPLACED = "delivered.json", "replaced.safetensors"
SETTLED, PLACES, FALLBACK = "settled.json", "results.json", "fallback.json"
LABELS, PROBABILITIES, UNCERTAINTY = "labels.npy", "probabilities.npy", "uncertainty.npy"
CLEANED, OBJECTS, REGION, FOUND_REGION = "cleaned.npy", "objects.csv", "region.npy", "found-region.npy"
MAPS, INDEX = "maps", "index.json"
OWN_FILES = (
    EVENTS, LOG, STOP, LOCK, MODEL, STATE, PREVIEW, PLAN, PROVENANCE, ATTEMPTS, PAIRS, FIRST_MODEL, FINAL_FIT,
    DELIVERED, REPLACED, SETTLED, PLACES, FALLBACK, LABELS, PROBABILITIES, UNCERTAINTY, CLEANED, OBJECTS,
    REGION, FOUND_REGION,
)  # fmt: skip
"""What a run writes into its folder, besides maps and the lines of cleaned labels."""
COMMANDS: dict[str, type[Job]] = {"train": TrainJob, "segment": SegmentJob, "inspect": InspectJob}
SOURCES = ("image", "label", "mask")
PATHS = ("pairs", "output", "probabilities", "uncertainty")
MODELS = ("model", "region_model", "start_from")
LONGEST_NAME = 80


@dataclass(frozen=True)
class Attempts:
    """The plans that did not learn.

    Parameters
    ----------
    changed : dict of str to JSON value
        Settings in which the present plan differs from the first one.
    seconds : float
        Time that the earlier plans took.
    epochs : int
        Epochs that they took.
    """

    changed: dict[str, Any] = field(default_factory=dict)
    seconds: Seconds = 0.0
    epochs: Count = 0


def read_attempts(folder: Path) -> Attempts:
    """Read the plans of a run that did not learn.

    Returns
    -------
    Attempts

    Raises
    ------
    FileProblem
        If the file is damaged.
    """
    path = folder / ATTEMPTS
    return read_json(path, Attempts, "start a new run") if path.exists() else Attempts()


def runs_folder() -> Path:
    """Return the folder that holds the run folders.

    Returns
    -------
    Path
        ``$NAPARI_UNETVNET_RUNS``, by default a folder of the user's application data.
    """
    configured = os.environ.get("NAPARI_UNETVNET_RUNS")
    return Path(configured) if configured else user_folder("data", "NAPARI_UNETVNET_RUNS") / "runs"


def new_folder(name: str, parent: Path | None = None) -> Path:
    """Create an empty run folder.

    Parameters
    ----------
    name : str
        Name without the time stamp; a number is appended if the folder exists.
    parent : Path, optional
        Default: `runs_folder`.

    Returns
    -------
    Path

    Raises
    ------
    FileProblem
        If no folder can be created there.
    """
    parent = parent or runs_folder()
    clean = clean_name(name)
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    for number in range(1000):
        folder = parent / (f"{clean}-{stamp}" + (f"-{number}" if number else ""))
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise FileProblem(
                f"No run folder can be created in {parent} ({error.strerror}); choose another folder."
            ) from None
        return folder
    raise FileProblem(f"{parent} has too many runs named {clean}-{stamp}; remove some.")


def clean_name(name: str) -> str:
    """Give a name for a folder that every file system takes."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name).strip(".")[:LONGEST_NAME] or "run"


def create(folder: Path, job: Job) -> None:
    """Write a job to a folder, which makes it a run folder.

    Parameters
    ----------
    folder : Path
        Must exist; may hold input files.

    Raises
    ------
    FileProblem
        If it cannot be written.
    """
    command = next(name for name, kind in COMMANDS.items() if isinstance(job, kind))
    # Unset fields are left out, so that they are still chosen from the data.
    values = {"command": command, **job.model_dump(mode="json", exclude_unset=True)}
    with writing(folder / JOB, "choose another folder"):
        write_json(folder / JOB, values)


def training_files(folder: Path, output: Path | None = None) -> TrainingFiles:
    """Return the paths of the training's files in a run folder."""
    return TrainingFiles(
        folder / MODEL, folder / STATE, folder / FINAL_FIT, folder / PREVIEW, folder / PROVENANCE, output
    )


def read_settings(path: Path) -> dict[str, Any]:
    """Read a settings file: the ``job.json`` of a run, or a file with any of its fields.

    Returns
    -------
    dict
        Relative paths are resolved against the folder of the file.

    Raises
    ------
    FileProblem
        If there is no such file, or it does not hold a JSON object.
    """
    return absolute_paths(read_json(path, dict, "give a file with settings as JSON"), path.parent)


def absolute_paths(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Make the paths in settings absolute.

    Parameters
    ----------
    values : dict
        Settings before validation.
    folder : Path
        Base of relative paths.

    Returns
    -------
    dict
        Values of a wrong type are left unchanged for validation to reject; a model is treated as a path only if
        the file exists, because it may be a name.
    """
    resolved = dict(values)
    for name in SOURCES:
        if isinstance(value := values.get(name), str):
            resolved[name] = resolve(value, folder)
        elif isinstance(value, list | tuple) and all(isinstance(source, str) for source in value):
            resolved[name] = [resolve(source, folder) for source in value]
    for name in PATHS:
        if isinstance(value := values.get(name), str | Path):
            resolved[name] = str(folder.absolute() / os.path.expanduser(value))  # noqa: PTH111 (that of a path fails)
    for name in MODELS:
        model = values.get(name)
        if isinstance(model, str) and model and os.path.isfile(folder / model):  # noqa: PTH113 (of any length)
            resolved[name] = str(folder.absolute() / model)
    return resolved


def read(folder: Path) -> Job:
    """Read the job of a run folder.

    Returns
    -------
    TrainJob, SegmentJob or InspectJob

    Raises
    ------
    RunProblem
        If the folder is not a run, or its job is incomplete.
    SettingsProblem
        If its settings are not valid.
    """
    if not (folder / JOB).is_file():
        raise RunProblem(f"{folder} is not a complete run: it has no {JOB}. Start a new run.")
    try:
        values = read_settings(folder / JOB)
    except FileProblem as problem:
        raise RunProblem(f"{folder} is not a complete run: {problem} Start a new run.") from problem
    command = values.pop("command", None)
    if not isinstance(command, str) or command not in COMMANDS:
        raise RunProblem(f"{folder / JOB} has command {command!r}; it should be {', '.join(COMMANDS)}.")
    return checked(COMMANDS[command], values)


def check_own_files(folder: Path) -> None:
    """Refuse a run folder, which may come from someone else, whose files would be written somewhere else.

    Raises
    ------
    RunProblem
        If a file that a run writes is a link, or neither file nor folder as it should be.
    """
    lines = (path for path in folder.glob(f"{Path(CLEANED).stem}_*") if path.is_symlink())
    for path in (*(folder / name for name in (*OWN_FILES, MAPS)), *lines):
        if path.is_symlink():
            raise RunProblem(
                f"{path} is a link to {path.readlink()}, but a run writes into its own folder only; remove it, or put "
                "the file itself there."
            )
        if path.exists() and not (path.is_dir() if path.name == MAPS else path.is_file()):
            raise RunProblem(f"{path} is no {'folder' if path.name == MAPS else 'file'}; remove it.")


def follow(folder: Path, offset: int = 0) -> tuple[list[Event], int]:
    """Read the events that were written since the last call.

    Parameters
    ----------
    offset : int
        Byte offset that the last call returned; 0 at first.

    Returns
    -------
    events : list of Event
    offset : int
        For the next call.

    Raises
    ------
    RunProblem
        If a line is not an event, or the file cannot be read.
    """
    path = folder / EVENTS
    if not path.exists():
        return [], offset
    check_regular(path)
    try:
        with path.open("rb") as file:
            file.seek(offset)
            whole, _, _ = file.read().rpartition(b"\n")
    except OSError as error:
        raise RunProblem(f"{path} cannot be read ({error.strerror or error}).") from error
    if not whole:
        return [], offset
    try:
        return [from_line(line) for line in whole.decode("utf-8").split("\n")], offset + len(whole) + 1
    except UnicodeDecodeError as error:
        raise RunProblem(f"{path} has bytes that are not an event, nor any text ({error}). Start a new run.") from error
    except RunProblem as problem:
        raise RunProblem(f"{path} is damaged. {problem}") from problem


def ask_to_stop(folder: Path) -> None:
    """Ask a run, in whatever process, to save its progress and end after the current step."""
    if (folder / STOP).is_symlink():  # in a folder of someone else, perhaps
        (folder / STOP).unlink()
    (folder / STOP).touch()


def discard_if_empty(folder: Path) -> None:
    """Remove a run folder that has neither results nor input files."""
    names = {path.name for path in folder.iterdir() if not path.name.startswith(TEMPORARY)}
    if names <= {JOB, EVENTS, STOP, LOCK, PLAN, PAIRS, SETTLED, PROVENANCE}:
        shutil.rmtree(folder)
