"""Resample volumes to another voxel size, lazily: only what is sliced is computed.

Voxels are boxes, and both grids cover the same extent, so nothing is shifted. Intensities are interpolated linearly;
larger voxels are weighted means of those that they cover. Labels take the nearest voxel.
"""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.arrays import expanded
from napari_unetvnet.images.units import METRES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.conventions import Spacing, Triple
    from napari_unetvnet.images.volume import Volume

__all__ = ["Resampled", "at_spacing", "centres", "grid_at", "place_back", "spacing_in"]

Rule = Literal["linear", "nearest"]
LEAST_CHANGE = 1.1
"""Volumes are not resampled if voxel sizes differ by less than this factor on every axis."""


class Resampled:
    """An array resampled on another grid of the same extent; read by slicing only, and computed then.

    Parameters
    ----------
    data : array of shape (N, Z, Y, X)
        Read by slicing only.
    shape : tuple of 3 int
        Voxels z, y, x of the grid on which it is resampled.
    rule : {"linear", "nearest"}
        Linear gives float32; nearest keeps type and values.
    """

    def __init__(self, data: Any, shape: Triple, rule: Rule) -> None:
        self._data, self._rule = data, rule
        self.shape = (int(data.shape[0]), *shape)
        self.ndim = 4
        self.dtype = np.dtype(np.float32) if rule == "linear" else np.dtype(data.dtype)

    @property
    def source(self) -> Any:
        """The array that is resampled."""
        return self._data

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Compute a part."""
        keys = expanded(key)
        indices = [np.arange(n)[k] for n, k in zip(self.shape, keys, strict=True)]
        values = self._computed(indices[0], [np.atleast_1d(index) for index in indices[1:]])
        return values[tuple(0 if np.ndim(index) == 0 else slice(None) for index in indices)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Compute the whole array."""
        return np.asarray(self[:], dtype)

    def _computed(self, channels: NDArray[np.int_], indices: Sequence[NDArray[np.int_]]) -> NDArray[Any]:
        """Read the source voxels that are needed, and resample them axis by axis."""
        channels = np.atleast_1d(channels)
        if any(index.size == 0 for index in (channels, *indices)):
            return np.zeros((channels.size, *(index.size for index in indices)), self.dtype)
        pairs = zip(self._data.shape[1:], self.shape[1:], indices, strict=True)
        taps = [_taps(n, m, index, self._rule) for n, m, index in pairs]
        read = [(int(places.min()), int(places.max()) + 1) for places, _ in taps]
        box = (slice(int(channels.min()), int(channels.max()) + 1), *(slice(*ends) for ends in read))
        part = np.asarray(self._data[box])[channels - channels.min()]
        for axis, ((low, _), (places, weights)) in enumerate(zip(read, taps, strict=True), start=1):
            part = _weighted(part, axis, places - low, weights)
        return np.ascontiguousarray(part, self.dtype)


def centres(length: int, new: int, index: NDArray[np.int_]) -> NDArray[np.float64]:
    """Give the positions of voxel centres of one grid along the same axis of another grid.

    Parameters
    ----------
    length, new : int
        Voxels of the other grid, and of the grid of the centres.
    index : array of int
        Voxels.

    Returns
    -------
    array of float
        Clipped to the first and the last centre.
    """
    positions: NDArray[np.float64] = ((index + 0.5) * length / new - 0.5).clip(0, length - 1)
    return positions


def _taps(
    length: int, new: int, index: NDArray[np.int_], rule: Rule
) -> tuple[NDArray[np.int_], NDArray[np.float32] | None]:
    """Give the source voxels of each new voxel, (new, taps), and their weights; None for a copy of one voxel."""
    positions = centres(length, new, index)
    if rule == "nearest" or length == new:
        return np.floor(positions + 0.5).astype(int)[:, None], None
    reach = max(1.0, length / new)
    places = np.floor(positions - reach).astype(int)[:, None] + np.arange(1, int(2 * reach) + 2)
    shares = np.maximum(0, 1 - np.abs(places - positions[:, None]) / reach)
    shares *= (places >= 0) & (places < length)
    return places.clip(0, length - 1), (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)


