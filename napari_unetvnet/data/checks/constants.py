"""Constants of the normalisation that do not fit the images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_unetvnet.data.checks.findings import Finding, name_list

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_unetvnet.data.checks.facts import ImageFacts, PairFacts
    from napari_unetvnet.settings import TrainSettings

__all__ = ["check_constants"]

FAR, NARROW = 30.0, 0.1
"""Normalised intensities that lie so far from 0, or within so narrow a range, are not what a network learns from."""


def check_constants(pairs: Sequence[PairFacts], settings: TrainSettings) -> Iterator[Finding]:
    """Find images that the constants do not fit, such as those of values of 0 to 1 for images of 8 bits."""
    if settings.normalise != "fixed":
        return
    count = len(settings.normalise_window) // 2 or len(settings.normalise_mean)
    fitting = [pair.image for pair in pairs if count in (1, pair.image.channels)]
    if other := [pair.image for pair in pairs if pair.image not in fitting]:
        yield Finding(
            "error", "constants", name_list([image.name for image in other]),
            f"There are constants for {count} channels, but {other[0].name} has {other[0].channels}.",
            "Each channel is normalised by its own.", "Give them for each channel, or one for all.",
        )  # fmt: skip
    if odd := [image for image in fitting if not _brought_to_scale(image, settings)]:
        window, low, high = bool(settings.normalise_window), min(odd[0].dark), max(odd[0].bright)
        misfit = "lie beside the window" if window else "are not on the scale of the mean and standard deviation"
        yield Finding(
            "warning", "constants", name_list([image.name for image in odd]),
            f"Intensities, in {odd[0].name} of {low:g} to {high:g}, {misfit}.",
            "The network sees one value almost everywhere." if window else "A network learns best from values near 0.",
            "Give the constants in the units of the files (those of values of 0 to 1, times 255 for 8 bits), or try "
            "--normalise dataset.",
        )  # fmt: skip


def _brought_to_scale(image: ImageFacts, settings: TrainSettings) -> bool:
    """Whether the constants bring each channel to values that a network can learn from."""
    ends = np.array([image.dark, image.bright])
    if settings.normalise_window:
        low, high = np.array(settings.normalise_window).reshape(-1, 2).T
        return bool((ends[0] < high).all() and (ends[1] > low).all())
    dark, bright = (ends - settings.normalise_mean) / settings.normalise_std
    return bool((np.abs([dark, bright]) < FAR).all() and (bright - dark > NARROW).any())
