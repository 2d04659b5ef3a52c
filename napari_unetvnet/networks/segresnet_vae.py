"""The network that won BraTS 2018: a residual encoder-decoder, and an autoencoder branch that only training sees.

The branch (`_Branch`) gives the input back from the deepest level through a random code. It regularises the
encoder where labels are few; the segmentation does not use it, so `forward` never runs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from napari_unetvnet.errors import DataProblem, SettingsProblem
from napari_unetvnet.networks.base import SegmentationNetwork, TrainingOutputs, by
from napari_unetvnet.networks.blocks import AuxiliaryHeads, batch_norm, conv, transposed_conv
from napari_unetvnet.networks.layout import InstanceNorm

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from napari_unetvnet.conventions import OptionValue

__all__ = ["SegResNetOptions", "SegResNetVAE"]

BLOCKS = (1, 2, 2, 4)
FORMS = ("paper", "source")
"""Kinds of the autoencoder branch."""
PAPER_PATCH, STEP = (160, 192, 128), 16
"""The paper's patch, z y x, and what each axis of a patch must be a multiple of."""
# Variances between exp(-20) and exp(20): beyond that the loss's exponential overflows.
LOG_VARIANCE = 20.0


@dataclass(frozen=True)
class SegResNetOptions:
    """What the network is made of.

    Parameters
    ----------
    width : int
        Channels of the top level; they double at each of the three levels below.
    skip : {"add", "concat"}
        How a skip joins: added as in the paper, or concatenated and fused by a 1-wide convolution.
    norm : {"group", "none", "batch", "instance"}
        Norm before each rectifier.
    groups : int
        Of the group norm; the width must be a multiple.
    act : {"relu", "elu"}
        Rectifier.
    dropout : float
        Share of channels to drop after the first convolution, in training only.
    down_dropout : float
        The same after each down-step.
    down : {"strided", "maxpool"}
        Down-step: a strided convolution that doubles the channels, or max-pooling.
    up : {"trilinear", "transposed"}
        Up-step: a 1-wide convolution and linear interpolation, or a 2-wide transposed convolution.
    align_corners : bool
        Whether that interpolation keeps the corner voxels in place.
    vae : {"auto", "none", "paper", "source"}
        Autoencoder branch: as in the paper if the loss learns from it (auto), none, as in the paper, or with the wider
        dense layer of the source (and with the fusing convolutions that it holds but never uses, so that its count is
        met).
    latent : int
        Length of the branch's code.
    patch_z, patch_y, patch_x : int
        Patch that the branch is built for, multiples of 16; z does not matter in 2D. With 0 it is that of the training,
        and without a training that of the paper, 160 192 128.
    deep_supervision : int
        Number of auxiliary heads on the decoder levels below the top one, for training only.

    Raises
    ------
    SettingsProblem
        If a number is out of its range.
    """

    width: int = 32
    skip: Literal["add", "concat"] = "add"
    norm: Literal["group", "none", "batch", "instance"] = "group"
    groups: int = 8
    act: Literal["relu", "elu"] = "relu"
    dropout: float = 0.2
    down_dropout: float = 0.0
    down: Literal["strided", "maxpool"] = "strided"
    up: Literal["trilinear", "transposed"] = "trilinear"
    align_corners: bool = False
    vae: Literal["auto", "none", "paper", "source"] = "auto"
    latent: int = 128
    patch_z: int = 0
    patch_y: int = 0
    patch_x: int = 0
    deep_supervision: int = 0

    def __post_init__(self) -> None:
        if self.width < 1 or self.latent < 1:
            raise SettingsProblem(f"Width and latent are at least 1, not {self.width} and {self.latent}.")
        if self.norm == "group" and (self.groups < 1 or self.width % self.groups):
            raise SettingsProblem(
                f"Group norm needs a width that is a multiple of its {self.groups} groups, not {self.width}."
            )
        for rate in (self.dropout, self.down_dropout):
            if not 0 <= rate < 1:
                raise SettingsProblem(f"A dropout rate is a share from 0 to below 1, not {rate}.")

    def patch(self, dims: int) -> tuple[int, ...] | None:
        """Give the patch that the autoencoder branch is built for.

        Parameters
        ----------
        dims : {2, 3}

        Returns
        -------
        tuple of int or None
            None without such a branch.

        Raises
        ------
        SettingsProblem
            If an axis is no multiple of 16.
        """
        if self.vae not in FORMS:
            return None
        chosen = zip((self.patch_z, self.patch_y, self.patch_x), PAPER_PATCH, strict=True)
        patch = tuple(n or default for n, default in chosen)[-dims:]
        if min(patch) < STEP or any(n % STEP for n in patch):
            raise SettingsProblem(f"The branch's patch must be multiples of 16, not {by(patch)}.")
        return patch


