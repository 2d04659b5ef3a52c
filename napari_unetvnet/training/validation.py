"""Validation after each epoch, and the final checkpoint."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from napari_unetvnet.events import CheckpointSaved
from napari_unetvnet.training.checkpoint import save_best, save_last
from napari_unetvnet.training.ema import ema_weights
from napari_unetvnet.training.processes import SINGLE
from napari_unetvnet.training.run import Best
from napari_unetvnet.training.score import dice_on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_unetvnet.training.processes import ProcessGroup
    from napari_unetvnet.training.run import Run

__all__ = ["finish", "score_whole_hold_out", "validate"]


def validate(run: Run) -> tuple[float | None, bool]:
    """Score the model on the hold-out and save it if it is the best so far; without a hold-out, save the newest.

    Returns
    -------
    dice : float or None
    saved : bool
    """
    newest = _snapshot(run, run.group)
    if newest.dice is not None and run.best.dice is not None and newest.dice < run.best.dice:
        return newest.dice, False
    if newest.dice is not None and newest.dice == run.best.dice:
        newest.reached = run.best.reached
    run.best = newest
    save_best(run, newest)
    return newest.dice, True


def _snapshot(run: Run, group: ProcessGroup) -> Best:
    """Score and copy the present weights, or their EMA."""
    with ema_weights(run.model, run.ema):
        # On CPUs the running statistics of batch norm differ between processes; those of rank 0 are saved.
        group.broadcast_tensors(run.model.network.buffers())
        dice, by_class = dice_on(run.scored, run.model, run.data.classes, group)
        weights = {name: tensor.detach().cpu().clone() for name, tensor in run.model.network.state_dict().items()}
    return Best(weights, run.schedule.step, dice, run.schedule.step, by_class)


def score_whole_hold_out(run: Run) -> Iterator[CheckpointSaved]:
    """Score the best model on the whole hold-out if only a part of it was scored before.

    Parameters
    ----------
    run : Run
        Of a finished training.

    Yields
    ------
    CheckpointSaved
    """
    if run.scored == run.data.hold_out or not run.best.weights:
        return
    present = {name: tensor.detach().clone() for name, tensor in run.model.network.state_dict().items()}
    run.model.network.load_state_dict(run.best.weights)
    dice, by_class = dice_on(run.data.hold_out, run.model, run.data.classes, run.group)
    run.model.network.load_state_dict(present)
    run.final = replace(run.best, dice=dice, scores=by_class)
    save_best(run, run.final)
    yield CheckpointSaved(str(run.files.model), run.best.step, dice)


def finish(run: Run) -> None:
    """Write both checkpoints, whatever ended the run; other processes may have ended already."""
    if run.schedule.step == 0 or not run.group.is_first:
        return
    # If stopped within the first epoch, the present weights are saved as the best model. They are not stored in the
    # state, because a resumed run must end like an uninterrupted one.
    save_best(run, run.final or (run.best if run.best.weights else _snapshot(run, SINGLE)))
    if not run.within_step:  # the state within a step is inconsistent; that of the last epoch is on disk
        save_last(run)
