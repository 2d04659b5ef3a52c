"""Losses of the 2.5D U-Net: Dice in which hard voxels count more, and supervision of its attention maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

from napari_unetvnet.losses.autograd import apply
from napari_unetvnet.losses.declare import head_modes, needs, roles
from napari_unetvnet.losses.slabs import slabs
from napari_unetvnet.losses.sums import region_sums, with_background

if TYPE_CHECKING:
    from torch import Tensor

    from napari_unetvnet.losses.prepared import Prepared

__all__ = ["attention_dice", "hardness_dice"]

# Added to numerator and denominator in the source.
SMOOTH = 1e-5


@roles("background", "foreground")
@head_modes("binary", "multiclass", "multilabel")
def hardness_dice(prepared: Prepared, *, hardness: float = 0.6, include_background: bool = True) -> Tensor:
    """Dice in which a voxel counts more, the farther its prediction is from the target.

    Parameters
    ----------
    hardness : float
        Extra weight of hard voxels, λ in [0, 1]; 0: plain Dice.
    include_background : bool
        Whether the mean over the classes includes the background, also that of a binary head.

    Returns
    -------
    Tensor, a scalar in [0, 1]

    Notes
    -----
    The mean over images and classes of 1 - (2 Σhpy + 1e-5) / (Σh(p + y) + 1e-5), where h = λ |p - y| + (1 - λ). As in
    the source the gradient passes through h as well.

    References
    ----------
    .. [1] Wang et al. 2019, Automatic segmentation of vestibular schwannoma, https://arxiv.org/abs/1906.03906
    .. [2] KCL-BMEIS/VS_Seg, https://github.com/KCL-BMEIS/VS_Seg
    """
    p, y, w = with_background(prepared)
    if not include_background and prepared.head == "binary":
        p, y = p[:, 1:], y[:, 1:]
    elif not include_background and prepared.head == "multiclass":
        p, y = prepared.of_role(p, "foreground"), prepared.of_role(y, "foreground")
    intersection, total = apply(_HardnessSums, _plain_sums, p, y, w, hardness)
    return (1 - (2 * intersection + SMOOTH) / (total + SMOOTH)).mean()


@needs("attention")
@roles("background", "foreground")
@head_modes("binary", "multiclass", "multilabel")
def attention_dice(prepared: Prepared, *, hardness: float = 0.6, attention_weight: float = 1.0) -> Tensor:
    """Hardness-weighted Dice, plus the Dice loss of each attention map against the foreground.

    Parameters
    ----------
    hardness : float
        As in ``hardness_dice``.
    attention_weight : float
        Factor of the loss of the attention maps.

    Returns
    -------
    Tensor, a scalar

    Notes
    -----
    ``hardness_dice`` + attention_weight (1/L) Σ_l (1 - D_l), where D_l = (2 Σag + 1e-5) / (Σa + Σg + 1e-5) of each
    image. a is the attention map of level l; g is the foreground, all classes but the background, max-pooled to the
    size of the map. Values of the map that cover no valid voxel are left out. For a network without attention maps the
    loss is ``hardness_dice``.

    References
    ----------
    .. [1] Wang et al. 2019, Automatic segmentation of vestibular schwannoma, https://arxiv.org/abs/1906.03906
    .. [2] KCL-BMEIS/VS_Seg, https://github.com/KCL-BMEIS/VS_Seg
    """
    loss = hardness_dice(prepared, hardness=hardness)
    maps = prepared.outputs.attention if prepared.outputs else ()
    if not maps:
        return loss
    foreground, valid = _foreground(prepared)
    levels = [_map_loss(level.to(loss.dtype), foreground, valid) for level in maps]
    return loss + attention_weight * torch.stack(levels).mean()


def _foreground(prepared: Prepared) -> tuple[Tensor, Tensor]:
    """Compute the soft mask of all classes but the background, and where all channels are valid, both (B, 1, *S)."""
    y = prepared.of_role(prepared.target, "foreground")
    foreground = y.sum(1, keepdim=True) if prepared.head == "multiclass" else y.amax(1, keepdim=True)
    valid = prepared.valid.all(1, keepdim=True).to(y.dtype)
    return foreground * valid, valid


def _map_loss(level: Tensor, foreground: Tensor, valid: Tensor) -> Tensor:
    """Compute 1 - D of an attention map, mean over the images."""
    pool = functional.adaptive_max_pool2d if level.ndim == 4 else functional.adaptive_max_pool3d
    g, w = (pool(mask, level.shape[2:]) for mask in (foreground, valid))
    sums = region_sums(torch.where(w > 0, level, 0), g, w, squared=False, per_image=True)
    return (1 - (2 * sums.intersection + SMOOTH) / (sums.target + sums.prediction + SMOOTH)).mean()


def _plain_sums(p: Tensor, y: Tensor, w: Tensor | None, hardness: float) -> tuple[Tensor, Tensor]:
    h = hardness * (p - y).abs() + (1 - hardness)
    h = h if w is None else h * w
    space = tuple(range(2, p.ndim))
    return (h * p * y).sum(space), (h * (p + y)).sum(space)


class _HardnessSums(torch.autograd.Function):
    """Sums of w h p y and of w h (p + y) with h = λ |p - y| + 1 - λ for each image and class, a slab at a time.

    Autograd would keep h and several products of full size; this keeps its inputs, which are in memory anyway.
    """

    @staticmethod
    def forward(ctx: Any, p: Tensor, y: Tensor, w: Tensor | None, hardness: float) -> tuple[Tensor, Tensor]:
        """Compute both sums, each of shape (B, K)."""
        ctx.save_for_backward(p, y, w)
        ctx.hardness = hardness
        intersection, total = p.new_zeros(2, *p.shape[:2])
        space = tuple(range(2, p.ndim))
        for part in slabs(p):
            h = _hardness(p[part], y[part], hardness)[0]
            if w is not None:
                h.mul_(w[part])
            total[part[0]] += (h * (p[part] + y[part])).sum(space)
            # Last, since it overwrites h.
            intersection[part[0]] += h.mul_(p[part]).mul_(y[part]).sum(space)
        return intersection, total

    # The gradient is written with out= into one array, which autograd cannot follow to a second derivative.
    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_intersection: Tensor, grad_total: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradient of p, w (a y (h + p h') + b (h + (p + y) h')) with h' = λ sign(p - y)."""
        p, y, w = ctx.saved_tensors
        grad = torch.empty_like(p)
        shape = (*p.shape[:2], *(1,) * (p.ndim - 2))
        grad_intersection, grad_total = grad_intersection.reshape(shape), grad_total.reshape(shape)
        for part in slabs(p):
            a, b = grad_intersection[part[0]], grad_total[part[0]]
            h, h_prime = _hardness(p[part], y[part], ctx.hardness)
            # In the order of these lines: w ((h + p h') (a y + b) + b y h').
            grad_slab = torch.addcmul(h, h_prime, p[part], out=grad[part])
            grad_slab.mul_(y[part] * a + b).addcmul_(h_prime.mul_(y[part]), b)
            if w is not None:
                grad_slab.mul_(w[part])
        return grad, None, None, None


def _hardness(p: Tensor, y: Tensor, hardness: float) -> tuple[Tensor, Tensor]:
    """Compute h and its derivative by p."""
    difference = p - y
    return difference.abs().mul_(hardness).add_(1 - hardness), difference.sign_().mul_(hardness)
