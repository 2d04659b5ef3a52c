"""Read a volume slab by slab, run the network on its tiles, and blend what it says.

The weighted logits of all tiles are summed in float32. Scores exist for one tile depth only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from napari_unetvnet.inference.labels import mean_logits
from napari_unetvnet.inference.tiles import plan_tiles
from napari_unetvnet.inference.turns import choose_turns, turned_logits, widest_margin
from napari_unetvnet.volume import check_finite, read_box

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_unetvnet.augment import CubePermutation
    from napari_unetvnet.inference.tiles import Place, Tiles
    from napari_unetvnet.model import Margin, Model
    from napari_unetvnet.settings import SegmentSettings
    from napari_unetvnet.volume import Edge, Intensity, Volume

__all__ = ["scores"]


def scores(
    model: Model, volume: Volume, settings: SegmentSettings, scale: Intensity, first_plane: int = 0
) -> Iterator[tuple[int, Tensor]]:
    """Give the blended logits of a volume slab by slab.

    Parameters
    ----------
    model : Model
        Its network must be in evaluation mode.
    volume : Volume, data of shape (C, Z, Y, X)
    settings : SegmentSettings
    scale : Intensity
        How to normalise the volume.
    first_plane : int
        Planes before it are left out.

    Yields
    ------
    start : int
        First plane of the slab.
    logits : Tensor of shape (K, dz, Y, X), float32, on the model's device
    """
    depth, height, width = volume.shape
    tiles = plan_tiles(model, volume.shape, settings)
    turns = choose_turns(model, tiles.size, volume.spacing, settings)
    work = _Work(model, volume, scale, tiles, turns)
    tile_depth = tiles.size[0]
    sums = torch.zeros(model.card.outputs, tile_depth, height, width, device=model.device)
    ends = [*tiles.origins[0][1:], depth]
    for row, (start, end) in enumerate(zip(tiles.origins[0], ends, strict=True)):
        if start + tile_depth <= first_plane:
            continue
        _add_row(work, row, settings.batch, sums)
        finished = end - start
        skip = min(max(first_plane - start, 0), finished)
        if skip < finished:
            yield start + skip, sums[:, skip:finished].clone()
        sums = sums.roll(-finished, dims=1)
        sums[:, tile_depth - finished :] = 0


@dataclass(frozen=True, eq=False)
class _Work:
    """What is read, where tiles lie in it, and how the network sees them."""

    model: Model
    volume: Volume
    scale: Intensity
    tiles: Tiles
    turns: tuple[CubePermutation, ...]

    @cached_property
    def margin(self) -> Margin:
        """Voxels (before, after) on z, y, x that tiles bring for all turns."""
        return widest_margin(self.model.margin, self.turns)

    def read(self, row: int) -> Tensor:
        """Read and normalise one slab with the margins of its tiles, shape (C, Z', Y', X')."""
        tiles, z = self.tiles, self.tiles.origins[0][row]
        origins = (z, tiles.origins[1][0], tiles.origins[2][0])
        lasts = (z, tiles.origins[1][-1], tiles.origins[2][-1])
        start = [o - before for o, (before, _) in zip(origins, self.margin, strict=True)]
        stop = [o + n + after for o, n, (_, after) in zip(lasts, tiles.size, self.margin, strict=True)]
        along_z: Edge = "reflect" if self.model.card.dims == 3 else "edge"
        raw = read_box(self.volume.data, start, stop, (along_z, "reflect", "reflect"))
        check_finite(raw, self.volume.name)
        return torch.from_numpy(self.scale.apply(raw)).to(self.model.device)

    def cut(self, slab: Tensor, place: Place) -> Tensor:
        """Cut one tile with its margin out of the slab."""
        tiles, (_, along_y, along_x) = self.tiles, self.margin
        y = tiles.origins[1][place[0]] - tiles.origins[1][0]
        x = tiles.origins[2][place[1]] - tiles.origins[2][0]
        return slab[:, :, y : y + tiles.size[1] + sum(along_y), x : x + tiles.size[2] + sum(along_x)]

    def logits(self, blocks: Tensor) -> Tensor:
        """Run the network on tiles, in all turns."""
        found = (turned_logits(self.model, blocks, self.margin, turn) for turn in self.turns)
        return next(found) if len(self.turns) == 1 else mean_logits(found, self.model.card.head)


@torch.inference_mode()
def _add_row(work: _Work, row: int, batch: int, sums: Tensor) -> None:
    """Run the tiles of one slab and add their weighted logits to ``sums`` (K, tile depth, Y, X)."""
    slab, places = work.read(row), work.tiles.places
    along_z = torch.from_numpy(work.tiles.windows[0][row]).to(sums.device)
    for first in range(0, len(places), batch):
        chosen = places[first : first + batch]
        blocks = torch.stack([work.cut(slab, place) for place in chosen])
        for place, logits in zip(chosen, work.logits(blocks), strict=True):
            _add_tile(sums, logits, work.tiles, place, along_z)


def _add_tile(sums: Tensor, logits: Tensor, tiles: Tiles, place: Place, along_z: Tensor) -> None:
    """Weigh one tile's logits (K, Z, Y, X) and add the part of them that lies in the image."""
    y, x = tiles.origins[1][place[0]], tiles.origins[2][place[1]]
    height = min(tiles.size[1], sums.shape[2] - y)
    width = min(tiles.size[2], sums.shape[3] - x)
    along_y = torch.from_numpy(tiles.windows[1][place[0]][:height]).to(sums.device)
    along_x = torch.from_numpy(tiles.windows[2][place[1]][:width]).to(sums.device)
    weight = along_z[:, None, None] * along_y[:, None] * along_x
    sums[:, :, y : y + height, x : x + width] += logits[:, :, :height, :width] * weight
