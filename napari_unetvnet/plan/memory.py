"""What a step will need in memory, told before anything is spent; a batch that would not fit is computed in parts."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import torch

from napari_unetvnet.networks import NETWORKS, build_network
from napari_unetvnet.plan.choice import Choice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from napari_unetvnet.data import Pair
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


def memory(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Choice]:
    """Compute the batch in as few parts as fit into memory."""
    channels = pairs[0].image.channels
    free = free_bytes(device)
    needed = step_bytes(settings, channels, settings.batch)
    if needed is None or needed <= SHARE * free:
        return []
    parts = 1
    while parts < settings.batch and (step_bytes(settings, channels, -(-settings.batch // parts)) or 0) > SHARE * free:
        parts *= 2
    told = f"a step would need {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free"
    return [Choice("accumulate", min(parts, settings.batch), told)]


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


def step_bytes(settings: TrainSettings, channels: int, patches: int) -> int | None:
    """Estimate the memory of a step in single precision, without computing anything.

    Parameters
    ----------
    settings : TrainSettings
    channels : int
        Of the images, C.
    patches : int
        Computed at once.

    Returns
    -------
    int or None
        None for a network that cannot be followed without numbers.
    """
    passing = NETWORKS.describe(settings.network).facts.get("training_options", ())
    option = {name: value for name, value in settings.option.items() if name not in passing}
    seen = channels * (2 * settings.context + 1 if settings.view == "2.5d" else 1)
    with torch.device("meta"):
        network = build_network(settings.network, settings.dims, seen, FEW_CLASSES, option)
    patch = settings.planned_patch
    size = network.fit([n + a + b for n, (a, b) in zip(patch[-settings.dims :], network.margin, strict=True)])
    planes = patch[0] if settings.dims == 2 else 1
    x = torch.empty((patches * planes, seen, *size), device="meta")
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        return tensor

    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            outputs = network.training_outputs(x)
    except (NotImplementedError, RuntimeError):
        return None
    weights = sum(parameter.numel() for parameter in network.parameters())
    del outputs
    largest = max(kept.values(), default=0)
    return (
        FLOAT * weights * (OPTIMISER[settings.optimizer] - 1) + sum(kept.values()) + WORKING * largest + prod(x.shape)
    )
