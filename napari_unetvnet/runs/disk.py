"""The disk that runs keep: copies of results go when a run is done, and the oldest runs go when a limit is passed.

The limit removes only what can be computed again and is needed by nobody: runs that are done, without a model or with
one that was delivered and is there unchanged, and from which no unfinished run starts. All that the viewer wrote of
Labels layers (labels or a mask) counts as painted and stays, because nobody can know whether a layer was ever saved.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from napari_unetvnet.errors import FileProblem, RunProblem, SettingsProblem
from napari_unetvnet.events import RunFinished
from napari_unetvnet.files import amount, check_regular, writing
from napari_unetvnet.images.written import is_unchanged
from napari_unetvnet.json_files import read_json, write_json
from napari_unetvnet.runs.amounts import read_size
from napari_unetvnet.runs.delivery import Delivered
from napari_unetvnet.runs.folder import CLEANED, DELIVERED, LABELS, MODEL, PROBABILITIES, UNCERTAINTY, runs_folder
from napari_unetvnet.runs.kept import kept_runs, remove_run, size_of, why_it_stays
from napari_unetvnet.runs.state import last_events
from napari_unetvnet.settings import SegmentJob

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unetvnet.runs.kept import KeptRun
    from napari_unetvnet.settings import Job

__all__ = ["disk_limit", "done_before", "drop_copies", "keep_within_limit", "kept_text", "set_disk_limit"]

PREFERENCES, LIMIT = "preferences.json", "disk_limit"
VARIABLE = "NAPARI_UNETVNET_DISK_LIMIT"
NO_LIMIT = "none"
MOST_NAMED = 3


def drop_copies(folder: Path, job: Job) -> None:
    """Remove the arrays of a segmentation that is done from its run folder, if they were written to an output."""
    if not isinstance(job, SegmentJob):
        return
    files = {LABELS: job.output, CLEANED: job.output, PROBABILITIES: job.probabilities, UNCERTAINTY: job.uncertainty}
    for name, output in files.items():
        if output is None or not output.exists() or output.absolute() == (folder / name).absolute():
            continue
        try:
            (folder / name).unlink(missing_ok=True)
        except PermissionError:  # on Windows a file that is open stays, and is told with the size
            continue


def done_before(folder: Path, job: Job) -> RunFinished | None:
    """Give the last event of a segmentation that is done and whose outputs are as it wrote them; else None."""
    if not isinstance(job, SegmentJob) or job.output is None or (folder / LABELS).exists():
        return None
    outputs = [path for path in (job.output, job.probabilities, job.uncertainty) if path is not None]
    last = next((event for event in last_events(folder)[::-1] if isinstance(event, RunFinished)), None)
    if last is None or last.state != "done" or last.results.get("labels") != str(job.output):
        return None
    return last if all(path.exists() and is_unchanged(path) for path in outputs) else None


def kept_text(folder: Path) -> str:
    """Say in a sentence how much a run keeps, and what takes most of it."""
    sizes = {path.name: size_of(path) if path.is_dir() else path.lstat().st_size for path in folder.iterdir()}
    total = sum(sizes.values())
    largest = sorted(sizes, key=lambda name: sizes[name], reverse=True)[:MOST_NAMED]
    named = ", ".join(f"{name} {amount(sizes[name])}" for name in largest if sizes[name] > total / 10)
    return f"The run keeps {amount(total)} in {folder}{f' ({named})' if named else ''}."


def disk_limit() -> int | None:
    """Return how many bytes all runs together may keep, None if there is no limit.

    ``$NAPARI_UNETVNET_DISK_LIMIT``, or what `set_disk_limit` has stored in the folder of the runs.

    Returns
    -------
    int or None

    Raises
    ------
    SettingsProblem
        If the variable is no size.
    FileProblem
        If the stored one cannot be read.
    """
    text = os.environ.get(VARIABLE, "")
    path = runs_folder() / PREFERENCES
    if not text and path.exists():
        text = str(read_json(path, dict, "set the limit again").get(LIMIT, NO_LIMIT))
    return None if text in ("", NO_LIMIT) else read_size(text)


def set_disk_limit(text: str) -> None:
    """Store how much all runs together may keep.

    Parameters
    ----------
    text : str
        A size such as 20GB, or "none".

    Raises
    ------
    SettingsProblem
        If it is neither, or the environment says otherwise.
    """
    if os.environ.get(VARIABLE):
        raise SettingsProblem(f"The limit is {os.environ[VARIABLE]} by {VARIABLE}; change that variable.")
    if text != NO_LIMIT:
        read_size(text)
    path = runs_folder() / PREFERENCES
    with writing(path, f"set {VARIABLE} instead"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {LIMIT: text})


def keep_within_limit(current: Path) -> list[str]:
    """Remove the oldest runs that may go until all together take no more than the limit.

    Parameters
    ----------
    current : Path
        A run that stays.

    Returns
    -------
    list of str
        What was removed, or why there is still too much, as sentences.
    """
    try:
        limit = disk_limit()
    except (SettingsProblem, FileProblem) as problem:
        return [f"The limit of the disk for runs is not applied: {problem}"]
    if limit is None or not current.parent.exists() or not current.parent.samefile(runs_folder()):
        return []
    runs = kept_runs()
    total, removed, freed = sum(run.size for run in runs), list[str](), 0
    for run in reversed(_without_model_first(runs)):
        if total - freed <= limit:
            break
        if run.folder.samefile(current) or not _may_go(run, runs):
            continue
        try:
            remove_run(run.folder, runs)
        except RunProblem:  # another process has begun to use it
            continue
        removed.append(run.name)
        freed += run.size
    return _limit_texts(limit, total - freed, removed, freed)


def _without_model_first(runs: Sequence[KeptRun]) -> list[KeptRun]:
    """Bring runs without a model to the end, where the oldest are."""
    return sorted(runs, key=lambda run: not run.has_model)


def _may_go(run: KeptRun, runs: Sequence[KeptRun]) -> bool:
    """Whether all of a run can be computed again, and nobody needs it."""
    if run.state.name != "done" or run.painted or (run.has_model and not _delivered_elsewhere(run.folder)):
        return False
    return not why_it_stays(run.folder, runs)


def _delivered_elsewhere(folder: Path) -> bool:
    """Whether the model of a run is also in the file to which it was delivered."""
    try:
        path = Path(read_json(folder / DELIVERED, Delivered, "resume the run").path)
        check_regular(path)
        with (folder / MODEL).open("rb") as own, path.open("rb") as other:
            return hashlib.file_digest(own, "sha256").digest() == hashlib.file_digest(other, "sha256").digest()
    except (FileProblem, OSError, ValueError):
        return False


def _limit_texts(limit: int, total: int, removed: Sequence[str], freed: int) -> list[str]:
    texts = list[str]()
    if removed:
        names = ", ".join(removed[:MOST_NAMED]) + (f" and {len(removed) - 3} more" if len(removed) > MOST_NAMED else "")
        texts.append(
            f"Runs may keep {amount(limit)}, so the oldest that can be computed again were removed ({names}: "
            f"{amount(freed)})."
        )
    if total > limit:
        texts.append(
            f"Runs keep {amount(total)}, more than the {amount(limit)} that they may: the others hold painted "
            "labels or the only copy of a model, or are not done; look with: napari-unetvnet runs list"
        )
    return texts
