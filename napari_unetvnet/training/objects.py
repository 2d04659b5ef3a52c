"""What the card of a model says of the single objects that it learnt from.

How deep a neck must be to be split is tried on the labels: their foreground is divided at several depths, and the best
one is where it falls apart into the objects that were painted.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.data.label_counts import label_counts
from napari_unetvnet.data.targets.kinds import kind_of
from napari_unetvnet.images.sampling import spread
from napari_unetvnet.metrics import object_scores
from napari_unetvnet.metrics.objects import pooled_objects
from napari_unetvnet.model.card import ObjectsLearnt
from napari_unetvnet.postprocess import objects

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.conventions import Spacing
    from napari_unetvnet.images.pairs import Pair
    from napari_unetvnet.settings import TrainSettings

    Painted = tuple[NDArray[Any], Spacing]
    """Ids (Z, Y, X), and the voxel edges."""

__all__ = ["objects_learnt"]

EXTREMES = 1, 50, 99
"""Percentiles: the smallest and the largest objects are not those of a slip of the brush."""
DEPTHS = 5.0, 3.0, 2.0, 1.5, 1.0
"""Depths to try, in the longest voxel edge; results are too rough for less."""
SIDES = {2: 512, 3: 64}
"""Voxels along each axis of the middle of an image on which depths are tried."""
TRIED = 1 << 19
"""Voxels on which depths are tried, about."""


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
    none = {0, settings.ignore_value}
    counts = (label_counts(pair.labels).counts[0] for pair in pairs)
    sizes = [voxels for count in counts for value, voxels in count.items() if value not in none]
    smallest, median, largest = (round(float(size)) for size in np.percentile(sizes, EXTREMES))
    depth = _split_depth(_painted(pairs, settings)) if rule == "watershed" else None
    rule = "components" if rule == "watershed" and depth is None else rule
    return ObjectsLearnt(rule=rule, count=len(sizes), voxels=(smallest, median, largest), split_edges=depth)


def _painted(pairs: Sequence[Pair], settings: TrainSettings) -> list[Painted]:
    """Read the middle of some images, evenly spaced ones."""
    side = SIDES[2 if pairs[0].labels.shape[0] == 1 else 3]
    boxes = [tuple(slice((n - m) // 2, (n + m) // 2) for n, m in _cut(pair, side)) for pair in pairs]
    voxels = sum(prod(part.stop - part.start for part in box) for box in boxes)
    parts = []
    for i in spread(len(pairs), max(1, TRIED * len(pairs) // voxels)):
        ids = np.asarray(pairs[i].labels.data[(0, *boxes[i])]).astype(np.int64)
        parts.append((np.where(ids == settings.ignore_value, 0, ids), pairs[i].labels.spacing))
    return parts


def _cut(pair: Pair, side: int) -> list[tuple[int, int]]:
    """Give the voxels of an image and of its middle along each axis."""
    return [(n, min(n, side)) for n in pair.labels.shape]


def _split_depth(painted: list[Painted]) -> float | None:
    """Give the depth that divides the foreground best, the deepest of the best; None if pieces are best left whole."""
    best, chosen = _score(painted, None), None
    for depth in DEPTHS:
        if (score := _score(painted, depth)) > best:
            best, chosen = score, depth
    return chosen


def _score(painted: list[Painted], depth: float | None) -> float:
    """Compare the foreground, divided at a depth, with the objects that were painted: their F1."""
    return pooled_objects(object_scores(_divided(ids, spacing, depth), ids) for ids, spacing in painted).f1


def _divided(ids: NDArray[Any], spacing: Spacing, depth: float | None) -> NDArray[np.int32]:
    foreground = (ids != 0).astype(np.uint8)
    if depth is None:
        return objects(foreground, "components")
    edge = max((edge for edge, n in zip(spacing, ids.shape, strict=True) if n > 1), default=1.0)
    return objects(foreground, "watershed", spacing=spacing, split_depth=depth * edge)
