"""How large the labelled objects are: a network that never sees one whole has to guess what it belongs to."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.data.label_counts import label_counts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.images.pairs import Pair
    from napari_unetvnet.images.volume import Volume
    from napari_unetvnet.settings import TrainSettings

__all__ = ["object_widths"]

MOST_IMAGES, MOST_VALUES = 8, 8


def object_widths(pairs: Sequence[Pair], settings: TrainSettings) -> dict[int, float]:
    """Measure the largest ball, or disc in planes, that fits into each class.

    Parameters
    ----------
    pairs : sequence of Pair
        Labels (1, Z, Y, X).

    Returns
    -------
    dict of int to float
        By label value (of objects: 1), its diameter in voxels of the finest axis. Empty if labels are strokes, lines,
        masks that overlap or the borders of objects, which have no such width.
    """
    borders = settings.label_values == "objects" and settings.objects_as == "boundaries"
    if settings.unlabelled == "ignore" or settings.label_values == "overlapping" or settings.lines or borders:
        return {}
    widths: dict[int, float] = {}
    for pair in pairs[:: ceil(len(pairs) / MOST_IMAGES)]:
        for value, width in _widths(pair.labels, pair.image.spacing, settings).items():
            widths[value] = max(width, widths.get(value, 0.0))
    return widths


def _widths(labels: Volume, spacing: Sequence[float], settings: TrainSettings) -> dict[int, float]:
    """Measure the classes of one image."""
    from scipy.ndimage import distance_transform_edt

    counted = label_counts(labels)
    thinned, axes = (counted.thinned[0], spacing[1:]) if labels.shape[0] == 1 else (counted.thinned, spacing)
    sampling = [counted.step * edge / min(axes) for edge in axes]
    masks = (
        {1: _inside(thinned)}
        if settings.label_values == "objects"
        else {value: thinned == value for value in _values(labels, settings)}
    )
    distances = {value: distance_transform_edt(mask, sampling).max(initial=0) for value, mask in masks.items()}
    return {value: float(2 * distance) for value, distance in distances.items() if distance}


def _values(labels: Volume, settings: TrainSettings) -> list[int]:
    """Give the most frequent label values that are not background."""
    counts = label_counts(labels).counts[0]
    return [value for value, _ in counts.most_common() if value not in (0, settings.ignore_value)][:MOST_VALUES]


def _inside(ids: NDArray[Any]) -> NDArray[np.bool_]:
    """Give the voxels of objects, without the last one along each axis where two objects touch."""
    inside: NDArray[np.bool_] = ids != 0
    for axis in range(ids.ndim):
        first = [slice(None)] * ids.ndim
        first[axis] = slice(None, -1)
        inside[tuple(first)] &= np.diff(ids.astype(np.int64), axis=axis) == 0
    return inside
