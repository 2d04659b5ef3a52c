"""How large a tile may be: the largest that a budget of memory holds, with all that its sums and its slab need.

Larger tiles overlap less, and what a network with instance norm says depends less on where they lie. The budget comes
from the machine and not from what is free on it, so that a run that is repeated gives the same labels.
"""

from __future__ import annotations

from math import ceil, prod
from typing import TYPE_CHECKING

import torch

from napari_unetvnet.images.formats.ome_zarr import CHUNK_PLANES

if TYPE_CHECKING:
    from napari_unetvnet.conventions import Triple
    from napari_unetvnet.model.model import Model
    from napari_unetvnet.settings import SegmentSettings

__all__ = ["largest_tile"]

GIB = 2**30
CPU_BUDGET, SHARE = GIB, 0.25
"""Of all memory a share, on a CPU at most so much: there, larger tiles are no faster."""
FLOAT = 4


def largest_tile(model: Model, shape: Triple, settings: SegmentSettings) -> Triple:
    """Give the largest tile that a budget of memory holds.

    Parameters
    ----------
    model : Model
    shape : tuple of 3 int
        Voxels z, y, x of the volume.
    settings : SegmentSettings

    Returns
    -------
    tuple of 3 int
        Not larger than the volume, and not smaller than the training patch, even if that does not fit. Along an axis
        tiles cover the volume without more overlap than is wanted.
    """
    tile = (min(settings.batch, shape[0]) if model.card.dims == 2 else shape[0], *shape[1:])
    patch = (tile[0], *model.card.patch[1:]) if model.card.dims == 2 else model.card.patch
    least = tuple(min(a, b) for a, b in zip(patch, tile, strict=True))
    budget = _budget(settings, model.device)

    def cost(tile: Triple) -> tuple[float, int]:
        return _needed(model, tile, shape, settings), max(tile)

    while tile != least and cost(tile)[0] > budget:
        shorter = [max(a, _shorter(n, b, settings.overlap)) for a, b, n in zip(least, tile, shape, strict=True)]
        z, y, x = tile
        tried = {(shorter[0], y, x), (z, shorter[1], x), (z, y, shorter[2])} - {tile}
        tile = min(sorted(tried), key=cost)
    return tile


def _shorter(length: int, edge: int, overlap: float) -> int:
    """Give the longest tiles that are shorter and cover an axis without more overlap than is wanted."""
    count = 2
    while edge > 1 and _edge(length, count, overlap) >= edge:
        count += 1
    return min(edge, _edge(length, count, overlap))


def _edge(length: int, count: int, overlap: float) -> int:
    """Give the shortest tiles of which so many cover an axis."""
    edge = ceil(length / (1 + (count - 1) * (1 - overlap)))
    while edge < length and (count - 1) * max(1, int(edge * (1 - overlap))) + edge < length:
        edge += 1
    return edge


def _needed(model: Model, tile: Triple, shape: Triple, settings: SegmentSettings) -> float:
    """Estimate the bytes for a tile in the network, for sums, for slabs that are read, and for what is made of them."""
    deep, high, wide = model.fit(tile)
    margins = [before + after for before, after in model.margin]
    planar = model.card.dims == 2
    seen = prod(n + m for n, m in zip((deep, high, wide), (0 if planar else margins[0], *margins[1:]), strict=True))
    carried = 0 if planar or deep >= shape[0] else ceil(deep * settings.overlap)
    sums = model.card.outputs * shape[2] * (deep * high + carried * shape[1])
    slab = 2 * model.card.channels * (deep + margins[0]) * shape[1] * shape[2]
    batch = 1 if planar else settings.batch
    # A GPU holds nothing of what is made; elsewhere one slab is written while the next one is made, and a chunk filled.
    each = 0 if model.device.type == "cuda" else settings.result_bytes(len(model.card.values))
    made = (2 * deep + (0 if planar else min(CHUNK_PLANES, shape[0]))) * shape[1] * shape[2]
    return batch * seen * model.voxel_bytes + FLOAT * (sums + slab) + each * made


def _budget(settings: SegmentSettings, device: torch.device) -> float:
    """Give the bytes that may be taken."""
    if settings.tile_memory:
        return settings.tile_memory * GIB
    if device.type == "cuda":
        return SHARE * torch.cuda.get_device_properties(device).total_memory
    import psutil

    return min(CPU_BUDGET, SHARE * psutil.virtual_memory().total)
