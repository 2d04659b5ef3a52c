"""One optimizer step, in smaller parts where it does not fit into memory.

Patches, their augmentation and dropout are functions of the seed and the step's number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_unetvnet.data.augment import augment, recipe
from napari_unetvnet.data.patches import Batch
from napari_unetvnet.errors import RunProblem
from napari_unetvnet.training.forward import own_gradients

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_unetvnet.conventions import Triple
    from napari_unetvnet.data.patches import TrainingData
    from napari_unetvnet.events import Event
    from napari_unetvnet.settings import TrainSettings
    from napari_unetvnet.training.run import Run

__all__ = ["draw", "fitting_step"]

GRADIENT_NORM = 5.0
STEPS_APART = 500_000
GENTLE_STEPS = 100
"""Strong augmentation slows the first minute: it starts after this many steps and grows over three times as many."""


def fitting_step(run: Run) -> Generator[Event, None, float]:
    """Take a step; where it does not fit into memory, make it smaller and try again.

    Parameters
    ----------
    run : Run

    Yields
    ------
    Notice
        What was made smaller.

    Returns
    -------
    float
        The loss.

    Raises
    ------
    OutOfMemory
        If one patch of the least size does not fit on the device.
    """
    run.within_step = True
    if run.group.distributed:  # the others wait within the step, for what this process cannot tell them
        loss = _gradients(run)
    else:
        loss = yield from _fitting_gradients(run)
    _update(run, loss)
    run.within_step = False
    return loss


def _fitting_gradients(run: Run) -> Generator[Event, None, float]:
    """Compute the gradients of a step, with less memory where it does not suffice; no weight is changed by a try."""
    while True:
        with run.fallback.attempt() as attempt:
            loss = _gradients(run)
        if not attempt.failed:
            run.fallback.worked()
            return loss
        yield run.fallback.next("A step")


def _gradients(run: Run) -> float:
    """Compute the gradients of a step and give its loss."""
    for group in run.optimizer.param_groups:
        group["lr"] = run.schedule.rate()
    batch = _batch(run)
    run.model.network.train()
    # Dropout, a function of the step; what a process drops has nothing to do with what the others drop.
    torch.manual_seed(run.settings.seed * 1_000_003 + run.schedule.step + run.group.rank * STEPS_APART)
    run.model.network.freeze_for(run.schedule.step // run.settings.steps_per_epoch)
    run.optimizer.zero_grad(set_to_none=True)
    return _backward(run, batch)


def _update(run: Run, loss: float) -> None:
    """Take one optimizer step."""
    if not np.isfinite(loss):
        kept = "the best model so far is kept" if run.schedule.step else "there is no model yet"
        raise RunProblem(
            f"The loss is no longer a number at step {run.schedule.step + 1}: the training diverged. Choose a learning "
            f"rate below {run.settings.peak_rate:g}; {kept}."
        )
    run.scaler.unscale_(run.optimizer)
    torch.nn.utils.clip_grad_norm_(run.model.network.parameters(), GRADIENT_NORM)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.schedule.step += 1
    if run.ema is not None:
        run.ema.update_parameters(run.model.network)


def _backward(run: Run, batch: Batch) -> float:
    """Compute the gradients of a batch part by part, and return its loss."""
    # Each process has a patch of each part at least.
    parts = _parts(batch, min(run.fallback.options.gradient_accumulation, run.settings.batch // run.group.size))
    total = 0.0
    for number, part in enumerate(parts, start=1):
        with own_gradients(run.learn, last=number == len(parts)):
            loss = len(part.images) / run.settings.batch * run.learn(part)
            run.model.in_memory((run.scaler.scale(loss) * run.group.size).backward, part.images)
        total += loss.item()
    return total


def _parts(batch: Batch, count: int) -> list[Batch]:
    """Divide a batch."""
    images, target = batch.images.tensor_split(count), batch.target.tensor_split(count)
    maps = {name: values.tensor_split(count) for name, values in batch.maps.items()}
    parts = [Batch(images[i], target[i], {name: pieces[i] for name, pieces in maps.items()}) for i in range(count)]
    return [part for part in parts if len(part.images)]


def draw(data: TrainingData, settings: TrainSettings, margin: Triple, step: int, patch: Triple) -> Batch:
    """Draw the patches of a step; a pure function of the seed and the step's number.

    Parameters
    ----------
    data : TrainingData
    settings : TrainSettings
    margin : tuple of 3 int
        What images have more than targets on both sides, voxels z, y, x.
    step : int
    patch : tuple of 3 int

    Returns
    -------
    Batch
        Of arrays.
    """
    return data.batch(np.random.default_rng([settings.seed, step]), settings.batch, patch, margin)


def _batch(run: Run) -> Batch:
    """Take the next patches, augment them, and crop them to the margin that the network needs."""
    settings, step, card = run.settings, run.schedule.step, run.model.card
    images, target, maps = run.prefetcher.take(step, card.patch)
    images, target = (torch.from_numpy(array).to(run.model.device) for array in (images, target))
    maps = {name: torch.from_numpy(array).to(run.model.device) for name, array in maps.items()}
    fitted = recipe(
        settings.augment, view=settings.view, spacing=card.spacing, mirror=settings.mirror_axes, patch=card.patch
    )
    strength = 1.0 if settings.augment == "light" else min(1.0, max(0.0, (step - GENTLE_STEPS) / GENTLE_STEPS / 3))
    rng = np.random.default_rng([settings.seed, step, 1])
    images, target, maps = augment(images, target, maps, rng, fitted, strength)
    for axis, (before, after) in enumerate(run.model.margin, start=2):
        widest = max(before, after)
        images = images.narrow(axis, widest - before, images.shape[axis] - 2 * widest + before + after)
    return Batch(images, target, maps)
