"""Augment a batch, and a patch for a preview."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_unetvnet.data.augment.intensity import change_intensities
from napari_unetvnet.data.augment.recipes import LIGHT, NOTHING, Recipe
from napari_unetvnet.data.augment.spatial import move
from napari_unetvnet.data.augment.warp import warp

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

__all__ = ["augment", "preview"]


@torch.no_grad()
def augment(
    images: Tensor,
    target: Tensor,
    maps: Mapping[str, Tensor],
    rng: np.random.Generator,
    recipe: Recipe = LIGHT,
    strength: float = 1.0,
) -> tuple[Tensor, Tensor, Mapping[str, Tensor]]:
    """Augment patches at random, labels consistently with images.

    Parameters
    ----------
    images : Tensor of float32, shape (B, C, Z + 2 mz, Y + 2 my, X + 2 mx)
        Normalised intensities, with a margin that is the same before and after.
    target : Tensor of shape (B, Z, Y, X) or (B, K, Z, Y, X)
        Any values that a float32 holds, and IGNORE.
    maps : mapping of str to Tensor of shape (B, Z, Y, X) or (B, C', Z, Y, X)
        By the names of `TARGET_MAPS`, whose rows say how they are resampled.
    rng : numpy Generator
        The only source of randomness. Noise is drawn on the device, from a seed of it.
    recipe : Recipe
        By default mirroring in the plane, and brightness and offset by about a tenth.
    strength : float in [0, 1]
        Scales probabilities and ranges. At 0 there is only mirroring.

    Returns
    -------
    images, target, maps
        Of the same shapes and types, on the same device. Where a patch was turned so far that its target shows what
        was outside of it, the target is IGNORE, and a map has the value that its row names.
    """
    if recipe == NOTHING:
        return images, target, maps
    images, target, maps = move(images, target, maps, recipe, rng, strength)
    warp(images, target, maps, recipe, rng, strength)
    change_intensities(images, recipe, rng, strength)
    return images, target, maps


def preview(image: Tensor, target: Tensor, recipe: Recipe, seed: int, count: int) -> tuple[Tensor, Tensor]:
    """Augment one patch several times, for a preview.

    Parameters
    ----------
    image : Tensor of float32, shape (C, Z, Y, X)
    target : Tensor of shape (Z, Y, X) or (K, Z, Y, X)

    Returns
    -------
    images : Tensor of shape (count, C, Z, Y, X)
    targets : Tensor of shape (count, Z, Y, X) or (count, K, Z, Y, X)
    """
    images, targets = image.expand(count, *image.shape), target.expand(count, *target.shape)
    images, targets, _ = augment(images, targets, {}, np.random.default_rng(seed), recipe)
    return images, targets
