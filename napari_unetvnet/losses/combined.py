"""Sums that have a name of their own because everybody uses them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from napari_unetvnet.losses.cross_entropy import bce, ce, reweighted_bce
from napari_unetvnet.losses.declare import head_modes, roles
from napari_unetvnet.losses.focal import focal
from napari_unetvnet.losses.overlap import dice
from napari_unetvnet.losses.sums import region_sums, with_background

if TYPE_CHECKING:
    from torch import Tensor

    from napari_unetvnet.losses.prepared import Prepared

__all__ = ["bce_dice", "dice_ce", "drive_ce_dice", "focal_bce_dice", "focal_dice"]


@head_modes("binary", "multiclass", "multilabel")
def dice_ce(prepared: Prepared, *, ce_weight: float = 1.0) -> Tensor:
    """Dice plus cross-entropy (binary cross-entropy where channels are sigmoids), (1 - D) + ce_weight CE.

    Parameters
    ----------
    prepared : Prepared
    ce_weight : float
        Factor of the cross-entropy.

    Returns
    -------
    Tensor, a scalar

    Notes
    -----
    (1 - D) + ce_weight CE, the sum of ``dice`` and ``ce``. On one channel it is the (1 - D) + BCE by which [2]_ trains
    its 3D V-Net.

    References
    ----------
    .. [1] Isensee et al. 2021, nnU-Net, https://doi.org/10.1038/s41592-020-01008-z
    .. [2] AmberzzZZ/unet_vnet_keras, https://github.com/AmberzzZZ/unet_vnet_keras
    """
    entropy = bce(prepared) if prepared.head == "multilabel" else ce(prepared)
    return dice(prepared) + ce_weight * entropy


@head_modes("binary", "multilabel")
def bce_dice(
    prepared: Prepared,
    *,
    bce_weight: float = 1.0,
    alpha: float = 0.0,
    denominator: Literal["squared", "plain", "first"] = "squared",
) -> Tensor:
    """Binary cross-entropy plus Dice, bce_weight BCE + (1 - D).

    Parameters
    ----------
    prepared : Prepared
    bce_weight : float
        Factor of the binary cross-entropy.
    alpha : float
        Weight of the voxels where a class is, as in ``reweighted_bce``; 0: all voxels weigh 1.
    denominator : {"squared", "plain", "first"}
        That of ``dice``.

    Returns
    -------
    Tensor, a scalar

    Notes
    -----
    k BCE + (1 - D). The source has alpha = 0.99 and k = 10 for lines and discs; in its first version alpha = 0.999, D
    of the first form, and k = 100 for its U-Net and 0.01 for its V-Net.

    References
    ----------
    .. [1] AmberzzZZ/unet_vnet_keras, https://github.com/AmberzzZZ/unet_vnet_keras
    """
    entropy = reweighted_bce(prepared, alpha=alpha) if alpha else bce(prepared)
    return bce_weight * entropy + dice(prepared, denominator=denominator)


@head_modes("binary", "multiclass", "multilabel")
def focal_dice(prepared: Prepared, *, focal_weight: float = 100.0, alpha: float = 0.99, gamma: float = 2.0) -> Tensor:
    """Dice plus focal loss, (1 - D) + focal_weight F: of the source's sums the best at the edges of blocks.

    Parameters
    ----------
    prepared : Prepared
    focal_weight : float
        Factor of the focal loss.
    alpha : float
        That of ``focal``.
    gamma : float
        That of ``focal``.

    Returns
    -------
    Tensor, a scalar

    Notes
    -----
    (1 - D) + 100 F, the sum of ``dice`` and 100 ``focal``.

    References
    ----------
    .. [1] AmberzzZZ/unet_vnet_keras, https://github.com/AmberzzZZ/unet_vnet_keras
    """
    return dice(prepared) + focal_weight * focal(prepared, alpha=alpha, gamma=gamma)


@head_modes("binary", "multiclass", "multilabel")
def focal_bce_dice(
    prepared: Prepared,
    *,
    bce_weight: float = 10.0,
    focal_weight: float = 100.0,
    alpha: float = 0.99,
    gamma: float = 2.0,
) -> Tensor:
    """Dice, reweighted binary cross-entropy and focal loss, (1 - D) + bce_weight B + focal_weight F.

    Parameters
    ----------
    prepared : Prepared
    bce_weight : float
        Factor of ``reweighted_bce``.
    focal_weight : float
        Factor of ``focal``.
    alpha : float
        That of both.
    gamma : float
        That of ``focal``.

    Returns
    -------
    Tensor, a scalar

    Notes
    -----
    (1 - D) + 10 B + 100 F, the sum of ``dice``, 10 ``reweighted_bce``, which finds where a line is, and 100 ``focal``,
    which finds that there is one.

    References
    ----------
    .. [1] AmberzzZZ/unet_vnet_keras, https://github.com/AmberzzZZ/unet_vnet_keras
    """
    entropy = reweighted_bce(prepared, alpha=alpha)
    return dice(prepared) + bce_weight * entropy + focal_weight * focal(prepared, alpha=alpha, gamma=gamma)


@roles("background", "foreground")
@head_modes("binary", "multiclass")
def drive_ce_dice(prepared: Prepared, *, class_weights: tuple[float, ...] = ()) -> Tensor:
    """Weighted cross-entropy plus Dice of all classes, CE + (1 - mean(D)), as for the vessels of DRIVE.

    Parameters
    ----------
    prepared : Prepared
    class_weights : tuple of float
        One for each class, in the cross-entropy. Empty: 1 and 2 for two classes, the same for more.

    Returns
    -------
    Tensor, a scalar

    Notes
    -----
    CE = Σ w(t_i) (-ln p_i) / Σ w(t_i). D = (2 Σxt + 1e-6) / (Σx + Σt + 1e-6) for each image and class, the background
    included; where both are empty D is 1. Ignored pixels count in neither part.

    References
    ----------
    .. [1] yingmuzhi/artificial_intelligence, https://github.com/yingmuzhi/artificial_intelligence
    """
    if not class_weights and (prepared.head == "binary" or prepared.given.shape[1] == 2):
        class_weights = (1.0, 2.0)
    entropy = ce(prepared.weighted(class_weights) if class_weights else prepared)
    both, truth, said = region_sums(*with_background(prepared), squared=False, per_image=True)
    return entropy + 1 - ((2 * both + 1e-6) / (truth + said + 1e-6)).mean()
