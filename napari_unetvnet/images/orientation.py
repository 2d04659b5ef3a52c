"""Turn arrays to the canonical axes, on which x grows to the right, y to the front and z upwards, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["IDENTITY", "canonical", "orientation_of", "original_axes"]

IDENTITY = np.array([[0, 1], [1, 1], [2, 1]], float)
"""The orientation of axes that are the canonical ones."""


def orientation_of(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the orientation of an affine as nibabel does: for x, y, z the canonical axis and its direction, (3, 2)."""
    from nibabel.orientations import io_orientation

    return np.asarray(io_orientation(affine), np.float64)


def canonical(
    array: NDArray[Any], affine: NDArray[np.float64], orientation: NDArray[np.float64]
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Turn an array (C, Z, Y, X) to the canonical axes, with the affine that belongs to the result."""
    from nibabel.orientations import inv_ornt_aff

    turned = _turned(array, orientation)
    return turned, affine @ inv_ornt_aff(orientation, array.shape[:0:-1])


def original_axes(array: NDArray[Any], orientation: NDArray[np.float64]) -> NDArray[Any]:
    """Turn an array (C, Z, Y, X) from the canonical axes to those of an orientation."""
    from nibabel.orientations import ornt_transform

    return _turned(array, ornt_transform(IDENTITY, orientation))


def _turned(array: NDArray[Any], orientation: NDArray[np.float64]) -> NDArray[Any]:
    from nibabel.orientations import apply_orientation

    return np.ascontiguousarray(np.asarray(apply_orientation(array.T, orientation)).T)
