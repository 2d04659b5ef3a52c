"""Images with less information than expected: NaN, constant, clipped, repeated channels, or the labels themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unetvnet.data.checks.findings import Finding, name_list, percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_unetvnet.data.checks.facts import PairFacts
    from napari_unetvnet.settings import TrainSettings

__all__ = ["check_channels_alike", "check_clipped", "check_finite", "check_flat", "check_is_labels"]

CLIPPED = 0.02
MUCH_CLIPPED = 0.1
BRIGHT_BACKGROUND = 0.5
EMPTY = 0.95
FEW_LEVELS = 16
OPAQUE = {255.0, 65535.0, 1.0}


def check_finite(pair: PairFacts, settings: TrainSettings) -> Iterator[Finding]:
    """Find NaN and infinity."""
    if pair.image.broken:
        yield Finding(
            "error", "not-finite", pair.image.name, f"{pair.image.broken} voxels are NaN or infinite.",
            "A single one turns all weights of a network into NaN.",
            "Replace them, for example by 0 (numpy.nan_to_num), or crop them.",
        )  # fmt: skip


def check_flat(pair: PairFacts, settings: TrainSettings) -> Iterator[Finding]:
    """Find images, channels and planes with a single value."""
    image = pair.image
    planes = image.grid.shape[0]
    if len(image.constant) == image.channels:
        yield Finding(
            "warning", "constant", image.name, f"Every voxel of the image is {image.low[0]:g}.",
            "There is nothing to be learnt from it.", "Export it again, or leave the pair out.",
        )  # fmt: skip
        return
    for channel in image.constant:
        alpha = channel == image.channels - 1 and image.low[channel] in OPAQUE
        yield Finding(
            "warning", "constant-channel", image.name,
            f"Every voxel of channel {channel + 1} of {image.channels} is {image.low[channel]:g}.",
            "It is probably an opaque alpha channel." if alpha else "It has no information.", "Leave the channel out.",
        )  # fmt: skip
    if _labelled(pair) or _inside(image.flat_planes, planes):
        flat = name_list([str(plane) for plane in image.flat_planes], 8)
        yield Finding(
            "advice", "flat-planes", image.name,
            f"{len(image.flat_planes)} of {planes} planes have a single value (z = {flat}).",
            "They are padding or lost planes.",
            "" if not _labelled(pair) else "Labels are painted there: hide these planes with a mask (--mask).",
        )  # fmt: skip


def _labelled(pair: PairFacts) -> bool:
    painted = pair.labels.painted_planes
    return any(painted[plane] for plane in pair.image.flat_planes if plane < len(painted))


def _inside(flat: tuple[int, ...], planes: int) -> bool:
    """Whether a flat plane is between others, so that it is not padding."""
    others = sorted(set(range(planes)) - set(flat))
    return any(others[0] < plane < others[-1] for plane in flat) if others else False


def check_clipped(pair: PairFacts, settings: TrainSettings) -> Iterator[Finding]:
    """Find images with many voxels at the highest value, or nearly all at the lowest."""
    image = pair.image
    if image.levels <= FEW_LEVELS:
        return
    if image.at_high > CLIPPED:
        yield Finding(
            "warning" if MUCH_CLIPPED < image.at_high < BRIGHT_BACKGROUND else "advice",
            "saturated",
            image.name,
            f"{percent(image.at_high)} of the voxels have the highest value, {max(image.high):g}.",
            "Brighter values are clipped, unless this is a uniform background.",
            "Export the original again with a wider range, if possible.",
        )  # fmt: skip
    if image.at_low > EMPTY:
        yield Finding(
            "advice", "mostly-empty", image.name,
            f"{percent(image.at_low)} of the voxels have the lowest value, {min(image.low):g}.",
            "Mean and standard deviation of the image are then those of its background.",
            "Crop it, or try --normalise percentile.",
        )  # fmt: skip


def check_channels_alike(pair: PairFacts, settings: TrainSettings) -> Iterator[Finding]:
    """Find grey images that were saved as colours."""
    image = pair.image
    if image.repeated_channels and len(image.constant) < image.channels:
        channels = " and ".join(map(str, (1, *image.repeated_channels)))
        yield Finding(
            "advice", "same-channels", image.name, f"Channels {channels} of {image.channels} are the same.",
            "A grey image saved as colours works, but costs time.", "Save one channel, if all images are grey.",
        )  # fmt: skip


def check_is_labels(pair: PairFacts, settings: TrainSettings) -> Iterator[Finding]:
    """Find pairs whose image is the labels."""
    if pair.labels.thumbnail.is_image:
        yield Finding(
            "warning", "image-is-labels", pair.image.name, f"The image is the same as the labels {pair.labels.name}.",
            "A model learns nothing from that.", "Choose the image that the labels were painted on.",
        )  # fmt: skip
