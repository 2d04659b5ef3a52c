"""The U-Net with which DRIVE's vessels are segmented: no convolution biases, and any image size.

Pooling rounds down; what the up-step then lacks is filled with zeros, so no size has to be padded beforehand.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.networks.base import SegmentationNetwork, TrainingOutputs, by
from napari_unetvnet.networks.blocks import AuxiliaryHeads, batch_norm, conv, max_pool, transposed_conv
from napari_unetvnet.networks.unet import stage_widths

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["UNetDrive", "zero_pad_to"]


def zero_pad_to(x: Tensor, size: Sequence[int]) -> Tensor:
    """Surround a map with zeros; of an odd difference, one more goes to the end.

    Parameters
    ----------
    x : Tensor of shape (B, C, *S)
    size : ints, one an axis
        At least S each.

    Returns
    -------
    Tensor of shape (B, C, *size)
    """
    sides: list[int] = []
    for have, want in zip(reversed(x.shape[2:]), reversed(size), strict=True):  # the last axis comes first
        sides += [(want - have) // 2, want - have - (want - have) // 2]
    return functional.pad(x, sides)


def _double_conv(dims: int, widths: Sequence[int]) -> nn.Sequential:
    """Make two same-size convolutions without bias, each with batch norm and ReLU."""
    kind = nn.Conv2d if dims == 2 else nn.Conv3d
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [kind(inputs, outputs, 3, padding=1, bias=False), batch_norm(dims, outputs), nn.ReLU()]
    return nn.Sequential(*layers)


class UNetDrive(SegmentationNetwork):
    """U-Net for vessels (DRIVE): convolutions without bias, linear up-steps, zero-padding to the skip.

    With linear up-steps the deepest stage and each decoder stage give half of their usual channels, and the first
    convolution of a decoder stage keeps half of what is joined. Skip comes before up in the join. Deviations: batch
    norm has the epsilon that all members share (1e-3), not torch's 1e-5; 3D is ours.

    Parameters
    ----------
    dims : {2, 3}
        Spatial dimensions.
    in_channels, classes : int
        Channels C of the input and K of the logits.
    width : int
        Channels of the top stage; they double at each stage.
    depth : int
        Number of stages, poolings + 1; an axis must have ``2**(depth-1)`` voxels or more, of any number.
    up : {"bilinear", "transposed"}
        Up-step: linear doubling whose corners stay in place (trilinear in 3D), or a 2-wide transposed convolution.
    deep_supervision : int
        How many decoder levels below the top one get a head that training sees, from the finest on.

    References
    ----------
    .. [1] Ronneberger, Fischer, Brox 2015, U-Net, https://arxiv.org/abs/1505.04597
    .. [2] Staal et al. 2004, Ridge-based vessel segmentation (DRIVE), https://doi.org/10.1109/TMI.2004.825627
    """

    def __init__(
        self,
        dims: int,
        in_channels: int,
        classes: int,
        *,
        width: int = 32,
        depth: int = 5,
        up: Literal["bilinear", "transposed"] = "bilinear",
        deep_supervision: int = 0,
    ) -> None:
        super().__init__(dims, in_channels, classes)
        widths = stage_widths(width, depth)
        self.depth = depth
        linear = up == "bilinear"
        narrow = [widths[0], *widths[:-1]] if linear else widths  # the channels that each stage passes up
        down = [in_channels, *widths[:-1], narrow[-1]]
        self.encoder = nn.ModuleList(_double_conv(dims, (a, b, b)) for a, b in pairwise(down))
        self.pool = max_pool(dims)
        mode = "bilinear" if dims == 2 else "trilinear"
        self.ups = nn.ModuleList(
            nn.Upsample(scale_factor=2, mode=mode, align_corners=True) if linear else transposed_conv(dims, 2 * w, w)
            for w in widths[-2::-1]
        )
        self.decoder = nn.ModuleList(
            _double_conv(dims, (2 * w, w, n)) for w, n in zip(widths[-2::-1], narrow[-2::-1], strict=True)
        )
        self.head = conv(dims, width, classes, kernel=1)
        self.auxiliary_heads = AuxiliaryHeads(dims, narrow[1:-1], classes, deep_supervision)
        self.initialise()

    @property
    def smallest(self) -> tuple[int, ...]:
        """One voxel at the bottom."""
        return (2 ** (self.depth - 1),) * self.dims

    def fit(self, size: Sequence[int]) -> tuple[int, ...]:
        """Give the size itself, or the smallest on axes that are shorter."""
        return tuple(max(n, least) for n, least in zip(size, self.smallest, strict=True))

    def check_size(self, x: Tensor) -> None:
        """Refuse an input that is too small for the network, or for training it on one patch.

        Parameters
        ----------
        x : Tensor of shape (B, C, *S)

        Raises
        ------
        DataProblem
            If an axis is shorter than `smallest`, or a patch that is trained on alone leaves a single voxel.
        """
        super().check_size(x)
        size = tuple(x.shape[2:])
        if self.training and len(x) == 1 and all(n < 2 * m for n, m in zip(size, self.smallest, strict=True)):
            raise DataProblem(
                f"One patch of {by(size)} voxels leaves a single voxel at the bottom of UNetDrive, which batch norm "
                f"cannot train on; choose a patch of {2 * self.smallest[0]} voxels on some axis or a batch of 2."
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, *S) to logits (B, K, *S)."""
        logits: Tensor = self.head(self._decoded(x)[0])
        return logits

    def training_outputs(self, x: Tensor) -> TrainingOutputs:
        """Give the logits, and those of the supervised levels at full size.

        Parameters
        ----------
        x : Tensor of shape (B, C, *S)

        Returns
        -------
        TrainingOutputs
        """
        top, *below = self._decoded(x)
        return TrainingOutputs(self.head(top), self.auxiliary_heads(below, x.shape[2:]))

    def _decoded(self, x: Tensor) -> list[Tensor]:
        """Give the output of each decoder stage, the top one first."""
        self.check_size(x)
        skips: list[Tensor] = []
        for i, stage in enumerate(self.encoder):
            x = stage(self.pool(x) if i else x)
            skips.append(x)
        skips.pop()
        levels: list[Tensor] = []
        for step, stage, skip in zip(self.ups, self.decoder, reversed(skips), strict=True):
            x = stage(torch.cat([skip, zero_pad_to(step(x), skip.shape[2:])], dim=1))
            levels.append(x)
        return levels[::-1]
