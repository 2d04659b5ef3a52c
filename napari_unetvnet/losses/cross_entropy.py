"""Cross-entropy and its weighted forms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from napari_unetvnet.losses.declare import head_modes, needs
from napari_unetvnet.losses.slabs import voxel_sum
from napari_unetvnet.losses.sums import shares
from napari_unetvnet.losses.voxels import channel_sum, surprise, surprise_of_channels

if TYPE_CHECKING:
    from torch import Tensor

    from napari_unetvnet.losses.prepared import Prepared

__all__ = ["bce", "ce", "reweighted_bce", "unet_weighted_ce", "weighted_ce"]


@head_modes("binary", "multiclass")
def ce(prepared: Prepared) -> Tensor:
    """Cross-entropy, -mean(sum_k y_k ln p_k) over the known voxels; on one channel the same as ``bce``.

    Parameters
    ----------
    prepared : Prepared

    Returns
    -------
    Tensor, a scalar

    Notes
    -----
    The mean -Σ w (Σ_k y_k ln p_k) / Σ w, with w the weight of a voxel.

    References
    ----------
    .. [1] Ronneberger, Fischer, Brox 2015, U-Net, https://arxiv.org/abs/1505.04597
    """
    return prepared.mean_of(surprise)


@head_modes("binary", "multilabel")
def bce(prepared: Prepared) -> Tensor:
    """Binary cross-entropy, -mean(y ln p + (1 - y) ln(1 - p)) over known voxels and channels.

    Parameters
    ----------
    prepared : Prepared

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
    return prepared.mean_of(surprise)


@head_modes("binary", "multiclass", "multilabel")
def weighted_ce(prepared: Prepared, *, class_weights: tuple[float, ...] = ()) -> Tensor:
    """Cross-entropy with a weight for each class, sum(w l) / sum(w).

    Parameters
    ----------
    prepared : Prepared
    class_weights : tuple of float
        One for each class; background and foreground for a binary head. Empty: the inverse of how many voxels of the
        batch are of the class.

    Returns
    -------
    Tensor, a scalar

    Notes
    -----
    Σ_i w(y_i) l_i / Σ_i w(y_i), with l_i = -Σ_k y_k ln p_k. Weights that are the inverse of the frequency make it the
    mean over the classes of their own mean. In a multilabel head a weight is that of the voxels where a class is,
    against 1 where it is not; the inverse frequency lets both count the same.

    References
    ----------
    .. [1] yingmuzhi/artificial_intelligence, https://github.com/yingmuzhi/artificial_intelligence
    .. [2] Ronneberger, Fischer, Brox 2015, U-Net, https://arxiv.org/abs/1505.04597
    """
    return prepared.weighted(class_weights or _inverse_frequencies(prepared)).mean_of(surprise)


@needs("separation")
@head_modes("binary", "multiclass", "multilabel")
def unet_weighted_ce(prepared: Prepared) -> Tensor:
    """Cross-entropy with the weight map of the U-Net, which keeps touching objects apart.

    Parameters
    ----------
    prepared : Prepared

    Returns
    -------
    Tensor, a scalar

    Notes
    -----
    -(1/N) Σ w(x) ln p(x), with p(x) the probability of the right class and N the number of voxels (and channels of a
    multilabel head) of weight above 0. Unlike the weighted mean of ``ce``, twice the weight is twice the loss.

    References
    ----------
    .. [1] Ronneberger, Fischer, Brox 2015, U-Net, https://arxiv.org/abs/1505.04597
    """
    count = prepared.known.sum().clamp_min(1)
    if prepared.head == "multilabel":
        count = count * (prepared.given.shape[1] // prepared.known.shape[1])
    return voxel_sum(prepared, surprise)[0] / count


@head_modes("binary", "multiclass", "multilabel")
def reweighted_bce(prepared: Prepared, *, alpha: float = 0.99, channel_weights: tuple[float, ...] = ()) -> Tensor:
    """Binary cross-entropy for rare foreground, -mean(alpha y ln p + (1 - alpha) (1 - y) ln(1 - p)).

    Parameters
    ----------
    prepared : Prepared
    alpha : float
        Weight of the voxels where a class is; where it is not, 1 - alpha.
    channel_weights : tuple of float
        One for each channel, for the sum of their own means; empty: the mean over all channels.

    Returns
    -------
    Tensor, a scalar

    Notes
    -----
    The mean over the known voxels of all channels; with channel weights β, Σ_c β_c m_c with m_c the mean over those of
    channel c. In a multiclass head each class is set against the rest, p being its softmax.

    References
    ----------
    .. [1] AmberzzZZ/unet_vnet_keras, https://github.com/AmberzzZZ/unet_vnet_keras
    """
    if not channel_weights:
        return prepared.mean_of(lambda part: surprise_of_channels(part, alpha))
    beta = shares(channel_weights, prepared.given)
    return channel_sum(prepared, lambda part: beta * surprise_of_channels(part, alpha))


def _inverse_frequencies(prepared: Prepared) -> tuple[float, ...]:
    """Weights by which all classes of the batch count the same; 0 for a class that is nowhere."""
    if prepared.head == "multiclass" and prepared.by_index:
        counts = torch.stack([_count(prepared, k) for k in range(prepared.given.shape[1])])
    else:
        w, axes = prepared.weight, (0, *range(2, prepared.given.ndim))
        counts, elsewhere = ((w * side).sum(axes) for side in (prepared.target, 1 - prepared.target))
        if prepared.head == "multilabel":
            both = (counts > 0) & (elsewhere > 0)
            return tuple(torch.where(both, elsewhere / counts, 1).tolist())
        if prepared.head == "binary":
            counts = torch.cat([elsewhere, counts])
    return tuple(torch.where(counts > 0, counts.sum() / counts, 0).tolist())


def _count(prepared: Prepared, k: int) -> Tensor:
    """Sum the weights of the voxels whose label is k."""
    there = prepared.labels.unsqueeze(1) == k
    return there.count_nonzero() if prepared.importance is None else (there * prepared.importance).sum()
