"""Post-processing of a label image, in a fixed order: nested regions, holes, lines, objects, sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.postprocess.components import check_classes
from napari_unetvnet.postprocess.holes import fill_holes
from napari_unetvnet.postprocess.lines import thinned
from napari_unetvnet.postprocess.nested import clean_brats
from napari_unetvnet.postprocess.objects import objects
from napari_unetvnet.postprocess.table import Table, classes_of, table_of, values_in, voxels_of
from napari_unetvnet.settings.postprocess import for_class

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_unetvnet.conventions import Spacing
    from napari_unetvnet.settings import PostprocessSettings

__all__ = ["Cleaned", "postprocess"]

ROUNDING = 1e-9
"""Tolerance of sizes, since the product of three edges may be rounded down."""


@dataclass(frozen=True, eq=False)
class Cleaned:
    """A post-processed label image.

    Parameters
    ----------
    labels : integer array of the shape of the input
        Classes, or ids of objects.
    table : dict of str to array, or None
        Measurements of the objects, if there are ids.
    """

    labels: NDArray[Any]
    table: Table | None = None


def postprocess(
    labels: NDArray[Any], settings: PostprocessSettings, spacing: Spacing = (1.0, 1.0, 1.0), unit: str = "pixel"
) -> Cleaned:
    """Clean a label image and divide it into objects.

    Holes are filled first, then lines are thinned; then small components (or objects), and all but the largest, are
    removed. No other voxel changes its class.

    Parameters
    ----------
    labels : integer array of shape (Z, Y, X), or (K, Z, Y, X) with a mask for each class
        May be memory-mapped, but is read as a whole; needs about 10 more bytes per voxel (objects=border: 15), and per
        voxel of the box around the largest component 130 bytes with objects=watershed, 55 with border. Masks are
        processed one by one, but all results are kept.
    spacing : tuple of 3 float
        Voxel edge lengths z, y, x.
    unit : str
        Unit of the spacing.

    Returns
    -------
    Cleaned
        Ids are unique over all masks.

    Raises
    ------
    DataProblem
        If the labels are of a wrong type or shape, or do not fit the rule, the nested regions, or memory.
    """
    if labels.ndim == 4 and settings.nested != "none":
        raise DataProblem("Nested regions need one label image, not a mask for each class; leave out nested.")
    try:
        if labels.ndim != 4:
            return _cleaned(labels, settings, spacing, unit)
        return _joined([_cleaned(mask, settings, spacing, unit) for mask in labels])
    except MemoryError as error:
        raise DataProblem(
            f"Labels of shape {labels.shape} do not fit into memory to be cleaned, which takes about 10 bytes a voxel; "
            "clean parts of them, or use a machine with more memory."
        ) from error


def _cleaned(labels: NDArray[Any], settings: PostprocessSettings, spacing: Spacing, unit: str) -> Cleaned:
    """Clean one label image (Z, Y, X)."""
    check_classes(labels)
    classes = labels if settings.nested == "none" else clean_brats(labels, settings.nested)
    if settings.fill_holes:
        classes = _filled(classes, settings)
    if settings.thin:
        classes = thinned(classes, settings.thin)
    rule = settings.object_rule
    if rule is None and not (settings.min_size or settings.keep_largest):
        return Cleaned(classes)
    ids = objects(
        classes,
        rule or "components",
        connectivity=settings.connectivity,
        spacing=spacing,
        split_depth=settings.split_depth,
    )
    of_class = classes_of(ids, classes)
    if rule in ("border", "cores"):  # there is one class of objects, the inside
        of_class = np.minimum(of_class, 1)
    keep = _ids_to_keep(voxels_of(ids), of_class, settings, spacing)
    if rule is None:
        return Cleaned(np.where(keep[ids], classes, classes.dtype.type(0)))
    table = (np.cumsum(keep) * keep).astype(np.int32)
    for part in ids:
        part[...] = table[part]
    return Cleaned(ids, table_of(ids, spacing, unit, np.concatenate([of_class[:1], of_class[keep]])))


def _filled(labels: NDArray[Any], settings: PostprocessSettings) -> NDArray[Any]:
    """Fill holes of the chosen classes, first in planes, then in the volume."""
    classes = np.array(labels)
    for way in ("planes", "volume"):
        chosen = [value for value in values_in(classes) if for_class(settings.fill_holes, value, "none") == way]
        if chosen:
            fill_holes(classes, planes=way == "planes", only=chosen)
    return classes


def _ids_to_keep(
    voxels: NDArray[np.int64], of_class: NDArray[Any], settings: PostprocessSettings, spacing: Spacing
) -> NDArray[np.bool_]:
    """Give a mask of the ids that are large enough and among the largest of their class."""
    voxel = float(np.prod(spacing)) if settings.min_size_in == "physical" else 1.0
    keep = np.zeros(len(voxels), np.bool_)
    for value in np.unique(of_class[1:]):
        ids = np.flatnonzero(of_class == value)
        smallest = for_class(settings.min_size, int(value), 0.0) * (1 - ROUNDING)
        ids = ids[(ids > 0) & (voxels[ids] * voxel >= smallest)]
        count = for_class(settings.keep_largest, int(value), len(ids))
        keep[ids[np.argsort(-voxels[ids], kind="stable")[:count]]] = True
    return keep


def _joined(results: list[Cleaned]) -> Cleaned:
    """Stack masks (K, Z, Y, X), with unique ids."""
    labels, tables, count = np.stack([result.labels for result in results]), [], 0
    for mask, result in zip(labels, results, strict=True):
        if result.table is None:
            return Cleaned(labels)
        mask[mask > 0] += count
        tables.append(result.table | {"index": result.table["index"] + count})
        count += len(result.table["index"])
    return Cleaned(labels, {name: np.concatenate([table[name] for table in tables]) for name in tables[0]})
