"""A loss that preserves the connectivity of tubes and lines, by comparing centre lines."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

from napari_unetvnet.losses.autograd import apply
from napari_unetvnet.losses.declare import head_modes, roles
from napari_unetvnet.losses.sums import operands, ratio, region_sums

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from napari_unetvnet.losses.prepared import Prepared

__all__ = ["centre_line", "cldice", "dilated"]


@roles("background", "foreground")
@head_modes("binary", "multiclass", "multilabel")
def cldice(prepared: Prepared, *, a: float = 0.5, iterations: int = 3, smooth: float = 1.0) -> Tensor:
    """Centre-line Dice plus Dice, for vessels, roads and nerves: gaps count by length, not by thickness.

    Foreground classes only: of a multiclass head, all but the background.

    Parameters
    ----------
    a : float
        Weight of the centre-line Dice, in [0, 1].
    iterations : int
        Steps of thinning; at least the radius of the thickest line in voxels.
    smooth : float
        Added to numerator and denominator of each ratio.

    Returns
    -------
    Tensor, a scalar in [0, 1]

    Notes
    -----
    The mean over the classes of (1 - a) (1 - D) + a (1 - C), with sums over the batch and S the soft centre line,

    D = (2 sum(y p) + smooth) / (sum(y) + sum(p) + smooth) and C = 2 P R / (P + R), where

    P = (sum(S(p) y) + smooth) / (sum(S(p)) + smooth) and R = (sum(S(y) p) + smooth) / (sum(S(y)) + smooth).

    S accumulates what a morphological opening removes at each step of thinning. Ignored voxels count as background.

    References
    ----------
    .. [1] Shit et al. 2021, clDice, https://arxiv.org/abs/2003.07311
    """
    p, y, w = operands(prepared)
    if prepared.head == "multiclass":
        p, y = prepared.of_role(p, "foreground"), prepared.of_role(y, "foreground")
    line_in_target = region_sums(centre_line(p, iterations), y, w, squared=False)
    line_in_prediction = region_sums(p, centre_line(y, iterations), w, squared=False)
    precision = ratio(line_in_target.intersection + smooth, line_in_target.prediction + smooth)
    recall = ratio(line_in_prediction.intersection + smooth, line_in_prediction.target + smooth)
    cl_dice = ratio(2 * precision * recall, precision + recall)
    # The sums of y and of p in the plain Dice are among those computed above.
    intersection = region_sums(p, y, w, squared=False).intersection
    dice = ratio(2 * intersection + smooth, line_in_target.target + line_in_prediction.prediction + smooth)
    return ((1 - a) * (1 - dice) + a * (1 - cl_dice)).mean()


def centre_line(mask: Tensor, iterations: int) -> Tensor:
    """Thin a soft mask to its centre line.

    Parameters
    ----------
    mask : Tensor of shape (B, K, *S)
    iterations : int
        Steps of thinning after the first.

    Returns
    -------
    Tensor of shape (B, K, *S)
    """
    line = torch.zeros_like(mask)
    for step in range(iterations + 1):
        inner = _eroded(mask)
        ridge = functional.relu(mask - dilated(inner))
        line = line + ridge * (1 - line) if step else ridge
        mask = inner
    return line


def dilated(mask: Tensor) -> Tensor:
    """Dilate a soft mask: the maximum of each voxel and its neighbours, diagonal ones included.

    Parameters
    ----------
    mask : Tensor of shape (B, K, *S)

    Returns
    -------
    Tensor of shape (B, K, *S)
    """
    for axis in range(2, mask.ndim):
        mask = _extreme_of_three(mask, axis, torch.maximum)
    return mask


def _eroded(mask: Tensor) -> Tensor:
    """Erode a soft mask: the minimum of each voxel and its neighbours along the axes, without diagonal ones."""
    # An axis of one voxel has no effect: a volume of one slice is eroded like an image.
    return reduce(torch.minimum, (_extreme_of_three(mask, axis, torch.minimum) for axis in range(2, mask.ndim)))


def _extreme_of_three(values: Tensor, axis: int, extreme: Callable[..., Tensor]) -> Tensor:
    return apply(_ExtremeOfThree, _plain_extreme, values, axis, extreme)


def _plain_extreme(values: Tensor, axis: int, extreme: Callable[..., Tensor]) -> Tensor:
    count = values.shape[axis]
    # At the ends the missing neighbour is the voxel itself.
    before, after = (torch.arange(count, device=values.device).add(step).clamp(0, count - 1) for step in (-1, 1))
    return extreme(extreme(values, values.index_select(axis, before)), values.index_select(axis, after))


class _ExtremeOfThree(torch.autograd.Function):
    """The minimum or maximum of each value and its two neighbours along an axis.

    It keeps two bool per voxel for the backward pass, where max-pooling keeps its input and an int64 index. On a CPU it
    is also faster.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, axis: int, extreme: Callable[..., Tensor]) -> Tensor:
        """Compute the extremes, of the shape of the values."""
        count = values.shape[axis] - 1
        low, high = values.narrow(axis, 0, count), values.narrow(axis, 1, count)
        extremes = values.clone()
        for side, neighbour in ((extremes.narrow(axis, 1, count), low), (extremes.narrow(axis, 0, count), high)):
            extreme(side, neighbour, out=side)
        # Whether the extreme came from a neighbour, one bool for each pair of neighbours. If the two are equal, the
        # gradient stays with the voxel itself.
        from_low = (extremes.narrow(axis, 1, count) == low) & (low != high)
        from_high = (extremes.narrow(axis, 0, count) == high) & (low != high)
        # If both neighbours are the extreme, the gradient goes to the lower one only: it must not count twice.
        if count:
            from_high.narrow(axis, 1, count - 1).logical_and_(~from_low.narrow(axis, 0, count - 1))
        ctx.save_for_backward(from_low, from_high)
        ctx.axis = axis
        return extremes

    # The gradient is moved in place, which autograd cannot follow to a second derivative.
    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_extremes: Tensor) -> tuple[Tensor | None, ...]:
        """Move each gradient to the voxel that the extreme came from."""
        from_low, from_high = ctx.saved_tensors
        axis, count = ctx.axis, grad_extremes.shape[ctx.axis] - 1
        grad = grad_extremes.clone()
        for own, source, chosen in ((1, 0, from_low), (0, 1, from_high)):
            moved = grad_extremes.narrow(axis, own, count) * chosen
            grad.narrow(axis, own, count).sub_(moved)
            grad.narrow(axis, source, count).add_(moved)
        return grad, None, None
