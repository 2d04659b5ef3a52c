"""The loop itself: step, look at the hold-out, keep the best, tell."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_unetvnet.augment import augment, recipe
from napari_unetvnet.compute import choose_device
from napari_unetvnet.data import prepare
from napari_unetvnet.errors import OutOfMemory, RunProblem, SettingsProblem
from napari_unetvnet.events import CheckpointSaved, EpochDone, Event, Notice, StepDone
from napari_unetvnet.patches import Batch
from napari_unetvnet.processes import ALONE, Team
from napari_unetvnet.training.ahead import Ahead
from napari_unetvnet.training.keep import BEST, LAST, load_last, save_best, save_last
from napari_unetvnet.training.learn import learner, own_gradients
from napari_unetvnet.training.preview import Preview
from napari_unetvnet.training.run import Best, Run
from napari_unetvnet.training.score import dice_on
from napari_unetvnet.training.start import start

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from pathlib import Path

    from napari_unetvnet.data import Pair
    from napari_unetvnet.patches import TrainingData
    from napari_unetvnet.settings import TrainSettings, Triple

__all__ = ["steps"]

GRADIENT_NORM = 5.0
STEPS_APART = 500_000
GENTLE_STEPS = 100
"""Strong augmentation only slows the first minute: it sets in after so many steps and grows for three times as many."""


def steps(
    pairs: Sequence[Pair], settings: TrainSettings, folder: Path, *, resume: bool = False, team: Team = ALONE
) -> Iterator[Event]:
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
    team : Team
        Processes that take the same steps together, each with its share of the patches; they have joined.

    Yields
    ------
    Event
        Notice, StepDone after each step, EpochDone and CheckpointSaved after each epoch, PreviewReady now and then.

    Raises
    ------
    DataProblem
        If images or labels cannot be used.
    SettingsProblem
        If the settings do not fit the classes that were found, or a step has fewer patches than there are processes.
    ModelProblem
        If the model to start from is of another kind.
    OutOfMemory
        If one patch of the least size does not fit on the device.
    RunProblem
        If the training diverges, or the state to resume from is cut off.
    """
    settings, patch = _shared(settings, team), settings.planned_patch
    data = prepare(pairs, settings, patch)
    for text in data.notices:
        yield Notice(text)
    run, told = start(pairs, data, settings, folder, patch)
    run.team = team
    # Flips would swap unequal margins, so patches come with the larger one on both sides.
    z, y, x = (max(sides) for sides in run.model.margin)
    run.ahead = Ahead(partial(draw, data, settings, (z, y, x)))
    for text in told:
        yield Notice(text)
    if resume and (folder / LAST).exists():
        load_last(run)
        yield Notice(f"Going on after step {run.schedule.step}.")
    run.learn = learner(run.model, run.criterion, team)
    schedule, preview, losses = run.schedule, Preview(pairs[0], run), []
    clock = time.monotonic() - schedule.seconds
    try:
        while not schedule.over and not _stale(run):
            losses.append((yield from _fitting_step(run)))
            schedule.seconds = time.monotonic() - clock
            epoch = -(-schedule.step // settings.epoch_steps)
            ended = schedule.step % settings.epoch_steps == 0 or schedule.over
            # Before anything is told: whoever stops at this step has its score, as a run that was never stopped.
            dice, saved = _validate(run) if ended else (None, False)
            schedule.seconds = team.agreed(time.monotonic() - clock)
            yield StepDone(schedule.step, schedule.steps, epoch, losses[-1], schedule.seconds, schedule.seconds_left)
            if team.first and preview.due(schedule.seconds):
                yield from preview.show()
            if not ended:
                continue
            loss, losses = sum(losses) / len(losses), []
            yield EpochDone(epoch, schedule.step, loss, dice, schedule.seconds, schedule.seconds_left)
            if saved:
                yield CheckpointSaved(str(folder / BEST), schedule.step, dice)
            save_last(run)
    finally:
        run.ahead.close()
        _leave(run)


def _shared(settings: TrainSettings, team: Team) -> TrainSettings:
    """See that there is work for each process, and have all compute in the number format of the first."""
    if not team.several:
        return settings
    if settings.batch < team.size:
        raise SettingsProblem(
            f"Batch {settings.batch} is too small for {team.size} processes, which share the patches of a step; choose "
            f"a batch of at least {team.size}, or start fewer processes."
        )
    if settings.precision != "auto":
        return settings
    # The speed that decides it is measured.
    bf16 = team.agreed(choose_device(settings)[1] == "bf16")
    return settings.model_copy(update={"precision": "bf16" if bf16 else "fp32"})


def _stale(run: Run) -> bool:
    """Whether the hold-out's score has not become better for as many epochs as the settings bear."""
    patience, best = run.settings.patience, run.best
    if patience is None or best.dice is None:
        return False
    return run.schedule.step - best.reached >= patience * run.settings.epoch_steps


def _fitting_step(run: Run) -> Generator[Event, None, float]:
    """Take a step; where it does not fit into memory, make it smaller and try again."""
    while True:
        try:
            return _step(run)
        except OutOfMemory:
            # Of several processes, the others wait within the step for what this one cannot say.
            told = None if run.team.several else run.ladder.climb(run)
            if told is None:
                raise
        torch.cuda.empty_cache()
        yield Notice(told)


def _step(run: Run) -> float:
    """Take one optimiser step and give its loss."""
    run.within_step = True
    for group in run.optimizer.param_groups:
        group["lr"] = run.schedule.rate()
    batch = _batch(run)
    run.model.network.train()
    # Dropout, a function of the step; what a process drops has nothing to do with what the others drop.
    torch.manual_seed(run.settings.seed * 1_000_003 + run.schedule.step + run.team.rank * STEPS_APART)
    run.model.network.freeze_for(run.schedule.step // run.settings.epoch_steps)
    run.optimizer.zero_grad(set_to_none=True)
    loss = _backward(run, batch)
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


def _backward(run: Run, batch: Batch) -> float:
    """Compute the gradients of a batch, a part after the other, and give its loss."""
    # Each process has a patch of each part at least.
    parts = _parts(batch, min(run.ladder.parts, run.settings.batch // run.team.size))
    total = 0.0
    for number, part in enumerate(parts, start=1):
        with own_gradients(run.learn, last=number == len(parts)):
            with run.ladder.saving:
                loss = len(part.images) / run.settings.batch * run.learn(part)
            run.model.in_memory((run.scaler.scale(loss) * run.team.size).backward, part.images)
        total += loss.item()
    return total


def _parts(batch: Batch, count: int) -> list[Batch]:
    """Divide a batch."""
    pieces = [[None] * count if tensor is None else tensor.tensor_split(count) for tensor in batch]
    return [Batch(*part) for part in zip(*pieces, strict=True) if len(part[0])]


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
    newest = _snapshot(run, run.team)
    if newest.dice is not None and run.best.dice is not None and newest.dice < run.best.dice:
        return newest.dice, False
    if newest.dice is not None and newest.dice == run.best.dice:
        newest.reached = run.best.reached
    run.best = newest
    save_best(run, newest)
    return newest.dice, True


def _snapshot(run: Run, team: Team) -> Best:
    """Score the present weights, or their average, and copy them."""
    with run.average.shown():
        dice, by_class = dice_on(run.data.hold_out, run.model, run.data.classes, team)
        weights = {name: tensor.detach().cpu().clone() for name, tensor in run.model.network.state_dict().items()}
    return Best(weights, run.schedule.step, dice, run.schedule.step, by_class)


def _leave(run: Run) -> None:
    """Bring both files up to date, whatever ended the run; the others may be gone by then."""
    if run.schedule.step == 0 or not run.team.first:
        return
    # Stopped within the first epoch, what there is is the best; but it is no part of the state, because a run that
    # goes on must end like one that was never stopped.
    save_best(run, run.best if run.best.weights else _snapshot(run, ALONE))
    if not run.within_step:  # half a step cannot be resumed from; the state before it is on disk
        save_last(run)
