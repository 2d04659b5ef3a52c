"""Let a new network begin with the frequencies of the classes as its probabilities.

A new network gives each class about the same probability, so where a class is rare, such as a line one voxel wide, most of
a short training goes into making it rare. With the bias of its last layer set, that is done before the first step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from napari_unetvnet.networks.base import SegmentationNetwork

__all__ = ["begin_at_frequencies"]

LEAST = 1e-4
"""No class is taken to be rarer, or more frequent than all but this."""
SMALL = 8
"""Edge length of the input that the last layer is found with, voxels, if the network takes it."""


def begin_at_frequencies(network: SegmentationNetwork, frequencies: Sequence[float]) -> bool:
    """Set the bias of the last layer so that each output is, apart from what the input adds, a frequency.

    Parameters
    ----------
    network : SegmentationNetwork
        Changed in place.
    frequencies : sequence of float
        Fraction of the voxels in each class, one for each sigmoid.

    Returns
    -------
    bool
        Whether the network has such a bias; otherwise it stays as it is.
    """
    bias = _output_bias(network)
    if bias is None:
        return False
    with torch.no_grad():
        bias.copy_(torch.tensor(frequencies).clamp(LEAST, 1 - LEAST).logit())
    return True


def _output_bias(network: SegmentationNetwork) -> nn.Parameter | None:
    """Find the parameter that is added to the logits of each class."""
    named = reversed(list(network.named_parameters()))
    candidates = [each for name, each in named if name.endswith("bias") and each.shape == (network.classes,)]
    size = network.fit([max(SMALL, least) for least in network.smallest])
    training = network.training
    network.eval()
    with torch.no_grad():
        for bias in candidates:
            image = torch.zeros(1, network.in_channels, *size, device=bias.device)
            before, step = network(image), torch.arange(1.0, network.classes + 1, device=bias.device)
            bias += step
            change = network(image) - before
            bias -= step
            if torch.allclose(change, step.view(1, -1, *(1,) * network.dims).expand_as(change), atol=1e-3):
                network.train(training)
                return bias
    network.train(training)
    return None
