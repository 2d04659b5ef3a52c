"""The options of networks on a classification encoder, with the one list of each choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from napari_unetvnet.errors import SettingsProblem

__all__ = ["STEPS", "BlockName", "DecoderName", "EncoderName", "EncoderOptions"]

STEPS = 5
"""How often every encoder halves its input."""

EncoderName = Literal[
    "resnet34", "resnet18", "resnet50", "resnet50_keras", "vgg16", "darknet52", "orig_unet", "efficientnet_lite0"
]
BlockName = Literal[
    "own", "double", "concat", "add", "bottleneck", "darknet", "depthwise", "separable", "inception", "preactivation",
    "pair",
]  # fmt: skip
DecoderName = Literal["deconv", "up", "double"]


@dataclass(frozen=True)
class EncoderOptions:
    """What a network on a classification encoder is made of.

    Parameters
    ----------
    encoder : str
        Contracting path. "resnet50_keras" has convolution biases and halves in the first convolution of a block.
    block : str
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

    Raises
    ------
    SettingsProblem
        If a number is out of its range, or weights are given for blocks that are not the encoder's own.
    """

    encoder: EncoderName = "resnet34"
    block: BlockName = "own"
    skip: Literal["add", "concat"] = "add"
    decoder: DecoderName = "deconv"
    width: int = 64
    deep_supervision: int = 0
    weights: str = ""
    freeze: int = 0

    def __post_init__(self) -> None:
        if self.width < 1:
            raise SettingsProblem(f"The width of an encoder is at least 1, not {self.width}.")
        if not 0 <= self.deep_supervision < STEPS:
            raise SettingsProblem(
                f"There are {STEPS - 1} decoder levels below the top one; "
                f"deep_supervision cannot be {self.deep_supervision}."
            )
        if self.freeze < -1:
            raise SettingsProblem(f"freeze is a number of epochs, 0 for never or -1 for always, not {self.freeze}.")
        if self.weights and self.block != "own":
            raise SettingsProblem(
                f"Pretrained weights fit an encoder's own blocks only; block {self.block!r} has none."
            )
