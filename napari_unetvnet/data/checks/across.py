"""Images that do not fit each other: duplicates, different channels, voxel sizes or intensities."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.data.checks.findings import Finding, name_list
from napari_unetvnet.images.refusals import times

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from napari_unetvnet.data.checks.facts import PairFacts
    from napari_unetvnet.settings import TrainSettings

__all__ = ["check_channel_counts", "check_duplicates", "check_patch", "check_ranges", "check_voxel_sizes"]

OTHER_RANGE = 5.0
OTHER_SIZE = 1.5
ALIKE = {
    "none": "Without normalisation",
    "fixed": "Normalised with the same constants",
    "dataset": "Normalised with the same constants",
}
"""Normalisations after which images of different ranges stay different."""


def check_channel_counts(pairs: Sequence[PairFacts], settings: TrainSettings) -> Iterator[Finding]:
    """Find images with different numbers of channels."""
    groups = _grouped(pairs, lambda pair: pair.image.channels)
    if len(groups) > 1:
        counts = "; ".join(
            f"{count}: {name_list([p.image.name for p in group])}" for count, group in sorted(groups.items())
        )
        yield Finding(
            "error", "channel-counts", "", f"The images have different numbers of channels ({counts}).",
            "A network has a fixed number of input channels.", "Save all as grey, or all as colours.",
        )  # fmt: skip


def check_duplicates(pairs: Sequence[PairFacts], settings: TrainSettings) -> Iterator[Finding]:
    """Find images that are given twice, and labels that belong to two images."""
    varied = [pair for pair in pairs if len(pair.image.constant) < pair.image.channels]
    for group in _grouped(varied, lambda pair: pair.image.digest).values():
        if len(group) < 2:
            continue
        names = name_list([pair.image.name for pair in group])
        split = len({pair.split == "val" for pair in group}) > 1
        yield Finding(
            "warning", "leak" if split else "duplicates", "", f"The same image is given {len(group)} times: {names}"
            + (", for training and for validation." if split else "."),
            "The model is scored on an image that it was trained on." if split else
            "If one of them is held out, the model is scored on an image that it was trained on.",
            "Keep one of them.",
        )  # fmt: skip
    painted = [pair for pair in pairs if pair.labels.painted]
    for group in _grouped(painted, lambda pair: (pair.labels.digest, pair.labels.grid.shape)).values():
        if len({pair.image.digest for pair in group}) > 1:
            yield Finding(
                "warning", "same-labels", "",
                f"Different images have the same labels: {name_list([pair.image.name for pair in group])}.",
                "One of them probably belongs to another label file.", "Check which label file belongs to which image.",
            )  # fmt: skip


def check_ranges(pairs: Sequence[PairFacts], settings: TrainSettings) -> Iterator[Finding]:
    """Find images of very different intensities."""
    spans = {
        pair.image.name: bright - dark
        for pair in pairs
        for dark, bright in [(min(pair.image.dark), max(pair.image.bright))]
        if bright > dark
    }
    if len(spans) < 2 or max(spans.values()) < OTHER_RANGE * min(spans.values()):
        return
    low, high = (min(spans, key=spans.__getitem__), max(spans, key=spans.__getitem__))
    raw = settings.normalise in ALIKE
    yield Finding(
        "warning" if raw else "advice", "ranges", "",
        f"Intensities differ: from a range of {spans[low]:.3g} in {low} to one of {spans[high]:.3g} in {high}.",
        f"{ALIKE[settings.normalise]}, a network cannot learn from both." if raw else
        f"Each image is normalised by itself ({settings.normalise}), as are images to segment: nothing to do.",
        "Give --normalise zscore." if raw else "",
    )  # fmt: skip


def check_voxel_sizes(pairs: Sequence[PairFacts], settings: TrainSettings) -> Iterator[Finding]:
    """Find images of different voxel sizes or units, and images without a voxel size among others with one."""
    with_spacing = [pair for pair in pairs if pair.image.grid.has_spacing]
    units = _grouped(with_spacing, lambda pair: pair.image.grid.unit)
    if with_spacing and len(with_spacing) < len(pairs):
        without = [pair.image.name for pair in pairs if not pair.image.grid.has_spacing]
        grid = with_spacing[0].image.grid
        size = " x ".join(f"{edge:.3g}" for edge in grid.spacing)
        yield Finding(
            "warning", "no-spacing", name_list(without),
            f"The files have no voxel size; {len(with_spacing)} others do, such as {size} {grid.unit}.",
            "Their voxels are taken as they are, and images are not resampled to one voxel size.",
            "Give their voxel size with --spacing and --unit, which apply to files without one.",
        )  # fmt: skip
    sizes = np.array([pair.image.grid.spacing for pair in with_spacing] or [(1.0, 1.0, 1.0)])
    flat = all(pair.image.grid.shape[0] == 1 for pair in with_spacing)
    ratio = (sizes.max(axis=0) / sizes.min(axis=0))[1 if flat else 0 :].max()
    if len(units) > 1 or ratio > OTHER_SIZE:
        low, high = (" x ".join(f"{edge:.3g}" for edge in row) for row in (sizes.min(axis=0), sizes.max(axis=0)))
        yield Finding(
            "warning", "voxel-sizes", "", f"Voxels have different sizes: from {low} to {high} {'/'.join(units)}.",
            "The same structure then has different sizes in voxels, and the network sees only voxels.",
            "Resample the images to one voxel size.",
        )  # fmt: skip


def check_patch(pairs: Sequence[PairFacts], settings: TrainSettings) -> Iterator[Finding]:
    """Find images that are smaller than a training patch."""
    patch = settings.planned_patch
    small = [pair.image for pair in pairs if any(n < p for n, p in zip(pair.image.grid.shape, patch, strict=True))]
    if small:
        fitting = np.min([image.grid.shape for image in small], axis=0)
        edges = " ".join(str(_round(min(int(n), p))) for n, p in zip(fitting, patch, strict=True))
        yield Finding(
            "advice", "small-images", name_list([image.name for image in small]),
            f"Images are smaller than a training patch of {times(patch)} voxels (z y x).",
            "Voxels beyond the image are mirrored and ignored, which costs time.", f"Try --patch {edges}.",
        )  # fmt: skip


def _round(length: int) -> int:
    """Round down to a length that networks can halve three times."""
    return length if length < 16 else length // 8 * 8


def _grouped(pairs: Sequence[PairFacts], key: Callable[[PairFacts], Any]) -> dict[Any, list[PairFacts]]:
    groups: dict[Any, list[PairFacts]] = defaultdict(list)
    for pair in pairs:
        groups[key(pair)].append(pair)
    return groups
