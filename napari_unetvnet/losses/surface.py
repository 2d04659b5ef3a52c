"""Losses that weight a misclassified voxel by its distance from the border of the target.

Distances come from the exact Euclidean distance transform of scipy, on the CPU and without a gradient. They are divided
by the longest side of the patch, so that the loss does not depend on the size of the patch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt

from napari_unetvnet.losses.declare import head_modes

if TYPE_CHECKING:
    from torch import Tensor

    from napari_unetvnet.losses.prepared import Prepared

__all__ = ["boundary", "hausdorff"]


@head_modes("binary", "multiclass", "multilabel")
def boundary(prepared: Prepared) -> Tensor:
    """Boundary loss: each misclassified voxel counts with its distance from the border of the target.

    A class without a border in an image adds no loss there, so combine it with another loss, as the paper does.

    Returns
    -------
    Tensor, a scalar, at least 0

    Notes
    -----
    The mean over voxels and classes of φ p - min(φ, 0) = |φ| |p - y|, where φ is the distance to the border, negative
    inside the target. The paper's loss is φ p alone. The second term, its minimum, does not depend on the prediction:
    it leaves the gradient as it is and makes the loss of a perfect prediction 0. The distance is that to the nearest
    valid voxel on the other side of the border, divided by the longest side of the patch.

    References
    ----------
    .. [1] Kervadec et al. 2019, Boundary loss, https://arxiv.org/abs/1812.07032
    """
    p, inside = prepared.probabilities, prepared.target > 0.5
    return _mean(_distances(inside, prepared.valid).to(p) * torch.where(inside, 1 - p, p), prepared.weight)


@head_modes("binary", "multiclass", "multilabel")
def hausdorff(prepared: Prepared, *, alpha: float = 2.0) -> Tensor:
    """Hausdorff loss by distance transforms: errors weighted by distance from the borders of target and prediction.

    An empty or full mask has no border and distance 0, so combine it with another loss, as the paper does.

    Parameters
    ----------
    alpha : float
        Power of the distances: the larger, the more the farthest errors dominate.

    Returns
    -------
    Tensor, a scalar, at least 0

    Notes
    -----
    The mean over voxels and classes of (p - y)^2 (d_p^alpha + d_y^alpha), where d is the distance to the nearest valid
    voxel on the other side of the border of the target (d_y) and of p > 0.5 (d_p), divided by the longest side of the
    patch.

    References
    ----------
    .. [1] Karimi, Salcudean 2019, Reducing the Hausdorff distance, https://doi.org/10.1109/TMI.2019.2930068
    """
    p, y, valid = prepared.probabilities, prepared.target, prepared.valid
    distances = _distances(p > 0.5, valid) ** alpha
    distances += _distances(y > 0.5, valid) ** alpha
    return _mean((p - y) ** 2 * distances.to(p), prepared.weight)


@torch.no_grad()
def _distances(inside: Tensor, valid: Tensor) -> Tensor:
    """Distance to the nearest valid voxel on the other side, in longest sides; 0 where there is none; on the CPU."""
    masks, usable = inside.cpu().numpy(), valid.cpu().expand_as(inside).numpy()
    distances = np.zeros(masks.shape, np.float32)
    for index in np.ndindex(*masks.shape[:2]):
        sides = masks[index] & usable[index], ~masks[index] & usable[index]
        if all(side.any() for side in sides):
            for side in sides:
                # 0 on the side itself, so that the sum over both sides is the distance to the other side. Ignored
                # voxels, which are on neither, get a value without meaning and have weight 0.
                distances[index] += distance_transform_edt(~side)
    return torch.from_numpy(distances).div_(max(masks.shape[2:]))


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean over voxels and channels, 0 where all weights are 0."""
    weight = weight.expand_as(values)
    return (values * weight).sum() / weight.sum().clamp_min(torch.finfo(weight.dtype).tiny)
