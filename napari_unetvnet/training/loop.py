"""The loop itself: step, look at the hold-out, keep the best, tell."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_unetvnet.augment import augment, recipe
from napari_unetvnet.data import prepare, seen
from napari_unetvnet.errors import OutOfMemory, RunProblem
from napari_unetvnet.events import CheckpointSaved, EpochDone, Event, Notice, SplitMade, StepDone
from napari_unetvnet.patches import Batch
from napari_unetvnet.resample import place_back
from napari_unetvnet.training.ahead import Ahead
from napari_unetvnet.training.keep import BEST, LAST, load_last, save_best, save_last
from napari_unetvnet.training.preview import Preview
from napari_unetvnet.training.run import Best, Run
from napari_unetvnet.training.score import dice_on, quick
from napari_unetvnet.training.start import start

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from pathlib import Path

    from napari_unetvnet.data import Pair
    from napari_unetvnet.patches import TrainingData
    from napari_unetvnet.settings import TrainSettings, Triple
    from napari_unetvnet.volume import Box, Volume

__all__ = ["steps"]

GRADIENT_NORM = 5.0
GENTLE_STEPS = 100
"""Strong augmentation only slows the first minute: it sets in after so many steps and grows for three times as many."""


def steps(pairs: Sequence[Pair], settings: TrainSettings, folder: Path, *, resume: bool = False) -> Iterator[Event]:
    """Train a model, one step each time an event is asked for.

    The best model so far is ``folder/model.safetensors``; ``folder/last.safetensors`` holds what is needed to go on.
    Both are brought up to date when the consumer stops asking.

    Parameters
    ----------
    pairs : sequence of Pair
        Images (C, Z, Y, X) with labels (1, Z, Y, X).
    settings : TrainSettings
    folder : Path
        Must exist.
    resume : bool
        Whether to go on from ``last.safetensors``, if it is there.

    Yields
    ------
    Event
        Notice, SplitMade, StepDone after each step, EpochDone and CheckpointSaved after each epoch, PreviewReady now
        and then.

    Raises
    ------
    DataProblem
        If images or labels cannot be used.
    SettingsProblem
        If the settings do not fit the classes that were found.
    ModelProblem
        If the model to start from is of another kind.
    OutOfMemory
        If one patch of the least size does not fit on the device.
    RunProblem
        If the training diverges, or the state to resume from is cut off.
    """
    shown, pairs, patch = pairs[0].image.shape, seen(pairs, settings), settings.planned_patch
    data = prepare(pairs, settings, patch)
    for text in data.notices:
        yield Notice(text)
    yield _split(data, pairs[0].image, shown)
    run, told = start(pairs, data, settings, folder, patch)
    # Flips would swap unequal margins, so patches come with the larger one on both sides.
    z, y, x = (max(sides) for sides in run.model.margin)
    run.ahead = Ahead(partial(draw, data, settings, (z, y, x)))
    run.scored = quick(data.hold_out, settings)
    begun = _go_on(run) if resume and (folder / LAST).exists() else run.ladder.begin(run)
    for text in (*told, *([begun] if begun else [])):
        yield Notice(text)
    schedule, preview, losses = run.schedule, Preview(pairs[0], run, shown), []
    clock = time.monotonic() - schedule.seconds
    try:
        while not schedule.over and not _stale(run):
            losses.append((yield from _fitting_step(run)))
            schedule.seconds = time.monotonic() - clock
            epoch = -(-schedule.step // settings.epoch_steps)
            ended = schedule.step % settings.epoch_steps == 0 or schedule.over
            # Before anything is told: whoever stops at this step has its score, as a run that was never stopped.
            dice, saved = _validate(run) if ended else (None, False)
            schedule.seconds = time.monotonic() - clock
            yield StepDone(schedule.step, schedule.steps, epoch, losses[-1], schedule.seconds, schedule.seconds_left)
            if preview.due(schedule.seconds):
                yield from preview.show()
            if not ended:
                continue
            loss, losses = sum(losses) / len(losses), []
            yield EpochDone(epoch, schedule.step, loss, dice, schedule.seconds, schedule.seconds_left)
            if saved:
                yield CheckpointSaved(str(folder / BEST), schedule.step, dice)
            save_last(run)
        yield from _final_score(run)
    finally:
        run.ahead.close()
        _leave(run)


def _split(data: TrainingData, image: Volume, shape: Triple) -> SplitMade:
    """Tell how the first image is divided, in voxels of its own grid."""

    def own(boxes: Sequence[Box]) -> tuple[tuple[int, ...], ...]:
        return tuple((*place_back(b.start, image.shape, shape), *place_back(b.stop, image.shape, shape)) for b in boxes)

    learnt, held_out = data.parts(0)
    return SplitMade(image.name, own(learnt), own(held_out))


def _go_on(run: Run) -> str:
    """Go back to where an earlier run of the folder ended, and say so."""
    load_last(run)
    return f"Going on after step {run.schedule.step}."


def _stale(run: Run) -> bool:
    """Whether the hold-out's score has not become better for as many epochs as the settings bear."""
    patience, best = run.settings.patience, run.best
    if patience is None or best.dice is None:
        return False
    return run.schedule.step - best.reached >= patience * run.settings.epoch_steps


