"""The network table: a name, and where its class is. A new network is one file and one line here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_unetvnet.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from napari_unetvnet.networks.base import SegmentationNetwork

__all__ = [
    "FAMILIES", "LIMITS", "NETWORKS", "OUTPUTS", "available_outputs", "build_network", "lasting_options",
    "options_for_training", "owners_of",
]  # fmt: skip

FAMILIES: dict[str, dict[str, str]] = {
    "U-Nets": {
        "unet_padding": "napari_unetvnet.networks.unet:UNetPadding",
        "unet_original": "napari_unetvnet.networks.unet:UNetOriginal",
        "unet_drive": "napari_unetvnet.networks.unet_drive:UNetDrive",
        "unetpp": "napari_unetvnet.networks.unetpp:UNetPP",
        "hypercolumn_unet": "napari_unetvnet.networks.hypercolumn_unet:HypercolumnUNet",
    },
    "with an encoder (VGG, ResNet, Darknet, EfficientNet-lite; pretrained weights from a file)": {
        "backboned_unet": "napari_unetvnet.networks.backboned_unet:BackbonedUNet",
        "branch_unet": "napari_unetvnet.networks.branch_unet:BranchUNet",
        "fine_grained_unet": "napari_unetvnet.networks.fine_grained_unet:FineGrainedUNet",
    },
    "V-Nets": {
        "vnet": "napari_unetvnet.networks.vnet:VNet",
        "vnet2d": "napari_unetvnet.networks.vnet:VNet2D",
        "vnet_depthwise": "napari_unetvnet.networks.vnet_depthwise:VNetDepthwise",
        "vnet3d": "napari_unetvnet.networks.vnet3d:VNet3DBottleneck",
    },
    "for volumes": {
        "unet3d": "napari_unetvnet.networks.unet3d:UNet3D",
        "unet3d_ds": "napari_unetvnet.networks.unet3d_ds:UNet3DDeepSupervision",
        "unet25d": "napari_unetvnet.networks.unet25d:UNet25D",
        "vs_seg": "napari_unetvnet.networks.unet25d:VSSeg",
        "segresnet_vae": "napari_unetvnet.networks.segresnet_vae:SegResNetVAE",
    },
    'from MONAI (`pip install "napari-unetvnet[monai]"`)': {
        "dynunet": "napari_unetvnet.networks.from_monai:DynUNet",
        "segresnet": "napari_unetvnet.networks.from_monai:SegResNet",
        "attention_unet": "napari_unetvnet.networks.from_monai:AttentionUNet",
        "swin_unetr": "napari_unetvnet.networks.from_monai:SwinUNETR",
        "basic_unet": "napari_unetvnet.networks.from_monai:BasicUNet",
    },
}
"""Networks by family, as README lists them."""

LIMITS = {
    "width": (1, 1 << 16), "depth": (1, 12), "deep_supervision": (0, 12), "branch": (0, 12), "freeze": (-1, 1 << 20),
    "roi_margin": (0, 1 << 16), "planar": (0, 12), "groups": (1, 1 << 12), "latent": (1, 1 << 16),
    "patch_z": (0, 1 << 12), "patch_y": (0, 1 << 12), "patch_x": (0, 1 << 12), "poolings": (1, 12),
    "feature_size": (1, 1 << 12), "window": (1, 1 << 8), "dropout": (0, 1), "dropout_rate": (0, 1),
    "down_dropout": (0, 1), "roi_threshold": (0, 1), "tiny_threshold": (0, 1),
}  # fmt: skip
"""Lowest and highest value of options that are numbers: what is beyond comes from no training, and may never end."""
NETWORKS = Registry("network", {name: place for family in FAMILIES.values() for name, place in family.items()}, LIMITS)

OUTPUTS: dict[str, str] = {
    "heatmaps": "napari_unetvnet.networks.outputs:heat_maps",
    "attention": "napari_unetvnet.networks.outputs:attention",
    "reconstruction": "napari_unetvnet.networks.outputs:reconstruction",
    "levels": "napari_unetvnet.networks.outputs:levels",
}
"""What networks have besides logits, for a person to look at. A network says in `gives` which of them it has."""
SUPERVISED = "deep_supervision"
"""The option of networks that have auxiliary heads; it need not be in `gives`."""


def available_outputs(name: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """Give the outputs besides logits that a network has with some options.

    Parameters
    ----------
    name : str
        A key of `NETWORKS`.
    options : mapping
        Those that differ from the network's defaults.

    Returns
    -------
    tuple of str
        Keys of `OUTPUTS`.
    """
    chosen, switches = NETWORKS.describe(name).defaults | dict(options), _switches(name)
    on = {what for what, switch in switches.items() if not switch or chosen[switch] not in (False, 0, "none", "auto")}
    return tuple(what for what in OUTPUTS if what in on)


def owners_of(what: str) -> list[str]:
    """Name the networks that have an output, and the option that turns it on, if any.

    Parameters
    ----------
    what : str
        A key of `OUTPUTS`.

    Returns
    -------
    list of str
        Such as "segresnet_vae (option vae)".
    """
    switches = {name: _switches(name) for name in NETWORKS}
    having = {name: switch[what] for name, switch in switches.items() if what in switch}
    return [f"{name} (option {switch})" if switch else name for name, switch in having.items()]


def _switches(name: str) -> dict[str, str]:
    """Give the outputs that a network may have, and the option that turns each on, if any."""
    described = NETWORKS.describe(name)
    supervised = {"levels": SUPERVISED} if SUPERVISED in described.defaults else {}
    return supervised | dict(described.facts.get("gives", ()))


def build_network(
    name: str, dims: int, in_channels: int, classes: int, options: Mapping[str, Any] | None = None
) -> SegmentationNetwork:
    """Build a network from the table.

    Parameters
    ----------
    name : str
        A key of `NETWORKS`.
    dims : {2, 3}
        Spatial dimensions.
    in_channels, classes : int
        Channels of the input and of the logits, each at least 1.
    options : mapping
        Those that differ from the network's defaults.

    Returns
    -------
    SegmentationNetwork
        With He-initialised weights.

    Raises
    ------
    SettingsProblem
        If the name or an option does not exist.
    """
    network: SegmentationNetwork = NETWORKS.build(name, dims, in_channels, classes, options=options or {})
    return network


def lasting_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out options that only matter when a training starts, such as a file of pretrained weights.

    Parameters
    ----------
    name : str
        A key of `NETWORKS`.

    Returns
    -------
    dict
    """
    starting = NETWORKS.describe(name).facts.get("training_options", ())
    return {option: value for option, value in options.items() if option not in starting}


def options_for_training(
    name: str, option: Mapping[str, Any], patch: Sequence[int], learns_from: Collection[str]
) -> dict[str, Any]:
    """Complete the options of a network that follow from its training.

    Parameters
    ----------
    name : str
        A key of `NETWORKS`.
    patch : 3 int
        Training patch, voxels z, y, x.
    learns_from : collection of str
        What the loss needs besides logits and labels.

    Returns
    -------
    dict
    """
    completed: dict[str, Any] = NETWORKS.resolve(name).options_for(option, patch, learns_from)
    return completed
