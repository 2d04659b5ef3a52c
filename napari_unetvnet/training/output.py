"""The model that is already where the new one is to be written, scored on the same hold-out."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from napari_unetvnet.errors import UserError
from napari_unetvnet.events import OutputScored
from napari_unetvnet.model.differences import answer_differences
from napari_unetvnet.model.model import load_model
from napari_unetvnet.training.score import dice_on

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from napari_unetvnet.data.patches import Region
    from napari_unetvnet.training.run import Run

__all__ = ["score_output"]


def score_output(run: Run, regions: Sequence[Region]) -> Iterator[OutputScored]:
    """Score the model at the output of the job, so that a worse one does not take its place.

    Parameters
    ----------
    regions : sequence of Region
        The hold-out, or the part of it that each epoch is scored on.

    Yields
    ------
    OutputScored
        If there is a file.
    """
    path = run.files.output
    if path is None or not path.is_file() or not run.group.is_first:
        return
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    try:
        dice, reason = _score(run, regions, path, digest)
    except UserError as problem:
        dice, reason = None, f"it could not be scored ({problem})"
    yield OutputScored(str(path), digest, dice, reason)


def _score(run: Run, regions: Sequence[Region], path: Path, digest: str) -> tuple[float | None, str]:
    """Give the Dice of a model file, or why it has none."""
    parent = run.parent
    if parent is not None and parent.name.endswith(digest) and parent.start is not None:
        return (parent.start.dice if parent.whole is None else parent.whole), ""
    model = load_model(path, run.settings, before_fit=True)
    if differences := answer_differences(run.model.card, model.card):
        return None, f"its model cannot be compared with the new one ({'; '.join(differences)})"
    dice, _ = dice_on(regions, model, run.data.classes)
    return dice, "" if dice is not None else "nothing is held out that both models could be scored on"
