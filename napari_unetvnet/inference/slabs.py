"""Read a volume slab by slab, run the network on its tiles, and blend its logits.

The weighted logits of all tiles are summed in float32. The next slab is read in a thread while the network runs on the
present one. A slab keeps the file's number format until a tile is cut out of it.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from napari_unetvnet.errors import ModelProblem
from napari_unetvnet.images.volume import check_finite, read_box
from napari_unetvnet.inference.labels import background_logits, mean_logits
from napari_unetvnet.inference.orientations import choose_orientations, oriented_logits, widest_margin
from napari_unetvnet.inference.prefetch import prefetch
from napari_unetvnet.inference.sums import Part, TileSums
from napari_unetvnet.inference.tiles import plan_tiles
from napari_unetvnet.inference.uncertainty import with_variance

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.conventions import Edge
    from napari_unetvnet.images.intensity import Intensity
    from napari_unetvnet.images.volume import Volume
    from napari_unetvnet.inference.selection import Selection
    from napari_unetvnet.inference.tiles import Place, Tiles
    from napari_unetvnet.model.model import Margin, Model
    from napari_unetvnet.model.symmetry import CubePermutation
    from napari_unetvnet.settings import SegmentSettings

__all__ = ["parts", "read_block", "scores"]

Array = TypeVar("Array", Tensor, "NDArray[Any]")
DIRECT = ("uint8", "int8", "uint16", "int16", "float32")
"""Number formats that are copied to the device as they are; others are converted to float32 first."""


def scores(
    model: Model,
    volume: Volume,
    settings: SegmentSettings,
    scale: Intensity,
    first_plane: int = 0,
    selection: Selection | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Give the blended logits of a volume slab by slab.

    Parameters
    ----------
    model : Model
        Its network must be in evaluation mode.
    volume : Volume, data of shape (C, Z, Y, X)
    scale : Intensity
        How to normalise the volume.
    first_plane : int
        Planes before it are left out.
    selection : Selection, optional
        The part to segment (default: all); logits outside it are meaningless.

    Yields
    ------
    start : int
        First plane of the slab.
    logits : Tensor of shape (K, dz, Y, X), float32, on the model's device
        With ``uncertainty_kind`` "variance", (K + 1, dz, Y, X): the last is the variance over the orientations.
    """
    height, rows = volume.shape[1], []
    for part in parts(model, volume, settings, scale, first_plane, selection):
        rows.append(part.logits.clone())
        if part.row + part.logits.shape[2] == height:
            yield part.plane, rows[0] if len(rows) == 1 else torch.cat(rows, dim=2)
            rows = []


def parts(
    model: Model,
    volume: Volume,
    settings: SegmentSettings,
    scale: Intensity,
    first_plane: int = 0,
    selection: Selection | None = None,
) -> Iterator[Part]:
    """Give the blended logits of a volume as soon as they are finished, without a copy.

    Parameters
    ----------
    volume : Volume, data of shape (C, Z, Y, X)
    selection : Selection, optional
        All as for `scores`.

    Yields
    ------
    Part
        Some rows of some planes. In order: all rows of some planes before the next planes. Channels as for `scores`.
    """
    tiles = plan_tiles(model, volume.shape, settings)
    orientations = choose_orientations(model, tiles.size, volume.spacing, settings)
    work = _Work(model, volume, scale, tiles, orientations, settings, selection)
    sums = TileSums(tiles, volume.shape, model.outputs + work.varies, model.device)
    # A resumed run starts at the first slab that overlaps its planes, so that blending is the same as without the stop.
    numbers = [slab for slab, start in enumerate(tiles.origins[0]) if start + tiles.size[0] > first_plane]
    with closing(prefetch(work.read, numbers)) as slabs:
        for slab in slabs:
            slab = replace(slab, image=slab.image.to(model.device, non_blocking=True))
            for band in sums.bands:
                sums.open(slab.number, band)
                _add_band(work, slab, band, settings.batch, sums)
                plane, row, logits = sums.close(slab.number, band)
                skip = max(first_plane - plane, 0)
                if skip < logits.shape[1]:
                    yield Part(plane + skip, row, logits[:, skip:])
            del slab  # it may be large, and the next one is already in memory


