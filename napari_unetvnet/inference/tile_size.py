"""The largest tile for a memory budget, including its sums and its slab.

Larger tiles overlap less, and with instance norm the labels depend less on where tiles lie. The budget is a fraction of
the machine's memory, not of its free memory, so that a repeated run gives the same labels.
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
CPU_BUDGET, MEMORY_SHARE = GIB, 0.25
"""Fraction of the memory, on a CPU at most 1 GiB: there, larger tiles are not faster."""
FLOAT = 4


def largest_tile(model: Model, shape: Triple, settings: SegmentSettings) -> Triple:
    """Give the largest tile that fits the memory budget.

    Parameters
    ----------
    shape : tuple of 3 int
        Voxels z, y, x of the volume.

    Returns
    -------
    tuple of 3 int
        Not larger than the volume, and not smaller than the training patch, even if that exceeds the budget. Tiles of
        this size cover each axis without more overlap than the settings ask for.
    """
    tile = (min(settings.batch, shape[0]) if model.card.dims == 2 else shape[0], *shape[1:])
    patch = (tile[0], *model.card.patch[1:]) if model.card.dims == 2 else model.card.patch
    least = tuple(min(a, b) for a, b in zip(patch, tile, strict=True))
    budget = _budget(settings, model.device)

    def cost(tile: Triple) -> tuple[float, int]:
        return _memory(model, tile, shape, settings), max(tile)

    while tile != least and cost(tile)[0] > budget:
        shorter = [max(a, _shorter(n, b, settings.overlap)) for a, b, n in zip(least, tile, shape, strict=True)]
        # Shorten the axis that saves most. Sorted, because the order of a set must not decide between equal costs.
        z, y, x = tile
        candidates = {(shorter[0], y, x), (z, shorter[1], x), (z, y, shorter[2])} - {tile}
        tile = min(sorted(candidates), key=cost)
    return tile


def _shorter(length: int, edge: int, overlap: float) -> int:
    """Give the longest shorter edge with which tiles cover an axis without more overlap than asked for."""
    count = 2
    while edge > 1 and _edge(length, count, overlap) >= edge:
        count += 1
    return min(edge, _edge(length, count, overlap))


def _edge(length: int, count: int, overlap: float) -> int:
    """Give the shortest edge with which ``count`` tiles cover an axis."""
    edge = ceil(length / (1 + (count - 1) * (1 - overlap)))
    while edge < length and (count - 1) * max(1, int(edge * (1 - overlap))) + edge < length:
        edge += 1
    return edge


def _memory(model: Model, tile: Triple, shape: Triple, settings: SegmentSettings) -> float:
    """Estimate the bytes for a tile in the network, the sums, the slabs that are read, and the results."""
    deep, high, wide = model.fit(tile)
    margins = [before + after for before, after in model.margin]
    planar = model.card.dims == 2
    inputs = prod(n + m for n, m in zip((deep, high, wide), (0 if planar else margins[0], *margins[1:]), strict=True))
    carried = 0 if planar or deep >= shape[0] else ceil(deep * settings.overlap)
    sums = model.outputs * shape[2] * (deep * high + carried * shape[1])
    slab = 2 * model.card.channels * (deep + margins[0]) * shape[1] * shape[2]
    batch = 1 if planar else settings.batch
    # Results are in main memory: one slab is written while the next one is computed, and a chunk of the file is filled.
    result_bytes = 0 if model.device.type == "cuda" else settings.result_bytes(len(model.card.values))
    results = (2 * deep + (0 if planar else min(CHUNK_PLANES, shape[0]))) * shape[1] * shape[2]
    return batch * inputs * model.voxel_bytes + FLOAT * (sums + slab) + result_bytes * results


def _budget(settings: SegmentSettings, device: torch.device) -> float:
    """Give the memory budget in bytes."""
    if settings.tile_memory:
        return settings.tile_memory * GIB
    if device.type == "cuda":
        return MEMORY_SHARE * torch.cuda.get_device_properties(device).total_memory
    import psutil

    return min(CPU_BUDGET, MEMORY_SHARE * psutil.virtual_memory().total)
