"""Voxel scores by class: the confusion matrix, and scores from it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.metrics.counts import Pairs, check_images, count_pairs, mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray

__all__ = ["ConfusionMatrix", "Overlap", "confusion_matrix", "overlap"]

MOST_WRITTEN = 64


@dataclass(frozen=True)
class Overlap:
    """Overlap of one class; P are the voxels of the prediction, T those of the truth."""

    dice: float | None
    """2 |P and T| / (|P| + |T|); None where neither image has the class, but 1 for a region, as in BraTS."""
    iou: float | None
    """|P and T| / |P or T|; None, or 1 for a region, where neither image has it."""
    predicted: int
    """Voxels of the class in the prediction, |P|."""
    true: int
    """Voxels of the class in the truth, |T|."""
    precision: float | None
    """|P and T| / |P|; None if the prediction has none."""
    recall: float | None
    """|P and T| / |T|, the class accuracy; None if the truth has none."""


@dataclass(frozen=True)
class ConfusionMatrix:
    """The confusion matrix M[true, predicted].

    Stored sparsely, because there may be thousands of values.
    """

    pairs: Mapping[tuple[int, int], int]
    """Voxels by (true value, predicted value)."""

    @cached_property
    def predicted(self) -> Counter[int]:
        """Voxels of each value in the prediction: the sums of the columns."""
        sums: Counter[int] = Counter()
        for (_, value), count in self.pairs.items():
            sums[value] += count
        return sums

    @cached_property
    def true(self) -> Counter[int]:
        """Voxels of each value in the truth: the sums of the rows."""
        sums: Counter[int] = Counter()
        for (value, _), count in self.pairs.items():
            sums[value] += count
        return sums

    @cached_property
    def values(self) -> tuple[int, ...]:
        """All values of either image, sorted: the labels of rows and columns."""
        return tuple(sorted(self.predicted.keys() | self.true.keys()))

    @property
    def voxels(self) -> int:
        """Number of compared voxels."""
        return sum(self.pairs.values())

    @property
    def accuracy(self) -> float | None:
        """Fraction of the voxels with the correct value, the global accuracy; None without a voxel."""
        hits = sum(count for (true, predicted), count in self.pairs.items() if true == predicted)
        return hits / self.voxels if self.voxels else None

    @property
    def mean_accuracy(self) -> float | None:
        """Mean recall over the values that the truth has, background included."""
        return mean(self.overlap(value).recall for value in self.values)

    @property
    def mean_iou(self) -> float | None:
        """Mean IoU over the values that either image has, background included."""
        return mean(self.overlap(value).iou for value in self.values)

    @property
    def absent(self) -> tuple[int, ...]:
        """Predicted values that the truth does not have; not part of the mean accuracy."""
        return tuple(value for value in self.values if not self.true[value])

    def overlap(self, value: int, empty: float | None = None) -> Overlap:
        """Compute the scores of one value.

        Parameters
        ----------
        empty : float or None
            Dice and IoU if neither image has the value.

        Returns
        -------
        Overlap
        """
        common = self.pairs.get((value, value), 0)
        predicted, true = self.predicted[value], self.true[value]
        total = predicted + true
        return Overlap(
            dice=2 * common / total if total else empty,
            iou=common / (total - common) if total else empty,
            predicted=predicted,
            true=true,
            precision=common / predicted if predicted else None,
            recall=common / true if true else None,
        )

    def merged(self, is_member: Callable[[int], bool]) -> ConfusionMatrix:
        """Merge values into 1 and 0.

        Parameters
        ----------
        is_member : callable
            Whether a value becomes 1; all others become 0.

        Returns
        -------
        ConfusionMatrix
        """
        merged: Pairs = Counter()
        for (true, predicted), count in self.pairs.items():
            merged[int(is_member(true)), int(is_member(predicted))] += count
        return ConfusionMatrix(merged)

    def matrix(self) -> NDArray[np.int64]:
        """Give the dense matrix.

        Returns
        -------
        integer array of shape (K, K)
            Voxels by true value (row) and predicted value (column), both in the order of ``values``.
        """
        position = {value: index for index, value in enumerate(self.values)}
        matrix = np.zeros((len(position), len(position)), dtype=np.int64)
        for (true, predicted), count in self.pairs.items():
            matrix[position[true], position[predicted]] = count
        return matrix

    def as_dict(self) -> dict[str, Any]:
        """Values that JSON can hold; the dense matrix is None above 64 values."""
        return {
            "values": list(self.values),
            "matrix": self.matrix().tolist() if len(self.values) <= MOST_WRITTEN else None,
            "accuracy": self.accuracy,
            "mean_accuracy": self.mean_accuracy,
            "mean_iou": self.mean_iou,
            "absent": list(self.absent),
        }


def confusion_matrix(prediction: Any, truth: Any, ignore: int | None = None) -> ConfusionMatrix:
    """Compute the confusion matrix.

    Parameters
    ----------
    prediction, truth : integer arrays of one shape (..., Y, X)
        Label images; the same value means the same class. Read by slicing along the first axis only.
    ignore : int, optional
        Voxels where the truth has this value are left out.

    Returns
    -------
    ConfusionMatrix

    Raises
    ------
    DataProblem
        If the shapes differ or the values are not integers.
    """
    check_images(prediction, truth)
    return ConfusionMatrix(count_pairs(prediction, truth, ignore))


def overlap(
    prediction: Any, truth: Any, values: Iterable[int] | None = None, ignore: int | None = None
) -> dict[int, Overlap]:
    """Compute the overlap scores of each class.

    Parameters
    ----------
    prediction, truth : integer arrays of one shape (..., Y, X)
        Label images; the same value means the same class. Read by slicing along the first axis only.
    values : iterable of int, optional
        The classes to measure (default: all values of either image, sorted).
    ignore : int, optional
        Voxels where the truth has this value are left out.

    Returns
    -------
    dict of int to Overlap
        By class value, background included.

    Raises
    ------
    DataProblem
        If the shapes differ or the values are not integers.

    Notes
    -----
    With M[true, predicted], class accuracy (recall) is M_cc / row sum, IoU is M_cc / (row + column - M_cc) and Dice is
    2 M_cc / (row + column) [1]_ [2]_.

    References
    ----------
    .. [1] Long, Shelhamer, Darrell 2015, Fully convolutional networks, https://doi.org/10.1109/CVPR.2015.7298965
    .. [2] Dice 1945, Measures of the amount of ecologic association, https://doi.org/10.2307/1932409
    """
    counted = confusion_matrix(prediction, truth, ignore)
    measured = counted.values if values is None else [int(value) for value in values]
    return {value: counted.overlap(value) for value in measured}
