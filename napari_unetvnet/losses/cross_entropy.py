"""Cross-entropy and its weighted forms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from napari_unetvnet.losses.declare import head_modes, needs
from napari_unetvnet.losses.slabs import voxel_sum
from napari_unetvnet.losses.sums import channel_factors
from napari_unetvnet.losses.voxels import channel_cross_entropy, sum_of_channel_means, voxel_cross_entropy

if TYPE_CHECKING:
    from torch import Tensor

    from napari_unetvnet.losses.prepared import Prepared

__all__ = ["bce", "ce", "reweighted_bce", "unet_weighted_ce", "weighted_ce"]


@head_modes("binary", "multiclass")
def ce(prepared: Prepared) -> Tensor:
    """Cross-entropy, -mean(sum_k y_k ln p_k) over the valid voxels; for a binary head the same as ``bce``.

    Returns
    -------
    Tensor, a scalar

    Notes
    -----
    -Σ w (Σ_k y_k ln p_k) / Σ w, with w the weight of a voxel.

    References
    ----------
    .. [1] Ronneberger, Fischer, Brox 2015, U-Net, https://arxiv.org/abs/1505.04597
    """
    return prepared.mean_of(voxel_cross_entropy)


@head_modes("binary", "multilabel")
def bce(prepared: Prepared) -> Tensor:
    """Binary cross-entropy, -mean(y ln p + (1 - y) ln(1 - p)) over valid voxels and channels.

    Returns
    -------
    Tensor, a scalar

    Notes
    -----
    -Σ w (y ln p + (1 - y) ln(1 - p)) / Σ w, with w the weight of a voxel. The source clips p to [1e-7, 1 - 1e-7].

    References
    ----------
    .. [1] AmberzzZZ/unet_vnet_keras, https://github.com/AmberzzZZ/unet_vnet_keras
    """
    return prepared.mean_of(voxel_cross_entropy)


@head_modes("binary", "multiclass", "multilabel")
def weighted_ce(prepared: Prepared, *, class_weights: tuple[float, ...] = ()) -> Tensor:
    """Cross-entropy with a weight for each class, sum(w l) / sum(w).

    Parameters
    ----------
    class_weights : tuple of float
        One per class; background and foreground for a binary head. Empty: the inverse frequency of each class in the
        batch.

    Returns
    -------
    Tensor, a scalar

    Notes
    -----
    Σ_i w(y_i) l_i / Σ_i w(y_i), with l_i = -Σ_k y_k ln p_k. With inverse frequencies it is the mean over the classes of
    the mean within each. For a multilabel head a weight is that of the voxels inside a class, against 1 outside; the
    inverse frequency balances the two.

    References
    ----------
    .. [1] yingmuzhi/artificial_intelligence, https://github.com/yingmuzhi/artificial_intelligence
    .. [2] Ronneberger, Fischer, Brox 2015, U-Net, https://arxiv.org/abs/1505.04597
    """
    return prepared.with_class_weights(class_weights or _inverse_frequencies(prepared)).mean_of(voxel_cross_entropy)


@needs("separation")
@head_modes("binary", "multiclass", "multilabel")
def unet_weighted_ce(prepared: Prepared) -> Tensor:
    """Cross-entropy with the weight map of the U-Net, which separates touching objects.

    Returns
    -------
    Tensor, a scalar

    Notes
    -----
    -(1/N) Σ w(x) ln p(x), with p(x) the probability of the target class and N the number of voxels (times channels for
    a multilabel head) of weight above 0. Unlike in the weighted mean of ``ce``, twice the weight is twice the loss.

    References
    ----------
    .. [1] Ronneberger, Fischer, Brox 2015, U-Net, https://arxiv.org/abs/1505.04597
    """
    count = prepared.valid.sum().clamp_min(1)
    if prepared.head == "multilabel":
        count = count * (prepared.raw_logits.shape[1] // prepared.valid.shape[1])
    return voxel_sum(prepared, voxel_cross_entropy)[0] / count


@head_modes("binary", "multiclass", "multilabel")
def reweighted_bce(prepared: Prepared, *, alpha: float = 0.99, channel_weights: tuple[float, ...] = ()) -> Tensor:
    """Binary cross-entropy for rare foreground, -mean(alpha y ln p + (1 - alpha) (1 - y) ln(1 - p)).

    Parameters
    ----------
    alpha : float
        Weight of the voxels inside a class; those outside have 1 - alpha.
    channel_weights : tuple of float
        One per channel, for a weighted sum of the means of the channels. Empty: the mean over all channels.

    Returns
    -------
    Tensor, a scalar

    Notes
    -----
    The mean over the valid voxels of all channels; with channel weights β, Σ_c β_c m_c with m_c the mean over the valid
    voxels of channel c. For a multiclass head it is one class against the rest, with p from the softmax.

    References
    ----------
    .. [1] AmberzzZZ/unet_vnet_keras, https://github.com/AmberzzZZ/unet_vnet_keras
    """
    if not channel_weights:
        return prepared.mean_of(lambda slab: channel_cross_entropy(slab, alpha))
    beta = channel_factors(channel_weights, prepared.raw_logits)
    return sum_of_channel_means(prepared, lambda slab: beta * channel_cross_entropy(slab, alpha))


def _inverse_frequencies(prepared: Prepared) -> tuple[float, ...]:
    """Compute weights that balance the classes of the batch; 0 for an absent class."""
    if prepared.head == "multiclass" and prepared.by_index:
        counts = torch.stack([_count(prepared, k) for k in range(prepared.raw_logits.shape[1])])
    else:
        w, axes = prepared.weight, (0, *range(2, prepared.raw_logits.ndim))
        counts, outside = ((w * side).sum(axes) for side in (prepared.target, 1 - prepared.target))
        if prepared.head == "multilabel":
            has_both = (counts > 0) & (outside > 0)
            return tuple(torch.where(has_both, outside / counts, 1).tolist())
        if prepared.head == "binary":
            counts = torch.cat([outside, counts])
    return tuple(torch.where(counts > 0, counts.sum() / counts, 0).tolist())


def _count(prepared: Prepared, k: int) -> Tensor:
    """Sum the weights of the voxels whose label is k."""
    inside = prepared.labels.unsqueeze(1) == k
    return inside.count_nonzero() if prepared.voxel_weight is None else (inside * prepared.voxel_weight).sum()
