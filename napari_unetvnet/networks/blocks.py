"""The layers that networks share, each for 2D and 3D from one definition."""

from __future__ import annotations

from itertools import pairwise
from math import gcd
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_unetvnet.errors import SettingsProblem

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "AuxiliaryHeads",
    "Norm",
    "UpConv",
    "batch_norm",
    "centre_crop",
    "conv",
    "conv_stack",
    "max_pool",
    "norm_of",
    "pad_channels",
    "transposed_conv",
]

# Keras' epsilon, on which published weights of the sources depend. Its momentum of 0.99 would need hundreds of steps
# until the running statistics can be used; 0.1 (the share of the newest batch) serves short trainings.
EPSILON, MOMENTUM = 1e-3, 0.1
GROUPS = 8
Norm = Literal["batch", "instance", "group"]
"""What a mean and a deviation are taken over: the batch, one sample, or a group of channels of one sample."""


def conv(dims: int, inputs: int, outputs: int, kernel: int = 3, padding: int = 0) -> nn.Module:
    """Make a convolution with bias.

    Parameters
    ----------
    dims : {2, 3}

    Returns
    -------
    nn.Module
    """
    kind = nn.Conv2d if dims == 2 else nn.Conv3d
    return kind(inputs, outputs, kernel, padding=padding)


def transposed_conv(dims: int, inputs: int, outputs: int, kernel: int = 2) -> nn.Module:
    """Make a transposed convolution of stride 2 that doubles each axis.

    Parameters
    ----------
    dims : {2, 3}
    kernel : {2, 3, 4}

    Returns
    -------
    nn.Module
    """
    kind = nn.ConvTranspose2d if dims == 2 else nn.ConvTranspose3d
    # An output of 2 (n - 1) + kernel - 2 padding + output_padding voxels must be 2 n.
    padding = (kernel - 1) // 2
    return kind(inputs, outputs, kernel, stride=2, padding=padding, output_padding=2 - kernel + 2 * padding)


def batch_norm(dims: int, channels: int) -> nn.Module:
    """Make a batch norm.

    Parameters
    ----------
    dims : {2, 3}

    Returns
    -------
    nn.Module
    """
    kind = nn.BatchNorm2d if dims == 2 else nn.BatchNorm3d
    return kind(channels, eps=EPSILON, momentum=MOMENTUM)


def norm_of(kind: Norm, dims: int, channels: int) -> nn.Module:
    """Make a norm with a scale and a shift for each channel.

    Parameters
    ----------
    dims : {2, 3}

    Returns
    -------
    nn.Module
        Groups are as many as divide the channels, at most GROUPS.
    """
    if kind == "batch":
        return batch_norm(dims, channels)
    if kind == "instance":
        return (nn.InstanceNorm2d if dims == 2 else nn.InstanceNorm3d)(channels, affine=True)
    return nn.GroupNorm(gcd(GROUPS, channels), channels)


def max_pool(dims: int) -> nn.Module:
    """Make a max-pooling that halves each axis, rounding down.

    Parameters
    ----------
    dims : {2, 3}

    Returns
    -------
    nn.Module
    """
    return (nn.MaxPool2d if dims == 2 else nn.MaxPool3d)(2)


def conv_stack(dims: int, widths: Sequence[int], *, padding: int, norm: bool | Norm) -> nn.Sequential:
    """Make a chain of 3-wide convolutions, each with ReLU and optionally a norm; True is batch norm.

    Parameters
    ----------
    dims : {2, 3}
    widths : ints
        Channels before the first, between, and after the last convolution.
    padding : {0, 1}
        0 for valid, 1 for same-size convolutions.

    Returns
    -------
    nn.Sequential
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers.append(conv(dims, inputs, outputs, padding=padding))
        layers += [norm_of("batch" if norm is True else norm, dims, outputs)] if norm else []
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


class UpConv(nn.Module):
    """Nearest-neighbour doubling, then a 2-wide convolution that keeps the size, then ReLU.

    A 2-wide convolution of the same size pads 0 before and 1 after each axis (as Keras and ``padding="same"`` do), so
    the last voxel of each axis sees padding.

    Parameters
    ----------
    dims : {2, 3}
    """

    def __init__(self, dims: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.dims = dims
        self.conv = conv(dims, inputs, outputs, kernel=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, *S) to (B, C', *2S)."""
        doubled = functional.interpolate(x, scale_factor=2, mode="nearest")
        out: Tensor = functional.relu(self.conv(functional.pad(doubled, (0, 1) * self.dims)))
        return out


def centre_crop(x: Tensor, size: Sequence[int]) -> Tensor:
    """Cut the middle out; of an odd difference, one voxel more is cut at the end.

    Parameters
    ----------
    x : Tensor of shape (B, C, *S)

    Returns
    -------
    Tensor of shape (B, C, *size)
    """
    for axis, n in enumerate(size, start=2):
        x = x.narrow(axis, (x.shape[axis] - n) // 2, n)
    return x


def pad_channels(x: Tensor, channels: int) -> Tensor:
    """Append channels of zeros, or keep the first ones, so that a block's input can be added to its output.

    Parameters
    ----------
    x : Tensor of shape (B, C, *S)

    Returns
    -------
    Tensor of shape (B, channels, *S)
    """
    missing = channels - x.shape[1]
    if missing <= 0:
        return x[:, :channels]
    return torch.cat([x, x.new_zeros(x.shape[0], missing, *x.shape[2:])], dim=1)


class AuxiliaryHeads(nn.Module):
    """1-wide convolutions on the decoder levels below the top one, whose logits training sees at full size.

    Parameters
    ----------
    dims : {2, 3}
    widths : ints
        Channels of those levels, the finest first.
    count : int
        How many levels, from the finest on, get a head.

    Raises
    ------
    SettingsProblem
        If there are not that many levels.
    """

    def __init__(self, dims: int, widths: Sequence[int], classes: int, count: int) -> None:
        super().__init__()
        if not 0 <= count <= len(widths):
            raise SettingsProblem(
                f"Deep supervision of {count} levels is not possible: this network has {len(widths)} decoder levels "
                "below the top one."
            )
        self.mode = "bilinear" if dims == 2 else "trilinear"
        self.heads = nn.ModuleList(conv(dims, width, classes, kernel=1) for width in widths[:count])

    def forward(self, levels: Sequence[Tensor], size: Sequence[int]) -> tuple[Tensor, ...]:
        """Map the levels, the finest first, to logits (B, K, *size), as many as there are heads."""
        pairs = zip(range(len(self.heads)), levels, strict=False)
        return tuple(self.logits(i, level, size) for i, level in pairs)

    def logits(self, index: int, level: Tensor, size: Sequence[int]) -> Tensor:
        """Map one level (B, C', *S') to its logits (B, K, *size).

        Parameters
        ----------
        index : int
            Of the level, 0 for the finest below the top.

        Returns
        -------
        Tensor
        """
        return functional.interpolate(self.heads[index](level), size=tuple(size), mode=self.mode, align_corners=False)
