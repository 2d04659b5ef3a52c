"""What one pass over labels counts, remembered for all who ask: checks, plan, classes and hold-out.

Labels may lie on a disk, compressed and larger than the memory, so they are read once before the first step, part by
part. The numbers are kept as long as the volume they belong to.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from napari_unetvnet.data.counts import count_values
from napari_unetvnet.images.sampling import boxes, covers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_unetvnet.images.volume import Box, Volume

__all__ = ["LabelCounts", "label_counts"]

CENTRE_PLANES = 64
"""Centres are measured on this many evenly spaced planes at most."""
CENTRE_VALUES = 64
"""Planes with more values have object ids, whose centres are not needed."""
THINNED_VOXELS = 2**20
"""Of larger labels, the thinned copy has every n-th voxel along each axis."""


@dataclass(frozen=True, eq=False)
class LabelCounts:
    """The voxels of each label value, and their centres.

    Parameters
    ----------
    counts : tuple of Counter
        For each channel, the voxels of each value.
    shown : tuple of Counter
        The same, without voxels that the mask hides.
    unpainted : int
        Voxels that are 0 in every channel and not hidden by the mask.
    painted_planes : tuple of bool
        Whether a plane holds anything but 0; empty if not all voxels were read.
    centres : dict of int to array of float, shape (3,)
        Centre z, y, x of each value of the first channel, as fractions of the edges of the image.
    digest : str
        Hash of the values.
    read : float
        Fraction of the voxels that was read.
    thinned : array of shape (Z', Y', X')
        Every ``step``-th voxel of the first channel along each axis; all planes of labels that have only one.
    step : int
    """

    counts: tuple[Counter[int], ...]
    shown: tuple[Counter[int], ...]
    unpainted: int = 0
    painted_planes: tuple[bool, ...] = ()
    centres: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    digest: str = ""
    read: float = 1.0
    mask: Volume | None = None
    thinned: NDArray[Any] = field(default_factory=lambda: np.zeros((0, 0, 0), np.uint8))
    step: int = 1

    @property
    def painted(self) -> int:
        """Voxels that are not 0, summed over channels."""
        return sum(count.total() - count[0] for count in self.counts)

    @property
    def painted_share(self) -> float:
        """Fraction of the voxels that is not 0, averaged over channels."""
        return self.painted / max(1, sum(count.total() for count in self.counts))


_CACHE: WeakKeyDictionary[Volume, LabelCounts] = WeakKeyDictionary()


def label_counts(labels: Volume, mask: Volume | None = None, limit: int | None = None) -> LabelCounts:
    """Count the values of labels, or return the cached counts.

    Parameters
    ----------
    labels : Volume, data of shape (1, Z, Y, X), or (K, Z, Y, X) with a mask for each class
        Integers; they must not change afterwards.
    mask : Volume, data of shape (1, Z, Y, X), optional
        Selects the voxels of ``shown`` (default: all).
    limit : int, optional
        Of labels with more values only evenly spaced boxes are read (default: all values).

    Returns
    -------
    LabelCounts
    """
    cached = _CACHE.get(labels)
    if cached is None or (mask is not None and cached.mask is not mask) or (limit is None and cached.read < 1):
        cached = _CACHE[labels] = _counted(labels, mask, limit)
    return cached


def _counted(labels: Volume, mask: Volume | None, limit: int | None) -> LabelCounts:
    """Read labels once."""
    values = int(np.prod(labels.data.shape))
    where = boxes(labels.shape, (values if limit is None else limit) // labels.channels)
    counts = [Counter[int]() for _ in range(labels.channels)]
    shown = counts if mask is None else [Counter[int]() for _ in range(labels.channels)]
    painted, unpainted, centres = [False] * labels.shape[0], 0, _Centres(labels.shape)
    digest, thinned = hashlib.blake2b(digest_size=16), _Thinned(labels.shape)
    for box, part in _parts(labels, where):
        digest.update(np.ascontiguousarray(part).data)
        labelled: NDArray[np.bool_] = (part != 0).any(axis=0)
        for z in np.flatnonzero(labelled.any(axis=(1, 2))):
            painted[box.start[0] + int(z)] = True
        visible = slice(None) if mask is None else np.asarray(mask.data[(0, *box.slices)]) != 0
        unpainted += int((~labelled[visible]).sum())
        for count, channel in zip(counts, part, strict=True):
            count.update(count_values(channel))
        if mask is not None:
            _count_visible(shown, part, visible)
        centres.add(box, part[0])
        thinned.add(box, part[0])
    read = covers(where, labels.shape)
    planes = tuple(painted) if read == 1 else ()
    return LabelCounts(
        tuple(counts), tuple(shown), unpainted, planes, centres.result(), digest.hexdigest(), read, mask,
        thinned.values, thinned.step,
    )  # fmt: skip


def _parts(labels: Volume, where: list[Box]) -> Iterator[tuple[Box, NDArray[Any]]]:
    """Read the boxes as integers; fractional labels are refused elsewhere."""
    for box in where:
        part = np.asarray(labels.data[(slice(None), *box.slices)])
        yield box, np.rint(np.nan_to_num(part)).astype(np.int64) if part.dtype.kind == "f" else part


def _count_visible(shown: list[Counter[int]], part: NDArray[Any], visible: Any) -> None:
    for count, channel in zip(shown, part, strict=True):
        if (values := channel[visible]).size:
            count.update(count_values(values.reshape(1, 1, -1)))


class _Thinned:
    """Every n-th voxel of labels along each axis.

    Parameters
    ----------
    shape : tuple of 3 int
        Voxels z, y, x of the labels.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        axes = 2 if shape[0] == 1 else 3
        self.step = max(1, math.ceil((math.prod(shape) / THINNED_VOXELS) ** (1 / axes)))
        self.values: NDArray[Any] = np.zeros([-(-n // self.step) for n in shape], np.uint8)

    def add(self, box: Box, part: NDArray[Any]) -> None:
        """Take the voxels of a part of shape (Z, Y, X) that lies in a box of the labels."""
        if part.dtype != self.values.dtype:
            self.values = self.values.astype(np.promote_types(part.dtype, self.values.dtype))
        chosen = part[tuple(slice(-start % self.step, None, self.step) for start in box.start)]
        first = [-(-start // self.step) for start in box.start]
        self.values[tuple(slice(a, a + n) for a, n in zip(first, chosen.shape, strict=True))] = chosen


class _Centres:
    """Sums of coordinates of each value on evenly spaced planes.

    Parameters
    ----------
    shape : tuple of 3 int
        Voxels z, y, x of the labels.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self._shape = shape
        self._planes = set(np.linspace(0, shape[0] - 1, min(shape[0], CENTRE_PLANES)).round().astype(int).tolist())
        self._sums: dict[int, NDArray[np.float64]] = {}

    def add(self, box: Box, part: NDArray[Any]) -> None:
        """Add the planes of a part of shape (Z, Y, X) that lies in a box of the labels."""
        rows, columns = (np.arange(a, b) for a, b in zip(box.start[1:], box.stop[1:], strict=True))
        for z in sorted(self._planes.intersection(range(box.start[0], box.stop[0]))):
            plane = part[z - box.start[0]]
            counts = count_values(plane[None])
            for value, count in counts.items() if len(counts) <= CENTRE_VALUES else ():
                equal = plane == value
                sums = (z * count, float(equal.sum(axis=1) @ rows), float(equal.sum(axis=0) @ columns), count)
                self._sums[value] = self._sums.get(value, np.zeros(4)) + sums

    def result(self) -> dict[int, NDArray[np.float64]]:
        """Give the centre z, y, x of each value, as fractions of the edges."""
        return {value: sums[:3] / sums[3] / self._shape for value, sums in self._sums.items()}
