"""Lines in a label image: thinned to a width of one voxel, and as paths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["LinePath", "paths_of", "thinned"]

TOLERANCE = 0.75
"""A path may leave out vertices that it stays so near to, in voxels."""
STEPS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
Pixel = tuple[int, int]


class LinePath(NamedTuple):
    """A line of a class, as vertices (N, 3) z, y, x in voxels."""

    value: int
    vertices: NDArray[np.float64]


def thinned(labels: NDArray[Any], values: Sequence[int]) -> NDArray[Any]:
    """Thin some classes to lines one voxel wide, each plane by itself; what is removed becomes 0.

    Parameters
    ----------
    labels : integer array of shape (Z, Y, X)
    values : sequence of int
        Label values of the lines.

    Returns
    -------
    array of the same shape and type
    """
    from skimage.morphology import skeletonize

    result = np.array(labels)
    for plane in result:
        for value in values:
            thick = plane == value
            if thick.any():
                plane[thick & ~skeletonize(thick)] = 0
    return result


def paths_of(labels: NDArray[Any], values: Sequence[int]) -> list[LinePath]:
    """Follow lines from end to end; they are divided where they meet.

    Parameters
    ----------
    labels : integer array of shape (Z, Y, X)
        Lines may be wider than a voxel.
    values : sequence of int
        Label values of the lines.

    Returns
    -------
    list of LinePath
        In the order of planes and values. A closed line ends where it begins; a single voxel is no line.
    """
    from skimage.measure import approximate_polygon

    paths = []
    for z, plane in enumerate(thinned(labels, values)):
        for value in values:
            for pixels in _traced({(int(y), int(x)) for y, x in np.argwhere(plane == value)}):
                vertices = approximate_polygon(np.array(pixels, float), TOLERANCE)
                paths.append(LinePath(int(value), np.insert(vertices, 0, z, axis=1)))
    return paths


def _traced(pixels: set[Pixel]) -> Iterator[list[Pixel]]:
    """Yield the branches of a line, each as neighbouring pixels; rings come last."""
    neighbours = {pixel: set(_joined(pixel, pixels)) for pixel in pixels}
    nodes = {pixel for pixel in pixels if len(neighbours[pixel]) != 2}
    for first in (*sorted(nodes), *sorted(pixels)):
        while neighbours[first]:
            branch = [first]
            while following := min(neighbours[branch[-1]], default=None):
                neighbours[branch[-1]].remove(following)
                neighbours[following].remove(branch[-1])
                branch.append(following)
                if len(neighbours[following]) != 1 or following in nodes:
                    break
            yield branch


def _joined(pixel: Pixel, pixels: set[Pixel]) -> Iterable[Pixel]:
    """Give the neighbours of a pixel; a diagonal one only where no other neighbour leads to it."""
    y, x = pixel
    for dy, dx in STEPS:
        beside = dy and dx and ((y + dy, x) in pixels or (y, x + dx) in pixels)
        if (y + dy, x + dx) in pixels and not beside:
            yield y + dy, x + dx
