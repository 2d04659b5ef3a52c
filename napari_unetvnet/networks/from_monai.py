"""Networks of MONAI with this package's interface.

MONAI is optional and slow to import, so it is loaded where a network is built. A wrapper adds what MONAI leaves to its
caller: which sizes fit, one tensor of logits, weights by He's rule. Hooks record the decoder's levels for training.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from napari_unetvnet.errors import SettingsProblem
from napari_unetvnet.networks.base import SegmentationNetwork, TrainingOutputs
from napari_unetvnet.networks.blocks import AuxiliaryHeads

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["AttentionUNet", "BasicUNet", "DynUNet", "SegResNet", "SwinUNETR"]


def _from_monai(module: str, name: str, *packages: str) -> Any:
    """Import a class of MONAI, and first the other packages that MONAI would only miss when the network runs."""
    try:
        for package in packages:
            importlib.import_module(package)
        return getattr(importlib.import_module(f"monai.networks.nets.{module}"), name)
    except ModuleNotFoundError as missing:
        needed = " ".join(("monai", *packages))
        raise SettingsProblem(
            f"Network {name} needs a package that is not installed ({missing.name}); run: pip install {needed}."
        ) from None


def _require(valid: bool, sentence: str, dropout: float = 0.0) -> None:
    if not valid:
        raise SettingsProblem(sentence)
    if not 0 <= dropout <= 1:
        raise SettingsProblem(f"The dropout rate is a share between 0 and 1, not {dropout}.")


class _Wrapper(SegmentationNetwork):
    """Holds MONAI's network as ``net``."""

    def _wrap(
        self, net: nn.Module, grid: int, levels: Iterable[nn.Module], widths: Sequence[int], deep_supervision: int
    ) -> None:
        """Hold a network whose sizes are multiples of `grid`.

        Its decoder levels below the top one, the finest first, have `widths` channels and each gives a tensor.
        """
        self.auxiliary_heads = AuxiliaryHeads(self.dims, widths, self.classes, deep_supervision)
        self.net, self.grid = net, grid
        names = {module: name for name, module in net.named_modules()}
        self.level_names = [names[level] for level in levels][:deep_supervision]
        self.attention_names: list[str] = []
        self.initialise()

    @property
    def divisor(self) -> tuple[int, ...]:
        """One cell of the deepest level."""
        return (self.grid,) * self.dims

    @property
    def smallest(self) -> tuple[int, ...]:
        """Two voxels at the bottom, for instance norm cannot take one."""
        instance = (nn.InstanceNorm2d, nn.InstanceNorm3d)
        last = 2 if any(isinstance(layer, instance) for layer in self.net.modules()) else 1
        return (self.grid,) * (self.dims - 1) + (last * self.grid,)

    def fit(self, size: Sequence[int]) -> tuple[int, ...]:
        """Give the smallest accepted input that is at least as large as a size."""
        return super().fit([max(a, b) for a, b in zip(size, self.smallest, strict=True)])

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, *S) to logits (B, K, *S)."""
        self.check_size(x)
        logits: Tensor = self.net(x)
        return logits

    def training_outputs(self, x: Tensor) -> TrainingOutputs:
        """Give the logits, the auxiliary ones, and attention maps where the network has them, the finest first.

        Parameters
        ----------
        x : Tensor of shape (B, C, *S)

        Returns
        -------
        TrainingOutputs
        """
        names = [*self.level_names, *self.attention_names]
        outputs: dict[str, Tensor] = {}
        hooks = [self.net.get_submodule(name).register_forward_hook(_recorder(outputs, name)) for name in names]
        try:
            logits = self(x)
        finally:
            for hook in hooks:
                hook.remove()
        auxiliary = self.auxiliary_heads([outputs[name] for name in self.level_names], x.shape[2:])
        return TrainingOutputs(
            logits, auxiliary=auxiliary, attention=tuple(outputs[name] for name in self.attention_names)
        )


def _recorder(outputs: dict[str, Tensor], name: str) -> Any:
    return lambda _module, _inputs, output: outputs.update({name: output})


class DynUNet(_Wrapper):
    """MONAI's DynUNet, the network of nnU-Net: strided convolutions, instance norm, leaky ReLU.

    Kernels are 3 wide and every down-step halves every axis. Channels double from level to level up to nnU-Net's
    limit, 10 times the width in 3D and 16 times in 2D.

    Parameters
    ----------
    dims : {2, 3}
        Spatial dimensions.
    in_channels, classes : int
        Channels C of the input and K of the logits.
    width : int
        Channels of the top level.
    poolings : int
        Number of down-steps, at least 2; sizes must be multiples of ``2**poolings``.
    residual : bool
        Whether blocks add their input.
    norm : {"instance", "batch"}
        Norm after each convolution.
    deep_supervision : int
        Number of auxiliary heads on the decoder levels below the top one, for training only.

    References
    ----------
    .. [1] Isensee et al. 2021, nnU-Net, https://doi.org/10.1038/s41592-020-01008-z
    """

    supported_dims = (3, 2)
    requires = ("monai",)

    def __init__(  # noqa: PLR0913 (the keyword-only ones are the options that the table offers)
        self,
        dims: int,
        in_channels: int,
        classes: int,
        *,
        width: int = 32,
        poolings: int = 5,
        residual: bool = False,
        norm: Literal["instance", "batch"] = "instance",
        deep_supervision: int = 0,
    ) -> None:
        super().__init__(dims, in_channels, classes)
        _require(width >= 1 and poolings >= 2, f"DynUNet needs width >= 1, poolings >= 2, not {width}, {poolings}.")
        limit = width * (10 if dims == 3 else 16)
        widths = [min(width * 2**i, limit) for i in range(poolings + 1)]
        net = _from_monai("dynunet", "DynUNet")(
            dims,
            in_channels,
            classes,
            kernel_size=[3] * (poolings + 1),
            strides=[1] + [2] * poolings,
            upsample_kernel_size=[2] * poolings,
            filters=widths,
            norm_name=("INSTANCE", {"affine": True}) if norm == "instance" else "BATCH",
            res_block=residual,
        )
        self._wrap(net, 2**poolings, list(net.upsamples)[-2::-1], widths[1:-1], deep_supervision)


class SegResNet(_Wrapper):
    """MONAI's SegResNet: the residual network of BraTS 2018 without its autoencoder branch.

    Parameters
    ----------
    dims : {2, 3}
        Spatial dimensions.
    in_channels, classes : int
        Channels C of the input and K of the logits.
    width : int
        Channels of the top level, 32 as in the paper (8 is MONAI's own default); they double at each level below.
    groups : int
        Of the group norm; the width must be a multiple.
    dropout : float
        Share of activations to drop after the first convolution, in training only.
    up : {"trilinear", "transposed"}
        Up-step: linear interpolation or a transposed convolution.
    deep_supervision : int
        Number of auxiliary heads on the decoder levels below the top one, for training only.

    References
    ----------
    .. [1] Myronenko 2018, Brain tumor segmentation using autoencoder regularization, https://arxiv.org/abs/1810.11654
    """

    supported_dims = (3, 2)
    requires = ("monai",)

    def __init__(  # noqa: PLR0913 (the keyword-only ones are the options that the table offers)
        self,
        dims: int,
        in_channels: int,
        classes: int,
        *,
        width: int = 32,
        groups: int = 8,
        dropout: float = 0.0,
        up: Literal["trilinear", "transposed"] = "trilinear",
        deep_supervision: int = 0,
    ) -> None:
        super().__init__(dims, in_channels, classes)
        valid = width >= 1 and groups >= 1 and width % groups == 0
        _require(valid, f"Group norm needs a width that is a multiple of its {groups} groups, not {width}.", dropout)
        net = _from_monai("segresnet", "SegResNet")(
            dims,
            init_filters=width,
            in_channels=in_channels,
            out_channels=classes,
            dropout_prob=dropout or None,
            norm=("GROUP", {"num_groups": groups}),
            upsample_mode="deconv" if up == "transposed" else "nontrainable",
        )
        self._wrap(net, 8, list(net.up_layers)[-2::-1], [2 * width, 4 * width], deep_supervision)


class AttentionUNet(_Wrapper):
    """MONAI's AttentionUnet: gates that let a coarser level choose what of a skip passes.

    The gates' maps are given in `training_outputs`.

    Parameters
    ----------
    dims : {2, 3}
        Spatial dimensions.
    in_channels, classes : int
        Channels C of the input and K of the logits.
    width : int
        Channels of the top level, at least 2; they double at each level.
    depth : int
        Number of levels; sizes must be multiples of ``2**(depth-1)``.
    dropout : float
        Share of activations to drop, in training only.
    deep_supervision : int
        Number of auxiliary heads on the decoder levels below the top one, for training only.

    References
    ----------
    .. [1] Oktay et al. 2018, Attention U-Net, https://arxiv.org/abs/1804.03999
    """

    supported_dims = (3, 2)
    requires = ("monai",)
    gives = (("attention", ""),)

    def __init__(
        self,
        dims: int,
        in_channels: int,
        classes: int,
        *,
        width: int = 16,
        depth: int = 5,
        dropout: float = 0.0,
        deep_supervision: int = 0,
    ) -> None:
        super().__init__(dims, in_channels, classes)
        _require(width >= 2 and depth >= 2, f"AttentionUNet needs width and depth >= 2, not {width}, {depth}.", dropout)
        widths = [width * 2**i for i in range(depth)]
        net = _from_monai("attentionunet", "AttentionUnet")(
            dims, in_channels, classes, channels=widths, strides=[2] * (depth - 1), dropout=dropout
        )
        layer = _from_monai("attentionunet", "AttentionLayer")
        levels = {name: module for name, module in net.named_modules() if isinstance(module, layer)}
        self._wrap(net, 2 ** (depth - 1), list(levels.values())[1:], widths[1:-1], deep_supervision)
        self.attention_names = [f"{name}.attention.psi" for name in levels]


class SwinUNETR(_Wrapper):
    """MONAI's Swin UNETR: a shifted-window transformer as encoder, a convolutional decoder.

    Also needs the package einops.

    Parameters
    ----------
    dims : {2, 3}
        Spatial dimensions.
    in_channels, classes : int
        Channels C of the input and K of the logits.
    feature_size : int
        Channels of the first level, a multiple of 12.
    window : int
        Edge of the windows that attend to themselves, in tokens.
    version_2 : bool
        Whether each transformer stage starts with a residual convolution.
    dropout : float
        Share of activations to drop in the transformer, in training only.
    deep_supervision : int
        Number of auxiliary heads on the decoder levels below the top one, for training only.

    References
    ----------
    .. [1] Hatamizadeh et al. 2022, Swin UNETR, https://arxiv.org/abs/2201.01266
    """

    supported_dims = (3, 2)
    requires = ("monai", "einops")

    def __init__(  # noqa: PLR0913 (the keyword-only ones are the options that the table offers)
        self,
        dims: int,
        in_channels: int,
        classes: int,
        *,
        feature_size: int = 24,
        window: int = 7,
        version_2: bool = False,
        dropout: float = 0.0,
        deep_supervision: int = 0,
    ) -> None:
        super().__init__(dims, in_channels, classes)
        valid = feature_size >= 12 and feature_size % 12 == 0
        _require(valid, f"SwinUNETR's feature_size is a multiple of 12, not {feature_size}.")
        _require(window >= 2, f"SwinUNETR's window is at least 2 tokens wide, not {window}.", dropout)
        kind = _from_monai("swin_unetr", "SwinUNETR", "einops")
        with torch.device("cpu"):  # it reads numbers out of tensors while it is built, which meta tensors do not have
            net = kind(
                in_channels,
                classes,
                feature_size=feature_size,
                window_size=window,
                drop_rate=dropout,
                spatial_dims=dims,
                use_v2=version_2,
            )
        levels = [net.decoder2, net.decoder3, net.decoder4, net.decoder5]
        self._wrap(net, 32, levels, [feature_size * n for n in (1, 2, 4, 8)], deep_supervision)


class BasicUNet(_Wrapper):
    """MONAI's BasicUNet: five levels of two convolutions, instance norm, leaky ReLU.

    Parameters
    ----------
    dims : {2, 3}
        Spatial dimensions.
    in_channels, classes : int
        Channels C of the input and K of the logits.
    width : int
        Channels of the two top levels; they double at each of the three levels below.
    up : {"transposed", "trilinear"}
        Up-step: a transposed convolution or linear interpolation.
    dropout : float
        Share of activations to drop, in training only.
    deep_supervision : int
        Number of auxiliary heads on the decoder levels below the top one, for training only.

    References
    ----------
    .. [1] Falk et al. 2019, U-Net, https://doi.org/10.1038/s41592-018-0261-2
    """

    supported_dims = (3, 2)
    requires = ("monai",)

    def __init__(
        self,
        dims: int,
        in_channels: int,
        classes: int,
        *,
        width: int = 32,
        up: Literal["transposed", "trilinear"] = "transposed",
        dropout: float = 0.0,
        deep_supervision: int = 0,
    ) -> None:
        super().__init__(dims, in_channels, classes)
        _require(width >= 1, f"BasicUNet needs width >= 1, not {width}.", dropout)
        widths = [width, width, 2 * width, 4 * width]
        net = _from_monai("basic_unet", "BasicUNet")(
            dims,
            in_channels,
            classes,
            features=[*widths, 8 * width, width],
            dropout=dropout,
            upsample="deconv" if up == "transposed" else "nontrainable",
        )
        levels = [net.upcat_2, net.upcat_3, net.upcat_4]
        self._wrap(net, 16, levels, widths[1:], deep_supervision)