def read_block(
    model: Model, volume: Volume, start: Sequence[int], stop: Sequence[int], margin: Margin, mirror: Edge = "reflect"
) -> NDArray[Any]:
    """Read a block with a margin, extended beyond the image as the model's view requires.

    Parameters
    ----------
    volume : Volume, data of shape (C, Z, Y, X)
    start, stop : 3 int
        Voxels z, y, x without the margin.
    margin : three pairs of int
        Voxels (before, after) on z, y, x.
    mirror : {"reflect", "symmetric"}
        How the image is extended. Along z, 2D networks repeat the border plane instead.

    Returns
    -------
    array of shape (C, Z', Y', X')
        Raw intensities.
    """
    low = [a - before for a, (before, _) in zip(start, margin, strict=True)]
    high = [b + after for b, (_, after) in zip(stop, margin, strict=True)]
    along_z: Edge = mirror if model.card.dims == 3 else "edge"
    raw = read_box(volume.data, low, high, (along_z, mirror, mirror))
    check_finite(raw, volume.name)
    return raw


@dataclass(frozen=True, eq=False)
class _Slab:
    """Its index on z, its raw image (C, Z', Y', X'), the tiles to run, and the constant tiles to skip."""

    number: int
    image: Tensor
    run: tuple[Place, ...] = ()
    skipped: tuple[Place, ...] = ()


