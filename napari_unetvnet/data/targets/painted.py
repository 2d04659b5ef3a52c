"""Labels whose values are painted classes: one class a voxel, thin lines among them, unions of them, a mask of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.data.label_counts import label_counts
from napari_unetvnet.data.targets.channels import one_hot, region_channels
from napari_unetvnet.data.targets.classes import Classes
from napari_unetvnet.data.targets.values import encode, find_values, named, output_values
from napari_unetvnet.errors import DataProblem
from napari_unetvnet.settings import regions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.images.volume import Volume
    from napari_unetvnet.settings import TrainSettings

__all__ = [
    "labelled", "line_classes", "mask_classes", "mask_target", "region_classes", "region_target", "value_classes",
    "value_target",
]  # fmt: skip


def value_classes(labels: Sequence[Volume], settings: TrainSettings) -> Classes:
    """Find a class for each painted value."""
    values = find_values(labels, settings)
    multilabel = settings.head == "multilabel"
    return Classes(values, output_values(values, settings), named(values, settings), multilabel=multilabel)


def line_classes(labels: Sequence[Volume], settings: TrainSettings) -> Classes:
    """Find a class for each painted value, some of which are thin lines.

    Returns
    -------
    Classes

    Raises
    ------
    DataProblem
        If a line is no painted value, or as `find_values` refuses them.
    """
    values = find_values(labels, settings)
    if missing := [value for value in settings.lines if value not in values]:
        raise DataProblem(f"Line(s) {missing} are no classes; the labels hold {list(values)}.")
    lines = tuple(i for i, value in enumerate(values) if value in settings.lines)
    names = named(values, settings)
    return Classes(values, output_values(values, settings), names, multilabel=True, lines=lines)


def value_target(labels: NDArray[Any], classes: Classes, settings: TrainSettings, name: str) -> NDArray[np.uint8]:
    """Give class indices, or a channel for each class if the network has an output for each."""
    target = encode(labels[0], classes.values, settings, name)
    return one_hot(target, len(classes)) if classes.multilabel else target


def region_classes(labels: Sequence[Volume], settings: TrainSettings) -> Classes:
    """Give the named unions of label values, each of which is painted somewhere.

    Returns
    -------
    Classes

    Raises
    ------
    DataProblem
        If one is painted nowhere, or there are values that a preset of regions does not have.
    """
    found = set().union(*(label_counts(volume).counts[0] for volume in labels))
    if problem := regions.outside_preset(settings.regions, found - {settings.ignore_value, settings.background}):
        raise DataProblem(problem)
    empty = [region for region in settings.regions if found.isdisjoint(region.values)]
    if empty:
        raise DataProblem(f"Region(s) {', '.join(map(str, empty))} are painted nowhere; correct labels or regions.")
    names = tuple(region.name for region in settings.regions)
    return Classes(tuple(range(1, len(names) + 1)), regions.region_values(settings.regions), names, multilabel=True)


def region_target(labels: NDArray[Any], _classes: Classes, settings: TrainSettings, _name: str) -> NDArray[np.uint8]:
    """Give each region a channel."""
    return region_channels(labels[0], settings.regions, labelled(labels[0], settings))


def mask_classes(labels: Sequence[Volume], settings: TrainSettings) -> Classes:
    """Find a class for each mask, in their order.

    Returns
    -------
    Classes

    Raises
    ------
    DataProblem
        If the volumes have different numbers of masks, or one is empty everywhere.
    """
    counts = {volume.channels for volume in labels}
    if len(counts) > 1:
        told = ", ".join(f"{volume.name}: {volume.channels}" for volume in labels)
        raise DataProblem(f"Overlapping labels need the same masks in the same order everywhere, not {told}.")
    count = counts.pop()
    nothing = {0, settings.background or 0, settings.ignore_value}
    empty = [k + 1 for k in range(count) if all(not set(label_counts(v).counts[k]) - nothing for v in labels)]
    if empty:
        raise DataProblem(f"Mask(s) {', '.join(map(str, empty))} hold no voxel of their class; paint them first.")
    numbers = tuple(range(1, count + 1))
    return Classes(numbers, numbers, named(numbers, settings), multilabel=True)


def mask_target(labels: NDArray[Any], _classes: Classes, settings: TrainSettings, _name: str) -> NDArray[np.uint8]:
    """Give each mask as 0 and 1; where one class is painted, the others are known not to be, unless painted too."""
    target: NDArray[np.uint8] = ((labels != 0) & (labels != (settings.background or 0))).astype(np.uint8)
    if settings.unlabelled == "ignore":
        target[:, ~labels.any(axis=0)] = IGNORE
    if settings.ignore_value is not None:
        target[labels == settings.ignore_value] = IGNORE
    return target


def labelled(labels: NDArray[Any], settings: TrainSettings) -> NDArray[np.bool_]:
    """Find the voxels that are not ignored."""
    known: NDArray[np.bool_] = np.ones(labels.shape, bool) if settings.unlabelled == "background" else labels != 0
    if settings.ignore_value is not None:
        known &= labels != settings.ignore_value
    return known
