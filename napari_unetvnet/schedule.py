"""How fast and how long to learn.

The learning rate warms up, stays, and falls to 0 over the last 30 % of the steps. A time budget fixes the number of
steps when 70 % of the time is over, at which point the same rule gives the same rates as if that number had been asked
for from the start.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Schedule"]

WARM_UP_STEPS = 10


@dataclass
class Schedule:
    """How far a training is and how far it goes.

    Parameters
    ----------
    peak : float
        Highest learning rate.
    minutes : float or None
        Time budget; ``steps`` is None until 70 % of it is over.
    steps : int or None
        Number of steps in all.
    step : int
        Steps taken.
    seconds : float
        Time spent.
    """

    peak: float
    minutes: float | None
    steps: int | None
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
        """Learning rate of the next step; fixes the number of steps when 70 % of a time budget is over.

        Returns
        -------
        float
        """
        if self.steps is None and self.step and self.seconds >= 0.7 * 60 * (self.minutes or 0):
            # The least number whose first 70 %, rounded down, are the steps taken so far.
            self.steps = -(-self.step * 10 // 7)
        warm = min(1.0, (self.step + 1) / WARM_UP_STEPS)
        if self.steps is None or self.step < (stay := self.steps * 7 // 10):
            return self.peak * warm
        return self.peak * warm * (self.steps - self.step) / (self.steps - stay)
