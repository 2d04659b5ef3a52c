"""The V-Net family against published counts, its rules, and what every network promises."""

from __future__ import annotations

import pytest
import torch
from combinations import in_one_case, pairs
from torch import nn
from torch.nn import functional

from napari_unetvnet.errors import DataProblem, SettingsProblem
from napari_unetvnet.networks.blocks import conv, pad_channels
from napari_unetvnet.networks.vnet import SLOPE, up_step
from napari_unetvnet.registry import Registry

FAMILY = Registry(
    "network",
    {
        "vnet2d": "napari_unetvnet.networks.vnet:VNet2D",
        "vnet": "napari_unetvnet.networks.vnet:VNet",
        "vnet_depthwise": "napari_unetvnet.networks.vnet_depthwise:VNetDepthwise",
        "vnet3d": "napari_unetvnet.networks.vnet3d:VNet3DBottleneck",
    },
)
every_member = pytest.mark.parametrize("name", FAMILY)
both_dims = pytest.mark.parametrize("dims", [2, 3])


def build(name, dims, in_channels, classes, **options):
    return FAMILY.resolve(name)(dims, in_channels, classes, **FAMILY.check_options(name, options))


def on_paper(name, dims, in_channels, classes, **options):
    """A network of full width without memory for its weights."""
    with torch.device("meta"):
        return build(name, dims, in_channels, classes, **options)


def small(name, dims, in_channels=1, classes=2, seed=0, **options):
    torch.manual_seed(seed)
    return build(name, dims, in_channels, classes, **{"width": 4, "depth": 3, **options}).eval()


def batch(network, size, count=2, seed=1, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, network.in_channels, *size, generator=generator, dtype=dtype)


def trainable(network):
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def with_running_statistics(network):
    return trainable(network) + sum(b.numel() for b in network.buffers() if b.ndim)


# Counted by running the original Keras code: trainable, and total with the running mean and variance.
# The 2D V-Net with Keras' own PReLU has one slope a voxel of the feature map and so only one input size: our network
# cannot hold it, but its figures follow from the sizes of our activations, in a test of their own below.
COUNTS = [
    ("vnet2d", 2, (1, 1), {}, 13_282_225, 13_289_137),
    ("vnet2d", 2, (1, 4), {}, 13_282_324, 13_289_236),
    ("vnet2d", 2, (3, 2), {}, 13_283_058, None),
    ("vnet2d", 2, (1, 1), {"first_residual": "broadcast"}, 13_282_225, 13_289_137),
    ("vnet2d", 2, (1, 1), {"activation": "leaky_relu"}, 13_282_225 - 3_456, None),
    ("vnet2d", 2, (1, 1), {"activation": "elu"}, 13_282_225 - 3_456, None),
    ("vnet", 3, (1, 1), {}, 14_318_769, 14_324_241),
    ("vnet", 3, (1, 1), {"align_corners": True}, 14_318_769, 14_324_241),
    ("vnet", 3, (1, 1), {"up": "deconv"}, 14_698_673, 14_704_145),
    ("vnet", 3, (1, 1), {"kernel": 5}, 64_797_393, 64_802_865),
    ("vnet", 3, (1, 1), {"kernel": 5, "up": "deconv"}, 65_177_297, 65_182_769),
    ("vnet", 3, (1, 2), {"kernel": 5, "up": "deconv"}, 65_177_330, 65_182_802),
    ("vnet_depthwise", 3, (1, 1), {}, 482_353, 487_601),
    ("vnet_depthwise", 3, (1, 1), {"up": "deconv"}, 862_257, 867_505),
    ("vnet_depthwise", 3, (1, 1), {"pointwise": "wide"}, 1_000_177, 1_010_673),
    ("vnet_depthwise", 3, (1, 1), {"pointwise": "narrow"}, 816_257, 824_609),
    ("vnet3d", 3, (1, 1), {}, 1_352_133, 1_361_061),
    ("vnet3d", 3, (2, 1), {"depth": 4, "width": 32}, 1_273_329, 1_280_689),
    ("vnet3d", 3, (1, 1), {"depth": 4, "width": 32}, 1_273_289, 1_280_649),
]


@every_member
@in_one_case("dims, channels, options, parameters, total", lambda name: [row[1:] for row in COUNTS if row[0] == name])
def test_has_the_published_number_of_parameters(name, dims, channels, options, parameters, total):
    network = on_paper(name, dims, *channels, **options)
    assert trainable(network) == parameters
    assert total is None or with_running_statistics(network) == total


