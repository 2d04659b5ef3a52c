"""Spatial augmentation without interpolation: mirroring, permuted axes, shifts."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.data.augment.recipes import AXES
from napari_unetvnet.data.targets import TARGET_MAPS
from napari_unetvnet.model.symmetry import CubePermutation, permute

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from torch import Tensor

    from napari_unetvnet.data.augment.recipes import Recipe

__all__ = ["move", "shifted"]


def move(
    images: Tensor,
    target: Tensor,
    maps: Mapping[str, Tensor],
    recipe: Recipe,
    rng: np.random.Generator,
    strength: float,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Mirror, permute axes and shift, patch by patch.

    Parameters
    ----------
    images, target, maps
        As for `augment`.
    strength : float in [0, 1]

    Returns
    -------
    images, target, maps
        Copies.
    """
    permutations = _permutations(len(images), recipe, rng, strength)
    images, target = _permuted(images, permutations), _permuted(target, permutations)
    maps = {name: _permuted(values, permutations) for name, values in maps.items()}
    rows, shares = recipe.shift.draw(rng, len(images), strength)
    for row, share in zip(rows, shares, strict=True):
        if AXES.index("x") in permutations[row].mirrored:
            continue
        voxels = int(target.shape[-2] * share)
        images[row] = shifted(images[row], voxels)
        target[row] = shifted(target[row], voxels, IGNORE)
        for name, values in maps.items():
            values[row] = shifted(values[row], voxels, TARGET_MAPS[name].outside)
    return images, target, maps


def shifted(patch: Tensor, voxels: int, outside: float | None = None) -> Tensor:
    """Shift along y.

    Parameters
    ----------
    patch : Tensor of shape (..., Y, X)
    voxels : int
        Upwards, towards the first row; downwards if negative.
    outside : float or None
        Fill value; None mirrors the patch at its edge.

    Returns
    -------
    Tensor
    """
    height = patch.shape[-2]
    rows = torch.arange(height, device=patch.device) + voxels
    last = height - 1
    inside = rows.clamp(0, last)
    mirrored = (2 * inside - rows - (rows < 0).long() + (rows > last).long()).clamp(0, last)
    moved = patch.index_select(-2, mirrored)
    return moved if outside is None else moved.masked_fill((rows != inside)[:, None], outside)


def _permutations(count: int, recipe: Recipe, rng: np.random.Generator, strength: float) -> list[CubePermutation]:
    """Draw an axis order and mirrored axes for each patch."""
    axes = [AXES.index(axis) for axis in recipe.mirror]
    flags = rng.random((count, len(axes))) < 0.5
    mirrored = [tuple(axis for axis, flag in zip(axes, row, strict=True) if flag) for row in flags]
    if not recipe.exchange:
        return [CubePermutation(mirrored=flips) for flips in mirrored]
    places = [AXES.index(axis) for axis in recipe.exchange]
    orders = []
    for group in itertools.permutations(places):
        order = list(range(3))
        for place, axis in zip(places, group, strict=True):
            order[place] = axis
        orders.append(tuple(order))
    # The first order is the identity.
    indices = rng.integers(len(orders), size=count) * (rng.random(count) < strength)
    return [CubePermutation(orders[k], flips) for k, flips in zip(indices, mirrored, strict=True)]


def _permuted(batch: Tensor, permutations: list[CubePermutation]) -> Tensor:
    return torch.stack([permute(item, permutation) for item, permutation in zip(batch, permutations, strict=True)])
