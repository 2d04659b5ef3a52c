"""Rasterise the lines of a Shapes layer on the voxels of an image: 1 on a line, 0 elsewhere."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.data.targets import draw_paths
from napari_unetvnet.errors import DataProblem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Drawing", "rasterise_shapes"]

OPEN, CLOSED = ("line", "path"), ("polygon", "rectangle")


class Drawing:
    """Paths that are rasterised on first access; indexed like an array.

    Parameters
    ----------
    paths : sequence of arrays of shape (N, D)
        Vertices in voxels of the image.
    shape : tuple of D int
        Shape of the image.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, paths: Sequence[NDArray[np.float64]], shape: tuple[int, ...]) -> None:
        self._paths, self.shape = tuple(paths), shape

    def __getitem__(self, index: Any) -> NDArray[np.uint8]:
        block: NDArray[np.uint8] = self._voxels[index]
        return block

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self._voxels, dtype)

    @cached_property
    def _voxels(self) -> NDArray[np.uint8]:
        z, y, x = (1,) * (3 - len(self.shape)) + self.shape
        mask = draw_paths(self._paths, (z, y, x))
        return mask.astype(np.uint8).reshape(self.shape)


def rasterise_shapes(image: Any, shape: tuple[int, ...], shapes: Any) -> Drawing:
    """Transform the lines of a Shapes layer to the grid of an image.

    Parameters
    ----------
    shape : tuple of int
        Shape of the image, without colours.
    shapes : napari Shapes layer
        Lines and paths; for polygons and rectangles the outline is drawn.

    Returns
    -------
    Drawing

    Raises
    ------
    DataProblem
        If nothing is drawn, there is an ellipse, or the layer has a different number of axes than the image.
    """
    if shapes.ndim != image.ndim:
        raise DataProblem(
            f"{shapes.name} has {shapes.ndim} axes, {image.name} has {image.ndim}; draw on a shapes layer that was "
            "added to this image."
        )
    if not shapes.data:
        raise DataProblem(f"Nothing is drawn on {shapes.name}; draw lines or paths first.")
    if others := set(shapes.shape_type) - {*OPEN, *CLOSED}:
        raise DataProblem(f"{shapes.name} holds {', '.join(sorted(others))} shapes; draw lines, paths or polygons.")
    to_world, of_image = _linear(shapes), _linear(image)
    paths = []
    for kind, vertices in zip(shapes.shape_type, shapes.data, strict=True):
        path = np.asarray(vertices, float)
        world = (np.vstack([path, path[:1]]) if kind in CLOSED else path) @ to_world[1:] + to_world[0]
        paths.append(np.linalg.solve(of_image[1:].T, (world - of_image[0]).T).T[:, -len(shape) :])
    return Drawing(paths, shape)


def _linear(layer: Any) -> NDArray[np.float64]:
    """Return the world position of the origin of a layer, followed by the world vector of each of its axes."""
    corners = np.vstack([np.zeros(layer.ndim), np.eye(layer.ndim)])
    world = np.array([layer.data_to_world(corner) for corner in corners])
    world[1:] -= world[0]
    return world
