"""Overlap losses with separate weights for false positives and false negatives, for rare classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unetvnet.losses.declare import head_modes
from napari_unetvnet.losses.sums import operands, ratio, region_sums

if TYPE_CHECKING:
    from torch import Tensor

    from napari_unetvnet.losses.prepared import Prepared

__all__ = ["focal_tversky", "tversky"]

# A power below 1 has an infinite derivative at 0; moved by this offset, about 1000 times the derivative at 1.
OFFSET = 1e-12


@head_modes("binary", "multiclass", "multilabel")
def tversky(prepared: Prepared, *, alpha: float = 0.3, beta: float = 0.7, smooth: float = 1.0) -> Tensor:
    """Tversky loss: Dice with separate weights for false positives and false negatives.

    A class absent from target and prediction adds no loss.

    Parameters
    ----------
    alpha : float
        Weight of false positives.
    beta : float
        Weight of false negatives; above alpha it favours recall over precision.
    smooth : float
        Added to numerator and denominator.

    Returns
    -------
    Tensor, a scalar in [0, 1]

    Notes
    -----
    The mean over the classes of 1 - T, where over the batch

    T = (sum(y p) + smooth) / (sum(y p) + alpha sum((1 - y) p) + beta sum(y (1 - p)) + smooth).

    With alpha = beta = 0.5 it is ``dice`` with the plain denominator and twice the smoothing.

    References
    ----------
    .. [1] Salehi, Erdogmus, Gholipour 2017, Tversky loss, https://arxiv.org/abs/1706.05721
    """
    return (1 - _index(prepared, alpha, beta, smooth)).mean()


@head_modes("binary", "multiclass", "multilabel")
def focal_tversky(
    prepared: Prepared, *, alpha: float = 0.3, beta: float = 0.7, gamma: float = 0.75, smooth: float = 1.0
) -> Tensor:
    """Tversky loss of each class to a power, which keeps the gradient large for classes that are nearly right.

    Parameters
    ----------
    alpha : float
        Weight of false positives.
    beta : float
        Weight of false negatives.
    gamma : float
        The power. Below 1 it emphasises classes that are nearly right, above 1 those that are not. The paper writes the
        power as 1/gamma and finds 3/4 best.
    smooth : float
        Added to numerator and denominator.

    Returns
    -------
    Tensor, a scalar in [0, 1]

    Notes
    -----
    The mean over the classes of (1 - T)^gamma, with T as in ``tversky``.

    References
    ----------
    .. [1] Abraham, Khan 2019, Focal Tversky loss, https://doi.org/10.1109/ISBI.2019.8759329
    """
    loss = (1 - _index(prepared, alpha, beta, smooth)).clamp_min(0)
    return (loss + OFFSET).pow(gamma).sub(OFFSET**gamma).mean()


def _index(prepared: Prepared, alpha: float, beta: float, smooth: float) -> Tensor:
    """Compute the Tversky index of each class, shape (K,)."""
    tp, target, prediction = region_sums(*operands(prepared), squared=False)
    return ratio(tp + smooth, tp + alpha * (prediction - tp) + beta * (target - tp) + smooth)
