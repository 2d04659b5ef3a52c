"""The blocks of an image that are never trained on but score the model, and the margin beside them.

A block lies where it holds about the same fraction of each class: anywhere in the image. Where no single block does,
the classes that it lacks get blocks of their own, cut through what is labelled of them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from napari_unetvnet.data.boxes import grown, subtract
from napari_unetvnet.data.counts import cell_counts, class_counts, class_mask
from napari_unetvnet.images.arrays import parts
from napari_unetvnet.images.volume import Box

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.conventions import Triple

__all__ = ["LEAST_VOXELS", "choose_blocks", "labels_needed", "margins", "with_margins"]

LEAST_VOXELS = 10
"""Labelled voxels of a class that suffice on a side of a split."""
HOLD_OUT_PATCHES = 4
"""Maximum length of a held-out block on each axis, in patches: validating more takes longer and adds little."""
MOST_BLOCKS = 16
"""Of an image."""
CELLS_OF_PLANE, CELLS_OF_VOLUME = 40, 16
"""Blocks begin and end at a grid of so many cells on each axis."""
LENGTHS = (1, 0.7, 0.5, 0.35, 0.25, 0.18, 0.12, 0.08, 0.05, 0)
"""Lengths of blocks to try, as fractions of the searched box; at least one cell."""
LABELS_BESIDE, OF_EACH_CLASS = 0.12, 0.8
"""Maximum fraction of all labels that margins may take, and minimum fraction of each class that they must leave."""


def choose_blocks(
    target: NDArray[np.uint8],
    share: float,
    patch: Triple,
    spacing: Sequence[float] = (1, 1, 1),
    wanted: Sequence[int] | None = None,
) -> list[Box]:
    """Choose blocks with about a given fraction of the labels of each class.

    Parameters
    ----------
    target : array of uint8, shape (Z, Y, X) or (K, Z, Y, X)
        Class indices, or a channel for each class, and IGNORE.
    share : float
        Fraction of the labelled voxels.
    patch : tuple of 3 int
        Limits the length of a block.
    spacing : 3 float
        Voxel size z, y, x.
    wanted : sequence of int, optional
        Indices of the classes that must be in the blocks if possible (default: all).

    Returns
    -------
    list of Box
        They do not overlap. Empty if no class can be on both sides: none has two voxels.
    """
    search = _Search(target, share, patch, spacing)
    z, y, x = target.shape[-3:]
    wanted = [k for k in (search.classes if wanted is None else wanted) if search.divisible(k)]
    if not wanted:
        return []
    search.add(Box((0, 0, 0), (z, y, x)), wanted)
    for k in sorted(wanted, key=search.count):
        if len(search.blocks) < MOST_BLOCKS and not search.has(k):
            search.add(_extent(target, k), [k])
    return search.blocks


class _Search:
    """Blocks of an image, chosen one after the other.

    Parameters
    ----------
    target, share, patch, spacing
        As for `choose_blocks`.
    """

    def __init__(self, target: NDArray[np.uint8], share: float, patch: Triple, spacing: Sequence[float]) -> None:
        total = class_counts(target)
        self.blocks: list[Box] = []
        self.classes: list[int] = np.flatnonzero(total).tolist()
        self._target, self._share = target, share
        self._total = total[self.classes]
        self._held_out = np.zeros(len(self.classes), np.int64)
        self._need = np.maximum(np.minimum(LEAST_VOXELS, self._total // 4), np.ceil(share * self._total / 4))
        self._limit = [max(HOLD_OUT_PATCHES * p, 16) for p in patch]
        self._margin = [-(-width // 8) for width in _margin_widths(patch, spacing)]

    def count(self, k: int) -> int:
        """Voxels of a class."""
        return int(self._total[self.classes.index(k)])

    def divisible(self, k: int) -> bool:
        """Whether a class can be on both sides."""
        return k in self.classes and self.count(k) > 1

    def has(self, k: int) -> bool:
        """Whether the blocks hold enough of a class."""
        place = self.classes.index(k)
        return bool(self._held_out[place] >= self._need[place])

    def add(self, box: Box, wanted: Sequence[int]) -> None:
        """Add the best block in a box, if any holds a wanted class and leaves enough of every class."""
        cells = CELLS_OF_PLANE if self._target.shape[-3] == 1 else CELLS_OF_VOLUME
        ends = zip(box.start, box.stop, strict=True)
        edges = [np.unique(np.linspace(a, b, min(b - a, cells) + 1).round().astype(np.int64)) for a, b in ends]
        counts = self._counts(box, edges)
        here = np.flatnonzero(counts.any(axis=(1, 2, 3)))
        rows = [row for row, i in enumerate(here) if self.classes[i] in wanted]
        best, best_value = None, 1.0
        for lengths, inside in _blocks(_sums(counts[here]), self._lengths(edges)):
            value = self._values(inside, here, rows) - self._margin_share(edges, lengths)
            place = np.unravel_index(int(value.argmax()), value.shape)
            if value[place] > best_value:
                best, best_value = (place, lengths), float(value[place])
        if best is not None:
            corners = [(int(row[i]), int(row[i + n])) for row, i, n in zip(edges, *best, strict=True)]
            (a, b, c), (d, e, f) = zip(*corners, strict=True)
            self._hold_out(subtract([Box((a, b, c), (d, e, f))], self.blocks))

    def _hold_out(self, blocks: list[Box]) -> None:
        self.blocks += blocks
        for block in blocks:
            self._held_out += class_counts(self._target[(..., *block.slices)])[self.classes]

    def _counts(self, box: Box, edges: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
        """Count what is not held out yet in each cell, (classes, cells z, cells y, cells x)."""
        counts = cell_counts(self._target, box, edges, self.classes)
        for block in subtract([box], subtract([box], self.blocks)):
            counts -= cell_counts(self._target, block, edges, self.classes)
        return counts

    def _lengths(self, edges: Sequence[NDArray[np.int64]]) -> list[list[int]]:
        """Give the lengths of blocks to try on each axis, in cells."""
        rows = []
        for row, limit in zip(edges, self._limit, strict=True):
            most = max(1, int(np.searchsorted(row - row[0], limit, "right")) - 1)
            rows.append(sorted({min(most, max(1, round((len(row) - 1) * length))) for length in LENGTHS}))
        return rows

    def _values(self, inside: NDArray[np.int64], here: NDArray[np.int64], wanted: Sequence[int]) -> NDArray[np.float64]:
        """Rate a block at all positions: by the wanted classes that it adds, then by how equally it holds them.

        Parameters
        ----------
        inside : array of int, shape (classes, positions z, y, x)
            Voxels in the block.
        here : array of int
            Which classes these are.
        wanted : sequence of int
            Indices of ``here``.

        Returns
        -------
        array of float, shape (positions z, y, x)
            0 where too little of a class would be left.
        """
        before, need, total = (
            row[here].reshape(-1, 1, 1, 1) for row in (self._held_out, self._need, self._total.astype(float))
        )
        fraction = (inside + before) / total
        leaves = (1 - fraction >= 0.6 * (1 - self._share)).all(axis=0)
        new = ((inside + before >= need) & (inside > 0))[wanted]
        near = np.minimum(fraction / self._share, (1 - fraction) / (1 - self._share)).clip(0, 1)[wanted]
        rating: NDArray[np.float64] = new.sum(axis=0) + 0.4 * near.min(axis=0) + 0.4 * near.mean(axis=0)
        return np.where(leaves, rating, 0)

    def _margin_share(self, edges: Sequence[NDArray[np.int64]], lengths: Sequence[int]) -> NDArray[np.float64]:
        """Give the fraction of the image that a narrow margin around each position takes."""
        shape, wide, own = self._target.shape[-3:], [], []
        for row, length, margin, n in zip(edges, lengths, self._margin, shape, strict=True):
            start, stop = row[:-length], row[length:]
            own.append(stop - start)
            wide.append(np.minimum(stop + margin, n) - np.maximum(start - margin, 0))
        (a, b, c), (d, e, f) = wide, own
        product = np.multiply.outer
        taken: NDArray[np.float64] = (product(product(a, b), c) - product(product(d, e), f)) / math.prod(shape)
        return taken


def _sums(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sum all cells before each edge, (classes, edges z, edges y, edges x)."""
    sums = np.pad(counts, ((0, 0), (1, 0), (1, 0), (1, 0)))
    for axis in (1, 2, 3):
        np.cumsum(sums, axis=axis, out=sums)
    return sums


