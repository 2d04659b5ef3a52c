"""Losses of single voxels: formulas that `slabs.voxel_sum` sums over a patch, one slab at a time.

All start from logits, where ln p is exact however confident a network is. With clipped probabilities a voxel that is
confidently wrong would have no gradient.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from napari_unetvnet.losses.slabs import voxel_sum

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from napari_unetvnet.losses.prepared import Prepared

__all__ = [
    "channel_cross_entropy", "channel_focal", "one_vs_rest", "softmax_focal", "sum_of_channel_means",
    "voxel_cross_entropy",
]  # fmt: skip


def voxel_cross_entropy(prepared: Prepared) -> Tensor:
    """Compute the cross-entropy (negative log-likelihood of the target) of each voxel.

    Returns
    -------
    Tensor of shape (B, 1, *S), or (B, K, *S) for sigmoids
    """
    if prepared.head != "multiclass":
        return functional.binary_cross_entropy_with_logits(prepared.logits, prepared.target, reduction="none")
    if not prepared.by_index:
        return -(prepared.target * prepared.logits.log_softmax(1)).sum(1, keepdim=True)
    classes = torch.where(prepared.valid.squeeze(1), prepared.labels, 0).long()
    return functional.cross_entropy(prepared.logits, classes, reduction="none").unsqueeze(1)


def channel_cross_entropy(prepared: Prepared, alpha: float) -> Tensor:
    """Compute -(alpha y ln p + (1 - alpha) (1 - y) ln(1 - p)) for each channel against the rest.

    Parameters
    ----------
    alpha : float
        In [0, 1].

    Returns
    -------
    Tensor of shape (B, K, *S)
    """
    z, y = one_vs_rest(prepared), prepared.target
    rest = max(1 - alpha, 1e-12)  # pos_weight is alpha / rest, which alpha = 1 would divide by 0
    return functional.binary_cross_entropy_with_logits(
        z, y, z.new_tensor(rest), pos_weight=z.new_tensor(alpha / rest), reduction="none"
    )


def channel_focal(prepared: Prepared, alpha: float, gamma: float, clamp: float = 0.0) -> Tensor:
    """Compute -(alpha y (1 - p)^gamma ln p + (1 - alpha) (1 - y) p^gamma ln(1 - p)) for each channel against the rest.

    Parameters
    ----------
    clamp : float
        p is clipped to [clamp, 1 - clamp].

    Returns
    -------
    Tensor of shape (B, K, *S)
    """
    z, y = one_vs_rest(prepared), prepared.target
    if clamp:
        bound = math.log1p(-clamp) - math.log(clamp)
        z = z.clamp(-bound, bound)
    if not prepared.labels.is_floating_point():
        # y is 0 or 1, so one of the two terms is 0. The other is that of a negative if z changes sign where y = 1.
        return ((1 - alpha) + (2 * alpha - 1) * y) * _focal_of_negative(z * (1 - 2 * y), gamma)
    return alpha * y * _focal_of_negative(-z, gamma) + (1 - alpha) * (1 - y) * _focal_of_negative(z, gamma)


def softmax_focal(prepared: Prepared, alpha: float, gamma: float, clamp: float) -> Tensor:
    """Compute -alpha sum_k y_k (1 - p_k)^gamma ln p_k of a softmax.

    Parameters
    ----------
    clamp : float
        p is clipped to [clamp, 1 - clamp].

    Returns
    -------
    Tensor of shape (B, 1, *S)
    """
    if prepared.by_index:
        return alpha * _focal(voxel_cross_entropy(prepared), gamma, clamp)
    per_class = _focal(-prepared.logits.log_softmax(1), gamma, clamp)
    return alpha * (prepared.target * per_class).sum(1, keepdim=True)


def one_vs_rest(prepared: Prepared) -> Tensor:
    """Compute logits of each class against the rest: their sigmoids are the probabilities, of a softmax too.

    Returns
    -------
    Tensor of shape (B, K, *S)
    """
    z = prepared.logits
    if prepared.head != "multiclass":
        return z
    # logit(p) = ln p - ln(1 - p). For the largest p, 1 - p may round to 0, so there it is the sum of the other
    # probabilities. All others are at most 1/2, where log1p is exact; the clamp only bounds the unused branch.
    is_top = torch.zeros_like(z, dtype=torch.bool).scatter(1, z.argmax(1, keepdim=True), True)
    log_p = z.log_softmax(1)
    top = z - torch.where(is_top, -math.inf, z).logsumexp(1, keepdim=True)
    return torch.where(is_top, top, log_p - torch.log1p(-log_p.exp().clamp(max=0.75)))


def sum_of_channel_means(prepared: Prepared, formula: Callable[[Prepared], Tensor]) -> Tensor:
    """Compute the mean of a formula over the voxels of each channel, summed over the channels.

    Parameters
    ----------
    formula : callable
        Maps a slab of the patch to values of shape (B, K, *S), each of which depends on its own voxel only.

    Returns
    -------
    Tensor, a scalar
        A channel without a valid voxel adds 0.
    """
    axes = (0, *range(2, prepared.raw_logits.ndim))
    weights = prepared.weight_or_mask.sum(axes, keepdim=True).to(prepared.raw_logits.dtype)
    factors = torch.where(weights > 0, 1 / weights, 0)
    total, _ = voxel_sum(prepared, lambda slab: factors * formula(slab))
    return total


def _focal(cross_entropy: Tensor, gamma: float, clamp: float) -> Tensor:
    """Compute (1 - p)^gamma (-ln p) from -ln p."""
    if clamp:
        cross_entropy = cross_entropy.clamp(-math.log1p(-clamp), -math.log(clamp))
    error = -torch.expm1(-cross_entropy)  # 1 - p
    # A power below 1 has an infinite derivative at 0.
    return error.clamp_min(torch.finfo(error.dtype).tiny) ** gamma * cross_entropy


def _focal_of_negative(z: Tensor, gamma: float) -> Tensor:
    """Compute p^gamma (-ln(1 - p)), the focal loss of a voxel outside the class, from the logits of p."""
    p = z.sigmoid()
    # A power below 1 has an infinite derivative at 0.
    return (p.clamp_min(torch.finfo(p.dtype).tiny) if gamma < 1 else p) ** gamma * functional.softplus(z)
