"""What to do when a step does not fit into memory: the least that helps, told, and never silently.

The rungs: the batch in more and smaller parts whose gradients are summed; what the blocks of the network compute is
computed again instead of being kept; a smaller patch; the CPU. What worked is remembered for the device, and the next
training of the same kind begins there; but not the CPU, since a full GPU may be free again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from napari_unetvnet.model.device import FALLBACK, device_name, recall, remember
from napari_unetvnet.training.recompute import RECOMPUTED

if TYPE_CHECKING:
    from napari_unetvnet.conventions import Triple
    from napari_unetvnet.training.run import Run

__all__ = ["Ladder"]


@dataclass
class Ladder:
    """How a step is made to fit.

    Parameters
    ----------
    parts : int
        The batch is computed in so many parts.
    recompute : bool
        Whether what blocks of the network compute is computed again for the backward pass instead of being kept.
    patch : tuple of 3 int, or None
        A smaller patch than was planned.
    cpu : bool
        Whether the GPU was given up.
    """

    parts: int = 1
    recompute: bool = False
    patch: Triple | None = None
    cpu: bool = False

    def climb(self, run: Run) -> str | None:
        """Take the next rung.

        Parameters
        ----------
        run : Run

        Returns
        -------
        str or None
            What was changed, as a sentence; None if there is nothing left.
        """
        batch = run.settings.batch
        if self.parts < batch:
            self.parts = min(batch, 2 * self.parts)
            told = f"each step now computes its {batch} patches in {self.parts} parts"
        elif not self.recompute:
            self.recompute = True
            told = "what a step would have to remember is now computed twice"
        elif (smaller := run.model.smaller(run.model.card.patch)) is not None:
            self.patch = smaller
            told = f"patches are now {' x '.join(map(str, smaller))} voxels"
        elif run.model.device.type != "cpu":
            self.cpu = True
            told = "the training goes on on the CPU"
        else:
            return None
        self._apply(run)
        return f"A step did not fit into the memory of the device; {told}."

    def worked(self, run: Run) -> None:
        """Remember the rung for the next training of the same kind.

        Parameters
        ----------
        run : Run
        """
        if not self.cpu:
            remember(FALLBACK, _kind(run), asdict(self))

    def begin(self, run: Run) -> str | None:
        """Begin where the last training of the same kind on this device had to go.

        Parameters
        ----------
        run : Run
            That has not taken a step.

        Returns
        -------
        str or None
            What is done, as a sentence; None if nothing is known.
        """
        # Several processes must do the same, and each machine has a memory of its own.
        known = None if run.group.distributed else recall(FALLBACK, _kind(run))
        if not isinstance(known, dict) or set(known) != set(asdict(self)):
            return None
        self.climb_to(run, known | {"parts": max(self.parts, known["parts"])})
        ways = [f"in {self.parts} parts"] + ["computing twice what would have to be remembered"] * self.recompute
        ways += [] if self.patch is None else [f"with patches of {' x '.join(map(str, self.patch))} voxels"]
        return f"Such a step did not fit into the memory of this device before; it begins {', '.join(ways)}."

    def climb_to(self, run: Run, state: dict[str, Any]) -> None:
        """Go back to the rung of an interrupted run.

        Parameters
        ----------
        run : Run
        state : dict
            The fields, as JSON holds them.
        """
        self.parts, self.recompute, self.cpu = state["parts"], state["recompute"], state["cpu"]
        patch = state["patch"]
        self.patch = None if patch is None else (patch[0], patch[1], patch[2])
        self._apply(run)

    def _apply(self, run: Run) -> None:
        if self.recompute:
            run.model.wrappers.add(RECOMPUTED)
        if self.patch is not None:
            run.model.card = run.model.card.model_copy(update={"patch": self.patch})
        if self.cpu and run.model.device.type != "cpu":
            run.model.move_to(torch.device("cpu"), "fp32")
            for state in run.optimizer.state.values():
                state.update({name: t.cpu() for name, t in state.items() if isinstance(t, torch.Tensor)})


def _kind(run: Run) -> str:
    """Say what the memory of a step depends on."""
    settings, model = run.settings, run.model
    parts = (device_name(model.device), model.precision, settings.network, settings.option, settings.view)
    return " | ".join(
        map(str, (*parts, settings.batch, settings.planned_patch, run.data.channels, len(run.data.classes)))
    )
