"""Overlap losses that weigh false positives and false negatives apart: for classes with few voxels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unetvnet.losses.declare import head_modes
from napari_unetvnet.losses.sums import parts, quotient, region_sums

if TYPE_CHECKING:
    from torch import Tensor

    from napari_unetvnet.losses.prepared import Prepared

__all__ = ["focal_tversky", "tversky"]

# A power below 1 is infinitely steep at 0; moved by this much it is 1000 times as steep as at 1.
OFFSET = 1e-12


@head_modes("binary", "multiclass", "multilabel")
def tversky(prepared: Prepared, *, alpha: float = 0.3, beta: float = 0.7, smooth: float = 1.0) -> Tensor:
    """Tversky loss: Dice in which false positives and false negatives have weights of their own.

    A class absent from truth and prediction costs nothing.

    Parameters
    ----------
    prepared : Prepared
    alpha : float
        Weight of false positives.
    beta : float
        Weight of false negatives; above alpha it finds more of a rare class and more that is not there.
    smooth : float
        Added above and below.

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
    """Tversky loss of each class to a power, so that learning goes on when a class is nearly right.

    Parameters
    ----------
    prepared : Prepared
    alpha : float
        Weight of false positives.
    beta : float
        Weight of false negatives.
    gamma : float
        The power. Below 1 it dwells on classes that are nearly right, above 1 on those that are far from it. The paper
        writes 1/gamma and finds 3/4 best.
    smooth : float
        Added above and below.

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
    missed = (1 - _index(prepared, alpha, beta, smooth)).clamp_min(0)
    return (missed + OFFSET).pow(gamma).sub(OFFSET**gamma).mean()


def _index(prepared: Prepared, alpha: float, beta: float, smooth: float) -> Tensor:
    """Tversky index of each class, shape (K,)."""
    both, truth, said = region_sums(*parts(prepared), squared=False)
    return quotient(both + smooth, both + alpha * (said - both) + beta * (truth - both) + smooth)
