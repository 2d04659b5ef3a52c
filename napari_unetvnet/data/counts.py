"""Count label values and labelled voxels, block by block."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.arrays import parts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.images.volume import Box

__all__ = ["cell_counts", "class_counts", "class_mask", "count_values", "labelled_along", "labelled_voxels"]

SLAB_VOXELS = 1 << 23
"""Maximum voxels of the boxes in which labels are read."""


def class_counts(target: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count the voxels of each class.

    Parameters
    ----------
    target : array of uint8, shape (Z, Y, X) or (K, Z, Y, X)
        Class indices, or a channel for each class, and IGNORE.

    Returns
    -------
    array of int
        For class indices, one count for each possible index; for channels, K counts and that of voxels in no class.
    """
    return sum((_counts(target[(..., *box)]) for box in parts(target)), np.zeros(_count_length(target), np.int64))


def _count_length(target: NDArray[np.uint8]) -> int:
    return IGNORE if target.ndim == 3 else len(target) + 1


def _counts(part: NDArray[np.uint8]) -> NDArray[np.int64]:
    if part.ndim == 3:
        return np.bincount(part.ravel(), minlength=IGNORE + 1)[:IGNORE]
    voxels = (part == 1).sum(axis=(1, 2, 3))
    return np.append(voxels, (part == 0).all(axis=0).sum())


def class_mask(part: NDArray[np.uint8], k: int) -> NDArray[np.bool_]:
    """Give the voxels of a class; for channels, index K stands for voxels in no class.

    Parameters
    ----------
    part : array of uint8, shape (Z, Y, X) or (K, Z, Y, X)

    Returns
    -------
    array of bool, shape (Z, Y, X)
    """
    if part.ndim == 3:
        return np.asarray(part == k)
    return np.asarray(part[k] == 1 if k < len(part) else (part == 0).all(axis=0))


def cell_counts(
    target: NDArray[np.uint8], box: Box, edges: Sequence[NDArray[np.int64]], classes: Sequence[int]
) -> NDArray[np.int64]:
    """Count the voxels of some classes in each cell of a grid.

    Parameters
    ----------
    target : array of uint8, shape (Z, Y, X) or (K, Z, Y, X)
        Class indices, or a channel for each class, and IGNORE.
    box : Box
        Only voxels in it are counted; it lies within the grid.
    edges : 3 array of int
        Voxels z, y, x at which cells begin, and the end of the last one.
    classes : sequence of int
        Class indices in increasing order; for channels, K stands for voxels in no class.

    Returns
    -------
    array of int, shape (len(classes), cells z, cells y, cells x)
    """
    grid = [len(row) - 1 for row in edges]
    cells = [
        np.searchsorted(row, np.arange(a, b), "right") - 1 for row, a, b in zip(edges, box.start, box.stop, strict=True)
    ]
    table = np.full(IGNORE + 1, -1, np.int64)
    table[list(classes)] = np.arange(len(classes))
    counts = np.zeros(len(classes) * math.prod(grid), np.int64)
    inner = target[(..., *box.slices)]
    for where in parts(inner):
        z, y, x = (row[s] for row, s in zip(cells, where, strict=True))
        cell = (z[:, None, None] * grid[1] + y[:, None]) * grid[2] + x
        part = inner[(..., *where)]
        if part.ndim == 3:
            number = table[part]
            known = number >= 0
            counts += np.bincount(number[known] * math.prod(grid) + cell[known], minlength=len(counts))
            continue
        for row, k in zip(counts.reshape(len(classes), -1), classes, strict=True):
            row += np.bincount(cell[class_mask(part, k)], minlength=len(row))
    return counts.reshape(len(classes), *grid)


def labelled_along(target: NDArray[np.uint8]) -> list[NDArray[np.int64]]:
    """Count the labelled voxels along each axis.

    Parameters
    ----------
    target : array of uint8, shape (Z, Y, X) or (K, Z, Y, X)
        Class indices, or a channel for each class, and IGNORE.

    Returns
    -------
    list of 3 array of int
        Labelled voxels of each plane, of each row and of each column.
    """
    counts = [np.zeros(n, np.int64) for n in target.shape[-3:]]
    for box in parts(target):
        part = target[(..., *box)]
        labelled = (part != IGNORE).reshape(-1, *part.shape[-3:]).any(axis=0)
        for axis, count in enumerate(counts):
            count[box[axis]] += labelled.sum(axis=tuple(i for i in range(3) if i != axis))
    return counts


def labelled_voxels(target: NDArray[np.uint8]) -> Any:
    """Count the labelled voxels.

    Parameters
    ----------
    target : array of uint8, shape (Z, Y, X) or (K, Z, Y, X)

    Returns
    -------
    int, or array of int of shape (K,)
    """
    return sum((target[(..., *box)] != IGNORE).sum(axis=(-3, -2, -1)) for box in parts(target))


def count_values(labels: Any) -> Counter[int]:
    """Count how often each label value occurs.

    Parameters
    ----------
    labels : array of shape (Z, Y, X) or (1, Z, Y, X), integers or truth values
        Numpy, memory-mapped, dask, zarr: read by slicing only, in boxes of whole chunks of at most 8 million voxels.

    Returns
    -------
    Counter of int
        Number of voxels of each value, including 0.

    Raises
    ------
    DataProblem
        If the array has another shape or type.
    """
    if len(labels.shape) not in {3, 4} or math.prod(labels.shape[:-3]) != 1:
        raise DataProblem(f"Labels have the shape {tuple(labels.shape)}; give (Z, Y, X) or (1, Z, Y, X).")
    if np.dtype(labels.dtype).kind not in "bui":
        raise DataProblem(f"Labels of type {labels.dtype} cannot be counted; give integers.")
    counts: Counter[int] = Counter()
    for box in parts(labels, SLAB_VOXELS):
        counts.update(_value_table(np.asarray(labels[(..., *box)])))
    return counts


def _value_table(part: NDArray[Any]) -> dict[int, int]:
    """Count by a table, which is much faster than sorting, unless the range of values is too large."""
    low, high = int(part.min()), int(part.max())
    if high - low >= max(1 << 20, 4 * part.size):
        values, counts = np.unique(part, return_counts=True)
        return dict(zip(values.tolist(), counts.tolist(), strict=True))
    # In the widest integer type the difference cannot wrap around.
    wide = part.astype(np.uint64 if part.dtype.kind == "u" else np.int64).ravel()
    table = np.bincount((wide - wide.dtype.type(low)).view(np.int64))
    return {low + place: int(table[place]) for place in np.flatnonzero(table).tolist()}
