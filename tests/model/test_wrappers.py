"""What is wrapped around a network changes how it computes, not what, and comes off without a trace."""

from __future__ import annotations

from functools import partial
from itertools import permutations

import pytest
import torch
from torch import nn

from napari_unetvnet.inference.compiled import COMPILED, _compile_forward
from napari_unetvnet.model.card import ModelCard
from napari_unetvnet.model.model import build_model
from napari_unetvnet.model.wrappers import ORDER, Wrapper, Wrappers, replace_forward
from napari_unetvnet.networks import build_network
from napari_unetvnet.networks.layout import fast_layout
from napari_unetvnet.settings import SegmentSettings
from napari_unetvnet.training.batch_norm import SYNCHRONISED
from napari_unetvnet.training.recompute import RECOMPUTED

EAGER = Wrapper(COMPILED, partial(_compile_forward, mode=None))
NETWORKS = {
    "batch norm": ("unet_padding", {"width": 4, "depth": 2}),
    "instance norm": ("unet3d_ds", {"width": 4, "depth": 2}),
}


@pytest.fixture(autouse=True)
def eager(monkeypatch):
    """Compile without a compiler: the pass is called as it is written, but through another function."""
    monkeypatch.setattr(torch, "compile", lambda forward, **_: lambda x: forward(x))


def all_wrappers(dims):
    layout = Wrapper("memory layout", partial(fast_layout, dims=dims))
    return {wrapper.name: wrapper for wrapper in (layout, SYNCHRONISED, RECOMPUTED, EAGER)}


def made(norm, dims):
    torch.manual_seed(0)
    name, option = NETWORKS[norm]
    return build_network(name, dims, 1, 2, option).train()


def learnt(network, dims):
    """Give the output, the gradients and the state after a training pass, and the output in evaluation mode."""
    x = torch.randn(2, 1, *(8, 16, 16)[-dims:], generator=torch.Generator().manual_seed(1))
    network.zero_grad()
    out = network.train()(x)
    out.square().mean().backward()
    gradients = {
        name: parameter.grad.clone() for name, parameter in network.named_parameters() if parameter.grad is not None
    }
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with torch.inference_mode():
        return out.detach(), gradients, state, network.eval()(x)


def shape_of(network):
    """Give what a wrapper might change: classes, methods of instances, the order of weights."""
    parts = {name: (id(part), type(part), vars(part).get("forward")) for name, part in network.named_modules()}
    return parts, {name: (id(p), p.stride()) for name, p in network.named_parameters()}


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("norm", "dims"), [("batch norm", 2), ("instance norm", 3)])
@pytest.mark.parametrize("pair", [*permutations(ORDER, 2)], ids=" then ".join)
def test_every_pair_computes_what_the_bare_network_does_and_comes_off_without_a_trace(pair, norm, dims):
    bare, network = made(norm, dims), made(norm, dims)
    before = shape_of(network)
    wrappers = Wrappers(network)
    for name in pair:
        wrappers.add(all_wrappers(dims)[name])
    assert wrappers.names == tuple(sorted(pair, key=ORDER.index))
    assert shape_of(network) != before
    assert list(network.state_dict()) == list(bare.state_dict())
    expected = learnt(bare, dims)
    assert_same(learnt(network, dims), expected)
    wrappers.remove(pair[0])
    assert wrappers.names == pair[1:]
    wrappers.remove(pair[1])
    assert shape_of(network) == before
    network.load_state_dict(made(norm, dims).state_dict())
    assert_same(learnt(network, dims), expected)


def test_all_of_them_together_are_undone_from_the_outside():
    network, wrappers = made("batch norm", 2), None
    before = shape_of(network)
    wrappers = Wrappers(network)
    for wrapper in reversed(all_wrappers(2).values()):
        wrappers.add(wrapper)
    assert wrappers.names == ORDER
    assert_same(learnt(network, 2), learnt(made("batch norm", 2), 2))
    for name in ORDER:
        wrappers.remove(name)
    assert wrappers.names == ()
    assert shape_of(network) == before


def test_running_statistics_stay_when_synchronised_batch_norm_comes_off():
    network, bare = made("batch norm", 2), made("batch norm", 2)
    wrappers = Wrappers(network)
    wrappers.add(SYNCHRONISED)
    network.double()  # makes other buffers, as moving to a GPU does
    bare.double()
    x = torch.randn(2, 1, 16, 16, dtype=torch.float64)
    network(x), bare(x)
    wrappers.remove(SYNCHRONISED.name)
    assert all(torch.equal(a, b) for a, b in zip(network.buffers(), bare.buffers(), strict=True))
    assert not any(isinstance(layer, nn.SyncBatchNorm) for layer in network.modules())


def test_once_is_enough_and_what_is_not_there_cannot_come_off():
    network = made("batch norm", 2)
    wrappers = Wrappers(network)
    wrappers.add(RECOMPUTED)
    once = shape_of(network)
    wrappers.add(RECOMPUTED)
    wrappers.remove(COMPILED)
    assert shape_of(network) == once
    assert wrappers.names == (RECOMPUTED.name,)


def test_a_wrapper_that_fails_leaves_the_others_as_they_were():
    def fails(network):
        raise RuntimeError("no compiler")

    network = made("batch norm", 2)
    wrappers = Wrappers(network)
    wrappers.add(EAGER)
    with pytest.raises(RuntimeError, match="no compiler"):
        wrappers.add(Wrapper(RECOMPUTED.name, fails))
    assert wrappers.names == (COMPILED,)
    assert "forward" in vars(network)


def test_a_pass_of_the_modules_own_comes_back():
    module = nn.Identity()
    module.forward = own = lambda x: x + 1
    undo = replace_forward(module, lambda x: x)
    assert module(1) == 1
    undo()
    assert module.forward is own
    assert module(1) == 2


def test_a_model_tells_what_it_is_wrapped_in():
    facts = {"network": "unet_padding", "option": {"width": 2, "depth": 2}, "head": "multiclass", "view": "2d"}
    card = ModelCard(**facts, values=(0, 1), patch=(1, 16, 16))
    model = build_model(card, SegmentSettings(device="cpu", precision="fp32"))
    assert model.wrappers.names == ("memory layout",)
