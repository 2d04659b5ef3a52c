"""What a step will need in memory, told before it is spent; a batch that would not fit is computed in parts."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import torch

from napari_unetvnet.networks import build_network, lasting_options
from napari_unetvnet.networks.facts import outline
from napari_unetvnet.training.plan.choice import Choice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from napari_unetvnet.images.pairs import Pair
    from napari_unetvnet.networks.base import SegmentationNetwork
    from napari_unetvnet.settings import TrainSettings

__all__ = ["free_bytes", "memory", "step_bytes"]

FLOAT = 4
OPTIMISER = {"adamw": 4, "sgd": 3}
"""Numbers a weight: itself, its gradient and its moments."""
WORKING = 3
"""While the gradients flow back, so many copies of the largest layer are alive besides what was kept."""
SHARE = 0.7
"""Of the free memory, so much is used."""
FEW_CLASSES = 4
SMALL = {2: 64, 3: 32}
"""Edge of the patches by which the estimate is made."""


def memory(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Choice]:
    """Compute the batch in as few parts as fit into memory."""
    channels, free = pairs[0].image.channels, free_bytes(device)
    needed = step_bytes(settings, channels, settings.batch)
    told = f"a step needs about {_gib(needed)}, and {_gib(free)} are free"
    parts = 1
    while parts < settings.batch and step_bytes(settings, channels, -(-settings.batch // parts)) > SHARE * free:
        parts *= 2
    return [Choice("gradient_accumulation", min(parts, settings.batch), told)]


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
    """Estimate the memory of a step in single precision, from what a pass over two small patches keeps.

    Parameters
    ----------
    settings : TrainSettings
    channels : int
        Of the images, C.
    patches : int
        Computed at once.

    Returns
    -------
    int
    """
    option = lasting_options(settings.network, settings.option)
    seen = channels * (2 * settings.context + 1 if settings.view == "2.5d" else 1)
    counted = outline(settings.network, settings.dims, seen, FEW_CLASSES, option)
    weights = FLOAT * sum(parameter.numel() for parameter in counted.parameters())
    if weights > SHARE * free_bytes("cpu"):  # to build it would end the process
        return weights * OPTIMISER[settings.optimizer]
    network = build_network(settings.network, settings.dims, seen, FEW_CLASSES, option)
    full = _input_size(network, settings.planned_patch)
    small = _input_size(network, [min(n, SMALL[settings.dims]) for n in settings.planned_patch])
    planes = settings.planned_patch[0] if settings.dims == 2 else 1
    times = patches * planes * prod(full) / (2 * prod(small))
    kept = _kept(network, torch.zeros(2, seen, *small))
    return round(weights * OPTIMISER[settings.optimizer] + times * (sum(kept) + WORKING * max(kept)))


def _input_size(network: SegmentationNetwork, patch: Sequence[int]) -> tuple[int, ...]:
    """Give what the network takes for a patch."""
    margins = zip(patch[-network.dims :], network.margin, strict=True)
    return network.fit([max(least, n + a + b) for least, (n, (a, b)) in zip(network.smallest, margins, strict=True)])


def _kept(network: SegmentationNetwork, x: Tensor) -> list[int]:
    """Give the bytes of each tensor that a backward pass needs, besides the weights."""
    weights = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = network.training_outputs(x)
    del outputs  # until here it holds what was kept, so that no two have one place
    return list(kept.values())
