"""Sums that have a name of their own because everybody uses them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unetvnet.losses.adapters import Prepared, head_modes
from napari_unetvnet.losses.cross_entropy import bce, ce
from napari_unetvnet.losses.overlap import dice

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["bce_dice", "dice_ce"]


@head_modes("binary", "multiclass", "multilabel")
def dice_ce(prepared: Prepared, *, ce_weight: float = 1.0) -> Tensor:
    """Dice plus cross-entropy (binary cross-entropy where channels are sigmoids), (1 - D) + ce_weight CE.

    Parameters
    ----------
    prepared : Prepared
    ce_weight : float
        Factor of the cross-entropy.

    Returns
    -------
    Tensor, a scalar

    References
    ----------
    .. [1] Isensee et al. 2021, nnU-Net, https://doi.org/10.1038/s41592-020-01008-z
    """
    entropy = bce(prepared) if prepared.head == "multilabel" else ce(prepared)
    return dice(prepared) + ce_weight * entropy


@head_modes("binary", "multilabel")
def bce_dice(prepared: Prepared, *, bce_weight: float = 1.0) -> Tensor:
    """Binary cross-entropy plus Dice, bce_weight BCE + (1 - D).

    Parameters
    ----------
    prepared : Prepared
    bce_weight : float
        Factor of the binary cross-entropy.

    Returns
    -------
    Tensor, a scalar
    """
    return bce_weight * bce(prepared) + dice(prepared)