def _fitting_step(run: Run) -> Generator[Event, None, float]:
    """Take a step; where it does not fit into memory, make it smaller and try again."""
    climbed = False
    while True:
        try:
            loss = _step(run)
        except OutOfMemory:
            told = run.ladder.climb(run)
            if told is None:
                raise
        else:
            if climbed:
                run.ladder.worked(run)
            return loss
        climbed = True
        torch.cuda.empty_cache()
        yield Notice(told)


def _step(run: Run) -> float:
    """Take one optimiser step and give its loss."""
    run.within_step = True
    for group in run.optimizer.param_groups:
        group["lr"] = run.schedule.rate()
    batch = _batch(run)
    run.model.network.train()
    torch.manual_seed(run.settings.seed * 1_000_003 + run.schedule.step)  # dropout, a function of the step
    run.model.network.freeze_for(run.schedule.step // run.settings.epoch_steps)
    run.optimizer.zero_grad(set_to_none=True)
    loss = sum(_backward(run, part, len(part.images) / run.settings.batch) for part in _parts(batch, run.ladder.parts))
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
    run.average.update(run.schedule.step)
    run.within_step = False
    return loss


def _backward(run: Run, part: Batch, share: float) -> float:
    """Add the gradients of a part of the batch and give its share of the loss."""
    outputs, seen = run.model.supervised(part.images)
    loss = share * run.criterion(outputs, part.target, part.weight, seen)
    run.model.in_memory(run.scaler.scale(loss).backward, part.images)
    return loss.item()


def _parts(batch: Batch, count: int) -> Iterator[Batch]:
    """Divide a batch."""
    pieces = [[None] * count if tensor is None else tensor.tensor_split(count) for tensor in batch]
    return (Batch(*part) for part in zip(*pieces, strict=True) if len(part[0]))


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
    """Take the next patches, change them at random, and cut them to the margin that the network wants around them."""
    settings, step, card = run.settings, run.schedule.step, run.model.card
    drawn = run.ahead.take(step, card.patch)
    images, target = (torch.from_numpy(array).to(run.model.device) for array in drawn[:2])
    weight = None if drawn.weight is None else torch.from_numpy(drawn.weight).to(run.model.device)
    fitted = recipe(
        settings.augment, view=settings.view, spacing=card.spacing, mirror=settings.mirror, patch=card.patch
    )
    strength = 1.0 if settings.augment == "light" else min(1.0, max(0.0, (step - GENTLE_STEPS) / GENTLE_STEPS / 3))
    rng = np.random.default_rng([settings.seed, step, 1])
    images, target, weight = augment(images, target, weight, rng, fitted, strength)
    for axis, (before, after) in enumerate(run.model.margin, start=2):
        widest = max(before, after)
        images = images.narrow(axis, widest - before, images.shape[axis] - 2 * widest + before + after)
    return Batch(images, target, weight)


def _validate(run: Run) -> tuple[float | None, bool]:
    """Score the model on the hold-out and save it if it is the best so far (without a hold-out, the newest is)."""
    newest = _snapshot(run)
    if newest.dice is not None and run.best.dice is not None and newest.dice < run.best.dice:
        return newest.dice, False
    if newest.dice is not None and newest.dice == run.best.dice:
        newest.reached = run.best.reached
    run.best = newest
    save_best(run, newest)
    return newest.dice, True


def _snapshot(run: Run) -> Best:
    """Score the present weights, or their average, and copy them."""
    with run.average.shown():
        dice, by_class = dice_on(run.scored, run.model, run.data.classes)
        weights = {name: tensor.detach().cpu().clone() for name, tensor in run.model.network.state_dict().items()}
    return Best(weights, run.schedule.step, dice, run.schedule.step, by_class)


def _final_score(run: Run) -> Iterator[CheckpointSaved]:
    """Score the best model on the whole hold-out if only a part was looked at until now."""
    if run.scored == run.data.hold_out or not run.best.weights:
        return
    own = {name: tensor.detach().clone() for name, tensor in run.model.network.state_dict().items()}
    run.model.network.load_state_dict(run.best.weights)
    dice, by_class = dice_on(run.data.hold_out, run.model, run.data.classes)
    run.model.network.load_state_dict(own)
    run.final = replace(run.best, dice=dice, scores=by_class)
    save_best(run, run.final)
    yield CheckpointSaved(str(run.folder / BEST), run.best.step, dice)


def _leave(run: Run) -> None:
    """Bring both files up to date, whatever ended the run."""
    if run.schedule.step == 0:
        return
    # Stopped within the first epoch, what there is is the best; but it is no part of the state, because a run that
    # goes on must end like one that was never stopped.
    save_best(run, run.final or (run.best if run.best.weights else _snapshot(run)))
    if not run.within_step:  # half a step cannot be resumed from; the state before it is on disk
        save_last(run)
