"""Intensity augmentation, by channel of a patch."""

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
    """Apply all intensity changes, in place.

    Parameters
    ----------
    images : Tensor of shape (B, C, Z, Y, X)
        Contiguous.
    strength : float in [0, 1]
    """
    channels = images.view(-1, *images.shape[2:])
    axes = [AXES.index(axis) - 3 for axis in recipe.moving]

    def apply(change: Change, make: Callable[[Tensor, Tensor], Tensor], device: torch.device = images.device) -> None:
        rows, values = change.draw(rng, len(channels), strength)
        if not len(rows):
            return
        selection = slice(None) if len(rows) == len(channels) else torch.from_numpy(rows).to(images.device)
        parameters = torch.from_numpy(values).to(device, images.dtype).reshape(-1, 1, 1, 1)
        channels[selection] = make(channels[selection], parameters)

    apply(recipe.noise, lambda part, deviation: _noisy(part, deviation, rng))
    apply(recipe.blur, lambda part, sigma: _blurred(part, sigma, axes, math.ceil(3 * recipe.blur.high)))
    apply(recipe.brightness, torch.mul)
    apply(recipe.offset, torch.add)
    apply(recipe.contrast, _contrasted)
    # These factors decide sizes, so they stay on the CPU: reading them from a GPU would wait for all its work.
    apply(recipe.low_resolution, lambda part, factors: _coarse(part, factors, axes), torch.device("cpu"))
    apply(recipe.inverted_gamma, lambda part, gamma: -_gamma(-part, gamma))
    apply(recipe.gamma, _gamma)


def _noisy(part: Tensor, deviation: Tensor, rng: np.random.Generator) -> Tensor:
    """Add Gaussian noise, drawn on the device of the patch."""
    generator = torch.Generator(part.device).manual_seed(int(rng.integers(2**63)))
    noise = torch.randn(part.shape, generator=generator, device=part.device, dtype=part.dtype)
    return part.addcmul(noise, deviation)


def _blurred(part: Tensor, sigma: Tensor, axes: list[int], radius: int) -> Tensor:
    """Convolve with a Gaussian along each axis; border voxels are repeated."""
    distance = torch.arange(radius + 1, device=part.device, dtype=part.dtype)
    kernel = torch.exp(-((distance / sigma.clamp_min(TINY)) ** 2) / 2)
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


def _contrasted(part: Tensor, factor: Tensor) -> Tensor:
    """Scale intensities about their mean, clipped to their range."""
    mean, low, high = part.mean(VOXELS, keepdim=True), part.amin(VOXELS, keepdim=True), part.amax(VOXELS, keepdim=True)
    return (part - mean).mul_(factor).add_(mean).clamp_(low, high)


def _coarse(part: Tensor, factors: Tensor, axes: list[int]) -> Tensor:
    """Downsample by averaging and interpolate back."""
    # Each item has another coarse size, so they cannot be batched; 2D interpolation is faster than 3D with one plane.
    planar = -3 not in axes
    return torch.stack(
        [
            _downsampled(item, factor, axes, planar)
            for item, factor in zip(part, factors.flatten().tolist(), strict=True)
        ]
    )


def _downsampled(item: Tensor, factor: float, axes: list[int], planar: bool) -> Tensor:
    spatial = (-2, -1) if planar else VOXELS
    full = [item.shape[axis] for axis in spatial]
    fewer = [max(1, round(n * factor)) if axis in axes else n for axis, n in zip(spatial, full, strict=True)]
    batch = item.unsqueeze(0) if planar else item[None, None]
    small = functional.interpolate(batch, fewer, mode="area")
    return functional.interpolate(small, full, mode="bilinear" if planar else "trilinear").reshape(item.shape)


def _gamma(part: Tensor, gamma: Tensor) -> Tensor:
    """Raise intensities, scaled to 0 to 1, to a power, and restore mean and standard deviation."""
    low = part.amin(VOXELS, keepdim=True)
    extent = (part.amax(VOXELS, keepdim=True) - low).clamp_min_(TINY)
    powers = (part - low).div_(extent).clamp_(0, 1).pow_(gamma)
    powers -= powers.mean(VOXELS, keepdim=True)
    mean = part.mean(VOXELS, keepdim=True)
    gain = _length(part - mean) / _length(powers).clamp_min_(TINY)
    return powers.mul_(gain).add_(mean)


def _length(part: Tensor) -> Tensor:
    """Root of the sum of squares; fastest over flattened voxels."""
    length: Tensor = torch.linalg.vector_norm(part.flatten(1), dim=1)
    return length.reshape(-1, 1, 1, 1)
