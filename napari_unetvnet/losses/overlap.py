"""Losses of the Dice family: the overlap of prediction and target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from napari_unetvnet.losses.declare import head_modes
from napari_unetvnet.losses.sums import RegionSums, channel_factors, operands, ratio, region_sums, with_background

if TYPE_CHECKING:
    from torch import Tensor

    from napari_unetvnet.losses.prepared import Prepared

__all__ = ["dice", "dice_per_class", "generalised_dice", "log_dice", "reweighted_dice", "weighted_dice"]


@head_modes("binary", "multiclass", "multilabel")
def dice(
    prepared: Prepared,
    *,
    denominator: Literal["squared", "plain", "first"] = "squared",
    smooth: float = 1.0,
    epsilon: float = 0.0,
    per_class: bool = True,
    per_image: bool = False,
) -> Tensor:
    """Soft Dice, 1 - D with D = (2 sum(y p) + smooth) / (sum(y^2) + sum(p^2) + smooth) over the batch.

    A class absent from target and prediction has D = 1 and adds no loss.

    Parameters
    ----------
    denominator : {"squared", "plain", "first"}
        Whether y and p are squared in the denominator; "first" is plain without smoothing there, so D can exceed 1.
    smooth : float
        Added to numerator and denominator.
    epsilon : float
        Added to the denominator only; with smooth = 0, an absent class then has a loss of up to 1.
    per_class : bool
        Mean of one D per class; otherwise one D over all channels.
    per_image : bool
        Mean of one D per image; otherwise one D over the batch.

    Returns
    -------
    Tensor, a scalar in [0, 1]

    Notes
    -----
    Sums run over the valid voxels, each with its weight.

    - squared: D = (2 Σyp + smooth) / (Σy² + Σp² + smooth + epsilon), the final form of [1]_.
    - plain: D = (2 Σyp + smooth) / (Σy + Σp + smooth + epsilon). With smooth = 1 it is the Dice of [3]_; with
      smooth = 1e-5 and ``per_image`` its weighted Dice. Their loss is -D instead of 1 - D, with the same gradient.
    - first: D = (2 Σyp + smooth) / (Σy + Σp + epsilon), the first form of [1]_.

    Squared with smooth = 0 and epsilon = 1e-5 is the soft Dice of [4]_.

    References
    ----------
    .. [1] AmberzzZZ/unet_vnet_keras, https://github.com/AmberzzZZ/unet_vnet_keras
    .. [2] Milletari, Navab, Ahmadi 2016, V-Net, https://arxiv.org/abs/1606.04797
    .. [3] ellisdg/3DUnetCNN, https://github.com/ellisdg/3DUnetCNN
    .. [4] tkuanlun350/3DUnet-Tensorflow-Brats18, https://github.com/tkuanlun350/3DUnet-Tensorflow-Brats18
    """
    squared = denominator == "squared"
    sums = region_sums(*operands(prepared), squared=squared, per_image=per_image)
    if not per_class:
        sums = RegionSums(*(each.sum(-1) for each in sums))
    offset = epsilon if denominator == "first" else smooth + epsilon
    return (1 - ratio(2 * sums.intersection + smooth, sums.target + sums.prediction + offset)).mean()


def dice_per_class(prepared: Prepared, *, inverted: bool = False) -> Tensor:
    """Compute the Dice coefficient of each class over the batch, squared and with smooth = 1.

    Parameters
    ----------
    inverted : bool
        Of the complement of each class.

    Returns
    -------
    Tensor of shape (K,)
    """
    p, y, w = operands(prepared)
    # Inverted, p and y are 1 at ignored voxels, so the mask is needed even where all weights are 1.
    sums = region_sums(p, y, prepared.weight_or_mask if inverted else w, inverted=inverted)
    return _smoothed(sums)


def _smoothed(sums: RegionSums) -> Tensor:
    return (2 * sums.intersection + 1) / (sums.target + sums.prediction + 1)


@head_modes("binary", "multiclass", "multilabel")
def reweighted_dice(prepared: Prepared, *, channel_weights: tuple[float, ...] = ()) -> Tensor:
    """Dice with a weight for each channel, sum_c beta_c (1 - D_c) / sum_c beta_c.

    Parameters
    ----------
    channel_weights : tuple of float
        One per channel; empty: all equal.

    Returns
    -------
    Tensor, a scalar in [0, 1]

    Notes
    -----
    D_c = (2 Σyp + 1) / (Σy² + Σp² + 1) over the batch. The source does not divide by Σβ.

    References
    ----------
    .. [1] AmberzzZZ/unet_vnet_keras, https://github.com/AmberzzZZ/unet_vnet_keras
    """
    losses = 1 - dice_per_class(prepared)
    beta = channel_factors(channel_weights, prepared.raw_logits).flatten()
    return (beta * losses).sum() / beta.sum()


@head_modes("binary", "multiclass", "multilabel")
def weighted_dice(prepared: Prepared, *, background: Literal["inverted", "literal"] = "inverted") -> Tensor:
    """Dice of foreground and, with a smaller weight, background, 0.8 (1 - D) + 0.2 (1 - D_background).

    Parameters
    ----------
    background : {"inverted", "literal"}
        D_background of 1 - y and 1 - p; or, as printed in the source, of an empty target and of p outside the target.

    Returns
    -------
    Tensor, a scalar in [0, 1]

    Notes
    -----
    With D(a, b) = (2 Σab + 1) / (Σa² + Σb² + 1) over the batch, the mean over the channels of

    - inverted: 0.8 (1 - D(y, p)) + 0.2 (1 - D(1 - y, 1 - p));
    - literal: 0.8 (1 - D(y y, p y)) + 0.2 (1 - D(0, p (1 - y))). Its second D drops to nearly 0 with a few false
      positives and then has hardly any gradient.

    References
    ----------
    .. [1] AmberzzZZ/unet_vnet_keras, https://github.com/AmberzzZZ/unet_vnet_keras
    """
    if background == "inverted":
        return 1 - (0.8 * dice_per_class(prepared) + 0.2 * dice_per_class(prepared, inverted=True)).mean()
    p, y, w = operands(prepared)
    inside, outside = region_sums(p * y, y * y, w), region_sums(p * (1 - y), torch.zeros_like(y), w)
    return 1 - (0.8 * _smoothed(inside) + 0.2 * _smoothed(outside)).mean()


@head_modes("binary", "multiclass", "multilabel")
def generalised_dice(prepared: Prepared, *, weighting: Literal["square", "simple", "uniform"] = "square") -> Tensor:
    """One Dice over all classes, in which small classes weigh more; for a binary head the background is a class.

    Parameters
    ----------
    weighting : {"square", "simple", "uniform"}
        Weight of a class of r voxels: 1/r^2, 1/r or 1.

    Returns
    -------
    Tensor, a scalar in [0, 1]

    Notes
    -----
    1 - 2 Σ_c v_c Σyp / (Σ_c v_c (Σy + Σp) + 1e-6) over the batch, where v_c = 1/r_c², 1/r_c or 1, and r_c = Σy. An
    absent class has the largest weight of the others. Weights are divided by the largest, so that 1e-6 stays small
    compared to the sums of large patches. If all classes are absent, 1e-6 is added to the numerator as well.

    References
    ----------
    .. [1] Sudre et al. 2017, Generalised Dice overlap, https://arxiv.org/abs/1707.03237
    """
    intersection, target, prediction = region_sums(*with_background(prepared), squared=False)
    v = 1 / target ** {"square": 2, "simple": 1, "uniform": 0}[weighting]
    finite = v.isfinite()
    v = torch.where(finite, v, 0)
    v = torch.where(finite, v / v.max().clamp_min(torch.finfo(v.dtype).tiny), 1)
    offset = 1e-6 * (target.sum() == 0)
    return 1 - (2 * (v * intersection).sum() + offset) / ((v * (target + prediction)).sum() + 1e-6)


@head_modes("binary", "multiclass", "multilabel")
def log_dice(prepared: Prepared) -> Tensor:
    """Logarithm of Dice, -mean(ln D): the gradient grows as the overlap shrinks.

    Returns
    -------
    Tensor, a scalar

    Notes
    -----
    The mean over the classes of -ln D, with D = (2 Σyp + 1) / (Σy² + Σp² + 1) over the batch. The source
    documents ``focal + log(dice)`` but computes -ln(1 + (1 - D)), which rewards a low D; ``focal + log_dice`` is the
    documented one.

    References
    ----------
    .. [1] AmberzzZZ/unet_vnet_keras, https://github.com/AmberzzZZ/unet_vnet_keras
    """
    return -dice_per_class(prepared).log().mean()
