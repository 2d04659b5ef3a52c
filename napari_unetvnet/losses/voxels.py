"""What a voxel loses by itself: formulas that `slabs.voxel_sum` sums up a part of a patch at a time.

All start from logits, where ln p is exact however sure a network is: clipped probabilities would leave a voxel that is
wrong and sure of it without a gradient.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from napari_unetvnet.losses.slabs import voxel_sum
from napari_unetvnet.losses.sums import mask

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from napari_unetvnet.losses.prepared import Prepared

__all__ = ["channel_sum", "focal_of_channels", "focal_of_classes", "one_vs_rest", "surprise", "surprise_of_channels"]


def surprise(prepared: Prepared) -> Tensor:
    """Give -ln of the probability of the truth.

    Parameters
    ----------
    prepared : Prepared

    Returns
    -------
    Tensor of shape (B, 1, *S), or (B, K, *S) for sigmoids
    """
    if prepared.head != "multiclass":
        return functional.binary_cross_entropy_with_logits(prepared.logits, prepared.target, reduction="none")
    if not prepared.by_index:
        return -(prepared.target * prepared.logits.log_softmax(1)).sum(1, keepdim=True)
    classes = torch.where(prepared.known.squeeze(1), prepared.labels, 0).long()
    return functional.cross_entropy(prepared.logits, classes, reduction="none").unsqueeze(1)


def surprise_of_channels(prepared: Prepared, alpha: float) -> Tensor:
    """Give -(alpha y ln p + (1 - alpha) (1 - y) ln(1 - p)) of each channel against the rest.

    Parameters
    ----------
    prepared : Prepared
    alpha : float

    Returns
    -------
    Tensor of shape (B, K, *S)
    """
    z, y = one_vs_rest(prepared), prepared.target
    rest = max(1 - alpha, 1e-12)  # for alpha = 1, which would divide by 0
    return functional.binary_cross_entropy_with_logits(
        z, y, z.new_tensor(rest), pos_weight=z.new_tensor(alpha / rest), reduction="none"
    )


def focal_of_channels(prepared: Prepared, alpha: float, gamma: float, clamp: float = 0.0) -> Tensor:
    """Give -(alpha y (1 - p)^gamma ln p + (1 - alpha) (1 - y) p^gamma ln(1 - p)) of each channel against the rest.

    Parameters
    ----------
    prepared : Prepared
    alpha, gamma, clamp : float

    Returns
    -------
    Tensor of shape (B, K, *S)
    """
    z, y = one_vs_rest(prepared), prepared.target
    if clamp:
        bound = math.log1p(-clamp) - math.log(clamp)
        z = z.clamp(-bound, bound)
    if not prepared.labels.is_floating_point():  # y is 0 or 1, so one of the two sides is all there is
        return ((1 - alpha) + (2 * alpha - 1) * y) * _focused_side(z * (1 - 2 * y), gamma)
    return alpha * y * _focused_side(-z, gamma) + (1 - alpha) * (1 - y) * _focused_side(z, gamma)


def focal_of_classes(prepared: Prepared, alpha: float, gamma: float, clamp: float) -> Tensor:
    """Give -alpha sum_k y_k (1 - p_k)^gamma ln p_k of a softmax.

    Parameters
    ----------
    prepared : Prepared
    alpha, gamma, clamp : float

    Returns
    -------
    Tensor of shape (B, 1, *S)
    """
    if prepared.by_index:
        return alpha * _focused(surprise(prepared), gamma, clamp)
    each = _focused(-prepared.logits.log_softmax(1), gamma, clamp)
    return alpha * (prepared.target * each).sum(1, keepdim=True)


def one_vs_rest(prepared: Prepared) -> Tensor:
    """Give logits whose sigmoids are the probabilities: those of a softmax for one class against the rest.

    Parameters
    ----------
    prepared : Prepared

    Returns
    -------
    Tensor of shape (B, K, *S)
    """
    z = prepared.logits
    if prepared.head != "multiclass":
        return z
    is_top = torch.zeros_like(z, dtype=torch.bool).scatter(1, z.argmax(1, keepdim=True), True)
    log_p = z.log_softmax(1)
    # logit(p) = ln p - ln(1 - p), where 1 - p of the largest must come from the others: it may round to 0.
    of_top = z - torch.where(is_top, -math.inf, z).logsumexp(1, keepdim=True)
    return torch.where(is_top, of_top, log_p - torch.log1p(-log_p.exp().clamp(max=0.75)))


def channel_sum(prepared: Prepared, formula: Callable[[Prepared], Tensor]) -> Tensor:
    """Sum up the means that a formula has over the known voxels of each channel.

    Parameters
    ----------
    prepared : Prepared
    formula : callable
        Takes a part of the patch and gives values of shape (B, K, *S), each from its own voxel.

    Returns
    -------
    Tensor, a scalar
        A channel of which nothing is known adds 0.
    """
    axes = (0, *range(2, prepared.given.ndim))
    weights = mask(prepared).sum(axes, keepdim=True).to(prepared.given.dtype)
    factors = torch.where(weights > 0, 1 / weights, 0)
    total, _ = voxel_sum(prepared, lambda part: factors * formula(part))
    return total


def _focused(cost: Tensor, gamma: float, clamp: float) -> Tensor:
    """Give (1 - p)^gamma (-ln p) from -ln p."""
    if clamp:
        cost = cost.clamp(-math.log1p(-clamp), -math.log(clamp))
    missed = -torch.expm1(-cost)
    # A power below 1 is infinitely steep at 0.
    return missed.clamp_min(torch.finfo(missed.dtype).tiny) ** gamma * cost


def _focused_side(z: Tensor, gamma: float) -> Tensor:
    """Give p^gamma (-ln(1 - p)) from the logits of p."""
    p = z.sigmoid()
    # A power below 1 is infinitely steep at 0.
    return (p.clamp_min(torch.finfo(p.dtype).tiny) if gamma < 1 else p) ** gamma * functional.softplus(z)
