"""What every target maker accepts: labels (Z, Y, X), channels (K, Z, Y, X), a mask of known voxels, three lengths."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.errors import DataProblem, SettingsProblem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["check_channels", "check_known", "check_labels", "check_lengths"]


def check_labels(labels: NDArray[Any], what: str) -> None:
    """Refuse what are no labels.

    Parameters
    ----------
    labels : array of shape (Z, Y, X), integers or truth values, at least 0
    what : str
        What they are called in the message.

    Raises
    ------
    DataProblem
        If the array has another number of axes, is empty, or holds floats or negative numbers.
    """
    _check_axes(labels, 3, what, "(Z, Y, X)")
    if labels.dtype.kind not in "bui":
        raise DataProblem(f"{what} of type {labels.dtype} are no labels; give integers, such as from astype('int32').")
    if labels.dtype.kind == "i" and labels.min() < 0:
        raise DataProblem(f"{what} hold the value {labels.min()}; number them from 1 and let 0 mean nothing.")


def check_channels(channels: NDArray[Any]) -> None:
    """Refuse what are no channels.

    Parameters
    ----------
    channels : array of shape (K, Z, Y, X)

    Raises
    ------
    DataProblem
        If the array has another number of axes, is empty or holds no numbers.
    """
    _check_axes(channels, 4, "Channels", "(K, Z, Y, X)")
    if channels.dtype.kind not in "buif":
        raise DataProblem(f"Channels of type {channels.dtype} are no numbers; give values from 0 to 1.")


def check_known(known: NDArray[Any] | None, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Give the mask of known voxels, everything where none is given.

    Parameters
    ----------
    known : array of bool of shape (Z, Y, X), or None
    shape : tuple of int
        The shape that it must have.

    Returns
    -------
    array of bool, shape (Z, Y, X)
        A view that cannot be written to if ``known`` is None.

    Raises
    ------
    DataProblem
        If the mask has another shape or holds anything but truth values.
    """
    if known is None:
        return np.broadcast_to(np.True_, shape)
    if known.shape != shape or known.dtype != np.bool_:
        raise DataProblem(
            f"The mask of known voxels is {known.dtype} of shape {known.shape}; give bool of shape {shape}, "
            "True where a voxel is labelled."
        )
    return known


def check_lengths(lengths: float | Sequence[float], what: str, least: float) -> tuple[float, float, float]:
    """Give a length for each axis.

    Parameters
    ----------
    lengths : float or 3 float
        One for all axes, or z, y, x.
    what : str
        What they are called in the message.
    least : float
        They must be finite and not below it.

    Returns
    -------
    tuple of 3 float

    Raises
    ------
    SettingsProblem
        If there are not three, or one is out of range.
    """
    given = tuple(map(float, lengths)) if np.iterable(lengths) else (float(lengths),) * 3
    if len(given) != 3 or not all(math.isfinite(length) and length >= least for length in given):
        bound = "at least 0" if least == 0 else "above 0"
        raise SettingsProblem(f"{what} is {lengths!r}; give one finite number {bound}, or three of them for z, y, x.")
    z, y, x = given
    return z, y, x


def _check_axes(array: NDArray[Any], axes: int, what: str, expected: str) -> None:
    if array.ndim != axes or 0 in array.shape:
        hint = " (Z = 1 for a 2D image)" if array.ndim < axes else ""
        raise DataProblem(f"{what} have the shape {array.shape}; give {expected} with at least one voxel{hint}.")