@pytest.mark.parametrize(
    ("size", "slopes", "parameters"), [(128, 3_244_032, 16_522_801), (256, 12_976_128, 26_254_897)]
)
def test_vnet2d_with_a_slope_a_voxel_would_have_the_published_number_too(size, slopes, parameters):
    network = on_paper("vnet2d", 2, 1, 1)
    per_channel = [m for m in network.modules() if isinstance(m, nn.PReLU)]
    voxels = []
    for layer in per_channel:
        layer.register_forward_hook(lambda _, __, out: voxels.append(out[0].numel()))
    network(torch.empty(2, 1, size, size, device="meta"))
    assert sum(voxels) == slopes
    assert sum(p.weight.numel() for p in per_channel) == 3_456
    assert trainable(network) - 3_456 + slopes == parameters


def shapes_at(network, x):
    """Channels and last size of what each encoder and decoder level gives, in order."""
    seen = []
    for stage in (*network.encoder, *network.decoder):
        stage.register_forward_hook(lambda _, __, out: seen.append((out.shape[1], out.shape[-1])))
    assert network(x).shape == (len(x), network.classes, *x.shape[2:])
    return seen


def test_vnet2d_has_the_sizes_of_the_source_at_128():
    network = on_paper("vnet2d", 2, 1, 1)
    assert shapes_at(network, torch.empty(2, 1, 128, 128, device="meta")) == [
        *[(16, 128), (32, 64), (64, 32), (128, 16), (256, 8)],
        *[(256, 16), (128, 32), (64, 64), (32, 128)],
    ]


def test_vnet3d_of_depth_4_has_the_sizes_of_the_source():
    network = on_paper("vnet3d", 3, 2, 1, depth=4, width=32)
    assert shapes_at(network, torch.empty(1, 2, 64, 128, 128, device="meta")) == [
        *[(32, 128), (64, 64), (128, 32), (256, 16)],
        *[(128, 32), (64, 64), (32, 128)],
    ]


@pytest.mark.parametrize(
    ("name", "options", "encoder", "decoder"),
    [
        ("vnet2d", {}, [1, 2, 3, 3, 3], [1, 2, 3, 3]),
        ("vnet2d", {"units": "caffe"}, [1, 1, 2, 3, 3], [1, 1, 2, 3]),
        ("vnet", {}, [1, 2, 3, 3, 3], [1, 2, 3, 3]),
    ],
)
def test_levels_have_the_units_of_the_source_from_the_top(name, options, encoder, decoder):
    network = on_paper(name, 2, 1, 1, **options)
    assert [len(stage.units) for stage in network.encoder] == encoder
    assert [len(stage.units) for stage in network.decoder] == decoder


@pytest.mark.parametrize(
    ("depth", "encoder", "decoder"), [(4, [1, 3, 4, 3], [1, 2, 3]), (5, [1, 3, 4, 6, 3], [1, 2, 3, 3])]
)
def test_vnet3d_has_the_units_of_the_source_from_the_top(depth, encoder, decoder):
    network = on_paper("vnet3d", 3, 1, 1, depth=depth)
    assert [len(stage) for stage in network.encoder] == encoder
    assert [len(stage) for stage in network.decoder] == decoder


def silence(block):
    """Zero every convolution and every batch norm's shift, so that a block's units give 0."""
    for layer in block.modules():
        if isinstance(layer, nn.Conv2d | nn.Conv3d | nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.zeros_(layer.bias)
        if isinstance(layer, nn.Conv2d | nn.Conv3d):
            nn.init.zeros_(layer.weight)


@pytest.mark.parametrize("name", ["vnet2d", "vnet"])
@in_one_case("dims, channels, training", pairs([2, 3], [1, 3], [True, False]))
def test_a_silent_first_level_gives_the_zero_padded_image(name, dims, channels, training):
    stage = small(name, dims, channels).train(training).encoder[0]
    silence(stage)
    x = torch.randn(2, channels, *(4,) * dims)
    out = stage(x)
    assert torch.equal(out[:, :channels], x)
    assert out.shape[1] == 4
    assert not out[:, channels:].any()


def test_a_silent_first_level_that_broadcasts_gives_the_image_in_every_channel():
    stage = small("vnet2d", 2, first_residual="broadcast").encoder[0]
    silence(stage)
    x = torch.randn(2, 1, 4, 4)
    assert torch.equal(stage(x), x.expand(2, 4, 4, 4))


def test_only_one_channel_can_be_broadcast():
    with pytest.raises(SettingsProblem, match=r"not of 3.*\.$"):
        build("vnet2d", 2, 3, 1, width=2, first_residual="broadcast")


def test_sums_are_activated_only_if_asked():
    x = -torch.ones(2, 1, 4, 4)
    for asked, slope in ((False, 1.0), (True, 0.25)):
        stage = small("vnet2d", 2, activate_sums=asked).encoder[0]
        silence(stage)
        assert torch.equal(stage(x)[:, :1], slope * x)


def test_a_silent_decoder_gives_up_then_zeros_in_vnet2d_and_all_it_read_in_the_others():
    up, skip = torch.randn(2, 2, 2, 4, 4).unbind()
    expected = {
        "vnet2d": pad_channels(up, 4),
        "vnet": torch.cat([up, skip], dim=1),
        "vnet_depthwise": torch.cat([up, skip], dim=1),
    }
    for name, want in expected.items():
        network = small(name, 2, width=2)
        silence(network.decoder[0])
        assert torch.equal(network.join(network.decoder[0], up, skip), want)


def test_vnet2d_reads_the_skip_first_and_the_others_last():
    up, skip = torch.zeros(2, 2, 4, 4), torch.ones(2, 2, 4, 4)
    for name in FAMILY:
        network = small(name, 2, width=2)
        seen = []
        network.decoder[0].register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0]))
        network.join(network.decoder[0], up, skip)
        assert torch.equal(seen[0], torch.cat([skip, up] if name == "vnet2d" else [up, skip], dim=1))


