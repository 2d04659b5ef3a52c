"""The memory fallback of training, by the rules of `model.fallback`, when a step does not fit.

The steps: more gradient accumulation; activation checkpointing (activations of blocks are recomputed in the backward
pass); a smaller patch; the CPU.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from napari_unetvnet.conventions import Length, Triple  # noqa: TC001 (the schema of saved options)
from napari_unetvnet.model.fallback import MemoryFallback, Options
from napari_unetvnet.networks.base import by
from napari_unetvnet.training.recompute import RECOMPUTED

if TYPE_CHECKING:
    from torch.optim.swa_utils import AveragedModel

    from napari_unetvnet.model.model import Model
    from napari_unetvnet.settings import TrainSettings

__all__ = ["StepOptions", "begin_fallback", "step_fallback"]


@dataclass(frozen=True)
class StepOptions(Options):
    """How a training step is made to fit into memory.

    Parameters
    ----------
    gradient_accumulation : int
        Number of parts in which the batch is computed.
    recompute : bool
        Whether activations of blocks are recomputed in the backward pass instead of being stored.
    patch : tuple of 3 int, or None
        A smaller patch than planned.
    """

    gradient_accumulation: Length = 1
    recompute: bool = False
    patch: Triple | None = None


def step_fallback(
    model: Model, optimizer: torch.optim.Optimizer, ema: AveragedModel | None, settings: TrainSettings
) -> MemoryFallback[StepOptions]:
    """Create the memory fallback of a training step."""
    card = model.card
    kind = (settings.network, settings.option, settings.view, settings.batch, settings.planned_patch)
    return MemoryFallback(
        model,
        StepOptions(gradient_accumulation=settings.gradient_accumulation),
        (
            partial(_accumulate_more, settings.batch),
            _recompute,
            partial(_shrink_patch, model),
            partial(_use_cpu, model),
        ),
        partial(_apply, model, optimizer, ema),
        " | ".join(map(str, (*kind, card.channels, card.outputs))),
        lambda: f"one patch of {by(model.card.patch)} voxels",
    )


def begin_fallback(fallback: MemoryFallback[StepOptions]) -> list[str]:
    """Start with the options that the last training of this kind needed on this device.

    Parameters
    ----------
    fallback : MemoryFallback
        Of a run before its first step.

    Returns
    -------
    list of str
        A notice, if something is remembered.
    """
    remembered, accumulation = fallback.remembered(), fallback.options.gradient_accumulation
    if remembered is None:
        return []
    accumulation = max(accumulation, remembered.gradient_accumulation)
    fallback.use(options := replace(remembered, gradient_accumulation=accumulation))
    changes = [f"in {options.gradient_accumulation} parts"]
    changes += ["recomputing activations"] * options.recompute
    changes += [] if options.patch is None else [f"with patches of {by(options.patch)} voxels"]
    return [f"Such a step did not fit into the memory of this device before, so it is computed {', '.join(changes)}."]


def _accumulate_more(batch: int, options: StepOptions) -> tuple[StepOptions, str] | None:
    if options.gradient_accumulation >= batch:
        return None
    parts = min(batch, 2 * options.gradient_accumulation)
    text = f"each step now computes its {batch} patches in {parts} parts"
    return replace(options, gradient_accumulation=parts), text


def _recompute(options: StepOptions) -> tuple[StepOptions, str] | None:
    if options.recompute:
        return None
    return replace(options, recompute=True), "activations are now recomputed in the backward pass"


def _shrink_patch(model: Model, options: StepOptions) -> tuple[StepOptions, str] | None:
    if model.network.patch is not None or (smaller := model.smaller(model.card.patch)) is None:
        return None
    return replace(options, patch=smaller), f"patches are now {by(smaller)} voxels"


def _use_cpu(model: Model, options: StepOptions) -> tuple[StepOptions, str] | None:
    if model.device.type == "cpu":
        return None
    return replace(options, cpu=True), "training continues on the CPU"


def _apply(model: Model, optimizer: torch.optim.Optimizer, ema: AveragedModel | None, options: StepOptions) -> None:
    """Wrap the network, set the patch, and move the optimizer and the EMA to the device of the weights."""
    if options.recompute:
        model.wrappers.add(RECOMPUTED)
    if options.patch is not None:
        model.card = model.card.model_copy(update={"patch": options.patch})
    if options.cpu:
        for state in optimizer.state.values():
            state.update({name: t.cpu() for name, t in state.items() if isinstance(t, torch.Tensor)})
        if ema is not None:
            ema.cpu()
