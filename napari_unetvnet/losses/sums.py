"""Sums over a region, of which all losses of the Dice family are made.

Autograd would keep and build an array of full size for each factor of each sum. The gradient of these sums is a line
of arithmetic on arrays that are there anyway, so it is written out and takes one array.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.losses.slabs import slabs

if TYPE_CHECKING:
    from torch import Tensor

    from napari_unetvnet.losses.prepared import Prepared

__all__ = ["Sums", "mask", "parts", "quotient", "region_sums", "shares", "with_background"]


class Sums(NamedTuple):
    """What a Dice coefficient compares, for each class (K,), or for each image and class (B, K)."""

    both: Tensor
    truth: Tensor
    said: Tensor


def region_sums(
    p: Tensor, y: Tensor, w: Tensor | None, *, squared: bool = True, inverted: bool = False, per_image: bool = False
) -> Sums:
    """Sum w y p, w y^2 and w p^2 over each class.

    Parameters
    ----------
    p, y : Tensor of shape (B, K, *S)
        Prediction and truth; only the prediction gets a gradient.
    w : Tensor of float or bool, shape (B, 1, *S) or (B, K, *S), or None
        Weight of each voxel; None if it is 1 wherever p and y are not 0.
    squared : bool
        Otherwise w y and w p.
    inverted : bool
        Of 1 - y and 1 - p.
    per_image : bool
        For each image; otherwise over the batch.

    Returns
    -------
    Sums
    """
    sums = Sums(*_Sums.apply(p, y, w, squared, inverted))  # type: ignore[no-untyped-call]
    return sums if per_image else Sums(*(part.sum(0) for part in sums))


class _Sums(torch.autograd.Function):
    """The sums for each image and class, a slab of the patch at a time."""

    @staticmethod
    def forward(
        ctx: Any, p: Tensor, y: Tensor, w: Tensor | None, squared: bool, inverted: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Give both, truth and said."""
        ctx.save_for_backward(p, y, w)
        ctx.squared, ctx.inverted = squared, inverted
        sums = p.new_zeros(3, *p.shape[:2])
        for part in slabs(p):
            sums[:, part[0]] += _of_slab(p[part], y[part], None if w is None else w[part], squared, inverted)
        both, truth, said = sums
        ctx.mark_non_differentiable(truth)
        return both, truth, said

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_both: Tensor, _: Tensor, of_said: Tensor) -> tuple[Tensor | None, ...]:
        """Give the gradient of p."""
        p, y, w = ctx.saved_tensors
        slope = torch.empty_like(p)
        shape = (*p.shape[:2], *(1,) * (p.ndim - 2))
        of_both, of_said = of_both.reshape(shape), of_said.reshape(shape)
        for part in slabs(p):
            a, b = of_both[part[0]], of_said[part[0]]
            here = torch.addcmul(p[part] * (2 * b) if ctx.squared else b, y[part], a, out=slope[part])
            if ctx.inverted:
                here.sub_(a + 2 * b)
            if w is not None:
                here.mul_(w[part])
        return slope, None, None, None, None


def _of_slab(p: Tensor, y: Tensor, w: Tensor | None, squared: bool, inverted: bool) -> Tensor:
    """Give both, truth and said for each image and class, shape (3, B, K)."""
    if inverted:
        p, y = 1 - p, 1 - y
    mine, true = (p, y) if w is None else (p * w, y * w)
    products = mine * y, true * y if squared else true, mine * p if squared else mine
    return torch.stack([product.sum(tuple(range(2, p.ndim))) for product in products])


def quotient(part: Tensor, whole: Tensor) -> Tensor:
    """Divide; 1 where the whole is 0: nothing there and nothing predicted, which is right.

    Parameters
    ----------
    part, whole : Tensor
        At least 0.

    Returns
    -------
    Tensor
    """
    return torch.where(whole == 0, 1.0, part / whole.clamp_min(torch.finfo(whole.dtype).tiny))


def parts(prepared: Prepared) -> tuple[Tensor, Tensor, Tensor | None]:
    """Give probabilities, target and weight as `region_sums` takes them.

    Parameters
    ----------
    prepared : Prepared

    Returns
    -------
    p, y, w : Tensor
        Where nothing is known p and y are 0, so that there need not be a weight.
    """
    return prepared.probabilities, prepared.target, prepared.importance


def mask(prepared: Prepared) -> Tensor:
    """Give the weight of each voxel; where all known voxels weigh 1, as bool, which is smaller.

    Parameters
    ----------
    prepared : Prepared

    Returns
    -------
    Tensor of shape (B, 1, *S) or (B, K, *S)
    """
    return prepared.known if prepared.importance is None else prepared.importance


def with_background(prepared: Prepared) -> tuple[Tensor, Tensor, Tensor | None]:
    """Give probabilities, target and weight; a binary head gets a channel for the background before its own.

    Parameters
    ----------
    prepared : Prepared

    Returns
    -------
    p, y : Tensor
    w : Tensor or None
        As in `parts`.
    """
    p, y, w = parts(prepared)
    if prepared.head == "binary":
        known = prepared.known.to(p.dtype)
        p, y = torch.cat([known - p, p], 1), torch.cat([known - y, y], 1)
    return p, y, w


def shares(channel_weights: tuple[float, ...], like: Tensor) -> Tensor:
    """Give the weight of each channel.

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
    row = like.new_tensor(channel_weights or (1.0,) * channels)
    return row.reshape(1, -1, *(1,) * (like.ndim - 2))
