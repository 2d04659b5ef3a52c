"""How often each class occurs, and how much a voxel of it should therefore weigh."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, get_args

from napari_unetvnet.errors import DataProblem, SettingsProblem

if TYPE_CHECKING:
    from collections.abc import Sequence


__all__ = ["Rule", "class_weights"]

Rule = Literal["inverse_frequency", "effective_number"]


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
