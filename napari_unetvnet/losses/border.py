"""A loss that compares borders only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from napari_unetvnet.losses.declare import blind_to, head_modes
from napari_unetvnet.losses.sums import region_sums
from napari_unetvnet.losses.thin import dilated

if TYPE_CHECKING:
    from torch import Tensor

    from napari_unetvnet.losses.prepared import Prepared

__all__ = ["border", "border_dice"]


@blind_to("inversion")
@head_modes("binary", "multiclass", "multilabel")
def border_dice(prepared: Prepared, *, smooth: float = 1.0) -> Tensor:
    """Dice of borders, 1 - D with D = (2 sum(b_y b_p) + smooth) / (sum(b_y^2) + sum(b_p^2) + smooth).

    A mask and its complement have the same border, so add a loss that tells them apart: ``dice + border_dice``.

    Parameters
    ----------
    smooth : float
        Added to numerator and denominator.

    Returns
    -------
    Tensor, a scalar in [0, 1]

    Notes
    -----
    The mean over the classes of 1 - D, with sums over the batch, for the borders b_m = maxpool(m) maxpool(1 - m) with
    m = y and m = p. The pooling window is 3 x 3 pixels or 3 x 3 x 3 voxels, of which only the valid ones count.

    References
    ----------
    .. [1] AmberzzZZ/unet_vnet_keras, https://github.com/AmberzzZZ/unet_vnet_keras
    """
    p, y = (border(mask, prepared.valid) for mask in (prepared.probabilities, prepared.target))
    sums = region_sums(p, y, prepared.weight_or_mask)
    return (1 - (2 * sums.intersection + smooth) / (sums.target + sums.prediction + smooth)).mean()


def border(mask: Tensor, valid: Tensor) -> Tensor:
    """Compute the soft border of a soft mask: voxels with both inside and outside in their neighbourhood.

    Parameters
    ----------
    mask : Tensor of shape (B, K, *S)
    valid : Tensor of bool, shape (B, 1, *S) or (B, K, *S)

    Returns
    -------
    Tensor of shape (B, K, *S)
    """
    inside, outside = (dilated(torch.where(valid, side, 0)) for side in (mask, 1 - mask))
    return inside * outside