class _Steps:
    """Makes the network's steps, all of one kind of norm, rectifier and resizing."""

    def __init__(self, dims: int, options: SegResNetOptions) -> None:
        self.dims = dims
        self.options = options

    def norm(self, channels: int) -> list[nn.Module]:
        """Norm, or nothing, and rectifier."""
        norms: list[nn.Module] = []
        if self.options.norm == "group":
            norms = [nn.GroupNorm(self.options.groups, channels)]
        elif self.options.norm == "batch":
            norms = [batch_norm(self.dims, channels)]
        elif self.options.norm == "instance":
            norms = [InstanceNorm(channels)]
        return [*norms, self.rectifier()]

    def rectifier(self) -> nn.Module:
        """ELU or ReLU."""
        return nn.ELU() if self.options.act == "elu" else nn.ReLU()

    def strided(self, inputs: int, outputs: int, bias: bool) -> nn.Module:
        """3-wide convolution that halves each axis."""
        return (nn.Conv2d if self.dims == 2 else nn.Conv3d)(inputs, outputs, 3, stride=2, padding=1, bias=bias)

    def spatial_dropout(self, rate: float) -> nn.Module:
        """Drop whole channels."""
        return (nn.Dropout2d if self.dims == 2 else nn.Dropout3d)(rate)

    def up(self, inputs: int, outputs: int) -> nn.Module:
        """Doubling of each axis."""
        if self.options.up == "transposed":
            return transposed_conv(self.dims, inputs, outputs)
        mode = "bilinear" if self.dims == 2 else "trilinear"
        enlarge = nn.Upsample(scale_factor=2, mode=mode, align_corners=self.options.align_corners)
        return nn.Sequential(conv(self.dims, inputs, outputs, kernel=1), enlarge)


