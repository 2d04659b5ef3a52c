"""What to do when a training step does not fit into memory; `model.fallback` says how.

The steps: the batch in more and smaller parts whose gradients are summed; what the blocks of the network compute is
computed again instead of being kept; a smaller patch; the CPU.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from napari_unetvnet.model.fallback import MemoryFallback, Options
from napari_unetvnet.networks.base import by
from napari_unetvnet.training.recompute import RECOMPUTED

if TYPE_CHECKING:
    from torch.optim.swa_utils import AveragedModel

    from napari_unetvnet.conventions import Triple
    from napari_unetvnet.model.model import Model
    from napari_unetvnet.settings import TrainSettings

__all__ = ["StepOptions", "begin_fallback", "step_fallback"]


@dataclass(frozen=True)
class StepOptions(Options):
    """How a training step is made to fit into memory.

    Parameters
    ----------
    gradient_accumulation : int
        The batch is computed in so many parts.
    recompute : bool
        Whether what blocks of the network compute is computed again for the backward pass instead of being kept.
    patch : tuple of 3 int, or None
        A smaller patch than was planned.
    """

    gradient_accumulation: int = 1
    recompute: bool = False
    patch: Triple | None = None


def step_fallback(
    model: Model, optimizer: torch.optim.Optimizer, ema: AveragedModel | None, settings: TrainSettings
) -> MemoryFallback[StepOptions]:
    """Declare what a training step can save.

    Parameters
    ----------
    model : Model
    optimizer : torch Optimizer
    ema : AveragedModel or None
    settings : TrainSettings

    Returns
    -------
    MemoryFallback
    """
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


def begin_fallback(fallback: MemoryFallback[StepOptions]) -> str | None:
    """Begin with what worked for the last training of the kind on this device.

    Parameters
    ----------
    fallback : MemoryFallback
        Of a run that has not taken a step.

    Returns
    -------
    str or None
        What is done, as a sentence; None if nothing is known.
    """
    known, chosen = fallback.remembered(), fallback.options.gradient_accumulation
    if known is None:
        return None
    fallback.use(options := replace(known, gradient_accumulation=max(chosen, known.gradient_accumulation)))
    ways = [f"in {options.gradient_accumulation} parts"]
    ways += ["computing twice what would have to be remembered"] * options.recompute
    ways += [] if options.patch is None else [f"with patches of {by(options.patch)} voxels"]
    return f"Such a step did not fit into the memory of this device before; it begins {', '.join(ways)}."


def _accumulate_more(batch: int, options: StepOptions) -> tuple[StepOptions, str] | None:
    if options.gradient_accumulation >= batch:
        return None
    parts = min(batch, 2 * options.gradient_accumulation)
    text = f"each step now computes its {batch} patches in {parts} parts"
    return replace(options, gradient_accumulation=parts), text


def _recompute(options: StepOptions) -> tuple[StepOptions, str] | None:
    if options.recompute:
        return None
    return replace(options, recompute=True), "what a step would have to remember is now computed twice"


def _shrink_patch(model: Model, options: StepOptions) -> tuple[StepOptions, str] | None:
    if (smaller := model.smaller(model.card.patch)) is None:
        return None
    return replace(options, patch=smaller), f"patches are now {by(smaller)} voxels"


def _use_cpu(model: Model, options: StepOptions) -> tuple[StepOptions, str] | None:
    if model.device.type == "cpu":
        return None
    return replace(options, cpu=True), "training continues on the CPU"


def _apply(model: Model, optimizer: torch.optim.Optimizer, ema: AveragedModel | None, options: StepOptions) -> None:
    """Wrap the network, set the patch, and have all that belongs to the weights where they are."""
    if options.recompute:
        model.wrappers.add(RECOMPUTED)
    if options.patch is not None:
        model.card = model.card.model_copy(update={"patch": options.patch})
    if options.cpu:
        for state in optimizer.state.values():
            state.update({name: t.cpu() for name, t in state.items() if isinstance(t, torch.Tensor)})
        if ema is not None:
            ema.cpu()