@dataclass(frozen=True, eq=False)
class _Work:
    """A volume, its tiles, and the network to run on them."""

    model: Model
    volume: Volume
    scale: Intensity
    tiles: Tiles
    orientations: tuple[CubePermutation, ...]
    settings: SegmentSettings
    selection: Selection | None = None

    @cached_property
    def margin(self) -> Margin:
        """Voxels (before, after) on z, y, x around tiles, enough for all orientations."""
        return widest_margin(self.model.margin, self.orientations)

    @cached_property
    def background(self) -> Tensor:
        """Logits of a tile that is skipped, (K, Z, Y, X)."""
        logits = background_logits(self.model.card).to(self.model.device)
        logits = torch.cat([logits, torch.zeros_like(logits[:1])]) if self.varies else logits
        return logits.expand(-1, *self.tiles.size)

    @property
    def varies(self) -> bool:
        """Whether the variance over the orientations follows the logits as one more channel."""
        return self.settings.uncertainty_kind == "variance"

    @cached_property
    def measure(self) -> tuple[Tensor, Tensor]:
        """Shift and scale of each channel, (C, 1, 1, 1), on the model's device."""
        shift, scale = (
            torch.from_numpy(values).to(self.model.device) for values in (self.scale.shift, self.scale.scale)
        )
        return shift[:, None, None, None], scale[:, None, None, None]

    def read(self, number: int) -> _Slab:
        """Read one slab with the margins of its tiles; an empty slab if no tile is to be segmented."""
        places = self._places(number)
        if not places:
            return _Slab(number, torch.empty(0))
        tiles, z = self.tiles, self.tiles.origins[0][number]
        origins = (z, tiles.origins[1][0], tiles.origins[2][0])
        lasts = (z, tiles.origins[1][-1], tiles.origins[2][-1])
        ends = [last + n for last, n in zip(lasts, tiles.size, strict=True)]
        raw = read_block(self.model, self.volume, origins, ends, self.margin, self.settings.mirror_edge)
        skip = self.settings.skip_constant
        skipped = {place for place in places if _constant(self.cut(raw, place))} if skip else set()
        direct = raw.dtype.isnative and raw.dtype.name in DIRECT
        # Raw values are smaller to copy than float32; torch.from_numpy needs native, contiguous and writable arrays.
        image = torch.from_numpy(np.require(raw, None if direct else np.float32, ["C", "W"]))
        run = tuple(place for place in places if place not in skipped)
        on_cpu = self.model.device.type == "cpu"
        # Only pinned memory is copied to a GPU while the GPU computes.
        return _Slab(number, image if on_cpu else image.pin_memory(), run, tuple(sorted(skipped)))

    def _places(self, number: int) -> list[Place]:
        """Give the tiles of a slab that overlap the selection."""
        tiles, selection = self.tiles, self.selection
        if selection is None:
            return tiles.places
        depth, height, width = tiles.size
        z, ys, xs = tiles.origins[0][number], tiles.origins[1], tiles.origins[2]
        columns = selection.columns(z, min(z + depth, self.volume.shape[0]))
        corners = {(i, j): (ys[i], xs[j]) for i, j in tiles.places}
        return [
            place for place, (y, x) in corners.items() if selection.any_in(columns, (y, x), (y + height, x + width))
        ]

    def cut(self, slab: Array, place: Place) -> Array:
        """Cut one tile with its margin out of the slab."""
        tiles, (_, along_y, along_x) = self.tiles, self.margin
        y = tiles.origins[1][place[0]] - tiles.origins[1][0]
        x = tiles.origins[2][place[1]] - tiles.origins[2][0]
        return slab[:, :, y : y + tiles.size[1] + sum(along_y), x : x + tiles.size[2] + sum(along_x)]

    def blocks(self, slab: _Slab, places: Sequence[Place]) -> Tensor:
        """Cut tiles out of a slab and normalise them, (B, C, Z, Y, X)."""
        shift, scale = self.measure
        blocks = [torch.sub(self.cut(slab.image, place), shift).div_(scale) for place in places]
        blocks = [block.clamp_(0, 1) for block in blocks] if self.scale.clipped else blocks
        return blocks[0][None] if len(blocks) == 1 else torch.stack(blocks)

    def logits(self, blocks: Tensor) -> Tensor:
        """Run the network on tiles, in all orientations."""
        cascade = self.settings.cascade
        logits = (
            oriented_logits(self.model, blocks, self.margin, orientation, cascade=cascade)
            for orientation in self.orientations
        )
        if self.varies:
            return with_variance(logits, self.model.card.head)
        return next(logits) if len(self.orientations) == 1 else mean_logits(logits, self.model.card.head)


def _constant(block: NDArray[Any]) -> bool:
    """Whether each channel of a block (C, Z, Y, X) has the same value everywhere."""
    return all(bool((channel == channel.flat[0]).all()) for channel in block)


def _check_numbers(logits: Tensor, model: Model) -> None:
    """Refuse answers that are no numbers, which would become background without a word."""
    if bool(logits.sum().isfinite()):  # a sum takes less time than to look at each of them
        return
    advice = "choose precision fp32" if model.precision != "fp32" else "choose another model, or train it again"
    raise ModelProblem(
        f"The network {model.card.network} answers with NaN or infinity in {model.precision}, so nothing can be said "
        f"of these voxels; {advice}."
    )


@torch.inference_mode()
def _add_band(work: _Work, slab: _Slab, band: Sequence[int], batch: int, sums: TileSums) -> None:
    """Run some rows of the tiles of a slab and add their weighted logits."""
    run = [place for place in slab.run if place[0] in band]
    for start in range(0, len(run), batch):
        places = run[start : start + batch]
        batch_logits = work.logits(work.blocks(slab, places))
        _check_numbers(batch_logits, work.model)
        for place, logits in zip(places, batch_logits, strict=True):
            sums.add(logits, slab.number, place)
        del logits, batch_logits  # so that the next ones reuse their memory, which is still in the processor's cache
    for place in slab.skipped:
        if place[0] in band:
            sums.add(work.background, slab.number, place)
