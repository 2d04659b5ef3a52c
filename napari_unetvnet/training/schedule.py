"""Learning rate schedule and training budget.

The learning rate warms up, stays at its peak for a fraction of the steps, and falls to 0 over the others. A time budget
fixes the number of steps when that fraction of the time is over, or earlier, when the peak rate does no more good. The
rates so far are then those that this number of steps would have given from the start.

The last steps of a budget may be those of the final fit, which `training.final_fit` takes; the rate has fallen before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from napari_unetvnet.settings.train import LearningRateSchedule

__all__ = ["Schedule"]

WARM_UP_STEPS = 10
PEAK_SHARE = {"linear": 0.7, "poly": 0.2, "falling": 0.0}
"""Fraction of the steps before the rate falls."""
POWER = {"linear": 1.0, "poly": 0.9, "falling": 1.0}
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
    rule : {"linear", "poly", "one_cycle", "falling"}
        How the rate falls: linearly over the last 30 %, or as (1 - x)^0.9 over the last 80 %. With one_cycle it rises
        and falls as a cosine, which needs a number of steps. In a final fit it is falling linearly over all steps.
    step : int
        Steps taken.
    seconds : float
        Time spent.
    first : int
        Steps of the model that the training started from. They count in patches, augmentation and events, so that a
        training that continues begins nothing anew, but not in the budget.
    fit : float
        Fraction of the steps that belong to the final fit.
    flat : bool
        Whether the score rises no more, so that the rate of a time budget is to fall now.
    """

    peak: float
    minutes: float | None
    steps: int | None
    rule: LearningRateSchedule | Literal["falling"] = "linear"
    step: int = 0
    seconds: float = 0.0
    first: int = 0
    fit: float = 0.0
    flat: bool = False

    @property
    def over(self) -> bool:
        """Whether all steps before the final fit are taken."""
        return self.main_steps is not None and self.step >= self.main_steps

    @property
    def main_steps(self) -> int | None:
        """Steps before the final fit; None until a time budget has been converted to steps."""
        return None if self.steps is None else self.steps - round(self.fit * self.steps)

    @property
    def fit_steps(self) -> int:
        """Steps of the final fit: the rest of the budget, or their fraction after a training that ended early."""
        if self.steps is not None and self.over:
            return self.steps - self.step
        return _with_fit(self.step, self.fit) - self.step

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
            return self.peak * _cycle((self.step + 0.5) / (self.main_steps or 1))
        tenths = round(10 * PEAK_SHARE[self.rule])
        if self.steps is None and self.step and (self.flat or self.seconds >= self._peak_seconds(tenths)):
            # The smallest total for which the steps so far are the ones before the fall, so that no past rate changes.
            self.steps = _with_fit(-(-self.step * 10 // tenths), self.fit)
        warm, total = min(1.0, (self.step + 1) / WARM_UP_STEPS), self.main_steps
        if total is None or self.step < (peak_steps := total * tenths // 10):
            return self.peak * warm
        remaining: float = (total - self.step) / (total - peak_steps)
        return self.peak * warm * math.pow(remaining, POWER[self.rule])

    def _peak_seconds(self, tenths: int) -> float:
        """Give the time until the rate of a time budget falls."""
        return tenths * 6 * (self.minutes or 0) * (1 - self.fit)


def _with_fit(steps: int, fit: float) -> int:
    """Give the smallest total in which so many steps are left before the final fit."""
    total = steps
    while total - round(fit * total) < steps:
        total += 1
    return total


def _cycle(x: float) -> float:
    """Rise as a cosine to 1 until the fraction RISE, and fall to 0."""
    if x < RISE:
        return START + (1 - START) * (1 - math.cos(math.pi * x / RISE)) / 2
    return (1 + math.cos(math.pi * (x - RISE) / (1 - RISE))) / 2
