"""Augmentation recipes: which changes, with which probabilities and ranges."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from napari_unetvnet.conventions import Spacing, Triple

__all__ = ["AXES", "LIGHT", "NOTHING", "RECIPES", "Axis", "Change", "Name", "Recipe", "recipe"]

Axis = Literal["z", "y", "x"]
Name = Literal["none", "light", "classic", "standard", "strong"]
AXES: tuple[Axis, ...] = get_args(Axis)
COARSE = 3
"""Axes with voxels this many times longer than the finest are not rotated, scaled, bent or blurred."""
ELONGATED = 1.5
"""A patch this many times longer than wide is not rotated by any angle, which would lose too much of it."""


@dataclass(frozen=True)
class Change:
    """Probability and range of a change.

    Parameters
    ----------
    probability : float in [0, 1]
    low, high : float
        Values are uniform between them; if ``neutral`` is between, below and above it with equal probability.
    neutral : float
        The value that changes nothing.
    deviation : float
        If above 0, values are drawn from a normal distribution about ``neutral`` instead.
    """

    probability: float = 0.0
    low: float = 0.0
    high: float = 0.0
    neutral: float = 0.0
    deviation: float = 0.0

    def draw(
        self, rng: np.random.Generator, count: int, strength: float, *shape: int
    ) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Draw the items to change, and their values.

        Parameters
        ----------
        count : int
            Number of items.
        strength : float in [0, 1]
            Scales the probability, and the distance of the values from ``neutral``.
        *shape : int
            Shape of the values of one item.

        Returns
        -------
        items : array of int, shape (n,)
        values : array of float, shape (n, *shape)
        """
        probability = self.probability * strength
        if probability <= 0:
            items = np.arange(0)
        elif probability >= 1:
            items = np.arange(count)
        else:
            items = np.flatnonzero(rng.random(count) < probability)
        return items, self._values(rng, (len(items), *shape), strength)

    def _values(self, rng: np.random.Generator, shape: tuple[int, ...], strength: float) -> NDArray[np.float64]:
        if self.deviation:
            return rng.normal(self.neutral, self.deviation * strength, shape)
        if self.low < self.neutral < self.high:
            side = rng.uniform(-1, 1, shape)
            offsets = side * np.where(side < 0, self.neutral - self.low, self.high - self.neutral)
        else:
            offsets = rng.uniform(self.low, self.high, shape) - self.neutral
        return self.neutral + strength * offsets


NEVER = Change()


@dataclass(frozen=True)
class Recipe:
    """All changes of a patch, in the order of their application; none by default.

    Spatial changes are drawn per patch, intensity changes per patch and channel.

    Parameters
    ----------
    mirror : tuple of {"z", "y", "x"}
        Axes that are mirrored with probability 0.5.
    exchange : tuple of {"z", "y", "x"}
        Axes that are permuted; with all three and mirroring, the 48 symmetries of a cube.
    moving : tuple of {"z", "y", "x"}
        Axes that take part in rotation, scaling, bending, blur and low resolution.
    spacing : tuple of 3 float
        Voxel size z, y, x, for rotations in physical space.
    shift : Change
        Along y, as a fraction of the height, for patches that are not mirrored along x.
    rotation : Change
        Degrees, in the plane of each two moving axes.
    scale : Change
        Magnification.
    elastic : Change
        Maximum displacement, as a fraction of the control point distance (a quarter of the patch); below 0.4, no folds.
    noise : Change
        Standard deviation, in normalised intensities.
    blur : Change
        Standard deviation, voxels.
    brightness : Change
        Factor of the intensities.
    offset : Change
        Added to the intensities.
    contrast : Change
        Factor of the distance from the mean; clipped to the range of the patch.
    low_resolution : Change
        Factor of the number of voxels along an axis.
    inverted_gamma, gamma : Change
        Exponent of the inverted, or original, intensities; mean and standard deviation are restored.
    """

    mirror: tuple[Axis, ...] = ()
    exchange: tuple[Axis, ...] = ()
    moving: tuple[Axis, ...] = AXES
    spacing: Spacing = (1.0, 1.0, 1.0)
    shift: Change = NEVER
    rotation: Change = NEVER
    scale: Change = NEVER
    elastic: Change = NEVER
    noise: Change = NEVER
    blur: Change = NEVER
    brightness: Change = NEVER
    offset: Change = NEVER
    contrast: Change = NEVER
    low_resolution: Change = NEVER
    inverted_gamma: Change = NEVER
    gamma: Change = NEVER


NOTHING = Recipe()


