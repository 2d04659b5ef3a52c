"""Probabilities and sums over the voxels of a patch, without the arrays that autograd would keep.

Autograd keeps an array of full size for each step of a formula. Here a slab of the patch at a time goes through the
formula and gives its gradient at once, while it is in the processor's cache: only the gradient is of full size.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from napari_unetvnet.losses.prepared import Prepared

__all__ = ["Probabilities", "slabs", "voxel_sum"]

# Numbers in a slab: as many as stay in the cache of a CPU, and on a GPU so many that it is kept busy.
ON_CPU = 2**18
ELSEWHERE = 2**24


def voxel_sum(prepared: Prepared, formula: Callable[[Prepared], Tensor]) -> tuple[Tensor, Tensor]:
    """Sum what a formula gives for each voxel, times the voxel's weight.

    Parameters
    ----------
    prepared : Prepared
    formula : callable
        Takes a slab as `Prepared` and gives its values, of shape (B, 1, *S) or (B, K, *S), each from its own voxel.

    Returns
    -------
    total : Tensor, a scalar
    weight : Tensor, a scalar
        Sum of the weights of all values.
    """
    total, weight = _SlabSum.apply(prepared.given, prepared, formula)  # type: ignore[no-untyped-call]
    return total, weight


class _SlabSum(torch.autograd.Function):
    """The sum, whose gradient is made with it."""

    @staticmethod
    def forward(
        ctx: Any, given: Tensor, prepared: Prepared, formula: Callable[[Prepared], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Give the total and the weight."""
        bare = replace(prepared, given=given.detach(), outputs=None, image=None)
        total, weight, slope = _run(bare, formula, ctx.needs_input_grad[0])
        ctx.slope, ctx.again = slope, lambda: _run(bare, formula, True)[2]
        ctx.mark_non_differentiable(weight)
        return total, weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_total: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """Give the gradient of the logits; it is used up, so a second backward makes it anew."""
        slope, ctx.slope = ctx.slope, None
        if slope is None:
            slope = ctx.again()
        return slope.mul_(of_total), None, None


def _run(prepared: Prepared, formula: Callable[[Prepared], Tensor], learns: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Give total, weight and gradient."""
    slope = torch.empty_like(prepared.given) if learns else prepared.given.new_empty(0)
    totals = []
    for part in slabs(prepared.given):
        slab = _cut(prepared, part, learns)
        with torch.set_grad_enabled(learns):
            values = formula(slab)
            weighted = torch.where(slab.known, values, 0) if slab.importance is None else values * slab.importance
            total = weighted.sum()
        if learns:
            slope[part] = torch.autograd.grad(total, slab.given)[0]
        totals.append(total.detach())
    weighing = prepared.known if prepared.importance is None else prepared.importance
    # Counted, since a sum of bool makes an int64 of each.
    weight = weighing.count_nonzero() if prepared.importance is None else weighing.sum()
    return torch.stack(totals).sum(), weight.to(slope.dtype) * (values.shape[1] // weighing.shape[1]), slope


def slabs(array: Tensor) -> Iterator[tuple[slice, ...]]:
    """Cut an array into some images, or some planes of one image, at a time.

    Parameters
    ----------
    array : Tensor of shape (B, K, *S)

    Yields
    ------
    tuple of slice
        Of images; or of images, channels (all of them) and planes.
    """
    limit = ON_CPU if array.device.type == "cpu" else ELSEWHERE
    images, planes = array.shape[0], array.shape[2]
    of_image = array[0].numel()
    step = limit // of_image
    if step:
        yield from ((slice(first, first + step),) for first in range(0, images, step))
        return
    step = max(1, limit * planes // of_image)
    for image in range(images):
        for first in range(0, planes, step):
            yield slice(image, image + 1), slice(None), slice(first, first + step)


def _cut(prepared: Prepared, part: tuple[slice, ...], learns: bool) -> Prepared:
    known = prepared.known[part]
    given = torch.where(known, prepared.given[part], 0).requires_grad_(learns)
    labels = prepared.labels[part[:1] + part[2:] if prepared.by_index else part]
    importance = None if prepared.importance is None else prepared.importance[part]
    return replace(prepared, given=given, labels=labels, known=known, importance=importance, clean=True)


class Probabilities(torch.autograd.Function):
    """Softmax or sigmoid, 0 where nothing is known; logits there have no effect and no gradient."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, known: Tensor, softmax: bool) -> Tensor:
        """Give probabilities of shape (B, K, *S)."""
        p = (logits.softmax(1) if softmax else logits.sigmoid()).masked_fill_(~known, 0)
        ctx.save_for_backward(p)
        ctx.softmax = softmax
        return p

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_p: Tensor) -> tuple[Tensor | None, ...]:
        """Give the gradient of the logits: p (g - Σ g p) for a softmax, p g (1 - p) for sigmoids."""
        (p,) = ctx.saved_tensors
        slope = torch.empty_like(p)
        for part in slabs(p):
            here = torch.mul(of_p[part], p[part], out=slope[part])
            here.addcmul_(p[part], here.sum(1, keepdim=True) if ctx.softmax else here, value=-1)
        return slope, None, None
