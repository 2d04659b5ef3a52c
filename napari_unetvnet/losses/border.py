"""A loss that looks at borders only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from napari_unetvnet.losses.declare import blind_to, head_modes
from napari_unetvnet.losses.sums import mask, region_sums
from napari_unetvnet.losses.thin import dilated

if TYPE_CHECKING:
    from torch import Tensor

    from napari_unetvnet.losses.prepared import Prepared

__all__ = ["border", "border_dice"]


@blind_to("inversion")
@head_modes("binary", "multiclass", "multilabel")
def border_dice(prepared: Prepared, *, smooth: float = 1.0) -> Tensor:
    """Dice of borders, 1 - D with D = (2 sum(b_y b_p) + smooth) / (sum(b_y^2) + sum(b_p^2) + smooth).

    A mask and its negative have the same border, so use it beside a loss that tells them apart: ``dice + border_dice``.

    Parameters
    ----------
    prepared : Prepared
    smooth : float
        Added above and below.

    Returns
    -------
    Tensor, a scalar in [0, 1]

    Notes
    -----
    The mean over the classes of 1 - D over the batch, for the borders b_m = maxpool(m) maxpool(1 - m) with m = y and
    m = p. The pooling looks at the 3 neighbours of an axis (3 x 3 or 3 x 3 x 3 voxels), of which only known ones count.

    References
    ----------
    .. [1] AmberzzZZ/unet_vnet_keras, https://github.com/AmberzzZZ/unet_vnet_keras
    """
    said, truth = (border(region, prepared.known) for region in (prepared.probabilities, prepared.target))
    sums = region_sums(said, truth, mask(prepared))
    return (1 - (2 * sums.both + smooth) / (sums.truth + sums.said + smooth)).mean()


def border(region: Tensor, known: Tensor) -> Tensor:
    """Give the soft border of a soft mask: voxels that have both inside and outside next to them.

    Parameters
    ----------
    region : Tensor of shape (B, K, *S)
    known : Tensor of bool, shape (B, 1, *S) or (B, K, *S)

    Returns
    -------
    Tensor of shape (B, K, *S)
    """
    inside, outside = (dilated(torch.where(known, side, 0)) for side in (region, 1 - region))
    return inside * outside
