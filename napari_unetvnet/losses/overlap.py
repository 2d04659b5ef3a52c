"""Losses that compare sums over a region: how much of prediction and truth overlaps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from napari_unetvnet.losses.adapters import Prepared, head_modes

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["dice"]


@head_modes("binary", "multiclass", "multilabel")
def dice(
    prepared: Prepared,
    *,
    denominator: Literal["squared", "plain"] = "squared",
    smooth: float = 1.0,
    per_class: bool = True,
) -> Tensor:
    """Soft Dice, 1 - D with D = (2 sum(y p) + smooth) / (sum(y^2) + sum(p^2) + smooth) over the batch.

    A class absent from truth and prediction costs nothing: D is 1 there.

    Parameters
    ----------
    prepared : Prepared
    denominator : {"squared", "plain"}
        Whether y and p are squared below.
    smooth : float
        Added above and below.
    per_class : bool
        Mean over the classes of their own D; otherwise one D over all channels.

    Returns
    -------
    Tensor, a scalar in [0, 1]

    References
    ----------
    .. [1] Milletari, Navab, Ahmadi 2016, V-Net, https://arxiv.org/abs/1606.04797
    """
    p, y, w = prepared.probabilities, prepared.target, prepared.weight
    axes = tuple(axis for axis in range(p.ndim) if axis != 1 or not per_class)
    power = 2 if denominator == "squared" else 1
    overlap = 2 * (w * y * p).sum(axes) + smooth
    total = (w * (y**power + p**power)).sum(axes) + smooth
    # Only without smoothing can the total be 0: nothing there and nothing predicted, which is right.
    coefficient = torch.where(total > 0, overlap / total.clamp_min(torch.finfo(total.dtype).tiny), 1.0)
    return (1 - coefficient).mean()
