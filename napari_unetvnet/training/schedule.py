"""How fast and how long to learn.

The learning rate warms up, stays for a share of the steps, and falls to 0 over the rest. A time budget fixes the number
of steps when that share of the time is over, at which point the same rule gives the same rates as if that number had
been asked for from the start.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_unetvnet.settings.train import LearningRateSchedule

__all__ = ["Schedule"]

WARM_UP_STEPS = 10
STAYS = {"linear": 0.7, "poly": 0.2}
"""Share of the steps at the peak before the rate falls."""
POWER = {"linear": 1.0, "poly": 0.9}
RISE, FIRST = 0.3, 1 / 25
"""One cycle: share of the steps that the rate rises, and where it starts."""


@dataclass
class Schedule:
    """How far a training is and how far it goes.

    Parameters
    ----------
    peak : float
        Highest learning rate.
    minutes : float or None
        Time budget; ``steps`` is None until the share of it that the rate stays is over.
    steps : int or None
        Number of steps in all.
    rule : {"linear", "poly", "one_cycle"}
        How the rate falls: on a line over the last 30 %, as (1 - x)^0.9 over the last 80 %; or rising and falling as a
        cosine, which needs a number of steps.
    step : int
        Steps taken.
    seconds : float
        Time spent.
    """

    peak: float
    minutes: float | None
    steps: int | None
    rule: LearningRateSchedule = "linear"
    step: int = 0
    seconds: float = 0.0

    @property
    def over(self) -> bool:
        """Whether all steps are taken."""
        return self.steps is not None and self.step >= self.steps

    @property
    def seconds_left(self) -> float:
        """Estimate of the time left."""
        if self.steps is None:
            return max(0.0, (self.minutes or 0) * 60 - self.seconds)
        return (self.steps - self.step) * self.seconds / max(1, self.step)

    def rate(self) -> float:
        """Learning rate of the next step; fixes the number of steps when it is time.

        Returns
        -------
        float
        """
        if self.rule == "one_cycle":
            return self.peak * _cycle((self.step + 0.5) / (self.steps or 1))
        tenths = round(10 * STAYS[self.rule])
        if self.steps is None and self.step and self.seconds >= tenths * 6 * (self.minutes or 0):
            # The least number whose first tenths, rounded down, are the steps taken so far.
            self.steps = -(-self.step * 10 // tenths)
        warm = min(1.0, (self.step + 1) / WARM_UP_STEPS)
        if self.steps is None or self.step < (stay := self.steps * tenths // 10):
            return self.peak * warm
        left: float = (self.steps - self.step) / (self.steps - stay)
        return self.peak * warm * math.pow(left, POWER[self.rule])


def _cycle(x: float) -> float:
    """Rise as a cosine to 1 at the share RISE of the way and fall to 0."""
    if x < RISE:
        return FIRST + (1 - FIRST) * (1 - math.cos(math.pi * x / RISE)) / 2
    return (1 + math.cos(math.pi * (x - RISE) / (1 - RISE))) / 2
