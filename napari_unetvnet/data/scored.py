"""What a score stands on, and the part of the hold-out that is scored after each epoch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.data.counts import cell_counts, class_mask
from napari_unetvnet.images.volume import Box
from napari_unetvnet.model.card import ScoredOn
from napari_unetvnet.postprocess.components import components

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.conventions import Triple
    from napari_unetvnet.data.patches import Region
    from napari_unetvnet.data.targets import Classes

__all__ = ["class_word", "representative_part", "scored_on"]

COUNTED_VOXELS = 1 << 26
"""Objects of a larger hold-out are not counted."""
LEAST_TILES = 4
LEAST_EDGE = 8
"""Voxels."""
AROUND = 8
"""Voxels read on each side of a tile, without which its score is too low (benchmarks/auto.md, scores of tiles)."""


def class_word(classes: Classes, k: int) -> str:
    """Give the name of a class, or its label value if classes have no names."""
    return classes.names[k] if len(classes.names) == len(classes) else str(classes.output_values[k])


def scored_on(hold_out: Sequence[Region], classes: Classes, objects: Sequence[int] | None = None) -> ScoredOn | None:
    """Count what the hold-out holds.

    Parameters
    ----------
    objects : sequence of int, optional
        Classes whose connected components are objects (default: the foreground).

    Returns
    -------
    ScoredOn or None
        None without a hold-out.
    """
    if not hold_out:
        return None
    counts = np.sum([region.class_counts for region in hold_out], axis=0)
    voxels = sum(int((_labelled(region.target)).sum()) for region in hold_out)
    countable = sum(math.prod(region.image.shape) for region in hold_out) <= COUNTED_VOXELS
    kinds = classes.foreground if objects is None else objects
    return ScoredOn(
        images=len({region.number for region in hold_out}),
        voxels=voxels,
        objects=sum(_objects(region.target, kinds) for region in hold_out) if countable else None,
        class_voxels={class_word(classes, k): int(counts[k]) for k in range(len(classes))},
    )


def _labelled(target: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return np.asarray((target.reshape(-1, *target.shape[-3:]) != IGNORE).any(axis=0))


def _objects(target: NDArray[np.uint8], classes: Sequence[int]) -> int:
    return sum(int(components(class_mask(target, k)).max()) for k in classes)


def representative_part(
    regions: Sequence[Region], classes: Classes, voxels: int, patch: Triple, seed: int, neighbours: int = 0
) -> list[Region]:
    """Choose tiles that represent the hold-out: each class in the same fraction, and none left out.

    Each comes with what is around it in the image, because the network will see that, too.

    Parameters
    ----------
    regions : sequence of Region
        The hold-out.
    voxels : int
        Approximate number of voxels, with those around.
    patch : tuple of 3 int
        Tiles have its proportions.
    seed : int
        Of equally good tiles, it draws one.
    neighbours : int
        Planes on each side that a 2.5D network sees.

    Returns
    -------
    list of Region
        The regions themselves if they are small enough.
    """
    if sum(math.prod(region.image.shape) for region in regions) <= voxels:
        return list(regions)
    numbers = [*range(len(classes)), *([len(classes)] if classes.multilabel else [])]
    planar = patch[0] == 1
    around = (0 if planar else AROUND, AROUND, AROUND)
    tile = _tile(patch, around, voxels // max(LEAST_TILES, 2 * len(classes)))
    boxes, counts, sizes = [], [], []
    for i, region in enumerate(regions):
        edges = [_edges(n, length) for n, length in zip(region.image.shape, tile, strict=True)]
        cells = cell_counts(region.target, Box((0, 0, 0), region.image.shape), edges, numbers)
        for z, y, x in np.argwhere(cells.any(axis=0)).tolist():
            ends = [(int(row[a]), int(row[a + 1])) for row, a in zip(edges, (z, y, x), strict=True)]
            (a, b, c), (d, e, f) = zip(*ends, strict=True)
            boxes.append((i, Box((a, b, c), (d, e, f))))
            counts.append(cells[:, z, y, x])
            # Planes beside one of a 2.5D network are read, but nothing is computed for them.
            sizes.append(math.prod(map(min, _with(around, boxes[-1][1]), region.image.shape)))
    chosen = _representative(np.array(counts), np.array(sizes), voxels, np.random.default_rng([seed, 0x5C0E]))
    reach = (neighbours if planar else AROUND, *around[1:])
    return [_tile_of(regions[i], box, reach) for i, box in (boxes[number] for number in sorted(chosen))]


def _tile_of(region: Region, box: Box, reach: Triple) -> Region:
    return region if box.shape == region.image.shape else region.block(box, _with(reach, box))


def _with(reach: Triple, box: Box) -> Triple:
    """Give the shape of a box with what is around it."""
    z, y, x = (n + 2 * beside for n, beside in zip(box.shape, reach, strict=True))
    return z, y, x


def _tile(patch: Triple, around: Triple, voxels: int) -> Triple:
    """Give the shape of a tile that has, with what is around it, about the proportions of a patch."""
    axes = sum(n > 1 for n in patch) or 1
    factor = (voxels / math.prod(patch)) ** (1 / axes)
    edges = zip(patch, around, strict=True)
    z, y, x = (n if n == 1 else max(min(n, LEAST_EDGE), int(n * factor) - 2 * beside) for n, beside in edges)
    return z, y, x


def _edges(length: int, tile: int) -> NDArray[np.int64]:
    """Divide an axis into equal tiles that are at most as long as wanted."""
    return np.linspace(0, length, -(-length // tile) + 1).round().astype(np.int64)


def _representative(
    counts: NDArray[np.int64], sizes: NDArray[np.int64], voxels: int, rng: np.random.Generator
) -> list[int]:
    """Choose tiles: first one for each class, the rarest first, then such that all classes get equal fractions."""
    present = counts.any(axis=0)
    fractions = counts[:, present] / counts[:, present].sum(axis=0)
    order = rng.permutation(len(fractions))
    chosen: list[int] = []
    share = voxels / sizes.sum()
    for k in np.argsort((fractions > 0).sum(axis=0), kind="stable"):
        if not fractions[chosen, k].any():
            held = fractions[order, k]
            # A tile with about as much of the class as the part has of the whole.
            able = order[held > 0]
            chosen.append(int(able[np.abs(held[held > 0] - share).argmin()]))
    while len(chosen) < len(sizes) and sizes[chosen].sum() < voxels:
        rest = order[~np.isin(order, chosen)]
        wanted = (sizes[chosen].sum() + sizes[rest]) / sizes.sum()
        distance = ((fractions[chosen].sum(axis=0) + fractions[rest] - wanted[:, None]) ** 2).sum(axis=1)
        best = int(rest[distance.argmin()])
        if sizes[chosen].sum() + sizes[best] > voxels:
            break
        chosen.append(best)
    return chosen
