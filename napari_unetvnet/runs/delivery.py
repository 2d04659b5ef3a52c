"""The model of a training, copied to the output of its job: never over a better one, and nothing is lost.

A file that is there already is replaced if its model scored no better on the hold-out of the training, and a copy of it
is kept in the run folder. If it is better, cannot be compared, or was written since the training began, it stays, and
the new model is written beside it.
"""

from __future__ import annotations

import hashlib
import itertools
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_unetvnet.events import OutputScored
from napari_unetvnet.files import put_if_free, writing
from napari_unetvnet.images.written import delivering, target
from napari_unetvnet.json_files import read_json, write_json
from napari_unetvnet.model.card import read_card
from napari_unetvnet.runs.folder import DELIVERED, MODEL, REPLACED, follow
from napari_unetvnet.temporary import beside, remove, remove_strays

if TYPE_CHECKING:
    from pathlib import Path

    from napari_unetvnet.model.card import ModelCard

__all__ = ["Delivered", "deliver_model"]

ADVICE = "remove it, and resume the run"


@dataclass(frozen=True)
class Delivered:
    """Where a run has written its model, and the hash of that file."""

    path: str
    sha256: str


def deliver_model(folder: Path, output: Path) -> tuple[Path, list[str]]:
    """Copy the model of a run folder to its output, or beside it.

    Returns
    -------
    path : Path
        Where the model is.
    notices : list of str
        What became of a file that was there already.

    Raises
    ------
    FileProblem
        If the model cannot be copied; it stays in the run folder.
    """
    model = folder / MODEL
    remove_strays(output.parent)  # also where a killed run left its model in place, and nothing is to be written
    with writing(output, f"the model is {model}"):
        if (own := _earlier(folder, output)) is not None:
            path, notices = _replace(model, own), list[str]()
        elif not output.exists():
            path, notices = _write_beside(model, target(output)), []
        else:
            card, digest = read_card(model), _sha256(output)
            if digest == _sha256(model) or (card.unchanged and card.parent.endswith(digest)):
                return output, []  # it is there already, or is the model that the training could not improve
            path, notices = _beside_or_instead(folder, output, card, digest)
        write_json(folder / DELIVERED, {"path": str(path), "sha256": _sha256(path)})
    return path, notices


def _beside_or_instead(folder: Path, output: Path, card: ModelCard, digest: str) -> tuple[Path, list[str]]:
    """Copy the model to a place where another is, if it is no worse than that one, else beside it."""
    scored = next((event for event in reversed(follow(folder)[0]) if isinstance(event, OutputScored)), None)
    old, new = scored.dice if scored else None, card.scores.get("hold_out_dice")
    scores = f"Dice {old or 0:.3f} on the hold-out of this training, the new one {new or 0:.3f}"
    if scored is None or scored.sha256 != digest:
        reason = "it was written since this training began"
    elif old is None or new is None:
        reason = scored.reason or "the new model has no score"
    elif new < old:
        reason = f"its model is better: {scores}"
    else:
        kept = _write_beside(output, folder / REPLACED)
        return _replace(folder / MODEL, output), [
            f"{output} was replaced: its model had {scores}. It is kept as {kept}."
        ]
    path = _write_beside(folder / MODEL, output)
    return path, [f"{output} was left as it is, because {reason}. The new model is {path}."]


def _earlier(folder: Path, output: Path) -> Path | None:
    """Give the file that this run wrote for the output when it was stopped, unless someone has changed it."""
    if not (folder / DELIVERED).exists():
        return None
    written = read_json(folder / DELIVERED, Delivered, ADVICE)
    for path in itertools.islice(_names(output), 100):  # none is taken from the file, which may be a stranger's
        if str(path) == written.path:
            return path if path.is_file() and _sha256(path) == written.sha256 else None
    return None


def _write_beside(source: Path, path: Path) -> Path:
    """Copy a file to a path, or where something is there, to the next name that is free."""
    part = beside(path)
    try:
        shutil.copyfile(source, part)
        return next(name for name in _names(path) if put_if_free(part, name))
    finally:
        remove(part)


def _replace(model: Path, output: Path) -> Path:
    with delivering(output) as (temporary,):
        shutil.copyfile(model, temporary)
    return output


def _names(path: Path) -> itertools.chain[Path]:
    """Give a path, and those with a number behind its name."""
    return itertools.chain([path], (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(2)))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
