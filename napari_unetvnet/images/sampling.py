"""Choose the boxes that are read of an array: all of a small one, evenly spaced boxes of a large one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from napari_unetvnet.images.volume import Box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.conventions import Triple

__all__ = ["boxes", "covers", "spread"]

SLAB_VOXELS = 1 << 23
"""Approximate maximum size of a box."""


def boxes(shape: Triple, limit: int) -> list[Box]:
    """Divide a volume into boxes of whole rows; of a large one, choose evenly spaced planes or bands of rows.

    Parameters
    ----------
    shape : tuple of 3 int
    limit : int
        Approximate number of voxels to read.

    Returns
    -------
    list of Box
    """
    z, y, x = shape
    complete = math.prod(shape) <= limit
    slab = max(1, min(SLAB_VOXELS, limit))
    rows = max(1, min(y, slab // x))
    depth = max(1, min(z, slab // (y * x))) if complete and rows == y else 1
    corners = [(a, b) for a in range(0, z, depth) for b in range(0, y, rows)]
    if not complete:
        corners = [corners[i] for i in spread(len(corners), max(1, limit // (rows * x)))]
    return [Box((a, b, 0), (min(a + depth, z), min(b + rows, y), x)) for a, b in corners]


def covers(parts: Sequence[Box], shape: Triple) -> float:
    """Give the fraction of a volume that boxes cover.

    Parameters
    ----------
    shape : tuple of 3 int

    Returns
    -------
    float
    """
    return sum(math.prod(part.shape) for part in parts) / math.prod(shape)


def spread(total: int, count: int) -> NDArray[np.int64]:
    """Choose evenly spaced indices, each from the middle of an interval.

    Parameters
    ----------
    total, count : int
        Number of indices to choose from and to choose; all if there are not more.

    Returns
    -------
    array of int
    """
    if count >= total:
        return np.arange(total)
    return ((np.arange(count) + 0.5) * total / count).astype(np.int64)
