"""Changes of intensities, for some channels of some patches at a time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from napari_unetvnet.data.augment.recipes import AXES

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from torch import Tensor

    from napari_unetvnet.data.augment.recipes import Change, Recipe

__all__ = ["change_intensities"]

VOXELS = (-3, -2, -1)
TINY = 1e-7


def change_intensities(images: Tensor, recipe: Recipe, rng: np.random.Generator, strength: float) -> None:
    """Make all changes of intensity, in place.

    Parameters
    ----------
    images : Tensor of shape (B, C, Z, Y, X)
        Contiguous.
    recipe : Recipe
    rng : numpy Generator
    strength : float in [0, 1]
    """
    channels = images.view(-1, *images.shape[2:])
    axes = [AXES.index(axis) - 3 for axis in recipe.moving]

    def change(which: Change, make: Callable[[Tensor, Tensor], Tensor], device: torch.device = images.device) -> None:
        rows, values = which.draw(rng, len(channels), strength)
        if not len(rows):
            return
        chosen = slice(None) if len(rows) == len(channels) else torch.from_numpy(rows).to(images.device)
        given = torch.from_numpy(values).to(device, images.dtype).reshape(-1, 1, 1, 1)
        channels[chosen] = make(channels[chosen], given)

    change(recipe.noise, lambda part, deviation: _noisy(part, deviation, rng))
    change(recipe.blur, lambda part, sigma: _blurred(part, sigma, axes, math.ceil(3 * recipe.blur.high)))
    change(recipe.brightness, torch.mul)
    change(recipe.offset, torch.add)
    change(recipe.contrast, _stretched)
    # These decide sizes, and a GPU asked for them would first finish all that it has to do.
    change(recipe.low_resolution, lambda part, factors: _coarse(part, factors, axes), torch.device("cpu"))
    change(recipe.inverted_gamma, lambda part, gamma: -_bent(-part, gamma))
    change(recipe.gamma, _bent)


def _noisy(part: Tensor, deviation: Tensor, rng: np.random.Generator) -> Tensor:
    """Add Gaussian noise, drawn where the patch is."""
    generator = torch.Generator(part.device).manual_seed(int(rng.integers(2**63)))
    noise = torch.randn(part.shape, generator=generator, device=part.device, dtype=part.dtype)
    return part.addcmul(noise, deviation)


def _blurred(part: Tensor, sigma: Tensor, axes: list[int], radius: int) -> Tensor:
    """Convolve with Gaussians, axis by axis; the border is repeated."""
    far = torch.arange(radius + 1, device=part.device, dtype=part.dtype)
    kernel = torch.exp(-((far / sigma.clamp_min(TINY)) ** 2) / 2)
    kernel /= 2 * kernel.sum(-1, keepdim=True) - 1
    for axis in axes:
        length = part.shape[axis]
        if length == 1:
            continue
        places = torch.arange(-radius, length + radius, device=part.device).clamp(0, length - 1)
        padded = part.index_select(axis, places)
        part = padded.narrow(axis, radius, length) * kernel[..., :1]
        for k in range(1, radius + 1):
            for start in (radius - k, radius + k):
                part.addcmul_(padded.narrow(axis, start, length), kernel[..., k : k + 1])
    return part


def _stretched(part: Tensor, factor: Tensor) -> Tensor:
    """Stretch intensities about their mean, no further than they reached."""
    mean, low, high = part.mean(VOXELS, keepdim=True), part.amin(VOXELS, keepdim=True), part.amax(VOXELS, keepdim=True)
    return (part - mean).mul_(factor).add_(mean).clamp_(low, high)


def _coarse(part: Tensor, factors: Tensor, axes: list[int]) -> Tensor:
    """Average to fewer voxels and interpolate back."""
    # Each has another size on the way, so one after the other; a plane is quicker than a volume with one plane.
    planar = -3 not in axes
    return torch.stack(
        [_recovered(one, factor, axes, planar) for one, factor in zip(part, factors.flatten().tolist(), strict=True)]
    )


def _recovered(one: Tensor, factor: float, axes: list[int], planar: bool) -> Tensor:
    spatial = (-2, -1) if planar else VOXELS
    full = [one.shape[axis] for axis in spatial]
    fewer = [max(1, round(n * factor)) if axis in axes else n for axis, n in zip(spatial, full, strict=True)]
    batch = one.unsqueeze(0) if planar else one[None, None]
    small = functional.interpolate(batch, fewer, mode="area")
    return functional.interpolate(small, full, mode="bilinear" if planar else "trilinear").reshape(one.shape)


def _bent(part: Tensor, gamma: Tensor) -> Tensor:
    """Raise intensities, from 0 at the darkest to 1 at the brightest, to a power, and restore mean and deviation."""
    low = part.amin(VOXELS, keepdim=True)
    reach = (part.amax(VOXELS, keepdim=True) - low).clamp_min_(TINY)
    bent = (part - low).div_(reach).clamp_(0, 1).pow_(gamma)
    bent -= bent.mean(VOXELS, keepdim=True)
    mean = part.mean(VOXELS, keepdim=True)
    gain = _length(part - mean) / _length(bent).clamp_min_(TINY)
    return bent.mul_(gain).add_(mean)


def _length(part: Tensor) -> Tensor:
    """Root of the sum of squares; over flat voxels, which is much the fastest."""
    length: Tensor = torch.linalg.vector_norm(part.flatten(1), dim=1)
    return length.reshape(-1, 1, 1, 1)
