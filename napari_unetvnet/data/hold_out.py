"""The hold-out: the block of an image that is never trained on but scores the model, and its record in the card."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from napari_unetvnet.data.counts import class_counts, labelled_along
from napari_unetvnet.images.volume import Box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.conventions import Triple

__all__ = [
    "LEAST_VOXELS",
    "Boxes",
    "block_to_score",
    "box_numbers",
    "boxes_from_numbers",
    "choose_block",
    "labels_needed",
    "margin_of",
    "margins",
]

Boxes = tuple[Box, Box]
LEAST_VOXELS = 10
"""Minimum labelled voxels of each class on both sides of a split."""
HOLD_OUT_PATCHES = 4
"""Maximum length of a held-out block on each axis, in patches."""


def box_numbers(boxes: Boxes | None) -> tuple[int, ...]:
    """Flatten the two boxes of a split for the card.

    Parameters
    ----------
    boxes : (Box, Box) or None

    Returns
    -------
    tuple of int
        Start and stop of the training box, start and stop of the hold-out; empty for None.
    """
    return () if boxes is None else (*boxes[0].start, *boxes[0].stop, *boxes[1].start, *boxes[1].stop)


def boxes_from_numbers(row: tuple[int, ...]) -> Boxes | None:
    """Restore the boxes from `box_numbers`.

    Returns
    -------
    (Box, Box) or None
        None unless there are 12 numbers.
    """
    if len(row) != 12:
        return None
    a, b, c, d = ((row[i], row[i + 1], row[i + 2]) for i in range(0, 12, 3))
    return Box(a, b), Box(c, d)


def choose_block(
    target: NDArray[np.uint8], share: float, patch: Triple, spacing: Sequence[float] = (1, 1, 1)
) -> Boxes | None:
    """Choose a block at one end of an axis with about a given fraction of the labels of each class.

    A margin as wide as a patch separates it from the training box and belongs to neither. The margin is narrower if it
    would leave less than half of the labels of any class for training.

    Parameters
    ----------
    target : array of uint8, shape (Z, Y, X) or (K, Z, Y, X)
        Class indices, or a channel for each class, and IGNORE.
    share : float
        Fraction of the labelled voxels.
    patch : tuple of 3 int
        Limits the length of the block: validating more takes longer and adds little.
    spacing : 3 float
        Voxel size z, y, x, for the margin of planar patches along z.

    Returns
    -------
    (train, hold_out) : tuple of Box, or None
        None if no block leaves enough labels of each class on both sides.
    """
    best: tuple[Boxes, int] | None = None
    best_score = 0.0
    shape = target.shape[-3:]
    total = class_counts(target)
    present = total > 0
    for axis, along in enumerate(labelled_along(target)):
        cumulative = along.cumsum()
        low = int(np.searchsorted(cumulative, share * cumulative[-1])) + 1
        high = int(np.searchsorted(cumulative, (1 - share) * cumulative[-1]))
        for split, at_end in ((low, False), (high, True)):
            if not 0 < split < shape[axis]:
                continue
            train, hold_out = _boxes(shape, axis, split, at_end=at_end)
            hold_out = _shorten(target, hold_out, patch)
            inside = class_counts(target[(..., *hold_out.slices)])[present]
            outside = class_counts(target[(..., *train.slices)])[present]
            if min(inside.min(), outside.min()) < LEAST_VOXELS:
                continue
            score = float(min((inside / total[present] / share).min(), (outside / total[present]).min()))
            if score > best_score:
                best, best_score = ((train, hold_out), axis), score
    return None if best is None else (_with_margin(target, *best, patch, spacing), best[0][1])


def margin_of(boxes: Boxes) -> int:
    """Give the voxels between the two boxes of a split.

    Parameters
    ----------
    boxes : (Box, Box)

    Returns
    -------
    int
    """
    train, hold_out = boxes
    gaps = zip(train.start, train.stop, hold_out.start, hold_out.stop, strict=True)
    return max(0, *(max(c - b, a - d) for a, b, c, d in gaps))


def margins(axis: int, patch: Triple, spacing: Sequence[float]) -> tuple[int, ...]:
    """Give the margins to try between training box and hold-out, from the width of a patch down.

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
    width = patch[axis]
    if axis == 0 and width == 1:  # planes look like their neighbours, however thin the patch
        width = round(min(patch[1] * spacing[1], patch[2] * spacing[2]) / spacing[0])
    return width, width // 2, width // 4, width // 8


