"""How good the network is on the hold-out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.data.hold_out import block_to_score
from napari_unetvnet.inference import decide, scores
from napari_unetvnet.settings import SegmentSettings
from napari_unetvnet.training.processes import SINGLE, ProcessGroup

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.data.patches import Region
    from napari_unetvnet.data.targets import Classes
    from napari_unetvnet.model.model import Model
    from napari_unetvnet.settings import TrainSettings

__all__ = ["dice_on", "part_to_score"]

SHARE, STEP_PASSES = 0.05, 3
"""Scoring takes this share of the time; a step passes its voxels through the network about three times."""
LEAST_VOXELS = 2**16


def part_to_score(regions: Sequence[Region], settings: TrainSettings) -> list[Region]:
    """Give a part of the hold-out that takes little of the time to score after each epoch.

    Parameters
    ----------
    regions : sequence of Region
    settings : TrainSettings

    Returns
    -------
    list of Region
        The same where they are small.
    """
    epoch = settings.steps_per_epoch * settings.batch * math.prod(settings.planned_patch)
    voxels = max(LEAST_VOXELS, round(SHARE * STEP_PASSES * epoch)) // max(1, len(regions))
    boxes = [block_to_score(region.target, voxels, settings.planned_patch) for region in regions]
    return [
        region if box.shape == region.image.shape else region.cut(box)
        for region, box in zip(regions, boxes, strict=True)
    ]


def dice_on(
    regions: Sequence[Region], model: Model, classes: Classes, group: ProcessGroup = SINGLE
) -> tuple[float | None, dict[str, float]]:
    """Give the mean Dice of the foreground classes over whole regions, and that of each class.

    Parameters
    ----------
    regions : sequence of Region
    model : Model
    classes : Classes
    group : ProcessGroup
        Processes that have the same model; each looks at some of the regions.

    Returns
    -------
    mean : float or None
        None where no region has a voxel of a foreground class.
    by_class : dict of str to float
        By the class's name where classes overlap and have one, else by its written value.
    """
    card = model.card
    overlap, total = np.zeros(len(classes)), np.zeros(len(classes))
    model.network.eval()
    for region in regions[group.rank :: group.size]:
        for start, logits in scores(model, region.image, SegmentSettings(), region.scale):
            shown = logits[list(card.class_outputs)] if classes.multilabel else logits
            predicted = decide(shown, card.head).cpu().numpy()
            common, both = _overlaps(predicted, region.target[..., start : start + predicted.shape[-3], :, :], classes)
            overlap += common
            total += both
    overlap, total = group.sum(np.stack([overlap, total]))
    dice = {k: float(2 * overlap[k] / total[k]) for k in classes.foreground if total[k]}
    mean = sum(dice.values()) / len(dice) if dice else None
    names = classes.names if classes.multilabel and classes.names else tuple(map(str, classes.output_values))
    return mean, {names[k]: value for k, value in dice.items()}


def _overlaps(
    predicted: NDArray[np.uint8], target: NDArray[np.uint8], classes: Classes
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count for each class the known voxels where both have it, and those of the one plus those of the other."""
    predicted = np.where(target == IGNORE, IGNORE, predicted)
    if classes.multilabel:
        there, true = predicted == 1, target == 1
        sums = tuple(mask.sum(axis=(1, 2, 3)) for mask in (there & true, there, true))
    else:
        parts = (predicted[predicted == target], predicted.ravel(), target.ravel())
        sums = tuple(np.bincount(part, minlength=IGNORE + 1)[: len(classes)] for part in parts)
    return sums[0], sums[1] + sums[2]
