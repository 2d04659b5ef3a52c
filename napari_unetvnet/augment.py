"""Random changes of a batch of patches that leave its labels right, computed on the device of the batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

__all__ = ["augment"]


def augment(
    images: Tensor,
    target: Tensor,
    weight: Tensor | None,
    rng: np.random.Generator,
    flip_axes: tuple[int, ...] = (-2, -1),
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Flip each patch at random and change its brightness and contrast by about a tenth.

    Parameters
    ----------
    images : Tensor of shape (B, C, Z + mz, Y + my, X + mx)
        Normalised intensities, with a margin that is the same before and after.
    target : Tensor of shape (B, Z, Y, X) or (B, K, Z, Y, X)
    weight : Tensor of shape (B, Z, Y, X), or None
    rng : numpy Generator
        The only source of chance.
    flip_axes : tuple of int
        Axes that may be mirrored, counted from the end: x is -1, y is -2, z is -3.

    Returns
    -------
    images, target, weight : Tensor
        Of the same shapes; weight None if it was.
    """
    chosen = rng.random((len(images), len(flip_axes))) < 0.5
    rows = [[axis for axis, flip in zip(flip_axes, row, strict=True) if flip] for row in chosen]
    images, target = _flipped(images, rows), _flipped(target, rows)
    weight = None if weight is None else _flipped(weight, rows)
    shape = (len(images), images.shape[1], 1, 1, 1)
    gain = torch.from_numpy(rng.normal(1, 0.1, shape)).to(images)
    offset = torch.from_numpy(rng.normal(0, 0.1, shape)).to(images)
    return images * gain + offset, target, weight


def _flipped(batch: Tensor, rows: list[list[int]]) -> Tensor:
    """Flip each item of a batch along its own axes."""
    return torch.stack([item.flip(axes) for item, axes in zip(batch, rows, strict=True)])
