"""Fill holes: background that one class encloses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.postprocess.components import check_classes, neighbourhood

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

__all__ = ["fill_holes"]


def fill_holes(classes: NDArray[Any], *, planes: bool = False, only: Collection[int] | None = None) -> NDArray[Any]:
    """Fill holes with the class that encloses them.

    A hole is a face-connected component of background that touches exactly one class and not the border of the image
    (an axis of one voxel has no border).

    Parameters
    ----------
    classes : array of shape (Z, Y, X), integers
        Changed in place.
    planes : bool
        Fill holes of each plane (y, x) instead of the volume.
    only : collection of int, optional
        The classes whose holes are filled (default: all).

    Returns
    -------
    array of shape (Z, Y, X)
        The same array.

    Raises
    ------
    DataProblem
        If the classes are of a wrong type or shape.

    Examples
    --------
    >>> import numpy as np
    >>> ring = np.array([[[3, 3, 3, 0], [3, 0, 3, 0], [3, 3, 3, 0]]])
    >>> fill_holes(ring)[0, 1]
    array([3, 3, 3, 0])
    """
    check_classes(classes)
    for block in (classes[z : z + 1] for z in range(len(classes))) if planes else (classes,):
        _fill(block, only)
    return classes


def _fill(classes: NDArray[Any], only: Collection[int] | None) -> None:
    from scipy.ndimage import label

    holes, count = label(classes == 0, neighbourhood("faces"))
    if not count:
        return
    lowest, highest = _neighbours(holes, count, classes)
    filled = (lowest == highest) & ~_at_border(holes, count)
    if only is not None:
        filled &= np.isin(highest, list(only))
    filled[0] = False
    if filled.any():
        classes += np.where(filled, highest, 0).astype(classes.dtype)[holes]


def _neighbours(holes: NDArray[np.int32], count: int, classes: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Give the lowest and the highest class that each component of background touches."""
    lowest = np.full(count + 1, np.iinfo(np.int64).max)
    highest = np.zeros(count + 1, np.int64)
    for axis in range(3):
        front, back = (
            tuple(part if i == axis else slice(None) for i in range(3)) for part in (slice(-1), slice(1, None))
        )
        for inside, outside in ((front, back), (back, front)):
            touching = (holes[inside] > 0) & (classes[outside] > 0)
            hole, value = holes[inside][touching], classes[outside][touching].astype(np.int64)
            np.minimum.at(lowest, hole, value)
            np.maximum.at(highest, hole, value)
    return lowest, highest


def _at_border(holes: NDArray[np.int32], count: int) -> NDArray[np.bool_]:
    """Give a mask of the components that touch the border of the image."""
    at_border = np.zeros(count + 1, np.bool_)
    for axis, n in enumerate(holes.shape):
        if n > 1:
            at_border[holes.take((0, n - 1), axis)] = True
    return at_border


def _along(axis: int, part: slice) -> tuple[slice, ...]:
    return tuple(part if i == axis else slice(None) for i in range(3))