def _blocks(
    sums: NDArray[np.int64], lengths: Sequence[Sequence[int]]
) -> Iterator[tuple[tuple[int, ...], NDArray[np.int64]]]:
    """Give all shapes of a block with the voxels in it at all positions, from the sums before each edge."""
    if not lengths:
        yield (), sums
        return
    axis = sums.ndim - len(lengths)
    for length in lengths[0]:
        ends = np.arange(length, sums.shape[axis])
        inside = sums.take(ends, axis) - sums.take(ends - length, axis)
        for others, counts in _blocks(inside, lengths[1:]):
            yield (length, *others), counts


def _extent(target: NDArray[np.uint8], k: int) -> Box:
    """Give the smallest box around the voxels of a class."""
    along = [np.zeros(n, bool) for n in target.shape[-3:]]
    for box in parts(target):
        mask = class_mask(target[(..., *box)], k)
        for axis, row in enumerate(along):
            row[box[axis]] |= mask.any(axis=tuple(i for i in range(3) if i != axis))
    z, y, x = (np.flatnonzero(row) for row in along)
    return Box((int(z[0]), int(y[0]), int(x[0])), (int(z[-1]) + 1, int(y[-1]) + 1, int(x[-1]) + 1))


def _margin_widths(patch: Triple, spacing: Sequence[float]) -> Triple:
    """Give the width of the widest margin: that of a patch; of planes, as many as are as far apart as a patch is wide.

    Parameters
    ----------
    patch : tuple of 3 int
    spacing : 3 float
        Voxel size z, y, x.

    Returns
    -------
    tuple of 3 int
        Voxels z, y, x.
    """
    z = patch[0]
    if z == 1:  # planes look like their neighbours, however thin the patch
        z = round(min(patch[1] * spacing[1], patch[2] * spacing[2]) / spacing[0])
    return max(1, z), patch[1], patch[2]


