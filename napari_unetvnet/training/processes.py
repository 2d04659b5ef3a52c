"""Distributed training in several processes, as torchrun starts them.

Each process reads its rank from the environment. All take the same steps, each with its share of the patches. Rank 0
writes the files, measures the time and decides when to stop; the others follow. Messages other than gradients go
through gloo, on GPUs, too, so that a process that has ended is noticed at once.

A single process is a group of size one, for which every operation here returns its input.
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
    from collections.abc import Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from napari_unetvnet.settings import ComputeSettings

__all__ = ["SINGLE", "ProcessGroup", "from_environment"]

TIMEOUT = timedelta(days=1)
"""The others wait while rank 0 saves and previews."""
LOST = ("gloo", "nccl", "connection closed", "connection reset", "connection refused", "broken pipe")
"""Parts of torch's messages when another process has ended."""


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that train together, and the rank of this one.

    Parameters
    ----------
    rank : int
        From 0.
    size : int
        Number of processes.
    local : int
        Rank among the processes of this machine.
    """

    rank: int = 0
    size: int = 1
    local: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which writes the files."""
        return self.rank == 0

    @property
    def distributed(self) -> bool:
        """Whether there are other processes."""
        return self.size > 1

    @property
    def label(self) -> str:
        """Prefix of the lines that this process prints; empty for a single process."""
        return f"[process {self.rank + 1} of {self.size}] " if self.distributed else ""

    @contextmanager
    def joined(self, settings: ComputeSettings) -> Iterator[None]:
        """Connect the processes; wait for all at the start and, without an error, at the end.

        Parameters
        ----------
        settings : ComputeSettings
            The device: CPUs, or one GPU for each process.

        Yields
        ------
        None

        Raises
        ------
        SettingsProblem
            If there are fewer GPUs than processes.
        """
        if not self.distributed:
            yield
            return
        from torch import distributed

        distributed.init_process_group(self._backend(settings), timeout=TIMEOUT)
        yield
        self.barrier()
        gc.collect()  # references to the group would keep its threads alive after Python, which aborts the process
        distributed.destroy_process_group()

    def _backend(self, settings: ComputeSettings) -> str:
        import torch

        from napari_unetvnet.model.device import choose_device

        if choose_device(settings)[0].type == "cpu":
            return "gloo"
        if self.local >= (count := torch.cuda.device_count()):
            raise SettingsProblem(
                f"Each process needs one GPU, but this machine has {count}; start at most {count} processes, or "
                "choose device cpu."
            )
        torch.cuda.set_device(self.local)
        return "cpu:gloo,cuda:nccl"

    def share(self, count: int) -> slice:
        """Give the share of this process in a number of items; shares differ by at most one."""
        share, remainder = divmod(count, self.size)
        start = self.rank * share + min(self.rank, remainder)
        return slice(start, start + share + (self.rank < remainder))

    def barrier(self) -> None:
        """Wait for all processes."""
        if not self.distributed:
            return
        import torch
        from torch import distributed

        distributed.all_reduce(torch.zeros(1))

    def broadcast(self, value: float) -> float:
        """Give all processes the value of rank 0."""
        if not self.distributed:
            return value
        import torch
        from torch import distributed

        shared = torch.tensor(float(value), dtype=torch.float64)
        distributed.broadcast(shared, 0)
        return shared.item()

    def broadcast_tensors(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with those of rank 0.

        Parameters
        ----------
        tensors : iterable of Tensor
            The same number of the same shapes in all processes, changed in place.
        """
        if not self.distributed:
            return
        from torch import distributed

        for tensor in tensors:
            shared = tensor.detach().contiguous()
            distributed.broadcast(shared, 0)
            tensor.copy_(shared)

    def sum(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum numbers over all processes.

        Parameters
        ----------
        values : array of float64, any shape

        Returns
        -------
        array of float64
        """
        if not self.distributed:
            return values
        import torch
        from torch import distributed

        reduced = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(reduced)
        total: NDArray[np.float64] = reduced.numpy()
        return total

    def gather(self, tensor: Tensor, count: int) -> Tensor:
        """Concatenate the shares of a batch.

        Parameters
        ----------
        tensor : Tensor of shape (n, ...)
            Share of this process. Only this share keeps its gradient.
        count : int
            Patches of the whole batch. A patch may have several rows, the same number in all processes.

        Returns
        -------
        Tensor of shape (B, ...)
        """
        if not self.distributed:
            return tensor
        import torch
        from torch import distributed

        parts = []
        for rank in range(self.size):
            if rank == self.rank:
                distributed.broadcast(tensor.detach().contiguous(), rank)
                parts.append(tensor)
                continue
            rows = len(tensor) * _length(ProcessGroup(rank, self.size).share(count)) // _length(self.share(count))
            part = tensor.new_empty((rows, *tensor.shape[1:]))
            distributed.broadcast(part, rank)
            parts.append(part)
        return torch.cat(parts)

    def lost_process(self, error: RuntimeError) -> RunProblem | None:
        """Explain an error that means that another process has ended.

        Returns
        -------
        RunProblem or None
        """
        if not self.distributed or not any(word in str(error).lower() for word in LOST):
            return None
        return RunProblem(
            "Another process of this training has ended; unless it was killed, it printed the reason. Progress is "
            "saved; continue with --resume."
        )


SINGLE = ProcessGroup()


def _length(share: slice) -> int:
    return int(share.stop - share.start)


def from_environment() -> ProcessGroup:
    """Read rank and size from the environment of torchrun.

    Returns
    -------
    ProcessGroup
        `SINGLE` without torchrun.
    """
    values = [os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")]
    return ProcessGroup(*(int(value) for value in values if value)) if all(values) else SINGLE
