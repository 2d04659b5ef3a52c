"""A U-Net with a side branch that learns to correct some of its output channels from one inner level.

The branch begins at zero, so adding one to a trained network changes nothing at first: the output is the base
network's, and what the branch learns is a correction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_unetvnet.errors import SettingsProblem
from napari_unetvnet.networks.backboned_unet import BackbonedUNet
from napari_unetvnet.networks.blocks import conv
from napari_unetvnet.networks.encoder_options import STEPS, EncoderName, EncoderOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BranchOptions", "BranchUNet", "bilinear_kernel"]

EncoderLevel = Literal["encoder0", "encoder1", "encoder2", "encoder3", "encoder4", "encoder5"]
DecoderLevel = Literal["decoder0", "decoder1", "decoder2", "decoder3", "decoder4"]
Source = Literal["level2", "level1", "level3", "level4", "level5", EncoderLevel, DecoderLevel]


@dataclass(frozen=True)
class BranchOptions(EncoderOptions):
    """The options of a network on an encoder, and where the branch begins and ends.

    Parameters
    ----------
    source : str
        Where the branch begins: at stride ``2**N`` inside the up-step, in the encoder or after the decoder block.
    targets : str
        Output channels that the branch corrects, counted from 0 and separated by commas.
    freeze : int
        For how many first epochs everything before the branch keeps its weights; 0 is never, -1 always.
    train : {"all", "branch"}
        Whether the whole network is trained, or the branch alone: everything else, running statistics of batch norm
        included, stays as it is in the model that training starts from.
    """

    encoder: Literal["orig_unet", EncoderName] = "orig_unet"
    source: Source = "level2"
    targets: str = "1"
    train: Literal["all", "branch"] = "all"


class BranchUNet(BackbonedUNet):
    """U-Net with a zero-initialised branch from an inner level to chosen output channels.

    The branch is a 1-wide convolution to one channel for each target, beginning at zero, and a bilinear transposed
    convolution of kernel ``2 * stride`` that brings it to full size; it is added to the targets' logits.

    Deviations: the source's kernel is an identity matrix by a slip of indices, here it is bilinear; of two output
    channels or more the second is corrected, as in the source, but a network of one channel corrects that. At the
    first step the transposed kernel's gradient is zero, because its input is (`wakes_later` names it).

    Parameters
    ----------
    dims : {2, 3}
        Spatial dimensions.
    in_channels, classes : int
        Channels C of the input and K of the logits.

    References
    ----------
    .. [1] AmberzzZZ, unet_vnet_keras, https://github.com/AmberzzZZ/unet_vnet_keras
    """

    wakes_later = ("branch_up.weight",)
    options: BranchOptions

    def __init__(self, dims: int, in_channels: int, classes: int, options: BranchOptions) -> None:
        super().__init__(dims, in_channels, classes, options)
        source = options.source
        if source not in self.level_widths:
            raise SettingsProblem(
                f"The encoder {options.encoder} has no level {source}; there are {', '.join(self.level_widths)}."
            )
        self.targets = _targets(options.targets, classes)
        stride = 2 ** int(source[-1])
        self.branch = conv(dims, self.level_widths[source], len(self.targets), kernel=1)
        self.branch_up = _upsampling(dims, len(self.targets), stride)
        for parameter in self.branch.parameters():
            nn.init.zeros_(parameter)

    def freezes_in(self, epoch: int) -> bool:
        """Whether modules are frozen in an epoch, counted from 0."""
        return self.options.train == "branch" or super().freezes_in(epoch)

    def frozen_parts(self) -> list[nn.Module]:
        """Give the modules before the branch, or all others if the branch alone is trained."""
        if self.options.train == "branch":
            return [part for name, part in self.named_children() if name not in ("branch", "branch_up")]
        if self.options.source.startswith("encoder"):
            return [self.encoder]
        parts = [self.encoder] + ([] if self.centre is None else [self.centre])
        level = int(self.options.source[-1])
        if self.options.source.startswith("decoder"):
            return [*parts, *self.decoder[: STEPS - level]]
        here = self.decoder[STEPS - level].get_submodule("first")
        return [*parts, *self.decoder[: STEPS - level], here]

    def logits(self, levels: Mapping[str, Tensor]) -> Tensor:
        """Give the base network's logits with the branch added.

        Returns
        -------
        Tensor of shape (B, K, *S)
        """
        out = super().logits(levels)
        correction = self.branch_up(self.branch(levels[self.options.source]))
        sides = (0, 0) * self.dims
        for i, target in enumerate(self.targets):
            out = out + functional.pad(correction[:, i : i + 1], (*sides, target, self.classes - target - 1))
        return out


def _targets(text: str, classes: int) -> tuple[int, ...]:
    """Read output channels such as "1" or "1,2"."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise SettingsProblem(f"targets are output channels such as 1 or 1,2, not {text!r}.")
    channels = tuple(dict.fromkeys(int(part) for part in parts))
    if classes == 1 and channels == (1,):  # the default, which names the second channel
        return (0,)
    if max(channels) >= classes:
        raise SettingsProblem(f"There is no output channel {max(channels)}: the network has {classes}, counted from 0.")
    return channels


def bilinear_kernel(dims: int, stride: int) -> Tensor:
    """Give the kernel with which a transposed convolution interpolates linearly.

    Parameters
    ----------
    dims : {2, 3}

    Returns
    -------
    Tensor of shape (2 * stride,) * dims
        A single 1 for stride 1. Its sum is ``stride**dims``.
    """
    if stride == 1:
        return torch.ones((1,) * dims)
    taps = 1 - ((torch.arange(2 * stride) + 0.5) / stride - 1).abs()
    kernel = taps
    for _ in range(dims - 1):
        kernel = kernel[..., None] * taps
    return kernel


def _upsampling(dims: int, channels: int, stride: int) -> nn.Module:
    """Make a transposed convolution that upsamples each channel separately, linearly at first."""
    kind = nn.ConvTranspose2d if dims == 2 else nn.ConvTranspose3d
    kernel = bilinear_kernel(dims, stride)
    step = kind(channels, channels, len(kernel), stride=stride, padding=stride // 2, groups=channels)
    with torch.no_grad():
        step.weight.copy_(kernel.expand_as(step.weight))
        nn.init.zeros_(step.get_parameter("bias"))
    return step
