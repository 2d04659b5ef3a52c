"""A network in its fast layout is the same network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from napari_unetvnet.networks import NETWORKS, build_network
from napari_unetvnet.networks.layout import InstanceNorm, fast_layout


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("affine", [True, False])
def test_instance_norm_is_torchs_and_so_is_its_gradient(dims, batch, affine):
    ours = InstanceNorm(4, affine=affine).double()
    theirs = (nn.InstanceNorm2d if dims == 2 else nn.InstanceNorm3d)(4, affine=affine).double()
    if affine:
        nn.init.normal_(ours.weight)
        nn.init.normal_(ours.bias)
        theirs.load_state_dict(ours.state_dict())
    x = torch.randn(batch, 4, *(5, 6, 7)[:dims], dtype=torch.float64) * 3 + 2
    results = []
    for norm in (ours, theirs):
        given = x.clone().requires_grad_()
        out = norm(given)
        out.square().mul(torch.arange(out.numel()).reshape(out.shape)).sum().backward()
        results.append([out, given.grad, *(p.grad for p in norm.parameters())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("dims", "order"), [(2, torch.channels_last), (3, torch.channels_last_3d)])
@pytest.mark.parametrize("batch", [1, 2])
def test_instance_norm_keeps_the_order_of_its_input(dims, order, batch):
    x = torch.randn(batch, 4, *(5, 6, 7)[:dims]).contiguous(memory_format=order)
    assert InstanceNorm(4)(x).is_contiguous(memory_format=order)


def test_one_voxel_becomes_the_shift():
    norm = InstanceNorm(2)
    nn.init.constant_(norm.bias, 0.25)
    assert (norm(torch.full((1, 2, 1, 1), 1e6)) == 0.25).all()


def test_norms_over_each_channel_are_replaced_and_keep_their_parameters():
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.InstanceNorm2d(4, affine=True), nn.GroupNorm(4, 4))
    parameters = dict(network.named_parameters())
    state = {name: value.clone() for name, value in network.state_dict().items()}
    fast_layout(network, 2)
    assert [type(layer) for layer in network] == [nn.Conv2d, InstanceNorm, InstanceNorm]
    assert all(dict(network.named_parameters())[name] is value for name, value in parameters.items())
    assert all(torch.equal(network.state_dict()[name], value) for name, value in state.items())
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("norm", [nn.GroupNorm(2, 4), nn.LayerNorm(4)])
def test_networks_with_other_norms_stay_as_they_are(norm):
    network = nn.Sequential(nn.Conv2d(2, 4, 3), norm, nn.InstanceNorm2d(4))
    fast_layout(network, 2)
    assert isinstance(network[2], nn.InstanceNorm2d)
    assert network[0].weight.is_contiguous()


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_gives_the_same_logits_in_its_fast_layout(name):
    described = NETWORKS.describe(name)
    dims = described.facts.get("supported_dims", (2, 3))[0]
    option = {"width": 8} if "width" in described.defaults else {}
    torch.manual_seed(0)
    network = build_network(name, dims, 2, 3, option).double().eval()
    x = torch.randn(2, 2, *network.fit([17] * dims), dtype=torch.float64)
    with torch.inference_mode():
        before = network(x)
        after = fast_layout(network, dims)(x)
    torch.testing.assert_close(after, before)
