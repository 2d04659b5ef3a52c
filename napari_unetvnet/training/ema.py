"""The exponential moving average (EMA) of a network's weights, which is steadier than the weights themselves."""

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

__all__ = ["ema_of", "ema_shown"]


def ema_of(network: nn.Module, decay: float) -> AveragedModel | None:
    """Begin the EMA of a network's weights and running statistics.

    Parameters
    ----------
    network : Module
        Its present weights count as those of step 0.
    decay : float
        Share of the EMA that stays at a step, 0 for no EMA. In the first steps less of it stays, so that the EMA soon
        forgets how the network began.

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
        else:  # counters of batch norm, of which torch would keep a rounded mean
            for counter, present in zip(averaged, current, strict=True):
                counter.copy_(present)

    ema = AveragedModel(network, multi_avg_fn=update, use_buffers=True)
    # At 0, the first update would put the weights after step 1 in place of those before it.
    ema.n_averaged.fill_(1)
    return ema


@contextmanager
def ema_shown(model: Model, ema: AveragedModel | None) -> Iterator[None]:
    """Let a model compute with the EMA of its weights for a while.

    Parameters
    ----------
    model : Model
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
