"""Labels are whole numbers of 0 or more: checked part by part, whatever type a file keeps them in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.arrays import new_array, parts
from napari_unetvnet.images.volume import check_finite

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["highest_label", "whole_numbers"]

TOLERANCE = 0.01  # how far from a whole number a label may be: NIfTI with a scale factor stores 1 as 1.004


def whole_numbers(values: Any, name: str) -> Any:
    """Check part by part that labels are whole numbers of 0 or more, and make them integers.

    Parameters
    ----------
    values : array of shape (..., Z, Y, X)
    name : str
        Of the file, for messages.

    Returns
    -------
    array of integers of the same shape
        What was given, if it holds integers.

    Raises
    ------
    DataProblem
        If they are not.
    """
    highest = highest_label(values, name)
    kind = np.dtype(values.dtype).kind
    if kind not in "bf":
        return values
    whole = new_array(values.shape, np.uint8 if kind == "b" else np.min_scalar_type(highest))
    for box in parts(values):
        part = np.asarray(values[(..., *box)])
        whole[(..., *box)] = np.rint(part) if kind == "f" else part
    return whole


def highest_label(values: Any, name: str) -> int:
    """Give the highest label, read part by part.

    Parameters
    ----------
    values : array of shape (..., Z, Y, X)
    name : str
        Of the file, for messages.

    Returns
    -------
    int

    Raises
    ------
    DataProblem
        If values are no labels.
    """
    return max(_highest(np.asarray(values[(..., *box)]), name) for box in parts(values))


def _highest(values: NDArray[Any], name: str) -> int:
    """Give the highest label, and refuse what are no labels."""
    check_finite(values, name)
    lowest = values.min()
    if lowest < (0 if values.dtype.kind != "f" else -0.5):
        raise DataProblem(
            f"{name}: labels hold negative values such as {lowest:g}; number classes and objects from 1; 0 is "
            "background or unpainted."
        )
    if values.dtype.kind != "f":
        return int(values.max())
    if float(values.max()) >= 2**53:
        raise DataProblem(f"{name}: labels hold values such as {values.max():g}; number classes and objects from 1.")
    rounded: NDArray[Any] = np.rint(values)
    if (fractional := np.abs(values - rounded) > TOLERANCE).any():
        raise DataProblem(
            f"{name}: labels hold fractional values such as {values[fractional][0]:.6g}, but a label is a whole "
            "number; soft or anti-aliased masks must be thresholded (for example at 0.5) and saved as integers."
        )
    return int(rounded.max())
