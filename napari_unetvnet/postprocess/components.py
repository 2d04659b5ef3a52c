"""Connected components of a class image, numbered in scan order (z, y, x).

They are labelled by cc3d if it is installed, else by scipy, class by class in the box around each; the numbers are the
same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.errors import DataProblem

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_unetvnet.settings.postprocess import Connectivity

__all__ = ["AXES_CROSSED", "check_classes", "components", "neighbourhood", "number_in_order"]

AXES_CROSSED: dict[Connectivity, int] = {"faces": 1, "edges": 2, "corners": 3}
"""Number of axes along which a neighbour may be one voxel away."""
CC3D_NEIGHBOURS = {1: 6, 2: 18, 3: 26}
MOST_BOXES = 1 << 16
"""Classes up to this value get a box each; larger values are renumbered first."""


def check_classes(classes: NDArray[Any]) -> None:
    """Refuse arrays that are not class images.

    Parameters
    ----------
    classes : array of shape (Z, Y, X), integers or truth values, at least 0

    Raises
    ------
    DataProblem
        If the array has another number of axes, is empty, or holds floats or negative numbers.
    """
    if classes.ndim != 3 or 0 in classes.shape:
        raise DataProblem(
            f"Labels of shape {classes.shape} cannot be divided into objects; give (Z, Y, X) with at least one voxel, "
            "Z = 1 for a 2D image."
        )
    if classes.dtype.kind not in "bui":
        raise DataProblem(f"Labels of type {classes.dtype} are not classes; give integers.")
    if classes.dtype.kind == "i" and classes.min() < 0:
        raise DataProblem(f"Labels have the value {classes.min()}; number classes from 1, 0 is the background.")


def neighbourhood(connectivity: Connectivity) -> NDArray[np.bool_]:
    """Give the mask of neighbours in a 3 x 3 x 3 block.

    Parameters
    ----------
    connectivity : {"faces", "edges", "corners"}

    Returns
    -------
    array of bool, shape (3, 3, 3)
    """
    from scipy.ndimage import generate_binary_structure

    mask: NDArray[np.bool_] = generate_binary_structure(3, AXES_CROSSED[connectivity])
    return mask


def components(classes: NDArray[Any], connectivity: Connectivity = "corners") -> NDArray[np.int32]:
    """Label the connected components of each class.

    Parameters
    ----------
    classes : array of shape (Z, Y, X), integers
        0 is the background. Read as a whole; needs about 10 more bytes per voxel.
    connectivity : {"faces", "edges", "corners"}
        What voxels must share to be connected.

    Returns
    -------
    array of int32, shape (Z, Y, X)
        Numbers from 1 in scan order (z, y, x), and 0 for the background.

    Raises
    ------
    DataProblem
        If the classes are of a wrong type or shape.

    Examples
    --------
    >>> import numpy as np
    >>> components(np.array([[[2, 2, 1, 0, 2]]]))
    array([[[1, 1, 2, 0, 3]]], dtype=int32)
    """
    check_classes(classes)
    return number_in_order(_labelled(classes, connectivity))


def number_in_order(ids: NDArray[np.int32]) -> NDArray[np.int32]:
    """Renumber ids from 1 in scan order (z, y, x).

    Parameters
    ----------
    ids : array of int32, shape (Z, Y, X)
        Changed in place.

    Returns
    -------
    array of int32, shape (Z, Y, X)
        The same array.
    """
    plane = ids[0].size
    first = np.full(int(ids.max()) + 1, ids.size, dtype=np.int64)
    for z in reversed(range(len(ids))):
        # Of repeated indices the last assignment wins: in reversed order, that of the first voxel.
        first[ids[z].ravel()[::-1]] = np.arange((z + 1) * plane - 1, z * plane - 1, -1)
    first[0] = -1
    table = np.empty(first.size, np.int32)
    table[np.argsort(first, kind="stable")] = np.arange(first.size, dtype=np.int32)
    for part in ids:
        part[...] = table[part]
    return ids


def _labelled(classes: NDArray[Any], connectivity: Connectivity) -> NDArray[np.int32]:
    """Label the components, in any order."""
    values = classes.astype(np.uint8) if classes.dtype.kind == "b" else np.asarray(classes)
    try:
        import cc3d
    except ImportError:
        return _labelled_by_scipy(values, connectivity)
    neighbours = CC3D_NEIGHBOURS[AXES_CROSSED[connectivity]]
    values = np.require(values, requirements=["C", "W"])  # cc3d writes nothing, but rejects read-only arrays
    labels = cc3d.connected_components(values, connectivity=neighbours, out_dtype=np.uint32)
    ids: NDArray[np.int32] = labels.view(np.int32)
    return ids


def _labelled_by_scipy(classes: NDArray[Any], connectivity: Connectivity) -> NDArray[np.int32]:
    from scipy.ndimage import find_objects, label

    if classes.max() > MOST_BOXES:
        table, index = np.unique(classes, return_inverse=True)
        classes = index.reshape(classes.shape) + (table[0] != 0)
    ids, count = np.zeros(classes.shape, np.int32), 0
    for value, box in enumerate(find_objects(classes), start=1):
        if box is None:
            continue
        mask = classes[box] == value
        labels = np.zeros(mask.shape, np.int32)
        added = label(mask, neighbourhood(connectivity), output=labels)
        np.add(labels, np.int32(count), out=ids[box], where=mask)
        count += added
    return ids
