"""The V-Net whose blocks filter each channel on its own, for little memory and few parameters."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from napari_unetvnet.networks.blocks import batch_norm, conv, pad_channels
from napari_unetvnet.networks.vnet import VShaped, activation_layer, strided_conv, up_step

__all__ = ["VNetDepthwise"]


def _depthwise(dims: int, channels: int) -> nn.Module:
    """Make a 3-wide convolution of each channel with a kernel of its own."""
    kind = nn.Conv2d if dims == 2 else nn.Conv3d
    return kind(channels, channels, 3, padding=1, groups=channels)


class _DepthwiseUnits(nn.Module):
    """Depthwise, perhaps separable, units whose input is added to their output, zeros making up missing channels."""

    def __init__(self, dims: int, inputs: int, width: int, count: int, *, pointwise: bool, activation: str) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for a, b in pairwise([inputs, *[width] * count]):
            layers += [_depthwise(dims, a), batch_norm(dims, a), activation_layer(activation, a)]
            if pointwise:
                layers += [conv(dims, a, b, kernel=1), batch_norm(dims, b), activation_layer(activation, b)]
        self.units = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, *S) to the same shape."""
        return x + pad_channels(self.units(x), x.shape[1])


class VNetDepthwise(VShaped):
    """V-Net of depthwise convolutions: a thirtieth of the V-Net's parameters.

    A 3-wide convolution gives ``width`` channels, the first skip. Each of ``depth - 1`` levels below it is a 2-wide
    convolution of stride 2 that doubles the channels and a block of min(level, 3) units: depthwise 3-wide convolution,
    batch norm, activation; the block's input is added to its output. A decoder block reads [up, skip] and is as wide.
    Deviation from the source: a depthwise convolution pads by itself, not in a step before it, with the same numbers.

    Parameters
    ----------
    dims : {2, 3}
        Spatial dimensions.
    in_channels, classes : int
        Channels C of the input and K of the logits.
    width : int
        Channels of the top level; they double at each level.
    depth : int
        Number of levels; sizes must be multiples of ``2**(depth-1)``.
    pointwise : {"none", "wide", "narrow"}
        Whether a unit mixes its channels by a 1-wide convolution with batch norm and activation: not at all; keeping
        the width; or, in the encoder, halving it as the source's later code asks for (which there does not build),
        the missing half being zeros where the block's input is added.
    up : {"upsample", "deconv"}
        Up-step: linear doubling with a 1-wide convolution, or a 2-wide transposed convolution.
    activation : {"leaky_relu", "prelu", "elu"}
        Leaky ReLU of slope 0.3, PReLU with one slope a channel, or ELU.
    align_corners : bool
        Whether linear doubling keeps the corner voxels' values in place instead of the voxels' extents.
    deep_supervision : int
        How many decoder levels below the top one get a head of their own, in training only.

    References
    ----------
    .. [1] Milletari, Navab, Ahmadi 2016, V-Net, https://arxiv.org/abs/1606.04797
    .. [2] Chollet 2017, Xception: depthwise separable convolutions, https://arxiv.org/abs/1610.02357
    """

    supported_dims = (3, 2)

    def __init__(  # noqa: PLR0913 (the keyword-only ones are the options that the table offers)
        self,
        dims: int,
        in_channels: int,
        classes: int,
        *,
        width: int = 16,
        depth: int = 5,
        pointwise: Literal["none", "wide", "narrow"] = "none",
        up: Literal["upsample", "deconv"] = "upsample",
        activation: Literal["leaky_relu", "prelu", "elu"] = "leaky_relu",
        align_corners: bool = False,
        deep_supervision: int = 0,
    ) -> None:
        super().__init__(dims, in_channels, classes, width, depth)
        counts = [min(i + 1, 3) for i in range(depth - 1)]
        mixes = pointwise != "none"
        self.downs.append(conv(dims, in_channels, width, padding=1))
        self.encoder.append(nn.Identity())
        for (w, deeper), count in zip(pairwise(self.widths), counts, strict=True):
            inner = w if pointwise == "narrow" else deeper
            self.downs.append(strided_conv(dims, w, deeper))
            self.encoder.append(_DepthwiseUnits(dims, deeper, inner, count, pointwise=mixes, activation=activation))
        for w, source, count in zip(self.widths[:-1], self.up_inputs, counts, strict=True):
            self.ups.append(up_step(dims, source, w, up, align_corners=align_corners))
            self.decoder.append(_DepthwiseUnits(dims, 2 * w, 2 * w, count, pointwise=mixes, activation=activation))
        self.add_heads([2 * w for w in self.widths[:-1]], deep_supervision)
        self.initialise()
