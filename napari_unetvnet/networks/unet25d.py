"""U-Nets for thick slices: planar convolutions in the first levels, attention maps that training can supervise.

Both networks have one forward pass (`_ThickSliceUNet`): down through the encoder, attention before the deepest level,
up with attention after every join. They differ in the blocks. Axes are z, y, x here (their sources have y, x, z), so a
planar kernel is 1 x 3 x 3.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_unetvnet.errors import DataProblem, SettingsProblem
from napari_unetvnet.networks.base import SegmentationNetwork, TrainingOutputs, by
from napari_unetvnet.networks.blocks import AuxiliaryHeads, batch_norm, conv
from napari_unetvnet.networks.unet import stage_widths

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["UNet25D", "VSSeg"]


def _same_conv(inputs: int, outputs: int, planar: bool, stride: tuple[int, int, int] = (1, 1, 1)) -> nn.Conv3d:
    """Make a convolution of 3 voxels, or of 1 x 3 x 3, that keeps the size at stride 1."""
    deep = 0 if planar else 1
    return nn.Conv3d(inputs, outputs, (1 + 2 * deep, 3, 3), stride=stride, padding=(deep, 1, 1))


def _stride(planar: bool) -> tuple[int, int, int]:
    return (1, 2, 2) if planar else (2, 2, 2)


def _attention(channels: int, planar: bool) -> nn.Sequential:
    """Map (B, C, *S) to a map (B, 1, *S) in [0, 1]."""
    middle = max(1, channels // 2)
    return nn.Sequential(_same_conv(channels, middle, planar), nn.ReLU(), _same_conv(middle, 1, planar), nn.Sigmoid())


class _ThickSliceUNet(SegmentationNetwork):
    """The forward pass that both networks share; a subclass makes the blocks."""

    supported_dims = (3,)  # the base has two
    skip_first = False
    downs: nn.ModuleList
    encoder: nn.ModuleList
    ups: nn.ModuleList
    decoder: nn.ModuleList
    auxiliary_heads: AuxiliaryHeads
    head: nn.Module

    def __init__(self, dims: int, in_channels: int, classes: int, depth: int, planar: int) -> None:
        super().__init__(dims, in_channels, classes)
        if planar < 0:
            raise SettingsProblem(f"The number of planar levels is at least 0, not {planar}.")
        self.depth = depth
        self.planar = [i < planar for i in range(depth)]

    def _make_attention(self, enabled: bool, widths: Sequence[int]) -> None:
        """Make a map for each decoder level's joined channels, and one for what enters the deepest level."""
        channels = [2 * w for w in widths[:-1]] + [widths[-2]]
        self.attention = nn.ModuleList(
            _attention(c, p) if enabled else nn.Identity() for c, p in zip(channels, self.planar, strict=True)
        )

    @property
    def _halvings_of_z(self) -> int:
        return self.planar[:-1].count(False)

    def check_size(self, x: Tensor) -> None:
        """Refuse an input of a size that does not fit, or too small to be trained on alone.

        Parameters
        ----------
        x : Tensor of shape (B, C, Z, Y, X)

        Raises
        ------
        DataProblem
            If a size does not fit, or a single patch leaves one voxel at the bottom in training.
        """
        super().check_size(x)
        size = tuple(x.shape[2:])
        if self.training and len(x) == 1 and size[1:] == self.smallest[1:] and size[0] <= 2**self._halvings_of_z:
            raise DataProblem(
                f"One patch of {by(size)} voxels leaves a single voxel at the bottom of {type(self).__name__}, which "
                "batch norm cannot train on; choose a larger patch or a batch of at least 2."
            )

    def _levels_and_maps(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Give the decoder's outputs and the attention maps, each from the finest level to the deepest."""
        self.check_size(x)
        skips: list[Tensor] = []
        maps: list[Tensor] = []
        for down, stage in zip(self.downs[:-1], self.encoder[:-1], strict=True):
            x = stage(down(x))
            skips.append(x)
        x = self.encoder[-1](self._attend(self.attention[-1], self.downs[-1](x), maps))
        levels: list[Tensor] = []
        steps = zip(self.ups, self.attention[:-1], self.decoder, skips, strict=True)
        for up, attention, stage, skip in reversed(list(steps)):
            # An odd number of planes was rounded up by the pooling, so the up-step gives one too many; cut it off.
            planes = skip.shape[2]
            joined = self._join(up(x), skip)
            x = stage(self._attend(attention, joined, maps))[:, :, :planes]
            levels.append(x)
        return levels[::-1], maps[::-1]

    def attention_maps(self, x: Tensor) -> tuple[Tensor, ...]:
        """Give the attention maps, the finest first, without the plane that was added to an odd number of planes.

        Parameters
        ----------
        x : Tensor of shape (B, C, Z, Y, X)

        Returns
        -------
        tuple of Tensor of shape (B, 1, Z', Y', X')
        """
        maps, planes = [], x.shape[2]
        for attended, planar in zip(self._levels_and_maps(x)[1], self.planar, strict=False):
            maps.append(attended[:, :, :planes])
            planes = planes if planar else -(-planes // 2)
        return tuple(maps)

    def _join(self, up: Tensor, skip: Tensor) -> Tensor:
        """Concatenate the two; the skip gets a plane of zeros where it has one less than what comes up."""
        skip = functional.pad(skip, (0, 0, 0, 0, 0, up.shape[2] - skip.shape[2]))
        return torch.cat([skip, up] if self.skip_first else [up, skip], dim=1)

    @staticmethod
    def _attend(attention: nn.Module, x: Tensor, maps: list[Tensor]) -> Tensor:
        if isinstance(attention, nn.Identity):
            return x
        attended: Tensor = attention(x)
        maps.append(attended)
        return x + attended * x

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, Z, Y, X) to logits (B, K, Z, Y, X)."""
        logits: Tensor = self.head(self._levels_and_maps(x)[0][0])
        return logits

    def training_outputs(self, x: Tensor) -> TrainingOutputs:
        """Give the logits, the auxiliary ones and the attention maps, the finest first.

        Parameters
        ----------
        x : Tensor of shape (B, C, Z, Y, X)

        Returns
        -------
        TrainingOutputs
            A map of a level that had an odd number of planes has one more, at the end.
        """
        levels, maps = self._levels_and_maps(x)
        auxiliary = self.auxiliary_heads(levels[1:], x.shape[2:])
        return TrainingOutputs(self.head(levels[0]), auxiliary=auxiliary, attention=tuple(maps))


class _Enlarge(nn.Module):
    """Linear doubling of y and x, and of z in 3D levels, then a convolution."""

    def __init__(self, inputs: int, outputs: int, planar: bool, kernel_planar: bool, align_corners: bool) -> None:
        super().__init__()
        self.factors = tuple(float(n) for n in _stride(planar))
        self.align_corners = align_corners
        self.conv = _same_conv(inputs, outputs, kernel_planar)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, Z, Y, X) to (B, C', 2Z or Z, 2Y, 2X)."""
        larger = functional.interpolate(
            x, scale_factor=self.factors, mode="trilinear", align_corners=self.align_corners
        )
        out: Tensor = self.conv(larger)
        return out


def _double_conv(inputs: int, width: int, planar: bool, activation: str) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, width):
        layers += [_same_conv(channels, width, planar), batch_norm(3, width)]
        layers.append(nn.PReLU(width) if activation == "prelu" else nn.ReLU())
    return nn.Sequential(*layers)


