"""Losses that look at each voxel by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from napari_unetvnet.losses.adapters import Prepared, head_modes

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["bce", "ce"]


@head_modes("binary", "multiclass")
def ce(prepared: Prepared) -> Tensor:
    """Cross-entropy, -mean(sum_k y_k ln p_k) over the known voxels; on one channel the same as ``bce``.

    Parameters
    ----------
    prepared : Prepared

    Returns
    -------
    Tensor, a scalar
    """
    if prepared.head == "binary":
        return bce(prepared)
    voxels = -(prepared.target * prepared.logits.log_softmax(1)).sum(1, keepdim=True)
    return _mean(voxels, prepared.weight)


@head_modes("binary", "multilabel")
def bce(prepared: Prepared) -> Tensor:
    """Binary cross-entropy, -mean(y ln p + (1 - y) ln(1 - p)) over known voxels and channels.

    Parameters
    ----------
    prepared : Prepared

    Returns
    -------
    Tensor, a scalar
    """
    voxels = functional.binary_cross_entropy_with_logits(prepared.logits, prepared.target, reduction="none")
    return _mean(voxels, prepared.weight.expand_as(voxels))


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean, 0 where all weights are 0."""
    return (values * weight).sum() / weight.sum().clamp_min(torch.finfo(weight.dtype).tiny)
