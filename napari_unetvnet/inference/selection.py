"""Which part of an image is to be segmented.

What is left out is background in the result. Tiles lie where they would lie without it, so that the rest is the same;
those that hold nothing that is wanted are neither read nor computed.
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
    """Give the part of a volume that is to be segmented.

    Parameters
    ----------
    volume : Volume
    resampled : tuple of 3 int
        Voxels z, y, x of the grid on which the network sees it.
    settings : SegmentSettings
    mask : array of shape (1, Z, Y, X), optional
        0 where nothing is wanted. Read by slicing only.

    Returns
    -------
    Selection or None
        None for all of it.

    Raises
    ------
    DataProblem
        If the mask has another size than the volume.
    SettingsProblem
        If the box lies outside of the volume.
    """
    if mask is not None and tuple(mask.shape[-3:]) != volume.shape:
        sizes = [" x ".join(map(str, shape)) for shape in (mask.shape[-3:], volume.shape)]
        raise DataProblem(f"The mask has {sizes[0]} voxels, {volume.name} has {sizes[1]}; give a mask of that size.")
    start, stop = settings.box_start or (0, 0, 0), settings.box_stop or volume.shape
    if any(a >= n for a, n in zip(start, volume.shape, strict=True)):
        size = " x ".join(map(str, volume.shape))
        raise SettingsProblem(
            f"The box begins at {' '.join(map(str, start))}, outside of {volume.name}, which has {size} voxels; choose "
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
        Nothing outside of it is wanted.
    mask : array of shape (1, Z, Y, X), or None
        Nothing is wanted where it is 0.
    own, resampled : tuple of 3 int
        Voxels z, y, x of the image, and of the grid on which the network sees it.
    """

    box: Box
    mask: Any
    own: Triple
    resampled: Triple

    def planes(self, start: int, stop: int) -> NDArray[np.bool_]:
        """Tell which voxels of some planes of the image are wanted.

        Parameters
        ----------
        start, stop : int

        Returns
        -------
        array of bool, shape (stop - start, Y, X)
        """
        there = np.zeros((stop - start, *self.own[1:]), bool)
        _, y, x = self.box.slices
        low, high = max(start, self.box.start[0]), min(stop, self.box.stop[0])
        if low < high:
            inside = True if self.mask is None else np.asarray(self.mask[0, low:high, y, x]) != 0
            there[low - start : high - start, y, x] = inside
        return there

    def columns(self, start: int, stop: int) -> NDArray[np.bool_]:
        """Tell where anything is wanted that depends on some planes that the network sees.

        Parameters
        ----------
        start, stop : int
            Planes that the network sees.

        Returns
        -------
        array of bool, shape (Y, X)
            On the image's own grid.
        """
        return np.asarray(self.planes(*self._own(0, start, stop)).any(axis=0))

    def any_in(self, columns: NDArray[np.bool_], start: Sequence[int], stop: Sequence[int]) -> bool:
        """Tell whether anything is wanted that depends on a tile.

        Parameters
        ----------
        columns : array of shape (Y, X)
            Those of the tile's planes.
        start, stop : 2 int
            Its voxels y, x on the grid that the network sees.

        Returns
        -------
        bool
        """
        y, x = (slice(*self._own(axis, a, b)) for axis, a, b in zip((1, 2), start, stop, strict=True))
        return bool(columns[y, x].any())

    def _own(self, axis: int, start: int, stop: int) -> tuple[int, int]:
        """Give the voxels of the image on an axis that depend on some that the network sees."""
        own, resampled = self.own[axis], self.resampled[axis]
        reach = int(own != resampled)  # interpolation looks at the next voxel
        return max(0, (start - reach) * own // resampled), min(own, -(-(stop + reach) * own // resampled))
