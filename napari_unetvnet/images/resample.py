"""Volumes at another voxel size, computed where they are sliced and nowhere else.

A voxel is a box: the first and the last box of both grids begin and end at the same place, so nothing is shifted.
Intensities are interpolated linearly; towards larger voxels each is a weighted mean of those that it covers. Labels
take the nearest voxel.
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
"""Voxels that differ by less than this factor on every axis are left as they are."""


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

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Compute a part.

        Parameters
        ----------
        key : slices, integers and at most one Ellipsis

        Returns
        -------
        array
        """
        keys = expanded(key)
        indices = [np.arange(n)[k] for n, k in zip(self.shape, keys, strict=True)]
        found = self._computed(indices[0], [np.atleast_1d(index) for index in indices[1:]])
        return found[tuple(0 if np.ndim(index) == 0 else slice(None) for index in indices)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Compute the whole."""
        return np.asarray(self[:], dtype)

    def _computed(self, first: NDArray[np.int_], indices: Sequence[NDArray[np.int_]]) -> NDArray[Any]:
        """Read the voxels that are needed and go from their grid to the other, axis by axis."""
        firsts = np.atleast_1d(first)
        if any(index.size == 0 for index in (firsts, *indices)):
            return np.zeros((firsts.size, *(index.size for index in indices)), self.dtype)
        pairs = zip(self._data.shape[1:], self.shape[1:], indices, strict=True)
        taps = [_taps(n, m, index, self._rule) for n, m, index in pairs]
        read = [(int(places.min()), int(places.max()) + 1) for places, _ in taps]
        box = (slice(int(firsts.min()), int(firsts.max()) + 1), *(slice(*ends) for ends in read))
        part = np.asarray(self._data[box])[firsts - firsts.min()]
        for axis, ((low, _), (places, weights)) in enumerate(zip(read, taps, strict=True), start=1):
            part = _mixed(part, axis, places - low, weights)
        return np.ascontiguousarray(part, self.dtype)


def centres(length: int, new: int, index: NDArray[np.int_]) -> NDArray[np.float64]:
    """Give where the centres of voxels of an axis lie on the same axis of another grid.

    Parameters
    ----------
    length, new : int
        Voxels of the grid in which to give them, and of theirs.
    index : array of int
        Voxels.

    Returns
    -------
    array of float
        Not beyond the first and the last centre.
    """
    found: NDArray[np.float64] = ((index + 0.5) * length / new - 0.5).clip(0, length - 1)
    return found


def _taps(
    length: int, new: int, index: NDArray[np.int_], rule: Rule
) -> tuple[NDArray[np.int_], NDArray[np.float32] | None]:
    """Give which voxels of an axis each new voxel is made of, (new, taps), and their shares; None for one as it is."""
    at = centres(length, new, index)
    if rule == "nearest" or length == new:
        return np.floor(at + 0.5).astype(int)[:, None], None
    reach = max(1.0, length / new)
    places = np.floor(at - reach).astype(int)[:, None] + np.arange(1, int(2 * reach) + 2)
    shares = np.maximum(0, 1 - np.abs(places - at[:, None]) / reach)
    shares *= (places >= 0) & (places < length)
    return places.clip(0, length - 1), (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)


def _mixed(
    part: NDArray[Any], axis: int, places: NDArray[np.int_], weights: NDArray[np.float32] | None
) -> NDArray[Any]:
    """Make each new voxel of an axis from its taps."""
    if weights is None:
        return part if len(places) == part.shape[axis] == np.ptp(places) + 1 else part.take(places[:, 0], axis=axis)
    column = [1] * part.ndim
    column[axis] = -1
    taps = zip(places.T, weights.T, strict=True)
    parts = (part.take(where, axis=axis).astype(np.float32) * share.reshape(column) for where, share in taps)
    return reduce(np.add, parts)


def spacing_in(spacing: Sequence[float], unit: str, wanted: str) -> Spacing | None:
    """Write a voxel size in another unit.

    Parameters
    ----------
    spacing : 3 float
    unit, wanted : str

    Returns
    -------
    tuple of 3 float, or None
        None where the units cannot be compared, as pixels and millimetres.
    """
    if unit == wanted:
        factor = 1.0
    elif unit in METRES and wanted in METRES:
        factor = METRES[unit] / METRES[wanted]
    else:
        return None
    return spacing[0] * factor, spacing[1] * factor, spacing[2] * factor


def grid_at(volume: Volume, spacing: Sequence[float] | None, *, planar: bool) -> Triple:
    """Give how many voxels of a size a volume has.

    Parameters
    ----------
    volume : Volume
    spacing : 3 float, or None
        Wanted voxel size in the volume's unit; None for its own.
    planar : bool
        Whether planes stay as they are, because the network sees single ones.

    Returns
    -------
    tuple of 3 int
        The volume's own where voxels hardly differ.
    """
    if spacing is None:
        return volume.shape
    factors = [own / other for own, other in zip(volume.spacing, spacing, strict=True)]
    if planar or volume.shape[0] == 1:
        factors[0] = 1.0
    if all(1 / LEAST_CHANGE <= factor <= LEAST_CHANGE for factor in factors):
        return volume.shape
    z, y, x = (max(1, round(n * factor)) for n, factor in zip(volume.shape, factors, strict=True))
    return z, y, x


def at_spacing(volume: Volume, shape: Triple, rule: Rule = "linear") -> Volume:
    """See a volume on another grid of the same extent.

    Parameters
    ----------
    volume : Volume, data of shape (C, Z, Y, X)
    shape : tuple of 3 int
        As `grid_at` gives it.
    rule : {"linear", "nearest"}
        Nearest for labels.

    Returns
    -------
    Volume
        The same one if it has that grid; else computed where it is sliced, without an affine.

    Raises
    ------
    DataProblem
        If the grid is so large that a mistake in a voxel size is likely.
    """
    if shape == volume.shape:
        return volume
    if (times := np.prod(shape, dtype=float) / np.prod(volume.shape, dtype=float)) > 1000:
        raise DataProblem(
            f"{volume.name} would have {' x '.join(map(str, shape))} voxels at the wanted voxel size, {times:.0f} "
            "times as many as it has; check its voxel size and unit."
        )
    z, y, x = (s * n / m for s, n, m in zip(volume.spacing, volume.shape, shape, strict=True))
    return replace(volume, data=Resampled(volume.data, shape, rule), spacing=(z, y, x), affine=None)


def place_back(place: Sequence[int], resampled: Sequence[int], own: Sequence[int]) -> Triple:
    """Give the edge of a voxel of one grid, rounded to a voxel of another.

    Parameters
    ----------
    place : 3 int
        On the grid ``seen``.
    resampled, own : 3 int
        Voxels z, y, x of both grids.

    Returns
    -------
    tuple of 3 int
        On the grid ``own``.
    """
    z, y, x = (round(p * m / n) for p, n, m in zip(place, resampled, own, strict=True))
    return z, y, x
