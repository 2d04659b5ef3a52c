"""Synchronised batch norm: statistics over the patches of all processes, as in a single process.

torch has it for GPUs only. On CPUs, batch norm uses the statistics of the patches of each process.
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
    "On CPUs, batch norm uses the statistics of the patches of each process; on GPUs it uses those of all patches."
)


def has_batch_norm(network: nn.Module) -> bool:
    """Whether a network has batch norm."""
    return any(isinstance(layer, _BatchNorm) for layer in network.modules())


def synchronise(network: nn.Module) -> Callable[[], None]:
    """Synchronise the batch norms of a network over all processes.

    Parameters
    ----------
    network : Module
        Changed in place; the names and values of its parameters stay the same.

    Returns
    -------
    callable
        Undoes it.
    """
    undo = ExitStack()
    for parent in network.modules():
        for name, norm in parent.named_children():
            if isinstance(norm, _BatchNorm):
                undo.callback(_restore, parent, name, norm)
    nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    return undo.close


SYNCHRONISED = Wrapper("synchronised batch norm", synchronise)


def _restore(parent: nn.Module, name: str, norm: _BatchNorm) -> None:
    """Restore a batch norm, with the present buffers of the synchronised one."""
    synchronised = getattr(parent, name)
    norm.train(synchronised.training)
    for buffer, value in synchronised.named_buffers(recurse=False):
        setattr(norm, buffer, value)
    setattr(parent, name, norm)
