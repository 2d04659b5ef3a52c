"""The exponential moving average (EMA) of a network's weights, less noisy than the weights themselves."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from napari_unetvnet.model.model import Model
    from napari_unetvnet.networks.base import SegmentationNetwork

    Tensors = tuple[Tensor, ...] | list[Tensor]

__all__ = ["ema_of", "ema_weights"]


def ema_of(network: nn.Module, decay: float, steps: int = 0) -> AveragedModel | None:
    """Start the EMA of a network's weights and running statistics.

    Parameters
    ----------
    network : Module
        Its present weights are those of step 0.
    decay : float
        Weight of the EMA in each update, 0 for no EMA. Smaller in the first steps, so that the EMA soon forgets the
        initial weights.
    steps : int
        Steps that the present weights have been trained for: after many, they are not to be forgotten.

    Returns
    -------
    AveragedModel or None
        None if the decay is 0.
    """
    if not decay:
        return None

    def update(averaged: Tensors, current: Tensors, steps: Tensor | int) -> None:
        if averaged[0].is_floating_point():
            share = min(decay, (1 + int(steps)) / (10 + int(steps)))
            get_ema_multi_avg_fn(share)(averaged, current, steps)  # type: ignore[no-untyped-call]
        else:  # counters of batch norm: torch would average and round them
            for counter, present in zip(averaged, current, strict=True):
                counter.copy_(present)

    ema = AveragedModel(network, multi_avg_fn=update, use_buffers=True)
    # At 0, the first update would replace the initial weights by those after step 1.
    ema.n_averaged.fill_(1 + steps)
    return ema


@contextmanager
def ema_weights(model: Model, ema: AveragedModel | None) -> Iterator[None]:
    """Use the EMA of the weights in a model.

    Parameters
    ----------
    ema : AveragedModel or None
        Of the model's network; None for the weights themselves.

    Yields
    ------
    None
    """
    network = model.network
    if ema is not None:
        model.network = cast("SegmentationNetwork", ema.module)  # with the same memory layout; nothing is copied
    try:
        yield
    finally:
        model.network = network
