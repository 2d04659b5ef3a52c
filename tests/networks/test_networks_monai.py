"""MONAI's networks behind the contract: sizes, outputs of one kind, deep supervision, a sentence without MONAI."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
from combinations import in_one_case

from napari_unetvnet.errors import DataProblem, SettingsProblem
from napari_unetvnet.registry import Registry

pytestmark = pytest.mark.skipif(
    find_spec("monai") is None, reason="MONAI is optional; its networks are tested where it is installed"
)

MODULE = "napari_unetvnet.networks.from_monai:"
MEMBERS = Registry(
    "network",
    {
        "dynunet": MODULE + "DynUNet",
        "segresnet": MODULE + "SegResNet",
        "attention_unet": MODULE + "AttentionUNet",
        "swin_unetr": MODULE + "SwinUNETR",
        "basic_unet": MODULE + "BasicUNet",
    },
)
CHEAP = {
    "dynunet": {"width": 4, "poolings": 2},
    "segresnet": {"width": 4, "groups": 2},
    "attention_unet": {"width": 4, "depth": 3},
    "swin_unetr": {"feature_size": 12, "window": 2},
    "basic_unet": {"width": 2},
}
LEVELS = {"dynunet": 1, "segresnet": 2, "attention_unet": 1, "swin_unetr": 4, "basic_unet": 3}
GRID = {"dynunet": 4, "segresnet": 8, "attention_unet": 4, "swin_unetr": 32, "basic_unet": 16}
every_member = pytest.mark.parametrize("name", MEMBERS)
both_dims = in_one_case("dims", [2, 3])


@pytest.fixture(autouse=True)
def skip_without_its_packages(request):
    name = getattr(request.node, "callspec", None) and request.node.callspec.params.get("name")
    if name == "swin_unetr":
        pytest.importorskip("einops", reason="MONAI's Swin UNETR needs einops, which MONAI itself does not require")


def small(name, dims, in_channels=1, classes=2, seed=0, **chosen):
    torch.manual_seed(seed)
    options = MEMBERS.check_options(name, {**CHEAP[name], **chosen})
    return MEMBERS.resolve(name)(dims, in_channels, classes, **options).eval()


def batch(network, size=None, count=1, seed=1):
    size = network.smallest if size is None else size
    return torch.randn(count, network.in_channels, *size, generator=torch.Generator().manual_seed(seed))


def trainable(network):
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


# The number is MONAI 1.6.1's. The table's SegResNetVAE (24,828,439) computes its loss inside and is not wrapped.
@pytest.mark.parametrize(
    ("name", "channels", "options", "parameters"),
    [
        ("segresnet", (4, 3), {}, 18_798_627),
        ("swin_unetr", (1, 2), {}, None),
        ("dynunet", (1, 2), {}, None),
        ("basic_unet", (1, 2), {}, None),
        ("attention_unet", (1, 2), {}, None),
    ],
)
def test_holds_exactly_what_monai_builds(name, channels, options, parameters):
    nets = pytest.importorskip("monai.networks.nets", reason="needs MONAI")
    ours = {
        "segresnet": lambda c, k: nets.SegResNet(3, 32, c, k),
        "swin_unetr": lambda c, k: nets.SwinUNETR(c, k),
        "basic_unet": lambda c, k: nets.BasicUNet(3, c, k),
        "attention_unet": lambda c, k: nets.AttentionUnet(3, c, k, (16, 32, 64, 128, 256), (2, 2, 2, 2)),
        "dynunet": lambda c, k: nets.DynUNet(3, c, k, [3] * 6, [1, 2, 2, 2, 2, 2], [2] * 5),
    }[name]
    network = MEMBERS.resolve(name)(3, *channels, **options)
    assert trainable(network) == trainable(ours(*channels))
    assert parameters is None or trainable(network) == parameters


@every_member
@both_dims
def test_odd_sizes_are_refused_with_a_size_that_fits(name, dims):
    network = small(name, dims)
    assert network.divisor == (GRID[name],) * dims
    odd = tuple(n + 1 + i for i, n in enumerate(network.smallest))
    fits = network.fit(odd)
    assert network.fit(fits) == fits
    assert network.fit((1,) * dims) == network.smallest
    with pytest.raises(DataProblem, match=" x ".join(map(str, fits))):
        network(batch(network, odd))
    with pytest.raises(DataProblem):
        network(batch(network, [n // 2 for n in network.smallest]))


@every_member
@both_dims
def test_gradients_reach_every_parameter(name, dims):
    reached = set()
    for seed in range(4):  # a rectifier may rest for one draw of weights
        network = small(name, dims, 2, seed=seed, deep_supervision=1)
        outputs = network.training_outputs(batch(network, count=2, seed=seed))
        (outputs.logits.square().sum() + outputs.auxiliary[0].square().sum()).backward()
        gradients = {key: p.grad for key, p in network.named_parameters()}
        assert all(g is not None and g.isfinite().all() for g in gradients.values())
        reached |= {key for key, g in gradients.items() if g.abs().sum() > 0}
        if reached == set(gradients):
            return
    assert reached == set(gradients)


@every_member
@both_dims
def test_deep_supervision_gives_full_size_logits_in_training_outputs_only(name, dims):
    plain, network = small(name, dims), small(name, dims, deep_supervision=LEVELS[name])
    added = {key for key, _ in network.named_parameters()} - {key for key, _ in plain.named_parameters()}
    assert len(added) == 2 * LEVELS[name]
    x = batch(network)
    calls = []
    network.auxiliary_heads.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        logits = network(x)
        assert not calls
        outputs = network.training_outputs(x)
    assert torch.equal(outputs.logits, logits)
    assert [tuple(a.shape) for a in outputs.auxiliary] == [tuple(logits.shape)] * LEVELS[name]
    assert not any(module._forward_hooks for module in network.net.modules())


@every_member
def test_deep_supervision_takes_the_finest_levels_first(name):
    network = small(name, 2, deep_supervision=LEVELS[name])
    sizes = []
    for head in network.auxiliary_heads.heads:
        head.register_forward_hook(lambda _, inputs, __: sizes.append(inputs[0].shape[-1]))
    with torch.no_grad():
        x = batch(network)
        network.training_outputs(x)
    assert sizes == [x.shape[-1] // 2 ** (i + 1) for i in range(LEVELS[name])]


def test_attention_maps_are_shares_at_the_size_of_their_level():
    network = small("attention_unet", 3)
    x = batch(network, (8, 12, 16))
    with torch.no_grad():
        outputs = network.training_outputs(x)
    assert [tuple(a.shape) for a in outputs.attention] == [(1, 1, 8, 12, 16), (1, 1, 4, 6, 8)]
    assert all(0 <= a.min() <= a.max() <= 1 for a in outputs.attention)


@every_member
def test_evaluation_is_deterministic_and_dropout_acts_in_training(name):
    options = {} if name == "dynunet" else {"dropout": 0.5}
    network = small(name, 2, **options)
    x = batch(network, count=2)
    with torch.no_grad():
        assert torch.equal(network(x), network(x))
        network.train()
        assert torch.equal(network(x), network(x)) is (not options)


@in_one_case(
    "name, options",
    [
        ("dynunet", {"residual": True, "norm": "batch"}),
        ("segresnet", {"up": "transposed"}),
        ("swin_unetr", {"version_2": True, "window": 7}),
        ("basic_unet", {"up": "trilinear"}),
    ],
)
def test_other_choices_build_and_learn(name, options):
    network = small(name, 2, **options).train()
    network(batch(network, network.fit([n + 1 for n in network.smallest]), count=2)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


IMPOSSIBLE = [
    ("dynunet", {"poolings": 1}),
    ("dynunet", {"width": 0}),
    ("segresnet", {"width": 12, "groups": 8}),
    ("segresnet", {"dropout": 2}),
    ("attention_unet", {"width": 1}),
    ("attention_unet", {"depth": 1}),
    ("attention_unet", {"dropout": -1}),
    ("swin_unetr", {"feature_size": 20}),
    ("swin_unetr", {"window": 0}),
    ("swin_unetr", {"dropout": 2}),
    ("basic_unet", {"width": 0}),
    ("basic_unet", {"dropout": 2}),
    *[(name, {"deep_supervision": LEVELS[name] + 1}) for name in MEMBERS],
    *[(name, {"deep_supervision": -1}) for name in MEMBERS],
]


@every_member
@in_one_case("options", lambda name: [options for other, options in IMPOSSIBLE if other == name])
def test_impossible_options_are_refused_with_a_sentence(name, options):
    with pytest.raises(SettingsProblem, match=r"\.$"):
        small(name, 2, **options)


@every_member
def test_without_monai_a_sentence_says_what_to_install(name, monkeypatch):
    build = MEMBERS.resolve(name)
    for module in [key for key in sys.modules if key == "monai" or key.startswith("monai.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "monai", None)
    with pytest.raises(SettingsProblem, match=r"monai.*pip install monai[a-z ]*\.$"):
        build(2, 1, 1)


def test_without_einops_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "einops", None)
    with pytest.raises(SettingsProblem, match=r"einops.*pip install monai einops\.$"):
        MEMBERS.resolve("swin_unetr")(2, 1, 1)


def test_naming_a_member_does_not_load_monai(tmp_path):
    code = f"import sys; import {MODULE[:-1]}; assert not any(m.startswith('monai') for m in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, cwd=tmp_path)
