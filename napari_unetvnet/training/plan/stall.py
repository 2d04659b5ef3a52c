"""Notice early, from the events of a training, that it does not learn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unetvnet.events import EpochDone, StepDone

if TYPE_CHECKING:
    from napari_unetvnet.events import Event

__all__ = ["Watch"]

EARLIEST, LATEST = 0.15, 0.5
"""Fraction of the budget between which a training is given up: before, it had no time, and after, no other one has."""
LEAST_STEPS = 75
FALL, LEAST_DICE = 0.1, 0.05
"""A loss that fell by less of its first value, with a hold-out Dice below this, has not learnt."""
BLIND_SHARE, BLIND_STEPS = 0.3, 250
"""From here on a Dice that low is enough: the loss falls, and nothing is found in what is held out."""


class Watch:
    """Follows the epochs of a training."""

    def __init__(self) -> None:
        self._first, self._best, self._ended = 0.0, 0.0, False
        self._of_parent = 0
        self.reason = ""
        """Why the training does not learn, as part of a sentence; empty as long as it may."""

    def add(self, event: Event) -> bool:
        """Take in an event.

        Returns
        -------
        bool
            Whether the training does not learn.
        """
        if isinstance(event, StepDone):
            self._of_parent = event.first
        if not isinstance(event, EpochDone) or self._ended:
            return False
        self._first = self._first or event.loss
        self._best = max(self._best, event.dice or 0.0)
        share = event.seconds / max(1e-9, event.seconds + event.seconds_left)
        if event.step - self._of_parent >= LEAST_STEPS and EARLIEST <= share <= LATEST:
            self.reason = self._why(event, share)
        return bool(self.reason)

    def ends(self) -> None:
        """Find nothing any more."""
        self._ended = True

    def _why(self, event: EpochDone, share: float) -> str:
        fell, steps = event.loss < (1 - FALL) * self._first, event.step - self._of_parent
        if event.dice is not None and self._best >= LEAST_DICE:
            return ""
        if event.dice is None and self._of_parent:  # the loss of a model that has learnt already need not fall
            return ""
        if not fell:
            return f"after {steps} steps the loss is {event.loss:.3g}, and was {self._first:.3g} at first"
        if event.dice is not None and share >= BLIND_SHARE and steps >= BLIND_STEPS:
            return f"after {steps} steps almost nothing is found in what is held out (Dice {self._best:.3f} at best)"
        return ""
