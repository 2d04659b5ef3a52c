"""Scores of a network, brought from the grid that it saw back to the image's own, plane by plane."""

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

__all__ = ["back", "plane_before"]


def plane_before(plane: int, resampled: int, own: int) -> int:
    """Give the first plane of a resampled volume that a plane of the volume itself depends on.

    Parameters
    ----------
    plane : int
        Of the volume itself.
    resampled, own : int
        Planes of both.

    Returns
    -------
    int
    """
    return int(centres(resampled, own, np.asarray(plane)))


def back(
    slabs: Iterable[tuple[int, Tensor]], resampled: Triple, own: Triple, first: int = 0
) -> Iterator[tuple[int, Tensor]]:
    """Bring scores from the grid that a network saw to the image's own, slab by slab.

    Parameters
    ----------
    slabs : iterable of (int, Tensor)
        First plane and values (K, dz, Y, X), in order and without gaps.
    resampled, own : tuple of 3 int
        Voxels z, y, x of both grids.
    first : int
        Planes of the own grid before it are left out; the slabs may begin at `plane_before` of it.

    Yields
    ------
    start : int
        First plane on the own grid.
    values : Tensor of shape (K, dz', Y', X')
        Interpolated linearly. Only planes that are still needed are kept.
    """
    kept: list[Tensor] = []
    begin, done = 0, first
    for start, slab in slabs:
        begin = begin if kept else start
        kept += [_wider(plane, own) for plane in slab.unbind(1)]
        ready: list[Tensor] = []
        while done < own[0] and (pair := _neighbours(done, resampled[0], own[0]))[1] < begin + len(kept):
            low, high, share = pair
            ready.append(torch.lerp(kept[low - begin], kept[high - begin], share))
            done += 1
        if ready:
            yield done - len(ready), torch.stack(ready, dim=1)
        needless = (_neighbours(done, resampled[0], own[0])[0] if done < own[0] else resampled[0]) - begin
        kept, begin = kept[needless:], begin + min(needless, len(kept))


def _neighbours(plane: int, resampled: int, own: int) -> tuple[int, int, float]:
    """Give the resampled planes on both sides of a plane, and how far it is from the first to the second."""
    centre = float(centres(resampled, own, np.asarray(plane)))
    low = int(centre)
    return low, min(low + 1, resampled - 1), centre - low


def _wider(plane: Tensor, own: Triple) -> Tensor:
    """Interpolate a plane (K, Y, X) to the own grid."""
    if tuple(plane.shape[1:]) == own[1:]:
        return plane
    return functional.interpolate(plane[None], own[1:], mode="bilinear", align_corners=False)[0]
