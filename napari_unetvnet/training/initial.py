"""Let a new network begin with the frequencies of the classes as its probabilities.

A new network gives each class about the same probability, so where a class is rare, such as a line one voxel wide,
most of a short training goes into making it rare. With the bias of its last layer set, that is done before the first
step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from napari_unetvnet.settings import BLURS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from napari_unetvnet.conventions import Head
    from napari_unetvnet.networks.base import SegmentationNetwork

__all__ = ["begin_at", "initial_logits", "output_biases"]

LEAST = 1e-4
"""No class is taken to be rarer, or more frequent than all but this."""
TOLERANCE = 1e-2
"""Rounding of shares."""
SMALL = 8
"""Edge length of the input that the last layer is found with, voxels, if the network takes it."""


def initial_logits(
    counts: Sequence[int], labelled: Sequence[int], weights: Sequence[float], head: Head, lines: Sequence[int] = ()
) -> Tensor:
    """Give the logits of the class frequencies.

    Parameters
    ----------
    counts : sequence of K int
        Voxels of each class.
    labelled : sequence of K int
        Voxels of each class and of all others; of a multilabel head only.
    weights : sequence of float
        Class weights of the loss, for which a weighted voxel is so many voxels; empty for none.
    lines : sequence of int
        Indices of the classes that have blurred copies, which are as frequent as they.

    Returns
    -------
    Tensor of shape (outputs,)
    """
    inside = torch.tensor(counts, dtype=torch.float64)
    outside = torch.tensor(labelled, dtype=torch.float64) - inside
    copies = torch.tensor([1 + BLURS * (index in lines) for index in range(len(counts))])
    if head == "multilabel":
        inside, outside = inside.repeat_interleave(copies), outside.repeat_interleave(copies)
    inside = inside * (torch.tensor(weights) if len(weights) else 1)
    if head == "multilabel":
        return (inside / (inside + outside).clamp_min(1)).clamp(LEAST, 1 - LEAST).logit().float()
    shares = (inside / inside.sum().clamp_min(1)).clamp(LEAST, 1 - LEAST)
    return (shares[1:].logit() if head == "binary" else shares.log()).float()


def begin_at(network: SegmentationNetwork, logits: Tensor) -> bool:
    """Set the bias of the last layer.

    Parameters
    ----------
    network : SegmentationNetwork
        Changed in place.
    logits : Tensor of shape (outputs,)
        What each output is, apart from what the input adds.

    Returns
    -------
    bool
        Whether the network has such a bias; otherwise it stays as it is.
    """
    biases = output_biases(network)
    with torch.no_grad():
        for bias in biases:
            bias.copy_(logits)
    return bool(biases)


def output_biases(network: SegmentationNetwork) -> list[nn.Parameter]:
    """Find the parameter that is added to the logits, or those whose mean is, where several heads are averaged."""
    named = reversed(list(network.named_parameters()))
    candidates = [each for name, each in named if name.endswith("bias") and each.shape == (network.classes,)]
    averaged: list[nn.Parameter] = []
    training, total = network.training, 0.0
    network.eval()
    for bias in candidates:
        share = _share(network, bias)
        if abs(share - 1) < TOLERANCE:
            averaged, total = [bias], 1.0
            break
        if share > TOLERANCE:
            averaged.append(bias)
            total += share
    network.train(training)
    return averaged if abs(total - 1) < TOLERANCE else []


@torch.no_grad()
def _share(network: SegmentationNetwork, bias: nn.Parameter) -> float:
    """Measure what part of a bias is added to the logits of its class everywhere; 0 if it has another effect."""
    size = network.fit([max(SMALL, least) for least in network.smallest])
    image = torch.zeros(1, network.in_channels, *size, device=bias.device)
    step = torch.arange(1.0, network.classes + 1, device=bias.device)
    before = network(image)
    bias.add_(step)
    shares = (network(image) - before).movedim(1, -1) / step
    bias.sub_(step)
    return float(shares.mean()) if float(shares.max() - shares.min()) < TOLERANCE else 0.0
