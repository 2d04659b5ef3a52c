"""What to do when a step does not fit into memory: the least that helps, told, and never silently.

The rungs: the batch in more and smaller parts whose gradients are summed; on a GPU, what the backward pass needs is
kept in the computer's memory; a smaller patch; the CPU.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from napari_unetvnet.settings import Triple
    from napari_unetvnet.training.run import Run

__all__ = ["Ladder"]


@dataclass
class Ladder:
    """How a step is made to fit.

    Parameters
    ----------
    parts : int
        The batch is computed in so many parts.
    offload : bool
        Whether what the backward pass needs is kept in the computer's memory.
    patch : tuple of 3 int, or None
        A smaller patch than was planned.
    cpu : bool
        Whether the GPU was given up.
    """

    parts: int = 1
    offload: bool = False
    patch: Triple | None = None
    cpu: bool = False

    @property
    def saving(self) -> AbstractContextManager[Any]:
        """Where the forward pass keeps what the backward pass needs."""
        return torch.autograd.graph.save_on_cpu(pin_memory=True) if self.offload else nullcontext()

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
        elif run.model.device.type != "cpu" and not self.offload:
            self.offload = True
            told = "what a step has to remember is now kept in the computer's memory"
        elif (smaller := _smaller(run)) is not None:
            self.patch = smaller
            told = f"patches are now {' x '.join(map(str, smaller))} voxels"
        elif run.model.device.type != "cpu":
            self.cpu, self.offload = True, False
            told = "the training goes on on the CPU"
        else:
            return None
        self._apply(run)
        return f"A step did not fit into the memory of the device; {told}."

    def climb_to(self, run: Run, state: dict[str, Any]) -> None:
        """Go back to the rung of an interrupted run.

        Parameters
        ----------
        run : Run
        state : dict
            The fields, as JSON holds them.
        """
        self.parts, self.offload, self.cpu = state["parts"], state["offload"], state["cpu"]
        patch = state["patch"]
        self.patch = None if patch is None else (patch[0], patch[1], patch[2])
        self._apply(run)

    def _apply(self, run: Run) -> None:
        if self.patch is not None:
            run.model.card = run.model.card.model_copy(update={"patch": self.patch})
        if self.cpu and run.model.device.type != "cpu":
            run.model.move_to(torch.device("cpu"), "fp32")
            for state in run.optimizer.state.values():
                state.update({name: t.cpu() for name, t in state.items() if isinstance(t, torch.Tensor)})


def _smaller(run: Run) -> Triple | None:
    """Halve the longest axes of the patch, to what the network takes; None if it is as small as can be."""
    patch = run.model.card.patch
    longest = max(patch)
    wanted = [max(1, n // 2) if 2 * n > longest and n > 1 else n for n in patch]
    fitting = run.model.fit(wanted)
    return fitting if fitting != patch and max(fitting) < longest else None
