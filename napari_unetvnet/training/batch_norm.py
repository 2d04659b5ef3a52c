"""Batch norm over the patches of all processes, so that a network learns as it would in one.

torch has it for GPUs only. On CPUs, batch norm takes the statistics of each process's own patches.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from napari_unetvnet.model.wrappers import Wrapper

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["OF_EACH_PROCESS", "SYNCHRONISED", "has_batch_norm", "synchronise"]


OF_EACH_PROCESS = (
    "On CPUs, batch norm takes the statistics of each process's own patches; on GPUs it takes those of all."
)


def has_batch_norm(network: nn.Module) -> bool:
    """Whether statistics of the batch matter to a network.

    Parameters
    ----------
    network : Module

    Returns
    -------
    bool
    """
    return any(isinstance(layer, _BatchNorm) for layer in network.modules())


def synchronise(network: nn.Module) -> Callable[[], None]:
    """Let batch norms take the statistics of all processes.

    Parameters
    ----------
    network : Module
        Changed in place; names and values of its parameters stay.

    Returns
    -------
    callable
        Undoes it.
    """
    undo = ExitStack()
    for parent in network.modules():
        for name, norm in parent.named_children():
            if isinstance(norm, _BatchNorm):
                undo.callback(_put_back, parent, name, norm)
    nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    return undo.close


SYNCHRONISED = Wrapper("synchronised batch norm", synchronise)


def _put_back(parent: nn.Module, name: str, norm: _BatchNorm) -> None:
    """Put a batch norm in the place of the one that was made of it, with the buffers which that one has by now."""
    synchronised = getattr(parent, name)
    norm.train(synchronised.training)
    for buffer, value in synchronised.named_buffers(recurse=False):
        setattr(norm, buffer, value)
    setattr(parent, name, norm)
