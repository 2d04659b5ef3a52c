"""The focal loss: cross-entropy in which voxels that are nearly right count less."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from napari_unetvnet.losses.declare import head_modes
from napari_unetvnet.losses.slabs import voxel_sum
from napari_unetvnet.losses.voxels import focal_of_channels, focal_of_classes

if TYPE_CHECKING:
    from torch import Tensor

    from napari_unetvnet.losses.prepared import Prepared

__all__ = ["focal"]


@head_modes("binary", "multiclass", "multilabel")
def focal(
    prepared: Prepared,
    *,
    alpha: float = 0.99,
    gamma: float = 2.0,
    clamp: float = 0.0,
    reduction: Literal["mean", "sum"] = "mean",
) -> Tensor:
    """Focal loss, -mean(alpha (1 - p)^gamma ln p) where a class is: voxels that are nearly right count less.

    Parameters
    ----------
    prepared : Prepared
    alpha : float
        Weight of the voxels where a class is; where it is not, 1 - alpha. In a multiclass head the same for all.
    gamma : float
        The larger, the less do voxels count that are nearly right.
    clamp : float
        Probabilities are clipped to [clamp, 1 - clamp]; beyond, a voxel has no gradient. 0: not at all.
    reduction : {"mean", "sum"}
        Over the known voxels, and channels of a binary or multilabel head.

    Returns
    -------
    Tensor, a scalar

    Notes
    -----
    - binary, multilabel: -(α y (1 - p)^γ ln p + (1 - α) (1 - y) p^γ ln(1 - p)) of each voxel and channel;
    - multiclass: -α Σ_k y_k (1 - p_k)^γ ln p_k of each voxel, in which no class is the background of the others.

    The source has α = 0.99 and the mean; its first version α = 0.25, the sum, and p clipped to [0.001, 0.999]. It clips
    p, to stay finite; ln p from logits is finite anyhow.

    References
    ----------
    .. [1] Lin et al. 2017, Focal loss, https://arxiv.org/abs/1708.02002
    .. [2] AmberzzZZ/unet_vnet_keras, https://github.com/AmberzzZZ/unet_vnet_keras
    """
    values = focal_of_classes if prepared.head == "multiclass" else focal_of_channels
    formula = partial(values, alpha=alpha, gamma=gamma, clamp=clamp)
    return prepared.mean_of(formula) if reduction == "mean" else voxel_sum(prepared, formula)[0]
