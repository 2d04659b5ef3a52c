"""Weighted sums of logits that do not grow with the volume.

Tiles are added band by band: a band is one row of tiles, or all rows of a slab where these need little memory. Only one
band has sums. Finished sums are handed out and dropped; of the others, only the planes that the next slab overlaps are
kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unetvnet.conventions import Triple
    from napari_unetvnet.inference.tiles import Place, Tiles

__all__ = ["Part", "TileSums"]

SLAB_BYTES = 2**27
"""Sums of a slab that fit into this many bytes are not divided into bands."""
FLOAT = 4


class Part(NamedTuple):
    """Finished logits (K, dz, dy, X) and the first plane and row that they cover.

    The logits are a view of a buffer, valid until the next part is requested.
    """

    plane: int
    row: int
    logits: Tensor


class TileSums:
    """Sums of the weighted logits of tiles.

    Parameters
    ----------
    shape : tuple of 3 int
        Voxels z, y, x of the volume.
    outputs : int
        K.
    """

    def __init__(self, tiles: Tiles, shape: Triple, outputs: int, device: torch.device) -> None:
        self._tiles, self._shape = tiles, shape
        self._windows = tuple(torch.from_numpy(window).to(device) for window in tiles.windows)
        self._ends = tuple((*origins[1:], n) for origins, n in zip(tiles.origins, shape, strict=True))
        deep, high, _ = tiles.size
        rows = range(len(tiles.origins[1]))
        # Tiles on a grid may reach beyond the last row of the image.
        reach = tiles.origins[1][-1] + high
        one_band = FLOAT * outputs * deep * reach * shape[2] <= SLAB_BYTES
        self.bands: list[Sequence[int]] = [rows] if one_band else [[row] for row in rows]
        """The rows of tiles of each band."""
        self._band = torch.empty(outputs, deep, reach if one_band else high, shape[2], device=device)
        carried = max((deep - self._finished(0, i) for i in range(len(self._ends[0]) - 1)), default=0)
        # With one band the planes to carry over stay in the band itself; with several, each band overwrites them.
        self._carried = None if one_band else torch.empty(outputs, carried, shape[1], shape[2], device=device)

    def _finished(self, axis: int, number: int) -> int:
        """Count the voxels of a tile's length that no later tile touches."""
        return self._ends[axis][number] - self._tiles.origins[axis][number]

    def open(self, slab: int, band: Sequence[int]) -> None:
        """Start a band with the sums that it shares with the band above and the slab before.

        Parameters
        ----------
        slab : int
            Index of the slab on z.
        band : sequence of int
            One of `bands`; in order.
        """
        high, shared, carried = self._band.shape[2], 0, 0
        if band[0]:
            # The rows that the band above left unfinished are the first rows of this one.
            shared = high - self._finished(1, band[0] - 1)
            _move_to_start(self._band, shared, axis=2)
        if slab:
            carried = self._tiles.size[0] - self._finished(0, slab - 1)
            if self._carried is None:
                _move_to_start(self._band, carried, axis=1)
            else:
                top = self._tiles.origins[1][band[0]]
                # The shared rows have these planes already, from the band above. Rows beyond the image are not carried.
                overlap = self._carried[:, :carried, top + shared : top + high]
                self._band[:, :carried, shared : shared + overlap.shape[2]] = overlap
        # The rest has no part from the band above or from the slab before.
        self._band[:, carried:, shared:] = 0

    def add(self, logits: Tensor, slab: int, place: Place) -> None:
        """Weight the logits of a tile of the open band and add those inside the image.

        Parameters
        ----------
        logits : Tensor of shape (K, Z, Y, X)
        place : Place
            Index of the tile on z, and on y and x.
        """
        # A band of one row of tiles has its rows at the start of the buffer.
        y, x = self._tiles.origins[1][place[0]] if len(self.bands) == 1 else 0, self._tiles.origins[2][place[1]]
        _, height, width = self._tiles.size
        # The buffer is as wide as the image. Rows and planes beyond the image are added too, and left out in `close`.
        width = min(width, self._shape[2] - x)
        along_z, along_y, along_x = (windows[i] for windows, i in zip(self._windows, (slab, *place), strict=True))
        weight = along_z[:, None, None] * (along_y[:, None] * along_x[:width])
        self._band[:, :, y : y + height, x : x + width].addcmul_(logits[..., :width], weight)

    def close(self, slab: int, band: Sequence[int]) -> Part:
        """Finish a band.

        Returns
        -------
        Part
            The sums that no later tile touches.
        """
        plane, first = self._tiles.origins[0][slab], self._tiles.origins[1][band[0]]
        planes, rows = self._finished(0, slab), self._ends[1][band[-1]] - first
        # The rows below are not final yet; the next band moves them to its start, with all their planes.
        if self._carried is not None and slab + 1 < len(self._ends[0]):
            deep = self._tiles.size[0] - planes
            self._carried[:, :deep, first : first + rows] = self._band[:, planes:, :rows]
        return Part(plane, first, self._band[:, :planes, :rows])


def _move_to_start(sums: Tensor, length: int, axis: int) -> None:
    """Move the last ``length`` planes or rows to the start."""
    last = sums.narrow(axis, sums.shape[axis] - length, length)
    # A copy between overlapping parts of one tensor is undefined, so with an overlap above one half it goes by a clone.
    disjoint = 2 * length <= sums.shape[axis]
    sums.narrow(axis, 0, length).copy_(last if disjoint else last.clone())
