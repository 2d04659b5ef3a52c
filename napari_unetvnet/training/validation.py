"""Validation after each epoch, and the final checkpoint."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from napari_unetvnet.events import CheckpointSaved, Notice, StartScored
from napari_unetvnet.training.checkpoint import save_best, save_last
from napari_unetvnet.training.ema import ema_weights
from napari_unetvnet.training.frequencies import ADAPTED, adapted
from napari_unetvnet.training.plateau import note_score
from napari_unetvnet.training.processes import SINGLE
from napari_unetvnet.training.run import Best, copied
from napari_unetvnet.training.score import dice_on, score_weights

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from napari_unetvnet.events import Event
    from napari_unetvnet.training.processes import ProcessGroup
    from napari_unetvnet.training.run import Run

__all__ = ["adapt", "finish", "score_parent", "score_whole_hold_out", "validate"]


def validate(run: Run) -> tuple[float | None, bool]:
    """Score the model on the hold-out and save it if it is the best so far; without a hold-out, save the newest.

    Returns
    -------
    dice : float or None
    saved : bool
    """
    newest = _snapshot(run, run.group)
    note_score(run, newest)
    if not _replaces_best(run, newest):
        return newest.dice, False
    if newest.dice is not None and newest.dice == run.best.dice:
        newest.reached = run.best.reached
    run.best = newest
    save_best(run, newest)
    return newest.dice, True


def _replaces_best(run: Run, newest: Best) -> bool:
    """Whether the newest model is kept: not a worse one, nor one that only equals the model to start from."""
    if run.keeps_parent:
        return _beats(newest, run.best)
    if newest.dice is None or run.best.dice is None:
        return True
    return not newest.dice < run.best.dice


def _beats(new: Best, old: Best) -> bool:
    return new.dice is not None and old.dice is not None and new.dice > old.dice


def _snapshot(run: Run, group: ProcessGroup) -> Best:
    """Score and copy the present weights, or their EMA."""
    with _present(run, group) as weights:
        dice, by_class = dice_on(run.scored, run.model, run.data.classes, group)
    return Best(weights, run.schedule.step, dice, run.schedule.step, by_class)


@contextmanager
def _present(run: Run, group: ProcessGroup) -> Iterator[dict[str, Tensor]]:
    """Use the EMA of the weights, if there is one, and give a copy of the weights."""
    with ema_weights(run.model, run.ema):
        # On CPUs the running statistics of batch norm differ between processes; those of rank 0 are saved.
        group.broadcast_tensors(run.model.network.buffers())
        yield copied(run.model.network)


def score_parent(run: Run) -> Iterator[Event]:
    """Score the model that training starts from: it is the best one until a newer one scores better.

    Parameters
    ----------
    run : Run
        Before its first step.

    Yields
    ------
    Event
        StartScored, or a Notice why there is no score.
    """
    parent = run.parent
    if parent is None or parent.differences:
        return
    start = _snapshot(run, run.group)
    if start.dice is None:
        yield Notice(
            f"{parent.path} has no score here, because nothing of the classes is held out, so the newest model is kept "
            "even if it is worse."
        )
        return
    parent.start = run.best = start
    yield StartScored(parent.path, parent.steps, start.dice)


def score_whole_hold_out(run: Run) -> Iterator[Event]:
    """Score the best model and the last one on the whole hold-out if only a part of it was scored before.

    The better one is kept, and of equal ones the last, whose learning rate has fallen to 0. The model that training
    started from is scored, too, and is kept if it is the better one.

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
    final = score_weights(run, run.best, run.data.hold_out)
    last = _last_on_whole(run)
    if last is not None and not _beats(final, last):
        final = last
    start = _start_on_whole(run)
    run.final = final if start is None or _beats(final, start) else start
    save_best(run, run.final)
    yield CheckpointSaved(str(run.files.model), run.schedule.first + run.final.step, run.final.dice)


def adapt(run: Run) -> Iterator[Event]:
    """Adapt a model that learnt from strokes to how often its classes are in the images, and save it.

    Parameters
    ----------
    run : Run
        Of a finished training.

    Yields
    ------
    Notice, CheckpointSaved
        Nothing where labels are no strokes.
    """
    kept = run.final or run.best
    model = adapted(run, kept)
    if model is kept:
        return
    run.final = model
    save_best(run, model)
    yield Notice(ADAPTED)
    yield CheckpointSaved(str(run.files.model), run.schedule.first + model.step, model.dice)


def _start_on_whole(run: Run) -> Best | None:
    """Score the model that training started from on the whole hold-out; None if there is none to compare with."""
    if run.parent is None or run.parent.start is None:
        return None
    start = score_weights(run, run.parent.start, run.data.hold_out)
    run.parent.whole = start.dice
    return start


def _last_on_whole(run: Run) -> Best | None:
    """Score the last model on the whole hold-out; None if it is the best one, or its rate has not fallen."""
    best, step = run.best, run.schedule.step
    if best.dice is None or not best.step or best.step == step or not run.schedule.over:
        return None
    with _present(run, run.group) as weights:
        dice, by_class = dice_on(run.data.hold_out, run.model, run.data.classes, run.group)
    return Best(weights, step, dice, best.reached, by_class)


def finish(run: Run) -> None:
    """Write both checkpoints, whatever ended the run; other processes may have ended already."""
    if run.schedule.step == 0 or not run.group.is_first:
        return
    save_best(run, run.final or adapted(run, _reached(run), SINGLE))
    # Within a step the state is inconsistent, in a final fit it has another network; that of the last epoch is on disk.
    if not (run.within_step or run.fitting):
        save_last(run)


def _reached(run: Run) -> Best:
    """Give the best model, or the present one if no epoch has ended yet."""
    # The present one is not stored in the state, because a resumed run must end like an uninterrupted one.
    if run.best.step or (run.keeps_parent and run.schedule.step >= run.settings.steps_per_epoch):
        return run.best
    newest = _snapshot(run, SINGLE)
    return newest if _replaces_best(run, newest) else run.best
