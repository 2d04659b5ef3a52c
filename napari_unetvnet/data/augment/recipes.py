"""What is changed in patches, how often and how far."""

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
"""Voxels so many times longer along an axis than along the finest show nothing that could be turned that way."""
ELONGATED = 1.5
"""A patch so many times longer than wide loses too much of itself when it is turned by any angle."""


@dataclass(frozen=True)
class Change:
    """How often something is changed, and how far.

    Parameters
    ----------
    probability : float in [0, 1]
    low, high : float
        Values are drawn evenly between them, or evenly below and above ``neutral`` as often if that lies between.
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
        self, rng: np.random.Generator, count: int, strength: float, *each: int
    ) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Choose the items that are changed, and their values.

        Parameters
        ----------
        rng : numpy Generator
        count : int
            Items to choose from.
        strength : float in [0, 1]
            Scales the probability and the distance of the values from the neutral one.
        *each : int
            Shape of the values of one item.

        Returns
        -------
        items : array of int, shape (n,)
        values : array of float, shape (n, *each)
        """
        probability = self.probability * strength
        if probability <= 0:
            items = np.arange(0)
        elif probability >= 1:
            items = np.arange(count)
        else:
            items = np.flatnonzero(rng.random(count) < probability)
        return items, self._values(rng, (len(items), *each), strength)

    def _values(self, rng: np.random.Generator, shape: tuple[int, ...], strength: float) -> NDArray[np.float64]:
        if self.deviation:
            return rng.normal(self.neutral, self.deviation * strength, shape)
        if self.low < self.neutral < self.high:
            side = rng.uniform(-1, 1, shape)
            away = side * np.where(side < 0, self.neutral - self.low, self.high - self.neutral)
        else:
            away = rng.uniform(self.low, self.high, shape) - self.neutral
        return self.neutral + strength * away


NEVER = Change()


@dataclass(frozen=True)
class Recipe:
    """All changes of a patch, in the order in which they are made; nothing by default.

    Changes of space are drawn for each patch, changes of intensity for each patch and channel.

    Parameters
    ----------
    mirror : tuple of {"z", "y", "x"}
        Axes along which a patch is mirrored half of the time.
    exchange : tuple of {"z", "y", "x"}
        Axes that are put in any order; with all three and mirroring these are the 48 permutations of a cube.
    moving : tuple of {"z", "y", "x"}
        Axes that take part in rotation, scaling, bending, blur and low resolution.
    spacing : tuple of 3 float
        Voxel size z, y, x, in which angles are right.
    shift : Change
        By a share of the height along y, of patches that are not mirrored along x.
    rotation : Change
        Degrees, in each plane of two moving axes.
    scale : Change
        Magnification.
    elastic : Change
        Largest bend, as a share of the distance of its control points, a quarter of the patch; below 0.4 never folds.
    noise : Change
        Standard deviation, in normalised intensities.
    blur : Change
        Standard deviation, voxels.
    brightness : Change
        Factor of the intensities.
    offset : Change
        What is added to them.
    contrast : Change
        Factor of their distance from the mean; none passes the brightest and darkest.
    low_resolution : Change
        Factor of the number of voxels along an axis.
    inverted_gamma, gamma : Change
        Exponent, of the inverted intensities and of the intensities; mean and deviation are kept.
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
    """Fit a recipe to the data.

    Parameters
    ----------
    name : {"none", "light", "classic", "standard", "strong"}
        - light: mirroring in the plane, brightness and offset by about a tenth. For the first minutes.
        - classic: shift or flip, turns by up to 10 degrees, the permutations of a cube, intensities by a tenth.
        - standard: what nnU-Net does [1]_.
        - strong: more of it, offset, bending, and the permutations of a cube. For long trainings on few images.
    view : {"2d", "2.5d", "3d"}
        All but 3d keep to the plane.
    spacing : tuple of 3 float
        Voxel size z, y, x. Where voxels are three times as long along an axis as along the finest or more, nothing is
        turned, scaled, bent or blurred along it.
    mirror : collection of {"z", "y", "x"}
        Axes along which classes stay what they are when mirrored: without x where left is another class than right.
    patch : tuple of 3 int
        Voxels z, y, x of the target. Axes of equal length may be exchanged, so they must have equal margins too.

    Returns
    -------
    Recipe

    Notes
    -----
    Probabilities and ranges of standard are those of nnU-Net's second version. As there, a patch in the plane is turned
    by any angle, but by 15 degrees at most if it is elongated, or may not be mirrored along both axes, because half a
    turn is both mirrorings. Other than there, each channel is changed or not by itself, and low resolution averages.

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
    """Give the axes along which the voxels are short enough, of those that the view has."""
    lengths = {axis: s for axis, s in zip(AXES, spacing, strict=True) if view == "3d" or axis != "z"}
    return tuple(axis for axis, length in lengths.items() if length < COARSE * min(lengths.values()))


def _shift(shift: Change, view: str, mirror: tuple[Axis, ...]) -> Change:
    """Toss a coin between shift and mirroring along x, or between shift and nothing; volumes are not shifted."""
    if view == "3d":
        return NEVER
    return shift if "x" in mirror else replace(shift, probability=shift.probability / 2)


def _exchangeable(view: str, spacing: Spacing, mirror: tuple[Axis, ...], patch: Triple) -> tuple[Axis, ...]:
    """Give the axes that may change places: equally long, of equal spacing, and free to be mirrored."""
    free = [axis for axis in mirror if view == "3d" or axis != "z"]
    kinds = {axis: (n, float(f"{s:.2g}")) for axis, n, s in zip(AXES, patch, spacing, strict=True)}
    groups = [group for size in (3, 2) for group in combinations(free, size)]
    return next((group for group in groups if len({kinds[axis] for axis in group}) == 1), ())
