"""Tell when the intensities of an image are not on the scale that the model was trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unetvnet.model.ranking import ranges_differ

if TYPE_CHECKING:
    from collections.abc import Collection

    from napari_unetvnet.images.intensity import Intensity
    from napari_unetvnet.model.card import ModelCard

__all__ = ["scale_notices"]

RAW = {
    "none": "takes values as they are (normalise none)",
    "fixed": "brings all images to scale with the same constants (normalise fixed)",
}
"""Normalisations that do not measure each image."""
MIDDLE, APART = 0.5, 0.3
"""An image is mostly dark or bright by the side of the middle; that it is the other way round in the training is told
if it is so far from there."""


def scale_notices(
    card: ModelCard, scale: Intensity, name: str, *, masked: bool, missing: Collection[int] = ()
) -> list[str]:
    """Say in what the intensities of an image differ from those of the training, as far as it matters.

    Parameters
    ----------
    scale : Intensity
        Measured on the image.
    name : str
        Of the image.
    masked : bool
        Whether there is a mask.
    missing : collection of int
        Channels that the image does not have.

    Returns
    -------
    list of str
        With normalisation of each image by itself, a different scale does not matter, and is not mentioned.
    """
    notices = []
    if card.normalise_in == "mask" and not masked:
        notices.append(
            "The model was trained with intensities measured within masks; without a mask they are measured on the "
            f"whole content of {name}. Give its mask if there is one."
        )
    if scale.range is None:
        return notices
    for channel, seen in enumerate(scale.range, 1):
        if channel - 1 in missing:
            continue
        lowest, low, high, highest = seen
        where = name if card.channels == 1 else f"Channel {channel} of {name}"
        if lowest == highest:
            notices.append(f"{where} has the same value {lowest:g} everywhere, so there is nothing to recognise.")
        elif card.normalise in RAW and any(
            ranges_differ(seen, row) for row in card.intensity_range[channel - 1 : channel]
        ):
            _, trained_low, trained_high, _ = card.intensity_range[channel - 1]
            notices.append(
                f"{where} has intensities of {low:g} to {high:g}, but the model was trained on {trained_low:g} to "
                f"{trained_high:g} and {RAW[card.normalise]}, so the labels are probably wrong. "
                "Bring the image to that scale, or train with --normalise zscore."
            )
    return [*notices, *_contrast(card, scale, name)]


def _contrast(card: ModelCard, scale: Intensity, name: str) -> list[str]:
    """Say that an image is bright where those of the training were dark, or the other way round."""
    if scale.brightness is None or len(card.brightness) != len(scale.brightness):
        return []
    for channel, (brightness, (low, high)) in enumerate(zip(scale.brightness, card.brightness, strict=True), 1):
        bright = brightness > max(MIDDLE, high + APART) and high < MIDDLE
        if bright or (brightness < min(MIDDLE, low - APART) and low > MIDDLE):
            words, where = ("bright", "dark") if bright else ("dark", "bright"), f"Channel {channel} of {name}"
            return [
                f"{name if card.channels == 1 else where} is mostly {words[0]}, but the model was trained on mostly "
                f"{words[1]} images. Its contrast may be inverted, or it shows something else, and the labels are then "
                "wrong: invert it, or choose another model."
            ]
    return []
