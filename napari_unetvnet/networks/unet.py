"""The U-Net of 2015 and its size-preserving form with batch norm.

`UNetOriginal` uses valid convolutions: its output is smaller than its input by a fixed margin, which the mirrored
overlap-tile rule supplies from the neighbourhood. `UNetPadding` keeps the size and needs multiples of ``2**(depth-1)``.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from napari_unetvnet.errors import DataProblem, SettingsProblem
from napari_unetvnet.networks.base import SegmentationNetwork, TrainingOutputs, by
from napari_unetvnet.networks.blocks import (
    AuxiliaryHeads,
    Norm,
    UpConv,
    centre_crop,
    conv,
    conv_stack,
    max_pool,
    pad_channels,
    transposed_conv,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["UNetOriginal", "UNetPadding", "UShaped", "stage_widths"]


def stage_widths(width: int, depth: int) -> list[int]:
    """Give the channels of each stage, doubling from the top.

    Parameters
    ----------
    width : int
        Of the top stage, at least 1.
    depth : int
        Number of stages, at least 2.

    Returns
    -------
    list of int

    Raises
    ------
    SettingsProblem
        If the width or the depth is too small.
    """
    if width < 1 or depth < 2:
        raise SettingsProblem(f"A U-Net needs width >= 1 and depth >= 2, not {width} and {depth}.")
    return [width * 2**i for i in range(depth)]


class UShaped(SegmentationNetwork):
    """The forward pass that U-Nets share; a subclass makes the stages, each list in the order of its use.

    Parameters
    ----------
    dims : {2, 3}
    """

    encoder: nn.ModuleList
    pool: nn.Module
    ups: nn.ModuleList
    decoder: nn.ModuleList
    head: nn.Module
    auxiliary_heads: AuxiliaryHeads

    def join(self, skip: Tensor, up: Tensor) -> Tensor:
        """Concatenate what comes from below and the skip, in this order.

        Parameters
        ----------
        skip, up : Tensor of shape (B, C', *S) and (B, C'', *S)

        Returns
        -------
        Tensor of shape (B, C' + C'', *S)
        """
        return torch.cat([up, skip], dim=1)

    def levels(self, x: Tensor) -> list[Tensor]:
        """Give what the decoder's levels hold.

        Parameters
        ----------
        x : Tensor of shape (B, C, *S)

        Returns
        -------
        list of Tensor
            The finest first.
        """
        self.check_size(x)
        skips: list[Tensor] = []
        for i, stage in enumerate(self.encoder):
            x = stage(self.pool(x) if i else x)
            skips.append(x)
        skips.pop()
        levels: list[Tensor] = []
        for step, stage, skip in zip(self.ups, self.decoder, reversed(skips), strict=True):
            x = stage(self.join(skip, step(x)))
            levels.insert(0, x)
        return levels

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, *S) to logits (B, K, *S), smaller by the margin where convolutions are valid."""
        logits: Tensor = self.head(self.levels(x)[0])
        return logits

    def training_outputs(self, x: Tensor) -> TrainingOutputs:
        """Give the logits and those of the auxiliary heads, if there are any.

        Parameters
        ----------
        x : Tensor of shape (B, C, *S)

        Returns
        -------
        TrainingOutputs
        """
        levels = self.levels(x)
        logits = self.head(levels[0])
        return TrainingOutputs(logits, self.auxiliary_heads(levels[1:], logits.shape[2:]))


class UNetOriginal(UShaped):
    """U-Net of 2015: valid convolutions, cropped skips, dropout at the end of the contracting path.

    With depth 5 an axis of ``a`` voxels gives ``16 * b - 60``, 572 gives 388 and 188, the smallest, gives 4. Sizes
    ``12 (mod 16)`` lose nothing to rounding and give ``a - 184``.

    Parameters
    ----------
    dims : {2, 3}
        Spatial dimensions.
    in_channels, classes : int
        Channels C of the input and K of the logits.
    width : int
        Channels of the top stage; they double at each stage.
    depth : int
        Number of stages, poolings + 1.
    up : {"nearest", "transposed"}
        Up-step: nearest doubling with a 2-wide convolution and ReLU, or a transposed convolution. The former spoils
        the last ``2**(depth-1) - 1`` voxels of each axis, which `margin` counts in.
    dropout : {"last", "last_two"}
        After which contracting stages to drop activations, in training only.
    dropout_rate : float
        Share of activations to drop.
    deep_supervision : int
        Number of auxiliary heads on the decoder levels below the top one, for training only.

    References
    ----------
    .. [1] Ronneberger, Fischer, Brox 2015, U-Net, https://arxiv.org/abs/1505.04597
    """

    def __init__(  # noqa: PLR0913 (the keyword-only ones are the options that the table offers)
        self,
        dims: int,
        in_channels: int,
        classes: int,
        *,
        width: int = 64,
        depth: int = 5,
        up: Literal["nearest", "transposed"] = "nearest",
        dropout: Literal["last", "last_two"] = "last",
        dropout_rate: float = 0.5,
        deep_supervision: int = 0,
    ) -> None:
        super().__init__(dims, in_channels, classes)
        if not 0 <= dropout_rate <= 1:
            raise SettingsProblem(f"The dropout rate is a share between 0 and 1, not {dropout_rate}.")
        widths = stage_widths(width, depth)
        self.depth = depth
        self.up = up
        stages = [conv_stack(dims, (a, b, b), padding=0, norm=False) for a, b in pairwise([in_channels, *widths])]
        for stage in stages[-{"last": 1, "last_two": 2}[dropout] :]:
            stage.append(nn.Dropout(dropout_rate))
        self.encoder = nn.ModuleList(stages)
        self.pool = max_pool(dims)
        step = UpConv if up == "nearest" else transposed_conv
        self.ups = nn.ModuleList(step(dims, b, a) for b, a in pairwise(widths[::-1]))
        self.decoder = nn.ModuleList(conv_stack(dims, (2 * w, w, w), padding=0, norm=False) for w in widths[-2::-1])
        self.head = conv(dims, width, classes, kernel=1)
        self.auxiliary_heads = AuxiliaryHeads(dims, widths[1:-1], classes, deep_supervision)
        self.initialise()

    @property
    def alignment(self) -> tuple[int, ...]:
        """The pooling grid."""
        return (2 ** (self.depth - 1),) * self.dims

    @property
    def margin(self) -> tuple[tuple[int, int], ...]:
        """92 voxels a side at depth 5, and after the end one pooling cell more where the up-step spoils it."""
        grid = 2 ** (self.depth - 1)
        side = 6 * grid - 4
        return ((side, side + (grid if self.up == "nearest" else 0)),) * self.dims

    @property
    def smallest(self) -> tuple[int, ...]:
        """188 at depth 5."""
        return (12 * 2 ** (self.depth - 1) - 4,) * self.dims

    def fit(self, size: Sequence[int]) -> tuple[int, ...]:
        """Give the next input from which no pooling drops a voxel."""
        grid, least = 2 ** (self.depth - 1), self.smallest[0]
        return tuple(max(least, -(-(n + 4) // grid) * grid - 4) for n in size)

    def check_size(self, x: Tensor) -> None:
        """Refuse an input too small for the network; any other size has an output.

        Parameters
        ----------
        x : Tensor of shape (B, C, *S)

        Raises
        ------
        DataProblem
            If an axis is shorter than `smallest`.
        """
        size = tuple(x.shape[2:])
        if min(size) < self.smallest[0]:
            raise DataProblem(
                f"UNetOriginal takes no input of {by(size)} voxels; the smallest that fits is {by(self.smallest)}."
            )

    def join(self, skip: Tensor, up: Tensor) -> Tensor:
        """Concatenate the cropped skip and what comes from below, in this order.

        Parameters
        ----------
        skip, up : Tensor of shape (B, C, *S') and (B, C, *S)

        Returns
        -------
        Tensor of shape (B, 2C, *S)
        """
        return torch.cat([centre_crop(skip, up.shape[2:]), up], dim=1)

    def training_outputs(self, x: Tensor) -> TrainingOutputs:
        """Give the logits and those of the auxiliary heads, which see more than the output and are cropped to it.

        Parameters
        ----------
        x : Tensor of shape (B, C, *S)

        Returns
        -------
        TrainingOutputs
        """
        levels = self.levels(x)
        logits = self.head(levels[0])
        # A level covers more than the output: enlarged by its stride, its middle is the output's region.
        whole = [[n * 2**i for n in level.shape[2:]] for i, level in enumerate(levels[1:], start=1)]
        auxiliary = [
            centre_crop(self.auxiliary_heads.logits(i, level, size), logits.shape[2:])
            for i, (level, size) in enumerate(zip(levels[1:], whole, strict=True))
            if i < len(self.auxiliary_heads.heads)
        ]
        return TrainingOutputs(logits, tuple(auxiliary))


class _ShortcutStack(nn.Module):
    """Two convolutions whose input joins their output: not at all, added, concatenated, or projected and added."""

    def __init__(self, dims: int, inputs: int, width: int, shortcut: str, norm: Norm) -> None:
        super().__init__()
        self.stack = conv_stack(dims, (inputs, width, width), padding=1, norm=norm)
        self.shortcut = shortcut
        self.projection = conv(dims, inputs, width, kernel=1) if shortcut == "project" else None
        self.outputs = inputs + width if shortcut == "concat" else width

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, *S) to (B, outputs, *S)."""
        out: Tensor = self.stack(x)
        if self.projection is not None:
            projected: Tensor = self.projection(x)
            return out + projected
        if self.shortcut == "add":
            return out + pad_channels(x, out.shape[1])
        if self.shortcut == "concat":
            return torch.cat([x, out], dim=1)
        return out


class UNetPadding(UShaped):
    """U-Net that keeps the size: same padding, a norm, any depth, residual blocks if wanted.

    Parameters
    ----------
    dims : {2, 3}
        Spatial dimensions.
    in_channels, classes : int
        Channels C of the input and K of the logits.
    width : int
        Channels of the top stage; they double at each stage.
    depth : int
        Number of stages, poolings + 1; sizes must be multiples of ``2**(depth-1)``.
    block : {"none", "add", "concat", "project"}
        How a block's input joins its output: not at all, added with zero-padded channels, concatenated, or added
        through a 1-wide convolution.
    block_in : {"both", "encoder"}
        Where blocks have that shortcut.
    up : {"nearest", "transposed"}
        Up-step: nearest doubling with a 2-wide convolution and ReLU, or a 3-wide transposed convolution.
    deep_supervision : int
        Number of auxiliary heads on the decoder levels below the top one, for training only.
    norm : {"batch", "instance", "group"}
        After each convolution; instance norm, over one patch or tile, makes the result depend on the tile.

    References
    ----------
    .. [1] Ronneberger, Fischer, Brox 2015, U-Net, https://arxiv.org/abs/1505.04597
    .. [2] Ioffe, Szegedy 2015, Batch normalization, https://arxiv.org/abs/1502.03167
    """

    gives = (("heatmaps", ""),)

    def __init__(  # noqa: PLR0913 (the keyword-only ones are the options that the table offers)
        self,
        dims: int,
        in_channels: int,
        classes: int,
        *,
        width: int = 64,
        depth: int = 5,
        block: Literal["none", "add", "concat", "project"] = "none",
        block_in: Literal["both", "encoder"] = "both",
        up: Literal["nearest", "transposed"] = "nearest",
        deep_supervision: int = 0,
        norm: Norm = "batch",
    ) -> None:
        super().__init__(dims, in_channels, classes)
        widths = stage_widths(width, depth)
        self.depth = depth
        self.encoder = nn.ModuleList()
        channels, skips = in_channels, []
        for stage_width in widths:
            stage = _ShortcutStack(dims, channels, stage_width, block, norm)
            self.encoder.append(stage)
            channels = stage.outputs
            skips.append(channels)
        self.pool = max_pool(dims)
        self.ups, self.decoder = nn.ModuleList(), nn.ModuleList()
        outputs: list[int] = []
        for stage_width, skip in zip(widths[-2::-1], skips[-2::-1], strict=True):
            step = UpConv if up == "nearest" else partial(transposed_conv, kernel=3)
            self.ups.append(step(dims, channels, stage_width))
            shortcut = block if block_in == "both" else "none"
            stage = _ShortcutStack(dims, stage_width + skip, stage_width, shortcut, norm)
            self.decoder.append(stage)
            channels = stage.outputs
            outputs.append(channels)
        self.head = conv(dims, channels, classes, kernel=1)
        self.auxiliary_heads = AuxiliaryHeads(dims, outputs[-2::-1], classes, deep_supervision)
        self.initialise()

    @property
    def divisor(self) -> tuple[int, ...]:
        """One pooling cell."""
        return (2 ** (self.depth - 1),) * self.dims

    def activations(self, x: Tensor) -> dict[str, Tensor]:
        """Give the output of each decoder stage, the finest first."""
        return {f"decoder{i}": level for i, level in enumerate(self.levels(x))}
