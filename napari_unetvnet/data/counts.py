"""How many voxels of a target are labelled, by class and along each axis; counted part by part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.images.arrays import parts

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["class_counts", "labelled_along", "labelled_voxels"]


def class_counts(target: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count the voxels of each class.

    Parameters
    ----------
    target : array of uint8, shape (Z, Y, X) or (K, Z, Y, X)
        Class indices, or a channel for each class, and IGNORE.

    Returns
    -------
    array of int
        For class indices one number for each that may be, for channels K numbers and that of the voxels without any.
    """
    return sum((_counts(target[(..., *box)]) for box in parts(target)), np.zeros(_kinds(target), np.int64))


def _kinds(target: NDArray[np.uint8]) -> int:
    return IGNORE if target.ndim == 3 else len(target) + 1


def _counts(part: NDArray[np.uint8]) -> NDArray[np.int64]:
    if part.ndim == 3:
        return np.bincount(part.ravel(), minlength=IGNORE + 1)[:IGNORE]
    each = (part == 1).sum(axis=(1, 2, 3))
    return np.append(each, (part == 0).all(axis=0).sum())


def labelled_along(target: NDArray[np.uint8]) -> list[NDArray[np.int64]]:
    """Count the labelled voxels along each axis.

    Parameters
    ----------
    target : array of uint8, shape (Z, Y, X) or (K, Z, Y, X)
        Class indices, or a channel for each class, and IGNORE.

    Returns
    -------
    list of 3 array of int
        For each plane, each row and each column how many there are in it.
    """
    counts = [np.zeros(n, np.int64) for n in target.shape[-3:]]
    for box in parts(target):
        part = target[(..., *box)]
        known = (part != IGNORE).reshape(-1, *part.shape[-3:]).any(axis=0)
        for axis, count in enumerate(counts):
            count[box[axis]] += known.sum(axis=tuple(i for i in range(3) if i != axis))
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
