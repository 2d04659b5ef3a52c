"""Where a new network starts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_unetvnet.networks import build_network
from napari_unetvnet.training.initial import begin_at, initial_logits

MANY = ("unet_padding", "unetpp", "unet3d_ds", "unet25d", "vnet2d", "backboned_unet")


@pytest.mark.parametrize("name", MANY)
def test_the_bias_of_the_last_layer_sets_what_a_network_starts_with(name):
    torch.manual_seed(0)
    dims = 3 if name in ("unet3d_ds", "unet25d") else 2
    network = build_network(name, dims, 1, 3, {"width": 4}).eval()
    image = torch.zeros(1, 1, *network.fit([max(8, n) for n in network.smallest]))
    with torch.no_grad():
        before = network(image)
        assert begin_at(network, torch.tensor([3.0, -5.0, 0.0]))
        change = network(image) - before
    expected = torch.tensor([3.0, -5.0, 0.0]).view(1, 3, *(1,) * dims).expand_as(change)
    torch.testing.assert_close(change, expected, atol=1e-4, rtol=1e-4)


def test_logits_are_those_of_the_frequencies():
    # 90 of 100 voxels are background, 10 a line with three blurred copies, none is of the third class.
    sigmoids = initial_logits([90, 10, 0], [100, 100, 100], (), "multilabel", lines=(1,))
    expected = [np.log(9), *[-np.log(9)] * 4, np.log(1e-4 / (1 - 1e-4))]
    np.testing.assert_allclose(sigmoids, expected, rtol=1e-5)
    np.testing.assert_allclose(initial_logits([90, 10], [100, 100], (), "multiclass").exp(), [0.9, 0.1], rtol=1e-5)
    np.testing.assert_allclose(initial_logits([90, 10], [100], (1.0, 3.0), "binary"), [np.log(1 / 3)], rtol=1e-5)
