"""The 48 symmetries of a cube, rotations and reflections: an axis order, then mirrored axes."""

from __future__ import annotations

from itertools import permutations, product
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CubePermutation", "cube_permutations", "inverse", "permute"]


class CubePermutation(NamedTuple):
    """A new order of the axes z, y, x (0, 1, 2), and which axes are mirrored after that."""

    order: tuple[int, ...] = (0, 1, 2)
    mirrored: tuple[int, ...] = ()


def cube_permutations() -> tuple[CubePermutation, ...]:
    """Give all 48 symmetries, the identity first."""
    return tuple(
        CubePermutation(order, tuple(axis for axis in range(3) if flags[axis]))
        for order in permutations(range(3))
        for flags in product((False, True), repeat=3)
    )


def permute(volume: Tensor, permutation: CubePermutation) -> Tensor:
    """Turn and mirror the last three axes.

    Parameters
    ----------
    volume : Tensor of shape (..., Z, Y, X)

    Returns
    -------
    Tensor
        Axis i has the length that axis ``order[i]`` had.
    """
    leading = volume.ndim - 3
    ordered = volume.permute(*range(leading), *(leading + axis for axis in permutation.order))
    return ordered.flip([leading + axis for axis in permutation.mirrored])


def inverse(permutation: CubePermutation) -> CubePermutation:
    """Give the inverse of a permutation."""
    order, mirrored = permutation
    return CubePermutation(
        tuple(order.index(axis) for axis in range(3)), tuple(sorted(order[axis] for axis in mirrored))
    )
