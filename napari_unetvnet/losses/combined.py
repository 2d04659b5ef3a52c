"""Common sums of losses under a name of their own."""

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

TWO_CLASSES = {"background": (0,), "foreground": (1,)}
__all__ = ["bce_dice", "dice_ce", "drive_ce_dice", "focal_bce_dice", "focal_dice"]


@head_modes("binary", "multiclass", "multilabel")
def dice_ce(prepared: Prepared, *, ce_weight: float = 1.0) -> Tensor:
    """Dice plus cross-entropy (binary cross-entropy where channels are sigmoids), (1 - D) + ce_weight CE.

    Parameters
    ----------
    ce_weight : float
        Factor of the cross-entropy.

    Returns
    -------
    Tensor, a scalar

    Notes
    -----
    (1 - D) + ce_weight CE, the sum of ``dice`` and ``ce``. On one channel it is the (1 - D) + BCE with which [2]_
    trains its 3D V-Net.

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
    bce_weight : float
        Factor of the binary cross-entropy.
    alpha : float
        Weight of the voxels inside a class, as in ``reweighted_bce``; 0: all voxels weigh 1.
    denominator : {"squared", "plain", "first"}
        That of ``dice``.

    Returns
    -------
    Tensor, a scalar

    Notes
    -----
    k BCE + (1 - D), where k is ``bce_weight``. The source uses alpha = 0.99 and k = 10 for lines and discs; its first
    version alpha = 0.999, D with the "first" denominator, and k = 100 for its U-Net and 0.01 for its V-Net.

    References
    ----------
    .. [1] AmberzzZZ/unet_vnet_keras, https://github.com/AmberzzZZ/unet_vnet_keras
    """
    entropy = reweighted_bce(prepared, alpha=alpha) if alpha else bce(prepared)
    return bce_weight * entropy + dice(prepared, denominator=denominator)


@head_modes("binary", "multiclass", "multilabel")
def focal_dice(prepared: Prepared, *, focal_weight: float = 100.0, alpha: float = 0.99, gamma: float = 2.0) -> Tensor:
    """Dice plus focal loss, (1 - D) + focal_weight F: in the source the best of its sums at the edges of blocks.

    Parameters
    ----------
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
    (1 - D) + 10 B + 100 F, the sum of ``dice``, 10 ``reweighted_bce``, which locates a line, and 100 ``focal``, which
    detects it.

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
    class_weights : tuple of float
        One per class, for the cross-entropy. Empty: 1 and 2 for background and foreground, equal for more classes.

    Returns
    -------
    Tensor, a scalar

    Notes
    -----
    CE = Σ_i w(y_i) (-ln p_i) / Σ_i w(y_i), with p_i the probability of the target class y_i.
    D = (2 Σpy + 1e-6) / (Σp + Σy + 1e-6) for each image and class, the background included; D is 1 where both are
    empty. Ignored pixels count in neither.

    References
    ----------
    .. [1] yingmuzhi/artificial_intelligence, https://github.com/yingmuzhi/artificial_intelligence
    """
    if not class_weights and (prepared.head == "binary" or prepared.roles == TWO_CLASSES):
        class_weights = (1.0, 2.0)
    entropy = ce(prepared.with_class_weights(class_weights) if class_weights else prepared)
    sums = region_sums(*with_background(prepared), squared=False, per_image=True)
    return entropy + 1 - ((2 * sums.intersection + 1e-6) / (sums.target + sums.prediction + 1e-6)).mean()
