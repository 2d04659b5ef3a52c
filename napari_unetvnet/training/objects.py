"""What the card of a model says of the single objects that it learnt from."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from napari_unetvnet.data.label_counts import label_counts
from napari_unetvnet.data.targets.kinds import kind_of
from napari_unetvnet.model.card import ObjectsLearnt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unetvnet.images.pairs import Pair
    from napari_unetvnet.settings import TrainSettings

__all__ = ["objects_learnt"]

EXTREMES = 1, 50, 99
"""Percentiles: the smallest and the largest objects are not those of a slip of the brush."""


def objects_learnt(pairs: Sequence[Pair], settings: TrainSettings) -> ObjectsLearnt | None:
    """Measure the objects of the training labels, and say how results become single objects.

    Parameters
    ----------
    pairs : sequence of Pair
        On the grid that the network sees.

    Returns
    -------
    ObjectsLearnt or None
        None if results stay classes.
    """
    rule = kind_of(settings).objects_by
    if not rule:
        return None
    sizes = [(size, pair.labels.shape[0] == 1) for pair in pairs for size in _sizes(pair, settings)]
    smallest, median, largest = (round(float(size)) for size in np.percentile([size for size, _ in sizes], EXTREMES))
    radius = float(np.median([_radius(size, flat=flat) for size, flat in sizes]))
    return ObjectsLearnt(
        rule=rule, count=len(sizes), voxels=(smallest, median, largest), radius_voxels=round(radius, 2)
    )


def _sizes(pair: Pair, settings: TrainSettings) -> list[int]:
    """Give the voxels of each object of an image."""
    none = {0, settings.ignore_value}
    return [voxels for value, voxels in label_counts(pair.labels).counts[0].items() if value not in none]


def _radius(voxels: int, *, flat: bool) -> float:
    """Give the radius of a disk or a ball."""
    return math.sqrt(voxels / math.pi) if flat else math.cbrt(voxels * 3 / (4 * math.pi))
