"""The runs that are kept on the disk: what each is, what it made and how much it takes; and their removal.

A run is removed by a person's wish or by the limit of the disk, and only if its folder lies directly in the folder of
the runs, is no link, is not under way, and holds nothing but what runs write. No path that a file of it names is ever
removed.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_unetvnet.errors import FileProblem, RunProblem, UserError, near_names
from napari_unetvnet.events import SlabDone
from napari_unetvnet.json_files import read_json
from napari_unetvnet.model.card import read_card
from napari_unetvnet.runs import folder as names
from napari_unetvnet.runs.folder import COMMANDS, JOB, LOCK, MODEL, runs_folder
from napari_unetvnet.runs.state import UNFINISHED, RunState, is_held, last_events, state_of
from napari_unetvnet.temporary import TEMPORARY, beside

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["KeptRun", "described", "find_run", "kept_runs", "remove_run", "size_of", "used_by", "why_it_stays"]

PAINTED = ("inputs/labels", "inputs/mask")
"""Labels layers of the viewer, which may exist nowhere else."""
FOLDERS = ("inputs", "results", names.MAPS)
FILES = {
    getattr(names, name) for name in names.__all__ if name.isupper() and isinstance(getattr(names, name), str)
} - set(FOLDERS)
OWN_TABLES = (f"{Path(names.CLEANED).stem}_", f"{Path(names.REPLACED).stem}-")
"""How names of files begin of which there may be several: lines of labels, and earlier models of an output."""


@dataclass(frozen=True)
class KeptRun:
    """A run folder."""

    folder: Path
    command: str
    """train, segment or inspect; empty if its job cannot be read."""
    state: RunState
    changed: float
    """When something last happened in it, in seconds since 1970."""
    size: int
    """Bytes of its files."""
    made: str
    """Its results in a few words; empty if there are none."""
    job: dict[str, Any]
    """Settings as they are in its job file."""

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.name

    @property
    def has_model(self) -> bool:
        """Whether a model is in it."""
        return (self.folder / MODEL).is_file()

    @property
    def painted(self) -> bool:
        """Whether it holds what was painted in the viewer."""
        return any((self.folder / name).is_dir() for name in PAINTED)

    @property
    def resumable(self) -> bool:
        """Whether `run --resume` continues it: it was stopped or killed, or failed when something was computed."""
        if self.command not in ("train", "segment"):
            return False
        begun = any((self.folder / name).exists() for name in (names.STATE, names.LABELS, names.PLACES))
        return self.state.name in ("stopped", "interrupted") or (self.state.name == "failed" and begun)


def kept_runs(parent: Path | None = None) -> list[KeptRun]:
    """List the run folders that lie directly in a folder, the newest first; links are left out.

    Parameters
    ----------
    parent : Path, optional
        Default: `runs_folder`.

    Returns
    -------
    list of KeptRun

    Raises
    ------
    FileProblem
        If the folder cannot be read.
    """
    parent = parent or runs_folder()
    try:
        with os.scandir(parent) as entries:
            folders = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise FileProblem(f"The runs in {parent} cannot be listed ({error.strerror or error}).") from error
    runs = [described(folder) for folder in folders if (folder / JOB).is_file() and folder.name[:1] != "."]
    return sorted(runs, key=lambda run: run.changed, reverse=True)


def find_run(name: str | Path) -> KeptRun:
    """Find a run by its name or its folder.

    Returns
    -------
    KeptRun

    Raises
    ------
    RunProblem
        If there is no such run.
    """
    for place in (runs_folder() / name, Path(name)):
        if (place / JOB).is_file():
            return described(place)
    listed = [run.name for run in kept_runs()]
    raise RunProblem(f"There is no run {str(name)!r}" + (near_names(str(name), listed) if listed else " and no other."))


def described(folder: Path) -> KeptRun:
    """Read what a run folder is.

    Returns
    -------
    KeptRun
    """
    try:
        job = read_json(folder / JOB, dict, "start a new run")
    except FileProblem:
        job = {}
    command = job.get("command")
    command = command if isinstance(command, str) and command in COMMANDS else ""
    events = last_events(folder)
    state = state_of(folder, events)
    planes = next((event for event in reversed(events) if isinstance(event, SlabDone)), None)
    progress = "" if planes is None or state.name == "done" else f"{planes.stop} of {planes.depth} planes of "
    made = _model_text(folder) if command == "train" else progress + ", ".join(_places(state, folder, command))
    return KeptRun(folder, command, state, _changed(folder), size_of(folder), made, job)


def _model_text(folder: Path) -> str:
    if not (folder / MODEL).is_file():
        return ""
    try:
        return f"model, {read_card(folder / MODEL).score or 'no score'}"
    except UserError:
        return "model that cannot be read"


def _places(state: RunState, folder: Path, command: str) -> list[str]:
    """Name the results of a segmentation or an inspection by their files, those in the run folder by their kind."""
    if not state.results:
        return ["labels" if command == "segment" else "maps"] if state.name != "waiting" else []
    inside = f"{folder}{os.sep}"
    return [kind if path.startswith(inside) else path for kind, path in state.results.items() if kind != "run"]


def _changed(folder: Path) -> float:
    """Give the time of the last change of the files that every run writes to."""
    found = [path.stat().st_mtime for name in (JOB, names.EVENTS, names.LOG) if (path := folder / name).exists()]
    return max(found, default=0.0)


def size_of(folder: Path) -> int:
    """Add the sizes of all files in a folder, without following links.

    Returns
    -------
    int
        Bytes.
    """
    total = 0
    for place, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(place, name)).st_size  # noqa: PTH118 (thousands of chunks)
            except FileNotFoundError:  # a run that is under way has removed it
                continue
    return total


def used_by(folder: Path, runs: Iterable[KeptRun]) -> list[str]:
    """Name the runs that are not finished and need the model in a run folder.

    Returns
    -------
    list of str
    """
    own = {str(folder / MODEL), str(folder.absolute() / MODEL), folder.name}
    wanted = ("start_from", "model", "region_model")
    return [
        run.name
        for run in runs
        if run.folder != folder and run.state.name in UNFINISHED and own & {str(run.job.get(key)) for key in wanted}
    ]


def foreign_names(folder: Path) -> list[str]:
    """List what is in a run folder that no run writes.

    Returns
    -------
    list of str
    """
    found = list[str]()
    for path in folder.iterdir():
        real_folder = path.is_dir() and not path.is_symlink()
        own = path.name in FOLDERS if real_folder else path.name in FILES or path.name.startswith(OWN_TABLES)
        if not own and not path.name.startswith(TEMPORARY):
            found.append(path.name)
    return sorted(found)


def why_it_stays(folder: Path, runs: Sequence[KeptRun] = ()) -> str:
    """Say why a folder may not be removed.

    Parameters
    ----------
    runs : sequence of KeptRun
        All that are kept, which may need its model.

    Returns
    -------
    str
        A sentence; empty if it may.
    """
    if os.path.realpath(folder.parent) != os.path.realpath(runs_folder()) or folder.is_symlink():
        return f"{folder} is not directly in {runs_folder()}, so it is not removed."
    if not (folder / JOB).is_file() or (folder / JOB).is_symlink():
        return f"{folder} has no {JOB}, so it is no run folder and is not removed."
    if (folder / LOCK).is_symlink():
        return f"{folder / LOCK} is a link, so the folder is not removed; remove the link first."
    if others := foreign_names(folder):
        return f"{folder} holds {', '.join(others[:3])}, which no run writes; move that elsewhere first."
    if users := used_by(folder, runs):
        return f"{folder.name} has the model that {', '.join(users[:3])} needs to continue."
    return f"{folder.name} is under way; stop it first." if is_held(folder) else ""


def remove_run(folder: Path, runs: Sequence[KeptRun] = ()) -> None:
    """Remove a run folder with all that is in it.

    Parameters
    ----------
    runs : sequence of KeptRun
        As of `why_it_stays`.

    Raises
    ------
    RunProblem
        If it is not one that may be removed; the sentence says why.
    """
    from filelock import FileLock, Timeout

    if reason := why_it_stays(folder, runs):
        raise RunProblem(reason)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
        if os.name == "nt":  # where what is open cannot be renamed
            lock.release()
        gone = folder.replace(beside(folder))  # in one step, so that nothing starts in what is left of it
        shutil.rmtree(gone)
    except Timeout:
        raise RunProblem(f"{folder.name} is under way; stop it first.") from None
    except OSError as error:
        raise RunProblem(f"{folder} cannot be removed ({error.strerror or error}).") from error
    finally:
        lock.release()
