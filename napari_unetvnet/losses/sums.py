"""Sums over a region, of which all losses of the Dice family are made.

Autograd would keep an array of full size for each factor of each sum. The gradient of these sums is one line of
arithmetic on arrays that are kept anyway, so it is written out and takes one array.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.losses.autograd import apply
from napari_unetvnet.losses.prepared import along_channels
from napari_unetvnet.losses.slabs import slabs

if TYPE_CHECKING:
    from torch import Tensor

    from napari_unetvnet.losses.prepared import Prepared

__all__ = ["RegionSums", "channel_factors", "operands", "ratio", "region_sums", "with_background"]


class RegionSums(NamedTuple):
    """The sums in a Dice coefficient, for each class (K,), or for each image and class (B, K)."""

    intersection: Tensor
    target: Tensor
    prediction: Tensor


def region_sums(
    p: Tensor, y: Tensor, w: Tensor | None, *, squared: bool = True, inverted: bool = False, per_image: bool = False
) -> RegionSums:
    """Sum w y p, w y^2 and w p^2 over the voxels of each class.

    Parameters
    ----------
    p, y : Tensor of shape (B, K, *S)
        Prediction and target; only the prediction gets a gradient.
    w : Tensor of float or bool, shape (B, 1, *S) or (B, K, *S), or None
        Weight of each voxel; None if it is 1 wherever p and y are not 0.
    squared : bool
        If False, w y and w p instead of w y^2 and w p^2.
    inverted : bool
        Of 1 - y and 1 - p.
    per_image : bool
        For each image; otherwise over the batch.

    Returns
    -------
    RegionSums
    """
    sums = apply(_RegionSums, _plain_sums, p, y, w, squared, inverted)
    return RegionSums(*sums) if per_image else RegionSums(*(each.sum(0) for each in sums))


def _plain_sums(p: Tensor, y: Tensor, w: Tensor | None, squared: bool, inverted: bool) -> tuple[Tensor, Tensor, Tensor]:
    intersection, target, prediction = _slab_sums(p, y, w, squared, inverted)
    return intersection, target, prediction


class _RegionSums(torch.autograd.Function):
    """The sums for each image and class, a slab of the patch at a time."""

    @staticmethod
    def forward(
        ctx: Any, p: Tensor, y: Tensor, w: Tensor | None, squared: bool, inverted: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute intersection, target and prediction, each of shape (B, K)."""
        # All three are in memory in any case: p for the gradient of the softmax, y and w for the other terms.
        ctx.save_for_backward(p, y, w)
        ctx.squared, ctx.inverted = squared, inverted
        sums = p.new_zeros(3, *p.shape[:2])
        # A slab holds whole images, whose rows are then added to once, or planes of one image, whose row is a running
        # total: the products of the sums exist for one slab only.
        for part in slabs(p):
            sums[:, part[0]] += _slab_sums(p[part], y[part], None if w is None else w[part], squared, inverted)
        intersection, target, prediction = sums
        ctx.mark_non_differentiable(target)
        return intersection, target, prediction

    # The gradient is written with out= into one array, which autograd cannot follow to a second derivative.
    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_intersection: Tensor, _: Tensor, grad_prediction: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradient of p, w (a y + 2 b p) with a and b the gradients of intersection and prediction."""
        # Without the squares it is w (a y + b). Inverted, both have w (a + 2 b) subtracted: the derivative by p of
        # (1 - y)(1 - p) is y - 1, that of (1 - p)^2 is 2 p - 2, and that of 1 - p is 1 - 2.
        p, y, w = ctx.saved_tensors
        grad = torch.empty_like(p)
        shape = (*p.shape[:2], *(1,) * (p.ndim - 2))
        grad_intersection, grad_prediction = grad_intersection.reshape(shape), grad_prediction.reshape(shape)
        for part in slabs(p):
            a, b = grad_intersection[part[0]], grad_prediction[part[0]]
            grad_slab = torch.addcmul(p[part] * (2 * b) if ctx.squared else b, y[part], a, out=grad[part])
            if ctx.inverted:
                grad_slab.sub_(a + 2 * b)
            if w is not None:
                grad_slab.mul_(w[part])
        return grad, None, None, None, None


def _slab_sums(p: Tensor, y: Tensor, w: Tensor | None, squared: bool, inverted: bool) -> Tensor:
    """Compute intersection, target and prediction for each image and class, shape (3, B, K)."""
    if inverted:
        p, y = 1 - p, 1 - y
    wp, wy = (p, y) if w is None else (p * w, y * w)
    products = wp * y, wy * y if squared else wy, wp * p if squared else wp
    return torch.stack([product.sum(tuple(range(2, p.ndim))) for product in products])


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Divide; 1 where the denominator is 0, since a class absent from target and prediction is predicted perfectly.

    Parameters
    ----------
    numerator, denominator : Tensor
        At least 0.

    Returns
    -------
    Tensor
    """
    # The clamp keeps the unused branch finite: 0 times an infinite gradient would be NaN.
    return torch.where(denominator == 0, 1.0, numerator / denominator.clamp_min(torch.finfo(denominator.dtype).tiny))


def operands(prepared: Prepared) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the arguments of `region_sums`: probabilities, target and weight.

    Returns
    -------
    p, y : Tensor of shape (B, K, *S)
        0 at ignored voxels, so that a weight is needed only if voxels differ in it.
    w : Tensor of shape (B, 1, *S) or (B, K, *S), or None
    """
    return prepared.probabilities, prepared.target, prepared.voxel_weight


def with_background(prepared: Prepared) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return `operands`, for a binary head with a background channel before its own.

    Returns
    -------
    p, y : Tensor of shape (B, K, *S), or (B, 2, *S) for a binary head
    w : Tensor or None
        As in `operands`.
    """
    p, y, w = operands(prepared)
    if prepared.head == "binary":
        # Of the mask rather than of 1, so that p and y stay 0 at ignored voxels.
        valid = prepared.valid.to(p.dtype)
        p, y = torch.cat([valid - p, p], 1), torch.cat([valid - y, y], 1)
    return p, y, w


def channel_factors(channel_weights: tuple[float, ...], like: Tensor) -> Tensor:
    """Return the weight of each channel in a shape that broadcasts over an array.

    Parameters
    ----------
    channel_weights : tuple of float
        Empty: all 1.
    like : Tensor of shape (B, K, *S)

    Returns
    -------
    Tensor of shape (1, K, 1, 1[, 1])

    Raises
    ------
    DataProblem
        If their number is not that of the channels.
    """
    channels = like.shape[1]
    if channel_weights and len(channel_weights) != channels:
        raise DataProblem(f"{len(channel_weights)} channel weights were given for {channels} channels; give one each.")
    return along_channels(like.new_tensor(channel_weights or (1.0,) * channels), like)
