"""A U-Net of pre-activation residual blocks whose head reads all decoder levels at once (a hypercolumn)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_unetvnet.errors import SettingsProblem
from napari_unetvnet.networks.base import SegmentationNetwork, TrainingOutputs
from napari_unetvnet.networks.blocks import AuxiliaryHeads, batch_norm, conv, max_pool, transposed_conv
from napari_unetvnet.networks.unet import stage_widths

__all__ = ["HypercolumnUNet"]


class _Residual(nn.Module):
    """Batch norm and ReLU before each of two convolutions, and their input added to what they give."""

    def __init__(self, dims: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            batch_norm(dims, width),
            nn.ReLU(),
            conv(dims, width, width, padding=1),
            batch_norm(dims, width),
            nn.ReLU(),
            conv(dims, width, width, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, *S) to (B, C, *S)."""
        out: Tensor = x + self.layers(x)
        return out


def _stage(dims: int, inputs: int, width: int) -> nn.Sequential:
    """Make a convolution, two residual blocks, and the activation that those leave out."""
    return nn.Sequential(
        conv(dims, inputs, width, padding=1),
        _Residual(dims, width),
        _Residual(dims, width),
        batch_norm(dims, width),
        nn.ReLU(),
    )


class HypercolumnUNet(SegmentationNetwork):
    """U-Net whose head sees every decoder level: all are resized to full size and concatenated.

    Stage: convolution, two pre-activation residual blocks, batch norm, ReLU. Each pooling and each join (up before
    skip) is followed by dropout, the first pooling by half of it. Deviations: the source's classification heads and its
    image-pooling branch are left out (it lists the former without defining them and never uses the latter); resizing
    is linear with ``align_corners=False``, where TensorFlow 1 had no half-pixel centres; 3D is ours. The source's
    101 x 101 input, for which some of its transposed convolutions would have to be valid, is padded like any other.

    Parameters
    ----------
    dims : {2, 3}
        Spatial dimensions.
    in_channels, classes : int
        Channels C of the input and K of the logits.
    width : int
        Channels of the top level; they double at each level.
    depth : int
        Number of levels, poolings + 1; sizes must be multiples of ``2**(depth-1)``.
    dropout_rate : float
        Share of activations to drop after poolings and joins and before the head, in training only.
    deep_supervision : int
        How many decoder levels below the top one get a head of their own that training sees, from the finest on.

    References
    ----------
    .. [1] Hariharan et al. 2015, Hypercolumns, https://arxiv.org/abs/1411.5752
    .. [2] He et al. 2016, Identity mappings in deep residual networks, https://arxiv.org/abs/1603.05027
    """

    def __init__(
        self,
        dims: int,
        in_channels: int,
        classes: int,
        *,
        width: int = 16,
        depth: int = 5,
        dropout_rate: float = 0.5,
        deep_supervision: int = 0,
    ) -> None:
        super().__init__(dims, in_channels, classes)
        if not 0 <= dropout_rate <= 1:
            raise SettingsProblem(f"The dropout rate is a share between 0 and 1, not {dropout_rate}.")
        widths = stage_widths(width, depth)
        self.depth = depth
        self.encoder = nn.ModuleList(_stage(dims, a, b) for a, b in pairwise([in_channels, *widths]))
        self.pool = max_pool(dims)
        self.pool_dropouts = nn.ModuleList(
            nn.Dropout(dropout_rate / 2 if i == 0 else dropout_rate) for i in range(depth - 1)
        )
        self.dropout = nn.Dropout(dropout_rate)
        self.ups = nn.ModuleList(transposed_conv(dims, 2 * w, w, 3) for w in widths[-2::-1])
        self.decoder = nn.ModuleList(_stage(dims, 2 * w, w) for w in widths[-2::-1])
        self.mode = "bilinear" if dims == 2 else "trilinear"
        self.fuse = nn.Sequential(nn.Dropout(dropout_rate), conv(dims, sum(widths[:-1]), width, padding=1), nn.ReLU())
        self.head = conv(dims, width, classes, kernel=1)
        self.auxiliary_heads = AuxiliaryHeads(dims, widths[1:-1], classes, deep_supervision)
        self.initialise()

    @property
    def divisor(self) -> tuple[int, ...]:
        """One pooling cell."""
        return (2 ** (self.depth - 1),) * self.dims

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, *S) to logits (B, K, *S)."""
        return self._logits(self._decoded(x))

    def training_outputs(self, x: Tensor) -> TrainingOutputs:
        """Give the logits, and those of the supervised levels at full size.

        Parameters
        ----------
        x : Tensor of shape (B, C, *S)

        Returns
        -------
        TrainingOutputs
        """
        levels = self._decoded(x)
        return TrainingOutputs(self._logits(levels), self.auxiliary_heads(levels[1:], x.shape[2:]))

    def _logits(self, levels: list[Tensor]) -> Tensor:
        """Read the hypercolumn: what each level, the top one first, has at a voxel."""
        top, *below = levels
        size = top.shape[2:]
        resized = [functional.interpolate(level, size=size, mode=self.mode, align_corners=False) for level in below]
        logits: Tensor = self.head(self.fuse(torch.cat([top, *resized], dim=1)))
        return logits

    def _decoded(self, x: Tensor) -> list[Tensor]:
        """Give the output of each decoder stage, the top one first."""
        self.check_size(x)
        skips: list[Tensor] = []
        for i, stage in enumerate(self.encoder):
            x = stage(self.pool_dropouts[i - 1](self.pool(x)) if i else x)
            skips.append(x)
        skips.pop()
        levels: list[Tensor] = []
        for step, stage, skip in zip(self.ups, self.decoder, reversed(skips), strict=True):
            x = stage(self.dropout(torch.cat([step(x), skip], dim=1)))
            levels.append(x)
        return levels[::-1]
