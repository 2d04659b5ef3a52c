"""What every member of the network table must do; a new member is held to it without an edit here.

A case is one property of one network: it goes through 2D and 3D, each beside every other value that the property asks
for, though not beside all of them at once.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec

import pytest
import torch
from combinations import in_one_case, pairs
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from napari_unetvnet.errors import DataProblem, SettingsProblem, UserError
from napari_unetvnet.model.card import ModelCard
from napari_unetvnet.model.model import Model
from napari_unetvnet.networks import NETWORKS, build_network

CPU = torch.device("cpu")
MEMBERS = [
    name for name in NETWORKS if all(find_spec(need) for need in NETWORKS.describe(name).facts.get("requires", ()))
]
DIMS = {name: NETWORKS.describe(name).facts.get("supported_dims", (2, 3)) for name in MEMBERS}
# Shifted windows in 3D take long whatever the width.
CASES = [pytest.param(name, marks=pytest.mark.slow) if name == "swin_unetr" else name for name in MEMBERS]


def every_network(**others):
    """Hold each network to a test: a case a network, with its dimensions and the values of other arguments in pairs."""

    def decorate(test):
        looped = in_one_case(", ".join(("dims", *others)), lambda name: pairs(DIMS[name], *others.values()))
        return pytest.mark.parametrize("name", CASES)(looped(test))

    return decorate


def choices(name):
    """Give the defaults of a member, then every other choice of every option that has some."""
    yield {}
    for option in NETWORKS.describe(name).options:
        for choice in option.choices or ((True, False) if option.kind == "bool" else ()):
            if choice != option.default:
                yield {option.name: choice}


CHEAP = {"width": 2, "groups": 2, "feature_size": 12, "window": 2, "poolings": 2, "latent": 8}
CHEAP |= {"patch_z": 16, "patch_y": 16, "patch_x": 16}


def small_options(name, dims, **chosen):
    """The cheapest options that a member has."""
    wanted = {**CHEAP, "depth": 3 if dims == 2 else 2, **chosen}
    return {key: value for key, value in wanted.items() if key in NETWORKS.describe(name).defaults}


def small(name, dims, in_channels=1, classes=2, seed=0, **chosen):
    torch.manual_seed(seed)
    return build_network(name, dims, in_channels, classes, small_options(name, dims, **chosen)).eval()


def batch(network, size=None, count=1, seed=1, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    size = network.fit(network.smallest) if size is None else size
    return torch.randn(count, network.in_channels, *size, generator=generator, dtype=dtype)


def roomy(network):
    """The patch that a network is built for, or a size above the smallest along one axis, which is no cube."""
    return getattr(network, "patch", None) or network.fit([*network.smallest[:-1], network.smallest[-1] + 4])


def learnt(seen):
    """A loss on everything that training sees of a network."""
    parts = [seen.logits, *seen.auxiliary, *(seen.latent or ())]
    parts += [part for part in (seen.reconstruction, seen.roi) if part is not None]
    return sum(part.square().mean() for part in parts)


def everything(network, x):
    """All that a network gives, to labels and to training."""
    seen = network.training_outputs(x)
    parts = [network(x), network.segmentation_logits(x), seen.logits, *seen.auxiliary, *seen.attention]
    return [*parts, *(seen.latent or ()), *(part for part in (seen.reconstruction, seen.roi) if part is not None)]


def assert_output_fits(network, x, logits):
    assert logits.shape[:2] == (len(x), network.classes)
    for given_voxels, got, (before, after) in zip(x.shape[2:], logits.shape[2:], network.margin, strict=True):
        assert max(1, given_voxels - before - after) <= got <= given_voxels


@every_network(in_channels=[1, 3, 4], classes=[1, 2, 5])
def test_maps_channels_to_classes_at_the_smallest_size(name, dims, in_channels, classes):
    network = small(name, dims, in_channels, classes)
    with torch.no_grad():
        for count in (1, 2):
            x = batch(network, count=count)
            logits = network(x)
            assert_output_fits(network, x, logits)
            assert logits.isfinite().all()


@pytest.mark.parametrize("name", CASES)
@in_one_case("dims, chosen", lambda name: pairs(DIMS[name], choices(name)))
def test_every_choice_of_every_option_builds_and_learns(name, dims, chosen):
    network = small(name, dims, **chosen).train()
    x = batch(network, roomy(network), count=2)
    seen = network.training_outputs(x)
    assert_output_fits(network, x, seen.logits)
    learnt(seen).backward()
    trained = [p for p in network.parameters() if p.requires_grad]  # an option may freeze the others
    assert trained and all(p.grad is not None and p.grad.isfinite().all() for p in trained)
    assert chosen.get("train") == "branch" or len(trained) == len(list(network.parameters()))


@every_network(count=[1, 2], size=[1, 5, 13])
def test_a_model_takes_any_size_and_gives_the_same_size_back(name, dims, count, size):
    network = small(name, dims, 3, 2)
    card = ModelCard(network=name, head="multiclass", view=f"{dims}d", channels=3, values=(0, 1), patch=(1, 8, 8))
    model = Model(network, card, CPU)
    want = (2, size, size + 2) if dims == 2 else (size, size + 2, size + 1)
    block = torch.randn(count, 3, *(n + sum(sides) for n, sides in zip(want, model.margin, strict=True)))
    with torch.no_grad():
        logits = model.logits(block)
    assert logits.shape == (count, 2, *want)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


@every_network()
def test_gradients_reach_every_parameter(name, dims):
    reached, wakes_later = set(), set(NETWORKS.describe(name).facts.get("wakes_later", ()))
    for seed in range(4):  # a rectifier may rest for one draw of weights
        network = small(name, dims, 2, 2, seed=seed, width=4)
        learnt(network.training_outputs(batch(network, roomy(network), count=2, seed=seed))).backward()
        gradients = {key: p.grad for key, p in network.named_parameters()}
        assert all(g is not None and g.isfinite().all() for g in gradients.values())
        reached |= {key for key, g in gradients.items() if g.abs().sum() > 0}
        if set(gradients) - reached == wakes_later:
            break
    assert set(gradients) - reached == wakes_later


@every_network()
def test_one_patch_of_the_smallest_size_trains_or_is_refused_with_a_sentence(name, dims):
    network = small(name, dims).train()
    try:
        network(batch(network)).sum().backward()
    except UserError as problem:
        assert all(line.endswith(".") for line in problem.lines)
    else:
        assert all(p.grad.isfinite().all() for p in network.parameters())


@every_network()
def test_evaluation_is_deterministic_and_training_outputs_hold_the_same_logits(name, dims):
    levels = int(dims == 2)  # the small networks in 3D have no level below the top one
    network = small(name, dims, deep_supervision=levels)
    x = batch(network, roomy(network), count=2)
    with torch.no_grad():
        once, seen = network(x), network.training_outputs(x)
        assert torch.equal(network(x), once)
    assert torch.equal(seen.logits, once)
    assert all(part.shape == once.shape for part in seen.auxiliary)
    if "deep_supervision" in NETWORKS.describe(name).defaults:
        assert len(seen.auxiliary) == levels


@every_network()
def test_patches_of_a_batch_do_not_see_each_other_in_evaluation(name, dims):
    """Neither in what labels are made of nor in what training sees besides."""
    network = small(name, dims).double()
    x = batch(network, roomy(network), count=2, dtype=torch.float64)
    with torch.no_grad():
        both, one = everything(network, x), everything(network, x[1:2])
    assert len(both) == len(one)
    for together, alone in zip(both, one, strict=True):
        torch.testing.assert_close(together[1:2], alone, rtol=1e-9, atol=1e-9)


@every_network(axis=[0, -1])
def test_a_wrong_size_is_refused_with_a_size_that_fits(name, dims, axis):
    network = small(name, dims)
    size = list(network.smallest)
    size[axis] -= 1
    if size[axis] == 0:  # takes a single voxel
        return
    with pytest.raises(DataProblem) as caught:
        network(torch.zeros(1, 1, *size))
    named = [tuple(map(int, match.split(" x "))) for match in re.findall(r"\d+(?: x \d+)+", str(caught.value))]
    assert named[0] == tuple(size)
    with torch.no_grad():
        network(torch.zeros(1, 1, *named[-1]))


@cache
def shared(name, dims):
    return small(name, dims)


@pytest.mark.parametrize("name", MEMBERS)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_fit_is_idempotent_and_never_below_the_size(name, data):
    dims = data.draw(st.sampled_from(DIMS[name]))
    network = shared(name, dims)
    size = data.draw(st.tuples(*[st.integers(1, 600)] * dims))
    fits = network.fit(size)
    assert network.fit(fits) == fits
    assert all(a >= b for a, b in zip(fits, size, strict=True))
    one_more = network.fit([n + 1 for n in size])
    assert all(a >= b for a, b in zip(one_more, fits, strict=True))


@in_one_case("name", MEMBERS)
@in_one_case("dims", lambda name: DIMS[name])
def test_sizes_margins_and_grids_have_an_entry_for_each_axis(name, dims):
    network = small(name, dims)
    assert network.fit(network.smallest) == tuple(network.smallest)
    for entry in (network.divisor, network.alignment, network.smallest, network.margin):
        assert len(entry) == dims
    assert all(before >= 0 and after >= 0 for before, after in network.margin)


@every_network()
def test_weights_that_are_stored_and_loaded_give_the_same_logits(name, dims):
    first, second = small(name, dims, seed=0), small(name, dims, seed=1)
    x = batch(first, roomy(first))
    with torch.no_grad():
        assert not torch.equal(first(x), second(x))
        second.load_state_dict(first.state_dict())
        assert torch.equal(first(x), second(x))


@every_network()
def test_the_same_seed_draws_the_same_weights(name, dims):
    first, second = small(name, dims).state_dict(), small(name, dims).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@every_network()
def test_bf16_autocast_stays_finite(name, dims):
    network = small(name, dims)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert network(100 * batch(network, count=2)).isfinite().all()


@every_network()
def test_works_in_float64(name, dims):
    network = small(name, dims)
    x = batch(network, roomy(network))
    with torch.no_grad():
        single = network(x)
        double = network.double()(x.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double, single.double(), rtol=1e-3, atol=1e-3)


@every_network()
def test_gives_logits_without_an_activation(name, dims):
    network = small(name, dims, 1, 5, width=4).double()
    head_bias = [p for p in network.parameters() if p.shape == (5,)][-1]
    x = batch(network, roomy(network), dtype=torch.float64)
    with torch.no_grad():
        logits = network(x)
        head_bias += 3
        change = network(x) - logits
        step = change.flatten()[0].item()  # 3, or less where the output is a mean of heads
        assert step > 0
        torch.testing.assert_close(change, torch.full_like(change, step), rtol=0, atol=1e-9)
        head_bias -= 3 * (1 + logits.mean().item() / step)
        centred = network(x)
    assert (centred > 0).any()
    assert (centred < 0).any()


@every_network()
def test_weights_are_drawn_by_he_for_rectifiers(name, dims):
    network = small(name, dims, 4, 2, width=32)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Conv3d)]
    first = convolutions[0].weight
    fan_in = first[0].numel()
    assert first.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.1)
    largest = max(convolutions, key=lambda m: m.weight.numel()).weight
    assert largest.std().item() == pytest.approx((2 / largest[0].numel()) ** 0.5, rel=0.1)
    assert abs(first.mean().item()) < 0.1 * first.std().item()
    assert all((m.bias == 0).all() for m in convolutions if m.bias is not None)


# One code builds MONAI's networks in 2D and 3D; in 3D they take long.
@pytest.mark.parametrize("name", MEMBERS)
@in_one_case("dims", lambda name: DIMS[name] if "requires" not in NETWORKS.describe(name).facts else [2])
def test_can_be_exported(name, dims):
    network = small(name, dims)
    x = batch(network)
    exported = torch.export.export(network, (x,)).module()
    with torch.no_grad():
        torch.testing.assert_close(exported(x), network(x))


# To machine code one is compiled where it is used (tests/inference/test_inference_compiled.py); those of other packages
# are traced by their own tests, and take longest.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler's own modules
@pytest.mark.parametrize("name", [name for name in MEMBERS if "requires" not in NETWORKS.describe(name).facts])
def test_can_be_traced_by_the_compiler(name):
    network = small(name, min(DIMS[name]), depth=2)
    x = batch(network)
    compiled = torch.compile(network, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), network(x), rtol=1e-4, atol=1e-4)


@in_one_case("name", MEMBERS)
def test_impossible_dimensions_and_channels_are_refused_with_a_sentence(name):
    for dims, in_channels, classes in ((1, 1, 1), (4, 1, 1), (2, 0, 1), (2, 1, 0)):
        with pytest.raises(SettingsProblem, match=r"\.$"):
            build_network(name, dims, in_channels, classes, small_options(name, 2))
