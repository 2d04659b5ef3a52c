"""Properties of a network that take building it, without memory for its weights, or running it."""

from __future__ import annotations

from importlib.util import find_spec
from math import prod
from typing import TYPE_CHECKING, Any
from weakref import finalize

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from napari_unetvnet.networks import NETWORKS, build_network, lasting_options

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from napari_unetvnet.networks.base import SegmentationNetwork

__all__ = ["network_facts", "outline", "voxel_bytes"]

SMALL = {2: 64, 3: 16}
"""Edge of the image on which memory is measured."""


def network_facts(name: str, dims: int | None = None, in_channels: int = 1, classes: int = 1) -> dict[str, Any]:
    """Give the input sizes that a network accepts, and how large it is, at its default options.

    Parameters
    ----------
    dims : {2, 3}, optional
        Spatial dimensions (default: those of the network's source, the first of ``supported_dims``).

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
    dims : {2, 3}
    options : mapping, optional
        Those that only serve to start a training are left out.

    Returns
    -------
    SegmentationNetwork
        On the device "meta".
    """
    with torch.device("meta"):
        return build_network(name, dims, in_channels, classes, lasting_options(name, options or {}))


def voxel_bytes(network: SegmentationNetwork, device: torch.device) -> float:
    """Measure how much memory a network takes to segment, for each voxel of what it sees.

    Parameters
    ----------
    network : SegmentationNetwork
        Is run once, on a small image, in single precision.
    device : torch.device
        Where it is.

    Returns
    -------
    float
        At the moment when the most is alive; without the weights.
    """
    size = network.fit([max(n, SMALL[network.dims]) for n in network.smallest])
    x = torch.zeros(1, network.in_channels, *size, device=device)
    training = network.training
    network.eval()
    with torch.inference_mode(), _Alive() as alive:
        network(x)
    network.train(training)
    return float(alive.most + x.nbytes) / prod(size)


class _Alive(TorchFunctionMode):
    """Counts the bytes of all tensors that torch's functions return and that still exist."""

    def __init__(self) -> None:
        super().__init__()
        self.most = self._now = 0
        self._holders: dict[int, int] = {}

    def __torch_function__(self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self._hold(tensor)
        self.most = max(self.most, self._now)
        return result

    def _hold(self, tensor: Tensor) -> None:
        # Views share their storage, which is counted once and until the last of them is gone.
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._holders:
            self._now += size
        self._holders[key] = self._holders.get(key, 0) + 1
        finalize(tensor, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._holders[key] -= 1
        if not self._holders[key]:
            del self._holders[key]
            self._now -= size
