"""The bottleneck V-Net: ResNet's three-step units, and down-steps that combine three scales."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_unetvnet.networks.blocks import batch_norm, conv
from napari_unetvnet.networks.vnet import VShaped, strided_conv, up_step

__all__ = ["VNet3DBottleneck"]

# Units of the encoder's levels, as in ResNet-50's stages after its first; the bottom has 3 at any depth.
ENCODER_UNITS = (1, 3, 4, 6)
BOTTOM_UNITS = 3


def _normed(dims: int, step: nn.Module, channels: int) -> list[nn.Module]:
    return [step, batch_norm(dims, channels)]


def _rectified(dims: int, step: nn.Module, channels: int) -> list[nn.Module]:
    return [*_normed(dims, step, channels), nn.ReLU()]


class _Bottleneck(nn.Module):
    """1-wide to a quarter, 3-wide, 1-wide to the full width; plus the input, projected where widths differ."""

    def __init__(self, dims: int, inputs: int, width: int) -> None:
        super().__init__()
        inner = max(1, width // 4)
        self.steps = nn.Sequential(
            *_rectified(dims, conv(dims, inputs, inner, kernel=1), inner),
            *_rectified(dims, conv(dims, inner, inner, padding=1), inner),
            *_normed(dims, conv(dims, inner, width, kernel=1), width),
        )
        projection = _normed(dims, conv(dims, inputs, width, kernel=1), width) if inputs != width else []
        self.shortcut = nn.Sequential(*projection)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, *S) to (B, width, *S)."""
        return functional.relu(self.steps(x) + self.shortcut(x))


class _InceptionDown(nn.Module):
    """Half the size, twice the channels: max-pooling, a strided convolution and a deeper one, side by side."""

    def __init__(self, dims: int, channels: int) -> None:
        super().__init__()
        half, quarter = channels // 2, max(1, channels // 4)
        remaining = channels - half
        self.pool = (nn.MaxPool2d if dims == 2 else nn.MaxPool3d)(3, stride=2, padding=1)
        self.short = nn.Sequential(*_rectified(dims, strided_conv(dims, channels, half, kernel=3), half))
        self.long = nn.Sequential(
            *_rectified(dims, conv(dims, channels, quarter, kernel=1), quarter),
            *_rectified(dims, conv(dims, quarter, quarter, padding=1), quarter),
            *_rectified(dims, strided_conv(dims, quarter, remaining, kernel=3), remaining),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, *S) to (B, 2C, *S/2)."""
        return torch.cat([self.pool(x), self.short(x), self.long(x)], dim=1)


def _units(dims: int, inputs: int, width: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(_Bottleneck(dims, inputs if i == 0 else width, width) for i in range(count)))


class VNet3DBottleneck(VShaped):
    """V-Net of bottleneck residual units with inception down-steps: deep, yet a tenth of the V-Net's parameters.

    Encoder levels have 1, 3, 4, 6 units (6 from there on) and the bottom 3. A unit is a 1-wide convolution to a quarter
    of the channels, a 3-wide one and a 1-wide one back, each with batch norm, between ReLUs, plus its input. The first
    down-step is a 3-wide convolution of stride 2; the others concatenate a max-pooling, such a convolution, and a chain
    of three. An up-step is a linear doubling with a 1-wide convolution; a decoder block reads [up, skip] and has 1, 2,
    3, 3 units from the top. The source's other form is depth 4 with width 32. Deviation from the source: strided steps
    are padded by 1 at each side, not only after the end, which shifts their grid by one voxel.

    Parameters
    ----------
    dims : {2, 3}
        Spatial dimensions.
    in_channels, classes : int
        Channels C of the input and K of the logits.
    width : int
        Channels of the top level; they double at each level. The source takes 16 at depth 5 and 32 at depth 4.
    depth : int
        Number of levels; sizes must be multiples of ``2**(depth-1)``.
    align_corners : bool
        Whether linear doubling keeps the corner voxels' values in place instead of the voxels' extents.
    deep_supervision : int
        How many decoder levels below the top one get a head of their own, in training only.

    References
    ----------
    .. [1] Milletari, Navab, Ahmadi 2016, V-Net, https://arxiv.org/abs/1606.04797
    .. [2] He et al. 2016, Deep residual learning, https://arxiv.org/abs/1512.03385
    .. [3] Szegedy et al. 2016, Rethinking the Inception architecture, https://arxiv.org/abs/1512.00567
    """

    supported_dims = (3, 2)

    def __init__(
        self,
        dims: int,
        in_channels: int,
        classes: int,
        *,
        width: int = 16,
        depth: int = 5,
        align_corners: bool = False,
        deep_supervision: int = 0,
    ) -> None:
        super().__init__(dims, in_channels, classes, width, depth)
        for i, w in enumerate(self.widths):
            count = BOTTOM_UNITS if i == depth - 1 else ENCODER_UNITS[min(i, len(ENCODER_UNITS) - 1)]
            self.downs.append(self._down(i))
            self.encoder.append(_units(dims, w if i else in_channels, w, count))
        for i, w in enumerate(self.widths[:-1]):
            self.ups.append(up_step(dims, 2 * w, w, "upsample", align_corners=align_corners))
            self.decoder.append(_units(dims, 2 * w, w, min(i + 1, 3)))
        self.add_heads(self.widths[:-1], deep_supervision)
        self.initialise()

    def _down(self, level: int) -> nn.Module:
        """Make the step from the level above to this one."""
        if level == 0:
            return nn.Identity()
        w = self.widths[level]
        if level == 1:
            return nn.Sequential(*_rectified(self.dims, strided_conv(self.dims, w // 2, w, kernel=3), w))
        return _InceptionDown(self.dims, w // 2)
