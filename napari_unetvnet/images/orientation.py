"""Turn arrays to the canonical axes, on which x grows to the right, y to the front and z upwards, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["canonical", "orientation_of", "original_axes", "resized_affine"]

IDENTITY = np.array([[0, 1], [1, 1], [2, 1]], float)


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


def resized_affine(affine: NDArray[np.float64], shape: Sequence[int], new: Sequence[int]) -> NDArray[np.float64]:
    """Give the affine after resizing: both grids cover the same extent.

    Parameters
    ----------
    affine : array of shape (4, 4)
    shape, new : 3 int
        Voxels z, y, x before and after.

    Returns
    -------
    array of shape (4, 4)
    """
    factors = np.array([n / m for n, m in zip(shape[::-1], new[::-1], strict=True)])
    step = np.eye(4)
    step[:3, :3], step[:3, 3] = np.diag(factors), (factors - 1) / 2
    return affine @ step


def _turned(array: NDArray[Any], orientation: NDArray[np.float64]) -> NDArray[Any]:
    from nibabel.orientations import apply_orientation

    return np.ascontiguousarray(np.asarray(apply_orientation(array.T, orientation)).T)
