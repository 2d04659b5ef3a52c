"""The 3D U-Net of 2016, whose second convolution of each stage doubles the channels."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from torch import nn

from napari_unetvnet.networks.blocks import AuxiliaryHeads, conv, conv_stack, max_pool, transposed_conv
from napari_unetvnet.networks.unet import UShaped, stage_widths

__all__ = ["UNet3D"]


class UNet3D(UShaped):
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
    deep_supervision : int
        Number of auxiliary heads on the decoder levels below the top one, for training only.

    References
    ----------
    .. [1] Cicek et al. 2016, 3D U-Net, https://arxiv.org/abs/1606.06650
    """

    supported_dims = (3, 2)

    def __init__(  # noqa: PLR0913 (the keyword-only ones are the options that the table offers)
        self,
        dims: int,
        in_channels: int,
        classes: int,
        *,
        width: int = 32,
        depth: int = 4,
        norm: bool = True,
        up: Literal["deconv", "upsample"] = "deconv",
        deep_supervision: int = 0,
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
            for b in outputs[:0:-1]
        )
        self.decoder = nn.ModuleList(
            conv_stack(dims, (a + b, a, a), padding=1, norm=norm) for b, a in pairwise(outputs[::-1])
        )
        self.head = conv(dims, outputs[0], classes, kernel=1)
        self.auxiliary_heads = AuxiliaryHeads(dims, outputs[1:-1], classes, deep_supervision)
        self.initialise()

    @property
    def divisor(self) -> tuple[int, ...]:
        """One pooling cell."""
        return (2 ** (self.depth - 1),) * self.dims
