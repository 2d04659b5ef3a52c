"""A network in its fast layout is the same network."""

from __future__ import annotations

import itertools

import pytest
import torch
from combinations import in_one_case, pairs
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from napari_unetvnet.networks import NETWORKS, build_network
from napari_unetvnet.networks.layout import InstanceNorm, fast_layout


@in_one_case("dims, batch, affine", pairs([2, 3], [1, 3], [True, False]))
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


@in_one_case("dims, batch", pairs([2, 3], [1, 2]))
def test_instance_norm_keeps_the_order_of_its_input(dims, batch):
    order = {2: torch.channels_last, 3: torch.channels_last_3d}[dims]
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
    assert isinstance(network[0], nn.Conv2d)
    assert [type(layer) for layer in network[1:]] == [InstanceNorm, InstanceNorm]
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
    small = {"width": 8, "depth": 3, "poolings": 2, "feature_size": 12, "window": 2}
    option = {key: value for key, value in small.items() if key in described.defaults}
    torch.manual_seed(0)
    network = build_network(name, dims, 2, 3, option).double().eval()
    x = torch.randn(2, 2, *network.fit([17] * dims), dtype=torch.float64)
    with torch.inference_mode():
        before = network(x)
        fast_layout(network, dims)
        after = network(x)
    torch.testing.assert_close(after, before)


def poison():
    """Leave numbers that are none in the memory that comes next."""
    for kind in (torch.float32, torch.bfloat16):
        junk = [torch.full((size,), float("nan"), dtype=kind) for size in (500, 2000, 5000, 20_000, 100_000) * 4]
        del junk


@in_one_case("dims, stride, transposed", pairs([2, 3], [1, 2], [False, True]))
def test_gradients_in_bf16_are_right_however_small_the_input(dims, stride, transposed):
    kinds = {(2, False): nn.Conv2d, (3, False): nn.Conv3d, (2, True): nn.ConvTranspose2d, (3, True): nn.ConvTranspose3d}
    for size in itertools.product((1, 2, 5), repeat=dims):
        torch.manual_seed(0)
        convolution = kinds[dims, transposed](8, 16, 3, stride, padding=1)
        network = nn.Sequential(convolution)
        fast_layout(network, dims)
        x = torch.randn(2, 8, *size)
        gradients = []
        for half in (False, True):
            network.zero_grad()
            poison()
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                out = network(x)
            poison()
            (out.float() * torch.linspace(-1, 1, out.numel()).reshape(out.shape)).sum().backward()
            gradients.append(convolution.weight.grad.float())
        torch.testing.assert_close(gradients[1], gradients[0], rtol=0.1, atol=0.05 * gradients[0].abs().max().item())


def test_large_convolutions_are_computed_in_bf16_all_the_same():
    network = nn.Sequential(nn.Conv2d(1, 2, 3))
    fast_layout(network, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert network(torch.zeros(1, 1, 8, 8)).dtype == torch.bfloat16
        assert network(torch.zeros(1, 1, 3, 8)).dtype == torch.float32


class Strides(TorchDispatchMode):
    """Notes the stride of every convolution that torch computes."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.convolution.default:
            self.seen.append(list(args[3]))
        return function(*args, **(kwargs or {}))


@in_one_case("dims, channels", pairs([2, 3], [1, 4, 7]))
def test_narrow_strided_convolutions_of_one_voxel_are_computed_without_a_stride(dims, channels):
    kind = nn.Conv2d if dims == 2 else nn.Conv3d
    convolution = kind(channels, 8, 1, 2)
    network = nn.Sequential(convolution).double()  # sums of thousands of terms differ by their order in float32
    x = torch.randn(2, channels, *(15, 16, 9)[:dims], dtype=torch.float64, requires_grad=True)
    results = []
    for _ in range(2):
        out = network(x)
        results.append([out, *torch.autograd.grad(out.square().sum(), [x, *network.parameters()])])
        fast_layout(network, dims)
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)
    with Strides() as strides:
        network(x)
    assert strides.seen == [[1] * dims]