class _Block(nn.Module):
    """Norm, rectifier, convolution, twice, plus the input or its 1-wide convolution."""

    def __init__(self, steps: _Steps, inputs: int, outputs: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            *steps.norm(inputs),
            conv(steps.dims, inputs, outputs, padding=1),
            *steps.norm(outputs),
            conv(steps.dims, outputs, outputs, padding=1),
        )
        self.shortcut = conv(steps.dims, inputs, outputs, kernel=1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, *S) to (B, C', *S)."""
        out: Tensor = self.path(x) + self.shortcut(x)
        return out


class _Branch(nn.Module):
    """Deepest level to a mean and a log-variance, a draw of both, and from that the input again."""

    def __init__(self, steps: _Steps, widths: Sequence[int], grid: Sequence[int]) -> None:
        super().__init__()
        form, latent = steps.options.vae, steps.options.latent
        bottom = widths[-1]
        squeezed = max(1, widths[0] // 2)
        self.latent = latent
        self.grid = tuple(grid)
        # The paper unfolds the code to as many channels as it was folded from, the source to as many as the code has.
        self.unfolded = squeezed if form == "paper" else latent
        self.squeeze = nn.Sequential(*steps.norm(bottom), steps.strided(bottom, squeezed, bias=True))
        self.encode = nn.Linear(squeezed * prod(grid), 2 * latent)
        self.decode = nn.Linear(latent, self.unfolded * prod(grid))
        self.act = steps.rectifier()
        self.enlarge = steps.up(self.unfolded, bottom)
        halved = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.ups = nn.ModuleList(steps.up(a, b) for a, b in halved)
        self.blocks = nn.ModuleList(_Block(steps, b, b) for _, b in halved)
        fused = [(self.unfolded, bottom), *halved] if form == "source" else []
        self.unused = nn.ModuleList(conv(steps.dims, a, b, kernel=1) for a, b in fused)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map (B, C, *S) to the last features (B, W, *8S), the means and the log-variances (B, N)."""
        code = self.encode(self.squeeze(x).flatten(1))
        mean = code[:, : self.latent]
        log_variance = code[:, self.latent :].clamp(-LOG_VARIANCE, LOG_VARIANCE)
        drawn = mean + torch.exp(log_variance / 2) * torch.randn_like(mean) if self.training else mean
        x = self.act(self.decode(drawn)).unflatten(1, (self.unfolded, *self.grid))
        x = self.enlarge(x)
        for up, block in zip(self.ups, self.blocks, strict=True):
            x = block(up(x))
        # What the source counts but never uses gets a gradient of 0, for which distributed training would wait forever.
        return x + 0 * sum((p.sum() for p in self.unused.parameters()), x.new_zeros(())), mean, log_variance


class SegResNetVAE(SegmentationNetwork):
    """Residual network of BraTS 2018's winner, with the autoencoder branch if wanted.

    Blocks of norm, rectifier and convolution, twice, plus their input: 1, 2, 2, 4 on the way down, 1 a level on the way
    up. With ``vae`` the input is given back in `training_outputs`, through a code of means and log-variances (clamped
    to [-20, 20]) that is drawn in training and equals the means in evaluation. The branch ends in dense layers, so in
    training the patch must be the one it is built for; in evaluation other sizes come back without a reconstruction,
    and `forward` never runs it. Max-pooling leaves the doubling of channels to the next block, whose input then comes
    through a 1-wide convolution. The 2D form is ours.

    Parameters
    ----------
    dims : {2, 3}
        Spatial dimensions.
    in_channels, classes : int
        Channels C of the input and K of the logits.

    References
    ----------
    .. [1] Myronenko 2018, Brain tumor segmentation using autoencoder regularization, https://arxiv.org/abs/1810.11654
    """

    supported_dims = (3, 2)
    gives = (("reconstruction", "vae"),)
    patch_options = ("patch_z", "patch_y", "patch_x")

    def __init__(self, dims: int, in_channels: int, classes: int, options: SegResNetOptions) -> None:
        super().__init__(dims, in_channels, classes)
        self.norm, self.patch = options.norm, options.patch(dims)
        grid = [n // STEP for n in self.patch or ()]
        steps = _Steps(dims, options)
        width = options.width
        widths = [width * 2**i for i in range(len(BLOCKS))]
        kind = nn.Conv2d if dims == 2 else nn.Conv3d
        first = kind(in_channels, width, 3, padding=1, bias=False)
        self.stem = nn.Sequential(first, steps.spatial_dropout(options.dropout))
        self._make_encoder(steps, widths, options.down, options.down_dropout)
        self.ups = nn.ModuleList(steps.up(2 * w, w) for w in widths[:-1])
        fused = widths[:-1] if options.skip == "concat" else []
        self.fuse = nn.ModuleList(conv(dims, 2 * w, w, kernel=1) for w in fused)
        self.decoder = nn.ModuleList(_Block(steps, w, w) for w in widths[:-1])
        self.auxiliary_heads = AuxiliaryHeads(dims, widths[1:-1], classes, options.deep_supervision)
        self.branch = _Branch(steps, widths, grid) if grid else None
        self.give_back = conv(dims, width, in_channels, kernel=1) if grid else None
        self.head = conv(dims, width, classes, kernel=1)
        self.initialise()

    @classmethod
    def options_for(
        cls, option: Mapping[str, OptionValue], patch: Sequence[int], learns_from: Collection[str]
    ) -> dict[str, OptionValue]:
        """Build the branch if the loss learns from it, for patches of the training."""
        vae = option.get("vae", "auto")
        if vae == "auto":
            vae = "paper" if "reconstruction" in learns_from else "none"
        if vae not in FORMS:
            return {**option, "vae": vae}
        sizes = {
            name: option.get(name) or -(-n // STEP) * STEP for name, n in zip(cls.patch_options, patch, strict=True)
        }
        return {**option, "vae": vae, **sizes}

    def _make_encoder(self, steps: _Steps, widths: Sequence[int], down: str, dropout: float) -> None:
        self.downs, self.encoder = nn.ModuleList([nn.Identity()]), nn.ModuleList()
        channels = widths[0]
        for i, (width, count) in enumerate(zip(widths, BLOCKS, strict=True)):
            if i and down == "strided":
                self.downs.append(nn.Sequential(steps.strided(channels, width, bias=False), _dropout(steps, dropout)))
                channels = width
            elif i:
                pool = (nn.MaxPool2d if steps.dims == 2 else nn.MaxPool3d)(3, 2, padding=1)
                self.downs.append(nn.Sequential(pool, _dropout(steps, dropout)))
            blocks = [_Block(steps, channels, width), *(_Block(steps, width, width) for _ in range(count - 1))]
            self.encoder.append(nn.Sequential(*blocks))
            channels = width

    @property
    def divisor(self) -> tuple[int, ...]:
        """8 on each axis."""
        return (2 ** (len(BLOCKS) - 1),) * self.dims

    @property
    def smallest(self) -> tuple[int, ...]:
        """8 on each axis, and 16 on the last for instance norm, which cannot take a single voxel at the bottom."""
        *rest, last = self.divisor
        return (*rest, 2 * last if self.norm == "instance" else last)

    def fit(self, size: Sequence[int]) -> tuple[int, ...]:
        """Give the smallest accepted input that is at least as large as a size."""
        return super().fit([max(a, b) for a, b in zip(size, self.smallest, strict=True)])

    def _levels(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Give the decoder's outputs, the finest first, and the deepest level."""
        self.check_size(x)
        x = self.stem(x)
        skips: list[Tensor] = []
        for down, stage in zip(self.downs, self.encoder, strict=True):
            x = stage(down(x))
            skips.append(x)
        bottom = skips.pop()
        levels: list[Tensor] = []
        for i in reversed(range(len(skips))):
            x = self._join(i, self.ups[i](x), skips[i])
            x = self.decoder[i](x)
            levels.append(x)
        return levels[::-1], bottom

    def _join(self, level: int, up: Tensor, skip: Tensor) -> Tensor:
        if not len(self.fuse):
            return up + skip
        fused: Tensor = self.fuse[level](torch.cat([up, skip], dim=1))
        return fused

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, *S) to logits (B, K, *S)."""
        logits: Tensor = self.head(self._levels(x)[0][0])
        return logits

    def training_outputs(self, x: Tensor) -> TrainingOutputs:
        """Give the logits, the auxiliary ones, and with the branch the reconstruction and the code.

        Parameters
        ----------
        x : Tensor of shape (B, C, *S)

        Returns
        -------
        TrainingOutputs

        Raises
        ------
        DataProblem
            If the network is in training and the patch is not the one that the branch is built for.
        """
        size = tuple(x.shape[2:])
        if self.patch is not None and self.training and size != self.patch:
            raise DataProblem(
                f"The autoencoder branch is built for patches of {by(self.patch)} voxels, not {by(size)}; leave out "
                "patch_z, patch_y and patch_x, which follow from the patch of the training."
            )
        levels, bottom = self._levels(x)
        logits, auxiliary = self.head(levels[0]), self.auxiliary_heads(levels[1:], size)
        if self.branch is None or self.give_back is None or size != self.patch:
            return TrainingOutputs(logits, auxiliary=auxiliary)
        features, mean, log_variance = self.branch(bottom)
        return TrainingOutputs(
            logits, auxiliary=auxiliary, reconstruction=self.give_back(features), latent=(mean, log_variance)
        )


def _dropout(steps: _Steps, rate: float) -> nn.Module:
    return steps.spatial_dropout(rate) if rate else nn.Identity()
