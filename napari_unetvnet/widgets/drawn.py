"""Lines that were drawn as shapes, on the voxels of an image: 1 on a line, 0 beside it."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.data.targets import draw_paths
from napari_unetvnet.errors import DataProblem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Drawing", "drawn_on"]

OPEN, CLOSED = ("line", "path"), ("polygon", "rectangle")


class Drawing:
    """Paths that become voxels once they are asked for; read like an array.

    Parameters
    ----------
    paths : sequence of arrays of shape (N, D)
        Vertices in voxels of the image.
    shape : tuple of D int
        Of the image.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, paths: Sequence[NDArray[np.float64]], shape: tuple[int, ...]) -> None:
        self._paths, self.shape = tuple(paths), shape

    def __getitem__(self, place: Any) -> NDArray[np.uint8]:
        found: NDArray[np.uint8] = self._voxels[place]
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self._voxels, dtype)

    @cached_property
    def _voxels(self) -> NDArray[np.uint8]:
        z, y, x = (1,) * (3 - len(self.shape)) + self.shape
        drawn = draw_paths(self._paths, (z, y, x))
        return drawn.astype(np.uint8).reshape(self.shape)


def drawn_on(image: Any, shape: tuple[int, ...], shapes: Any) -> Drawing:
    """Take the lines of a Shapes layer over to the grid of an image.

    Parameters
    ----------
    image : napari Image layer
    shape : tuple of int
        Voxels of the image, without colours.
    shapes : napari Shapes layer
        Lines and paths; of polygons and rectangles the outline is taken.

    Returns
    -------
    Drawing

    Raises
    ------
    DataProblem
        If nothing is drawn, there is an ellipse, or the layer has other axes than the image.
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
        paths.append(np.linalg.solve(of_image[1:].T, (world - of_image[0]).T).T)
    return Drawing(paths, shape)


def _linear(layer: Any) -> NDArray[np.float64]:
    """Give where a layer's origin is in the world, and below it where a step along each axis leads."""
    corners = np.vstack([np.zeros(layer.ndim), np.eye(layer.ndim)])
    world = np.array([layer.data_to_world(corner) for corner in corners])
    world[1:] -= world[0]
    return world
