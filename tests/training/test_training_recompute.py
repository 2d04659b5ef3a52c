"""Blocks that are computed twice: the same gradients and statistics for less memory."""

from __future__ import annotations

import pytest
import torch

from napari_unetvnet.networks import NETWORKS, build_network
from napari_unetvnet.networks.layout import fast_layout
from napari_unetvnet.training.recompute import blocks, recompute

NARROW = {"segresnet_vae": 8, "segresnet": 8, "swin_unetr": 12}
TOO_LARGE = {"fine_grained_unet"}


def learnt(network, x):
    """Take one step's gradients; give them with the running statistics and the bytes that were kept for them."""
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor.detach()  # else the graph would refer to itself and never be freed

    torch.manual_seed(1)  # dropout
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = network.training_outputs(x)
    size = sum(kept.values())
    outputs.logits.square().mean().backward()
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    return gradients, dict(network.named_buffers()), size


@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in TOO_LARGE])
def test_gradients_and_statistics_are_the_same_for_less_memory(name):
    facts = NETWORKS.describe(name)
    dims = 2 if 2 in facts.facts.get("supported_dims", (2, 3)) else 3
    option = {"width": NARROW.get(name, 4)} if "width" in facts.defaults else {}
    made = []
    for twice in (False, True):
        torch.manual_seed(0)
        network = build_network(name, dims, 1, 2, option).train()
        fast_layout(network, dims)
        size = network.fit([max(64 if dims == 2 else 32, n) for n in network.smallest])
        if twice:
            assert blocks(network)
            recompute(network)
        made.append(learnt(network, torch.randn(2, 1, *size, generator=torch.Generator().manual_seed(0))))
    (plain, statistics, much), (again, others, less) = made
    assert plain.keys() == again.keys()
    assert all(torch.equal(plain[name], again[name]) for name in plain)
    assert all(torch.equal(statistics[name], others[name]) for name in statistics)
    assert less < 0.8 * much


def test_blocks_are_not_inside_each_other_and_evaluation_is_as_ever():
    network = build_network("unet_padding", 2, 1, 2, {"width": 4, "depth": 3}).eval()
    inside = [part for block in blocks(network) for part in block.modules()]
    assert len(inside) == len(set(map(id, inside)))
    x = torch.randn(1, 1, 16, 16)
    before = network(x)
    recompute(network)
    assert torch.equal(network(x), before)
    assert list(network.state_dict()) == list(
        build_network("unet_padding", 2, 1, 2, {"width": 4, "depth": 3}).state_dict()
    )
