"""Probabilities and sums over the voxels of a patch, without the arrays that autograd would keep.

Autograd keeps a full-size array for nearly every operation of a formula until the backward pass. Here one slab of the
patch at a time goes through the formula and, at once, through its backward pass. The arrays of a slab are freed before
the next one and fit into the cache of the processor; only the gradient of the logits has full size.
``benchmarks/losses.md`` has the memory and time that this saves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from torch.autograd.function import once_differentiable

from napari_unetvnet.losses.autograd import apply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

    from torch import Tensor

__all__ = ["Patch", "probabilities", "slabs", "voxel_sum"]

# Values of one array in a slab. On a CPU its 1 MiB of float32 stays in the cache; a GPU needs larger slabs to be kept
# busy, since each takes dozens of kernel launches.
CPU_SLAB = 2**18
GPU_SLAB = 2**24


class Patch(Protocol):
    """What `voxel_sum` needs of a patch; `prepared.Prepared` is one."""

    @property
    def raw_logits(self) -> Tensor:
        """Logits, of any value where not valid, shape (B, K, *S)."""

    @property
    def valid(self) -> Tensor:
        """False at ignored voxels, shape (B, 1, *S) or (B, K, *S)."""

    @property
    def voxel_weight(self) -> Tensor | None:
        """Weight of each voxel, shape (B, 1, *S) or (B, K, *S); None if all valid voxels weigh 1."""

    @property
    def weight_or_mask(self) -> Tensor:
        """``voxel_weight``, or ``valid`` where that is None."""

    def slab(self, part: tuple[slice, ...]) -> Self:
        """Cut out a part of the patch, with logits that are 0 where not valid."""

    def detached(self) -> Self:
        """Return the patch without its autograd graph."""


AnyPatch = TypeVar("AnyPatch", bound=Patch)


def voxel_sum(patch: AnyPatch, formula: Callable[[AnyPatch], Tensor]) -> tuple[Tensor, Tensor]:
    """Compute the weighted sum over the voxels of a formula.

    Parameters
    ----------
    formula : callable
        Maps a slab, a `Prepared` again, to values of shape (B, 1, *S) or (B, K, *S), each of which depends on its own
        voxel only.

    Returns
    -------
    total : Tensor, a scalar
    weight : Tensor, a scalar
        Sum of the weights of all values.
    """
    return apply(_SlabSum, _plain_sum, patch.raw_logits, patch, formula)


def _plain_sum(_: Tensor, patch: AnyPatch, formula: Callable[[AnyPatch], Tensor]) -> tuple[Tensor, Tensor]:
    # The logits are passed beside the patch for the sake of _SlabSum: autograd tracks tensor arguments only.
    whole = patch.slab((slice(None),))
    values = formula(whole)
    return _weighted_total(values, whole), _weight_total(values, whole)


class _SlabSum(torch.autograd.Function):
    """The sum, with its gradient computed in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any, raw_logits: Tensor, patch: AnyPatch, formula: Callable[[AnyPatch], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Compute the total and the weight, and keep the gradient."""
        # The gradient can be computed before the backward pass because the total is a scalar: the incoming gradient is
        # just a factor. To compute it in the backward pass would mean to keep the arrays of all slabs, or to evaluate
        # the formula twice.
        patch = patch.detached()
        total, weight, grad = _run(patch, formula, ctx.needs_input_grad[0])
        ctx.grad, ctx.recompute = grad, lambda: _run(patch, formula, True)[2]
        ctx.mark_non_differentiable(weight)
        return total, weight

    # The kept gradient has no graph of its own: a second derivative would silently be 0, so it has to be an error.
    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_total: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradient of the logits."""
        # Scaled in place, since another array of full size is what this module avoids. That spends the kept gradient;
        # a second backward pass (retain_graph=True) has to compute it again.
        grad, ctx.grad = ctx.grad, None
        if grad is None:
            grad = ctx.recompute()
        return grad.mul_(grad_total), None, None


def _run(patch: AnyPatch, formula: Callable[[AnyPatch], Tensor], with_grad: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Compute total, weight and, if asked for, the gradient of the total with respect to the logits."""
    logits = patch.raw_logits
    grad = torch.empty_like(logits) if with_grad else logits.new_empty(0)
    totals = []
    for part in slabs(logits):
        # The logits of a slab are a new leaf, so that autograd goes no farther back than the slab.
        slab = patch.slab(part)
        slab.raw_logits.requires_grad_(with_grad)
        with torch.set_grad_enabled(with_grad):
            values = formula(slab)
            total = _weighted_total(values, slab)
        if with_grad:
            grad[part] = torch.autograd.grad(total, slab.raw_logits)[0]
        totals.append(total.detach())
    # Stacked, then summed: torch.sum adds pairwise, which rounds less than a running float32 total over many slabs.
    return torch.stack(totals).sum(), _weight_total(values, patch), grad


def _weighted_total(values: Tensor, patch: Patch) -> Tensor:
    # Without weights, where instead of a product with the mask: it takes no float copy of the mask.
    weighted = torch.where(patch.valid, values, 0) if patch.voxel_weight is None else values * patch.voxel_weight
    return weighted.sum()


def _weight_total(values: Tensor, patch: Patch) -> Tensor:
    weight = patch.weight_or_mask
    # Bool is counted rather than summed, since a sum would first convert it to int64, eight times the size.
    total = weight.count_nonzero() if weight.dtype == torch.bool else weight.sum()
    # A weight shared by all channels counts once for each of them.
    return total.to(patch.raw_logits.dtype) * (values.shape[1] // weight.shape[1])


def slabs(array: Tensor) -> Iterator[tuple[slice, ...]]:
    """Cut an array into slabs of some images, or of some planes of one image.

    Parameters
    ----------
    array : Tensor of shape (B, K, *S)

    Yields
    ------
    tuple of slice
        Of images; or of images, channels (all of them) and planes.
    """
    limit = CPU_SLAB if array.device.type == "cpu" else GPU_SLAB
    images, planes = array.shape[0], array.shape[2]
    image_size = array[0].numel()
    step = limit // image_size
    if step:
        yield from ((slice(first, first + step),) for first in range(0, images, step))
        return
    # Channels stay together, as a softmax needs them all.
    step = max(1, limit * planes // image_size)
    for image in range(images):
        for first in range(0, planes, step):
            yield slice(image, image + 1), slice(None), slice(first, first + step)


def probabilities(logits: Tensor, valid: Tensor, softmax: bool) -> Tensor:
    """Compute softmax or sigmoid, 0 where not valid; logits there have no effect and no gradient.

    Parameters
    ----------
    logits : Tensor of shape (B, K, *S)
    valid : Tensor of bool, shape (B, 1, *S) or (B, K, *S)
    softmax : bool
        Over the channels; otherwise a sigmoid of each.

    Returns
    -------
    Tensor of shape (B, K, *S)
    """
    return apply(_Probabilities, _plain_probabilities, logits, valid, softmax)


def _plain_probabilities(logits: Tensor, valid: Tensor, softmax: bool) -> Tensor:
    # Masked twice: the gradient of a softmax of NaN would be NaN even where its value is thrown away.
    logits = torch.where(valid, logits, 0)
    return torch.where(valid, logits.softmax(1) if softmax else logits.sigmoid(), 0)


class _Probabilities(torch.autograd.Function):
    """Probabilities that keep one array for the backward pass, themselves, instead of one for each operation."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, valid: Tensor, softmax: bool) -> Tensor:
        """Compute probabilities of shape (B, K, *S)."""
        p = (logits.softmax(1) if softmax else logits.sigmoid()).masked_fill_(~valid, 0)
        ctx.save_for_backward(p)
        ctx.softmax = softmax
        return p

    # The gradient is written in place into a new array, which autograd cannot follow to a second derivative.
    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_p: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradient of the logits: p (g - Σ g p) for a softmax, p g (1 - p) for sigmoids."""
        # Where not valid p is 0 and so is the gradient, so the mask need not be kept.
        (p,) = ctx.saved_tensors
        grad = torch.empty_like(p)
        for part in slabs(p):
            gp = torch.mul(grad_p[part], p[part], out=grad[part])
            gp.addcmul_(p[part], gp.sum(1, keepdim=True) if ctx.softmax else gp, value=-1)
        return grad, None, None
