"""One optimizer step, with a memory fallback.

Patches, augmentation and dropout are functions of the seed and the step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_unetvnet.data.augment import augment, drop_channels, recipe
from napari_unetvnet.data.patches import Batch
from napari_unetvnet.errors import RunProblem
from napari_unetvnet.training.forward import accumulating

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_unetvnet.conventions import Triple
    from napari_unetvnet.data.patches import TrainingData
    from napari_unetvnet.events import Event
    from napari_unetvnet.settings import TrainSettings
    from napari_unetvnet.training.run import Run

__all__ = ["Diverged", "draw", "fitting_step"]

GRADIENT_NORM = 5.0
RANK_SEEDS = 500_000
"""Distance between the dropout seeds of two processes, above any number of steps."""
AUGMENTATION_START = 100
"""Strong augmentation slows early learning: it starts at this step, and reaches full strength over 3 times as many."""


class Diverged(RunProblem):
    """The loss is no longer a number."""


def fitting_step(run: Run) -> Generator[Event, None, float]:
    """Take a step; if it does not fit into memory, take the next fallback step and try again.

    Yields
    ------
    Notice
        What was changed to save memory.

    Returns
    -------
    float
        The loss.

    Raises
    ------
    OutOfMemory
        If one patch of the smallest size does not fit on the device.
    Diverged
        If the loss is no longer a number; no weight is changed then.
    """
    run.within_step = True
    # With several processes there is no fallback: the others already wait for this one's gradients.
    if run.group.distributed:
        loss = _gradients(run)
    else:
        loss = yield from _fitting_gradients(run)
    _update(run, loss)
    run.within_step = False
    return loss


def _fitting_gradients(run: Run) -> Generator[Event, None, float]:
    """Compute the gradients of a step, with less memory if needed; a failed attempt changes no weight."""
    while True:
        with run.fallback.attempt() as attempt:
            loss = _gradients(run)
        if not attempt.failed:
            run.fallback.worked()
            return loss
        yield run.fallback.next("A step")


def _gradients(run: Run) -> float:
    """Compute the gradients of a step and return its loss."""
    for group in run.optimizer.param_groups:
        group["lr"] = run.schedule.rate()
    batch = _batch(run)
    run.model.network.train()
    # Seeds dropout by the step, so that a resumed run repeats it, and differently in each process.
    torch.manual_seed(run.settings.seed * 1_000_003 + run.schedule.taken + run.group.rank * RANK_SEEDS)
    run.model.network.freeze_for(run.schedule.taken // run.settings.steps_per_epoch)
    run.optimizer.zero_grad(set_to_none=True)
    return _backward(run, batch)


def _update(run: Run, loss: float) -> None:
    """Take one optimizer step."""
    if not np.isfinite(loss):
        state = "the best model so far is saved" if run.schedule.step else "there is no model yet"
        raise Diverged(
            f"The loss is no longer a number at step {run.schedule.step + 1}: the training diverged. Choose a learning "
            f"rate below {run.settings.peak_rate:g}; {state}."
        )
    # Gradients are clipped at their true size, so the scaling of fp16 is undone first.
    run.scaler.unscale_(run.optimizer)
    torch.nn.utils.clip_grad_norm_(run.model.network.parameters(), GRADIENT_NORM)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.schedule.step += 1
    if run.ema is not None:
        run.ema.update_parameters(run.model.network)


def _backward(run: Run, batch: Batch) -> float:
    """Accumulate the gradients of a batch over its parts, and return its loss."""
    # Each process needs at least one patch of each part.
    parts = _parts(batch, min(run.fallback.options.gradient_accumulation, run.settings.batch // run.group.size))
    total = 0.0
    for number, part in enumerate(parts, start=1):
        with accumulating(run.learn, last=number == len(parts)):
            # Weighted by the patches of the part, the sum over the parts is the mean over the batch.
            loss = len(part.images) / run.settings.batch * run.learn(part)
            # DistributedDataParallel averages gradients over processes; times the group size, it is their sum.
            run.model.in_memory((run.scaler.scale(loss) * run.group.size).backward, part.images)
        total += loss.item()
    return total


def _parts(batch: Batch, count: int) -> list[Batch]:
    """Divide a batch for gradient accumulation."""
    images, target = batch.images.tensor_split(count), batch.target.tensor_split(count)
    maps = {name: values.tensor_split(count) for name, values in batch.maps.items()}
    parts = [Batch(images[i], target[i], {name: pieces[i] for name, pieces in maps.items()}) for i in range(count)]
    return [part for part in parts if len(part.images)]


def draw(data: TrainingData, settings: TrainSettings, margin: Triple, step: int, patch: Triple) -> Batch:
    """Draw the patches of a step; a pure function of the seed and the step's number.

    Parameters
    ----------
    margin : tuple of 3 int
        Voxels z, y, x that images extend beyond targets on each side.
    patch : tuple of 3 int

    Returns
    -------
    Batch
        Of numpy arrays.
    """
    return data.batch(np.random.default_rng([settings.seed, step]), settings.batch, patch, margin)


def _batch(run: Run) -> Batch:
    """Take the next patches, augment them, and crop them to the margin that the network needs."""
    settings, step, card = run.settings, run.schedule.taken, run.model.card
    images, target, maps = run.prefetcher.take(step, card.patch)
    images, target = (torch.from_numpy(array).to(run.model.device) for array in (images, target))
    maps = {name: torch.from_numpy(array).to(run.model.device) for name, array in maps.items()}
    fitted = recipe(
        settings.augment, view=settings.view, spacing=card.spacing, mirror=settings.mirror_axes, patch=card.patch
    )
    ramp = (step - AUGMENTATION_START) / AUGMENTATION_START / 3
    strength = 1.0 if settings.augment == "light" else min(1.0, max(0.0, ramp))
    rng = np.random.default_rng([settings.seed, step, 1])
    images, target, maps = augment(images, target, maps, rng, fitted, strength)
    images = drop_channels(images, settings.channel_dropout, rng)
    # Patches have the larger margin on both sides, because augmentation may exchange the sides.
    for axis, (before, after) in enumerate(run.model.margin, start=2):
        widest = max(before, after)
        images = images.narrow(axis, widest - before, images.shape[axis] - 2 * widest + before + after)
    return Batch(images, target, maps)
