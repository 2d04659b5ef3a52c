"""Read a pair once, block by block, and measure it."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.data.checks.facts import ImageFacts, LabelFacts, MaskFacts, PairFacts
from napari_unetvnet.data.checks.thumbnail import make_thumbnail
from napari_unetvnet.data.label_counts import label_counts
from napari_unetvnet.data.meaning import evidence
from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.refusals import check_grids
from napari_unetvnet.images.sampling import boxes, covers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from napari_unetvnet.images.pairs import Pair
    from napari_unetvnet.images.volume import Box, Volume
    from napari_unetvnet.settings import TrainSettings

__all__ = ["measure"]

IMAGE_VALUES = 1 << 24
LABEL_VALUES = 1 << 28
SAMPLE = 1 << 19
"""About how many values are read of an image, of labels, and of each channel for percentiles."""


def measure(pair: Pair, settings: TrainSettings, *, compared: bool = True) -> PairFacts:
    """Measure an image and its labels.

    Parameters
    ----------
    pair : Pair
        Read by slicing only; of a large image only evenly spaced blocks.
    compared : bool
        Whether painted voxels are compared with unpainted ones.

    Returns
    -------
    PairFacts
    """
    image, labels, mask = pair.image, pair.labels, pair.mask
    try:
        check_grids(image, labels, mask, overlapping=settings.label_values == "overlapping")
        refused: tuple[str, ...] = ()
    except DataProblem as problem:
        refused, mask = problem.lines, None
    facts = LabelFacts(labels.name, labels.grid, labels.channels, str(labels.data.dtype), fraction=_fraction(labels))
    if facts.fraction is None:
        facts = _counted(facts, labels, mask)
        if image.shape == labels.shape:
            facts = replace(facts, thumbnail=make_thumbnail(image, labels, facts.painted_planes, settings))
    hidden = None if mask is None else MaskFacts(mask.name, 1 - facts.total / _voxels(labels) / facts.read, mask.grid)
    comparable = compared and not refused and facts.fraction is None and not settings.multilabel
    found = evidence(pair, settings) if comparable and settings.label_values == "classes" else None
    return PairFacts(_image(image), facts, hidden, pair.split, refused, found, pair.turned)


def _voxels(volume: Volume) -> int:
    return math.prod(volume.shape)


def _parts(volume: Volume, where: Iterable[Box]) -> Iterator[NDArray[Any]]:
    """Read the boxes of a volume one by one."""
    for box in where:
        yield np.asarray(volume.data[(slice(None), *box.slices)])


def _image(image: Volume) -> ImageFacts:
    """Measure an image."""
    where = boxes(image.shape, max(1, IMAGE_VALUES // image.channels))
    step = max(1, sum(math.prod(box.shape) for box in where) // SAMPLE)
    digest = hashlib.blake2b(f"{image.data.shape}{image.data.dtype}".encode(), digest_size=16)
    repeated_channels, broken, flat, extremes, samples = np.ones(image.channels, bool), 0, list[int](), [], []
    for box, read in zip(where, _parts(image, where), strict=True):
        digest.update(np.ascontiguousarray(read).data)
        repeated_channels &= np.array([np.array_equal(read[0], channel) for channel in read])
        part, bad = _finite(read)
        broken += bad
        if box.shape[1] == image.shape[1]:
            flat += [box.start[0] + z for z in _flat(part)]
        rows = part.reshape(image.channels, -1)
        extremes.append((rows.min(axis=1), rows.max(axis=1)))
        samples.append(rows[:, ::step])
    low, high = np.min([a for a, _ in extremes], axis=0), np.max([b for _, b in extremes], axis=0)
    sample = np.concatenate(samples, axis=1)
    dark, bright = np.percentile(sample.astype(np.float64), [1, 99], axis=1)
    return ImageFacts(
        image.name,
        image.grid,
        image.channels,
        str(image.data.dtype),
        tuple(low.astype(float).tolist()),
        tuple(high.astype(float).tolist()),
        tuple(dark.tolist()),
        tuple(bright.tolist()),
        at_low=float((sample == low[:, None]).mean(axis=1).max()),
        at_high=float((sample == high[:, None]).mean(axis=1).max()),
        levels=len(np.unique(sample[:, :: max(1, sample.shape[1] >> 16)])),
        broken=broken,
        flat_planes=tuple(flat),
        repeated_channels=tuple(int(c) + 1 for c in np.flatnonzero(repeated_channels) if c),
        digest=digest.hexdigest(),
        read=covers(where, image.shape),
    )


def _finite(part: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Replace NaN and infinity by the smallest finite value, and count their voxels."""
    if part.dtype.kind != "f" or (finite := np.isfinite(part)).all():
        return part, 0
    least = part[finite].min() if finite.any() else 0
    return np.where(finite, part, least), int((~finite).any(axis=0).sum())


def _flat(part: NDArray[Any]) -> list[int]:
    """Give the planes with a single value per channel."""
    flat: list[int] = np.flatnonzero((part == part[:, :, :1, :1]).all(axis=(0, 2, 3))).tolist()
    return flat


def _fraction(labels: Volume) -> float | None:
    """Give a value that is not an integer, if the blocks that are read contain one."""
    if np.dtype(labels.data.dtype).kind in "biu":
        return None
    for part in _parts(labels, boxes(labels.shape, IMAGE_VALUES // labels.channels)):
        fractional = part != np.rint(part)
        if fractional.any() or not np.isfinite(part).all():
            return float(part[fractional | ~np.isfinite(part)][0])
    return None


def _counted(facts: LabelFacts, labels: Volume, mask: Volume | None) -> LabelFacts:
    """Count the values of each channel that no mask hides."""
    counted = label_counts(labels, mask, LABEL_VALUES)
    return replace(
        facts,
        counts=counted.counts if mask is None else counted.shown,
        painted_planes=counted.painted_planes,
        unpainted=counted.unpainted,
        digest=counted.digest,
        read=counted.read,
    )
