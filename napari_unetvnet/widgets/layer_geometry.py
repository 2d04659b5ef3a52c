"""Where the voxels of a layer lie, from its whole transform and the units of its axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.transforms import Affine

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.arrays import View
from napari_unetvnet.images.geometry import Geometry, Grid, spacing_of
from napari_unetvnet.images.same_grid import brought_onto, difference
from napari_unetvnet.images.units import METRES, edge_length, unit_name
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.widgets.layer_axes import axes_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["affine_of", "check_same_grid", "geometry_of", "turned_onto", "whole_affine"]


def geometry_of(layer: Any) -> Geometry:
    """Give where the voxels of a layer lie.

    Scale, translation, rotation, shear and affine are applied as the viewer does, since a reader may put the voxel size
    in any of them. Lengths are converted to the unit of x.

    Parameters
    ----------
    layer : napari layer
        With 2 axes or more; a 2D layer has a depth of 1 at z = 0.

    Returns
    -------
    Geometry
    """
    world = affine_of(layer)
    axes = axes_of(layer, series=True)
    units = [unit_name(str(layer.units[axis])) for axis in (*axes.shown[:-2][:1], *axes.shown[-2:])]
    base = METRES.get(units[-1])
    for axis, unit in enumerate(units, start=3 - len(units)):
        if base is not None and unit in METRES:
            world[axis] *= METRES[unit] / base
    affine = world[np.ix_((2, 1, 0, 3), (2, 1, 0, 3))]
    z, y, x = (edge_length(f"{edge:.12g}") for edge in spacing_of(affine))  # without the noise of a rotation
    return Geometry((z, y, x), units[-1], affine)


def affine_of(layer: Any) -> NDArray[np.float64]:
    """Give the whole transform of a layer along z, y and x, from voxels to positions.

    Returns
    -------
    array of shape (4, 4)
        In the order z, y, x.
    """
    shown = axes_of(layer, series=True).shown
    kept = (*shown[:-2][:1], *shown[-2:], layer.ndim)
    world, n = np.eye(4), len(kept)
    world[-n:, -n:] = whole_affine(layer)[np.ix_(kept, kept)]
    return world


def turned_onto(image: Any, other: Any, shapes: Sequence[tuple[int, ...]], data: Any, axes: Sequence[int]) -> Any:
    """Bring the voxels of a layer to the grid of an image, if they are only mirrored or stored along other axes.

    Parameters
    ----------
    image, other : napari layer
    shapes : 2 tuple of int
        Their voxels, (Y, X) or (Z, Y, X).
    data : array
        Of the other layer.
    axes : sequence of int
        The axes of the array that are y and x, or z, y and x.

    Returns
    -------
    array
        (Y, X) or (Z, Y, X); the same object if it has the grid already, or lies otherwise.
    """
    z, y, x = _whole_shape(shapes[0])
    view = View(data, [None, *[None] * (3 - len(axes)), *axes])
    volume = Volume(view, geometry_of(other))
    placed = brought_onto(volume, Grid((z, y, x), geometry_of(image)))
    if placed is volume:
        return data
    return np.asarray(placed.data[:]).reshape(shapes[0])


def _whole_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    z, y, x = (1,) * (3 - len(shape)) + tuple(shape)
    return z, y, x


def whole_affine(layer: Any) -> NDArray[np.float64]:
    """Give the whole transform of a layer along all its axes, from voxels to positions."""
    own = Affine(scale=layer.scale, translate=layer.translate, rotate=layer.rotate, shear=layer.shear)
    matrix: NDArray[np.float64] = layer.affine.affine_matrix @ own.affine_matrix
    return matrix


def check_same_grid(image: Any, other: Any, shapes: Sequence[tuple[int, ...]], advice: str) -> None:
    """Refuse a layer that has not the same voxels in the same places as an image.

    Parameters
    ----------
    image, other : napari layer
    shapes : 2 tuple of int
        Their voxels, (Y, X) or (Z, Y, X).
    advice : str
        What to do, for the message.

    Raises
    ------
    DataProblem
        If they differ in size, or by more than a tenth of a voxel.
    """
    if shapes[0] != shapes[1]:
        sizes = [" x ".join(map(str, shape)) for shape in shapes]
        raise DataProblem(f"{other.name} has {sizes[1]} voxels, {image.name} has {sizes[0]}; {advice}.")
    grids = [Grid(_whole_shape(shapes[0]), geometry_of(layer)) for layer in (image, other)]
    if found := difference(grids[0], grids[1], image.name):
        raise DataProblem(f"{other.name} {found.text}; {advice}.")
