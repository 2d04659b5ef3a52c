"""The blocks that may replace an encoder's own, and the layers that they consist of.

A unit maps ``inputs`` to ``outputs`` channels and keeps the size, so any unit fits anywhere; the size is halved by a
step of its own. That is why "replace a block, not the whole backbone" is one option and not one class each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from napari_unetvnet.networks.blocks import batch_norm, max_pool, pad_channels

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["UNITS", "InceptionDown", "conv_norm", "convolution", "pool_or_inception", "replaced_stage"]

DARKNET_SLOPE, KERAS_SLOPE = 0.1, 0.3


def convolution(  # noqa: PLR0913 (what a convolution has)
    dims: int,
    inputs: int,
    outputs: int,
    kernel: int = 3,
    *,
    stride: int = 1,
    groups: int = 1,
    bias: bool = True,
    padding: int | None = None,
) -> nn.Module:
    """Make a convolution that pads half its kernel on both sides.

    Parameters
    ----------
    dims : {2, 3}
    padding : int or None
        None for half the kernel.

    Returns
    -------
    nn.Module
    """
    kind = nn.Conv2d if dims == 2 else nn.Conv3d
    pad = kernel // 2 if padding is None else padding
    return kind(inputs, outputs, kernel, stride=stride, padding=pad, groups=groups, bias=bias)


def conv_norm(  # noqa: PLR0913 (what a convolution and a rectifier have)
    dims: int,
    inputs: int,
    outputs: int,
    kernel: int = 3,
    *,
    stride: int = 1,
    groups: int = 1,
    bias: bool = True,
    slope: float = 0.0,
) -> nn.Sequential:
    """Make a convolution with batch norm and a rectifier.

    Parameters
    ----------
    dims : {2, 3}
    slope : float
        Of the rectifier below 0; 0 is plain ReLU.

    Returns
    -------
    nn.Sequential
    """
    return nn.Sequential(
        convolution(dims, inputs, outputs, kernel, stride=stride, groups=groups, bias=bias),
        batch_norm(dims, outputs),
        nn.LeakyReLU(slope) if slope else nn.ReLU(),
    )


def _matched(dims: int, inputs: int, outputs: int) -> nn.Module:
    """Bring a tensor to another number of channels, where it has not yet that."""
    return nn.Identity() if inputs == outputs else convolution(dims, inputs, outputs, 1)


class _Residual(nn.Module):
    """A body whose input is added to its output, through `shortcut`, and then perhaps a rectifier."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut
        self.activation = nn.Identity() if activation is None else activation

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, *S) to (B, C', *S); without a shortcut the channels of x are zero-padded."""
        out: Tensor = self.body(x)
        same: Tensor = pad_channels(x, out.shape[1]) if self.shortcut is None else self.shortcut(x)
        added: Tensor = self.activation(out + same)
        return added


class _Concatenated(nn.Module):
    """A double convolution concatenated with its input, then reduced to the stage's width."""

    def __init__(self, dims: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = _double(dims, inputs, outputs)
        self.join = convolution(dims, inputs + outputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, *S) to (B, C', *S)."""
        out: Tensor = self.join(torch.cat([x, self.body(x)], dim=1))
        return out


def _double(dims: int, inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(conv_norm(dims, inputs, outputs), conv_norm(dims, outputs, outputs))


def _added(dims: int, inputs: int, outputs: int) -> nn.Module:
    return _Residual(_double(dims, inputs, outputs), None)


def _bottleneck(dims: int, inputs: int, outputs: int) -> nn.Module:
    """1-wide to a quarter, 3-wide, 1-wide back; the shortcut is projected where widths differ."""
    narrow = max(1, outputs // 4)
    body = nn.Sequential(
        conv_norm(dims, inputs, narrow, 1),
        conv_norm(dims, narrow, narrow),
        convolution(dims, narrow, outputs, 1),
        batch_norm(dims, outputs),
    )
    projected = nn.Sequential(convolution(dims, inputs, outputs, 1), batch_norm(dims, outputs))
    return _Residual(body, nn.Identity() if inputs == outputs else projected, nn.ReLU())


def darknet_unit(dims: int, inputs: int, outputs: int) -> nn.Module:
    """Make a darknet unit: 1-wide to half the channels, 3-wide back, input added.

    Parameters
    ----------
    dims : {2, 3}

    Returns
    -------
    nn.Module
    """
    half = max(1, outputs // 2)
    body = nn.Sequential(
        conv_norm(dims, inputs, half, 1, bias=False, slope=DARKNET_SLOPE),
        conv_norm(dims, half, outputs, bias=False, slope=DARKNET_SLOPE),
    )
    return _Residual(body, _matched(dims, inputs, outputs))


def _depthwise(dims: int, inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        _matched(dims, inputs, outputs), conv_norm(dims, outputs, outputs, groups=outputs, slope=KERAS_SLOPE)
    )


def _separable(dims: int, inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        conv_norm(dims, inputs, inputs, groups=inputs, slope=KERAS_SLOPE),
        conv_norm(dims, inputs, outputs, 1, slope=KERAS_SLOPE),
    )


def _preactivated(dims: int, inputs: int, outputs: int) -> nn.Module:
    """Norm and rectifier before each of two convolutions, nothing after the sum."""
    body = nn.Sequential(
        batch_norm(dims, inputs),
        nn.ReLU(),
        convolution(dims, inputs, outputs),
        batch_norm(dims, outputs),
        nn.ReLU(),
        convolution(dims, outputs, outputs),
    )
    return _Residual(body, _matched(dims, inputs, outputs))


def _pair(dims: int, inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(conv_norm(dims, inputs, outputs), conv_norm(dims, outputs, outputs, 1))


UNITS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "double": _double,
    "concat": _Concatenated,
    "add": _added,
    "bottleneck": _bottleneck,
    "darknet": darknet_unit,
    "depthwise": _depthwise,
    "separable": _separable,
    "inception": _bottleneck,  # the source sets inception between bottlenecks, where the size is halved
    "preactivation": _preactivated,
    "pair": _pair,
}


class InceptionDown(nn.Module):
    """Halve the size three ways at once: pooled, by one convolution and by a chain of three, concatenated.

    For ``outputs = 2 * inputs`` the shares are C, C/2 and C/2 as in the source; for other widths half is pooled (or
    all of the input's channels, where it has fewer) and the rest is split.

    Parameters
    ----------
    dims : {2, 3}
    inputs, outputs : int
        `outputs` at least 3.
    """

    def __init__(self, dims: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.pooled = min(inputs, max(1, outputs // 2))
        convolved = outputs - self.pooled
        inner = max(1, convolved // 4)
        self.pool = (nn.MaxPool2d if dims == 2 else nn.MaxPool3d)(3, stride=2, padding=1)
        self.single = conv_norm(dims, inputs, convolved // 2, stride=2)
        self.chain = nn.Sequential(
            conv_norm(dims, inputs, inner, 1),
            conv_norm(dims, inner, inner),
            conv_norm(dims, inner, convolved - convolved // 2, stride=2),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, *S) to (B, C', *S/2)."""
        return torch.cat([self.pool(x)[:, : self.pooled], self.single(x), self.chain(x)], dim=1)


def _halving(dims: int, inputs: int, outputs: int, block: str) -> nn.Module:
    """Halve the size and change the width, by inception or by a strided convolution."""
    if block == "inception" and outputs >= 3:
        return InceptionDown(dims, inputs, outputs)
    return conv_norm(dims, inputs, outputs, stride=2)


def pool_or_inception(dims: int, channels: int, block: str) -> nn.Module:
    """Make the step between the stages of an encoder that pools.

    Parameters
    ----------
    dims : {2, 3}
    block : str
        Only "inception" (of at least 3 channels) halves otherwise than by max-pooling.

    Returns
    -------
    nn.Module
    """
    if block == "inception" and channels >= 3:
        return InceptionDown(dims, channels, channels)
    return max_pool(dims)


def replaced_stage(dims: int, inputs: int, outputs: int, count: int, stride: int, block: str) -> nn.Sequential:
    """Make a stage of an encoder from blocks that are not its own.

    Parameters
    ----------
    dims : {2, 3}
    count : int
        Units, as many as the encoder has blocks of its own there.
    stride : {1, 2}
        At 2 the stage begins by halving the size.
    block : str
        A key of `UNITS`.

    Returns
    -------
    nn.Sequential
    """
    layers: list[nn.Module] = []
    if stride == 2:
        layers.append(_halving(dims, inputs, outputs, block))
        inputs = outputs
    for _ in range(count):
        layers.append(UNITS[block](dims, inputs, outputs))
        inputs = outputs
    return nn.Sequential(*layers)
