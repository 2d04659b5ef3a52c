"""Losses of the Dice family: how much of prediction and truth overlaps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from napari_unetvnet.losses.declare import head_modes
from napari_unetvnet.losses.sums import Sums, mask, parts, quotient, region_sums, shares, with_background

if TYPE_CHECKING:
    from torch import Tensor

    from napari_unetvnet.losses.prepared import Prepared

__all__ = ["dice", "dice_of_classes", "generalised_dice", "log_dice", "reweighted_dice", "weighted_dice"]


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

    A class absent from truth and prediction costs nothing: D is 1 there.

    Parameters
    ----------
    prepared : Prepared
    denominator : {"squared", "plain", "first"}
        Whether y and p are squared below; "first" is plain without smoothing below, by which D can exceed 1.
    smooth : float
        Added above and below.
    epsilon : float
        Added below only, besides smooth; with it and no smooth, a class that is absent costs up to 1.
    per_class : bool
        Mean over the classes of their own D; otherwise one D over all channels.
    per_image : bool
        Mean over the images of their own D; otherwise one D over the batch.

    Returns
    -------
    Tensor, a scalar in [0, 1]

    Notes
    -----
    Sums run over the known voxels, each with its weight.

    - squared: D = (2 Σyp + smooth) / (Σy² + Σp² + smooth + epsilon), the form that the Keras code came to [1]_.
    - plain: D = (2 Σyp + smooth) / (Σy + Σp + smooth + epsilon). With smooth = 1 it is the Dice of [3]_; with
      smooth = 1e-5 and ``per_image`` its weighted Dice. There the loss is -D, here 1 - D: the gradient is the same.
    - first: D = (2 Σyp + smooth) / (Σy + Σp + epsilon), as [1]_ began.

    Squared with smooth = 0 and epsilon = 1e-5 is the soft Dice of [4]_.

    References
    ----------
    .. [1] AmberzzZZ/unet_vnet_keras, https://github.com/AmberzzZZ/unet_vnet_keras
    .. [2] Milletari, Navab, Ahmadi 2016, V-Net, https://arxiv.org/abs/1606.04797
    .. [3] ellisdg/3DUnetCNN, https://github.com/ellisdg/3DUnetCNN
    .. [4] tkuanlun350/3DUnet-Tensorflow-Brats18, https://github.com/tkuanlun350/3DUnet-Tensorflow-Brats18
    """
    squared = denominator == "squared"
    sums = region_sums(*parts(prepared), squared=squared, per_image=per_image)
    if not per_class:
        sums = Sums(*(part.sum(-1) for part in sums))
    below = epsilon if denominator == "first" else smooth + epsilon
    return (1 - quotient(2 * sums.both + smooth, sums.truth + sums.said + below)).mean()


def dice_of_classes(prepared: Prepared, *, inverted: bool = False) -> Tensor:
    """Give the D of each class, squared and with smooth = 1, over the batch.

    Parameters
    ----------
    prepared : Prepared
    inverted : bool
        Of the rest of each class.

    Returns
    -------
    Tensor of shape (K,)
    """
    p, y, w = parts(prepared)
    sums = region_sums(p, y, mask(prepared) if inverted else w, inverted=inverted)
    return (2 * sums.both + 1) / (sums.truth + sums.said + 1)


@head_modes("binary", "multiclass", "multilabel")
def reweighted_dice(prepared: Prepared, *, channel_weights: tuple[float, ...] = ()) -> Tensor:
    """Dice with a weight for each channel, sum_c beta_c (1 - D_c) / sum_c beta_c.

    Parameters
    ----------
    prepared : Prepared
    channel_weights : tuple of float
        One for each channel; empty: all the same.

    Returns
    -------
    Tensor, a scalar in [0, 1]

    Notes
    -----
    D_c = (2 Σyp + 1) / (Σy² + Σp² + 1) over the batch. The source leaves out the division by Σβ.

    References
    ----------
    .. [1] AmberzzZZ/unet_vnet_keras, https://github.com/AmberzzZZ/unet_vnet_keras
    """
    lost = 1 - dice_of_classes(prepared)
    beta = shares(channel_weights, prepared.given).flatten()
    return (beta * lost).sum() / beta.sum()