def test_down_and_up_steps_are_bare_in_vnet_and_activated_in_vnet2d():
    def kinds(step):
        return [type(layer).__name__ for layer in step.modules() if not list(layer.children())]

    vnet, vnet2d, deconv = small("vnet", 2), small("vnet2d", 2), small("vnet", 3, up="deconv")
    assert kinds(vnet.downs[1]) == ["Conv2d"]
    assert kinds(vnet.ups[0]) == ["Conv2d", "Upsample"]
    assert kinds(deconv.ups[0]) == ["ConvTranspose3d"]
    assert kinds(vnet2d.downs[1]) == ["Conv2d", "BatchNorm2d", "PReLU"]
    assert kinds(vnet2d.ups[0]) == ["ConvTranspose2d", "BatchNorm2d", "PReLU"]


def test_activations_have_keras_slope():
    assert SLOPE == 0.3
    for name in ("vnet", "vnet_depthwise"):
        slopes = {m.negative_slope for m in small(name, 2).modules() if isinstance(m, nn.LeakyReLU)}
        assert slopes == {0.3}


@both_dims
@pytest.mark.parametrize("align_corners", [True, False])
def test_convolving_before_the_linear_doubling_equals_convolving_after(dims, align_corners):
    step = up_step(dims, 6, 4, "upsample", align_corners=align_corners).double()
    x = torch.randn(2, 6, *(3, 4, 5)[:dims], dtype=torch.float64)
    mode = {2: "bilinear", 3: "trilinear"}[dims]
    after = step[0](functional.interpolate(x, scale_factor=2, mode=mode, align_corners=align_corners))
    torch.testing.assert_close(step(x), after, rtol=0, atol=1e-12)


@both_dims
def test_a_depthwise_step_equals_padding_by_one_and_a_valid_one_bit_for_bit(dims):
    step = small("vnet_depthwise", dims).encoder[1].units[0]
    assert step.groups == step.in_channels == step.out_channels
    x = torch.randn(2, step.in_channels, *(6,) * dims)
    apply = {2: functional.conv2d, 3: functional.conv3d}[dims]
    explicit = apply(functional.pad(x, (1, 1) * dims), step.weight, step.bias, groups=step.groups)
    assert torch.equal(step(x), explicit)


def test_a_depthwise_unit_keeps_channels_apart_and_a_separable_one_mixes_them():
    for pointwise, mixes in (("none", False), ("wide", True), ("narrow", True)):
        stage = small("vnet_depthwise", 2, pointwise=pointwise).encoder[2]
        x = torch.randn(1, 16, 4, 4)
        other = x.clone()
        other[:, 0] += 1
        changed = (stage(x) != stage(other)).flatten(2).any(2)[0]
        assert changed[0]
        assert changed[1:].any().item() is mixes


def test_the_stem_of_the_depthwise_net_is_its_first_skip():
    network = small("vnet_depthwise", 2).double()
    x = batch(network, (8, 8), dtype=torch.float64)
    seen = []
    network.decoder[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][:, 4:]))
    network(x)
    stem = functional.conv2d(x, network.downs[0].weight, network.downs[0].bias, padding=1)
    torch.testing.assert_close(seen[0], stem)


def test_an_inception_step_starts_with_the_pooled_input_and_doubles_the_channels():
    down = small("vnet3d", 3).downs[2]
    x = torch.randn(2, 8, 6, 4, 8)
    out = down(x)
    assert out.shape == (2, 16, 3, 2, 4)
    assert torch.equal(out[:, :8], functional.max_pool3d(x, 3, stride=2, padding=1))
    assert (out[:, 8:] >= 0).all()


