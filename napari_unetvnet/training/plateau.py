"""When the peak learning rate does no more good: the score on the hold-out has not risen over a long time.

A time budget then ends early: the rate falls, because more steps before that would gain little. What counts is the
mean over a quarter of the epochs so far, so that no single score decides. Where scores are noisy, it takes longer to be
sure. Half of the time is used in any case.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unetvnet.training.run import Best, Run

__all__ = ["FLAT", "is_flat", "note_score"]

LEAST_EPOCHS = 32
LITTLE = 0.001
"""Gain of Dice, noise included, that is not worth a longer training."""
USED = 0.5
"""Fraction of a time budget that is used however flat the scores are: small gains add up, which those of an epoch do
not show."""
FOUND = 0.1
"""Dice below which a class may still be found, however long the score has not risen."""
FLAT = (
    "The score has not risen for a quarter of the training, so the learning rate falls now, and the training ends "
    "before its time is over. Give it steps or epochs to train on all the same."
)


def is_flat(scores: Sequence[float]) -> bool:
    """Whether the last quarter of the epochs surely gained little over the quarter before.

    Parameters
    ----------
    scores : sequence of float
        Of all epochs.

    Returns
    -------
    bool
        Whether the gain of the mean score and one standard error are LITTLE together; False for few epochs.
    """
    if len(scores) < LEAST_EPOCHS:
        return False
    quarter = len(scores) // 4
    before, last = (np.asarray(each) for each in (scores[-2 * quarter : -quarter], scores[-quarter:]))
    error = math.sqrt((before.var(ddof=1) + last.var(ddof=1)) / quarter)
    return bool(last.mean() - before.mean() + error <= LITTLE)


def note_score(run: Run, newest: Best) -> None:
    """Take note of the score of an epoch, and let the rate of a time budget fall once the scores are flat."""
    if newest.dice is None:
        return
    run.curve.append(newest.dice)
    schedule = run.schedule
    used = schedule.seconds >= USED * 60 * (schedule.minutes or 0)
    if schedule.steps is None and used and min(newest.scores.values(), default=0) >= FOUND:
        schedule.flat = is_flat(run.curve)
