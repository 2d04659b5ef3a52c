"""How often each class occurs, and how much a voxel of it should therefore weigh."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from napari_unetvnet.errors import DataProblem, SettingsProblem
from napari_unetvnet.images.arrays import parts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Rule", "class_weights", "count_values"]

Rule = Literal["inverse_frequency", "effective_number"]
SLAB_VOXELS = 1 << 23
"""Labels are read in boxes of at most so many voxels."""


def count_values(labels: Any) -> Counter[int]:
    """Count how often each label value occurs.

    Parameters
    ----------
    labels : array of shape (Z, Y, X) or (1, Z, Y, X), integers or truth values
        Numpy, memory-mapped, dask, zarr: read by slicing only, in boxes of whole chunks that are never larger than
        8 million voxels.

    Returns
    -------
    Counter of int
        Value to number of voxels, 0 included if it occurs.

    Raises
    ------
    DataProblem
        If the array has another shape or holds no integers.
    """
    if len(labels.shape) not in {3, 4} or math.prod(labels.shape[:-3]) != 1:
        raise DataProblem(f"Labels have the shape {tuple(labels.shape)}; give (Z, Y, X) or (1, Z, Y, X).")
    if np.dtype(labels.dtype).kind not in "bui":
        raise DataProblem(f"Labels of type {labels.dtype} cannot be counted; give integers.")
    counts: Counter[int] = Counter()
    for cut in parts(labels, SLAB_VOXELS):
        counts.update(_counted(np.asarray(labels[(..., *cut)])))
    return counts


def _counted(part: NDArray[Any]) -> dict[int, int]:
    """Count by a table, which is much faster than sorting, unless the values lie too far apart for one."""
    low, high = int(part.min()), int(part.max())
    if high - low >= max(1 << 20, 4 * part.size):
        values, counts = np.unique(part, return_counts=True)
        return dict(zip(values.tolist(), counts.tolist(), strict=True))
    # In the widest type of its kind the difference cannot wrap around.
    wide = part.astype(np.uint64 if part.dtype.kind == "u" else np.int64).ravel()
    table = np.bincount((wide - wide.dtype.type(low)).view(np.int64))
    return {low + place: int(table[place]) for place in np.flatnonzero(table).tolist()}


def class_weights(counts: Sequence[int], rule: Rule) -> tuple[float, ...]:
    """Weigh the classes so that rare ones are not lost among frequent ones.

    Parameters
    ----------
    counts : sequence of K int
        Labelled voxels of each class; unknown voxels are counted nowhere.
    rule : {"inverse_frequency", "effective_number"}
        * "inverse_frequency": all classes together weigh the same. For classes that are not very rare.
        * "effective_number": the same for rare classes, but frequent ones are weakened less.

    Returns
    -------
    tuple of K float
        Scaled such that the mean over all labelled voxels is 1. A class without voxels has 1.

    Raises
    ------
    DataProblem
        If a count is negative.
    SettingsProblem
        If there is no such rule.

    Notes
    -----
    With n_k voxels of class k, N of K classes that occur, inverse frequency is N / (K n_k). The effective number [1]_
    is (1 - beta^n_k) / (1 - beta) with beta = 1 - 1 / N, and the weight is inverse to it.

    References
    ----------
    .. [1] Cui et al. 2019, Class-balanced loss based on effective number of samples,
       https://doi.org/10.1109/CVPR.2019.00949

    Examples
    --------
    >>> class_weights([6, 2, 0], "inverse_frequency")
    (0.6666666666666666, 2.0, 1.0)
    """
    if rule not in get_args(Rule):
        raise SettingsProblem(f"There is no rule {rule!r} for class weights; choose {' or '.join(get_args(Rule))}.")
    if any(count < 0 for count in counts):
        raise DataProblem(f"The class counts {list(counts)} hold a negative number; count voxels.")
    total, present = sum(counts), sum(count > 0 for count in counts)
    if present < 2:
        return (1.0,) * len(counts)
    sizes = [float(count) for count in counts]
    if rule == "effective_number":  # without its factor 1 / (1 - beta), which the scaling takes out
        sizes = [-math.expm1(count * math.log1p(-1 / total)) for count in counts]
    raw = [1 / size if size else 0.0 for size in sizes]
    mean = sum(count * weight for count, weight in zip(counts, raw, strict=True)) / total
    return tuple(weight / mean if count else 1.0 for count, weight in zip(counts, raw, strict=True))
