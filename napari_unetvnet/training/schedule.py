"""Learning rate schedule and training budget.

The learning rate warms up, stays at its peak for a fraction of the steps, and falls to 0 over the others. A time budget
fixes the number of steps when that fraction of the time is over. The rates so far are then those that this number of
steps would have given from the start.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_unetvnet.settings.train import LearningRateSchedule

__all__ = ["Schedule"]

WARM_UP_STEPS = 10
PEAK_SHARE = {"linear": 0.7, "poly": 0.2}
"""Fraction of the steps before the rate falls."""
POWER = {"linear": 1.0, "poly": 0.9}
RISE, START = 0.3, 1 / 25
"""One cycle: fraction of the steps in which the rate rises, and its start relative to the peak."""


@dataclass
class Schedule:
    """Progress and budget of a training, and its learning rate.

    Parameters
    ----------
    peak : float
        Highest learning rate.
    minutes : float or None
        Time budget; ``steps`` is None until the rate starts to fall.
    steps : int or None
        Total number of steps.
    rule : {"linear", "poly", "one_cycle"}
        How the rate falls: linearly over the last 30 %, or as (1 - x)^0.9 over the last 80 %. With one_cycle it rises
        and falls as a cosine, which needs a number of steps.
    step : int
        Steps taken.
    seconds : float
        Time spent.
    first : int
        Steps of the model that the training started from. They count in patches, augmentation and events, so that a
        training that continues begins nothing anew, but not in the budget.
    """

    peak: float
    minutes: float | None
    steps: int | None
    rule: LearningRateSchedule = "linear"
    step: int = 0
    seconds: float = 0.0
    first: int = 0

    @property
    def over(self) -> bool:
        """Whether all steps are taken."""
        return self.steps is not None and self.step >= self.steps

    @property
    def taken(self) -> int:
        """Steps taken in all."""
        return self.first + self.step

    @property
    def planned(self) -> int | None:
        """Steps that will have been taken in all; None until a time budget has been converted to steps."""
        return None if self.steps is None else self.first + self.steps

    def epoch(self, steps: int) -> int:
        """Count the epochs so far, of so many steps each; those of the model to start from are whole ones."""
        return -(-self.first // steps) - (-self.step // steps)

    @property
    def seconds_left(self) -> float:
        """Estimate of the time left."""
        if self.steps is None:
            return max(0.0, (self.minutes or 0) * 60 - self.seconds)
        return (self.steps - self.step) * self.seconds / max(1, self.step)

    def rate(self) -> float:
        """Learning rate of the next step; fixes the number of steps once the rate is to fall."""
        if self.rule == "one_cycle":
            return self.peak * _cycle((self.step + 0.5) / (self.steps or 1))
        tenths = round(10 * PEAK_SHARE[self.rule])
        if self.steps is None and self.step and self.seconds >= tenths * 6 * (self.minutes or 0):
            # The smallest total for which the steps so far are the ones before the fall, so that no past rate changes.
            self.steps = -(-self.step * 10 // tenths)
        warm = min(1.0, (self.step + 1) / WARM_UP_STEPS)
        if self.steps is None or self.step < (peak_steps := self.steps * tenths // 10):
            return self.peak * warm
        remaining: float = (self.steps - self.step) / (self.steps - peak_steps)
        return self.peak * warm * math.pow(remaining, POWER[self.rule])


def _cycle(x: float) -> float:
    """Rise as a cosine to 1 until the fraction RISE, and fall to 0."""
    if x < RISE:
        return START + (1 - START) * (1 - math.cos(math.pi * x / RISE)) / 2
    return (1 + math.cos(math.pi * (x - RISE) / (1 - RISE))) / 2
