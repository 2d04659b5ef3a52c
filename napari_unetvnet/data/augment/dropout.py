"""Leave out channels of patches, so that a network learns to do without one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

__all__ = ["drop_channels"]


@torch.no_grad()
def drop_channels(images: Tensor, probability: float, rng: np.random.Generator) -> Tensor:
    """Set channels to 0, each with a probability, but never all of a patch.

    Parameters
    ----------
    images : Tensor of shape (B, C, Z, Y, X)
        Normalised intensities; not changed.
    probability : float in [0, 1)
    rng : numpy Generator
        The only source of randomness.

    Returns
    -------
    Tensor of shape (B, C, Z, Y, X)
    """
    if not probability or images.shape[1] == 1:
        return images
    kept = rng.random(images.shape[:2]) >= probability
    stays = rng.integers(images.shape[1], size=len(kept))
    nothing = ~kept.any(axis=1)
    kept[nothing, stays[nothing]] = True
    mask = torch.from_numpy(kept).to(images.device)
    # Where, not times: 0 times an infinite value is not 0.
    return torch.where(mask[:, :, None, None, None], images, torch.zeros((), dtype=images.dtype, device=images.device))
