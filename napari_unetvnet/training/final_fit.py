"""The final fit: once the score is known, a short training at a low rate learns what was held out, too.

The score stays that of the model before the final fit, and its weights stay in the model file: a training that starts
from this model starts from them, so that what was held out still scores it. The model after the final fit is dropped if
it diverged, or is worse on what was held out although it has learnt it.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from napari_unetvnet.data.known import all_learnt
from napari_unetvnet.data.prepare import resample_pairs, undivided
from napari_unetvnet.events import CheckpointSaved, EpochDone, Notice, StepDone
from napari_unetvnet.model.saved import read_state
from napari_unetvnet.training.build import build_optimizer
from napari_unetvnet.training.checkpoint import load_last, save_best, save_last
from napari_unetvnet.training.fallback import step_fallback
from napari_unetvnet.training.prefetch import Prefetcher
from napari_unetvnet.training.run import Best, FinalFit, copied
from napari_unetvnet.training.schedule import Schedule
from napari_unetvnet.training.score import score_weights
from napari_unetvnet.training.state import State
from napari_unetvnet.training.step import Diverged, draw, fitting_step

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from pathlib import Path

    from napari_unetvnet.events import Event
    from napari_unetvnet.images.pairs import Pair
    from napari_unetvnet.training.run import Run

__all__ = ["final_fit"]

RATE_SHARE = 0.3
"""Highest learning rate, relative to that of the training."""


def final_fit(run: Run, pairs: Sequence[Pair]) -> Iterator[Event]:
    """Train the kept model on all labels, and save it if it is no worse.

    Parameters
    ----------
    run : Run
        Of a finished training; its network is changed.
    pairs : sequence of Pair
        Those of the training.

    Yields
    ------
    Event
        Notice, StepDone, EpochDone and CheckpointSaved; nothing if there is no final fit.

    Raises
    ------
    OutOfMemory
        If one patch of the smallest size does not fit on the device.
    """
    steps, kept = run.schedule.fit_steps, run.final or run.best
    if not steps:
        return
    fit = _begin(run, pairs, kept, steps)
    yield Notice(f"The score is known; the last {steps} steps learn what was held out, too (final fit).")
    diverged = yield from _steps(fit, run)
    fitted = Best(copied(fit.model.network))
    dice = None if diverged else score_weights(run, fitted, run.data.hold_out).dice
    if diverged or (dice is not None and kept.dice is not None and dice < kept.dice):
        reason = "diverged" if diverged else f"made the Dice of what was held out {dice:.3f} instead of {kept.dice:.3f}"
        yield Notice(f"The final fit {reason}, so the model before it is kept.")
        return
    images = all_learnt(run.model.card.images, [pair.image for pair in pairs])
    run.fitted = FinalFit(fitted.weights, steps, images)
    save_best(run, kept)
    yield CheckpointSaved(str(run.files.model), run.schedule.taken + steps, kept.dice)


def _begin(run: Run, pairs: Sequence[Pair], kept: Best, steps: int) -> Run:
    """Make a run that goes on with the kept model on all labels, or with the saved state of its final fit."""
    # From here on, the network is not that of the state on disk, which a longer training would go on from.
    run.fitting = True
    settings, model, main = run.settings, run.model, run.schedule
    model.network.load_state_dict(kept.weights)
    optimizer = build_optimizer(model, settings)
    # The rate falls to 0, so the weights need no average.
    fallback = step_fallback(model, optimizer, None, settings)
    fallback.use(run.fallback.options)
    schedule = Schedule(RATE_SHARE * settings.peak_rate, None, steps, "falling", first=main.taken)
    data = undivided(resample_pairs(pairs, settings), run.data)
    fit = replace(run, files=replace(run.files, state=run.files.final_fit), data=data, optimizer=optimizer,
                  schedule=schedule, ema=None, fallback=fallback, parent=None, best=Best(), scored=[])  # fmt: skip
    fit.learn = run.learn
    z, y, x = (max(sides) for sides in model.margin)
    fit.prefetcher = Prefetcher(partial(draw, data, settings, (z, y, x)))
    if _goes_on(fit.files.state, schedule):
        load_last(fit)
    return fit


def _goes_on(state: Path, schedule: Schedule) -> bool:
    """Whether a final fit after the same steps was interrupted."""
    return state.exists() and read_state(state, State)["schedule"]["first"] == schedule.first


def _steps(fit: Run, run: Run) -> Generator[Event, None, bool]:
    """Take the steps of the final fit; return whether it diverged."""
    schedule, settings, losses = fit.schedule, run.settings, list[float]()
    epochs, clock = run.schedule.epoch(settings.steps_per_epoch), time.monotonic() - schedule.seconds
    try:
        while not schedule.over:
            losses.append((yield from fitting_step(fit)))
            schedule.seconds = fit.group.broadcast(time.monotonic() - clock)
            times = run.schedule.seconds + schedule.seconds, schedule.seconds_left
            epoch = epochs - (-schedule.step // settings.steps_per_epoch)
            yield StepDone(schedule.taken, schedule.planned, epoch, losses[-1], *times, run.schedule.first)
            if schedule.step % settings.steps_per_epoch and not schedule.over:
                continue
            loss, losses = sum(losses) / len(losses), []
            yield EpochDone(epoch, schedule.taken, loss, None, *times)
            save_last(fit)
    except Diverged:
        return True
    finally:
        fit.prefetcher.close()
        if schedule.step and not fit.within_step:
            save_last(fit)
    return False