def _weighted(
    part: NDArray[Any], axis: int, places: NDArray[np.int_], weights: NDArray[np.float32] | None
) -> NDArray[Any]:
    """Compute the new voxels of an axis as weighted sums of source voxels."""
    if weights is None:
        return part if len(places) == part.shape[axis] == np.ptp(places) + 1 else part.take(places[:, 0], axis=axis)
    column = [1] * part.ndim
    column[axis] = -1
    taps = zip(places.T, weights.T, strict=True)
    parts = (part.take(where, axis=axis).astype(np.float32) * share.reshape(column) for where, share in taps)
    return reduce(np.add, parts)


def spacing_in(spacing: Sequence[float], unit: str, target: str) -> Spacing | None:
    """Convert a voxel size to another unit.

    Parameters
    ----------
    spacing : 3 float

    Returns
    -------
    tuple of 3 float, or None
        None if the units are not comparable, such as pixels and millimetres.
    """
    if unit == target:
        factor = 1.0
    elif unit in METRES and target in METRES:
        factor = METRES[unit] / METRES[target]
    else:
        return None
    return spacing[0] * factor, spacing[1] * factor, spacing[2] * factor


def grid_at(volume: Volume, spacing: Sequence[float] | None, *, planar: bool) -> Triple:
    """Give the shape of a volume at another voxel size.

    Parameters
    ----------
    spacing : 3 float, or None
        Target voxel size in the unit of the volume; None to keep it.
    planar : bool
        Whether z is not resampled, because the network is 2D.

    Returns
    -------
    tuple of 3 int
        The shape of the volume if the voxel sizes hardly differ.
    """
    if spacing is None:
        return volume.shape
    factors = [old / new for old, new in zip(volume.spacing, spacing, strict=True)]
    if planar or volume.shape[0] == 1:
        factors[0] = 1.0
    if all(1 / LEAST_CHANGE <= factor <= LEAST_CHANGE for factor in factors):
        return volume.shape
    z, y, x = (max(1, round(n * factor)) for n, factor in zip(volume.shape, factors, strict=True))
    return z, y, x


def at_spacing(volume: Volume, shape: Triple, rule: Rule = "linear") -> Volume:
    """Resample a volume to another grid of the same extent, lazily.

    Parameters
    ----------
    volume : Volume, data of shape (C, Z, Y, X)
    shape : tuple of 3 int
        From `grid_at`.
    rule : {"linear", "nearest"}
        Nearest for labels.

    Returns
    -------
    Volume
        The same volume if it has that grid; else computed when sliced.

    Raises
    ------
    DataProblem
        If the grid is so large that a wrong voxel size is likely.
    """
    if shape == volume.shape:
        return volume
    if (times := np.prod(shape, dtype=float) / np.prod(volume.shape, dtype=float)) > 1000:
        raise DataProblem(
            f"{volume.name} would have {' x '.join(map(str, shape))} voxels at the target voxel size, {times:.0f} "
            "times as many as it has; check its voxel size and unit."
        )
    geometry = volume.geometry.resized(volume.shape, shape)
    return replace(volume, data=Resampled(volume.data, shape, rule), geometry=geometry)


def place_back(place: Sequence[int], resampled: Sequence[int], original: Sequence[int]) -> Triple:
    """Convert a voxel corner from the resampled grid to the original one, rounded.

    Parameters
    ----------
    place : 3 int
        On the resampled grid.
    resampled, original : 3 int
        Voxels z, y, x of both grids.

    Returns
    -------
    tuple of 3 int
        On the original grid.
    """
    z, y, x = (round(p * m / n) for p, n, m in zip(place, resampled, original, strict=True))
    return z, y, x
