"""How far every voxel is from the nearest object and from the second-nearest one.

The squared distance is a sum over the axes, so both can be found one axis after the other: a voxel needs, of each voxel
on its line, no more than that one's nearest object, the distance to it, and the distance to the nearest other object.
Time does not depend on how many objects there are, and memory is a few numbers for each voxel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["small_ids", "two_nearest"]

BLOCK_VOXELS = 1 << 15
"""Lines are treated in blocks of so many voxels, which the processor's cache holds."""


def two_nearest(
    objects: NDArray[Any], reach: float, spacing: tuple[float, float, float]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Measure the distance to the nearest and to the second-nearest object.

    Distance is from the centre of a voxel to the centre of the object's nearest voxel: 0 inside the object, and 1 at
    the voxels that touch it. So two objects that touch are 1 apart, and a gap of one voxel is 1 + 1 wide.

    Parameters
    ----------
    objects : array of shape (Z, Y, X), integers
        Ids, 0 where there is no object.
    reach : float
        Distances up to here are exact in single precision; larger ones may come out larger still, or infinite.
    spacing : tuple of 3 float
        Voxel edge lengths z, y, x in the unit of ``reach``; infinite for an axis along which nothing is near.

    Returns
    -------
    nearest, second : arrays of float32, shape (Z, Y, X)
        Infinite where there is no such object.

    References
    ----------
    .. [1] Felzenszwalb and Huttenlocher 2012, Distance transforms of sampled functions,
       https://doi.org/10.4086/toc.2012.v008a019
    """
    ids = small_ids(objects)
    nearest = np.where(ids > 0, np.float32(0), np.float32(np.inf))
    second = np.full_like(nearest, np.inf)
    for edge in spacing:
        shape = nearest.shape
        lines = [np.ascontiguousarray(part).reshape(shape[0], -1) for part in (ids, nearest, second)]
        steps = int(min(shape[0] - 1, reach / edge))
        _spread(lines, [np.float32((step * edge) ** 2) for step in range(1, steps + 1)])
        # The next axis comes to the front; after three turns the order is the old one.
        ids, nearest, second = (np.moveaxis(part.reshape(shape), 0, -1) for part in lines)
    return np.sqrt(nearest), np.sqrt(second)


def small_ids(objects: NDArray[Any]) -> NDArray[np.int32]:
    """Give ids in 32 bits, numbered anew where they are too large for that.

    Parameters
    ----------
    objects : array of shape (Z, Y, X), integers at least 0

    Returns
    -------
    array of int32, shape (Z, Y, X)
        0 where it was 0, and smaller than the largest number of 32 bits.
    """
    if objects.max() >= np.iinfo(np.int32).max:
        table, index = np.unique(objects, return_inverse=True)
        objects = index.reshape(objects.shape) + (table[0] != 0)
    return objects.astype(np.int32)


def _spread(lines: list[NDArray[Any]], squares: list[np.float32]) -> None:
    """Carry ids, nearest and second (N, L) along the first axis; ``squares`` are the squares of 1, 2, ... steps."""
    count, width = lines[0].shape
    block = max(1, BLOCK_VOXELS // count)
    for start in range(0, width, block):
        columns = (slice(None), slice(start, start + block))
        ids, nearest, second = (part[columns].copy() for part in lines)
        if not ids.any():
            continue
        into = [ids.copy(), nearest.copy(), second.copy()]
        for step, square in enumerate(squares, start=1):
            source = (ids, nearest + square, second + square)
            back, front = slice(None, count - step), slice(step, None)
            _merge([part[front] for part in into], [part[back] for part in source])
            _merge([part[back] for part in into], [part[front] for part in source])
        for part, found in zip(lines, into, strict=True):
            part[columns] = found


def _merge(into: list[NDArray[Any]], source: list[NDArray[Any]]) -> None:
    """Update ids, nearest and second by those of another voxel, distances counted from here.

    Where both have the same nearest object, the second is the smaller of both seconds. Otherwise the larger of the two
    nearest is a candidate too; that a second may belong to the object that is nearest now does no harm, because it is
    never smaller than this candidate then.
    """
    ids, nearest, second = into
    other_ids, other_nearest, other_second = source
    np.minimum(second, other_second, out=second)
    np.minimum(second, np.maximum(nearest, other_nearest), out=second, where=other_ids != ids)
    np.copyto(ids, other_ids, where=other_nearest < nearest)
    np.minimum(nearest, other_nearest, out=nearest)
