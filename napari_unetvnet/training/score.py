"""The validation score: Dice on the hold-out."""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.data.boxes import subtract
from napari_unetvnet.data.scored import representative_part
from napari_unetvnet.images.volume import Box
from napari_unetvnet.inference import decide, scores
from napari_unetvnet.inference.selection import Selection
from napari_unetvnet.settings import SegmentSettings
from napari_unetvnet.training.processes import SINGLE, ProcessGroup

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from napari_unetvnet.data.patches import Region, TrainingData
    from napari_unetvnet.data.targets import Classes
    from napari_unetvnet.model.model import Model
    from napari_unetvnet.settings import TrainSettings
    from napari_unetvnet.training.run import Best, Run

__all__ = ["dice_on", "part_to_score", "score_weights", "with_weights"]

TIME_SHARE, STEP_PASSES = 0.05, 3
"""Fraction of the time for validation; a step costs about three forward passes of its voxels."""
LEAST_VOXELS = 2**16


def part_to_score(data: TrainingData, settings: TrainSettings) -> list[Region]:
    """Give a part of the hold-out that is cheap to score after each epoch and represents all of it.

    Returns
    -------
    list of Region
        The whole hold-out if it is small.
    """
    epoch = settings.steps_per_epoch * settings.batch * math.prod(settings.planned_patch)
    voxels = max(LEAST_VOXELS, round(TIME_SHARE * STEP_PASSES * epoch))
    patch, beside = settings.planned_patch, settings.planes_beside
    return representative_part(data.hold_out, data.classes, voxels, patch, settings.seed, beside)


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
    card = model.card
    overlap, total = np.zeros(len(classes)), np.zeros(len(classes))
    model.network.eval()
    for region in regions[group.rank :: group.size]:
        for start, logits in scores(model, region.image, SegmentSettings(), region.scale, selection=_selected(region)):
            outputs = logits[list(card.class_outputs)] if classes.multilabel else logits
            predicted = decide(outputs, card.head).cpu().numpy()
            target = region.target[..., start : start + predicted.shape[-3], :, :]
            intersection, sizes = _overlaps(predicted, target, classes)
            overlap += intersection
            total += sizes
    overlap, total = group.sum(np.stack([overlap, total]))
    dice = {k: float(2 * overlap[k] / total[k]) for k in classes.foreground if total[k]}
    mean = sum(dice.values()) / len(dice) if dice else None
    return mean, {classes.words[k]: value for k, value in dice.items()}


def _selected(region: Region) -> Selection | None:
    """Select what is scored of a region; nothing need be computed for the planes beside it."""
    free = subtract([Box((0, 0, 0), region.image.shape)], region.barred)
    shape = region.image.shape
    return Selection(free[0], None, shape, shape) if region.barred and len(free) == 1 else None


@contextmanager
def with_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Use other weights, and restore the present ones."""
    present = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    network.load_state_dict(weights)
    try:
        yield
    finally:
        network.load_state_dict(present)


def score_weights(run: Run, best: Best, regions: Sequence[Region], group: ProcessGroup | None = None) -> Best:
    """Score weights other than the present ones.

    Parameters
    ----------
    group : ProcessGroup, optional
        Processes that score together (default: those of the run).

    Returns
    -------
    Best
        The same weights with their score on the regions.
    """
    with with_weights(run.model.network, best.weights):
        dice, by_class = dice_on(regions, run.model, run.data.classes, group or run.group)
    return replace(best, dice=dice, scores=by_class)


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
