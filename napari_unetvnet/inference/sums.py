"""Weighted sums of logits that do not grow with the volume.

Tiles are added band after band: a row of tiles, or all rows of a slab where these need little. There are sums for one
band; of what is finished nothing is kept, and of what is not, only the planes that the next slab covers again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unetvnet.conventions import Triple
    from napari_unetvnet.inference.tiles import Place, Tiles

__all__ = ["Part", "Sums"]

LITTLE = 2**27
"""Sums of a slab that need no more bytes are not divided into bands."""
FLOAT = 4


class Part(NamedTuple):
    """Logits that will not change any more: their first plane, their first row, and they (K, dz, dy, X).

    They are lent until the next part is asked for.
    """

    plane: int
    row: int
    logits: Tensor


class Sums:
    """Adds up the weighted logits of tiles.

    Parameters
    ----------
    tiles : Tiles
    shape : tuple of 3 int
        Voxels z, y, x of the volume.
    outputs : int
        K.
    device : torch.device
    """

    def __init__(self, tiles: Tiles, shape: Triple, outputs: int, device: torch.device) -> None:
        self._tiles, self._shape = tiles, shape
        self._windows = tuple(torch.from_numpy(window).to(device) for window in tiles.windows)
        self._ends = tuple((*origins[1:], n) for origins, n in zip(tiles.origins, shape, strict=True))
        deep, high, _ = tiles.size
        rows = range(len(tiles.origins[1]))
        reach = tiles.origins[1][-1] + high
        whole = FLOAT * outputs * deep * reach * shape[2] <= LITTLE
        self.bands: list[Sequence[int]] = [rows] if whole else [[row] for row in rows]
        """The rows of tiles of each band."""
        self._band = torch.empty(outputs, deep, reach if whole else high, shape[2], device=device)
        carried = max((deep - self._finished(0, i) for i in range(len(self._ends[0]) - 1)), default=0)
        self._kept = None if whole else torch.empty(outputs, carried, shape[1], shape[2], device=device)

    def _finished(self, axis: int, number: int) -> int:
        """Count the voxels of a tile's length that no later tile touches."""
        return self._ends[axis][number] - self._tiles.origins[axis][number]

    def open(self, slab: int, band: Sequence[int]) -> None:
        """Begin with a band.

        Parameters
        ----------
        slab : int
            Its number on z.
        band : sequence of int
            One of `bands`; in order.
        """
        high, begun, carried = self._band.shape[2], 0, 0
        if band[0]:
            begun = high - self._finished(1, band[0] - 1)
            _move_to_start(self._band, begun, axis=2)
        if slab:
            carried = self._tiles.size[0] - self._finished(0, slab - 1)
            if self._kept is None:
                _move_to_start(self._band, carried, axis=1)
            else:
                top = self._tiles.origins[1][band[0]]
                kept = self._kept[:, :carried, top + begun : top + high]
                self._band[:, :carried, begun : begun + kept.shape[2]] = kept
        self._band[:, carried:, begun:] = 0

    def add(self, logits: Tensor, slab: int, place: Place) -> None:
        """Weigh the logits of a tile of the present band and add the part of them that lies in the image.

        Parameters
        ----------
        logits : Tensor of shape (K, Z, Y, X)
        slab : int
        place : Place
            Its number on z, and on y and x.
        """
        y, x = self._tiles.origins[1][place[0]] if len(self.bands) == 1 else 0, self._tiles.origins[2][place[1]]
        _, height, width = self._tiles.size
        width = min(width, self._shape[2] - x)
        along_z, along_y, along_x = (windows[i] for windows, i in zip(self._windows, (slab, *place), strict=True))
        weight = along_z[:, None, None] * (along_y[:, None] * along_x[:width])
        self._band[:, :, y : y + height, x : x + width].addcmul_(logits[..., :width], weight)

    def close(self, slab: int, band: Sequence[int]) -> Part:
        """End with a band.

        Parameters
        ----------
        slab : int
        band : sequence of int

        Returns
        -------
        Part
            What is finished.
        """
        plane, first = self._tiles.origins[0][slab], self._tiles.origins[1][band[0]]
        planes, rows = self._finished(0, slab), self._ends[1][band[-1]] - first
        if self._kept is not None and slab + 1 < len(self._ends[0]):
            deep = self._tiles.size[0] - planes
            self._kept[:, :deep, first : first + rows] = self._band[:, planes:, :rows]
        return Part(plane, first, self._band[:, :planes, :rows])


def _move_to_start(sums: Tensor, length: int, axis: int) -> None:
    """Move the last so many planes or rows to the start."""
    last = sums.narrow(axis, sums.shape[axis] - length, length)
    apart = 2 * length <= sums.shape[axis]
    sums.narrow(axis, 0, length).copy_(last if apart else last.clone())
