"""The region that a first model finds, in which a second one is applied.

Masks are read and written a few planes at a time. Only the objects of a mask are searched for in all of it at once,
which takes about 5 bytes of memory per voxel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_unetvnet.errors import SettingsProblem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.conventions import Triple
    from napari_unetvnet.inference.slab import Slab
    from napari_unetvnet.model.card import ModelCard

__all__ = ["RegionShape", "cut_of", "margin_along_axes", "object_boxes", "region_classes", "region_planes", "voxels_of"]

RegionShape = Literal["box", "union", "mask"]
PLANES = 16
"""Planes that are enlarged at a time, at least."""
Box = tuple[slice, slice, slice]


def region_classes(card: ModelCard, wanted: Sequence[str]) -> tuple[int, ...]:
    """Give the indices of classes of a model.

    Parameters
    ----------
    wanted : sequence of str
        Names or label values; empty for all classes but the background.

    Returns
    -------
    tuple of int

    Raises
    ------
    SettingsProblem
        If the model has no such class.
    """
    if not wanted:
        return tuple(k for k, value in enumerate(card.values) if value)
    words = {str(value): k for k, value in enumerate(card.values)}
    words |= {name: k for k, name in enumerate(card.class_names)}
    if unknown := [word for word in wanted if word not in words]:
        raise SettingsProblem(
            f"The region model has no class {', '.join(unknown)}; choose region_class from {', '.join(words)}."
        )
    return tuple(words[word] for word in wanted)


def cut_of(card: ModelCard, threshold: float | None) -> float | None:
    """Give the probability at which the region is cut.

    Parameters
    ----------
    threshold : float or None
        The chosen one.

    Returns
    -------
    float or None
        None to go by the labels. Labels of nested classes do not show a class where another one lies in it.
    """
    return 0.5 if threshold is None and card.head == "multilabel" and not card.overlapping else threshold


def voxels_of(slab: Slab, card: ModelCard, classes: Sequence[int], cut: float | None) -> NDArray[np.bool_]:
    """Give the voxels of some classes in finished planes.

    Parameters
    ----------
    slab : Slab
        With probabilities if there is a cut.
    classes : sequence of int
        Indices.
    cut : float or None
        Of the probability of these classes together, of classes that overlap of any of them; None to go by the labels.

    Returns
    -------
    array of bool, shape (dz, Y, X)
    """
    if cut is not None and slab.probabilities is not None:
        probabilities = slab.probabilities[list(classes)].astype(np.float32)
        together = probabilities.max(axis=0) if card.head == "multilabel" else probabilities.sum(axis=0)
        return np.asarray(together >= cut)
    if card.overlapping:
        return np.asarray(slab.labels[list(classes)].any(axis=0))
    return np.isin(slab.labels, [card.values[k] for k in classes])


def margin_along_axes(margin: int, spacing: Sequence[float]) -> Triple:
    """Give a margin in voxels on each axis that is as wide on all of them.

    Parameters
    ----------
    margin : int
        In voxels of the axis on which they are shortest.
    spacing : 3 float
        Voxel size z, y, x.

    Returns
    -------
    tuple of 3 int
    """
    z, y, x = (round(margin * min(spacing) / size) for size in spacing)
    return z, y, x


def object_boxes(mask: Any, largest: int | None) -> tuple[list[Box], int]:
    """Find the objects of a mask, joined by faces, edges and corners, and the boxes around them.

    Parameters
    ----------
    mask : array of shape (Z, Y, X)
        Of which the objects that are left out become 0, if there are any.
    largest : int or None
        How many of the largest objects are kept; None for all.

    Returns
    -------
    boxes : list of 3 slices
        Of the objects that are kept.
    count : int
        Of all objects.
    """
    from scipy import ndimage

    numbers, count = ndimage.label(np.asarray(mask[:]), structure=np.ones((3, 3, 3)))
    boxes = ndimage.find_objects(numbers)
    if largest is None or largest >= count:
        return boxes, count
    sizes = np.bincount(numbers.ravel(), minlength=count + 1)[1:]
    kept = np.sort(np.argsort(-sizes, kind="stable")[:largest])
    mask[:] = np.isin(numbers, kept + 1)
    return [boxes[k] for k in kept], count


def region_planes(
    mask: Any, boxes: Sequence[Box], shape: RegionShape, margin: Triple
) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Enlarge what was found to the region, some planes at a time.

    Parameters
    ----------
    mask : array of shape (Z, Y, X)
        What was found. Read by slicing, and only for the shape "mask".
    boxes : sequence of 3 slices
        Of its objects.
    margin : tuple of 3 int
        Voxels z, y, x.

    Yields
    ------
    start : int
        First plane.
    voxels : array of bool, shape (dz, Y, X)
    """
    if shape == "union" and boxes:
        z, y, x = (slice(min(a.start for a in axis), max(a.stop for a in axis)) for axis in zip(*boxes, strict=True))
        boxes = [(z, y, x)]
    step = max(PLANES, margin[0])
    for start in range(0, mask.shape[0], step):
        stop = min(start + step, mask.shape[0])
        if shape == "mask":
            yield start, _enlarged(mask, start, stop, margin)
            continue
        planes = np.zeros((stop - start, *mask.shape[1:]), np.bool_)
        for box in boxes:
            (low, high), *inside = [(max(0, a.start - m), a.stop + m) for a, m in zip(box, margin, strict=True)]
            if low < stop and high > start:
                planes[(slice(max(low - start, 0), high - start), *(slice(*edges) for edges in inside))] = True
        yield start, planes


def _enlarged(mask: Any, start: int, stop: int, margin: Triple) -> NDArray[np.bool_]:
    """Give planes of a mask, enlarged by a margin."""
    from scipy import ndimage

    low = max(0, start - margin[0])
    planes = np.asarray(mask[low : stop + margin[0]]).astype(np.uint8)
    for axis, n in enumerate(margin):
        planes = ndimage.maximum_filter1d(planes, 2 * n + 1, axis, mode="constant") if n else planes
    return planes[start - low : stop - low].astype(np.bool_)
