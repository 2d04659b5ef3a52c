"""Class frequencies, by what the settings take labels for: values, objects, regions or masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unetvnet.data.checks.findings import ClassShare

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_unetvnet.data.checks.facts import LabelFacts
    from napari_unetvnet.settings import TrainSettings

__all__ = ["NOTHING", "class_voxels", "labelled_count", "shares", "value_counts"]

NOTHING = "none"
"""Name of the voxels in no region or mask."""


def value_counts(labels: LabelFacts, settings: TrainSettings) -> dict[int, int]:
    """Count the voxels of each value that is not ignored, over all channels; includes 0 where it is background.

    Returns
    -------
    dict of int to int
        Value to voxels, in order.
    """
    ignored = {settings.ignore_value} | ({0} if settings.unlabelled == "ignore" else set())
    total = sum(labels.counts[1:], labels.counts[0])
    return {value: total[value] for value in sorted(total) if value not in ignored}


def class_voxels(labels: LabelFacts, settings: TrainSettings) -> dict[str, int]:
    """Count the voxels of each class of one image.

    Returns
    -------
    dict of str to int
        Empty if the labels cannot be read with these settings.
    """
    if settings.label_values == "overlapping":
        return _masks(labels, settings)
    if labels.channels > 1:
        return {}
    values = value_counts(labels, settings)
    if settings.regions:
        counted = {str(region): sum(values.get(value, 0) for value in region.values) for region in settings.regions}
        inside = {value for region in settings.regions for value in region.values}
        return {NOTHING: sum(n for value, n in values.items() if value not in inside), **counted}
    if settings.label_values == "objects":
        return {"background": values.get(0, 0), "objects": sum(n for value, n in values.items() if value)}
    listed = dict.fromkeys(settings.classes, 0) | values
    return {_name(value, settings): listed[value] for value in sorted(listed)}


def _name(value: int, settings: TrainSettings) -> str:
    background = 0 if settings.background is None else settings.background
    return f"{value} (background)" if value == background else str(value)


def _masks(labels: LabelFacts, settings: TrainSettings) -> dict[str, int]:
    """Count the voxels of each mask, and the labelled voxels in none."""
    none = {NOTHING: labels.unpainted} if settings.unlabelled == "background" else {}
    outside = {0, settings.background or 0, settings.ignore_value}
    return none | {
        f"mask {k}": sum(n for value, n in count.items() if value not in outside)
        for k, count in enumerate(labels.counts, 1)
    }


def labelled_count(labels: LabelFacts, settings: TrainSettings) -> int:
    """Count the labelled voxels."""
    if labels.channels == 1:
        return sum(value_counts(labels, settings).values())
    return labels.painted if settings.unlabelled == "ignore" else labels.total


def shares(images: Sequence[Mapping[str, int]], labelled: int) -> tuple[ClassShare, ...]:
    """Count the voxels of each class over all images.

    Parameters
    ----------
    images : sequence of mapping of str to int
        From `class_voxels`.
    labelled : int
        Labelled voxels; the shares of classes that may overlap add up to more.

    Returns
    -------
    tuple of ClassShare
    """
    names = sorted(dict.fromkeys(name for counts in images for name in counts), key=_order)
    sums = {name: sum(counts.get(name, 0) for counts in images) for name in names}
    return tuple(
        ClassShare(name, voxels, voxels / max(1, labelled), sum(counts.get(name, 0) > 0 for counts in images))
        for name, voxels in sums.items()
    )


def _order(name: str) -> int:
    """Sort key: label values as numbers; other names stay in their order."""
    value = name.split()[0]
    return int(value) if value.isdigit() else -1
