"""Interpolate predictions from the resampled grid back to the grid of the image, plane by plane."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from napari_unetvnet.images.resample import centres

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor

    from napari_unetvnet.conventions import Triple

__all__ = ["plane_before", "regrid"]


def plane_before(plane: int, resampled: int, original: int) -> int:
    """Give the first plane of a resampled volume that a plane of the original depends on.

    Parameters
    ----------
    plane : int
        Of the original.
    resampled, original : int
        Planes of both.

    Returns
    -------
    int
    """
    return int(centres(resampled, original, np.asarray(plane)))


def regrid(
    slabs: Iterable[tuple[int, Tensor]], resampled: Triple, original: Triple, first_plane: int = 0
) -> Iterator[tuple[int, Tensor]]:
    """Interpolate predictions from the resampled grid to that of the image, slab by slab.

    Parameters
    ----------
    slabs : iterable of (int, Tensor)
        First plane and values (K, dz, Y, X), in order and without gaps.
    resampled, original : tuple of 3 int
        Voxels z, y, x of both grids.
    first_plane : int
        Planes of the original grid before it are left out; the slabs may start at its `plane_before`.

    Yields
    ------
    start : int
        First plane on the original grid.
    values : Tensor of shape (K, dz', Y', X')
        Interpolated linearly. Only planes that are still needed stay in memory.
    """
    planes: list[Tensor] = []
    # Resampled planes in memory start at `low_plane`; `next_plane` is the next one of the original grid.
    low_plane, next_plane = 0, first_plane
    for start, slab in slabs:
        low_plane = low_plane if planes else start
        planes += [_in_plane(plane, original) for plane in slab.unbind(1)]
        finished: list[Tensor] = []
        while next_plane < original[0]:
            low, high, share = _neighbours(next_plane, resampled[0], original[0])
            if high >= low_plane + len(planes):
                break
            finished.append(torch.lerp(planes[low - low_plane], planes[high - low_plane], share))
            next_plane += 1
        if finished:
            yield next_plane - len(finished), torch.stack(finished, dim=1)
        needed = _neighbours(next_plane, resampled[0], original[0])[0] if next_plane < original[0] else resampled[0]
        unused = needed - low_plane
        planes, low_plane = planes[unused:], low_plane + min(unused, len(planes))


def _neighbours(plane: int, resampled: int, original: int) -> tuple[int, int, float]:
    """Give the resampled planes on both sides of a plane, and its position between them, from 0 to 1."""
    centre = float(centres(resampled, original, np.asarray(plane)))
    low = int(centre)
    return low, min(low + 1, resampled - 1), centre - low


def _in_plane(plane: Tensor, original: Triple) -> Tensor:
    """Interpolate a plane (K, Y, X) in y and x."""
    if tuple(plane.shape[1:]) == original[1:]:
        return plane
    return functional.interpolate(plane[None], original[1:], mode="bilinear", align_corners=False)[0]