class UNet25D(_ThickSliceUNet):
    """2.5D U-Net: two planar levels, three 3D levels, five attention maps; any number of planes.

    For volumes whose planes lie much further apart than their pixels, 3D only: in 2D nothing of the idea is left. The
    attention map ``a`` multiplies what it sees by ``1 + a``. Where pooling rounded an odd number of planes up, the
    skip gets one plane of zeros and the block's output is cut back. Pooling pads 1 on both sides, which the Keras
    original does for odd sizes only, and interpolation does not align corners unless asked to.

    Parameters
    ----------
    dims : {3}
        Spatial dimensions.
    in_channels, classes : int
        Channels C of the input and K of the logits.
    width : int
        Channels of the top level.
    depth : int
        Number of levels, poolings + 1; y and x must be multiples of ``2**(depth-1)``.
    growth : {"double", "linear"}
        Whether level i has ``width * 2**i`` channels, or ``width * (i+1)``, the narrow form.
    planar : int
        How many levels from the top work within planes only.
    activation : {"relu", "prelu"}
        After each batch norm; prelu has one slope per channel, as the paper.
    attention : bool
        Whether there are attention maps.
    align_corners : bool
        Whether the up-step's interpolation keeps the corner voxels in place.
    deep_supervision : int
        Number of auxiliary heads on the decoder levels below the top one, for training only.

    References
    ----------
    .. [1] Wang et al. 2019, Automatic segmentation of vestibular schwannoma, https://arxiv.org/abs/1906.03906
    .. [2] https://github.com/AmberzzZZ/unet_vnet_keras
    """

    supported_dims = (3,)
    gives = (("attention", "attention"),)

    def __init__(  # noqa: PLR0913 (the keyword-only ones are the options that the table offers)
        self,
        dims: int,
        in_channels: int,
        classes: int,
        *,
        width: int = 16,
        depth: int = 5,
        growth: Literal["double", "linear"] = "double",
        planar: int = 2,
        activation: Literal["relu", "prelu"] = "relu",
        attention: bool = True,
        align_corners: bool = False,
        deep_supervision: int = 0,
    ) -> None:
        widths = _level_widths(width, depth, growth)
        super().__init__(dims, in_channels, classes, depth, planar)
        flat = self.planar
        self.downs = nn.ModuleList([nn.Identity()])
        self.downs.extend(nn.MaxPool3d((1, 2, 2)) if p else nn.MaxPool3d(3, 2, padding=1) for p in flat[:-1])
        self.encoder = nn.ModuleList(
            _double_conv(a, b, p, activation) for (a, b), p in zip(pairwise([in_channels, *widths]), flat, strict=True)
        )
        self.ups = nn.ModuleList(
            _Enlarge(b, a, p, p, align_corners) for (a, b), p in zip(pairwise(widths), flat, strict=False)
        )
        self._make_attention(attention, widths)
        self.decoder = nn.ModuleList(
            _double_conv(2 * w, w, p, activation) for w, p in zip(widths[:-1], flat, strict=False)
        )
        self.auxiliary_heads = AuxiliaryHeads(dims, widths[1:-1], classes, deep_supervision)
        self.head = _same_conv(width, classes, planar=True)
        self.initialise()

    @property
    def divisor(self) -> tuple[int, ...]:
        """One pooling cell in the plane, any number of planes."""
        return (1, 2 ** (self.depth - 1), 2 ** (self.depth - 1))


