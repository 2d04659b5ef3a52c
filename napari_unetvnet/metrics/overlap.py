"""How well the voxels of each class agree: the confusion matrix and what follows from it."""

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
    """How well the voxels of one class agree; P are those of the prediction, T those of the truth."""

    dice: float | None
    """2 |P and T| / (|P| + |T|); None where neither image has the class, but 1 for a region, as in BraTS."""
    iou: float | None
    """|P and T| / |P or T|; None, or 1 for a region, where neither image has it."""
    predicted: int
    """Voxels of the class in the prediction, |P|."""
    true: int
    """Voxels of the class in the truth, |T|."""
    precision: float | None
    """|P and T| / |P|; None where the prediction has none."""
    recall: float | None
    """|P and T| / |T|, the class accuracy; None where the truth has none."""


@dataclass(frozen=True)
class ConfusionMatrix:
    """How often each true value was predicted as which value, M[true, predicted].

    It is kept as a table of the pairs that occur, because there may be thousands of values.
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
        """All values of either image, in rising order: what rows and columns stand for."""
        return tuple(sorted(self.predicted.keys() | self.true.keys()))

    @property
    def voxels(self) -> int:
        """How many voxels were compared."""
        return sum(self.pairs.values())

    @property
    def accuracy(self) -> float | None:
        """Share of the voxels that have the right value, the global accuracy; None without a voxel."""
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
        """Values that were predicted although the truth has none of them; the mean accuracy leaves them out."""
        return tuple(value for value in self.values if not self.true[value])

    def overlap(self, value: int, empty: float | None = None) -> Overlap:
        """Measure how well one value agrees.

        Parameters
        ----------
        value : int
        empty : float or None
            Dice and IoU where neither image has the value.

        Returns
        -------
        Overlap
        """
        common = self.pairs.get((value, value), 0)
        predicted, true = self.predicted[value], self.true[value]
        both = predicted + true
        return Overlap(
            dice=2 * common / both if both else empty,
            iou=common / (both - common) if both else empty,
            predicted=predicted,
            true=true,
            precision=common / predicted if predicted else None,
            recall=common / true if true else None,
        )

    def merged(self, is_member: Callable[[int], bool]) -> ConfusionMatrix:
        """Take some values together.

        Parameters
        ----------
        is_member : callable
            Says of a value whether it becomes 1; all others become 0.

        Returns
        -------
        ConfusionMatrix
        """
        merged: Pairs = Counter()
        for (true, predicted), count in self.pairs.items():
            merged[int(is_member(true)), int(is_member(predicted))] += count
        return ConfusionMatrix(merged)

    def matrix(self) -> NDArray[np.int64]:
        """Write the matrix out.

        Returns
        -------
        integer array of shape (K, K)
            Voxels by true value (row) and predicted value (column), both in the order of ``values``.
        """
        place = {value: index for index, value in enumerate(self.values)}
        matrix = np.zeros((len(place), len(place)), dtype=np.int64)
        for (true, predicted), count in self.pairs.items():
            matrix[place[true], place[predicted]] = count
        return matrix

    def as_dict(self) -> dict[str, Any]:
        """Plain values that JSON holds; the matrix itself is None above 64 values."""
        return {
            "values": list(self.values),
            "matrix": self.matrix().tolist() if len(self.values) <= MOST_WRITTEN else None,
            "accuracy": self.accuracy,
            "mean_accuracy": self.mean_accuracy,
            "mean_iou": self.mean_iou,
            "absent": list(self.absent),
        }


def confusion_matrix(prediction: Any, truth: Any, ignore: int | None = None) -> ConfusionMatrix:
    """Count which true value was predicted as which value.

    Parameters
    ----------
    prediction, truth : integer arrays of one shape (..., Y, X)
        Label images; the same value means the same class. Read by slicing along the first axis only.
    ignore : int, optional
        Voxels where the truth has this value are left out, whatever was predicted there.

    Returns
    -------
    ConfusionMatrix

    Raises
    ------
    DataProblem
        If the shapes differ or the values are no integers.
    """
    check_images(prediction, truth)
    return ConfusionMatrix(count_pairs(prediction, truth, ignore))


def overlap(
    prediction: Any, truth: Any, values: Iterable[int] | None = None, ignore: int | None = None
) -> dict[int, Overlap]:
    """Measure how well the voxels of each class agree.

    Parameters
    ----------
    prediction, truth : integer arrays of one shape (..., Y, X)
        Label images; the same value means the same class. Read by slicing along the first axis only.
    values : iterable of int, optional
        The classes to measure (default: all values found in either image, in rising order).
    ignore : int, optional
        Voxels where the truth has this value are left out, whatever was predicted there.

    Returns
    -------
    dict of int to Overlap
        By class value, background included.

    Raises
    ------
    DataProblem
        If the shapes differ or the values are no integers.

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
    wanted = counted.values if values is None else [int(value) for value in values]
    return {value: counted.overlap(value) for value in wanted}
