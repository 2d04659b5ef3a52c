"""Read a volume slab by slab, run the network on its tiles, and blend what it says.

The weighted logits of all tiles are summed in float32. Scores exist for one tile depth only. The next slab is read in a
thread while the network works on one.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from napari_unetvnet.inference.ahead import ahead
from napari_unetvnet.inference.labels import background_logits, mean_logits
from napari_unetvnet.inference.tiles import plan_tiles
from napari_unetvnet.inference.turns import choose_turns, turned_logits, widest_margin
from napari_unetvnet.inference.uncertainty import with_variance
from napari_unetvnet.volume import check_finite, read_box

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.augment import CubePermutation
    from napari_unetvnet.inference.tiles import Place, Tiles
    from napari_unetvnet.inference.wanted import Wanted
    from napari_unetvnet.model import Margin, Model
    from napari_unetvnet.settings import SegmentSettings
    from napari_unetvnet.volume import Edge, Intensity, Volume

__all__ = ["read_block", "scores"]

Array = TypeVar("Array", Tensor, "NDArray[Any]")


def scores(
    model: Model,
    volume: Volume,
    settings: SegmentSettings,
    scale: Intensity,
    first_plane: int = 0,
    wanted: Wanted | None = None,
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
    wanted : Wanted, optional
        The part to be segmented (default: all); of the rest the logits mean nothing.

    Yields
    ------
    start : int
        First plane of the slab.
    logits : Tensor of shape (K, dz, Y, X), float32, on the model's device
        Where the settings ask for the variance over the turned tiles, (K + 1, dz, Y, X), and it is the last.
    """
    depth, height, width = volume.shape
    tiles = plan_tiles(model, volume.shape, settings)
    turns = choose_turns(model, tiles.size, volume.spacing, settings)
    varies = settings.uncertainty_kind == "variance"
    work = _Work(model, volume, scale, tiles, turns, wanted, settings.skip_constant, varies)
    tile_depth = tiles.size[0]
    sums = torch.zeros(model.card.outputs + varies, tile_depth, height, width, device=model.device)
    ends = [*tiles.origins[0][1:], depth]
    rows = [row for row, start in enumerate(tiles.origins[0]) if start + tile_depth > first_plane]
    with closing(ahead(work.read, rows)) as slabs:
        for slab in slabs:
            start, finished = tiles.origins[0][slab.row], ends[slab.row] - tiles.origins[0][slab.row]
            _add_row(work, slab, settings.batch, sums)
            del slab  # it may be large, and the next one is there already
            skip = min(max(first_plane - start, 0), finished)
            if skip < finished:
                yield start + skip, sums[:, skip:finished].clone()
            sums[:, : tile_depth - finished] = sums[:, finished:].clone()
            sums[:, tile_depth - finished :] = 0


def read_block(model: Model, volume: Volume, start: Sequence[int], stop: Sequence[int], margin: Margin) -> NDArray[Any]:
    """Read a block with a margin; beyond the image it is continued as the model's view wants it.

    Parameters
    ----------
    model : Model
    volume : Volume, data of shape (C, Z, Y, X)
    start, stop : 3 int
        Voxels z, y, x without the margin.
    margin : three pairs of int
        Voxels (before, after) on z, y, x.

    Returns
    -------
    array of shape (C, Z', Y', X')
        Raw intensities.
    """
    first = [a - before for a, (before, _) in zip(start, margin, strict=True)]
    behind = [b + after for b, (_, after) in zip(stop, margin, strict=True)]
    along_z: Edge = "reflect" if model.card.dims == 3 else "edge"
    raw = read_box(volume.data, first, behind, (along_z, "reflect", "reflect"))
    check_finite(raw, volume.name)
    return raw


@dataclass(frozen=True, eq=False)
class _Slab:
    """Its number, its image (C, Z', Y', X'), which of its tiles to run, and which to call empty."""

    row: int
    image: Tensor | None = None
    run: tuple[Place, ...] = ()
    empty: tuple[Place, ...] = ()


