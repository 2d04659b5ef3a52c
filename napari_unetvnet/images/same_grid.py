"""Compare the grids of two images: in voxels, so that neither the voxel size nor the distance to the origin matters."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from napari_unetvnet.images.arrays import View
from napari_unetvnet.images.geometry import UNKNOWN_UNIT, Grid
from napari_unetvnet.images.orientation import IDENTITY, orientation_of
from napari_unetvnet.images.units import METRES, unit_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from napari_unetvnet.images.volume import Volume

__all__ = ["Difference", "brought_onto", "difference", "same_grid", "states_two_places", "voxel_map"]

TOLERANCE_VOXELS = 0.1
"""Grids are the same if their first voxels are not further apart than this, along each axis."""
ROUNDING = 1e-4
"""Share of the length of an axis by which its other end may be further apart, because voxel sizes are often rounded."""


class Difference(NamedTuple):
    """How the grid of an image differs from that of another one: a predicate for a sentence."""

    kind: Literal["shape", "unit", "spacing", "position", "direction"]
    text: str


def same_grid(one: Grid, other: Grid) -> bool:
    """Whether two grids have the same voxels in the same places, as far as it is known where they lie."""
    return difference(one, other) is None


def states_two_places(grid: Grid) -> bool:
    """Whether a file states two positions that are further apart than rounding."""
    geometry = grid.geometry
    if geometry.other_affine is None:
        return False
    places = (replace(geometry, affine=affine, other_affine=None) for affine in geometry.affines)
    return not same_grid(*(Grid(grid.shape, place) for place in places))


def difference(one: Grid, other: Grid, name: str = "the other") -> Difference | None:
    """Say how a grid differs from another one.

    What a file does not state cannot differ: without a position in both, only voxel sizes are compared, and without a
    voxel size in both, only shapes. A file that states two positions may agree by either.

    Parameters
    ----------
    one, other : Grid
        The second is described.
    name : str
        What the first is called in the description.

    Returns
    -------
    Difference or None
        None if they are the same to a tenth of a voxel. The text follows the name of the second.
    """
    if one.shape != other.shape:
        sizes = [" x ".join(map(str, grid.shape)) for grid in (other, one)]
        return Difference("shape", f"has {sizes[0]} voxels (z y x), {name} has {sizes[1]}")
    if (factor := _factor(other.unit, one.unit)) is None:
        return Difference("unit", f"has voxel sizes in {other.unit}, {name} has them in {one.unit}")
    moves = list(_moves(one, other, factor))
    shifts = [_shifts(move, one.shape[::-1]) for move in moves]
    if not moves or any(_is_small(shift, one.shape[::-1]) for shift in shifts):
        return None
    nearest = int(np.argmin([np.abs(shift).max() for shift in shifts]))
    largest = np.abs(shifts[nearest]).max(axis=0)
    kind, text = _described(moves[nearest], one, other, name)
    return Difference(kind, f"{text}, {'by' if kind == 'position' else 'by up to'} {_voxels(largest)}")


def brought_onto(volume: Volume, grid: Grid) -> Volume:
    """Bring an image that is stored mirrored, or along other axes, to a grid in the same place, without reading it.

    Returns
    -------
    Volume
        The same one if it has the grid already, if no turn leads to it, or if the position of either is not known.
    """
    factor = _factor(volume.unit, grid.unit)
    is_known = volume.geometry.affines and grid.geometry.affines
    if factor is None or not is_known or same_grid(grid, volume.grid):
        return volume
    for move in _moves(grid, volume.grid, factor):
        orientation = orientation_of(move)
        if np.isnan(orientation).any():
            continue
        turned = _turned(volume, orientation)
        if same_grid(grid, turned.grid):
            return turned
    return volume


def voxel_map(one: Grid, other: Grid) -> NDArray[np.float64] | None:
    """Map the voxels x, y, z of a grid to those of another one by their first affines.

    Returns
    -------
    array of shape (4, 4), or None
        None if the position of either is not known, or the units are not comparable.
    """
    factor = _factor(one.unit, other.unit)
    if factor is None or one.geometry.affine is None or other.geometry.affine is None:
        return None
    lengths = np.diag([factor] * 3 + [1.0])
    return np.asarray(np.linalg.solve(other.geometry.affine, lengths @ one.geometry.affine), np.float64)


def _factor(unit: str, target: str) -> float | None:
    """Give the length of a unit in another one; None if they are not comparable. An unknown unit may be any."""
    names = unit_name(unit), unit_name(target)
    if names[0] == names[1] or UNKNOWN_UNIT in names:
        return 1.0
    return METRES[names[0]] / METRES[names[1]] if names[0] in METRES and names[1] in METRES else None


def _moves(one: Grid, other: Grid, factor: float) -> Iterable[NDArray[np.float64]]:
    """Map voxels x, y, z of a grid to those of another one: for each two affines, or by voxel sizes, or not at all."""
    lengths = np.diag([factor] * 3 + [1.0])
    if one.geometry.affines and other.geometry.affines:
        for target in one.geometry.affines:
            for source in other.geometry.affines:
                yield np.asarray(np.linalg.solve(target, lengths @ source), np.float64)
    elif one.has_spacing and other.has_spacing:
        ratios = np.divide(other.spacing, one.spacing)
        yield np.asarray(lengths @ np.diag([*ratios[::-1], 1.0]), np.float64)


def _corners(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Give the voxels x, y, z at the corners of a grid, (8, 3), the first voxel first."""
    corners = np.array(list(np.ndindex(2, 2, 2)), np.float64)
    return np.asarray(corners * np.subtract(shape, 1), np.float64)


