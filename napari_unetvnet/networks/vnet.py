"""The V-Net in its two forms, and the V shape that all V-Nets share.

Every level is a block of convolutions whose input is added to its output, channels of zeros making up the difference
in width. Levels are joined by strided convolutions on the way down and by concatenation on the way up. `VShaped` has
that forward pass and the heads; a subclass fills in the steps.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_unetvnet.errors import SettingsProblem
from napari_unetvnet.networks.base import SegmentationNetwork, TrainingOutputs
from napari_unetvnet.networks.blocks import batch_norm, conv, pad_channels, transposed_conv

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["VNet", "VNet2D", "VShaped", "activation_layer", "strided_conv", "up_step"]

# Keras' slope for negative values, on which the source's networks were built.
SLOPE = 0.3


def activation_layer(kind: str, channels: int) -> nn.Module:
    """Make an activation.

    Parameters
    ----------
    kind : {"prelu", "leaky_relu", "elu"}
        A PReLU learns one slope a channel.

    Returns
    -------
    nn.Module
    """
    if kind == "prelu":
        return nn.PReLU(channels)
    return nn.LeakyReLU(SLOPE) if kind == "leaky_relu" else nn.ELU()


def strided_conv(dims: int, inputs: int, outputs: int, kernel: int = 2) -> nn.Module:
    """Make a convolution of stride 2 that halves even axes.

    Parameters
    ----------
    dims : {2, 3}
    kernel : {2, 3}

    Returns
    -------
    nn.Module
    """
    kind = nn.Conv2d if dims == 2 else nn.Conv3d
    return kind(inputs, outputs, kernel, stride=2, padding=(kernel - 1) // 2)


def linear_mode(dims: int) -> str:
    """Name the interpolation that is linear along each axis."""
    return "bilinear" if dims == 2 else "trilinear"


def up_step(dims: int, inputs: int, outputs: int, kind: str, *, align_corners: bool = False) -> nn.Module:
    """Make a bare step that doubles each axis.

    For "upsample" the source doubles first and convolves then. Interpolation weights sum to 1, so the two commute;
    convolving first gives the same numbers for a quarter (2D) or an eighth (3D) of the work and memory.

    Parameters
    ----------
    dims : {2, 3}
    kind : {"upsample", "deconv"}
        Linear doubling with a 1-wide convolution, or a 2-wide transposed convolution.

    Returns
    -------
    nn.Module
    """
    if kind == "deconv":
        return transposed_conv(dims, inputs, outputs)
    doubled = nn.Upsample(scale_factor=2, mode=linear_mode(dims), align_corners=align_corners)
    return nn.Sequential(conv(dims, inputs, outputs, kernel=1), doubled)


class VShaped(SegmentationNetwork):
    """The forward pass that V-Nets share, with a head at the top and, for training, at levels below it.

    A subclass fills ``downs`` and ``encoder`` with one entry per level (the first of ``downs`` keeps the size), ``ups``
    and ``decoder`` with one per level but the bottom, all from the top, and then calls `add_heads` and `initialise`.

    Parameters
    ----------
    dims : {2, 3}
    width : int
        Channels of the top level.
    depth : int
        Number of levels.

    Raises
    ------
    SettingsProblem
        If the width or the depth is too small.
    """

    def __init__(self, dims: int, in_channels: int, classes: int, width: int, depth: int) -> None:
        super().__init__(dims, in_channels, classes)
        if width < 1 or depth < 2:
            raise SettingsProblem(f"{type(self).__name__} needs width >= 1 and depth >= 2, not {width} and {depth}.")
        self.depth = depth
        self.widths = tuple(width * 2**i for i in range(depth))
        self.downs, self.encoder = nn.ModuleList(), nn.ModuleList()
        self.ups, self.decoder = nn.ModuleList(), nn.ModuleList()

    def add_heads(self, channels: Sequence[int], deep_supervision: int) -> None:
        """Put a 1-wide convolution to the classes on the top decoder level and on some below it.

        Parameters
        ----------
        channels : ints
            Of each decoder level, the top first.
        deep_supervision : int
            How many levels below the top get a head.

        Raises
        ------
        SettingsProblem
            If there are fewer levels.
        """
        most = len(channels) - 1
        if not 0 <= deep_supervision <= most:
            raise SettingsProblem(
                f"{type(self).__name__} of depth {self.depth} has {most} decoder levels below the top one; "
                f"deep_supervision must be between 0 and {most}, not {deep_supervision}."
            )
        below = channels[1 : 1 + deep_supervision]
        self.auxiliary_heads = nn.ModuleList(conv(self.dims, c, self.classes, kernel=1) for c in below)
        self.head = conv(self.dims, channels[0], self.classes, kernel=1)

    @property
    def up_inputs(self) -> tuple[int, ...]:
        """What each up-step reads, the top first, where decoder blocks are twice as wide as their levels."""
        return (*(2 * w for w in self.widths[1:-1]), self.widths[-1])

    @property
    def divisor(self) -> tuple[int, ...]:
        """One voxel of the bottom level."""
        return (2 ** (self.depth - 1),) * self.dims

    def join(self, stage: nn.Module, up: Tensor, skip: Tensor) -> Tensor:
        """Run a decoder block on what comes from below and what comes from the encoder.

        Parameters
        ----------
        up, skip : Tensor of shape (B, C', *S')

        Returns
        -------
        Tensor of shape (B, C", *S')
        """
        joined: Tensor = stage(torch.cat([up, skip], dim=1))
        return joined

    def decoded(self, x: Tensor) -> list[Tensor]:
        """Give the decoder's output at each level, the top first.

        Parameters
        ----------
        x : Tensor of shape (B, C, *S)

        Returns
        -------
        list of Tensor
        """
        self.check_size(x)
        skips: list[Tensor] = []
        for down, stage in zip(self.downs, self.encoder, strict=True):
            x = stage(down(x))
            skips.append(x)
        skips.pop()
        levels: list[Tensor] = []
        for up, stage in zip(reversed(self.ups), reversed(self.decoder), strict=True):
            x = self.join(stage, up(x), skips.pop())
            levels.append(x)
        return levels[::-1]

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, *S) to logits (B, K, *S)."""
        logits: Tensor = self.head(self.decoded(x)[0])
        return logits

    def training_outputs(self, x: Tensor) -> TrainingOutputs:
        """Give the logits and those of the levels below, interpolated to full size.

        Parameters
        ----------
        x : Tensor of shape (B, C, *S)

        Returns
        -------
        TrainingOutputs
        """
        top, *below = self.decoded(x)
        coarse = [head(level) for head, level in zip(self.auxiliary_heads, below, strict=False)]
        mode, size = linear_mode(self.dims), x.shape[2:]
        auxiliary = tuple(functional.interpolate(c, size=size, mode=mode, align_corners=False) for c in coarse)
        return TrainingOutputs(self.head(top), auxiliary)


def _unit(dims: int, step: nn.Module, channels: int, activation: str) -> nn.Sequential:
    """Follow a convolution with batch norm and activation."""
    return nn.Sequential(step, batch_norm(dims, channels), activation_layer(activation, channels))


class _Units(nn.Module):
    """Same-size units, their output plus a residual whose missing channels are zeros (or copies of its only one)."""

    def __init__(  # noqa: PLR0913 (private: two networks name each)
        self,
        dims: int,
        inputs: int,
        width: int,
        count: int,
        *,
        kernel: int,
        activation: str,
        broadcast: bool = False,
        activate_sum: bool = False,
    ) -> None:
        super().__init__()
        first = conv(dims, inputs, width, kernel, padding=kernel // 2)
        others = [conv(dims, width, width, kernel, padding=kernel // 2) for _ in range(count - 1)]
        self.units = nn.Sequential(*(_unit(dims, step, width, activation) for step in (first, *others)))
        self.broadcast = broadcast
        self.after = activation_layer(activation, width) if activate_sum else nn.Identity()

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Map (B, inputs, *S) to (B, width, *S); the residual is the input unless another is passed."""
        out: Tensor = self.units(x)
        residual = x if residual is None else residual
        total: Tensor = self.after(out + (residual if self.broadcast else pad_channels(residual, out.shape[1])))
        return total


class VNet2D(VShaped):
    """V-Net with 5-wide convolutions, batch norm and PReLU, and the up-step's output as the decoder's residual.

    Level s = 1..depth has ``width * 2**(s-1)`` channels and min(s, 3) units of convolution, batch norm and activation,
    whose input is added to their output. A down- or up-step is a 2-wide (transposed) convolution of stride 2 with batch
    norm and activation. A decoder block is twice as wide as its level: it reads [skip, up], and ``up`` is added to it.
    Deviation from the source: PReLU learns one slope a channel, not one a voxel of the feature map, which would fix the
    input size. If the input has more channels than ``width``, the residual of the first level is its first ones.

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
    kernel : {5, 3}
        Voxels that a convolution sees along each axis.
    activation : {"prelu", "leaky_relu", "elu"}
        PReLU with one slope a channel, leaky ReLU of slope 0.3, or ELU.
    first_residual : {"pad", "broadcast"}
        How the image is added to the first level's channels: as the first ones, the rest zeros, or to every channel,
        for images of 1 channel only.
    units : {"figure", "caffe"}
        Units of each level: 1, 2, 3, 3, 3 as in the paper's figure, or 1, 1, 2, 3, 3 as in the paper's own code.
    activate_sums : bool
        Whether each sum is activated, as in the paper's own code.
    deep_supervision : int
        How many decoder levels below the top one get a head of their own, in training only.

    References
    ----------
    .. [1] Milletari, Navab, Ahmadi 2016, V-Net, https://arxiv.org/abs/1606.04797
    .. [2] He et al. 2015, Delving deep into rectifiers (PReLU), https://arxiv.org/abs/1502.01852
    """

    def __init__(  # noqa: PLR0913 (the keyword-only ones are the options that the table offers)
        self,
        dims: int,
        in_channels: int,
        classes: int,
        *,
        width: int = 16,
        depth: int = 5,
        kernel: Literal[5, 3] = 5,
        activation: Literal["prelu", "leaky_relu", "elu"] = "prelu",
        first_residual: Literal["pad", "broadcast"] = "pad",
        units: Literal["figure", "caffe"] = "figure",
        activate_sums: bool = False,
        deep_supervision: int = 0,
    ) -> None:
        super().__init__(dims, in_channels, classes, width, depth)
        if first_residual == "broadcast" and in_channels != 1:
            raise SettingsProblem(f"Only an image of 1 channel can be broadcast, not of {in_channels}; choose pad.")
        counts = [min(s if units == "figure" else max(s - 1, 1), 3) for s in range(1, depth + 1)]
        block = partial(_Units, dims, kernel=kernel, activation=activation, activate_sum=activate_sums)
        self.downs.append(nn.Identity())
        self.encoder.append(block(in_channels, width, counts[0], broadcast=first_residual == "broadcast"))
        for w, count in zip(self.widths[1:], counts[1:], strict=True):
            self.downs.append(_unit(dims, strided_conv(dims, w // 2, w), w, activation))
            self.encoder.append(block(w, w, count))
        for w, source, count in zip(self.widths[:-1], self.up_inputs, counts[:-1], strict=True):
            self.ups.append(_unit(dims, transposed_conv(dims, source, w), w, activation))
            self.decoder.append(block(2 * w, 2 * w, count))
        self.add_heads([2 * w for w in self.widths[:-1]], deep_supervision)
        self.initialise()

    def join(self, stage: nn.Module, up: Tensor, skip: Tensor) -> Tensor:
        """Map two (B, C', *S') to (B, 2C', *S'): the block reads [skip, up], its residual is only ``up``."""
        joined: Tensor = stage(torch.cat([skip, up], dim=1), up)
        return joined


class VNet(VShaped):
    """V-Net with 3-wide convolutions, bare strided down-steps and linear up-steps.

    Level i = 0..depth-1 has ``width * 2**i`` channels and min(i + 1, 3) units of convolution, batch norm and
    activation, whose input is added to their output. Down- and up-steps have neither norm nor activation. A decoder
    block is twice as wide as its level: it reads [up, skip], and all of that is added to it. If the input has more
    channels than ``width``, the residual of the first level is its first ones.

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
    kernel : {3, 5}
        Voxels that a convolution sees along each axis; 5 as in the paper has 4.5 times the parameters in 3D.
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
        kernel: Literal[3, 5] = 3,
        up: Literal["upsample", "deconv"] = "upsample",
        activation: Literal["leaky_relu", "prelu", "elu"] = "leaky_relu",
        align_corners: bool = False,
        deep_supervision: int = 0,
    ) -> None:
        super().__init__(dims, in_channels, classes, width, depth)
        counts = [min(i + 1, 3) for i in range(depth)]
        block = partial(_Units, dims, kernel=kernel, activation=activation)
        self.downs.append(nn.Identity())
        self.encoder.append(block(in_channels, width, counts[0]))
        for w, count in zip(self.widths[1:], counts[1:], strict=True):
            self.downs.append(strided_conv(dims, w // 2, w))
            self.encoder.append(block(w, w, count))
        for w, source, count in zip(self.widths[:-1], self.up_inputs, counts[:-1], strict=True):
            self.ups.append(up_step(dims, source, w, up, align_corners=align_corners))
            self.decoder.append(block(2 * w, 2 * w, count))
        self.add_heads([2 * w for w in self.widths[:-1]], deep_supervision)
        self.initialise()
