"""Which models fit an image, the best first, by their cards: no weights are read, and torch is not imported.

Channels and dimensions decide whether a model can be applied at all. Voxel size, brightness and the range of
intensities tell how alike the images of its training were. What is not known on one side counts for nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from napari_unetvnet.errors import UserError
from napari_unetvnet.images.identity import content_hash
from napari_unetvnet.images.intensity import intensity
from napari_unetvnet.images.resample import spacing_in
from napari_unetvnet.model.card import ModelCard, read_card

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from napari_unetvnet.conventions import Spacing
    from napari_unetvnet.images.volume import Volume

__all__ = ["Fit", "ImageFacts", "cards_of", "facts_of", "fit", "purpose", "ranges_differ", "rank"]

UNKNOWN = ("pixel", (1.0, 1.0, 1.0))
"""Unit and voxel size of an image whose file says nothing."""
OTHER_SIZE = 2.0
"""Factor between voxel sizes from which on it is told."""
BRIGHTNESS_MARGIN, OTHER_BRIGHTNESS = 0.1, 0.1
"""How far beyond that of the training a brightness counts for nothing, and how far beyond that it is told."""
OTHER_SCALE, INSIDE = 3.0, 0.5
"""Ranges of intensities differ if one is so many times as wide, or if less than this fraction of it is shared."""
PLANE_BY_PLANE, BY_BRIGHTNESS, BY_SCALE, ON_THIS_IMAGE = 0.5, 4.0, 2.0, -10.0
"""What differences count, in doublings of the voxel size."""


@dataclass(frozen=True)
class ImageFacts:
    """What is compared with a card.

    Parameters
    ----------
    channels, planes : int
        C and Z.
    spacing : tuple of 3 float
        Voxel size z, y, x in ``unit``; 1 1 1 pixel is unknown.
    range : tuple of (lowest, percentile 0.5, percentile 99.5, highest)
        Of each channel; empty if not measured.
    brightness : tuple of float
        Of each channel, as `Intensity.brightness`; empty if not measured.
    content : str
        From `content_hash`; empty if not computed.
    """

    name: str
    channels: int
    planes: int
    spacing: Spacing = UNKNOWN[1]
    unit: str = UNKNOWN[0]
    range: tuple[tuple[float, ...], ...] = ()
    brightness: tuple[float, ...] = ()
    content: str = ""


@dataclass(frozen=True)
class Fit:
    """How a model fits an image.

    Parameters
    ----------
    misfits : tuple of str
        Sentences that say why it cannot be applied; empty if it can.
    remarks : tuple of str
        Sentences on what differs from its training images though it can be applied.
    distance : float
        The larger, the less alike image and training images are; in doublings of the voxel size.
    trained_on_it : bool
        Whether the image is one of its training images.
    """

    name: str
    path: Path
    card: ModelCard
    misfits: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    distance: float = 0.0
    trained_on_it: bool = False

    @property
    def fits(self) -> bool:
        """Whether the model can be applied."""
        return not self.misfits

    @property
    def alike(self) -> bool:
        """Whether the model can be applied, and nothing that is known of the image differs from its training."""
        return self.fits and not self.remarks

    @property
    def about(self) -> str:
        """What the model is for, in one line."""
        return purpose(self.card)


def facts_of(volume: Volume) -> ImageFacts:
    """Measure an image, as far as it is compared with cards; of a large one only a sample is read.

    Parameters
    ----------
    volume : Volume, data of shape (C, Z, Y, X)

    Returns
    -------
    ImageFacts

    Raises
    ------
    DataProblem
        If the image holds NaN or infinity.
    """
    scale = intensity(volume, "none", "content")
    ranges, brightness = scale.range, scale.brightness
    return ImageFacts(
        volume.name,
        volume.channels,
        volume.shape[0],
        volume.spacing,
        volume.unit,
        () if ranges is None else tuple(tuple(map(float, row)) for row in ranges),
        () if brightness is None else tuple(map(float, brightness)),
        content_hash(volume),
    )


def cards_of(models: Mapping[str, Path]) -> tuple[dict[str, ModelCard], dict[str, str]]:
    """Read the cards of models; each file is read again only if it has changed.

    Returns
    -------
    cards : dict of str to ModelCard
        In the same order.
    problems : dict of str to str
        For each model that cannot be read, why.
    """
    cards, problems = dict[str, ModelCard](), dict[str, str]()
    for name, path in models.items():
        try:
            cards[name] = _card(path, *_version(path))
        except UserError as problem:
            problems[name] = str(problem)
    return cards, problems


def _version(path: Path) -> tuple[int, int]:
    """Give time and size of a file, which change with its content; zeros for a file that is gone."""
    if not path.is_file():
        return 0, 0
    state = path.stat()
    return state.st_mtime_ns, state.st_size


@lru_cache(maxsize=256)
def _card(path: Path, _time: int, _size: int) -> ModelCard:
    return read_card(path)


def rank(models: Mapping[str, Path], image: ImageFacts | None, *, resample: bool = True) -> list[Fit]:
    """Order models by how well they fit an image: those that fit first, the best of them first.

    Parameters
    ----------
    models : mapping of str to Path
        Files that cannot be read are left out.
    image : ImageFacts or None
        None keeps the order.
    resample : bool
        Whether the image is brought to the voxel size of the model.

    Returns
    -------
    list of Fit
        Equals stay in the order of ``models``.
    """
    cards, _ = cards_of(models)
    if image is None:
        return [Fit(name, models[name], card) for name, card in cards.items()]
    fits = (fit(name, models[name], card, image, resample=resample) for name, card in cards.items())
    return sorted(fits, key=lambda each: (len(each.misfits), each.distance))


def fit(name: str, path: Path, card: ModelCard, image: ImageFacts, *, resample: bool = True) -> Fit:
    """Compare a card with an image.

    Parameters
    ----------
    name : str
        Of the model.
    resample : bool
        Whether the image is brought to the voxel size of the model.

    Returns
    -------
    Fit
    """
    misfits = (*_channels(card, image), *_dimensions(card, image))
    known = bool(image.content) and any(record.content == image.content and record.trained for record in card.images)
    if misfits:
        return Fit(name, path, card, misfits, trained_on_it=known)
    ratio = _size_ratio(card, image)
    beyond = _brightness_beyond(card, image)
    other_scale = card.normalise in ("none", "fixed") and any(map(ranges_differ, image.range, card.intensity_range))
    distance = abs(math.log2(ratio)) + BY_BRIGHTNESS * abs(beyond) + BY_SCALE * other_scale
    distance += PLANE_BY_PLANE * (card.dims == 2 and card.view == "2d" and image.planes > 1) + ON_THIS_IMAGE * known
    remarks = (*_size_remark(card, image, ratio, resample=resample), *_brightness_remark(beyond, image))
    remarks += (_SCALE_REMARK.format(image.name),) if other_scale else ()
    return Fit(name, path, card, (), remarks, distance, known)


_SCALE_REMARK = "{} has another range of intensities than its training images, and it has one scale for all images."


def _channels(card: ModelCard, image: ImageFacts) -> Iterable[str]:
    can_lack = bool(card.channel_names and card.channel_dropout)
    if card.channels != image.channels and not (can_lack and image.channels < card.channels):
        named = f" ({', '.join(card.channel_names)})" if card.channel_names else ""
        yield f"It needs images of {_count(card.channels, 'channel')}{named}; {image.name} has {image.channels}."


def _dimensions(card: ModelCard, image: ImageFacts) -> Iterable[str]:
    if card.view != "2d" and image.planes == 1:
        needs = "a volume" if card.view == "3d" else f"a stack, because it looks at {2 * card.context + 1} planes"
        yield f"It needs {needs}; {image.name} is a single plane."


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number != 1)}"


def _size_ratio(card: ModelCard, image: ImageFacts) -> float:
    """Give how many times as large the voxels of the image are on the axis that differs most; 1 where unknown."""
    if UNKNOWN in {(card.unit, card.spacing), (image.unit, image.spacing)}:
        return 1.0
    own = spacing_in(card.spacing, card.unit, image.unit)
    if own is None:
        return 1.0
    ratios = [seen / trained for seen, trained in zip(image.spacing, own, strict=True)]
    return max(ratios[3 - card.dims :], key=lambda ratio: abs(math.log(ratio)))


def _size_remark(card: ModelCard, image: ImageFacts, ratio: float, *, resample: bool) -> Iterable[str]:
    if 1 / OTHER_SIZE <= ratio <= OTHER_SIZE:
        return
    times = f"{max(ratio, 1 / ratio):.1f} times as {'large' if ratio > 1 else 'fine'}"
    said = f"The voxels of {image.name} are {times} as those of its training images"
    if not resample:
        yield f"{said}; turn on resample, which brings them to that size for the model."
    elif ratio > 1:
        yield f"{said}; it is resampled for the model, but what is smaller than its voxels stays lost."
    else:
        yield f"{said}; it is resampled to those for the model, and the labels are brought back."


def _brightness_beyond(card: ModelCard, image: ImageFacts) -> float:
    """Give how far the image is brighter (or, negative, darker) than the training images, of the worst channel."""
    beyond = 0.0
    if len(card.brightness) == len(image.brightness) == card.channels:
        for (low, high), seen in zip(card.brightness, image.brightness, strict=True):
            off = max(0.0, seen - high - BRIGHTNESS_MARGIN) - max(0.0, low - BRIGHTNESS_MARGIN - seen)
            beyond = max(beyond, off, key=abs)
    return beyond


def _brightness_remark(beyond: float, image: ImageFacts) -> Iterable[str]:
    if abs(beyond) > OTHER_BRIGHTNESS:
        seen = "brighter" if beyond > 0 else "darker"
        yield f"Most of {image.name} is {seen} than of its training images, so they probably show another thing."


def ranges_differ(seen: Sequence[float], trained: Sequence[float]) -> bool:
    """Say whether the intensities of an image are on another scale than those of the training, or beside them.

    Parameters
    ----------
    seen, trained : sequence of 4 float
        Of a channel: lowest value, percentiles 0.5 and 99.5, highest value.

    Returns
    -------
    bool
    """
    _, low, high, _ = seen
    lowest, trained_low, trained_high, highest = trained
    width, own = high - low, trained_high - trained_low
    if not width or not own:
        return not lowest <= (low + high) / 2 <= highest
    inside = max(0.0, min(high, highest) - max(low, lowest)) / width
    return max(width / own, own / width) > OTHER_SCALE or inside < INSIDE


def purpose(card: ModelCard) -> str:
    """Say in one line what a model is for: its task, or else its classes and the images that it was trained on.

    Returns
    -------
    str
    """
    if card.task:
        return card.task
    words = card.class_names or [f"label {value}" for value in card.values if value]
    names = [Path(record.name).stem for record in card.images if record.name]
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{', '.join(words)}" + (f", trained on {names[0]}{more}" if names else "")
