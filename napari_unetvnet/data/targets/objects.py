"""From ids of single objects to boundaries, and from classes to objects."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.data.targets.distances import small_ids, two_nearest
from napari_unetvnet.data.targets.validation import check_known, check_labels
from napari_unetvnet.errors import SettingsProblem

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["borders", "boundaries", "components_of", "cores"]

CORE = 0.5
"""Fraction of the largest distance to the border beyond which a voxel is in the core."""


def boundaries(
    objects: NDArray[Any],
    *,
    width: int = 1,
    background: bool = True,
    planar: bool = False,
    known: NDArray[np.bool_] | None = None,
) -> NDArray[np.bool_]:
    """Find the voxels that lie at the boundary between two ids.

    Parameters
    ----------
    objects : array of shape (Z, Y, X), integers
    width : int
        A voxel is marked if one of another id is at most so many voxels away. With 1 these are the voxels on both sides
        of a boundary, so that it is two voxels thick; this is the target for densely labelled electron microscopy.
    background : bool
        Whether 0 is an id like the others. Otherwise only boundaries of an object with another are marked, and no
        background.
    planar : bool
        Look in the plane (y, x) only, for stacks whose planes lie far apart.
    known : array of bool, shape (Z, Y, X), optional
        Unknown voxels are not marked and have no boundary with known ones.

    Returns
    -------
    array of bool, shape (Z, Y, X)

    Raises
    ------
    DataProblem
        If the objects or the mask are of a wrong type or shape.
    SettingsProblem
        If ``width`` is below 1.

    Examples
    --------
    >>> import numpy as np
    >>> boundaries(np.array([[[7, 7, 7, 4, 4, 4]]])).astype(int)
    array([[[0, 0, 1, 1, 0, 0]]])
    """
    check_labels(objects, "Objects")
    known = check_known(known, objects.shape)
    return _near_another(objects, known, float(_checked(width)), background, planar)


def borders(
    objects: NDArray[Any],
    *,
    width: int = 1,
    touching: bool = False,
    planar: bool = False,
    known: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint8]:
    """Divide objects into inside and border, so that a network can learn to keep them apart.

    What is left of the inside of two objects never meets, not even at a corner: each connected piece of class 1 belongs
    to one object.

    Parameters
    ----------
    objects : array of shape (Z, Y, X), integers
    width : int
        Thickness of the border in voxels, taken from inside the object.
    touching : bool
        Make a border only where another object is that near, instead of all around each object.
    planar : bool
        Look in the plane (y, x) only, for stacks whose planes lie far apart.
    known : array of bool, shape (Z, Y, X), optional
        Unknown voxels are IGNORE and make no border.

    Returns
    -------
    array of uint8, shape (Z, Y, X)
        0 background, 1 inside, 2 border, and IGNORE.

    Raises
    ------
    DataProblem
        If the objects or the mask are of a wrong type or shape.
    SettingsProblem
        If ``width`` is below 1.

    References
    ----------
    .. [1] Caicedo et al. 2019, Evaluation of deep learning strategies for nucleus segmentation in fluorescence images,
       https://doi.org/10.1002/cyto.a.23863
    """
    check_labels(objects, "Objects")
    known = check_known(known, objects.shape)
    corners = max(_checked(width), math.sqrt(2 if planar else 3))
    marked = _near_another(objects, known, corners, not touching, planar)
    classes: NDArray[np.uint8] = (objects != 0).astype(np.uint8)
    classes[marked & (classes == 1)] = 2
    classes[~known] = IGNORE
    return classes


def cores(objects: NDArray[Any], *, planar: bool = False, known: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
    """Divide objects into core and rim, so that a network can learn to keep them apart.

    The core of an object is where the distance to its border is more than half of the largest one in it, so that large
    objects have broad rims and small ones keep a core. Cores of two objects never meet, not even at a corner. Where an
    object is cut off by the end of the image there is no border.

    Parameters
    ----------
    objects : array of shape (Z, Y, X), integers
    planar : bool
        Look in the plane (y, x) only.
    known : array of bool, shape (Z, Y, X), optional
        Unknown voxels are IGNORE and no part of an object.

    Returns
    -------
    array of uint8, shape (Z, Y, X)
        0 background, 1 core, 2 rim, and IGNORE.

    Raises
    ------
    DataProblem
        If the objects or the mask are of a wrong type or shape.

    Examples
    --------
    >>> import numpy as np
    >>> cores(np.array([[[0, 7, 7, 7, 7, 7, 4, 4, 4, 4, 4]]]))
    array([[[0, 2, 1, 1, 1, 2, 2, 2, 1, 1, 1]]], dtype=uint8)
    """
    classes = borders(objects, touching=True, planar=planar, known=known)
    ids = np.where(classes == IGNORE, 0, small_ids(objects))
    for block in [slice(z, z + 1) for z in range(len(ids))] if planar else [slice(None)]:
        _mark_rims(ids[block], classes[block])
    return classes


def _mark_rims(ids: NDArray[np.int32], classes: NDArray[np.uint8]) -> None:
    """Turn the rim of each object from 1 to 2, in place."""
    from scipy.ndimage import distance_transform_edt, find_objects

    values, numbers = np.unique(ids, return_inverse=True)
    numbers = numbers.reshape(ids.shape) + (values[0] != 0)
    for number, box in enumerate(find_objects(numbers), start=1):
        wider = tuple(slice(max(0, part.start - 1), part.stop + 1) for part in box)
        mask = numbers[wider] == number
        if mask.all():
            continue
        distance = distance_transform_edt(mask)
        classes[wider][mask & (distance <= CORE * distance.max())] = 2


def components_of(classes: NDArray[Any], *, background: int = 0, planar: bool = False) -> NDArray[np.int32]:
    """Take each connected piece of one class for an object; pieces that touch at a corner are one.

    Parameters
    ----------
    classes : array of shape (Z, Y, X), integers
        Class indices. Different classes are different objects, even where they touch.
    background : int
        The class that is no object. IGNORE is none either.
    planar : bool
        Connect voxels in the plane (y, x) only.

    Returns
    -------
    array of int32, shape (Z, Y, X)
        Ids from 1, and 0 where there is no object.

    Raises
    ------
    DataProblem
        If the classes are of a wrong type or shape.
    """
    from skimage.measure import label

    check_labels(classes, "Classes")
    values = np.where(classes == IGNORE, background, classes.astype(np.int64))
    found: NDArray[np.int32] = np.zeros(values.shape, np.int32)
    last = 0
    for block in [slice(z, z + 1) for z in range(len(values))] if planar else [slice(None)]:
        pieces = label(values[block], background=background, connectivity=3)
        found[block] = np.where(pieces, pieces + last, 0)
        last += int(pieces.max())
    return found


def _checked(width: int) -> int:
    if width < 1 or width != int(width):
        raise SettingsProblem(f"The width is {width}; give a whole number of voxels, at least 1.")
    return int(width)


def _near_another(
    objects: NDArray[Any], known: NDArray[np.bool_], reach: float, background: bool, planar: bool
) -> NDArray[np.bool_]:
    """Mark the voxels that have an id and another id at most ``reach`` voxels away."""
    ids = np.where(known, small_ids(objects) + np.int32(background), 0)
    _, second = two_nearest(ids, reach, (math.inf if planar else 1.0, 1.0, 1.0))
    near: NDArray[np.bool_] = (ids != 0) & (second <= np.float32(reach))
    return near