def with_margins(
    target: NDArray[np.uint8], blocks: Sequence[Box], patch: Triple, spacing: Sequence[float] = (1, 1, 1)
) -> list[Box]:
    """Extend held-out blocks by margins that cost few labels: a patch, half of it, and so on down to 0.

    Parameters
    ----------
    target : array of uint8, shape (Z, Y, X) or (K, Z, Y, X)
    blocks : sequence of Box
        They do not overlap.
    patch : tuple of 3 int
    spacing : 3 float
        Voxel size z, y, x.

    Returns
    -------
    list of Box
        One for each block; they may overlap. Nothing in them is trained on.
    """
    z, y, x = target.shape[-3:]
    total = class_counts(target)
    trained = total - _counts(target, blocks)
    most, least = LABELS_BESIDE * total.sum(), OF_EACH_CLASS * trained
    barred: list[Box] = []
    for block in blocks:
        for divisor in (1, 2, 4, 8, 16, 0):
            widths = [width // divisor if divisor else 0 for width in _margin_widths(patch, spacing)]
            wide = grown(block, widths, (z, y, x))
            lost = _counts(target, subtract([wide], [*blocks, *barred]))
            if not divisor or (lost.sum() <= most and (trained - lost >= least).all()):
                trained, most = trained - lost, most - lost.sum()
                barred.append(wide)
                break
    return barred


def _counts(target: NDArray[np.uint8], boxes: Sequence[Box]) -> NDArray[np.int64]:
    return sum(
        (class_counts(target[(..., *box.slices)]) for box in boxes), np.zeros_like(class_counts(target[..., :1]))
    )


def margins(axis: int, patch: Triple, spacing: Sequence[float]) -> tuple[int, ...]:
    """Give the margins to try between the parts of a fold, from the width of a patch down.

    Parameters
    ----------
    patch : tuple of 3 int
    spacing : 3 float
        Voxel size z, y, x.

    Returns
    -------
    tuple of int
        Voxels.
    """
    width = _margin_widths(patch, spacing)[axis]
    return width, width // 2, width // 4, width // 8


def labels_needed(labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Give the minimum training voxels of each class that the margin of a fold must leave: half, and LEAST_VOXELS.

    Parameters
    ----------
    labels : array of int, shape (classes,)
        Training voxels without a margin.

    Returns
    -------
    array of float, shape (classes,)
    """
    return np.minimum(labels, np.maximum(LEAST_VOXELS, labels / 2))
