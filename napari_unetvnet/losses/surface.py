"""Losses that ask how far a wrong voxel lies from the border of the truth.

Distances come from the exact Euclidean transform of scipy, on the CPU and without a gradient. They are counted in
lengths of the patch's longest side, so that a loss means the same in a large patch as in a small one.
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
    """Boundary loss: each voxel on the wrong side costs its distance to the border of the truth.

    A class without a border in an image costs nothing there, so use it beside another loss, as the paper does.

    Parameters
    ----------
    prepared : Prepared

    Returns
    -------
    Tensor, a scalar, at least 0

    Notes
    -----
    The mean over voxels and classes of φ p - min(φ, 0) = |φ| |p - y|, where φ is the distance to the border, negative
    inside the truth. The paper's loss is φ p alone, whose smallest value the second term takes away: it is the same for
    all predictions, so the gradient is the paper's and a perfect prediction costs 0. The distance of a voxel is that to
    the nearest known voxel on the other side, divided by the longest side of the patch.

    References
    ----------
    .. [1] Kervadec et al. 2019, Boundary loss, https://arxiv.org/abs/1812.07032
    """
    p, inside = prepared.probabilities, prepared.target > 0.5
    return _mean(_distances(inside, prepared.known).to(p) * torch.where(inside, 1 - p, p), prepared.weight)


@head_modes("binary", "multiclass", "multilabel")
def hausdorff(prepared: Prepared, *, alpha: float = 2.0) -> Tensor:
    """Hausdorff loss by distance transforms: errors count by their distance to the borders of truth and prediction.

    A mask that is empty or full has no border and adds no distance, so use it beside another loss, as the paper does.

    Parameters
    ----------
    prepared : Prepared
    alpha : float
        Power of the distances: the larger, the more the farthest error decides.

    Returns
    -------
    Tensor, a scalar, at least 0

    Notes
    -----
    The mean over voxels and classes of (p - y)^2 (d_p^alpha + d_y^alpha), where d is the distance to the nearest known
    voxel on the other side of the border of the truth (d_y) and of p > 0.5 (d_p), divided by the longest side of the
    patch.

    References
    ----------
    .. [1] Karimi, Salcudean 2019, Reducing the Hausdorff distance, https://doi.org/10.1109/TMI.2019.2930068
    """
    p, y, known = prepared.probabilities, prepared.target, prepared.known
    far = _distances(p > 0.5, known) ** alpha
    far += _distances(y > 0.5, known) ** alpha
    return _mean((p - y) ** 2 * far.to(p), prepared.weight)


@torch.no_grad()
def _distances(inside: Tensor, known: Tensor) -> Tensor:
    """Distance to the nearest known voxel on the other side, in longest sides; 0 where there is none; on the CPU."""
    masks, seen = inside.cpu().numpy(), known.cpu().expand_as(inside).numpy()
    distances = np.zeros(masks.shape, np.float32)
    for index in np.ndindex(*masks.shape[:2]):
        sides = masks[index] & seen[index], ~masks[index] & seen[index]
        if all(side.any() for side in sides):
            for side in sides:
                distances[index] += distance_transform_edt(~side)  # 0 on the side itself; unknown voxels do not count
    return torch.from_numpy(distances).div_(max(masks.shape[2:]))


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean over voxels and channels, 0 where all weights are 0."""
    weight = weight.expand_as(values)
    return (values * weight).sum() / weight.sum().clamp_min(torch.finfo(weight.dtype).tiny)
