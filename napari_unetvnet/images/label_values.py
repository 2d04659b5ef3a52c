"""Check that labels of any type are non-negative integers, box by box."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.arrays import new_array, parts
from napari_unetvnet.images.volume import check_finite

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["highest_label", "whole_numbers"]

TOLERANCE = 0.01  # maximum distance from an integer: NIfTI with a scale factor stores 1 as 1.004


def whole_numbers(values: Any, name: str) -> Any:
    """Check box by box that labels are non-negative integers, and convert them to an integer type.

    Parameters
    ----------
    values : array of shape (..., Z, Y, X)
    name : str
        Name of the file, for messages.

    Returns
    -------
    array of integers of the same shape
        The same array, if its type is an integer type.

    Raises
    ------
    DataProblem
        If they are not labels.
    """
    highest = highest_label(values, name)
    kind = np.dtype(values.dtype).kind
    if kind not in "bf":
        return values
    integers = new_array(values.shape, np.uint8 if kind == "b" else np.min_scalar_type(highest))
    for box in parts(values):
        part = np.asarray(values[(..., *box)])
        integers[(..., *box)] = np.rint(part) if kind == "f" else part
    return integers


def highest_label(values: Any, name: str) -> int:
    """Give the highest label, read box by box.

    Parameters
    ----------
    values : array of shape (..., Z, Y, X)
    name : str
        Name of the file, for messages.

    Returns
    -------
    int

    Raises
    ------
    DataProblem
        If values are not labels.
    """
    found = [_highest(np.asarray(values[(..., *box)]), name) for box in parts(values)]
    highest, largest = max(each[0] for each in found), max(each[1] for each in found)
    if not highest and largest:
        raise DataProblem(
            f"{name}: labels have values from 0 to {largest:.3g} only, which all are next to 0; their file was scaled, "
            "so save them as integers."
        )
    return highest


def _highest(values: NDArray[Any], name: str) -> tuple[int, float]:
    """Give the highest label and the largest value, and refuse values that are not labels."""
    check_finite(values, name)
    lowest = values.min()
    if lowest < (0 if values.dtype.kind != "f" else -0.5):
        raise DataProblem(
            f"{name}: labels have negative values such as {lowest:g}; number classes and objects from 1; 0 is "
            "background or unpainted."
        )
    if values.dtype.kind != "f":
        return int(values.max()), float(values.max())
    if float(values.max()) >= 2**53:
        raise DataProblem(f"{name}: labels have values such as {values.max():g}; number classes and objects from 1.")
    rounded: NDArray[Any] = np.rint(values)
    if (fractional := np.abs(values - rounded) > TOLERANCE).any():
        raise DataProblem(
            f"{name}: labels have fractional values such as {values[fractional][0]:.6g}, but labels must be "
            "integers; soft or anti-aliased masks must be thresholded (for example at 0.5) and saved as integers."
        )
    return int(rounded.max()), float(values.max())
