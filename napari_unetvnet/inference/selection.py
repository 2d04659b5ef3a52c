"""The part of an image to segment: a box, a mask, or both.

Voxels outside it become background. Tiles lie as without a selection, so the labels inside it are the same; tiles
without a selected voxel are neither read nor computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.errors import DataProblem, SettingsProblem
from napari_unetvnet.images.volume import Box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.conventions import Triple
    from napari_unetvnet.images.volume import Volume
    from napari_unetvnet.settings import SegmentSettings

__all__ = ["Selection", "select"]


def select(volume: Volume, resampled: Triple, settings: SegmentSettings, mask: Any = None) -> Selection | None:
    """Give the part of a volume to segment.

    Parameters
    ----------
    resampled : tuple of 3 int
        Voxels z, y, x of the resampled volume.
    mask : array of shape (1, Z, Y, X), optional
        0 where nothing is segmented. Read by slicing only.

    Returns
    -------
    Selection or None
        None for the whole volume.

    Raises
    ------
    DataProblem
        If the mask has another size than the volume.
    SettingsProblem
        If the box lies outside the volume.
    """
    if mask is not None and tuple(mask.shape[-3:]) != volume.shape:
        sizes = [" x ".join(map(str, shape)) for shape in (mask.shape[-3:], volume.shape)]
        raise DataProblem(f"The mask has {sizes[0]} voxels, {volume.name} has {sizes[1]}; give a mask of that size.")
    start, stop = settings.box_start or (0, 0, 0), settings.box_stop or volume.shape
    if any(a >= n for a, n in zip(start, volume.shape, strict=True)):
        size = " x ".join(map(str, volume.shape))
        raise SettingsProblem(
            f"The box starts at {' '.join(map(str, start))}, outside {volume.name}, which has {size} voxels; choose "
            "another box."
        )
    if mask is None and settings.box_start is None and settings.box_stop is None:
        return None
    z, y, x = map(min, stop, volume.shape)
    return Selection(Box(start, (z, y, x)), mask, volume.shape, resampled)


@dataclass(frozen=True, eq=False)
class Selection:
    """A part of an image.

    Parameters
    ----------
    box : Box
        Nothing outside it is segmented.
    mask : array of shape (1, Z, Y, X), or None
        Nothing is segmented where it is 0.
    original, resampled : tuple of 3 int
        Voxels z, y, x of the image before and after resampling.
    """

    box: Box
    mask: Any
    original: Triple
    resampled: Triple

    def planes(self, start: int, stop: int) -> NDArray[np.bool_]:
        """Give a mask of the selected voxels in some planes of the image.

        Returns
        -------
        array of bool, shape (stop - start, Y, X)
        """
        selected = np.zeros((stop - start, *self.original[1:]), bool)
        _, y, x = self.box.slices
        low, high = max(start, self.box.start[0]), min(stop, self.box.stop[0])
        if low < high:
            inside = True if self.mask is None else np.asarray(self.mask[0, low:high, y, x]) != 0
            selected[low - start : high - start, y, x] = inside
        return selected

    def columns(self, start: int, stop: int) -> NDArray[np.bool_]:
        """Give a mask of the columns with a selected voxel that depends on some resampled planes.

        Parameters
        ----------
        start, stop : int
            Planes of the resampled image.

        Returns
        -------
        array of bool, shape (Y, X)
            On the original grid.
        """
        return np.asarray(self.planes(*self._original(0, start, stop)).any(axis=0))

    def any_in(self, columns: NDArray[np.bool_], start: Sequence[int], stop: Sequence[int]) -> bool:
        """Whether a selected voxel depends on a tile.

        Parameters
        ----------
        columns : array of shape (Y, X)
            From `columns`, for the planes of the tile.
        start, stop : 2 int
            Voxels y, x of the tile in the resampled image.

        Returns
        -------
        bool
        """
        y, x = (slice(*self._original(axis, a, b)) for axis, a, b in zip((1, 2), start, stop, strict=True))
        return bool(columns[y, x].any())

    def _original(self, axis: int, start: int, stop: int) -> tuple[int, int]:
        """Give the range of original voxels along an axis that depend on a range of resampled voxels."""
        original, resampled = self.original[axis], self.resampled[axis]
        reach = int(original != resampled)  # interpolation also uses the next voxel
        low, high = (start - reach) * original // resampled, -(-(stop + reach) * original // resampled)
        return max(0, low), min(original, high)
