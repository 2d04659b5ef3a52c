"""Activation checkpointing: less memory for more time, as blocks are recomputed in the backward pass.

Only the input of a block is stored. The second pass repeats the first one exactly, dropout included, so the gradients
are the same; the running statistics of batch norm are updated only once.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from napari_unetvnet.model.wrappers import Wrapper, replace_forward

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

__all__ = ["RECOMPUTED", "blocks", "recompute"]

LAYERS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)


def recompute(network: nn.Module) -> Callable[[], None]:
    """Store only the inputs of the blocks of a network during training.

    Parameters
    ----------
    network : Module
        Changed in place; its weights, their names and its outputs stay the same.

    Returns
    -------
    callable
        Undoes it.
    """
    undo = ExitStack()
    for block in blocks(network):
        undo.callback(replace_forward(block, partial(_checkpointed, block, block.forward)))
    return undo.close


RECOMPUTED = Wrapper("recomputed blocks", recompute)


def blocks(network: nn.Module) -> list[nn.Module]:
    """Find the smallest modules with two or more layers with weights.

    Returns
    -------
    list of Module
        Not nested, without the network itself.
    """
    smallest: list[nn.Module] = []
    for child in network.children():
        inside = blocks(child)
        container = isinstance(child, nn.ModuleList | nn.ModuleDict)  # without a forward pass
        is_block = not inside and not container and sum(isinstance(layer, LAYERS) for layer in child.modules()) > 1
        smallest += [child] if is_block else inside
    return smallest


def _checkpointed(block: nn.Module, forward: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
    """Run a block; if there will be a backward pass, store only its input."""
    if not (block.training and torch.is_grad_enabled()):
        return forward(*inputs, **options)
    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=partial(_passes, block), **options)


def _passes(block: nn.Module) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """Give the contexts of the first and the second pass."""
    return nullcontext(), _frozen_statistics(block)


@contextmanager
def _frozen_statistics(block: nn.Module) -> Iterator[None]:
    """Prevent batch norm from updating its running statistics a second time."""
    norms = [layer for layer in block.modules() if isinstance(layer, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked -= 1
