"""How many steps the budget holds on this machine, by taking a few, and the width of the network that suits them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

from napari_unetvnet.model.card import ModelCard
from napari_unetvnet.model.model import build_model
from napari_unetvnet.networks import lasting_options, options_for_training
from napari_unetvnet.training.plan.choice import Decision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unetvnet.images.pairs import Pair
    from napari_unetvnet.settings import TrainSettings

__all__ = ["seconds_per_step", "width"]

NARROW, USUAL = 8, 16
CUDA_WIDTH = 32
FEW_STEPS = 1000
"""A network of the usual width that takes fewer steps learns less than a narrow one, which takes more of them
(benchmarks/auto.md, width and steps)."""
TIMED, CLASSES = 2, 4


def width(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Decision]:
    """Choose how wide a plain U-Net is, from the steps that the budget holds."""
    if {"network", "option"} & settings.model_fields_set - {"network" if settings.network == "unet_padding" else ""}:
        return []
    if device == "cuda":
        return [Decision("option", {"width": CUDA_WIDTH}, "a GPU trains it in minutes")]
    steps, counted = settings.planned_steps, "by the budget"
    if steps is None:
        usual = settings.model_copy(update={"option": {"width": USUAL}})
        seconds = seconds_per_step(usual, pairs[0].image.channels)
        steps = round((settings.planned_minutes or 0) * 60 / seconds)
        counted = f"at {seconds:.2g} s a step on this machine"
    if steps < FEW_STEPS:
        reason = f"a wider network would take {steps} steps {counted}, too few to learn as much"
        return [Decision("option", {"width": NARROW}, reason)]
    return [Decision("option", {"width": USUAL}, f"there is time for {steps} steps {counted}")]


def seconds_per_step(settings: TrainSettings, channels: int) -> float:
    """Measure an optimizer step: forward, backward and update, on noise.

    Parameters
    ----------
    settings : TrainSettings
        View, network, patch and batch are chosen.
    channels : int
        Of the images, C.

    Returns
    -------
    float
        The time of the last of a few; the first ones are slower.
    """
    patch = settings.planned_patch
    option = options_for_training(settings.network, lasting_options(settings.network, settings.option), patch, {})
    card = ModelCard(
        network=settings.network,
        option=option,
        head="multiclass",
        view=settings.view,
        context=settings.planes_beside,
        channels=channels,
        values=tuple(range(CLASSES)),
        patch=patch,
    )
    with torch.random.fork_rng(devices=[]):
        model = build_model(card, settings)
        size = [n + before + after for n, (before, after) in zip(patch, model.margin, strict=True)]
        images = torch.randn(settings.batch, channels, *size)
    optimizer = torch.optim.AdamW(model.network.parameters())
    model.network.train()
    times = []
    for _ in range(TIMED):
        began = time.monotonic()
        optimizer.zero_grad()
        outputs, _ = model.supervised(images.to(model.device))
        torch.autograd.backward([outputs.logits.square().mean()])
        optimizer.step()
        times.append(time.monotonic() - began)
    return max(1e-6, times[-1])