def labels_needed(labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Give the minimum training voxels of each class that a margin must leave: half of them, and LEAST_VOXELS.

    Parameters
    ----------
    labels : array of int, shape (classes,)
        Training voxels without a margin.

    Returns
    -------
    array of float, shape (classes,)
    """
    return np.minimum(labels, np.maximum(LEAST_VOXELS, labels / 2))


def _with_margin(target: NDArray[np.uint8], boxes: Boxes, axis: int, patch: Triple, spacing: Sequence[float]) -> Box:
    """Shorten the training box beside the hold-out by the widest margin that leaves enough labels."""
    train, hold_out = boxes
    required = labels_needed(class_counts(target[(..., *train.slices)]))
    for margin in margins(axis, patch, spacing):
        start, stop = train.start[axis], train.stop[axis]
        if hold_out.start[axis] < start:
            start = max(start, hold_out.stop[axis] + margin)
        else:
            stop = min(stop, hold_out.start[axis] - margin)
        if start >= stop:
            continue
        shorter = Box(_replaced(train.start, axis, start), _replaced(train.stop, axis, stop))
        if (class_counts(target[(..., *shorter.slices)]) >= required).all():
            return shorter
    return train


def _boxes(shape: Sequence[int], axis: int, split: int, *, at_end: bool) -> tuple[Box, Box]:
    """Divide a shape in two along an axis; the second box is the hold-out."""
    size = (shape[0], shape[1], shape[2])
    lower = Box((0, 0, 0), _replaced(size, axis, split))
    upper = Box(_replaced((0, 0, 0), axis, split), size)
    return (lower, upper) if at_end else (upper, lower)


def _replaced(triple: Triple, axis: int, value: int) -> Triple:
    z, y, x = (value if i == axis else n for i, n in enumerate(triple))
    return z, y, x


def _shorten(target: NDArray[np.uint8], box: Box, patch: Triple) -> Box:
    """Crop a box to a few patches on each axis, where most labels are."""
    for axis in range(3):
        box = _most_labels(target, box, axis, max(HOLD_OUT_PATCHES * patch[axis], 16))
    return box


def _most_labels(target: NDArray[np.uint8], box: Box, axis: int, length: int) -> Box:
    """Crop a box to a length along an axis, where most labels are."""
    if box.shape[axis] <= length:
        return box
    along = labelled_along(target[(..., *box.slices)])[axis]
    sums = np.convolve(along, np.ones(length, np.int64), mode="valid")
    start = box.start[axis] + int(sums.argmax())
    return Box(_replaced(box.start, axis, start), _replaced(box.stop, axis, start + length))


def block_to_score(target: NDArray[np.uint8], voxels: int, patch: Triple) -> Box:
    """Choose a block with many labels that is cheap to score.

    Parameters
    ----------
    target : array of uint8, shape (Z, Y, X) or (K, Z, Y, X)
        Class indices, or a channel for each class, and IGNORE.
    voxels : int
        Approximate maximum size.
    patch : tuple of 3 int
        Minimum length on each axis.

    Returns
    -------
    Box
        The whole target if it is small enough.
    """
    z, y, x = target.shape[-3:]
    box = Box((0, 0, 0), (z, y, x))
    for axis in range(3):
        excess = np.prod(box.shape, dtype=float) / voxels
        if excess > 1:  # the remaining axes share the reduction equally
            length = max(patch[axis], math.ceil(box.shape[axis] / excess ** (1 / (3 - axis))))
            box = _most_labels(target, box, axis, length)
    return box
