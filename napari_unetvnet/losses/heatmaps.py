"""A loss for classes beside blurred copies of the lines among them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unetvnet.losses.combined import dice_ce
from napari_unetvnet.losses.declare import begins_at, head_modes, roles
from napari_unetvnet.losses.overlap import dice_per_class
from napari_unetvnet.losses.sums import channel_factors
from napari_unetvnet.losses.voxels import sum_of_channel_means, voxel_cross_entropy

if TYPE_CHECKING:
    from torch import Tensor

    from napari_unetvnet.losses.prepared import Prepared

__all__ = ["heatmap_dice_ce"]


@begins_at("frequencies")
@roles("classes", "heatmaps")
@head_modes("binary", "multiclass", "multilabel")
def heatmap_dice_ce(prepared: Prepared, *, heatmap_weight: float = 0.5, line_weight: float = 4.0) -> Tensor:
    """Dice plus cross-entropy of each class, and cross-entropy of the blurred copies of lines, their heat maps.

    A network starts with the frequencies of the classes as its probabilities. Without lines it is ``dice_ce``.

    Parameters
    ----------
    heatmap_weight : float
        Factor of the mean cross-entropy of the heat maps.
    line_weight : float
        Weight of the voxels on a line, against 1 beside it, in addition to class weights. The larger, the fewer lines
        are missed, and the thicker they are.

    Returns
    -------
    Tensor, a scalar

    Notes
    -----
    The mean over the classes of (1 - D) + CE, plus heatmap_weight times the mean over the heat maps of CE, with
    D = (2 Σyp + 1) / (Σy² + Σp² + 1) and CE the binary cross-entropy, weighted as class weights are. The Dice of a
    faint, wide blur would only compete with that of the line, so heat maps have none.

    References
    ----------
    .. [1] AmberzzZZ/unet_vnet_keras, https://github.com/AmberzzZZ/unet_vnet_keras
    """
    heatmaps = prepared.roles.get("heatmaps", ())
    if not heatmaps:
        return dice_ce(prepared)
    classes, channels = prepared.roles["classes"], range(prepared.raw_logits.shape[1])
    lines = {channel for channel in classes if channel + 1 in heatmaps}
    prepared = prepared.with_class_weights(tuple(line_weight if c in {*lines, *heatmaps} else 1.0 for c in channels))
    of_class = tuple(float(channel in classes) / len(classes) for channel in channels)
    of_map = tuple(heatmap_weight * (channel in heatmaps) / len(heatmaps) for channel in channels)
    dice_weights = channel_factors(of_class, prepared.raw_logits).flatten()
    entropy_weights = channel_factors(tuple(map(sum, zip(of_class, of_map, strict=True))), prepared.raw_logits)
    entropy = sum_of_channel_means(prepared, lambda slab: entropy_weights * voxel_cross_entropy(slab))
    return (dice_weights * (1 - dice_per_class(prepared))).sum() + entropy
