"""Labels that are ids of single objects, as classes: their foreground, gaps between them, boundaries, borders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.data.targets.classes import Classes
from napari_unetvnet.data.targets.objects import borders, boundaries, components_of, cores
from napari_unetvnet.data.targets.painted import labelled
from napari_unetvnet.data.targets.values import named as class_names

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.images.volume import Volume
    from napari_unetvnet.settings import TrainSettings

    Codes = Callable[[NDArray[Any], TrainSettings], NDArray[Any]]

LARGE = 32
"""Radius in voxels up to which cores do not depend on where labels are read part by part."""

__all__ = ["between", "foreground", "inside_and_border", "margin", "named", "objects_in", "separated", "target_of"]


def named(names: tuple[str, ...]) -> Callable[[Sequence[Volume], TrainSettings], Classes]:
    """Give what finds classes that are the same whatever the labels hold."""
    values = tuple(range(len(names)))

    def find(_labels: Sequence[Volume], settings: TrainSettings) -> Classes:
        return Classes(values, values, class_names(values, settings, names))

    return find


def target_of(codes: Codes) -> Callable[[NDArray[Any], Classes, TrainSettings, str], NDArray[np.uint8]]:
    """Give what makes targets by class codes of object ids, ignored voxels taken out before and after."""

    def target(labels: NDArray[Any], _classes: Classes, settings: TrainSettings, _name: str) -> NDArray[np.uint8]:
        known = labelled(labels[0], settings)
        indices: NDArray[np.uint8] = codes(np.where(known, labels[0], 0), settings).astype(np.uint8, copy=False)
        indices[~known] = IGNORE
        return indices

    return target


def foreground(ids: NDArray[Any], _settings: TrainSettings) -> NDArray[Any]:
    """Give 1 in objects."""
    inside: NDArray[np.bool_] = ids != 0
    return inside


def separated(ids: NDArray[Any], settings: TrainSettings) -> NDArray[Any]:
    """Give 1 in objects, but for a gap where two touch."""
    inside: NDArray[np.bool_] = borders(ids, touching=True, planar=settings.view != "3d") == 1
    return inside


def between(ids: NDArray[Any], settings: TrainSettings) -> NDArray[Any]:
    """Give 1 at boundaries between ids, background among them."""
    return boundaries(ids, width=settings.boundary_width, planar=settings.view != "3d")


def inside_and_border(ids: NDArray[Any], settings: TrainSettings) -> NDArray[Any]:
    """Give 1 inside objects and 2 at their border."""
    return borders(ids, planar=settings.view != "3d")


def core_and_rim(ids: NDArray[Any], settings: TrainSettings) -> NDArray[Any]:
    """Give 1 in the core of objects and 2 around it."""
    return cores(ids, planar=settings.view != "3d")


def core_margin(_settings: TrainSettings) -> int:
    """Say how many voxels around a voxel decide whether it is in the core; of larger objects the cores are rough."""
    return LARGE


def margin(settings: TrainSettings) -> int:
    """Say how many voxels around a voxel decide whether it is at a border."""
    return 1 + settings.boundary_width


def objects_in(labels: NDArray[Any], target: NDArray[np.uint8], settings: TrainSettings) -> NDArray[Any]:
    """Find the single objects that a target shows: by their ids, else connected pieces of a class.

    Gaps and borders that the target has between objects belong to none. In views of planes, pieces are connected within
    their plane.

    Parameters
    ----------
    labels : integer array of shape (C, Z, Y, X)
        As painted.
    target : array of uint8, shape (Z, Y, X) or (K, Z, Y, X)
        From `make_target`.

    Returns
    -------
    integer array of shape (Z, Y, X)
        Ids, and 0 where there is no object or voxels are ignored.
    """
    known = target != IGNORE if target.ndim == 3 else (target != IGNORE).all(axis=0)
    if settings.label_values == "objects":
        inside = 0 if settings.objects_as == "boundaries" else 1
        return np.where(target == inside, labels[0], 0)
    planar = settings.view != "3d"
    if settings.label_values == "overlapping" or settings.regions:
        painted = (target == 1).any(axis=0)  # classes that may overlap are no neighbours of each other
        classes = painted.astype(np.uint8)
    else:
        painted = labels[0] != (settings.background or 0)
        classes = target if target.ndim == 3 else target.argmax(axis=0)
    # Above IGNORE, since each class is an object here, the one with index 0 included.
    return components_of(np.where(known & painted, classes.astype(np.int64) + IGNORE + 1, 0), planar=planar)
