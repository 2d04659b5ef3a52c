"""A U-Net whose contracting path is an image-classification encoder, with or without pretrained weights.

Encoders that begin at stride 2 leave the last decoder block without a skip; encoders that end in a pooling get two
convolutions more at the bottom. Apart from that, every encoder can be combined with every decoder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, cast

from torch import Tensor, nn

from napari_unetvnet.errors import SettingsProblem
from napari_unetvnet.networks.base import SegmentationNetwork, TrainingOutputs
from napari_unetvnet.networks.blocks import conv
from napari_unetvnet.networks.decoder_blocks import DecoderBlock, resize
from napari_unetvnet.networks.encoder_blocks import conv_norm
from napari_unetvnet.networks.encoder_options import STEPS, EncoderOptions
from napari_unetvnet.networks.encoders import build_encoder
from napari_unetvnet.networks.pretrained import load_encoder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["BackbonedUNet"]

CENTRE = 512  # channels of the source's centre block, for every width of the encoder


class BackbonedUNet(SegmentationNetwork):
    """U-Net on a classification encoder: ResNet, VGG, Darknet, EfficientNet-Lite or its own.

    The default, a ResNet-34 whose skips are added, is the form that the source recommends but does not contain; its
    other encoders are those of the source. Input sizes must be multiples of 32.

    Tensors have names, which are the keys of `levels`: ``encoderN`` (a skip, or the bottom) and ``decoderN`` at stride
    ``2**N``, ``levelN`` after the narrowing that begins the up-step from stride ``2**N``, and ``centre``.

    Deviations: ResNets other than "resnet50_keras" have no convolution biases in the encoder, as in torchvision;
    max-poolings and strided convolutions of VGG and ResNet pad as torchvision's do. A replaced block that
    concatenates its input is brought back to the stage's width by a 1-wide convolution.

    Parameters
    ----------
    dims : {2, 3}
        Spatial dimensions.
    in_channels, classes : int
        Channels C of the input and K of the logits.

    References
    ----------
    .. [1] He et al. 2016, Deep residual learning, https://arxiv.org/abs/1512.03385
    .. [2] Simonyan, Zisserman 2015, VGG, https://arxiv.org/abs/1409.1556
    .. [3] Redmon, Farhadi 2018, YOLOv3 (Darknet), https://arxiv.org/abs/1804.02767
    .. [4] Tan, Le 2019, EfficientNet, https://arxiv.org/abs/1905.11946
    """

    training_options = ("weights",)
    gives = (("heatmaps", ""),)

    def __init__(self, dims: int, in_channels: int, classes: int, options: EncoderOptions) -> None:
        super().__init__(dims, in_channels, classes)
        if options.weights and dims != 2:
            raise SettingsProblem("Pretrained encoder weights are of 2D images; leave weights empty for a 3D network.")
        self.options = options
        # Modules are made in the order of their use: the order decides which random numbers each of them draws.
        self.encoder = build_encoder(options.encoder, dims, in_channels, options.width, options.block)
        bottom, *skips = self.encoder.widths
        self.centre: nn.Module | None = None
        if self.encoder.pooled:
            self.centre = nn.Sequential(conv_norm(dims, bottom, CENTRE), conv_norm(dims, CENTRE, CENTRE))
        # The channels of each tensor of `levels`, known before the first input, so that a branch can be built on any.
        self.level_widths = {f"encoder{STEPS - i}": n for i, n in enumerate(self.encoder.widths)}
        self.decoder = self._decoder(options.width, skips, options.decoder, options.skip == "concat")
        self.head = conv(dims, self.level_widths["decoder0"], classes, padding=1)
        levels = [f"decoder{n}" for n in range(1, options.deep_supervision + 1)]
        self.auxiliary_heads = nn.ModuleList(conv(dims, self.level_widths[n], classes, kernel=1) for n in levels)
        self.initialise()
        if options.weights:
            load_encoder(self.encoder, options.weights)
            self.pretrained = ("encoder",)
        self._frozen = False
        self.freeze_for(0)

    def _decoder(self, width: int, skips: Sequence[int], kind: str, concat: bool) -> nn.ModuleList:
        """Make the blocks, deep to shallow, and note their widths by level."""
        channels = self.level_widths[f"encoder{STEPS}"] if self.centre is None else CENTRE
        if self.centre is not None:
            self.level_widths["centre"] = channels
        published = [max(1, n) for n in (4 * width, 2 * width, width, width // 2, width // 4)]
        blocks = nn.ModuleList()
        for i, default in enumerate(published):
            skip = skips[i] if i < len(skips) else 0
            # To add its skip a block ends with as many channels; "double" only concatenates and keeps its own.
            outputs = default if kind == "double" or not skip else skip
            block = DecoderBlock(self.dims, channels, skip, outputs, kind, concat)
            blocks.append(block)
            channels = block.outputs
            self.level_widths[f"level{STEPS - i}"] = block.squeezed
            self.level_widths[f"decoder{STEPS - 1 - i}"] = channels
        return blocks

    @property
    def divisor(self) -> tuple[int, ...]:
        """One cell of the deepest feature."""
        return (2**STEPS,) * self.dims

    def freezes_in(self, epoch: int) -> bool:
        """Whether modules are frozen in an epoch, counted from 0."""
        return self.options.freeze < 0 or epoch < self.options.freeze

    def frozen_parts(self) -> list[nn.Module]:
        """Give the modules that `freeze` freezes."""
        return [self.encoder]

    def freeze_for(self, epoch: int) -> None:
        """Freeze or release the encoder as an epoch begins.

        Parameters
        ----------
        epoch : int
            From 0.
        """
        self._frozen = self.freezes_in(epoch)
        for part in self.frozen_parts():
            part.requires_grad_(not self._frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation; frozen modules keep their running statistics."""
        super().train(mode)
        if self._frozen:
            for part in self.frozen_parts():
                part.eval()
        return self

    def levels(self, x: Tensor) -> dict[str, Tensor]:
        """Compute every tensor between the stages, by name and in the order of computation.

        Parameters
        ----------
        x : Tensor of shape (B, C, *S)

        Returns
        -------
        dict of str to Tensor
            ``decoder0``, the last, is the input of the head.
        """
        self.check_size(x)
        features: list[Tensor] = self.encoder(x)
        levels = {f"encoder{STEPS - i}": feature for i, feature in enumerate(features)}
        x, *skips = features
        if self.centre is not None:
            x = levels["centre"] = self.centre(x)
        for i, module in enumerate(self.decoder):
            block = cast("DecoderBlock", module)
            x = levels[f"level{STEPS - i}"] = block.squeeze(x)
            x = levels[f"decoder{STEPS - 1 - i}"] = block.expand(x, skips[i] if i < len(skips) else None)
        return levels

    def logits(self, levels: Mapping[str, Tensor]) -> Tensor:
        """Compute the logits from the result of `levels`.

        Returns
        -------
        Tensor of shape (B, K, *S)
        """
        out: Tensor = self.head(levels["decoder0"])
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, *S) to logits (B, K, *S)."""
        return self.logits(self.levels(x))

    def training_outputs(self, x: Tensor) -> TrainingOutputs:
        """Give the logits, and those of deeper levels at full size.

        Parameters
        ----------
        x : Tensor of shape (B, C, *S)

        Returns
        -------
        TrainingOutputs
        """
        levels = self.levels(x)
        return TrainingOutputs(self.logits(levels), self.auxiliary(levels))

    def level_logits(self, x: Tensor) -> dict[str, Tensor]:
        """Give the logits of each level that has a head, "main" first.

        Parameters
        ----------
        x : Tensor of shape (B, C, *S)

        Returns
        -------
        dict of str to Tensor of shape (B, K, *S)
        """
        levels = self.levels(x)
        auxiliary = {f"level{i}": logits for i, logits in enumerate(self.auxiliary(levels), start=1)}
        return {"main": self.logits(levels)} | auxiliary

    def activations(self, x: Tensor) -> dict[str, Tensor]:
        """Give every tensor between the stages, as `levels` does."""
        return self.levels(x)

    def auxiliary(self, levels: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Give the logits of the levels below the top one at full size, the finest first.

        Returns
        -------
        tuple of Tensor of shape (B, K, *S)
        """
        size = levels["decoder0"].shape[2:]
        coarse = (head(levels[f"decoder{n}"]) for n, head in enumerate(self.auxiliary_heads, start=1))
        return tuple(resize(logits, size) for logits in coarse)
