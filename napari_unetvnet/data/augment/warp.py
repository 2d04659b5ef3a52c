"""Rotation, scaling and elastic deformation in a single resampling.

Each voxel of a warped patch is sampled from a position in the original patch. Positions are in half patches from the
centre, as `grid_sample` expects. Images and targets have the same centre, so the places of a target are the
inner ones of its image.

Bends are free-form deformations: cubic B-splines of a few control points.

References
----------
.. [1] Rueckert et al. 1999, Nonrigid registration using free-form deformations, https://doi.org/10.1109/42.796284
"""

from __future__ import annotations

from functools import reduce
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.data.augment.recipes import AXES
from napari_unetvnet.data.targets import TARGET_MAPS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_unetvnet.data.augment.recipes import Axis, Recipe

__all__ = ["warp"]

SAMPLING = {"nearest": "nearest", "linear": "bilinear"}
"""What torch calls the interpolations of maps; in space, too."""
INTERVALS = 4
"""Number of control point intervals along a patch."""


def warp(
    images: Tensor,
    target: Tensor,
    maps: Mapping[str, Tensor],
    recipe: Recipe,
    rng: np.random.Generator,
    strength: float,
) -> None:
    """Rotate, scale and bend some patches, in place.

    Images are interpolated and mirrored at their border. Targets take the nearest voxel and are IGNORE outside; maps
    are treated as their rows of `TARGET_MAPS` say.

    Parameters
    ----------
    images, target, maps
        As for `augment`.
    strength : float in [0, 1]
    """
    # Without z, all planes of a patch are warped alike, as channels of one plane.
    axes = AXES if "z" in recipe.moving else AXES[1:]
    size = images.shape[-len(axes) :]
    rows, matrices, points = _draw((len(images), *size), axes, recipe, rng, strength)
    if not len(rows):
        return
    places = _places(size, torch.from_numpy(matrices).to(images))
    if points is not None:
        places += _bends(size, torch.from_numpy(points).to(images))
    images[rows] = _interpolated(images[rows], places)
    inner = _inner(places, target.shape[-len(axes) :])
    _resample(target, rows, inner, "nearest", IGNORE)
    for name, values in maps.items():
        row = TARGET_MAPS[name]
        factors = _enlargement(matrices, recipe).to(values) if row.lengths else None
        _resample(values, rows, inner, SAMPLING[row.interpolation], row.outside, factors)


def _draw(
    shape: tuple[int, ...], axes: tuple[Axis, ...], recipe: Recipe, rng: np.random.Generator, strength: float
) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64] | None]:
    """Draw the patches to warp, the matrix of each, and control points if any is deformed."""
    count, *size = shape
    planes = list(combinations([axes.index(axis) for axis in recipe.moving], 2))
    moves = np.array([axis in recipe.moving for axis in axes])
    turned, angles = recipe.rotation.draw(rng, count, strength, len(planes))
    scaled, factors = recipe.scale.draw(rng, count, strength)
    bent, bends = recipe.elastic.draw(rng, count, strength)
    matrices = np.broadcast_to(np.eye(len(axes)), (count, len(axes), len(axes))).copy()
    matrices[turned] = _rotations(np.radians(angles), planes, np.multiply(size, recipe.spacing[-len(axes) :]))
    matrices[scaled] /= np.where(moves, factors[:, None], 1)[:, None, :]
    rows = np.union1d(np.union1d(turned, scaled), bent).astype(np.intp)
    if not len(bent):
        return rows, matrices[rows], None
    # An axis that does not move needs only one control point.
    points = np.zeros((count, len(axes), *np.where(moves, INTERVALS + 3, 1)))
    largest = bends[:, None] * moves * 2 / INTERVALS
    points[bent] = rng.uniform(-1, 1, points[bent].shape) * largest.reshape(len(bent), len(axes), *[1] * len(axes))
    return rows, matrices[rows], points[rows]


