"""The focal loss: cross-entropy in which well-classified voxels count less."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from napari_unetvnet.losses.declare import head_modes
from napari_unetvnet.losses.slabs import voxel_sum
from napari_unetvnet.losses.voxels import channel_focal, softmax_focal

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
    """Focal loss, -mean(alpha (1 - p)^gamma ln p) inside a class: well-classified voxels count less.

    Parameters
    ----------
    alpha : float
        Weight of the voxels inside a class; those outside have 1 - alpha. For a multiclass head a factor of all voxels.
    gamma : float
        The larger, the less well-classified voxels count.
    clamp : float
        Probabilities are clipped to [clamp, 1 - clamp]; a clipped voxel has no gradient. 0: no clipping.
    reduction : {"mean", "sum"}
        Over the valid voxels and, for a multilabel head, channels.

    Returns
    -------
    Tensor, a scalar

    Notes
    -----
    - binary, multilabel: -(α y (1 - p)^γ ln p + (1 - α) (1 - y) p^γ ln(1 - p)) of each voxel and channel;
    - multiclass: -α Σ_k y_k (1 - p_k)^γ ln p_k of each voxel, where all classes are equal and α is a mere factor.

    The code of [2]_ uses α = 0.99 and the mean; its first version α = 0.25, the sum, and p clipped to [0.001, 0.999].
    It clips p to keep ln p finite; computed from logits, ln p is finite without.

    References
    ----------
    .. [1] Lin et al. 2017, Focal loss, https://arxiv.org/abs/1708.02002
    .. [2] AmberzzZZ/unet_vnet_keras, https://github.com/AmberzzZZ/unet_vnet_keras
    """
    per_voxel = softmax_focal if prepared.head == "multiclass" else channel_focal
    formula = partial(per_voxel, alpha=alpha, gamma=gamma, clamp=clamp)
    return prepared.mean_of(formula) if reduction == "mean" else voxel_sum(prepared, formula)[0]
