"""A U-Net whose contracting path is an image-classification encoder, with or without pretrained weights.

Encoders that begin at stride 2 leave the last decoder block without a skip; encoders that end in a pooling get two
convolutions more at the bottom. Beyond that all encoders and all decoders go together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self, cast

from torch import Tensor, nn

from napari_unetvnet.errors import SettingsProblem
from napari_unetvnet.networks.base import SegmentationNetwork, TrainingOutputs
from napari_unetvnet.networks.blocks import conv
from napari_unetvnet.networks.decoder_blocks import DecoderBlock, heatmap, resize
from napari_unetvnet.networks.encoder_blocks import conv_norm
from napari_unetvnet.networks.encoders import build_encoder
from napari_unetvnet.networks.pretrained import load_encoder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["BackbonedUNet"]

STEPS = 5  # halvings of every encoder
CENTRE = 512  # channels of the source's centre block, for every width of the encoder


class BackbonedUNet(SegmentationNetwork):
    """U-Net on a classification encoder: ResNet, VGG, Darknet, EfficientNet-Lite or its own.

    The default, a ResNet-34 whose skips are added, is the form that the source recommends but does not contain; its
    other encoders are those of the source. Input sizes must be multiples of 32.

    Tensors have names, which `levels` gives: ``encoderN`` (a skip, or the bottom) and ``decoderN`` at stride
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
    encoder : {"resnet34", "resnet18", "resnet50", "vgg16", ...}
        Contracting path. "resnet50_keras" has convolution biases and halves in the first convolution of a block.
    block : {"own", "double", "concat", "add", ...}
        What each stage of the encoder is made of: its own blocks, or others of the same number and width (one for
        each stage of "vgg16" and "orig_unet").
    skip : {"add", "concat"}
        How the encoder's features join the decoder's; the "double" decoder always concatenates.
    decoder : {"deconv", "up", "double"}
        Up-step: a 4-wide transposed convolution between 1-wide ones, the same with nearest doubling and a 3-wide
        convolution, or nearest doubling and two 3-wide convolutions after the skip.
    width : int
        Channels of the encoder's first full stage, 64 as published. All others follow, except for the centre's 512.
    deep_supervision : int
        Number of decoder levels below the top one, finest first, that give logits of their own in training.
    weights : str
        File with pretrained weights of the encoder (safetensors or a torch state dict), or empty for none. 2D only.
    freeze : int
        For how many first epochs the encoder keeps its weights; 0 is never, -1 always.

    References
    ----------
    .. [1] He et al. 2016, Deep residual learning, https://arxiv.org/abs/1512.03385
    .. [2] Simonyan, Zisserman 2015, VGG, https://arxiv.org/abs/1409.1556
    .. [3] Redmon, Farhadi 2018, YOLOv3 (Darknet), https://arxiv.org/abs/1804.02767
    .. [4] Tan, Le 2019, EfficientNet, https://arxiv.org/abs/1905.11946
    """

    training_options = ("weights",)

    def __init__(  # noqa: PLR0913 (the keyword-only ones are the options that the table offers)
        self,
        dims: int,
        in_channels: int,
        classes: int,
        *,
        encoder: Literal[
            "resnet34",
            "resnet18",
            "resnet50",
            "resnet50_keras",
            "vgg16",
            "darknet52",
            "orig_unet",
            "efficientnet_lite0",
        ] = "resnet34",
        block: Literal[
            "own",
            "double",
            "concat",
            "add",
            "bottleneck",
            "darknet",
            "depthwise",
            "separable",
            "inception",
            "preactivation",
            "pair",
        ] = "own",
        skip: Literal["add", "concat"] = "add",
        decoder: Literal["deconv", "up", "double"] = "deconv",
        width: int = 64,
        deep_supervision: int = 0,
        weights: str = "",
        freeze: int = 0,
    ) -> None:
        super().__init__(dims, in_channels, classes)
        _check(dims, width, deep_supervision, weights, block, freeze)
        self.freeze = freeze
        self.encoder = build_encoder(encoder, dims, in_channels, width, block)
        bottom, *skips = self.encoder.widths
        self.centre: nn.Module | None = None
        if self.encoder.pooled:
            self.centre = nn.Sequential(conv_norm(dims, bottom, CENTRE), conv_norm(dims, CENTRE, CENTRE))
        # What `levels` gives, with its channels: known before the first tensor, so that branches can be built on it.
        self.level_widths = {f"encoder{STEPS - i}": n for i, n in enumerate(self.encoder.widths)}
        self.decoder = self._decoder(width, skips, decoder, skip == "concat")
        self.head = conv(dims, self.level_widths["decoder0"], classes, padding=1)
        self.auxiliary_heads = nn.ModuleList(
            conv(dims, self.level_widths[f"decoder{n}"], classes, kernel=1) for n in range(1, deep_supervision + 1)
        )
        self.initialise()
        if weights:
            load_encoder(self.encoder, weights)
        self._frozen = False
        if freeze:
            self.freeze_for(0)

    def _decoder(self, width: int, skips: Sequence[int], kind: str, concat: bool) -> nn.ModuleList:
        """Line up widths deep to shallow, note them by level, and make the blocks."""
        channels = self.level_widths[f"encoder{STEPS}"] if self.centre is None else CENTRE
        if self.centre is not None:
            self.level_widths["centre"] = channels
        alone = [max(1, n) for n in (4 * width, 2 * width, width, width // 2, width // 4)]
        blocks = nn.ModuleList()
        for i, without in enumerate(alone):
            skip = skips[i] if i < len(skips) else 0
            outputs = without if kind == "double" or not skip else skip
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

    def frozen_parts(self) -> list[nn.Module]:
        """Name what `freeze` holds still.

        Returns
        -------
        list of nn.Module
        """
        return [self.encoder]

    def freeze_for(self, epoch: int) -> None:
        """Freeze or release the encoder as an epoch begins.

        Parameters
        ----------
        epoch : int
            From 0.
        """
        self._frozen = self.freeze < 0 or epoch < self.freeze
        for part in self.frozen_parts():
            part.requires_grad_(not self._frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation; what is frozen keeps its running statistics.

        Parameters
        ----------
        mode : bool

        Returns
        -------
        BackbonedUNet
        """
        super().train(mode)
        if self._frozen:
            for part in self.frozen_parts():
                part.eval()
        return self

    def levels(self, x: Tensor) -> dict[str, Tensor]:
        """Give every tensor between the stages by its name, in the order in which they arise.

        Parameters
        ----------
        x : Tensor of shape (B, C, *S)

        Returns
        -------
        dict of str to Tensor
            ``decoder0``, the last, is what the head sees.
        """
        self.check_size(x)
        features: list[Tensor] = self.encoder(x)
        found = {f"encoder{STEPS - i}": feature for i, feature in enumerate(features)}
        x, *skips = features
        if self.centre is not None:
            x = found["centre"] = self.centre(x)
        for i, module in enumerate(self.decoder):
            block = cast("DecoderBlock", module)
            x = found[f"level{STEPS - i}"] = block.squeeze(x)
            x = found[f"decoder{STEPS - 1 - i}"] = block.expand(x, skips[i] if i < len(skips) else None)
        return found

    def logits(self, levels: Mapping[str, Tensor]) -> Tensor:
        """Give the logits that belong to what `levels` gave.

        Parameters
        ----------
        levels : mapping of str to Tensor

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

    def auxiliary(self, levels: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Give the logits of the levels below the top one at full size, the finest first.

        Parameters
        ----------
        levels : mapping of str to Tensor

        Returns
        -------
        tuple of Tensor of shape (B, K, *S)
        """
        size = levels["decoder0"].shape[2:]
        coarse = (head(levels[f"decoder{n}"]) for n, head in enumerate(self.auxiliary_heads, start=1))
        return tuple(resize(logits, size) for logits in coarse)

    def heatmaps(self, x: Tensor, channel: int | None = None) -> dict[str, Tensor]:
        """Show where each level is active.

        Parameters
        ----------
        x : Tensor of shape (B, C, *S)
        channel : int or None
            One channel of each level, or None for the mean over channels of the magnitude.

        Returns
        -------
        dict of str to Tensor of shape (B, 1, *S)
            In [0, 1] for each image of the batch; zeros where a level is constant.
        """
        size = x.shape[2:]
        return {name: resize(heatmap(level, channel), size) for name, level in self.levels(x).items()}


def _check(dims: int, width: int, heads: int, weights: str, block: str, freeze: int) -> None:
    if width < 1:
        raise SettingsProblem(f"The width of an encoder is at least 1, not {width}.")
    if not 0 <= heads < STEPS:
        raise SettingsProblem(
            f"There are {STEPS - 1} decoder levels below the top one; deep_supervision cannot be {heads}."
        )
    if freeze < -1:
        raise SettingsProblem(f"freeze is a number of epochs, 0 for never or -1 for always, not {freeze}.")
    if weights and dims != 2:
        raise SettingsProblem("Pretrained encoder weights are of 2D images; leave weights empty for a 3D network.")
    if weights and block != "own":
        raise SettingsProblem(f"Pretrained weights fit an encoder's own blocks only; block {block!r} has none.")
