"""Estimate the memory of a step in advance, and choose gradient accumulation for a batch that would not fit."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import torch

from napari_unetvnet.losses import loss_needs
from napari_unetvnet.networks import build_network, lasting_options, options_for_training
from napari_unetvnet.networks.facts import outline
from napari_unetvnet.training.plan.choice import Decision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from napari_unetvnet.images.pairs import Pair
    from napari_unetvnet.networks.base import SegmentationNetwork
    from napari_unetvnet.settings import TrainSettings

__all__ = ["free_bytes", "memory", "step_bytes"]

FLOAT = 4
OPTIMISER = {"adamw": 4, "sgd": 3}
"""Numbers per weight: the weight, its gradient and its moments."""
WORKING = 3
"""Copies of the largest layer that are alive in the backward pass, besides the stored activations."""
MEMORY_SHARE = 0.7
"""Fraction of the free memory that is used."""
FEW_CLASSES = 4
SMALL = {2: 64, 3: 32}
"""Edge of the patches for the estimate."""


def memory(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Decision]:
    """Divide the batch into as few parts as fit into memory."""
    channels, free = pairs[0].image.channels, free_bytes(device)
    needed = step_bytes(settings, channels, settings.batch)
    reason = f"a step needs about {_gib(needed)}, and {_gib(free)} are free"
    parts = 1
    while parts < settings.batch and step_bytes(settings, channels, -(-settings.batch // parts)) > MEMORY_SHARE * free:
        parts *= 2
    return [Decision("gradient_accumulation", min(parts, settings.batch), reason)]


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


def free_bytes(device: str) -> int:
    """Give the free memory of the device.

    Parameters
    ----------
    device : {"cpu", "cuda"}

    Returns
    -------
    int
    """
    import psutil

    return int(torch.cuda.mem_get_info()[0] if device == "cuda" else psutil.virtual_memory().available)


def step_bytes(settings: TrainSettings, channels: int, patches: int) -> int:
    """Estimate the memory of a step in single precision, from the activations of two small patches.

    Parameters
    ----------
    channels : int
        Of the images, C.
    patches : int
        Patches per forward pass.

    Returns
    -------
    int
    """
    needs, patch = loss_needs(settings.loss), settings.planned_patch
    lasting = lasting_options(settings.network, settings.option)
    option = options_for_training(settings.network, lasting, patch, needs)
    inputs = channels * (2 * settings.planes_beside + 1)
    network_outline = outline(settings.network, settings.dims, inputs, FEW_CLASSES, option)
    weights = FLOAT * sum(parameter.numel() for parameter in network_outline.parameters())
    if weights > MEMORY_SHARE * free_bytes("cpu"):  # building it would exhaust the memory
        return weights * OPTIMISER[settings.optimizer]
    # A network that is built for one patch is built for the small one here.
    small_patch = [min(n, SMALL[settings.dims]) for n in patch]
    option = options_for_training(
        settings.network, lasting | dict.fromkeys(network_outline.patch_options, 0), small_patch, needs
    )
    network = build_network(settings.network, settings.dims, inputs, FEW_CLASSES, option)
    full, small = _input_size(network, patch), network.patch or _input_size(network, small_patch)
    planes = patch[0] if settings.dims == 2 else 1
    times = patches * planes * prod(full) / (2 * prod(small))
    activations = _activations(network, torch.zeros(2, inputs, *small))
    return round(weights * OPTIMISER[settings.optimizer] + times * (sum(activations) + WORKING * max(activations)))


def _input_size(network: SegmentationNetwork, patch: Sequence[int]) -> tuple[int, ...]:
    """Give the input size of the network for a patch."""
    margins = zip(patch[-network.dims :], network.margin, strict=True)
    return network.fit([max(least, n + a + b) for least, (n, (a, b)) in zip(network.smallest, margins, strict=True)])


def _activations(network: SegmentationNetwork, x: Tensor) -> list[int]:
    """Give the bytes of each tensor that a backward pass needs, besides the weights."""
    weights = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    stored: dict[int, int] = {}

    def store(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            stored[storage._cdata] = storage.nbytes()
        return tensor.detach()  # the tensor itself refers to the graph that stores it, and would never be freed

    with torch.autograd.graph.saved_tensors_hooks(store, lambda tensor: tensor):
        outputs = network.training_outputs(x)
    del outputs  # it keeps the activations alive, so that no address is used twice
    return list(stored.values())
