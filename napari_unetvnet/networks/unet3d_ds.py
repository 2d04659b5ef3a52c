"""A 3D residual U-Net whose deeper decoder levels have heads, too: their upsampled logits are added to the output."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_unetvnet.errors import DataProblem, SettingsProblem
from napari_unetvnet.networks.base import SegmentationNetwork, by
from napari_unetvnet.networks.blocks import batch_norm, conv
from napari_unetvnet.networks.layout import InstanceNorm
from napari_unetvnet.networks.unet import stage_widths

__all__ = ["UNet3DDeepSupervision"]

LEAK = 0.3
"""Keras' slope of a leaky ReLU below 0."""


class _Unit(nn.Sequential):
    """Convolution, norm, activation."""

    def __init__(self, dims: int, inputs: int, outputs: int, norm: str, leaky: bool, kernel: int = 3) -> None:
        super().__init__(
            conv(dims, inputs, outputs, kernel, padding=kernel // 2),
            InstanceNorm(outputs) if norm == "instance" else batch_norm(dims, outputs),
            nn.LeakyReLU(LEAK) if leaky else nn.ReLU(),
        )


def _halving(dims: int, inputs: int, outputs: int, norm: str, leaky: bool) -> _Unit:
    """Make a unit whose convolution has stride 2."""
    unit = _Unit(dims, inputs, outputs, norm, leaky)
    kind = nn.Conv2d if dims == 2 else nn.Conv3d
    unit[0] = kind(inputs, outputs, 3, stride=2, padding=1)
    return unit


class UNet3DDeepSupervision(SegmentationNetwork):
    """3D U-Net with summed deep supervision: the logits of levels 2 and 1, doubled, are part of the output.

    Level d: two units (convolution, norm, activation), to which the level's input is added; a unit of stride 2 leads
    down. Up: nearest doubling and a unit, join (up before skip), a 3-wide and a 1-wide unit. With P the 1-wide
    convolutions to the classes, ``logits = P0 + double(P1 + double(P2))``; levels that are not part of the decoder (2
    at depth 3, both at depth 2) are left out. There is no generic ``deep_supervision`` option, because the heads are
    part of the output and one loss on the sum supervises them, in training and inference alike. Deviations: strided
    convolutions pad one voxel on both sides, where TensorFlow pads after the end; an equal-width form with residuals
    builds here because the stride-2 unit gives the next level's width; 2D is ours.

    Parameters
    ----------
    dims : {2, 3}
        Spatial dimensions.
    in_channels, classes : int
        Channels C of the input and K of the logits.
    width : int
        Channels of the top level.
    depth : int
        Number of levels; sizes must be multiples of ``2**(depth-1)``.
    grow : bool
        Whether channels double at each level, or are the same everywhere.
    norm : {"instance", "batch"}
        Normalisation after each convolution.
    residual : bool
        Whether a level's input is added to its output.
    supervision : bool
        Whether levels 2 and 1 contribute to the logits.
    block : {"plain", "isensee"}
        ReLU; or leaky ReLU of slope 0.3 with whole channels dropped between the two units of a level.
    dropout_rate : float
        Share of channels that the isensee block drops, in training only.

    References
    ----------
    .. [1] Isensee et al. 2017, Brain tumor segmentation and survival prediction, https://arxiv.org/abs/1802.10508
    .. [2] Kayalibay et al. 2017, CNN-based segmentation of medical imaging data, https://arxiv.org/abs/1701.03056
    """

    supported_dims = (3, 2)
    gives = (("levels", "supervision"),)

    def __init__(  # noqa: PLR0913 (the keyword-only ones are the options that the table offers)
        self,
        dims: int,
        in_channels: int,
        classes: int,
        *,
        width: int = 16,
        depth: int = 5,
        grow: bool = True,
        norm: Literal["instance", "batch"] = "instance",
        residual: bool = True,
        supervision: bool = True,
        block: Literal["plain", "isensee"] = "plain",
        dropout_rate: float = 0.3,
    ) -> None:
        super().__init__(dims, in_channels, classes)
        if not 0 <= dropout_rate <= 1:
            raise SettingsProblem(f"The dropout rate is a share between 0 and 1, not {dropout_rate}.")
        widths = stage_widths(width, depth) if grow else [width for _ in stage_widths(width, depth)]
        leaky = block == "isensee"
        self.depth, self.residual = depth, residual
        self.downs = nn.ModuleList([_Unit(dims, in_channels, width, norm, leaky)])
        self.encoder, self.ups, self.decoder = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for w in widths:
            middle = [(nn.Dropout2d if dims == 2 else nn.Dropout3d)(dropout_rate)] if leaky else []
            self.encoder.append(nn.Sequential(_Unit(dims, w, w, norm, leaky), *middle, _Unit(dims, w, w, norm, leaky)))
        for a, b in pairwise(widths):
            self.downs.append(_halving(dims, a, b, norm, leaky))
            self.ups.append(_Unit(dims, b, a, norm, leaky))
            self.decoder.append(
                nn.Sequential(_Unit(dims, 2 * a, a, norm, leaky), _Unit(dims, a, a, norm, leaky, kernel=1))
            )
        heads = min(3, depth - 1) if supervision else 1
        self.heads = nn.ModuleList(conv(dims, w, classes, kernel=1) for w in widths[:heads])
        self.initialise()

    @property
    def divisor(self) -> tuple[int, ...]:
        """One voxel of the bottom level."""
        return (2 ** (self.depth - 1),) * self.dims

    def check_size(self, x: Tensor) -> None:
        """Refuse an input of a size that does not fit, or that leaves instance norm nothing to train on.

        Parameters
        ----------
        x : Tensor of shape (B, C, *S)

        Raises
        ------
        DataProblem
            If an axis is no multiple of the divisor, or the bottom would be a single voxel in training.
        """
        super().check_size(x)
        size = tuple(x.shape[2:])
        if self.training and size == self.smallest and not self._normalises_over_the_batch():
            raise DataProblem(
                f"A patch of {by(size)} voxels leaves a single voxel at the bottom of UNet3DDeepSupervision, which "
                "instance norm cannot train on; choose a larger patch."
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, *S) to logits (B, K, *S)."""
        return self._sums(x)[0]

    def level_logits(self, x: Tensor) -> dict[str, Tensor]:
        """Give the output, "main", and what it would be without the levels above each supervised one.

        Parameters
        ----------
        x : Tensor of shape (B, C, *S)

        Returns
        -------
        dict of str to Tensor of shape (B, K, *S)
            "level1" is ``P1 + double(P2)``, "level2" is ``P2``, at full size.
        """
        main, *coarse = self._sums(x)
        full = [functional.interpolate(logits, size=x.shape[2:], mode="nearest") for logits in coarse]
        return {"main": main} | {f"level{i}": logits for i, logits in enumerate(full, start=1)}

    def _sums(self, x: Tensor) -> list[Tensor]:
        """Sum the heads' logits from the deepest level to each level, each sum doubled on its way up; the top first."""
        self.check_size(x)
        skips: list[Tensor] = []
        for down, stage in zip(self.downs, self.encoder, strict=True):
            x = down(x)
            x = x + stage(x) if self.residual else stage(x)
            skips.append(x)
        skips.pop()
        levels: list[Tensor] = []
        for up, stage in zip(reversed(self.ups), reversed(self.decoder), strict=True):
            x = stage(torch.cat([up(_doubled(x)), skips.pop()], dim=1))
            levels.append(x)
        sums: list[Tensor] = []
        for head, level in reversed(list(zip(self.heads, levels[::-1], strict=False))):
            logits = head(level)
            sums.append(logits + _doubled(sums[-1]) if sums else logits)
        return sums[::-1]


def _doubled(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2, mode="nearest")