def _level_widths(width: int, depth: int, growth: str) -> list[int]:
    doubling = stage_widths(width, depth)
    return doubling if growth == "double" else [width * (i + 1) for i in range(depth)]


def _unit(convolution: nn.Module, outputs: int, dropout: float) -> nn.Sequential:
    """Convolution, batch norm, dropout, PReLU with one slope for all channels."""
    return nn.Sequential(convolution, batch_norm(3, outputs), nn.Dropout(dropout), nn.PReLU())


class _ResidualUnit(nn.Module):
    """Units, or a bare convolution, plus the input or its 1-wide convolution."""

    def __init__(self, units: Sequence[nn.Module], inputs: int, outputs: int) -> None:
        super().__init__()
        self.units = nn.Sequential(*units)
        self.shortcut = conv(3, inputs, outputs, kernel=1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, *S) to (B, C', *S)."""
        out: Tensor = self.units(x) + self.shortcut(x)
        return out


class VSSeg(_ThickSliceUNet):
    """2.5D U-Net of VS_Seg: six levels, residual units, strided and transposed convolutions, six attention maps.

    What the authors of the 2.5D U-Net made of it later; 3D only, as `UNet25D`. Encoder units have two convolutions and
    decoder units one; the top one gives the logits without norm, so there is no head of its own. Batch norm has the
    epsilon of this package.

    Parameters
    ----------
    dims : {3}
        Spatial dimensions.
    in_channels, classes : int
        Channels C of the input and K of the logits.
    width : int
        Channels of the top level; level i has ``width * (i+1)``.
    depth : int
        Number of levels; y and x must be multiples of ``2**(depth-1)``, z of ``2**(depth-1-planar)``.
    planar : int
        How many levels from the top work within planes only.
    attention : bool
        Whether there are attention maps.
    dropout : float
        Share of activations to drop in each unit, in training only.
    deep_supervision : int
        Number of auxiliary heads on the decoder levels below the top one, for training only.

    References
    ----------
    .. [1] Shapey et al. 2021, Segmentation of vestibular schwannoma from MRI, https://doi.org/10.1038/s41597-021-01064-w
    .. [2] https://github.com/KCL-BMEIS/VS_Seg
    """

    supported_dims = (3,)
    gives = (("attention", "attention"),)
    skip_first = True

    def __init__(  # noqa: PLR0913 (the keyword-only ones are the options that the table offers)
        self,
        dims: int,
        in_channels: int,
        classes: int,
        *,
        width: int = 16,
        depth: int = 6,
        planar: int = 2,
        attention: bool = True,
        dropout: float = 0.1,
        deep_supervision: int = 0,
    ) -> None:
        widths = _level_widths(width, depth, "linear")
        super().__init__(dims, in_channels, classes, depth, planar)
        if not 0 <= dropout < 1:
            raise SettingsProblem(f"The dropout rate is a share from 0 to below 1, not {dropout}.")
        flat = self.planar
        self.downs = nn.ModuleList([nn.Identity()])
        self.downs.extend(
            _unit(_same_conv(w, w, p, _stride(p)), w, dropout) for w, p in zip(widths[:-1], flat, strict=False)
        )
        self.encoder = nn.ModuleList(
            _ResidualUnit([_unit(_same_conv(i, b, p), b, dropout) for i in (a, b)], a, b)
            for (a, b), p in zip(pairwise([in_channels, *widths]), flat, strict=True)
        )
        self.ups = nn.ModuleList(
            _unit(_enlarging_conv(b, a, p), a, dropout) for (a, b), p in zip(pairwise(widths), flat, strict=False)
        )
        self._make_attention(attention, widths)
        self.auxiliary_heads = AuxiliaryHeads(dims, widths[1:-1], classes, deep_supervision)
        last = _same_conv(2 * width, classes, self.planar[0])
        self.decoder = nn.ModuleList([_ResidualUnit([last], 2 * width, classes)])
        self.decoder.extend(
            _ResidualUnit([_unit(_same_conv(2 * w, w, p), w, dropout)], 2 * w, w)
            for w, p in zip(widths[1:-1], flat[1:-1], strict=True)
        )
        self.head = nn.Identity()
        self.initialise()

    @property
    def divisor(self) -> tuple[int, ...]:
        """One cell of the strided convolutions."""
        plane = 2 ** (self.depth - 1)
        return (2**self._halvings_of_z, plane, plane)


def _enlarging_conv(inputs: int, outputs: int, planar: bool) -> nn.ConvTranspose3d:
    deep = 0 if planar else 1
    return nn.ConvTranspose3d(
        inputs, outputs, (1 + 2 * deep, 3, 3), _stride(planar), padding=(deep, 1, 1), output_padding=(deep, 1, 1)
    )
