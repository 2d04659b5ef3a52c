"""Losses of the 2.5D U-Net: Dice in which hard voxels count more, and supervision of its attention maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

from napari_unetvnet.losses.declare import head_modes, needs, roles
from napari_unetvnet.losses.slabs import slabs
from napari_unetvnet.losses.sums import region_sums, with_background

if TYPE_CHECKING:
    from torch import Tensor

    from napari_unetvnet.losses.prepared import Prepared

__all__ = ["attention_dice", "hardness_dice"]

# Added above and below in the source.
SMOOTH = 1e-5


@head_modes("binary", "multiclass", "multilabel")
def hardness_dice(prepared: Prepared, *, hardness: float = 0.6, include_background: bool = True) -> Tensor:
    """Dice in which a voxel counts the more the farther its prediction is from the truth.

    Parameters
    ----------
    prepared : Prepared
    hardness : float
        How much more, in [0, 1]; 0: plain Dice.
    include_background : bool
        Mean over all classes, the background of a binary head included; otherwise without the background.

    Returns
    -------
    Tensor, a scalar in [0, 1]

    Notes
    -----
    The mean over images and classes of 1 - (2 Σwpy + 1e-5) / (Σw(p + y) + 1e-5), where w = λ |p - y| + (1 - λ), λ is
    the hardness, and w has a gradient, too, as in the source.

    References
    ----------
    .. [1] Wang et al. 2019, Automatic segmentation of vestibular schwannoma, https://arxiv.org/abs/1906.03906
    .. [2] KCL-BMEIS/VS_Seg, https://github.com/KCL-BMEIS/VS_Seg
    """
    p, y, w = with_background(prepared)
    if not include_background and prepared.head != "multilabel":
        p, y = p[:, 1:], y[:, 1:]
    both, total = _HardSums.apply(p, y, w, hardness)  # type: ignore[no-untyped-call]
    lost: Tensor = (1 - (2 * both + SMOOTH) / (total + SMOOTH)).mean()
    return lost


@needs("attention")
@roles("background", "foreground")
@head_modes("binary", "multiclass", "multilabel")
def attention_dice(prepared: Prepared, *, hardness: float = 0.6, attention_weight: float = 1.0) -> Tensor:
    """Hardness-weighted Dice, and Dice of each attention map against the foreground.

    Parameters
    ----------
    prepared : Prepared
    hardness : float
        As in ``hardness_dice``.
    attention_weight : float
        Factor of the second part.

    Returns
    -------
    Tensor, a scalar

    Notes
    -----
    ``hardness_dice`` + attention_weight (1/L) Σ_l (1 - D_l), where D_l = (2 Σag + 1e-5) / (Σa + Σg + 1e-5) of each
    image, a is the map of level l, and g at its size is 1 where any voxel that it covers is of any class but the
    background. What a map says where it covers no known voxel does not count. A network without maps learns from
    ``hardness_dice`` alone.

    References
    ----------
    .. [1] Wang et al. 2019, Automatic segmentation of vestibular schwannoma, https://arxiv.org/abs/1906.03906
    .. [2] KCL-BMEIS/VS_Seg, https://github.com/KCL-BMEIS/VS_Seg
    """
    loss = hardness_dice(prepared, hardness=hardness)
    maps = prepared.outputs.attention if prepared.outputs else ()
    if not maps:
        return loss
    foreground, known = _foreground(prepared)
    levels = [_lost(level.to(loss.dtype), foreground, known) for level in maps]
    return loss + attention_weight * torch.stack(levels).mean()


def _foreground(prepared: Prepared) -> tuple[Tensor, Tensor]:
    """Any class but the background, and where all channels are known; each of shape (B, 1, *S)."""
    y = prepared.target[:, 1:] if prepared.head == "multiclass" else prepared.target
    foreground = y.sum(1, keepdim=True) if prepared.head == "multiclass" else y.amax(1, keepdim=True)
    known = prepared.known.all(1, keepdim=True).to(y.dtype)
    return foreground * known, known


def _lost(level: Tensor, foreground: Tensor, known: Tensor) -> Tensor:
    """1 - D of an attention map, mean over the images."""
    pool = functional.adaptive_max_pool2d if level.ndim == 4 else functional.adaptive_max_pool3d
    g, w = (pool(mask, level.shape[2:]) for mask in (foreground, known))
    both, truth, said = region_sums(torch.where(w > 0, level, 0), g, w, squared=False, per_image=True)
    return (1 - (2 * both + SMOOTH) / (truth + said + SMOOTH)).mean()


class _HardSums(torch.autograd.Function):
    """Sums of w h p y and of w h (p + y) with h = λ |p - y| + 1 - λ for each image and class, a slab at a time."""

    @staticmethod
    def forward(ctx: Any, p: Tensor, y: Tensor, w: Tensor | None, hardness: float) -> tuple[Tensor, Tensor]:
        """Give both sums, of shape (B, K)."""
        ctx.save_for_backward(p, y, w)
        ctx.hardness = hardness
        both, total = p.new_zeros(2, *p.shape[:2])
        space = tuple(range(2, p.ndim))
        for part in slabs(p):
            weight = _hard(p[part], y[part], hardness)[0]
            if w is not None:
                weight.mul_(w[part])
            total[part[0]] += (weight * (p[part] + y[part])).sum(space)
            both[part[0]] += weight.mul_(p[part]).mul_(y[part]).sum(space)
        return both, total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_both: Tensor, of_total: Tensor) -> tuple[Tensor | None, ...]:
        """Give the gradient of p, w (a y (h + p h') + b (h + (p + y) h')) with h' = λ sign(p - y)."""
        p, y, w = ctx.saved_tensors
        slope = torch.empty_like(p)
        shape = (*p.shape[:2], *(1,) * (p.ndim - 2))
        of_both, of_total = of_both.reshape(shape), of_total.reshape(shape)
        for part in slabs(p):
            a, b = of_both[part[0]], of_total[part[0]]
            h, steep = _hard(p[part], y[part], ctx.hardness)
            here = torch.addcmul(h, steep, p[part], out=slope[part])
            here.mul_(y[part] * a + b).addcmul_(steep.mul_(y[part]), b)
            if w is not None:
                here.mul_(w[part])
        return slope, None, None, None


def _hard(p: Tensor, y: Tensor, hardness: float) -> tuple[Tensor, Tensor]:
    """Give h and its derivative."""
    difference = p - y
    return difference.abs().mul_(hardness).add_(1 - hardness), difference.sign_().mul_(hardness)
