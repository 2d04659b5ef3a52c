"""Losses of one source for thin lines, compact blocks, or both with a background."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unetvnet.losses.declare import head_modes, roles
from napari_unetvnet.losses.overlap import dice_per_class
from napari_unetvnet.losses.sums import channel_factors
from napari_unetvnet.losses.voxels import channel_cross_entropy, channel_focal, sum_of_channel_means

if TYPE_CHECKING:
    from torch import Tensor

    from napari_unetvnet.losses.prepared import Prepared

__all__ = ["block", "line", "ten_channel"]


@head_modes("binary", "multiclass", "multilabel")
def line(prepared: Prepared) -> Tensor:
    """Dice, reweighted binary cross-entropy and focal loss for thin lines, (1 - D) + 10 B + 100 F of each channel.

    Returns
    -------
    Tensor, a scalar

    Notes
    -----
    The mean over the channels of (1 - D) + 10 B + 100 F, which is ``focal_bce_dice`` of each channel alone; for a
    multiclass head, of each class against the rest.

    References
    ----------
    .. [1] AmberzzZZ/unet_vnet_keras, https://github.com/AmberzzZZ/unet_vnet_keras
    """
    channels = prepared.raw_logits.shape[1]
    lines = (1.0 / channels,) * channels
    return _weighted_sum(prepared, dice=lines, cross_entropy=lines, focal=lines)


@head_modes("binary", "multiclass", "multilabel")
def block(prepared: Prepared) -> Tensor:
    """Dice and focal loss for compact blocks, (1 - D) + 100 F of each channel.

    Returns
    -------
    Tensor, a scalar

    Notes
    -----
    The mean over the channels of (1 - D) + 100 F, which is ``focal_dice`` of each channel alone; for a multiclass
    head, of each class against the rest.

    References
    ----------
    .. [1] AmberzzZZ/unet_vnet_keras, https://github.com/AmberzzZZ/unet_vnet_keras
    """
    channels = prepared.raw_logits.shape[1]
    blocks = (1.0 / channels,) * channels
    return _weighted_sum(prepared, dice=blocks, focal=blocks)


@roles("background", "lines", "block")
@head_modes("multiclass", "multilabel")
def ten_channel(prepared: Prepared, *, background: str = "", lines: str = "", block: str = "") -> Tensor:
    """Background, lines and a block in one network, background + 2 sum(line_c) + 4 block.

    Parameters
    ----------
    background : str
        The class that is the background; empty for the background of the labels.
    lines : str
        The classes that are lines, such as [left, right]; empty for those that were chosen as lines.
    block : str
        The class that is a compact block; empty for the one that is left, if there is one.

    Returns
    -------
    Tensor, a scalar

    Notes
    -----
    (1 - D_0) + 2 Σ_c line_c + 4 block, where line_c = (1 - D_c) + 10 B_c + 100 F_c and block = (1 - D) + 100 F, each of
    its own channel; the blurred copies of a line are lines. The source has eight such channels.

    References
    ----------
    .. [1] AmberzzZZ/unet_vnet_keras, https://github.com/AmberzzZZ/unet_vnet_keras
    """
    del background, lines, block  # who has the roles is in prepared.roles

    def weights(**of_role: float) -> tuple[float, ...]:
        channels = {channel: weight for role, weight in of_role.items() for channel in prepared.roles[role]}
        return tuple(channels.get(channel, 0.0) for channel in range(prepared.raw_logits.shape[1]))

    return _weighted_sum(
        prepared,
        dice=weights(background=1, lines=2, block=4),
        cross_entropy=weights(lines=2),
        focal=weights(lines=2, block=4),
    )


def _weighted_sum(
    prepared: Prepared,
    *,
    dice: tuple[float, ...],
    focal: tuple[float, ...],
    cross_entropy: tuple[float, ...] = (),
) -> Tensor:
    """Sum 1 - D, 10 times the reweighted cross-entropy and 100 times the focal loss, with one weight per channel."""
    dice_weights, focal_weights = (channel_factors(weights, prepared.raw_logits) for weights in (dice, focal))

    def per_voxel(slab: Prepared) -> Tensor:
        """Compute the terms that are a mean over voxels, in one pass over the slabs."""
        values = 100 * focal_weights * channel_focal(slab, 0.99, 2.0)
        if not cross_entropy:
            return values
        return values + 10 * channel_factors(cross_entropy, slab.raw_logits) * channel_cross_entropy(slab, 0.99)

    dice_losses = dice_weights.flatten() * (1 - dice_per_class(prepared))
    return dice_losses.sum() + sum_of_channel_means(prepared, per_voxel)
