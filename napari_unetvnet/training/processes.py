"""Several processes that train one model together, as torchrun starts them.

Each is told by the environment which one it is. All do the same steps, each with its share of the patches; the first
one alone writes files, takes the time and is asked to stop, and the others do what it decides. What they tell each
other besides gradients goes by gloo, so that a process which has ended is noticed at once also where GPUs compute.

A process alone is a team of one, for which everything here gives back what it was given.
"""

from __future__ import annotations

import gc
import os
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from napari_unetvnet.errors import RunProblem, SettingsProblem

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from napari_unetvnet.settings import ComputeSettings

__all__ = ["ALONE", "Team", "from_environment"]

PATIENCE = timedelta(days=1)
"""The others wait while the first one scores, saves and shows."""
LOST = ("gloo", "nccl", "connection closed", "connection reset", "connection refused", "broken pipe")
"""Words by which torch says that another process has gone."""


@dataclass(frozen=True)
class Team:
    """The processes that work together, and which of them this one is.

    Parameters
    ----------
    rank : int
        From 0.
    size : int
        How many there are.
    local : int
        As `rank`, but on this machine.
    """

    rank: int = 0
    size: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.size > 1

    @property
    def label(self) -> str:
        """What stands before a line that this process complains with; nothing if it is alone."""
        return f"[process {self.rank + 1} of {self.size}] " if self.several else ""

    @contextmanager
    def joined(self, settings: ComputeSettings) -> Iterator[None]:
        """Work together: wait for all at the beginning and, unless something failed, at the end.

        Parameters
        ----------
        settings : ComputeSettings
            Say whether to compute on CPUs, or each process on a GPU of its own.

        Yields
        ------
        None

        Raises
        ------
        SettingsProblem
            If there are fewer GPUs than processes.
        """
        if not self.several:
            yield
            return
        from torch import distributed

        distributed.init_process_group(self._backend(settings), timeout=PATIENCE)
        yield
        self.wait()
        gc.collect()  # what still holds the group, whose threads would otherwise outlive Python and abort the process
        distributed.destroy_process_group()

    def _backend(self, settings: ComputeSettings) -> str:
        import torch

        from napari_unetvnet.model.device import choose_device

        if choose_device(settings)[0].type == "cpu":
            return "gloo"
        if self.local >= (count := torch.cuda.device_count()):
            raise SettingsProblem(
                f"Each process wants a GPU of its own, but this machine shows {count}; start at most so many, or "
                "choose device cpu."
            )
        torch.cuda.set_device(self.local)
        return "cpu:gloo,cuda:nccl"

    def share(self, count: int) -> slice:
        """Give which of so many things are this process's; shares differ by one at most.

        Parameters
        ----------
        count : int

        Returns
        -------
        slice
        """
        each, more = divmod(count, self.size)
        first = self.rank * each + min(self.rank, more)
        return slice(first, first + each + (self.rank < more))

    def wait(self) -> None:
        """Go on when all have come here."""
        if not self.several:
            return
        import torch
        from torch import distributed

        distributed.all_reduce(torch.zeros(1))

    def agreed(self, value: float) -> float:
        """Give the first process's value.

        Parameters
        ----------
        value : float or bool

        Returns
        -------
        float
        """
        if not self.several:
            return value
        import torch
        from torch import distributed

        told = torch.tensor(float(value), dtype=torch.float64)
        distributed.broadcast(told, 0)
        return told.item()

    def summed(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Add up the numbers of all.

        Parameters
        ----------
        values : array of float64, any shape

        Returns
        -------
        array of float64
        """
        if not self.several:
            return values
        import torch
        from torch import distributed

        told = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(told)
        total: NDArray[np.float64] = told.numpy()
        return total

    def gathered(self, own: Tensor, count: int) -> Tensor:
        """Put the shares of a batch together again.

        Parameters
        ----------
        own : Tensor of shape (n, ...)
            This process's, with a gradient if it has one; those of the others have none.
        count : int
            Patches of the whole batch. A patch may be several rows, in all processes as many.

        Returns
        -------
        Tensor of shape (B, ...)
        """
        if not self.several:
            return own
        import torch
        from torch import distributed

        parts = []
        for rank in range(self.size):
            if rank == self.rank:
                distributed.broadcast(own.detach().contiguous(), rank)
                parts.append(own)
                continue
            rows = len(own) * _length(Team(rank, self.size).share(count)) // _length(self.share(count))
            part = own.new_empty((rows, *own.shape[1:]))
            distributed.broadcast(part, rank)
            parts.append(part)
        return torch.cat(parts)

    def loss_of(self, error: RuntimeError) -> RunProblem | None:
        """Say in a sentence that another process has gone, if an error means that.

        Parameters
        ----------
        error : RuntimeError

        Returns
        -------
        RunProblem or None
        """
        if not self.several or not any(word in str(error).lower() for word in LOST):
            return None
        return RunProblem(
            "Another process of this training has ended; if it was not killed, it says why. What was reached is kept; "
            "go on with --resume."
        )


ALONE = Team()


def _length(share: slice) -> int:
    return int(share.stop - share.start)


def from_environment() -> Team:
    """Read what torchrun tells a process that it starts.

    Returns
    -------
    Team
        Of one where there is no torchrun.
    """
    told = [os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")]
    return Team(*(int(number) for number in told if number)) if all(told) else ALONE