RECIPES: dict[Name, dict[str, Change]] = {
    "none": {},
    "light": {
        "brightness": Change(1, neutral=1, deviation=0.1),
        "offset": Change(1, deviation=0.1),
    },
    "classic": {
        "shift": Change(1, -0.15, 0.15),
        "rotation": Change(1, -10, 10),
        "brightness": Change(1, 0.9, 1.1, 1),
        "offset": Change(1, -0.1, 0.1),
    },
    "standard": {
        "rotation": Change(0.2, -30, 30),
        "scale": Change(0.2, 0.7, 1.4, 1),
        "noise": Change(0.1, 0, 0.1),
        "blur": Change(0.1, 0.5, 1),
        "brightness": Change(0.15, 0.75, 1.25, 1),
        "contrast": Change(0.15, 0.75, 1.25, 1),
        "low_resolution": Change(0.125, 0.5, 1, 1),
        "inverted_gamma": Change(0.1, 0.7, 1.5, 1),
        "gamma": Change(0.3, 0.7, 1.5, 1),
    },
    "strong": {
        "rotation": Change(0.5, -45, 45),
        "scale": Change(0.4, 0.6, 1.6, 1),
        "elastic": Change(0.3, 0.05, 0.25),
        "noise": Change(0.2, 0, 0.2),
        "blur": Change(0.2, 0.5, 1.5),
        "brightness": Change(0.3, 0.6, 1.4, 1),
        "offset": Change(0.3, -0.3, 0.3),
        "contrast": Change(0.3, 0.6, 1.5, 1),
        "low_resolution": Change(0.2, 0.4, 1, 1),
        "inverted_gamma": Change(0.15, 0.6, 1.7, 1),
        "gamma": Change(0.4, 0.6, 1.7, 1),
    },
}
"""The changes of each recipe; which axes they concern depends on the data."""

LIGHT = Recipe(("y", "x"), (), ("y", "x"), (1.0, 1.0, 1.0), **RECIPES["light"])


def recipe(
    name: Name, *, view: Literal["2d", "2.5d", "3d"], spacing: Spacing, mirror: Collection[Axis], patch: Triple
) -> Recipe:
    """Adapt a recipe to the data.

    Parameters
    ----------
    name : {"none", "light", "classic", "standard", "strong"}
        - light: mirroring in the plane, brightness and offset by about a tenth. For the first minutes.
        - classic: shift or flip, rotation by up to 10 degrees, symmetries of a cube, intensities by a tenth.
        - standard: as in nnU-Net [1]_.
        - strong: more of it, offset, elastic deformation, symmetries of a cube. For long trainings on few images.
    view : {"2d", "2.5d", "3d"}
        All but 3d stay in the plane.
    spacing : tuple of 3 float
        Voxel size z, y, x. An axis with voxels at least three times as long as the finest is not rotated, scaled, bent
        or blurred.
    mirror : collection of {"z", "y", "x"}
        Axes along which mirroring keeps classes valid: without x if left and right are different classes.
    patch : tuple of 3 int
        Voxels z, y, x of the target. Axes of equal length may be exchanged, so their margins must be equal, too.

    Returns
    -------
    Recipe

    Notes
    -----
    Probabilities and ranges of standard are those of nnU-Net v2. As there, a patch in the plane is rotated by any
    angle, but by at most 15 degrees if it is elongated or must not be mirrored along both axes, because a rotation by
    180 degrees mirrors both. Unlike there, channels are changed independently, and low resolution averages voxels.

    References
    ----------
    .. [1] Isensee et al. 2021, nnU-Net, https://doi.org/10.1038/s41592-020-01008-z
    """
    if name == "none":
        return NOTHING
    changes = dict(RECIPES[name])
    plane_only = view == "2d" or name == "light"
    mirrored = tuple(axis for axis in AXES if axis in mirror and not (plane_only and axis == "z"))
    moving = _moving(view, spacing)
    if name in {"standard", "strong"} and "z" not in moving:
        any_angle = {"y", "x"} <= set(mirrored) and max(patch[1:]) <= ELONGATED * min(patch[1:])
        limit = 180 if any_angle else 15
        changes["rotation"] = replace(changes["rotation"], low=-limit, high=limit)
    if name == "classic":
        changes["shift"] = _shift(changes["shift"], view, mirrored)
    exchange = _exchangeable(view, spacing, mirrored, patch) if name in {"classic", "strong"} else ()
    return Recipe(mirrored, exchange, moving, spacing, **changes)


def _moving(view: str, spacing: Spacing) -> tuple[Axis, ...]:
    """Give the axes of the view with short enough voxels."""
    lengths = {axis: s for axis, s in zip(AXES, spacing, strict=True) if view == "3d" or axis != "z"}
    return tuple(axis for axis, length in lengths.items() if length < COARSE * min(lengths.values()))


def _shift(shift: Change, view: str, mirror: tuple[Axis, ...]) -> Change:
    """Shift with probability 0.5, as an alternative to mirroring along x; volumes are not shifted."""
    if view == "3d":
        return NEVER
    return shift if "x" in mirror else replace(shift, probability=shift.probability / 2)


def _exchangeable(view: str, spacing: Spacing, mirror: tuple[Axis, ...], patch: Triple) -> tuple[Axis, ...]:
    """Give the axes that may be exchanged: of equal length and spacing, and mirrored."""
    free = [axis for axis in mirror if view == "3d" or axis != "z"]
    kinds = {axis: (n, float(f"{s:.2g}")) for axis, n, s in zip(AXES, patch, spacing, strict=True)}
    groups = [group for size in (3, 2) for group in combinations(free, size)]
    return next((group for group in groups if len({kinds[axis] for axis in group}) == 1), ())
