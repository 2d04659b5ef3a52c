"""Where the voxels of an image lie: voxel size, unit, position and direction, carried from a file or layer to results.

A geometry follows its image: a crop, a resampled or a turned image has the geometry of its own voxels. What only one
format can say, such as the two forms of a NIfTI file, travels with it while the grid stays the same, and is written
back to a file of that format as it was.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from napari_unetvnet.conventions import Spacing, Triple

__all__ = ["UNKNOWN", "UNKNOWN_UNIT", "Geometry", "Grid", "spacing_of", "step_of_resize", "step_to"]

UNKNOWN_UNIT = "pixel"
LEAST, MOST, FARTHEST = 1e-12, 1e12, 1e18
"""Between these lie voxel sizes, and within this positions, in whatever unit."""


@dataclass(frozen=True, eq=False)
class Geometry:
    """Where the voxels of an image lie, as far as its file or layer says.

    Parameters
    ----------
    spacing : tuple of 3 float
        Voxel edge lengths (z, y, x) in ``unit``.
    unit : str
        "pixel" if unknown.
    affine : array of shape (4, 4) or None
        From voxel indices to positions, both in the order x, y, z, in ``unit``; None if no position is known.
    other_affine : array of shape (4, 4) or None
        A second one, where a file states two that differ, as the qform of a NIfTI file beside its sform.
    header : mapping of str to object
        What the file says of space beyond that, under the names of its format.
    """

    spacing: Spacing = (1.0, 1.0, 1.0)
    unit: str = UNKNOWN_UNIT
    affine: NDArray[np.float64] | None = None
    other_affine: NDArray[np.float64] | None = None
    header: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def upright(cls, spacing: Sequence[float], unit: str, origin: Sequence[float]) -> Geometry:
        """Make the geometry of voxels whose axes are those of space.

        Parameters
        ----------
        spacing, origin : 3 float
            Voxel size, and position of the first voxel, z, y, x, in the unit.

        Returns
        -------
        Geometry
        """
        affine = np.diag([*map(float, spacing[::-1]), 1.0])
        affine[:3, 3] = origin[::-1]
        z, y, x = map(float, spacing)
        return cls((z, y, x), unit, affine)

    @property
    def has_spacing(self) -> bool:
        """Whether a voxel size or unit is known."""
        return self.unit != UNKNOWN_UNIT or self.spacing != (1.0, 1.0, 1.0)

    @property
    def is_known(self) -> bool:
        """Whether anything is known."""
        return self.has_spacing or bool(self.affines) or bool(self.header)

    @property
    def affines(self) -> tuple[NDArray[np.float64], ...]:
        """All affines that the file states."""
        return tuple(each for each in (self.affine, self.other_affine) if each is not None)

    @property
    def origin(self) -> Spacing | None:
        """Position z, y, x of the first voxel if the axes of the voxels are those of space; None if not, or unknown."""
        if self.affine is None:
            return None
        x, y, z = (float(edge) for edge in self.affine[:3, 3])
        directions = self.affine[:3, :3] / self.spacing[::-1]
        return (z, y, x) if np.allclose(directions, np.eye(3), atol=1e-4) else None

    def fault(self, shape: Sequence[int]) -> str:
        """Say which of its numbers no image can have.

        Parameters
        ----------
        shape : 3 int
            Voxels z, y, x. Along an axis of one voxel its size does not count.

        Returns
        -------
        str
            Such as "states voxels of 9e+18 x 1 x 1 mm (z y x)"; empty if all are possible.
        """
        longer = [axis for axis, n in enumerate(shape) if n > 1]
        if not all(LEAST < self.spacing[axis] < MOST for axis in longer):
            return f"states voxels of {' x '.join(f'{size:.3g}' for size in self.spacing)} {self.unit} (z y x)"
        for affine in self.affines:
            columns = spacing_of(affine)
            is_near = np.isfinite(affine).all() and np.abs(affine[:3, 3]).max() < FARTHEST
            if not is_near or not all(LEAST < columns[axis] < MOST for axis in longer):
                numbers = " ".join(f"{number:.3g}" for number in affine[:3].ravel())
                return f"states an affine whose numbers are no places ({numbers})"
        return ""

    def completed(self, spacing: Spacing | None = None, unit: str | None = None) -> Geometry:
        """Fill in a voxel size and a unit where none are known."""
        known = self if self.has_spacing or spacing is None else replace(self, spacing=spacing)
        return known if known.unit != UNKNOWN_UNIT or unit is None else replace(known, unit=unit)

    def after(self, step: NDArray[np.float64]) -> Geometry:
        """Give the geometry of a grid that was cropped, resized, mirrored, or whose axes have another order.

        Parameters
        ----------
        step : array of shape (4, 4)
            From voxel indices of the new grid to those of this one, x, y, z. Each axis lies along one of the old ones.

        Returns
        -------
        Geometry
        """
        x, y, z = (np.abs(step[:3, :3]).T @ self.spacing[::-1]).tolist()
        affine, other = (None if each is None else each @ step for each in (self.affine, self.other_affine))
        return Geometry((z, y, x), self.unit, affine, other)

    def cropped(self, start: Sequence[int]) -> Geometry:
        """Give the geometry of a part that begins at a voxel z, y, x."""
        return self.after(step_to(start=start[::-1])) if any(start) else self

    def resized(self, shape: Sequence[int], new: Sequence[int]) -> Geometry:
        """Give the geometry after resizing from a shape z, y, x to another one of the same extent."""
        return self.after(step_of_resize(shape, new))

    def ordered(self, order: Triple) -> Geometry:
        """Give the geometry of an image whose axes z, y, x are these axes (0 to 2, z to x) of this one."""
        step = np.zeros((4, 4))
        step[3, 3] = 1
        for axis, old in enumerate(order):
            step[2 - old, 2 - axis] = 1
        return self.after(step)


UNKNOWN = Geometry()
"""Of a file that says nothing of space."""


class Grid(NamedTuple):
    """The voxels of an image: how many there are, z, y, x, and where they lie."""

    shape: Triple
    geometry: Geometry = UNKNOWN

    @property
    def spacing(self) -> Spacing:
        """Voxel edge lengths (z, y, x)."""
        return self.geometry.spacing

    @property
    def unit(self) -> str:
        """Unit of the voxel size."""
        return self.geometry.unit

    @property
    def has_spacing(self) -> bool:
        """Whether a voxel size or unit is known."""
        return self.geometry.has_spacing


def step_to(factors: ArrayLike = 1.0, start: ArrayLike = 0.0) -> NDArray[np.float64]:
    """Make the step of `Geometry.after` to voxels of other edge lengths, or from another first voxel.

    Parameters
    ----------
    factors, start : float or array of 3
        Edge lengths, and place of the first voxel, in voxels of the old grid, x, y, z.

    Returns
    -------
    array of shape (4, 4)
    """
    step = np.eye(4)
    step[:3, :3] *= np.broadcast_to(factors, 3)
    step[:3, 3] = start
    return step


def step_of_resize(shape: Sequence[int], new: Sequence[int]) -> NDArray[np.float64]:
    """Make the step of `Geometry.after` to another grid of the same extent.

    Parameters
    ----------
    shape, new : 3 int
        Voxels z, y, x before and after.

    Returns
    -------
    array of shape (4, 4)
    """
    factors = np.array([n / m for n, m in zip(shape[::-1], new[::-1], strict=True)])
    return step_to(factors, (factors - 1) / 2)


def spacing_of(affine: NDArray[np.float64]) -> Spacing:
    """Give the voxel size z, y, x that an affine (x, y, z) states."""
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0).tolist()
    return z, y, x
