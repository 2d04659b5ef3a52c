"""Decoder blocks of the U-Nets on a classification encoder, and linear resizing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_unetvnet.networks.blocks import transposed_conv
from napari_unetvnet.networks.encoder_blocks import conv_norm

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["DecoderBlock", "resize"]


class DecoderBlock(nn.Module):
    """Double the size and join a skip, in two parts: `squeeze` on the coarse grid, `expand` on the fine one.

    "deconv": 1-wide convolution to a quarter, 4-wide transposed convolution, 1-wide convolution to the skip's width.
    "up": the same with nearest doubling and a 3-wide convolution in the middle. "double": nearest doubling,
    concatenation and two 3-wide convolutions without bias.

    Parameters
    ----------
    dims : {2, 3}
    inputs, skip, outputs : int
        Channels of the coarse tensor, of the skip (0 if there is none) and out of the last convolution.
    kind : {"deconv", "up", "double"}
    concat : bool
        Whether "deconv" and "up" concatenate the skip or add it.
    """

    def __init__(self, dims: int, inputs: int, skip: int, outputs: int, kind: str, concat: bool) -> None:
        super().__init__()
        self.doubles, self.concat = kind == "double", concat or kind == "double"
        self.squeezed = inputs if self.doubles else max(1, inputs // 4)
        self.outputs = outputs + (skip if self.concat and not self.doubles else 0)
        self.step: nn.Module
        self.last: nn.Module
        if self.doubles:
            self.first: nn.Module = nn.Identity()
            self.step = nn.Upsample(scale_factor=2, mode="nearest")
            self.last = nn.Sequential(
                conv_norm(dims, inputs + skip, outputs, bias=False), conv_norm(dims, outputs, outputs, bias=False)
            )
            return
        self.first = conv_norm(dims, inputs, self.squeezed, 1)
        nearest = nn.Upsample(scale_factor=2, mode="nearest")
        self.step = (
            transposed_conv(dims, self.squeezed, self.squeezed, 4)
            if kind == "deconv"
            else nn.Sequential(nearest, conv_norm(dims, self.squeezed, self.squeezed))
        )
        self.last = conv_norm(dims, self.squeezed, outputs, 1)

    def squeeze(self, x: Tensor) -> Tensor:
        """Narrow the coarse tensor.

        Parameters
        ----------
        x : Tensor of shape (B, inputs, *S)

        Returns
        -------
        Tensor of shape (B, squeezed, *S)
        """
        out: Tensor = self.first(x)
        return out

    def expand(self, x: Tensor, skip: Tensor | None) -> Tensor:
        """Double the size and join the skip.

        Parameters
        ----------
        x : Tensor of shape (B, squeezed, *S)
        skip : Tensor of shape (B, skip, *2S) or None

        Returns
        -------
        Tensor of shape (B, outputs, *2S)
        """
        x = self.step(x)
        if self.doubles:
            joined: Tensor = self.last(x if skip is None else torch.cat([x, skip], dim=1))
            return joined
        out: Tensor = self.last(x)
        if skip is None:
            return out
        return torch.cat([out, skip], dim=1) if self.concat else out + skip

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        """Map (B, inputs, *S) and (B, skip, *2S) to (B, outputs, *2S)."""
        return self.expand(self.squeeze(x), skip)


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Resize linearly, without aligning corners.

    Parameters
    ----------
    x : Tensor of shape (B, C, *S)

    Returns
    -------
    Tensor of shape (B, C, *size)
    """
    mode = "bilinear" if x.ndim == 4 else "trilinear"
    return functional.interpolate(x, size=tuple(size), mode=mode, align_corners=False)