def _rotations(
    angles: NDArray[np.float64], planes: Sequence[tuple[int, int]], lengths: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Give matrices that rotate a patch of these lengths, by an angle in each plane, one after the other."""
    rotations = np.broadcast_to(np.eye(len(lengths)), (len(angles), len(lengths), len(lengths)))
    for (a, b), angle in zip(planes, angles.T, strict=True):
        rotation = np.broadcast_to(np.eye(len(lengths)), rotations.shape).copy()
        rotation[:, a, a] = rotation[:, b, b] = np.cos(angle)
        rotation[:, a, b] = -np.sin(angle)
        rotation[:, b, a] = np.sin(angle)
        rotations = rotations @ rotation
    in_patches: NDArray[np.float64] = rotations * lengths / lengths[:, None]
    return in_patches


def _places(size: Sequence[int], matrices: Tensor) -> Tensor:
    """Give the position that each voxel is sampled from, (n, axes, ...), axes in the order x, y, z."""
    matrices = matrices.flip(1)
    places = matrices.new_zeros(())
    for axis, n in enumerate(size):
        line = (torch.arange(n, device=matrices.device, dtype=matrices.dtype) * 2 + 1) / n - 1
        shape = [n if i == axis else 1 for i in range(len(size))]
        places = places + matrices[..., axis].reshape(*matrices.shape[:2], *[1] * len(size)) * line.reshape(shape)
    return places


def _bends(size: Sequence[int], points: Tensor) -> Tensor:
    """Interpolate control points (n, axes, ...) to voxels, axes in the order x, y, z."""
    points = points.flip(1)
    for n in size:
        # Each pass replaces the first axis of control points by voxels, as the last axis.
        spline = _spline(n).to(points) if points.shape[2] > 1 else points.new_ones(n, 1)
        points = torch.tensordot(points, spline, ([2], [1]))
    return points


def _spline(voxels: int) -> Tensor:
    """Give the B-spline weights of the control points at each voxel, (voxels, INTERVALS + 3)."""
    place = (np.arange(voxels) + 0.5) / voxels * INTERVALS
    first = place.astype(int)
    f = place - first
    shares = np.stack([(1 - f) ** 3, 3 * f**3 - 6 * f**2 + 4, -3 * f**3 + 3 * f**2 + 3 * f + 1, f**3], axis=1) / 6
    basis = np.zeros((voxels, INTERVALS + 3))
    np.put_along_axis(basis, first[:, None] + np.arange(4), shares, axis=1)
    return torch.from_numpy(basis)


def _interpolated(images: Tensor, places: Tensor) -> Tensor:
    """Sample images (n, C, ...) by linear interpolation."""
    return _sample(images.reshape(len(images), -1, *places.shape[2:]), places, "bilinear", "reflection").view_as(images)


def _resample(
    values: Tensor,
    rows: NDArray[np.intp],
    places: Tensor,
    mode: str,
    missing: float,
    factors: Tensor | None = None,
) -> None:
    """Sample some patches of a target or a map, in place; voxels from outside get the value ``missing``."""
    outside = reduce(torch.logical_or, (along.abs() > 1 for along in places.unbind(1))).unsqueeze(1)
    patches = values[rows]
    sampled = _sample(patches.reshape(len(rows), -1, *places.shape[2:]).float(), places, mode, "border")
    if factors is not None:
        sampled *= factors.reshape(-1, *[1] * (sampled.ndim - 1))
    values[rows] = sampled.masked_fill_(outside, missing).view_as(patches).to(values.dtype)


def _enlargement(matrices: NDArray[np.float64], recipe: Recipe) -> Tensor:
    """Give the factor by which lengths in each patch grow; rotations have none, and bends are not counted."""
    # A matrix maps places of the new patch to the old one, so an enlarged patch has a determinant below 1.
    return torch.from_numpy(np.abs(np.linalg.det(matrices)) ** (-1 / len(recipe.moving)))


def _inner(places: Tensor, size: Sequence[int]) -> Tensor:
    """Crop the margin, and convert to half patches of the target."""
    full = places.shape[2:]
    if full == size:
        return places
    for axis, n in enumerate(size, start=2):
        places = places.narrow(axis, (places.shape[axis] - n) // 2, n)
    factors = [n_full / n for n_full, n in zip(full, size, strict=True)]
    return torch.stack([part * factor for part, factor in zip(places.unbind(1), reversed(factors), strict=True)], dim=1)


def _sample(flat: Tensor, places: Tensor, mode: str, border: str) -> Tensor:
    return functional.grid_sample(flat, places.movedim(1, -1), mode=mode, padding_mode=border, align_corners=False)
