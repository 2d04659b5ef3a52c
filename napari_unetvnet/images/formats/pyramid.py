"""Coarser levels of an image: how many there are, and how each is filled from the one before, chunk by chunk."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.images.arrays import parts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["level_factors", "shrink"]

WHOLE_PLANE = 512
"""The coarsest level has planes of this edge length (voxels) at most."""


def level_factors(shape: Sequence[int], spacing: Sequence[float]) -> Iterator[tuple[int, int, int]]:
    """Give how many times fewer voxels each coarser level has on z, y, x; z is kept while planes are far apart."""
    z, plane = 1, 1
    while max(shape[1:]) > WHOLE_PLANE * plane:
        plane *= 2
        if spacing[0] * z < plane * min(spacing[1:]) and shape[0] > z:
            z *= 2
        yield z, *(min(plane, 2 ** math.ceil(math.log2(n))) for n in shape[1:])


def shrink(source: Any, target: Any, steps: Sequence[int], *, labels: bool) -> Iterator[None]:
    """Fill a level from the one before, chunk by chunk."""
    for k in np.ndindex(target.shape[:-3]):
        for box in parts(target, math.prod(target.chunks)):
            wide = tuple(slice(edge.start * step, edge.stop * step) for edge, step in zip(box, steps, strict=True))
            block = np.asarray(source[(*k, *wide)])
            z, y, x = steps
            target[(*k, *box)] = block[::z, ::y, ::x] if labels else _means(block, steps)
            yield


def _means(block: NDArray[Any], steps: Sequence[int]) -> NDArray[Any]:
    """Give the mean of each few voxels of a block (Z, Y, X); at its end there may be fewer."""
    missing = [(0, -n % step) for n, step in zip(block.shape, steps, strict=True)]
    filled = np.pad(block, missing, mode="edge") if np.any(missing) else block
    sizes = [edge for n, step in zip(filled.shape, steps, strict=True) for edge in (n // step, step)]
    means: NDArray[Any] = filled.reshape(sizes).mean(axis=(1, 3, 5), dtype=np.float32)
    return means.astype(block.dtype)
