"""Less memory for more time: what a block of layers computes is not kept for the backward pass but computed again.

Only the input of a block is kept. The second pass has the same numbers as the first, dropout included, so the gradients
are the same; the running statistics of batch norm are updated once.
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
    """Have a network keep only the inputs of its blocks while it is trained.

    Parameters
    ----------
    network : Module
        Changed in place; its weights and their names stay, and so does what it computes.

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
    """Find the smallest parts of a network that have several layers with weights.

    Parameters
    ----------
    network : Module

    Returns
    -------
    list of Module
        None of them inside another; without the network itself.
    """
    smallest: list[nn.Module] = []
    for child in network.children():
        inside = blocks(child)
        listing = isinstance(child, nn.ModuleList | nn.ModuleDict)  # they have no forward pass of their own
        alone = not inside and not listing and sum(isinstance(layer, LAYERS) for layer in child.modules()) > 1
        smallest += [child] if alone else inside
    return smallest


def _checkpointed(block: nn.Module, forward: Callable[..., Any], *inputs: Any, **further: Any) -> Any:
    """Run a block, and where there will be a backward pass keep its input only."""
    if not (block.training and torch.is_grad_enabled()):
        return forward(*inputs, **further)
    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=partial(_passes, block), **further)


def _passes(block: nn.Module) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """Give what surrounds the first and the second pass."""
    return nullcontext(), _statistics_stay(block)


@contextmanager
def _statistics_stay(block: nn.Module) -> Iterator[None]:
    """Keep batch norm from updating its running statistics twice for one batch."""
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
