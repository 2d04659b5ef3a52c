"""The 3D U-Net of 2016, whose second convolution of each stage doubles the channels."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from napari_unetvnet.networks.base import SegmentationNetwork
from napari_unetvnet.networks.blocks import conv, conv_stack, max_pool, transposed_conv
from napari_unetvnet.networks.unet import stage_widths

__all__ = ["UNet3D"]


class UNet3D(SegmentationNetwork):
    """3D U-Net: the second convolution doubles, up-steps keep their channels.

    Stage i has convolutions to ``width * 2**i`` and ``width * 2**(i+1)`` channels; the decoder's have the width of
    the skip that they join.

    Parameters
    ----------
    dims : {2, 3}
        Spatial dimensions.
    in_channels, classes : int
        Channels C of the input and K of the logits.
    width : int
        Channels of the first convolution.
    depth : int
        Number of stages, poolings + 1; sizes must be multiples of ``2**(depth-1)``.
    norm : bool
        Whether each convolution has a batch norm.
    up : {"deconv", "upsample"}
        Up-step: a 2-wide transposed convolution, or nearest doubling.

    References
    ----------
    .. [1] Cicek et al. 2016, 3D U-Net, https://arxiv.org/abs/1606.06650
    """

    supported_dims = (3, 2)

    def __init__(
        self,
        dims: int,
        in_channels: int,
        classes: int,
        *,
        width: int = 32,
        depth: int = 4,
        norm: bool = True,
        up: Literal["deconv", "upsample"] = "deconv",
    ) -> None:
        super().__init__(dims, in_channels, classes)
        outputs = [2 * w for w in stage_widths(width, depth)]
        self.depth = depth
        self.encoder = nn.ModuleList(
            conv_stack(dims, (a, b // 2, b), padding=1, norm=norm) for a, b in pairwise([in_channels, *outputs])
        )
        self.pool = max_pool(dims)
        self.ups = nn.ModuleList(
            transposed_conv(dims, b, b) if up == "deconv" else nn.Upsample(scale_factor=2, mode="nearest")
            for b in outputs[1:]
        )
        self.decoder = nn.ModuleList(
            conv_stack(dims, (a + b, a, a), padding=1, norm=norm) for a, b in pairwise(outputs)
        )
        self.head = conv(dims, outputs[0], classes, kernel=1)
        self.initialise()

    @property
    def divisor(self) -> tuple[int, ...]:
        """One pooling cell."""
        return (2 ** (self.depth - 1),) * self.dims

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, *S) to logits (B, K, *S)."""
        self.check_size(x)
        skips: list[Tensor] = []
        for i, stage in enumerate(self.encoder):
            x = stage(self.pool(x) if i else x)
            skips.append(x)
        skips.pop()
        for step, stage, skip in zip(reversed(self.ups), reversed(self.decoder), reversed(skips), strict=True):
            x = stage(torch.cat([step(x), skip], dim=1))
        logits: Tensor = self.head(x)
        return logits
