"""What can be said of a network only by building it; without memory for its weights."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch

from napari_unetvnet.networks import NETWORKS, build_network, lasting_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_unetvnet.networks.base import SegmentationNetwork

__all__ = ["network_facts", "outline"]


def network_facts(name: str, dims: int | None = None, in_channels: int = 1, classes: int = 1) -> dict[str, Any]:
    """Say what a network takes and how large it is at its default options.

    Parameters
    ----------
    name : str
    dims : {2, 3}, optional
        Spatial dimensions (default: those of the network's source, the first of ``supported_dims``).
    in_channels, classes : int

    Returns
    -------
    dict
        ``dims`` that are supported; for these channels ``divisor``, ``smallest`` and the trainable ``parameters``, all
        None if the network has no form in ``dims`` dimensions or needs a package that is not installed; ``paper`` and
        ``requires``, the packages it needs.
    """
    described = NETWORKS.describe(name)
    supported = described.facts.get("supported_dims", (2, 3))
    facts: dict[str, Any] = {"dims": list(supported), "divisor": None, "smallest": None, "parameters": None}
    facts["paper"] = [line.strip() for line in described.doc.splitlines() if line.startswith(".. [")]
    facts["requires"] = list(described.facts.get("requires", ()))
    installed = all(find_spec(package) for package in facts["requires"])
    if installed and (chosen := dims or supported[0]) in supported:
        network = outline(name, chosen, in_channels, classes)
        facts |= {"divisor": list(network.divisor), "smallest": list(network.smallest)}
        facts["parameters"] = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return facts


def outline(
    name: str, dims: int, in_channels: int, classes: int, options: Mapping[str, Any] | None = None
) -> SegmentationNetwork:
    """Build a network that has shapes and no memory for its weights.

    Parameters
    ----------
    name : str
    dims : {2, 3}
    in_channels, classes : int
    options : mapping, optional
        Those that only serve to start a training are left out.

    Returns
    -------
    SegmentationNetwork
        On the device "meta".
    """
    with torch.device("meta"):
        return build_network(name, dims, in_channels, classes, lasting_options(name, options or {}))