@head_modes("binary", "multiclass", "multilabel")
def weighted_dice(prepared: Prepared, *, background: Literal["inverted", "literal"] = "inverted") -> Tensor:
    """Dice of the foreground and, with a smaller share, of the background, 0.8 (1 - D) + 0.2 (1 - D_background).

    Parameters
    ----------
    prepared : Prepared
    background : {"inverted", "literal"}
        D_background of 1 - y and 1 - p; or, as printed in the source, of an empty truth and of p outside the truth.

    Returns
    -------
    Tensor, a scalar in [0, 1]

    Notes
    -----
    With D(a, b) = (2 Σab + 1) / (Σa² + Σb² + 1) over the batch, for each channel against the rest, and their mean,

    - inverted: 0.8 (1 - D(y, p)) + 0.2 (1 - D(1 - y, 1 - p));
    - literal: 0.8 (1 - D(y y, p y)) + 0.2 (1 - D(0, p (1 - y))), whose second term is near 1 as soon as a few voxels of
      the background are taken for foreground, and then teaches little.

    References
    ----------
    .. [1] AmberzzZZ/unet_vnet_keras, https://github.com/AmberzzZZ/unet_vnet_keras
    """
    if background == "inverted":
        return 1 - (0.8 * dice_of_classes(prepared) + 0.2 * dice_of_classes(prepared, inverted=True)).mean()
    p, y, w = parts(prepared)
    inside, outside = region_sums(p * y, y * y, w), region_sums(p * (1 - y), torch.zeros_like(y), w)
    found, wrong = ((2 * sums.both + 1) / (sums.truth + sums.said + 1) for sums in (inside, outside))
    return 1 - (0.8 * found + 0.2 * wrong).mean()


@head_modes("binary", "multiclass", "multilabel")
def generalised_dice(prepared: Prepared, *, weighting: Literal["square", "simple", "uniform"] = "square") -> Tensor:
    """One Dice over all classes, in which small classes weigh more; a binary head counts its background as a class.

    Parameters
    ----------
    prepared : Prepared
    weighting : {"square", "simple", "uniform"}
        Weight of a class of r voxels: 1/r^2, 1/r or 1.

    Returns
    -------
    Tensor, a scalar in [0, 1]

    Notes
    -----
    1 - 2 Σ_c v_c Σyp / (Σ_c v_c (Σy + Σp) + 1e-6) over the batch, where v_c = 1/r_c², 1/r_c or 1, and r_c = Σy. A class
    that is nowhere has the largest weight of the others. Weights are divided by the largest, so that the 1e-6 stays
    small beside large patches; if no class is anywhere, the 1e-6 is added above as well.

    References
    ----------
    .. [1] Sudre et al. 2017, Generalised Dice overlap, https://arxiv.org/abs/1707.03237
    """
    both, truth, said = region_sums(*with_background(prepared), squared=False)
    v = 1 / truth ** {"square": 2, "simple": 1, "uniform": 0}[weighting]
    finite = v.isfinite()
    v = torch.where(finite, v, 0)
    v = torch.where(finite, v / v.max().clamp_min(torch.finfo(v.dtype).tiny), 1)
    nowhere = 1e-6 * (truth.sum() == 0)
    return 1 - (2 * (v * both).sum() + nowhere) / ((v * (truth + said)).sum() + 1e-6)


@head_modes("binary", "multiclass", "multilabel")
def log_dice(prepared: Prepared) -> Tensor:
    """Logarithm of Dice, -mean(ln D): the less overlap there is, the steeper.

    Parameters
    ----------
    prepared : Prepared

    Returns
    -------
    Tensor, a scalar

    Notes
    -----
    The mean over the classes of -ln D, with D = (2 Σyp + 1) / (Σy² + Σp² + 1) over the batch. The source writes
    ``focal + log(dice)`` and computes -ln(1 + (1 - D)), which rewards a low D; ``focal + log_dice`` is what is meant.

    References
    ----------
    .. [1] AmberzzZZ/unet_vnet_keras, https://github.com/AmberzzZZ/unet_vnet_keras
    """
    return -dice_of_classes(prepared).log().mean()
