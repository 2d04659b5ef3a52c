"""The moving average of a network's weights, which is steadier than the weights themselves."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

__all__ = ["Average"]


class Average:
    """Exponential moving average of weights and running statistics.

    Parameters
    ----------
    network : Module
    decay : float
        Share of the old average that stays at a step, 0 for no average at all. In the first steps less of it stays, so
        that the average does not remember how the network began.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network, self.decay = network, decay
        self.tensors: dict[str, Tensor] = {}
        if decay:
            self.tensors = {name: t.detach().clone() for name, t in network.state_dict().items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the present weights in.

        Parameters
        ----------
        step : int
            Steps taken.
        """
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, tensor in self.network.state_dict().items() if self.tensors else ():
            if tensor.is_floating_point():
                self.tensors[name].lerp_(tensor, 1 - decay)
            else:
                self.tensors[name].copy_(tensor)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Put the average into the network for a while.

        Yields
        ------
        None
        """
        if not self.tensors:
            yield
            return
        own = {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}
        self.network.load_state_dict(self.tensors)
        try:
            yield
        finally:
            self.network.load_state_dict(own)
