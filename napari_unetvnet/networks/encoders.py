"""Image-classification encoders as feature pyramids, without their classification tail.

Each gives its features from deep to shallow, the first at stride 32, and names its parameters as the published files
do (torchvision's for VGG and ResNet, efficientnet-lite0-pytorch's without the leading underscores), so that
pretrained weights fit by name. `width` is the number of channels of the first full stage, 64 in every published
encoder; other widths scale all stages.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, cast

from torch import Tensor, nn
from torch.nn import functional

from napari_unetvnet.networks.blocks import batch_norm, conv, conv_stack
from napari_unetvnet.networks.encoder_blocks import (
    DARKNET_SLOPE,
    UNITS,
    conv_norm,
    convolution,
    darknet_unit,
    pool_or_inception,
    replaced_stage,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_unetvnet.networks.encoder_options import BlockName, EncoderName

__all__ = ["Encoder", "build_encoder"]

RESNETS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet50_keras": (3, 4, 6, 3),
}
VGG16 = (2, 2, 3, 3, 3)
DARKNET52 = (1, 2, 8, 8, 4)
# Expansion, channels out, blocks, kernel, stride of the first block; each group of groups ends where a skip is taken.
LITE0 = (
    ((1, 16, 1, 3, 1),),
    ((6, 24, 2, 3, 2),),
    ((6, 40, 2, 5, 2),),
    ((6, 80, 3, 3, 2), (6, 112, 3, 5, 1)),
    ((6, 192, 4, 5, 2), (6, 320, 1, 3, 1)),
)
TORCHVISION_EPSILON = 1e-5


class Encoder(nn.Module):
    """A feature pyramid.

    Attributes
    ----------
    widths : tuple of int
        Channels of the features that `forward` returns, from stride 32 to the shallowest.
    pooled : bool
        Whether the deepest feature comes straight out of a pooling, so that the network adds convolutions there.
    first : str
        The name of the first convolution's weight, which is adapted to the number of input channels.
    tail : tuple of str
        Beginnings of names that published files have for the classification tail, which is dropped.
    """

    widths: tuple[int, ...]
    pooled = False
    first = "conv1.weight"
    tail: tuple[str, ...] = ()

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C, *S) to features, deep to shallow."""
        raise NotImplementedError


