"""What of an image is content: without border planes of one value, and without a background that was cut out.

Padding, a black frame and a background set to zero say how an image was cropped, not what it shows. Whatever is left
out here depends only on what remains, so that padding an image changes nothing.
"""

from __future__ import annotations

from itertools import product
from math import ceil, prod, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.images.volume import Box

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["chunk_edges", "content_box", "cut_out_value", "holds", "is_huge"]

READ_VOXELS = 1 << 27
"""A chunked array with more voxels is huge: only some of its chunks are read."""
CUT_OUT = 0.8
"""A value is a background that was cut out if it fills this fraction of the border."""
FACE_VOXELS = 1 << 17
"""Voxels that are read of a face; of a larger one evenly spaced rows and columns."""
PIECE = 64
"""Edge of a piece of a face, where only pieces are read."""
BLOCKS = (1, 16, 64)
"""Planes to read at a time, from the border inwards; the last number is repeated."""
ROUNDING = 2e-7
"""Relative difference of float values that count as equal."""


def is_huge(data: Any) -> bool:
    """Whether an array is so large that only some of its chunks are read."""
    return bool(getattr(data, "chunks", None)) and prod(data.shape[-3:]) > READ_VOXELS


def chunk_edges(data: Any) -> list[int]:
    """Give the edges z, y, x of the chunks of an array."""
    return [int(chunk[0] if isinstance(chunk, tuple) else chunk) for chunk in data.chunks[-3:]]


def holds(values: NDArray[Any], value: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether voxels hold a value in every channel.

    Parameters
    ----------
    values : array of shape (C, ...)
    value : array of shape (C,)

    Returns
    -------
    array of bool, shape (...)
    """
    column = value.reshape(-1, *(1,) * (values.ndim - 1))
    equal = values == column
    if values.dtype.kind == "f":
        equal |= np.abs(values - column) <= ROUNDING * np.abs(column)
    whole: NDArray[np.bool_] = equal.all(axis=0)
    return whole


def content_box(data: Any) -> Box:
    """Give the box that remains without border planes in which each channel has one value.

    Parameters
    ----------
    data : array of shape (C, Z, Y, X)
        Read by slicing only, from the border inwards.

    Returns
    -------
    Box
        Along an axis on which every plane has one value, such as that of a ramp, nothing is left out; of a huge array
        nothing at all.
    """
    low, high = [0, 0, 0], [int(n) for n in data.shape[1:]]
    changed = not is_huge(data)
    while changed:
        changed = False
        for axis in range(3):
            first = _flat_planes(data, low, high, axis, backwards=False)
            if first == high[axis] - low[axis]:
                continue
            last = _flat_planes(data, low, high, axis, backwards=True)
            low[axis], high[axis] = low[axis] + first, high[axis] - last
            changed |= bool(first or last)
    return Box((low[0], low[1], low[2]), (high[0], high[1], high[2]))


def _flat_planes(data: Any, low: list[int], high: list[int], axis: int, *, backwards: bool) -> int:
    """Count the planes of a box, from one end of an axis on, in which each channel has one value."""
    length, count, reads = high[axis] - low[axis], 0, 0
    while count < length:
        planes = min(BLOCKS[min(reads, len(BLOCKS) - 1)], length - count)
        start = high[axis] - count - planes if backwards else low[axis] + count
        block = np.asarray(data[_key(low, high, axis, slice(start, start + planes))])
        flat = np.array([_is_flat(np.take(block, i, axis + 1)) for i in range(planes)])
        leading = int(np.argmin(np.append(flat[::-1] if backwards else flat, False)))
        count, reads = count + leading, reads + 1
        if leading < planes:
            break
    return count


def _key(low: list[int], high: list[int], axis: int, planes: slice, most: int = FACE_VOXELS) -> tuple[slice, ...]:
    """Give the key of some planes across an axis of a box, thinned out if they are large."""
    others = [i for i in range(3) if i != axis]
    step = max(1, ceil(sqrt(prod(high[i] - low[i] for i in others) / most)))
    steps = {i: max(1, min(step, (high[i] - low[i]) // 2)) for i in others}
    keys = [planes if i == axis else slice(low[i], high[i], steps[i]) for i in range(3)]
    return slice(None), *keys


def _is_flat(plane: NDArray[Any]) -> bool:
    """Whether each channel of a plane (C, ...) has one value."""
    rows = plane.reshape(len(plane), -1)
    return bool(holds(rows, rows[:, 0]).all())


def cut_out_value(data: Any) -> NDArray[np.float64] | None:
    """Give the value that fills most of the border of an image.

    Parameters
    ----------
    data : array of shape (C, Z, Y, X)
        Of a huge one, only pieces of each face are read.

    Returns
    -------
    array of float64, shape (C,), or None
        None if no value fills `CUT_OUT` of it.
    """
    keys = _pieces(data) if is_huge(data) else _faces(data)
    read = [np.asarray(data[key]).reshape(data.shape[0], -1) for key in keys]
    if not read:
        return None
    border = np.concatenate(read, axis=1).astype(np.float64)
    value = np.array([_most_frequent(channel) for channel in border])
    return value if holds(border, value).mean() >= CUT_OUT else None


def _most_frequent(values: NDArray[np.float64]) -> float:
    distinct, counts = np.unique(values, return_counts=True)
    return float(distinct[counts.argmax()])


def _faces(data: Any) -> Iterator[tuple[slice, ...]]:
    """Give the keys of the faces of an array; a plane has edges instead."""
    size = [int(n) for n in data.shape[1:]]
    for axis in (i for i in range(3) if size[i] > 1):
        for place in (0, size[axis] - 1):
            yield _key([0, 0, 0], size, axis, slice(place, place + 1), FACE_VOXELS // 4)


def _pieces(data: Any) -> Iterator[tuple[slice, ...]]:
    """Give the keys of a piece at each corner and in the middle of each face of an array in chunks."""
    size, edges = [int(n) for n in data.shape[1:]], chunk_edges(data)
    wide = [min(PIECE, edge) for edge in edges]
    corners = [sorted({0, (n - 1) // edge * edge}) for n, edge in zip(size, edges, strict=True)]
    middle = [n // 2 // edge * edge for n, edge in zip(size, edges, strict=True)]
    for axis in (i for i in range(3) if size[i] > 1):
        others = [i for i in range(3) if i != axis]
        places = {*product(*(corners[i] for i in others)), tuple(middle[i] for i in others)}
        for end, place in product((0, size[axis] - 1), sorted(places)):
            low = {axis: end, **dict(zip(others, place, strict=True))}
            ends = [low[i] + (1 if i == axis else wide[i]) for i in range(3)]
            yield slice(None), *(slice(low[i], min(ends[i], size[i])) for i in range(3))
