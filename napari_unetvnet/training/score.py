"""The validation score: Dice on the hold-out."""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.data.scored import representative_part
from napari_unetvnet.inference import decide, scores
from napari_unetvnet.settings import SegmentSettings
from napari_unetvnet.training.processes import SINGLE, ProcessGroup

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.data.patches import Region, TrainingData
    from napari_unetvnet.data.targets import Classes
    from napari_unetvnet.model.model import Model
    from napari_unetvnet.settings import TrainSettings
    from napari_unetvnet.training.run import Best, Run

__all__ = ["counts_on", "dice_on", "mean_dice", "part_to_score", "score_weights", "standard_error", "with_weights"]

TIME_SHARE, STEP_PASSES = 0.05, 3
"""Fraction of the time for validation; a step costs about three forward passes of its voxels."""
LEAST_VOXELS = 2**16
CELLS = 4
"""Each region is counted in so many parts along y and x, to tell by how much a score would vary on other ones."""


def part_to_score(data: TrainingData, settings: TrainSettings) -> list[Region]:
    """Give a part of the hold-out that is cheap to score after each epoch and represents all of it.

    Returns
    -------
    list of Region
        The whole hold-out if it is small.
    """
    epoch = settings.steps_per_epoch * settings.batch * math.prod(settings.planned_patch)
    voxels = max(LEAST_VOXELS, round(TIME_SHARE * STEP_PASSES * epoch))
    return representative_part(data.hold_out, data.classes, voxels, settings.planned_patch, settings.seed)


def dice_on(
    regions: Sequence[Region], model: Model, classes: Classes, group: ProcessGroup = SINGLE
) -> tuple[float | None, dict[str, float]]:
    """Give the mean Dice of the foreground classes over whole regions, and the Dice of each class.

    Parameters
    ----------
    group : ProcessGroup
        Processes with the same model; each scores a share of the regions.

    Returns
    -------
    mean : float or None
        None if neither labels nor prediction have a foreground voxel.
    by_class : dict of str to float
        By class name, or by label value if classes have no names.
    """
    return mean_dice(counts_on(regions, model, classes, group), classes)


def counts_on(
    regions: Sequence[Region], model: Model, classes: Classes, group: ProcessGroup = SINGLE
) -> NDArray[np.float64]:
    """Count the voxels that a Dice is made of, in parts of each region.

    Parameters
    ----------
    group : ProcessGroup
        Processes with the same model; each counts a share of the regions.

    Returns
    -------
    array of shape (n, 2, K)
        For each part and class the voxels of the intersection, and those of prediction plus labels.
    """
    card, counts = model.card, np.zeros((len(regions), CELLS, CELLS, 2, len(classes)))
    model.network.eval()
    for i in range(group.rank, len(regions), group.size):
        region = regions[i]
        for start, logits in scores(model, region.image, SegmentSettings(), region.scale):
            outputs = logits[list(card.class_outputs)] if classes.multilabel else logits
            predicted = decide(outputs, card.head).cpu().numpy()
            target = region.target[..., start : start + predicted.shape[-3], :, :]
            counts[i] += _in_cells(predicted, target, classes)
    return np.asarray(group.sum(counts)).reshape(-1, 2, len(classes))


def mean_dice(counts: NDArray[np.float64], classes: Classes) -> tuple[float | None, dict[str, float]]:
    """Give the mean Dice of the foreground classes, and the Dice of each, from the counts of all parts.

    Returns
    -------
    mean : float or None
    by_class : dict of str to float
        As of `dice_on`.
    """
    overlap, total = counts.sum(axis=0)
    dice = {k: float(2 * overlap[k] / total[k]) for k in classes.foreground if total[k]}
    mean = sum(dice.values()) / len(dice) if dice else None
    return mean, {classes.words[k]: value for k, value in dice.items()}


def standard_error(one: NDArray[np.float64], other: NDArray[np.float64], classes: Classes) -> float:
    """Estimate how much the difference of two scores varies with what is held out, by the jackknife.

    Parameters
    ----------
    one, other : array of shape (n, 2, K)
        Counts of two models on the same parts.

    Returns
    -------
    float
        0 if fewer than two parts have a foreground.
    """
    foreground = classes.foreground
    filled = (one[:, 1, foreground] + other[:, 1, foreground]).any(axis=1)
    one, other, n = one[filled], other[filled], int(filled.sum())
    if n < 2:
        return 0.0
    without = [
        (mean_dice(np.delete(one, i, 0), classes)[0] or 0.0) - (mean_dice(np.delete(other, i, 0), classes)[0] or 0.0)
        for i in range(n)
    ]
    return float(np.sqrt((n - 1) * np.var(without)))


@contextmanager
def with_weights(run: Run, best: Best) -> Iterator[None]:
    """Use weights other than the present ones in the network of a run.

    Yields
    ------
    None
    """
    network = run.model.network
    present = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    network.load_state_dict(best.weights)
    try:
        yield
    finally:
        network.load_state_dict(present)


def score_weights(run: Run, best: Best, regions: Sequence[Region]) -> Best:
    """Score weights other than the present ones.

    Returns
    -------
    Best
        The same weights with their score on the regions.
    """
    with with_weights(run, best):
        dice, by_class = dice_on(regions, run.model, run.data.classes, run.group)
    return replace(best, dice=dice, scores=by_class)


def _in_cells(predicted: NDArray[np.uint8], target: NDArray[np.uint8], classes: Classes) -> NDArray[np.int64]:
    """Count in a grid of cells along y and x, of shape (CELLS, CELLS, 2, K)."""
    rows, columns = (np.linspace(0, n, CELLS + 1).astype(int) for n in predicted.shape[-2:])
    counts = np.zeros((CELLS, CELLS, 2, len(classes)), np.int64)
    for i, j in np.ndindex(CELLS, CELLS):
        cell: Any = (..., slice(*rows[i : i + 2]), slice(*columns[j : j + 2]))
        counts[i, j] = _overlaps(predicted[cell], target[cell], classes)
    return counts


def _overlaps(
    predicted: NDArray[np.uint8], target: NDArray[np.uint8], classes: Classes
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count for each class the labelled voxels of the intersection, and those of prediction plus target."""
    predicted = np.where(target == IGNORE, IGNORE, predicted)
    if classes.multilabel:
        positive, true = predicted == 1, target == 1
        sums = tuple(mask.sum(axis=(1, 2, 3)) for mask in (positive & true, positive, true))
    else:
        parts = (predicted[predicted == target], predicted.ravel(), target.ravel())
        sums = tuple(np.bincount(part, minlength=IGNORE + 1)[: len(classes)] for part in parts)
    return sums[0], sums[1] + sums[2]