@dataclass(frozen=True, eq=False)
class _Work:
    """What is read, where tiles lie in it, and how the network sees them."""

    model: Model
    volume: Volume
    scale: Intensity
    tiles: Tiles
    turns: tuple[CubePermutation, ...]
    wanted: Wanted | None = None
    skip_constant: bool = False
    varies: bool = False

    @cached_property
    def margin(self) -> Margin:
        """Voxels (before, after) on z, y, x that tiles bring for all turns."""
        return widest_margin(self.model.margin, self.turns)

    @cached_property
    def windows(self) -> tuple[Tensor, ...]:
        """Weights of the tiles on z, y, x, on the model's device."""
        return tuple(torch.from_numpy(window).to(self.model.device) for window in self.tiles.windows)

    @cached_property
    def background(self) -> Tensor:
        """What tiles that are not computed say, (K, 1, 1, 1)."""
        logits = background_logits(self.model.card).to(self.model.device)
        return torch.cat([logits, torch.zeros_like(logits[:1])]) if self.varies else logits

    def read(self, row: int) -> _Slab:
        """Read and normalise one slab with the margins of its tiles, if anything in it is wanted."""
        places = self._places(row)
        if not places:
            return _Slab(row)
        tiles, z = self.tiles, self.tiles.origins[0][row]
        origins = (z, tiles.origins[1][0], tiles.origins[2][0])
        lasts = (z, tiles.origins[1][-1], tiles.origins[2][-1])
        ends = [last + n for last, n in zip(lasts, tiles.size, strict=True)]
        raw = read_block(self.model, self.volume, origins, ends, self.margin)
        empty = {place for place in places if _constant(self.cut(raw, place))} if self.skip_constant else set()
        image = torch.from_numpy(self.scale.apply(raw))
        run = tuple(place for place in places if place not in empty)
        return _Slab(row, image.pin_memory() if self.model.device.type == "cuda" else image, run, tuple(sorted(empty)))

    def _places(self, row: int) -> list[Place]:
        """Give the tiles of a slab in which anything is wanted."""
        tiles, wanted = self.tiles, self.wanted
        if wanted is None:
            return tiles.places
        depth, height, width = tiles.size
        z, ys, xs = tiles.origins[0][row], tiles.origins[1], tiles.origins[2]
        columns = wanted.columns(z, min(z + depth, self.volume.shape[0]))
        corners = {(i, j): (ys[i], xs[j]) for i, j in tiles.places}
        return [place for place, (y, x) in corners.items() if wanted.any_in(columns, (y, x), (y + height, x + width))]

    def cut(self, slab: Array, place: Place) -> Array:
        """Cut one tile with its margin out of the slab."""
        tiles, (_, along_y, along_x) = self.tiles, self.margin
        y = tiles.origins[1][place[0]] - tiles.origins[1][0]
        x = tiles.origins[2][place[1]] - tiles.origins[2][0]
        return slab[:, :, y : y + tiles.size[1] + sum(along_y), x : x + tiles.size[2] + sum(along_x)]

    def logits(self, blocks: Tensor) -> Tensor:
        """Run the network on tiles, in all turns."""
        found = (turned_logits(self.model, blocks, self.margin, turn) for turn in self.turns)
        if self.varies:
            return with_variance(found, self.model.card.head)
        return next(found) if len(self.turns) == 1 else mean_logits(found, self.model.card.head)


def _constant(block: NDArray[Any]) -> bool:
    """Whether each channel of a block (C, Z, Y, X) has the same value everywhere."""
    return all(bool((channel == channel.flat[0]).all()) for channel in block)


@torch.inference_mode()
def _add_row(work: _Work, slab: _Slab, batch: int, sums: Tensor) -> None:
    """Run the tiles of one slab and add their weighted logits to ``sums`` (K, tile depth, Y, X)."""
    if slab.image is None:
        return
    image = slab.image.to(sums.device, non_blocking=True)
    for first in range(0, len(slab.run), batch):
        chosen = slab.run[first : first + batch]
        blocks = torch.stack([work.cut(image, place) for place in chosen])
        for place, logits in zip(chosen, work.logits(blocks), strict=True):
            _add_tile(sums, logits, work, slab.row, place)
    for place in slab.empty:
        _add_tile(sums, work.background.expand(-1, *work.tiles.size), work, slab.row, place)


def _add_tile(sums: Tensor, logits: Tensor, work: _Work, row: int, place: Place) -> None:
    """Weigh one tile's logits (K, Z, Y, X) and add the part of them that lies in the image."""
    y, x = work.tiles.origins[1][place[0]], work.tiles.origins[2][place[1]]
    height = min(work.tiles.size[1], sums.shape[2] - y)
    width = min(work.tiles.size[2], sums.shape[3] - x)
    along_z, along_y, along_x = (windows[i] for windows, i in zip(work.windows, (row, *place), strict=True))
    weight = along_z[:, None, None] * along_y[:height, None] * along_x[:width]
    sums[:, :, y : y + height, x : x + width] += logits[:, :, :height, :width] * weight
