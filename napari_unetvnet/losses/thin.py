"""A loss that keeps tubes and lines in one piece, by comparing centre lines."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

from napari_unetvnet.losses.declare import head_modes, roles
from napari_unetvnet.losses.sums import parts, quotient, region_sums

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from napari_unetvnet.losses.prepared import Prepared

__all__ = ["centre_line", "cldice", "dilated"]


@roles("background", "foreground")
@head_modes("binary", "multiclass", "multilabel")
def cldice(prepared: Prepared, *, a: float = 0.5, iterations: int = 3, smooth: float = 1.0) -> Tensor:
    """Centre-line Dice beside plain Dice, for vessels, roads and nerves: a gap in a line costs what its length is.

    Only foreground classes count: all but the first of a multiclass head.

    Parameters
    ----------
    prepared : Prepared
    a : float
        Share of the centre-line Dice, in [0, 1].
    iterations : int
        Steps of thinning; at least the radius of the thickest line in voxels.
    smooth : float
        Added above and below each quotient.

    Returns
    -------
    Tensor, a scalar in [0, 1]

    Notes
    -----
    The mean over the classes of (1 - a) (1 - D) + a (1 - C), with sums over the batch and S the soft centre line,

    D = (2 sum(y p) + smooth) / (sum(y) + sum(p) + smooth) and C = 2 P R / (P + R), where

    P = (sum(S(p) y) + smooth) / (sum(S(p)) + smooth) and R = (sum(S(y) p) + smooth) / (sum(S(y)) + smooth).

    S adds up what opening takes away at each step of thinning. Ignored voxels are background before thinning.

    References
    ----------
    .. [1] Shit et al. 2021, clDice, https://arxiv.org/abs/2003.07311
    """
    first = 1 if prepared.head == "multiclass" else 0
    p, y, w = parts(prepared)
    p, y = p[:, first:], y[:, first:]
    skeleton = region_sums(centre_line(p, iterations), y, w, squared=False)
    truth = region_sums(p, centre_line(y, iterations), w, squared=False)
    precision = quotient(skeleton.both + smooth, skeleton.said + smooth)
    recall = quotient(truth.both + smooth, truth.truth + smooth)
    centre = quotient(2 * precision * recall, precision + recall)
    # The plain sums are at hand: those of y and of p, each beside the other's centre line.
    both = region_sums(p, y, w, squared=False).both
    plain = quotient(2 * both + smooth, skeleton.truth + truth.said + smooth)
    return ((1 - a) * (1 - plain) + a * (1 - centre)).mean()


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
    """Give the largest value of each voxel and all its neighbours, across corners too.

    Parameters
    ----------
    mask : Tensor of shape (B, K, *S)

    Returns
    -------
    Tensor of shape (B, K, *S)
    """
    for axis in range(2, mask.ndim):
        mask = _of_three(mask, axis, torch.maximum)
    return mask


def _eroded(mask: Tensor) -> Tensor:
    """Smallest value of each voxel and its neighbours along the axes; a side of one voxel changes nothing."""
    return reduce(torch.minimum, (_of_three(mask, axis, torch.minimum) for axis in range(2, mask.ndim)))


def _of_three(mask: Tensor, axis: int, extreme: Callable[..., Tensor]) -> Tensor:
    found: Tensor = _OfThree.apply(mask, axis, extreme)  # type: ignore[no-untyped-call]
    return found


class _OfThree(torch.autograd.Function):
    """The extreme of each value and its two neighbours on an axis.

    It remembers two bits a voxel, where max-pooling keeps its input and an int64; and on a CPU it is faster.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, axis: int, extreme: Callable[..., Tensor]) -> Tensor:
        """Give the extremes, of the shape of the values."""
        count = values.shape[axis] - 1
        low, high = values.narrow(axis, 0, count), values.narrow(axis, 1, count)
        found = values.clone()
        for part, other in ((found.narrow(axis, 1, count), low), (found.narrow(axis, 0, count), high)):
            extreme(part, other, out=part)
        from_low = (found.narrow(axis, 1, count) == low) & (low != high)
        from_high = (found.narrow(axis, 0, count) == high) & (low != high)
        # Where both neighbours are the extreme, the gradient goes to the lower.
        if count:
            from_high.narrow(axis, 1, count - 1).logical_and_(~from_low.narrow(axis, 0, count - 1))
        ctx.save_for_backward(from_low, from_high)
        ctx.axis = axis
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_found: Tensor) -> tuple[Tensor | None, ...]:
        """Give each gradient to the voxel that the extreme came from."""
        from_low, from_high = ctx.saved_tensors
        axis, count = ctx.axis, of_found.shape[ctx.axis] - 1
        slope = of_found.clone()
        for mine, source, chosen in ((1, 0, from_low), (0, 1, from_high)):
            moved = of_found.narrow(axis, mine, count) * chosen
            slope.narrow(axis, mine, count).sub_(moved)
            slope.narrow(axis, source, count).add_(moved)
        return slope, None, None