def test_a_bottleneck_of_zeros_gives_its_rectified_input_and_projects_only_other_widths():
    encoder = small("vnet3d", 3).encoder
    second = encoder[1][1]
    nn.init.zeros_(second.steps[-1].weight)
    x = torch.randn(2, 8, 2, 2, 2)
    assert torch.equal(second(x), x.relu())
    assert len(second.shortcut) == 0
    assert len(encoder[0][0].shortcut) == 2
    assert second.steps[0].out_channels == 2


@every_member
@in_one_case("dims, count", pairs([2, 3], [1, 2]))
def test_auxiliary_logits_have_full_size_and_leave_the_main_ones_alone(name, dims, count):
    network = small(name, dims, 2, 3, depth=4, deep_supervision=count)
    x = batch(network, network.fit((9, 16, 17)[:dims]))
    calls = []
    for head in network.auxiliary_heads:
        head.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        logits = network(x)
        assert not calls
        outputs = network.training_outputs(x)
    assert torch.equal(outputs.logits, logits)
    assert len(outputs.auxiliary) == len(calls) == count
    assert all(a.shape == logits.shape for a in outputs.auxiliary)


@every_member
def test_the_first_auxiliary_head_reads_the_finest_level_below_the_top(name):
    network = small(name, 2, depth=4, deep_supervision=2)
    sizes = []
    for head in network.auxiliary_heads:
        head.register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].shape[-1]))
    network.training_outputs(batch(network, (32, 32)))
    assert sizes == [16, 8]


@every_member
@in_one_case("dims", [2, 3])
def test_auxiliary_losses_reach_every_head(name, dims):
    network = small(name, dims, deep_supervision=1)
    outputs = network.training_outputs(batch(network, (8,) * dims))
    (outputs.logits.square().sum() + outputs.auxiliary[0].square().sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert all(p.grad.abs().sum() > 0 for p in network.auxiliary_heads.parameters())


@every_member
def test_an_auxiliary_bias_shifts_its_logits_by_a_constant_everywhere(name):
    network = small(name, 2, deep_supervision=1).double()
    x = batch(network, (8, 8), dtype=torch.float64)
    with torch.no_grad():
        before = network.training_outputs(x).auxiliary[0]
        network.auxiliary_heads[0].bias += 3
        torch.testing.assert_close(network.training_outputs(x).auxiliary[0], before + 3)


@every_member
def test_auxiliary_heads_add_only_their_own_parameters(name):
    more = trainable(on_paper(name, 3, 1, 2, deep_supervision=3)) - trainable(on_paper(name, 3, 1, 2))
    widths = (16, 32, 64, 128) if name == "vnet3d" else (32, 64, 128, 256)
    assert more == sum(2 * w + 2 for w in widths[1:])


@every_member
@in_one_case("count", [-1, 2])
def test_more_auxiliary_heads_than_levels_are_refused(name, count):
    with pytest.raises(SettingsProblem, match=rf"between 0 and 1, not {count}\.$"):
        small(name, 2, deep_supervision=count)


@every_member
@in_one_case("options", [{"width": 0}, {"depth": 1}, {"depth": -3}])
def test_impossible_widths_and_depths_are_refused(name, options):
    with pytest.raises(SettingsProblem, match=rf"not .*{next(iter(options.values()))}.*\.$"):
        small(name, 2, **options)


@every_member
@in_one_case("dims", [2, 3])
def test_keeps_uneven_sizes_that_are_multiples_of_its_poolings(name, dims):
    network = small(name, dims, width=2)
    assert network.divisor == network.smallest == (4,) * dims
    assert network.fit((3, 7, 9)[:dims]) == (4, 8, 12)[:dims]
    with torch.no_grad():
        assert network(batch(network, (4, 8, 12)[:dims])).shape == (2, 2, *(4, 8, 12)[:dims])


@every_member
@in_one_case("depth", [2, 4, 6])
def test_any_depth_builds_and_runs(name, depth):
    network = on_paper(name, 2, 1, 2, width=2, depth=depth)
    size = network.fit((33, 70))
    assert network(torch.empty(2, 1, *size, device="meta")).shape == (2, 2, *size)


@every_member
def test_a_wrong_size_and_a_lone_smallest_patch_in_training_are_refused(name):
    network = small(name, 2)
    with pytest.raises(DataProblem, match=r"7 x 8 voxels.*8 x 8\.$"):
        network(torch.zeros(1, 1, 7, 8))
    with pytest.raises(DataProblem, match="larger patch"):
        network.train()(torch.zeros(1, 1, 4, 4))


@both_dims
def test_a_head_is_a_bare_one_wide_convolution(dims):
    assert isinstance(small("vnet", dims).head, type(conv(dims, 1, 1)))
    assert small("vnet", dims).head.kernel_size == (1,) * dims


@every_member
def test_the_first_of_the_supported_dimensions_is_that_of_the_source(name):
    assert FAMILY.resolve(name).supported_dims == ((2, 3) if name == "vnet2d" else (3, 2))