class _PooledEncoder(Encoder):
    """VGG-16 or the U-Net's own encoder: stages of convolutions with a pooling after each; skips before the pooling."""

    pooled = True
    tail = ("classifier.",)

    def __init__(self, stages: list[list[nn.Module]], pools: list[nn.Module], widths: list[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        self.pool_at: list[int] = []
        for stage, pool in zip(stages, pools, strict=True):
            self.pool_at.append(len(layers) + len(stage))
            layers += [*stage, pool]
        self.features = nn.Sequential(*layers)
        self.first = next(name for name, _ in self.named_parameters())
        self.widths = (widths[-1], *widths[::-1])

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C, *S) to features at strides 32, 16, 8, 4, 2, 1."""
        skips: list[Tensor] = []
        for i, layer in enumerate(self.features):
            if i in self.pool_at:
                skips.append(x)
            x = layer(x)
        return [x, *reversed(skips)]


def _vgg16(dims: int, channels: int, width: int, block: str) -> Encoder:
    widths = [width * n for n in (1, 2, 4, 8, 8)]
    stages: list[list[nn.Module]] = []
    for (inputs, outputs), count in zip(pairwise([channels, *widths]), VGG16, strict=True):
        if block != "own":
            stages.append([UNITS[block](dims, inputs, outputs)])
            continue
        steps = pairwise([inputs, *[outputs] * count])
        stages.append([m for a, b in steps for m in (conv(dims, a, b, padding=1), nn.ReLU())])
    return _PooledEncoder(stages, [pool_or_inception(dims, w, block) for w in widths], widths)


def _orig_unet(dims: int, channels: int, width: int, block: str) -> Encoder:
    widths = [width * 2**i for i in range(5)]
    stages: list[list[nn.Module]] = []
    for inputs, outputs in pairwise([channels, *widths]):
        own = block == "own"
        stack = conv_stack(dims, (inputs, outputs, outputs), padding=1, norm=True) if own else None
        stages.append([UNITS[block](dims, inputs, outputs) if stack is None else stack])
    return _PooledEncoder(stages, [pool_or_inception(dims, w, block) for w in widths], widths)


class _DarknetDown(nn.Module):
    """A strided convolution that pads before the start only, as darknet's Keras form does."""

    def __init__(self, dims: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.dims = dims
        self.conv = convolution(dims, inputs, outputs, stride=2, bias=False, padding=0)
        self.norm = batch_norm(dims, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, *S) to (B, C', *S/2)."""
        normed = self.norm(self.conv(functional.pad(x, (1, 0) * self.dims)))
        return functional.leaky_relu(normed, DARKNET_SLOPE)


class _Darknet52(Encoder):
    """Strided convolutions, each followed by 1, 2, 8, 8 and 4 residual units."""

    first = "stem.0.weight"

    def __init__(self, dims: int, channels: int, width: int, block: str) -> None:
        super().__init__()
        widths = [max(1, width // 2), *[width * 2**i for i in range(5)]]
        self.stem = conv_norm(dims, channels, widths[0], bias=False, slope=DARKNET_SLOPE)
        self.stages = nn.ModuleList()
        for (inputs, outputs), count in zip(pairwise(widths), DARKNET52, strict=True):
            if block == "own":
                units = [darknet_unit(dims, outputs, outputs) for _ in range(count)]
                stage = nn.Sequential(_DarknetDown(dims, inputs, outputs), *units)
            else:
                stage = replaced_stage(dims, inputs, outputs, count, 2, block)
            self.stages.append(stage)
        self.widths = tuple(widths[:0:-1])

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C, *S) to features at strides 32, 16, 8, 4, 2."""
        x = self.stem(x)
        features: list[Tensor] = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features[::-1]


def _torch_norm(dims: int, channels: int) -> nn.Module:
    """Make a batch norm with the epsilon that torchvision's and Keras' ResNet weights were trained with."""
    norm = cast("nn.BatchNorm2d | nn.BatchNorm3d", batch_norm(dims, channels))
    norm.eps = TORCHVISION_EPSILON
    return norm


class _ResNetBlock(nn.Module):
    """A ResNet block with torchvision's names: two 3-wide convolutions, or 1-3-1 with four times the width out."""

    def __init__(self, dims: int, inputs: int, width: int, stride: int, kind: str) -> None:
        super().__init__()
        keras, deep = kind == "resnet50_keras", kind.startswith("resnet50")
        outputs = 4 * width if deep else width
        kernels = (1, 3, 1) if deep else (3, 3)
        strided = 1 if deep and not keras else 0  # torchvision halves in the 3-wide convolution
        sizes = pairwise([inputs, *[width] * (len(kernels) - 1), outputs])
        for i, ((a, b), kernel) in enumerate(zip(sizes, kernels, strict=True)):
            step = stride if i == strided else 1
            self.add_module(f"conv{i + 1}", convolution(dims, a, b, kernel, stride=step, bias=keras))
            self.add_module(f"bn{i + 1}", _torch_norm(dims, b))
        self.count = len(kernels)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            projection = convolution(dims, inputs, outputs, 1, stride=stride, bias=keras)
            self.downsample = nn.Sequential(projection, _torch_norm(dims, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, *S) to (B, C', *S / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        for i in range(1, self.count + 1):
            x = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x))
            x = functional.relu(x) if i < self.count else x
        return functional.relu(x + shortcut)


class _ResNet(Encoder):
    """ResNet without its average pooling; skips are the first rectifier's output and those of layers 1 to 3."""

    tail = ("fc.",)

    def __init__(self, dims: int, channels: int, width: int, block: str, kind: str) -> None:
        super().__init__()
        self.conv1 = convolution(dims, channels, width, 7, stride=2, bias=kind == "resnet50_keras")
        self.bn1 = _torch_norm(dims, width)
        self.maxpool = (nn.MaxPool2d if dims == 2 else nn.MaxPool3d)(3, stride=2, padding=1)
        inputs, widths = width, [width]
        for i, count in enumerate(RESNETS[kind]):
            narrow, stride = width * 2**i, 2 if i else 1
            outputs = 4 * narrow if kind.startswith("resnet50") else narrow
            if block == "own":
                steps = pairwise([inputs, *[outputs] * count])
                own = [_ResNetBlock(dims, a, narrow, 1 if j else stride, kind) for j, (a, _) in enumerate(steps)]
                layer = nn.Sequential(*own)
            else:
                layer = replaced_stage(dims, inputs, outputs, count, stride, block)
            self.add_module(f"layer{i + 1}", layer)
            inputs = outputs
            widths.append(outputs)
        self.widths = tuple(widths[::-1])

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C, *S) to features at strides 32, 16, 8, 4, 2."""
        features = [functional.relu(self.bn1(self.conv1(x)))]
        x = self.maxpool(features[0])
        for i in range(1, 5):
            x = getattr(self, f"layer{i}")(x)
            features.append(x)
        return features[::-1]


def _same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Pad as TensorFlow's "same" does: of an odd total, one voxel more after the end."""
    total = kernel - stride
    return functional.pad(x, (total // 2, total - total // 2) * (x.ndim - 2))


class _MobileBlock(nn.Module):
    """Inverted bottleneck: 1-wide expansion, depthwise, 1-wide projection; input added where shapes agree."""

    def __init__(self, dims: int, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expands, self.adds = expansion != 1, stride == 1 and inputs == outputs
        self.kernel, self.stride = kernel, stride
        if self.expands:
            self.expand_conv = convolution(dims, inputs, inner, 1, bias=False)
            self.bn0 = batch_norm(dims, inner)
        self.depthwise_conv = convolution(
            dims, inner, inner, kernel, stride=stride, groups=inner, bias=False, padding=0
        )
        self.bn1 = batch_norm(dims, inner)
        self.project_conv = convolution(dims, inner, outputs, 1, bias=False)
        self.bn2 = batch_norm(dims, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, *S) to (B, C', *S / stride)."""
        out = functional.relu6(self.bn0(self.expand_conv(x))) if self.expands else x
        out = functional.relu6(self.bn1(self.depthwise_conv(_same(out, self.kernel, self.stride))))
        out = self.bn2(self.project_conv(out))
        added: Tensor = out + x if self.adds else out
        return added


class _Lite0(Encoder):
    """EfficientNet-Lite0: inverted bottlenecks without squeeze-and-excitation."""

    first = "conv_stem.weight"
    tail = ("conv_head.", "bn1.", "fc.")

    def __init__(self, dims: int, channels: int, width: int, block: str) -> None:
        super().__init__()

        def scaled(n: int) -> int:
            return max(1, n * width // 64)

        inputs = scaled(32)
        self.conv_stem = convolution(dims, channels, inputs, stride=2, bias=False, padding=0)
        self.bn0 = batch_norm(dims, inputs)
        self.blocks = nn.ModuleList()
        self.taps: list[int] = []
        widths: list[int] = []
        for stage in LITE0:
            for expansion, published, count, kernel, stride in stage:
                outputs = scaled(published)
                if block == "own":
                    for i, (a, b) in enumerate(pairwise([inputs, *[outputs] * count])):
                        self.blocks.append(_MobileBlock(dims, a, b, expansion, kernel, 1 if i else stride))
                else:
                    self.blocks.append(replaced_stage(dims, inputs, outputs, count, stride, block))
                inputs = outputs
            self.taps.append(len(self.blocks) - 1)
            widths.append(inputs)
        self.widths = tuple(widths[::-1])

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, C, *S) to features at strides 32, 16, 8, 4, 2."""
        x = functional.relu6(self.bn0(self.conv_stem(_same(x, 3, 2))))
        features: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.taps:
                features.append(x)
        return features[::-1]


_OTHERS: dict[str, Callable[[int, int, int, str], Encoder]] = {
    "vgg16": _vgg16,
    "darknet52": _Darknet52,
    "orig_unet": _orig_unet,
    "efficientnet_lite0": _Lite0,
}


def build_encoder(name: EncoderName, dims: int, channels: int, width: int, block: BlockName) -> Encoder:
    """Make an encoder.

    Parameters
    ----------
    dims : {2, 3}
    channels : int
        Of the input.
    width : int
        64 as published.

    Returns
    -------
    Encoder
    """
    if name in RESNETS:
        return _ResNet(dims, channels, width, block, name)
    return _OTHERS[name](dims, channels, width, block)
