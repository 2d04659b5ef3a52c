"""DRIVE U-Net, U-Net++, hypercolumn U-Net and the summed 3D U-Net: counts, wiring, and what supervises them."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from combinations import in_one_case, pairs
from torch import nn
from torch.nn import functional

from napari_unetvnet.errors import DataProblem, SettingsProblem
from napari_unetvnet.networks.layout import InstanceNorm
from napari_unetvnet.networks.unet_drive import zero_pad_to
from napari_unetvnet.registry import Registry

TABLE = Registry(
    "network",
    {
        "unet_drive": "napari_unetvnet.networks.unet_drive:UNetDrive",
        "unetpp": "napari_unetvnet.networks.unetpp:UNetPP",
        "hypercolumn_unet": "napari_unetvnet.networks.hypercolumn_unet:HypercolumnUNet",
        "unet3d_ds": "napari_unetvnet.networks.unet3d_ds:UNet3DDeepSupervision",
    },
)
GENERIC = ["unet_drive", "hypercolumn_unet"]  # with the deep_supervision option; the others supervise by themselves
every_network = pytest.mark.parametrize("name", TABLE)
both_dims = pytest.mark.parametrize("dims", [2, 3])


def build(name, dims, in_channels=1, classes=1, **options):
    return TABLE.resolve(name)(dims, in_channels, classes, **TABLE.check_options(name, options))


def on_paper(name, dims, in_channels=1, classes=1, **options):
    """A network of full width without memory for its weights."""
    with torch.device("meta"):
        return build(name, dims, in_channels, classes, **options).eval()


def small(name, dims, in_channels=1, classes=2, seed=0, **options):
    torch.manual_seed(seed)
    return build(name, dims, in_channels, classes, **{"width": 3, "depth": 3, **options}).eval()


def noise(network, *size, count=1):
    return torch.randn(count, network.in_channels, *size, generator=torch.Generator().manual_seed(1))


def on_meta(*shape):
    return torch.empty(*shape, device="meta")


def trainable(network):
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def calls(network, kinds=(nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
    """Count, from now on, how often each convolution is run, by its name in the network."""
    counted = Counter()
    for name, layer in network.named_modules():
        if isinstance(layer, kinds):
            layer.register_forward_hook(lambda *_, name=name: counted.update([name]))
    return counted


# Every row of the sources for these members; the second number counts batch norm's running statistics too.
COUNTS = [
    ("unet_drive", 2, (3, 2), {}, 4_318_434, None),
    ("unet_drive", 2, (3, 2), {"up": "transposed"}, 7_763_074, None),
    ("unet_drive", 2, (3, 2), {"width": 64}, 17_263_042, None),
    ("unet_drive", 2, (3, 2), {"width": 64, "up": "transposed"}, 31_037_698, None),
    # with linear up-steps the three levels below the top are 32, 64 and 128 wide
    ("unet_drive", 2, (3, 2), {"deep_supervision": 3}, 4_318_434 + 2 * (32 + 64 + 128 + 3), None),
    ("unetpp", 2, (3, 1), {}, 9_042_276, 9_042_276),
    ("unetpp", 2, (3, 1), {"inference": "fast", "branch": 2}, 9_042_276, 9_042_276),
    ("unetpp", 2, (3, 1), {"supervision": False}, 9_042_177, 9_042_177),
    ("unetpp", 2, (3, 1), {"norm": True}, 9_049_572, None),
    ("unetpp", 2, (1, 2), {"norm": True}, 9_049_128, None),
    ("unetpp", 2, (3, 1), {"up": "interpolation"}, 9_156_132, 9_156_132),
    ("hypercolumn_unet", 2, (1, 1), {}, 5_147_073, 5_154_433),
    ("hypercolumn_unet", 2, (3, 1), {}, 5_147_361, 5_154_721),
    ("hypercolumn_unet", 2, (1, 1), {"width": 32}, 20_565_377, None),
    ("hypercolumn_unet", 2, (3, 1), {"width": 32}, 20_565_953, None),
    ("hypercolumn_unet", 2, (1, 1), {"deep_supervision": 2}, 5_147_073 + 32 + 64 + 2, None),
    ("unet3d_ds", 3, (4, 4), {}, 8_269_676, 8_269_676),
    ("unet3d_ds", 3, (4, 3), {}, 8_269_561, 8_269_561),
    ("unet3d_ds", 3, (4, 4), {"supervision": False}, 8_269_676 - 392, 8_269_284),
    ("unet3d_ds", 3, (4, 4), {"norm": "batch"}, 8_269_676, 8_269_676 + 4_416),
    ("unet3d_ds", 3, (4, 4), {"residual": False}, 8_269_676, 8_269_676),
    ("unet3d_ds", 3, (4, 4), {"depth": 4}, 2_056_684, 2_056_684),
    ("unet3d_ds", 3, (4, 4), {"depth": 3}, 502_312, 502_312),
    ("unet3d_ds", 3, (4, 4), {"block": "isensee"}, 8_269_676, 8_269_676),
    ("unet3d_ds", 3, (4, 3), {"block": "isensee"}, 8_269_561, 8_269_561),
]


@every_network
@in_one_case("dims, channels, options, parameters, total", lambda name: [row[1:] for row in COUNTS if row[0] == name])
def test_has_the_published_number_of_parameters(name, dims, channels, options, parameters, total):
    network = on_paper(name, dims, *channels, **options)
    assert trainable(network) == parameters
    assert total is None or parameters + sum(b.numel() for b in network.buffers() if b.ndim) == total


# ---- what every member must do -------------------------------------------------------------------------------------


@every_network
@in_one_case("dims", [2, 3])
def test_gradients_reach_every_parameter_through_what_training_sees(name, dims):
    reached, extra = set(), {"deep_supervision": 1} if name in GENERIC else {"supervision": True}
    for seed in range(3):  # a rectifier may rest for one draw of weights
        network = small(name, dims, 2, 2, seed, **extra).train()
        seen = network.training_outputs(noise(network, *network.fit((5, 8, 5)[:dims]), count=2))
        sum(part.square().mean() for part in (seen.logits, *seen.auxiliary)).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
        reached |= {key for key, p in network.named_parameters() if p.grad.any()}
    assert reached == {key for key, _ in network.named_parameters()}


@every_network
@in_one_case("options", [{"width": 0}, {"depth": 1}])
def test_impossible_widths_and_depths_are_refused(name, options):
    with pytest.raises(SettingsProblem, match=r"not .*\.$"):
        on_paper(name, 2, **options)


@pytest.mark.parametrize("name", ["hypercolumn_unet", "unet3d_ds"])
@in_one_case("rate", [-0.1, 1.5])
def test_impossible_dropout_rates_are_refused(name, rate):
    with pytest.raises(SettingsProblem, match=str(rate)):
        on_paper(name, 2, dropout_rate=rate)


@every_network
def test_a_wrong_size_is_refused_with_one_that_fits(name):
    network = on_paper(name, 2)
    with pytest.raises(DataProblem, match=r"15 x 33 .* 16 x "):
        network(on_meta(1, 1, 15, 33))


@every_network
@in_one_case("dims", [2, 3])
def test_a_patch_with_one_voxel_at_the_bottom_trains_or_is_refused_with_a_sentence(name, dims):
    network = small(name, dims).train()
    x = noise(network, *network.smallest)
    if name == "unetpp":  # no norm by default
        network(x).sum().backward()
        return
    with pytest.raises(DataProblem, match=r"single voxel .*\.$"):
        network(x)
    with torch.no_grad():
        assert network.eval()(x).isfinite().all()


# ---- the generic deep supervision ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GENERIC)
@in_one_case("dims, levels", pairs([2, 3], [0, 1, 2]))
def test_auxiliary_logits_are_of_full_size_and_cost_nothing_in_inference(name, dims, levels):
    network = small(name, dims, depth=4, deep_supervision=levels)
    x = noise(network, *(16,) * dims)
    counted = calls(network)
    with torch.no_grad():
        network(x)
        assert not [key for key in counted if key.startswith("auxiliary")]
        seen = network.training_outputs(x)
    assert len([key for key in counted if key.startswith("auxiliary")]) == levels
    assert [a.shape for a in seen.auxiliary] == [seen.logits.shape] * levels


@pytest.mark.parametrize("name", GENERIC)
@in_one_case("levels", [-1, 4])
def test_more_supervised_levels_than_there_are_is_refused(name, levels):
    assert on_paper(name, 2, deep_supervision=3)
    with pytest.raises(SettingsProblem, match=r"3 decoder levels .*\.$"):
        on_paper(name, 2, deep_supervision=levels)


@pytest.mark.parametrize("name", GENERIC)
def test_the_finest_auxiliary_level_comes_first_and_is_resized_linearly(name):
    network = small(name, 2, classes=1, depth=4, deep_supervision=2)
    seen = []
    for head in network.auxiliary_heads.heads:
        head.register_forward_hook(lambda _, __, out: seen.append(out))
    with torch.no_grad():
        auxiliary = network.training_outputs(noise(network, 16, 24)).auxiliary
    assert [out.shape[2:] for out in seen] == [(8, 12), (4, 6)]
    for coarse, full in zip(seen, auxiliary, strict=True):
        resized = functional.interpolate(coarse, size=(16, 24), mode="bilinear", align_corners=False)
        assert torch.equal(full, resized)


# ---- DRIVE U-Net ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("up", ["bilinear", "transposed"])
@in_one_case("size", [(480, 480), (584, 565), (16, 31)])
def test_drive_keeps_any_size(up, size):
    assert on_paper("unet_drive", 2, 3, 2, up=up)(on_meta(1, 3, *size)).shape == (1, 2, *size)


def test_drive_has_the_widths_of_its_source():
    network = on_paper("unet_drive", 2, 3, 2)
    seen = []
    for stage in (*network.encoder, *network.decoder):
        stage.register_forward_hook(lambda _, __, out: seen.append(out.shape[1]))
    network(on_meta(1, 3, 32, 32))
    assert seen == [32, 64, 128, 256, 256, 128, 64, 32, 32]
    assert [stage[0].out_channels for stage in network.decoder] == [256, 128, 64, 32]
    assert [step.align_corners for step in network.ups] == [True] * 4


def test_drive_has_a_bias_in_the_head_only():
    network = on_paper("unet_drive", 2)
    with_bias = {key for key, m in network.named_modules() if isinstance(m, nn.Conv2d) and m.bias is not None}
    assert with_bias == {"head"}


def test_zero_padding_puts_an_odd_rest_at_the_end():
    out = zero_pad_to(torch.ones(1, 1, 2, 1), (3, 4))
    assert out[0, 0].tolist() == [[0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]


def test_drive_joins_the_skip_first_and_pads_what_comes_up():
    network = small("unet_drive", 2, depth=2)
    seen = {}
    network.encoder[0].register_forward_hook(lambda _, __, out: seen.update(skip=out))
    network.ups[0].register_forward_hook(lambda _, __, out: seen.update(up=out))
    network.decoder[0].register_forward_hook(lambda _, inputs, __: seen.update(joined=inputs[0]))
    with torch.no_grad():
        network(noise(network, 5, 7))
    assert seen["up"].shape[2:] == (4, 6)
    assert torch.equal(seen["joined"], torch.cat([seen["skip"], functional.pad(seen["up"], (0, 1, 0, 1))], dim=1))


@pytest.mark.parametrize(("size", "trains"), [((4, 4), False), ((7, 7), False), ((7, 8), True)])
def test_drive_refuses_to_train_on_one_patch_that_leaves_one_voxel(size, trains):
    network = small("unet_drive", 2).train()
    if trains:
        network(noise(network, *size)).sum().backward()
    else:
        with pytest.raises(DataProblem, match="single voxel"):
            network(noise(network, *size))
    assert network(noise(network, *size, count=2)).shape[2:] == size


def test_drive_fits_to_the_size_itself_or_the_smallest():
    assert on_paper("unet_drive", 2).fit((3, 565)) == (16, 565)


# ---- U-Net++ -------------------------------------------------------------------------------------------------------


def test_unetpp_has_fifteen_nodes_whose_width_is_that_of_their_level():
    network = on_paper("unetpp", 2, 3, 1)
    widths = {}
    for key, node in network.nodes.items():
        node.register_forward_hook(lambda _, inputs, out, key=key: widths.update({key: (inputs[0], out)}))
    network(on_meta(1, 3, 32, 32))
    assert set(widths) == {f"{i}_{j}" for i in range(5) for j in range(5 - i)}
    for key, (inputs, out) in widths.items():
        i, j = map(int, key.split("_"))
        assert out.shape[1:] == (32 * 2**i, 32 // 2**i, 32 // 2**i)
        if j:
            assert inputs.shape[1] == (j + 1) * out.shape[1]


@pytest.mark.parametrize("up", ["deconv", "interpolation"])
@in_one_case("dims", [2, 3])
def test_unetpp_accurate_inference_is_the_mean_of_four_heads_of_full_size(dims, up):
    network = small("unetpp", dims, depth=5, up=up)
    x = noise(network, *(16,) * dims)
    with torch.no_grad():
        seen = network.training_outputs(x)
        assert [a.shape for a in seen.auxiliary] == [(1, 2, *x.shape[2:])] * 4
        torch.testing.assert_close(network(x), sum(seen.auxiliary) / 4)


def in_fast_mode(branch, **options):
    return small("unetpp", 2, depth=5, inference="fast", branch=branch, **options)


@pytest.mark.parametrize("branch", [1, 2, 3, 4])
def test_unetpp_fast_inference_is_one_head_and_skips_every_node_of_the_later_branches(branch):
    accurate, fast = small("unetpp", 2, depth=5), in_fast_mode(branch)
    fast.load_state_dict(accurate.state_dict())
    x = noise(fast, 16, 32)
    counted = calls(fast)
    with torch.no_grad():
        logits = fast(x)
        everything = accurate.training_outputs(x)
    assert torch.equal(logits, everything.auxiliary[4 - branch])
    grid = [(i, j) for i in range(5) for j in range(5 - i) if i + j <= branch]
    needed = {f"nodes.{i}_{j}.{k}" for i, j in grid for k in (0, 2)}
    assert counted == Counter({*needed, *(f"ups.{i}_{j}" for i, j in grid if j), f"heads.{branch}"})


@pytest.mark.parametrize("branch", [0, 1, 3])
def test_unetpp_gives_the_other_branches_to_training_the_last_one_first(branch):
    network, reference = in_fast_mode(branch), small("unetpp", 2, depth=5)
    reference.load_state_dict(network.state_dict())
    x = noise(network, 16, 16)
    with torch.no_grad():
        seen, all_four = network.training_outputs(x), list(reference.training_outputs(x).auxiliary)
        assert torch.equal(seen.logits, all_four.pop(4 - (branch or 4)))
        assert all(torch.equal(a, b) for a, b in zip(seen.auxiliary, all_four, strict=True))


@in_one_case("branch", [1, 2, 3, 4])
def test_unetpp_branches_send_no_gradient_to_later_nodes(branch):
    network = in_fast_mode(branch)
    parameters = dict(network.named_parameters())
    logits = network.training_outputs(noise(network, 16, 16)).logits
    gradients = torch.autograd.grad(logits.square().sum(), list(parameters.values()), allow_unused=True)
    reached = {key.split(".")[1] for key, g in zip(parameters, gradients, strict=True) if g is not None}
    nodes = {key for key in reached if "_" in key}
    assert nodes == {f"{i}_{j}" for i in range(5) for j in range(5 - i) if i + j <= branch}
    assert not [key for key in nodes if int(key[-1]) > branch]
    assert reached - nodes == {str(branch)}


def test_unetpp_without_supervision_has_one_output():
    network = small("unetpp", 2, supervision=False)
    x = noise(network, 8, 8)
    with torch.no_grad():
        seen = network.training_outputs(x)
        assert torch.equal(seen.logits, network(x))
    assert seen.auxiliary == ()
    assert list(network.heads) == ["2"]


@pytest.mark.parametrize("options", [{"branch": 5}, {"branch": -1}, {"branch": 1, "supervision": False}])
def test_unetpp_refuses_branches_without_a_head(options):
    with pytest.raises(SettingsProblem, match=f"branch {options['branch']}; .*\\.$"):
        on_paper("unetpp", 2, inference="fast", **options)


# ---- hypercolumn ---------------------------------------------------------------------------------------------------


def test_hypercolumn_reads_four_levels():
    network = on_paper("hypercolumn_unet", 2)
    seen, read = [], []
    for stage in network.decoder:
        stage.register_forward_hook(lambda _, __, out: seen.append((out.shape[1], out.shape[2])))
    network.fuse.register_forward_hook(lambda _, inputs, __: read.append(inputs[0].shape))
    network(on_meta(1, 1, 128, 128))
    assert seen == [(128, 16), (64, 32), (32, 64), (16, 128)]
    assert read == [(1, 240, 128, 128)]
    assert network.fit((101, 101)) == (112, 112)


def test_hypercolumn_starts_with_the_top_level_unresized():
    network = small("hypercolumn_unet", 2)
    seen = []
    for step in (*network.decoder, network.fuse):
        step.register_forward_hook(lambda _, inputs, out: seen.append((inputs[0], out)))
    with torch.no_grad():
        network(noise(network, 8, 8))
    (_, low), (_, top), (column, _) = seen
    low = functional.interpolate(low, size=(8, 8), mode="bilinear", align_corners=False)
    assert torch.equal(column, torch.cat([top, low], dim=1))


def test_hypercolumn_stages_are_pre_activated_residual_blocks():
    network = small("hypercolumn_unet", 2)
    stage = network.encoder[0]
    kinds = [nn.BatchNorm2d, nn.ReLU, nn.Conv2d]
    assert [type(layer) for layer in stage[1].layers] == kinds * 2
    for block in stage[1:3]:
        for parameter in block.parameters():
            nn.init.zeros_(parameter)
    x = noise(network, 4, 4)
    with torch.no_grad():
        torch.testing.assert_close(stage(x), torch.relu(stage[3](stage[0](x))))


def test_hypercolumn_drops_half_as_much_after_the_first_pooling_and_in_training_only():
    network = small("hypercolumn_unet", 2, depth=5)
    rates = [layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)]
    assert rates == [0.25, 0.5, 0.5, 0.5, 0.5, 0.5]
    x = noise(network, 16, 32)
    network.train()
    with torch.no_grad():
        assert not torch.equal(network(x), network(x))


# ---- summed 3D U-Net -----------------------------------------------------------------------------------------------


@in_one_case("dims, norm, depth", pairs([2, 3], ["instance", "batch"], [3, 5]))
def test_silent_deep_heads_leave_what_the_unsupervised_network_gives(dims, norm, depth):
    network = small("unet3d_ds", dims, depth=depth, norm=norm)
    plain = small("unet3d_ds", dims, depth=depth, norm=norm, supervision=False)
    assert len(network.heads) == (3 if depth > 3 else 2)
    assert len(plain.heads) == 1
    plain.load_state_dict({k: v for k, v in network.state_dict().items() if k in plain.state_dict()})
    for head in network.heads[1:]:
        nn.init.zeros_(head.weight)
    x = noise(network, *(32,) * dims)
    with torch.no_grad():
        assert torch.equal(network(x), plain(x))


@both_dims
@in_one_case("level", [0, 1, 2])
def test_each_bias_of_a_deep_head_shifts_all_logits_alike(dims, level):
    network = small("unet3d_ds", dims, depth=4).double()
    x = noise(network, *(16,) * dims).double()
    with torch.no_grad():
        before = network(x)
        network.heads[level].bias += torch.tensor([2.0, -1.0])
        change = network(x) - before
    torch.testing.assert_close(change[:, 0], torch.full_like(change[:, 0], 2))
    torch.testing.assert_close(change[:, 1], torch.full_like(change[:, 1], -1))


def test_logits_are_the_sum_of_nearest_doubled_levels():
    network = small("unet3d_ds", 2, depth=4)
    seen = []
    for head in network.heads:  # registered from the top, called from the bottom
        head.register_forward_hook(lambda _, __, out: seen.append(out))
    with torch.no_grad():
        logits = network(noise(network, 16, 16))
    p2, p1, p0 = seen
    assert [p.shape[-1] for p in seen] == [4, 8, 16]
    expected = p0 + p1.repeat_interleave(2, 2).repeat_interleave(2, 3)
    expected += p2.repeat_interleave(4, 2).repeat_interleave(4, 3)
    torch.testing.assert_close(logits, expected)


def test_depth_two_has_no_deep_level_to_sum():
    assert len(small("unet3d_ds", 3, depth=2).heads) == 1


@pytest.mark.parametrize("residual", [True, False])
def test_a_silenced_level_gives_its_input_if_residual(residual):
    network = small("unet3d_ds", 3, residual=residual)
    seen = []
    network.downs[0].register_forward_hook(lambda _, __, out: seen.append(out))
    network.downs[1].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    for parameter in network.encoder[0].parameters():
        nn.init.zeros_(parameter)
    with torch.no_grad():
        network(noise(network, 8, 8, 8))
    level_input, level_output = seen
    assert torch.equal(level_output, level_input if residual else torch.zeros_like(level_input))


@both_dims
def test_the_isensee_block_drops_whole_channels_between_its_units_and_leaks(dims):
    network = small("unet3d_ds", dims, width=8, block="isensee", dropout_rate=0.5).train()
    first, dropout, second = network.encoder[0]
    assert {m.negative_slope for m in network.modules() if isinstance(m, nn.LeakyReLU)} == {0.3}
    assert not [m for m in network.modules() if isinstance(m, nn.ReLU)]
    assert first[0].kernel_size == second[0].kernel_size == (3,) * dims
    dropped = (dropout(torch.ones(4, 8, *(4,) * dims)) == 0).flatten(2)
    assert torch.equal(dropped.any(2), dropped.all(2))
    assert dropped.any()
    assert not dropped.all()


def test_the_default_isensee_rate_is_three_tenths_and_the_plain_block_drops_nothing():
    for block, rates in (("isensee", {0.3}), ("plain", set())):
        network = on_paper("unet3d_ds", 3, block=block)
        assert {m.p for m in network.modules() if isinstance(m, nn.Dropout3d)} == rates


def test_equal_widths_build_with_residuals():
    network = small("unet3d_ds", 3, width=4, grow=False)
    assert {head.in_channels for head in network.heads} == {4}
    with torch.no_grad():
        assert network(noise(network, 8, 8, 8)).shape == (1, 2, 8, 8, 8)


def test_instance_norm_is_torchs_and_takes_a_single_voxel():
    torch.manual_seed(0)
    norm, reference = InstanceNorm(3), nn.InstanceNorm2d(3, eps=1e-5, affine=True)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    reference.load_state_dict(norm.state_dict())
    x = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(norm(x), reference(x))
    assert torch.equal(norm(1e6 * x[:1, :, :1, :1]).flatten(), norm.bias)
