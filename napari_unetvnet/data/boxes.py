"""Boxes of voxels: what is left of one without others, and the largest free one around a voxel."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from napari_unetvnet.images.volume import Box

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari_unetvnet.conventions import Triple

__all__ = [
    "free_around",
    "from_numbers",
    "grown",
    "intersection",
    "numbers",
    "on_grid",
    "shifted",
    "subtract",
    "volume_of",
]

Numbers = tuple[int, int, int, int, int, int]


def numbers(box: Box) -> Numbers:
    """Give the first voxel z, y, x of a box and its end (exclusive)."""
    return (*box.start, *box.stop)


def from_numbers(row: Sequence[int]) -> Box:
    """Restore a box from `numbers`."""
    a, b, c, d, e, f = row
    return Box((a, b, c), (d, e, f))


def volume_of(box: Box) -> int:
    """Count the voxels of a box."""
    return math.prod(box.shape)


def intersection(one: Box, other: Box) -> Box | None:
    """Give the common part of two boxes; None if there is none."""
    z, y, x = (max(a, b) for a, b in zip(one.start, other.start, strict=True))
    end_z, end_y, end_x = (min(a, b) for a, b in zip(one.stop, other.stop, strict=True))
    return Box((z, y, x), (end_z, end_y, end_x)) if z < end_z and y < end_y and x < end_x else None


def shifted(box: Box, by: Sequence[int]) -> Box:
    """Move a box by some voxels z, y, x."""
    z, y, x = (a + n for a, n in zip(box.start, by, strict=True))
    end_z, end_y, end_x = (b + n for b, n in zip(box.stop, by, strict=True))
    return Box((z, y, x), (end_z, end_y, end_x))


def grown(box: Box, widths: Sequence[int], shape: Triple) -> Box:
    """Extend a box on both sides of each axis, within an image.

    Parameters
    ----------
    widths : 3 int
        Voxels z, y, x.
    shape : tuple of 3 int
        Of the image.

    Returns
    -------
    Box
    """
    z, y, x = (max(0, a - w) for a, w in zip(box.start, widths, strict=True))
    end_z, end_y, end_x = (min(n, b + w) for b, w, n in zip(box.stop, widths, shape, strict=True))
    return Box((z, y, x), (end_z, end_y, end_x))


def subtract(boxes: Iterable[Box], others: Iterable[Box]) -> list[Box]:
    """Divide what is left of boxes without others into boxes that do not overlap if the given ones do not.

    Returns
    -------
    list of Box
    """
    left = list(boxes)
    for other in others:
        left = [part for box in left for part in _without(box, other)]
    return left


def _without(box: Box, other: Box) -> list[Box]:
    common = intersection(box, other)
    if common is None:
        return [box]
    parts = []
    for axis in range(3):  # cut off what lies before and behind, then go on with what is left
        before, rest = _cut(box, axis, common.start[axis])
        box, behind = _cut(rest, axis, common.stop[axis])
        parts += [part for part in (before, behind) if part.shape[axis]]
    return parts


def _cut(box: Box, axis: int, place: int) -> tuple[Box, Box]:
    z, y, x = (place if i == axis else n for i, n in enumerate(box.stop))
    start_z, start_y, start_x = (place if i == axis else n for i, n in enumerate(box.start))
    return replace(box, stop=(z, y, x)), replace(box, start=(start_z, start_y, start_x))


def free_around(voxel: Triple, shape: Triple, barred: Iterable[Box], patch: Triple) -> Box:
    """Give a box around a voxel that avoids others and has room for as much of a patch as possible.

    Parameters
    ----------
    voxel : tuple of 3 int
        z, y, x, outside all barred boxes.
    shape : tuple of 3 int
        Of the image.
    barred : iterable of Box
    patch : tuple of 3 int

    Returns
    -------
    Box
    """
    free = Box((0, 0, 0), shape)
    for box in barred:
        if intersection(free, box) is None:
            continue
        sides = []
        for axis in range(3):
            lower, upper = _cut(free, axis, box.start[axis])[0], _cut(free, axis, box.stop[axis])[1]
            sides += [lower] if voxel[axis] < box.start[axis] else [upper] if voxel[axis] >= box.stop[axis] else []
        free = max(sides, key=lambda side: (_room(side, patch), volume_of(side)))
    return free


def _room(box: Box, patch: Triple) -> float:
    """Give the fraction of a patch for which a box has room."""
    return math.prod(min(1.0, n / p) for n, p in zip(box.shape, patch, strict=True))


def on_grid(box: Box, shape: Triple, other: Triple, *, outward: bool) -> Box:
    """Convert a box to another grid of the same extent.

    Parameters
    ----------
    shape, other : tuple of 3 int
        Voxels z, y, x of the present grid and of the other one.
    outward : bool
        Whether voxels that are partly inside belong to the box.

    Returns
    -------
    Box
        Has at least one voxel.
    """
    starts, stops = [], []
    for a, b, n, m in zip(box.start, box.stop, shape, other, strict=True):
        low, high = (-(-a * m // n), b * m // n) if not outward else (a * m // n, -(-b * m // n))
        starts.append(min(low, m - 1))
        stops.append(max(high, starts[-1] + 1))
    return Box((starts[0], starts[1], starts[2]), (stops[0], stops[1], stops[2]))
