"""Measure single objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.postprocess.components import check_classes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_unetvnet.conventions import Spacing

__all__ = ["Table", "classes_of", "table_of", "values_in", "voxels_of"]

Table = dict[str, "NDArray[Any]"]
"""Columns of equal length."""


def values_in(labels: NDArray[Any]) -> list[int]:
    """Give the values of a label image.

    Parameters
    ----------
    labels : array of shape (Z, Y, X), integers

    Returns
    -------
    list of int
        Sorted.
    """
    return sorted({int(value) for plane in labels for value in np.unique(plane)})


def voxels_of(ids: NDArray[np.int32]) -> NDArray[np.int64]:
    """Count the voxels of each id.

    Parameters
    ----------
    ids : array of shape (Z, Y, X), integers

    Returns
    -------
    array of int64, shape (ids + 1,)
        Index 0 is the background.
    """
    counts = np.zeros(int(ids.max()) + 1, np.int64)
    for plane in ids:
        on_plane = np.bincount(plane.ravel())
        counts[: len(on_plane)] += on_plane
    return counts


def classes_of(ids: NDArray[np.int32], classes: NDArray[Any]) -> NDArray[Any]:
    """Give the class of each id, that of its first voxel.

    Parameters
    ----------
    ids : array of shape (Z, Y, X), integers
    classes : array of shape (Z, Y, X), integers

    Returns
    -------
    array of shape (ids + 1,)
        In the type of the classes; 0 for the background and for ids that do not occur.
    """
    by_id = np.zeros(int(ids.max()) + 1, classes.dtype)
    for z in reversed(range(len(ids))):
        by_id[ids[z].ravel()[::-1]] = classes[z].ravel()[::-1]
    by_id[0] = 0
    return by_id


def table_of(
    ids: NDArray[Any], spacing: Spacing = (1.0, 1.0, 1.0), unit: str = "pixel", classes: NDArray[Any] | None = None
) -> Table:
    """Measure each object of a label image.

    Parameters
    ----------
    ids : array of shape (Z, Y, X), integers
        0 is the background. Read plane by plane.
    spacing : tuple of 3 float
        Voxel edge lengths z, y, x.
    unit : str
        Unit of the spacing, part of column names.
    classes : array of shape (ids + 1,), optional
        The class of each id (default: no such column).

    Returns
    -------
    dict of str to array
        A row for each id, sorted: index (the id), class, voxels, volume, centre of mass z, y, x in the unit, relative
        to the centre of the first voxel, and the bounding box in voxels (stop exclusive). Suitable as features of a
        napari Labels layer.

    Raises
    ------
    DataProblem
        If the ids are of a wrong type or shape.

    Examples
    --------
    >>> import numpy as np
    >>> table = table_of(np.array([[[5, 5, 0, 0, 5]]]), (1.0, 1.0, 0.5), "mm")
    >>> table["index"][0], table["voxels"][0], table["volume_mm3"][0], table["x_mm"][0].round(3)
    (np.int64(5), np.int64(3), np.float64(1.5), np.float64(0.833))
    """
    check_classes(ids)
    voxels, sums = _sums(ids)
    index = np.flatnonzero(voxels)
    table: Table = {"index": index}
    if classes is not None:
        table["class"] = classes[index]
    table["voxels"] = voxels[index]
    table[f"volume_{unit}3"] = voxels[index] * float(np.prod(spacing))
    for axis, total, edge in zip("zyx", sums, spacing, strict=True):
        table[f"{axis}_{unit}"] = total[index] / voxels[index] * edge
    return table | _boxes(ids)


def _sums(ids: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Give the number of voxels of each id, and the sums of their coordinates z, y, x; all 0 for the background."""
    size = int(ids.max()) + 1
    voxels, sums = np.zeros(size, np.int64), np.zeros((3, size))
    for z, plane in enumerate(ids):
        places = np.flatnonzero(plane)
        if not len(places):
            continue
        plane_ids = plane.ravel()[places].astype(np.int64)
        lowest = int(plane_ids.min())  # ids in a plane are mostly close, so a table relative to the lowest is short
        plane_ids -= lowest
        counts = np.bincount(plane_ids)
        part = slice(lowest, lowest + len(counts))
        voxels[part] += counts
        sums[0, part] += z * counts
        for axis, coordinate in zip((1, 2), np.divmod(places, plane.shape[1]), strict=True):
            sums[axis, part] += np.bincount(plane_ids, weights=coordinate)
    return voxels, sums


def _boxes(ids: NDArray[Any]) -> Table:
    from scipy.ndimage import find_objects

    boxes = [box for box in find_objects(ids.astype(np.uint8) if ids.dtype.kind == "b" else ids) if box]
    return {
        f"{axis}_{end}": np.array([getattr(box[number], end) for box in boxes], np.int64)
        for number, axis in enumerate("zyx")
        for end in ("start", "stop")
    }
