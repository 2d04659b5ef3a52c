"""Bring an image to the grid of another one by the positions that their files state."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.arrays import new_array
from napari_unetvnet.images.same_grid import brought_onto, difference, voxel_map

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_unetvnet.images.geometry import Grid
    from napari_unetvnet.images.volume import Volume

__all__ = ["onto_grid"]

HALF = 0.5 + 1e-6
"""A voxel reaches half its edge beyond its centre, but for rounding."""


def onto_grid(volume: Volume, grid: Grid, name: str) -> tuple[Volume, str]:
    """Bring an image to the grid of another one, by turning it if that is enough, else by linear interpolation.

    Parameters
    ----------
    volume : Volume, data of shape (C, Z, Y, X)
        Read as a whole if it is interpolated.
    grid : Grid
    name : str
        Of the image that has the grid.

    Returns
    -------
    volume : Volume
        The same one if it has the grid already. Where it does not reach, it has its lowest value.
    sentence : str
        What was done; empty if nothing.

    Raises
    ------
    DataProblem
        If the grids differ and it is not known how they lie to each other, or they do not overlap.
    """
    found = difference(grid, volume.grid, name)
    if found is None:
        return volume, ""
    placed = brought_onto(volume, grid)
    if placed is not volume:
        return placed, f"{volume.name} is stored along other axes than {name}, and was turned to them."
    move = voxel_map(grid, volume.grid)
    if move is None:
        raise DataProblem(
            f"{volume.name} {found.text}, and the files do not say how they lie to each other; the channels of one "
            "image must have the same grid, so resample one to the other first."
        )
    data, inside = _interpolated(volume.data, move, grid.shape)
    if not inside:
        raise DataProblem(f"{volume.name} lies nowhere in {name} by their positions; give channels of one image.")
    beyond = f" {100 * (1 - inside):.2g} % of {name} lie beyond it and have its lowest value." if inside < 1 else ""
    return replace(volume, data=data, geometry=grid.geometry), (
        f"{volume.name} {found.text}. It was resampled to the grid of {name} by linear interpolation.{beyond}"
    )


def _interpolated(
    data: Any, move: NDArray[np.float64], shape: tuple[int, int, int]
) -> tuple[NDArray[np.float32], float]:
    """Interpolate plane by plane; also give the share of voxels that lie within the image."""
    from scipy.ndimage import map_coordinates

    source = np.asarray(data).astype(np.float32, copy=False)
    lowest = source.min(axis=(1, 2, 3))
    matrix, start = move[2::-1, 2::-1], move[2::-1, 3]  # from x, y, z to z, y, x
    result, count = new_array((len(source), *shape), np.float32), 0
    yx = np.indices(shape[1:], np.float64)
    for z in range(shape[0]):
        places = np.tensordot(matrix, np.stack([np.full(shape[1:], float(z)), *yx]), 1) + start[:, None, None]
        ends = np.reshape(source.shape[1:], (3, 1, 1)) - 1 + HALF
        inside = ((places >= -HALF) & (places <= ends)).all(axis=0)
        count += int(inside.sum())
        for channel, values in enumerate(source):
            plane = map_coordinates(values, places, order=1, mode="nearest")
            result[channel, z] = np.where(inside, plane, lowest[channel])
    return result, count / np.prod(shape)
