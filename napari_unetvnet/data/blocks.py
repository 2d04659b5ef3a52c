"""Blocks of an image: around a voxel, or where most is labelled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.images.arrays import parts
from napari_unetvnet.images.volume import Box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.conventions import Triple

__all__ = ["block_around", "block_of_labels"]


def block_around(centre: Sequence[int], shape: Triple, size: Triple) -> Box:
    """Give a block around a voxel.

    Parameters
    ----------
    centre : 3 int
        The voxel z, y, x; clipped to the image.
    shape : tuple of 3 int
        Of the image.
    size : tuple of 3 int
        Of the block; cropped to the image.

    Returns
    -------
    Box
        Inside the image.
    """
    lengths = [min(a, n) for a, n in zip(size, shape, strict=True)]
    z, y, x = (min(max(0, place - a // 2), n - a) for place, a, n in zip(centre, lengths, shape, strict=True))
    return Box((z, y, x), (z + lengths[0], y + lengths[1], x + lengths[2]))


def block_of_labels(labels: Any, size: Triple, unlabelled: int = 0) -> Box:
    """Give a block with many labels, by the fullest planes, then rows, then columns.

    Parameters
    ----------
    labels : array of shape (K, Z, Y, X)
    size : tuple of 3 int
        Of the block; cropped to the image.
    unlabelled : int
        The value of voxels without a label.

    Returns
    -------
    Box
    """
    lengths = [min(a, n) for a, n in zip(size, labels.shape[-3:], strict=True)]
    along = np.zeros(labels.shape[-3], np.int64)
    for box in parts(labels):  # the labels may exceed the memory; the planes of a block do not
        along[box[0]] += (np.asarray(labels[(..., *box)]) != unlabelled).any(axis=0).sum(axis=(1, 2))
    z = _fullest(along, lengths[0])
    labelled = (np.asarray(labels[:, z : z + lengths[0]]) != unlabelled).any(axis=0)
    y = _fullest(labelled.sum(axis=(0, 2)), lengths[1])
    x = _fullest(labelled[:, y : y + lengths[1]].sum(axis=(0, 1)), lengths[2])
    return Box((z, y, x), (z + lengths[0], y + lengths[1], x + lengths[2]))


def _fullest(counts: NDArray[np.int64], length: int) -> int:
    """Give the start of the window with the highest sum; of equal ones, the middle one."""
    sums = np.convolve(counts, np.ones(length, np.int64), "valid")
    starts = np.flatnonzero(sums == sums.max())
    return int(starts[len(starts) // 2])  # this centres the labels that all these windows share
