"""Measure how painted voxels differ from unpainted ones: in the image, and in the shape of what is painted.

Finished labels end where the image changes, and nothing unpainted looks like them. Strokes end anywhere, and at least
the unpainted voxels beside strokes on the background look the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from napari_unetvnet.data.label_counts import label_counts
from napari_unetvnet.data.meaning import look
from napari_unetvnet.images.sampling import spread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.images.pairs import Pair
    from napari_unetvnet.images.volume import Volume
    from napari_unetvnet.settings import TrainSettings

__all__ = ["Evidence", "evidence", "lone_planes"]

PLANES, EDGE = 4, 512
"""So many planes at most, and a window of so many voxels in each, are measured."""
MOST_VALUES = 8
"""The most frequent values are measured."""
LABEL_VALUES = 1 << 28
LEAST_PLANES = 3
STACK, LONG_RUN = 6, 2
"""In stacks of so many planes, painted planes lie alone if there are no more than so many in a row."""


@dataclass(frozen=True)
class Evidence:
    """Measurements of one image and its labels.

    Parameters
    ----------
    counts : dict of int to int
        Voxels of each painted value; 0 and ignored voxels are left out.
    coverage : float
        Fraction of the voxels that are painted.
    contrast : dict of int to float
        For each value that ends at unpainted voxels: how well they can be told apart a few voxels from the border,
        from 0.5, not at all, to 1.
    step : dict of int to float
        For these values, the mean change of intensity across the border, in standard deviations of the change.
    purity : dict of int to float
        Of the voxels that look most like a value, the fraction that has it.
    elongation : float
        How many times as long as wide the painted parts are; about 1 for discs.
    filled : bool
        Whether no voxel is unpainted on the planes that were measured.
    lone_planes : int
        Number of painted planes, if they lie alone among unpainted ones; else 0.
    continuity : float or None
        Dice of the painted parts of neighbouring planes; None for one plane.
    likeness : dict of int to float
        Fraction of the image that looks like each painted value, if there are two or more.
    enclosure : dict of int to float
        Fraction of the rest that is enclosed by what looks like each value.
    """

    name: str
    counts: dict[int, int]
    coverage: float
    contrast: dict[int, float] = field(default_factory=dict)
    step: dict[int, float] = field(default_factory=dict)
    purity: dict[int, float] = field(default_factory=dict)
    elongation: float = 1.0
    filled: bool = False
    lone_planes: int = 0
    continuity: float | None = None
    likeness: dict[int, float] = field(default_factory=dict)
    enclosure: dict[int, float] = field(default_factory=dict)


_CACHE: WeakKeyDictionary[Volume, tuple[int | None, Evidence]] = WeakKeyDictionary()


def evidence(pair: Pair, settings: TrainSettings) -> Evidence:
    """Measure a pair, or return what was measured before.

    Parameters
    ----------
    pair : Pair
        Of large images, a window of some painted planes is read. The arrays must not change afterwards.
    settings : TrainSettings
        Only ``ignore_value`` is used.

    Returns
    -------
    Evidence
    """
    known = _CACHE.get(pair.labels)
    if known is None or known[0] != settings.ignore_value:
        known = _CACHE[pair.labels] = settings.ignore_value, _measured(pair, settings.ignore_value)
    return known[1]


def _measured(pair: Pair, ignore_value: int | None) -> Evidence:
    counted = label_counts(pair.labels, pair.mask, LABEL_VALUES)
    counts = {value: n for value, n in sorted(counted.shown[0].items()) if value not in (0, ignore_value)}
    visible = counted.shown[0].total() - counted.shown[0].get(ignore_value or 0, 0) * (ignore_value is not None)
    found = Evidence(pair.labels.name, counts, sum(counts.values()) / max(1, visible))
    if not counts or pair.labels.channels > 1 or pair.image.shape != pair.labels.shape:
        return found
    where = _window(pair.labels, counted.painted_planes)
    image, labels = (np.stack([np.asarray(volume.data[(slice(None), z, *where.box)]) for z in where.planes], axis=1)
                     for volume in (pair.image, pair.labels))  # fmt: skip
    hidden = labels[0] == ignore_value if ignore_value is not None else np.zeros(labels.shape[1:], bool)
    if pair.mask is not None:
        hidden |= np.stack([np.asarray(pair.mask.data[(0, z, *where.box)]) for z in where.planes]) == 0
    painted = np.where(hidden, look.HIDDEN, labels[0].astype(np.int64))
    frequent = sorted(counts, key=lambda value: -counts[value])[:MOST_VALUES]
    seen = look.Look(image, painted)
    likeness, enclosure = seen.likeness(frequent)
    return replace(
        found,
        contrast={v: c for v in frequent if (c := seen.contrast(v)) is not None},
        step={v: s for v in frequent if (s := seen.step(v)) is not None},
        purity={v: p for v in frequent if (p := seen.purity(v)) is not None},
        elongation=elongation(painted > 0),
        filled=bool((painted != 0).all()),
        lone_planes=len(lone_planes(counted.painted_planes)),
        continuity=continuity(pair.labels, where),
        likeness=likeness,
        enclosure=enclosure,
    )


def lone_planes(painted_planes: Sequence[bool]) -> list[int]:
    """Give the painted planes if they lie alone among unpainted ones.

    Returns
    -------
    list of int
        Empty if others are next to them, most planes are painted, or there are few planes.
    """
    painted = np.array(painted_planes, bool)
    planes = np.flatnonzero(painted)
    if len(painted) < STACK or not len(planes) or len(planes) > len(painted) / 2:
        return []
    runs = np.split(planes, np.flatnonzero(np.diff(planes) > 1) + 1)
    alone = len(runs) > 1 or len(planes) == 1
    return planes.tolist() if alone and max(map(len, runs)) <= LONG_RUN else []


@dataclass(frozen=True)
class Window:
    """The planes, and the part of each, that are read."""

    planes: tuple[int, ...]
    box: tuple[slice, slice]


def _window(labels: Volume, painted: tuple[bool, ...]) -> Window:
    """Choose painted planes, and a window around the middle of what is painted on the first of them."""
    candidates = np.flatnonzero(painted) if any(painted) else np.arange(labels.shape[0])
    planes = tuple(candidates[spread(len(candidates), PLANES)].tolist())
    places = np.argwhere(np.asarray(labels.data[0, planes[0]]))
    middle = np.median(places, axis=0) if len(places) else np.array(labels.shape[1:]) / 2
    starts = [max(0, min(int(m) - EDGE // 2, n - EDGE)) for m, n in zip(middle, labels.shape[1:], strict=True)]
    return Window(planes, (slice(starts[0], starts[0] + EDGE), slice(starts[1], starts[1] + EDGE)))


def elongation(painted: NDArray[np.bool_]) -> float:
    """Say how many times as long as wide the painted parts of planes are, weighted by their areas."""
    from scipy import ndimage

    weighted = total = 0.0
    for plane in painted:
        parts, count = ndimage.label(plane, np.ones((3, 3)))
        if not count:
            continue
        depth = ndimage.distance_transform_edt(np.pad(plane, 1))[1:-1, 1:-1]
        index = np.arange(1, count + 1)
        areas = np.bincount(parts.ravel(), minlength=count + 1)[1:]
        widths = 2 * np.asarray(ndimage.maximum(depth, parts, index)) - 1
        weighted, total = weighted + float((areas**2 / widths**2).sum()), total + float(areas.sum())
    return weighted / total if total else 1.0


def continuity(labels: Volume, where: Window) -> float | None:
    """Give the Dice coefficient of what is painted on the measured planes and on the planes after them."""
    if labels.shape[0] < LEAST_PLANES:
        return None
    both = total = 0
    for z in where.planes:
        here, after = (np.asarray(labels.data[(0, k, *where.box)]) != 0 for k in _with_next(z, labels.shape[0]))
        both, total = both + int((here & after).sum()), total + int(here.sum()) + int(after.sum())
    return 2 * both / total if total else None


def _with_next(z: int, depth: int) -> tuple[int, int]:
    return (z, z + 1) if z + 1 < depth else (z - 1, z)