def _shifts(move: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Give how far each corner lies from its place, in voxels x, y, z, (8, 3)."""
    corners = _corners(shape)
    shifts: NDArray[np.float64] = corners @ move[:3, :3].T + move[:3, 3] - corners
    return shifts


def _is_small(shifts: NDArray[np.float64], shape: tuple[int, ...]) -> bool:
    limits = TOLERANCE_VOXELS + ROUNDING * _corners(shape).max(axis=1, keepdims=True)
    return bool((np.abs(shifts) <= limits).all())


def _described(
    move: NDArray[np.float64], one: Grid, other: Grid, name: str
) -> tuple[Literal["spacing", "position", "direction"], str]:
    """Say what kind of move it is."""
    orientation = orientation_of(move)
    if np.isnan(orientation).any() or (orientation[:, 0] != IDENTITY[:, 0]).any():
        return "direction", f"has its axes in another order than {name}"
    if mirrored := ["xyz"[axis] for axis in range(3) if orientation[axis, 1] < 0]:
        return "direction", f"is mirrored along {' and '.join(mirrored)} against {name}"
    edges = np.linalg.norm(move[:3, :3], axis=0)
    angle = np.degrees(np.arccos(np.clip(np.diag(move)[:3] / edges, -1, 1)).max())
    ends = np.subtract(one.shape[::-1], 1)
    if (np.abs(move[:3, :3] / edges - np.eye(3)) * ends).max() > TOLERANCE_VOXELS:
        return "direction", f"is turned by {angle:.2g} degrees against {name}"
    if (np.abs(edges - 1) * ends).max() > TOLERANCE_VOXELS:
        return "spacing", f"has voxels of {_edges(other)}, {name} of {_edges(one)}"
    return "position", f"lies beside {name}"


def _edges(grid: Grid) -> str:
    return f"{' x '.join(f'{edge:.4g}' for edge in grid.spacing)} {grid.unit}"


def _voxels(largest: NDArray[np.float64]) -> str:
    """List how many voxels two grids are apart along each axis, z first."""
    counts = {axis: f"{n:.3g}" for axis, n in zip("zyx", largest[::-1], strict=True) if n > ROUNDING}
    return ", ".join(f"{n} voxel{'s' * (n != '1')} along {axis}" for axis, n in counts.items())


def _turned(volume: Volume, orientation: NDArray[np.float64]) -> Volume:
    """Exchange and mirror the axes of an image, lazily."""
    from nibabel.orientations import inv_ornt_aff

    order, box = [0, 0, 0, 0], [range(volume.channels)] * 4
    for source, (target, sign) in enumerate(orientation):
        axis, old = 3 - int(target), 3 - source
        n = volume.data.shape[old]
        order[axis], box[axis] = old, range(n) if sign > 0 else range(n - 1, -1, -1)
    step = inv_ornt_aff(orientation, volume.shape[::-1])
    data: Any = View(volume.data, order, box)
    return replace(volume, data=data, geometry=volume.geometry.after(step))
