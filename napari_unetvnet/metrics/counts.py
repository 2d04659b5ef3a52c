"""Checks and counts for all metrics: comparable images, and the voxels of each pair of values."""

from __future__ import annotations

from collections import Counter
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.errors import DataProblem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

__all__ = ["Pairs", "check_images", "count_pairs", "mean", "slabs"]

Pairs = Counter[tuple[int, int]]
"""Number of voxels by (true value, predicted value)."""

SLAB_VOXELS = 1 << 22


def check_images(prediction: Any, truth: Any) -> None:
    """Refuse images that are not a pair of label images.

    Raises
    ------
    DataProblem
        If the shapes differ, there is no axis, or the values are not integers.
    """
    if tuple(prediction.shape) != tuple(truth.shape):
        raise DataProblem(
            f"The prediction has shape {tuple(prediction.shape)}, the truth {tuple(truth.shape)}; "
            "give two label images of the same shape, cropped or resampled if necessary."
        )
    if not truth.shape:
        raise DataProblem("A single number was given; a label image has at least one axis.")
    lines = [
        f"The {name} has values of type {image.dtype}, but labels must be integers; "
        "turn probabilities into labels first (such as scores > 0.5), or convert them to an integer type."
        for name, image in (("prediction", prediction), ("truth", truth))
        if np.dtype(image.dtype).kind not in "biu"
    ]
    if lines:
        raise DataProblem(*lines)


def slabs(shape: tuple[int, ...]) -> Iterator[slice]:
    """Divide an image along its first axis.

    Yields
    ------
    slice
        At most a few million voxels, but at least one plane.
    """
    length, *rest = shape
    step = max(1, SLAB_VOXELS // max(1, prod(rest)))
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


def count_pairs(prediction: Any, truth: Any, ignore: int | None) -> Pairs:
    """Count the voxels of each (true value, predicted value) where the truth is not ignored.

    Parameters
    ----------
    prediction, truth : integer arrays of one shape
        Read by slicing along the first axis only.
    ignore : int or None
        The value of the truth to leave out.

    Returns
    -------
    Counter of (int, int)
    """
    pairs: Pairs = Counter()
    for slab in slabs(truth.shape):
        part, true = (np.asarray(image[slab]).ravel() for image in (prediction, truth))
        keep = slice(None) if ignore is None else true != ignore
        pairs.update(_pairs_of_slab(part[keep], true[keep]))
    return pairs


def mean(scores: Iterable[float | None]) -> float | None:
    """Average the scores that are not None.

    Returns
    -------
    float or None
        None if all are None.
    """
    defined = [score for score in scores if score is not None]
    return sum(defined) / len(defined) if defined else None


def _pairs_of_slab(part: NDArray[Any], true: NDArray[Any]) -> dict[tuple[int, int], int]:
    """Count the pairs of two flat arrays (N,)."""
    if not part.size:
        return {}
    (true_values, true_index), (part_values, part_index) = _ranked(true), _ranked(part)
    codes, index = _ranked(true_index * len(part_values) + part_index)
    places = (divmod(code, len(part_values)) for code in codes)
    counts = np.bincount(index).tolist()
    return {(true_values[a], part_values[b]): count for (a, b), count in zip(places, counts, strict=True)}


def _ranked(values: NDArray[Any]) -> tuple[list[int], NDArray[np.intp]]:
    """Return the distinct values in rising order and, for each voxel (N,), the index of its value among them."""
    low, high = int(values.min()), int(values.max())
    if high - low >= max(1 << 20, 4 * values.size):  # the range is too large for a table
        distinct, index = np.unique(values, return_inverse=True)
        return distinct.tolist(), index.ravel()
    wide = values.astype(np.uint64 if values.dtype.kind == "u" else np.int64)
    offsets = (wide - wide.dtype.type(low)).astype(np.intp)
    present = np.bincount(offsets) > 0
    return [low + offset for offset in np.flatnonzero(present).tolist()], (np.cumsum(present) - 1)[offsets]
