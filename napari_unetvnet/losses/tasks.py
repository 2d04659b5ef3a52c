"""Losses that a source fits to what its channels show: thin lines, compact blocks, or both beside a background."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.losses.declare import head_modes, roles
from napari_unetvnet.losses.overlap import dice_of_classes
from napari_unetvnet.losses.sums import shares
from napari_unetvnet.losses.voxels import channel_sum, focal_of_channels, surprise_of_channels

if TYPE_CHECKING:
    from torch import Tensor

    from napari_unetvnet.losses.prepared import Prepared

__all__ = ["block", "line", "ten_channel"]


@head_modes("binary", "multiclass", "multilabel")
def line(prepared: Prepared) -> Tensor:
    """Dice, reweighted binary cross-entropy and focal loss of a thin line, (1 - D) + 10 B + 100 F of each channel.

    Parameters
    ----------
    prepared : Prepared

    Returns
    -------
    Tensor, a scalar

    Notes
    -----
    The mean over the channels of (1 - D) + 10 B + 100 F, which is ``focal_bce_dice`` of a channel alone; in a
    multiclass head, of a class against the rest.

    References
    ----------
    .. [1] AmberzzZZ/unet_vnet_keras, https://github.com/AmberzzZZ/unet_vnet_keras
    """
    channels = prepared.given.shape[1]
    lines = (1.0 / channels,) * channels
    return _tasks(prepared, overlap=lines, entropy=lines, focused=lines)


@head_modes("binary", "multiclass", "multilabel")
def block(prepared: Prepared) -> Tensor:
    """Dice and focal loss of a compact block, (1 - D) + 100 F of each channel.

    Parameters
    ----------
    prepared : Prepared

    Returns
    -------
    Tensor, a scalar

    Notes
    -----
    The mean over the channels of (1 - D) + 100 F, which is ``focal_dice`` of a channel alone; in a multiclass head, of
    a class against the rest.

    References
    ----------
    .. [1] AmberzzZZ/unet_vnet_keras, https://github.com/AmberzzZZ/unet_vnet_keras
    """
    channels = prepared.given.shape[1]
    blocks = (1.0 / channels,) * channels
    return _tasks(prepared, overlap=blocks, focused=blocks)


@roles("background", "lines", "block")
@head_modes("multiclass", "multilabel")
def ten_channel(prepared: Prepared) -> Tensor:
    """Background, lines and a block in one network, background + 2 sum(line_c) + 4 block.

    The first channel is the background, the last the block, those between are lines; at least three.

    Parameters
    ----------
    prepared : Prepared

    Returns
    -------
    Tensor, a scalar

    Raises
    ------
    DataProblem
        If there are fewer than three channels.

    Notes
    -----
    (1 - D_0) + 2 Σ_c line_c + 4 block, where line_c = (1 - D_c) + 10 B_c + 100 F_c and block = (1 - D) + 100 F, each of
    its channel alone; the source has eight lines.

    References
    ----------
    .. [1] AmberzzZZ/unet_vnet_keras, https://github.com/AmberzzZZ/unet_vnet_keras
    """
    lines = prepared.given.shape[1] - 2
    if lines < 1:
        raise DataProblem(
            f"Loss ten_channel needs a background, lines and a block: at least 3 channels, not {lines + 2}."
        )
    return _tasks(prepared, overlap=(1, *(2,) * lines, 4), entropy=(0, *(2,) * lines, 0), focused=(0, *(2,) * lines, 4))


def _tasks(
    prepared: Prepared, *, overlap: tuple[float, ...], focused: tuple[float, ...], entropy: tuple[float, ...] = ()
) -> Tensor:
    """Sum up 1 - D, 10 times the reweighted cross-entropy and 100 times the focal loss, each channel with a factor."""
    of_overlap, of_focused = (shares(factors, prepared.given) for factors in (overlap, focused))

    def of_voxels(part: Prepared) -> Tensor:
        """Give what does not depend on overlap."""
        values = 100 * of_focused * focal_of_channels(part, 0.99, 2.0)
        return values + 10 * shares(entropy, part.given) * surprise_of_channels(part, 0.99) if entropy else values

    lost = of_overlap.flatten() * (1 - dice_of_classes(prepared))
    return lost.sum() + channel_sum(prepared, of_voxels)
