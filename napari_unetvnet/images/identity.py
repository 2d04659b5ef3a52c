"""Recognise an image by its content, whatever its file is called, where it lies and how it is stored."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from napari_unetvnet.images.resample import Resampled
from napari_unetvnet.images.sampling import spread
from napari_unetvnet.images.volume import Box

if TYPE_CHECKING:
    from napari_unetvnet.conventions import Triple
    from napari_unetvnet.images.volume import Volume

__all__ = ["content_hash", "original_shape"]

MOST_VOXELS = 1 << 23
"""Of a larger image only some boxes are hashed."""
BOX, BOXES = (8, 64, 64), 128
"""Shape z, y, x of these boxes, and their number."""
SLAB_VOXELS = 1 << 20
_CACHE: WeakKeyDictionary[Volume, str] = WeakKeyDictionary()


def content_hash(volume: Volume) -> str:
    """Hash the shape and the intensities of an image.

    File format, chunks and number type make no difference: values are compared in single precision. An image that is
    resampled when it is read is recognised by the image that it comes from.

    Parameters
    ----------
    volume : Volume, data of shape (C, Z, Y, X)
        Its values must not change afterwards.

    Returns
    -------
    str
        32 hexadecimal digits.
    """
    if volume not in _CACHE:
        _CACHE[volume] = _hashed(volume)
    return _CACHE[volume]


def original_shape(volume: Volume) -> Triple:
    """Give the shape z, y, x of an image before it was resampled.

    Returns
    -------
    tuple of 3 int
    """
    data = volume.data.source if isinstance(volume.data, Resampled) else volume.data
    z, y, x = (int(n) for n in data.shape[-3:])
    return z, y, x


def _hashed(volume: Volume) -> str:
    data = volume.data.source if isinstance(volume.data, Resampled) else volume.data
    digest = hashlib.blake2b(repr(tuple(map(int, data.shape))).encode(), digest_size=16)
    shape = original_shape(volume)
    for box in _all(shape) if math.prod(shape) <= MOST_VOXELS else _some(shape):
        part = np.asarray(data[(slice(None), *box.slices)])
        with np.errstate(over="ignore"):
            digest.update(np.ascontiguousarray(part.astype("<f4") + np.float32(0)).data)  # -0 becomes 0
    return digest.hexdigest()


def _all(shape: Triple) -> list[Box]:
    """Divide an image into boxes, which depend on its shape only."""
    z, y, x = shape
    rows = max(1, min(y, SLAB_VOXELS // x))
    depth = max(1, SLAB_VOXELS // (rows * x))
    corners = [(a, b) for a in range(0, z, depth) for b in range(0, y, rows)]
    return [Box((a, b, 0), (min(a + depth, z), min(b + rows, y), x)) for a, b in corners]


def _some(shape: Triple) -> list[Box]:
    """Give evenly spread boxes of a large image, which depend on its shape only."""
    grid = [-(-n // edge) for n, edge in zip(shape, BOX, strict=True)]
    corners = (np.unravel_index(flat, grid) for flat in spread(math.prod(grid), BOXES))
    starts = [tuple(int(i) * edge for i, edge in zip(corner, BOX, strict=True)) for corner in corners]
    return [
        Box((z, y, x), (min(z + BOX[0], shape[0]), min(y + BOX[1], shape[1]), min(x + BOX[2], shape[2])))
        for z, y, x in starts
    ]
