"""Which parts of an array are read to judge it: all of a small one, evenly spread parts of a large one."""

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
"""A box has at most about so many voxels."""


def boxes(shape: Triple, limit: int) -> list[Box]:
    """Cut a volume into boxes of whole rows; of one that is too large, choose evenly spread planes or bands of rows.

    Parameters
    ----------
    shape : tuple of 3 int
    limit : int
        Voxels to read, about.

    Returns
    -------
    list of Box
    """
    z, y, x = shape
    everything = math.prod(shape) <= limit
    slab = max(1, min(SLAB_VOXELS, limit))
    rows = max(1, min(y, slab // x))
    depth = max(1, min(z, slab // (y * x))) if everything and rows == y else 1
    corners = [(a, b) for a in range(0, z, depth) for b in range(0, y, rows)]
    if not everything:
        corners = [corners[i] for i in spread(len(corners), max(1, limit // (rows * x)))]
    return [Box((a, b, 0), (min(a + depth, z), min(b + rows, y), x)) for a, b in corners]


def covers(parts: Sequence[Box], shape: Triple) -> float:
    """Say which share of a volume boxes cover.

    Parameters
    ----------
    parts : sequence of Box
    shape : tuple of 3 int

    Returns
    -------
    float
    """
    return sum(math.prod(part.shape) for part in parts) / math.prod(shape)


def spread(total: int, count: int) -> NDArray[np.int64]:
    """Choose indices evenly, each from the middle of its share.

    Parameters
    ----------
    total, count : int
        Choose so many of so many; all if there are no more.

    Returns
    -------
    array of int
    """
    if count >= total:
        return np.arange(total)
    return ((np.arange(count) + 0.5) * total / count).astype(np.int64)
