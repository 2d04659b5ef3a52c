"""The members of the network table against published counts, sizes and rules.

Every count of the sources is a test, here or in the file of its family, but for those that no member can express:
2D V-Net and 2.5D U-Net with Keras' PReLU (a slope a voxel, which fixes the input size), the depthwise V-Net at HEAD
(does not build), mattmacy's 3D V-Net (another schedule of units), MONAI's VNet (not in the table), MONAI's SegResNetVAE
(computes its loss inside forward), and IAmSuyogJadhav's Keras net (neither the paper's nor the source's network).
"""

from __future__ import annotations

import itertools

import pytest
import torch
from combinations import in_one_case, pairs
from torch import nn

from napari_unetvnet.errors import DataProblem, SettingsProblem
from napari_unetvnet.networks import build_network
from napari_unetvnet.networks.blocks import UpConv, batch_norm, centre_crop, conv_stack, pad_channels, transposed_conv


def on_paper(name, dims, in_channels, classes, **options):
    """A network of full width without memory for its weights."""
    with torch.device("meta"):
        return build_network(name, dims, in_channels, classes, options)


def he(name, dims, in_channels=1, classes=1, **options):
    torch.manual_seed(0)
    return build_network(name, dims, in_channels, classes, options).eval()


def trainable(network):
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def with_running_statistics(network):
    return trainable(network) + sum(b.numel() for b in network.buffers() if b.ndim)


# Counted by running the original Keras code (trainable, total), or derived from its wiring.
COUNTS = [
    ("unet_original", 2, (1, 1), {}, 31_030_593, 31_030_593),
    ("unet_original", 2, (1, 2), {}, 31_030_658, 31_030_658),
    ("unet_original", 2, (3, 4), {}, 31_031_940, 31_031_940),
    ("unet_original", 2, (1, 1), {"up": "transposed"}, 31_030_593, 31_030_593),
    ("unet_padding", 2, (1, 1), {}, 31_042_369, 31_054_145),
    ("unet_padding", 2, (1, 4), {}, 31_042_564, 31_054_340),
    ("unet_padding", 2, (3, 2), {}, 31_043_586, 31_055_362),
    ("unet_padding", 2, (1, 1), {"block": "add"}, 31_042_369, 31_054_145),
    ("unet_padding", 2, (1, 1), {"block": "concat", "block_in": "encoder"}, 40_777_857, 40_789_633),
    ("unet_padding", 2, (1, 1), {"block": "concat", "block_in": "both"}, 42_729_474, 42_741_250),
    ("unet_padding", 2, (1, 1), {"block": "project", "block_in": "encoder"}, 31_042_369 + 698_368, None),
    ("unet_padding", 2, (1, 1), {"block": "project", "block_in": "both"}, 31_042_369 + 698_368 + 697_280, None),
    # 5 more taps from 2w to w channels in each up-step: 5 * 2 * (64^2 + 128^2 + 256^2 + 512^2)
    ("unet_padding", 2, (1, 1), {"up": "transposed"}, 31_042_369 + 3_481_600, None),
    ("unet3d", 3, (1, 1), {}, 19_073_665, 19_078_337),
    ("unet3d", 3, (1, 1), {"up": "upsample"}, 16_320_257, 16_324_929),
    ("unet3d", 3, (1, 1), {"norm": False}, 19_068_993, 19_068_993),
    ("unet3d", 3, (1, 1), {"norm": False, "up": "upsample"}, 16_315_585, 16_315_585),
    ("unet3d", 3, (1, 3), {}, 19_073_795, 19_078_467),
    ("unet3d", 3, (4, 4), {}, 19_076_452, 19_081_124),
]


@pytest.mark.parametrize("name", ["unet_original", "unet_padding", "unet3d"])
@in_one_case("dims, channels, options, parameters, total", lambda name: [row[1:] for row in COUNTS if row[0] == name])
def test_has_the_published_number_of_parameters(name, dims, channels, options, parameters, total):
    network = on_paper(name, dims, *channels, **options)
    assert trainable(network) == parameters
    assert total is None or with_running_statistics(network) == total


SIZES = {188: 4, 204: 20, 256: 68, 284: 100, 380: 196, 444: 260, 448: 260, 508: 324, 572: 388, 668: 484, 700: 516,
         1024: 836}  # fmt: skip


@pytest.mark.parametrize("up", ["nearest", "transposed"])
@in_one_case("given_voxels, left", list(SIZES.items()))
def test_unet_original_loses_what_its_valid_convolutions_take(given_voxels, left, up):
    network = on_paper("unet_original", 2, 1, 1, width=2, up=up)
    assert network(torch.empty(1, 1, given_voxels, 572, device="meta")).shape == (1, 1, left, 388)


@in_one_case("size", [(187, 188), (188, 187), (16, 512)])
def test_unet_original_refuses_what_is_below_188(size):
    network = on_paper("unet_original", 2, 1, 1, width=2)
    with pytest.raises(DataProblem, match="188 x 188"):
        network(torch.empty(1, 1, *size, device="meta"))


def test_unet_original_has_the_sizes_of_the_paper_at_572():
    network = on_paper("unet_original", 2, 1, 2)
    seen = []
    for stage in (*network.encoder, *network.ups, *network.decoder):
        stage.register_forward_hook(lambda _, __, out: seen.append((out.shape[1], out.shape[-1])))
    network(torch.empty(1, 1, 572, 572, device="meta"))
    assert seen == [
        *[(64, 568), (128, 280), (256, 136), (512, 64), (1024, 28)],
        *[(512, 56), (512, 52), (256, 104), (256, 100), (128, 200), (128, 196), (64, 392), (64, 388)],
    ]


@in_one_case("size", [1, 188, 189, 300, 572, 1000])
def test_unet_original_fits_to_sizes_that_rounding_leaves_whole(size):
    fits = on_paper("unet_original", 2, 1, 1, width=2).fit((size, 572))
    assert fits[0] % 16 == 12
    assert fits[0] >= max(size, 188)
    assert fits[0] < max(size, 188) + 16
    assert fits[1] == 572


@pytest.mark.parametrize(("name", "dims", "size"), [("unet_padding", 2, (256, 256)), ("unet3d", 3, (128, 128, 128))])
def test_padded_networks_keep_the_size(name, dims, size):
    network = on_paper(name, dims, 1, 3)
    assert network(torch.empty(1, 1, *size, device="meta")).shape == (1, 3, *size)


@pytest.mark.parametrize(
    ("name", "dims", "divisor"), [("unet_padding", 2, 16), ("unet_padding", 3, 16), ("unet3d", 3, 8)]
)
def test_padded_networks_want_multiples_of_their_poolings(name, dims, divisor):
    network = on_paper(name, dims, 1, 1, width=2)
    assert network.divisor == (divisor,) * dims
    with pytest.raises(DataProblem, match=f"{2 * divisor}"):
        network(torch.empty(1, 1, *(divisor + 1,) * dims, device="meta"))


@pytest.mark.parametrize("name", ["unet_original", "unet_padding", "unet3d"])
@in_one_case("depth", [2, 3, 4, 6])
def test_any_depth_builds_and_runs(name, depth):
    network = on_paper(name, 2, 1, 2, width=2, depth=depth)
    size = network.fit((33, 34))
    assert network(torch.empty(1, 1, *size, device="meta")).shape[:2] == (1, 2)


@pytest.mark.parametrize("name", ["unet_original", "unet_padding", "unet3d"])
@in_one_case("options", [{"width": 0}, {"depth": 1}, {"depth": -3}])
def test_impossible_widths_and_depths_are_refused(name, options):
    with pytest.raises(SettingsProblem, match=str(next(iter(options.values())))):
        build_network(name, 2, 1, 1, {"width": 2, **options})


@pytest.mark.parametrize("rate", [-0.1, 1.5])
def test_impossible_dropout_rates_are_refused_with_a_sentence(rate):
    with pytest.raises(SettingsProblem, match=str(rate)):
        build_network("unet_original", 2, 1, 1, {"width": 2, "depth": 2, "dropout_rate": rate})


@in_one_case("dropout, stages", [("last", {2}), ("last_two", {1, 2})])
@in_one_case("training", [True, False])
def test_dropout_acts_in_training_only_and_after_the_chosen_stages_only(dropout, stages, training):
    network = he("unet_original", 2, width=4, depth=3, dropout=dropout).train(training)
    changed = set()
    for i, stage in enumerate(network.encoder):
        for layer in stage:
            if isinstance(layer, nn.Dropout):
                layer.register_forward_hook(
                    lambda _, inputs, out, i=i: changed.add(i) if not torch.equal(inputs[0], out) else None
                )
    x = torch.randn(1, 1, 60, 60)
    first = network(x)
    assert changed == (stages if training else set())
    assert torch.equal(network(x), first) is not training


def stitched_like_one_pass(network, whole_size, tile_size, offsets):
    """Worst difference, relative to the spread of the whole pass, of tiles without their spoiled margin."""
    before, after = network.margin[0]
    data = torch.randn(1, 1, whole_size, whole_size, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    kept = tile_size - before - after
    with torch.no_grad():
        whole = network(data)
        worst, covered = 0.0, torch.zeros(whole.shape[2:], dtype=torch.bool)
        for y, x in itertools.product(offsets, repeat=2):
            tile = network(data[..., y : y + tile_size, x : x + tile_size])[..., :kept, :kept]
            worst = max(worst, (whole[..., y : y + kept, x : x + kept] - tile).abs().max().item())
            covered[y : y + kept, x : x + kept] = True
    return worst / whole.std().item(), covered


@pytest.mark.parametrize("up", ["nearest", "transposed"])
def test_tiles_on_the_pooling_grid_stitch_to_exactly_one_whole_pass(up):
    network = he("unet_original", 2, width=2, up=up).double()
    assert network.alignment == (16, 16)
    worst, covered = stitched_like_one_pass(network, 300, 236, (0, 16, 48, 64))
    trusted = 300 - sum(network.margin[0])
    assert covered[:trusted, :trusted].all()
    assert worst < 1e-9


@in_one_case("up", ["nearest", "transposed"])
@in_one_case("offset", [4, 8])
def test_tiles_off_the_pooling_grid_do_not_stitch(up, offset):
    network = he("unet_original", 2, width=4, up=up).double()
    worst, _ = stitched_like_one_pass(network, 300, 236, (offset,))
    assert worst > 0.1


def test_the_nearest_up_step_spoils_the_last_fifteen_voxels_which_the_margin_counts_in():
    network = he("unet_original", 2, width=4).double()
    data = torch.randn(1, 1, 300, 300, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        difference = (network(data)[..., :52, :52] - network(data[..., :236, :236])).abs().amax((0, 1, 3))
    rows = difference[:52]
    assert network.margin[0] == (92, 92 + 16)
    assert (rows[37:] > 0).any()
    with torch.no_grad():
        inner = (network(data)[..., :36, :36] - network(data[..., :236, :236])[..., :36, :36]).abs().max()
    assert inner < 1e-9


def silence(stage):
    """Zero a stage's convolutions and shifts, so that only its shortcut is left."""
    for layer in stage.stack:
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)


@in_one_case("block", ["none", "add", "concat", "project"])
def test_a_silenced_block_gives_what_its_shortcut_brings(block):
    network = he("unet_padding", 2, in_channels=2, width=3, depth=2, block=block)
    stage = network.encoder[0]
    silence(stage)
    x = torch.randn(1, 2, 4, 4)
    zeros = torch.zeros(1, 3, 4, 4)
    with torch.no_grad():
        out = stage(x)
        expected = {
            "none": lambda: zeros,
            "add": lambda: torch.cat([x, zeros[:, :1]], dim=1),
            "concat": lambda: torch.cat([x, zeros], dim=1),
            "project": lambda: stage.projection(x),
        }[block]()
    assert torch.equal(out, expected)


def test_decoder_blocks_add_the_first_channels_of_their_wider_input():
    network = he("unet_padding", 2, width=3, depth=2, block="add")
    silence(network.decoder[0])
    x = torch.randn(1, 6, 4, 4)
    with torch.no_grad():
        assert torch.equal(network.decoder[0](x), x[:, :3])


def test_blocks_in_the_encoder_only_leave_the_decoder_plain():
    network = he("unet_padding", 2, width=3, depth=2, block="add", block_in="encoder")
    silence(network.decoder[0])
    with torch.no_grad():
        assert not network.decoder[0](torch.randn(1, 6, 4, 4)).any()


@pytest.mark.parametrize(
    ("name", "skip_comes_first"), [("unet_original", True), ("unet_padding", False), ("unet3d", False)]
)
def test_skips_are_joined_in_the_order_of_their_source(name, skip_comes_first):
    network = he(name, 2, width=3, depth=2)
    seen = {}
    network.encoder[0].register_forward_hook(lambda _, __, out: seen.update(skip=out))
    network.decoder[-1].register_forward_hook(lambda _, inputs, __: seen.update(joined=inputs[0]))
    with torch.no_grad():
        network(torch.randn(1, 1, *network.fit((24, 24))))
    skip = centre_crop(seen["skip"], seen["joined"].shape[2:])
    n = skip.shape[1]
    assert torch.equal(seen["joined"][:, :n] if skip_comes_first else seen["joined"][:, -n:], skip)


def test_centre_crop_cuts_an_odd_rest_at_the_end():
    x = torch.arange(7.0).reshape(1, 1, 7, 1)
    assert centre_crop(x, (4, 1)).flatten().tolist() == [1, 2, 3, 4]


def test_up_conv_doubles_and_pads_after_the_end_only():
    step = UpConv(2, 1, 1)
    nn.init.ones_(step.conv.weight)
    nn.init.zeros_(step.conv.bias)
    with torch.no_grad():
        out = step(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]))
    assert out[0, 0].tolist() == [[4, 6, 8, 4], [8, 10, 12, 6], [12, 14, 16, 8], [6, 7, 8, 4]]
    nn.init.constant_(step.conv.bias, -100.0)
    with torch.no_grad():
        assert not step(torch.ones(1, 1, 2, 2)).any()


@in_one_case("dims, kernel", pairs([2, 3], [2, 3, 4]))
def test_transposed_convolutions_double_each_axis(dims, kernel):
    size = (3, 5, 4)[:dims]
    out = transposed_conv(dims, 2, 1, kernel)(torch.zeros(1, 2, *size))
    assert out.shape == (1, 1, *(2 * n for n in size))


def test_pad_channels_appends_zeros_or_keeps_the_first():
    x = torch.arange(3.0).reshape(1, 3, 1, 1)
    assert pad_channels(x, 5).flatten().tolist() == [0, 1, 2, 0, 0]
    assert pad_channels(x, 3).flatten().tolist() == [0, 1, 2]
    assert pad_channels(x, 2).flatten().tolist() == [0, 1]


@pytest.mark.parametrize("norm", [True, False])
def test_a_stack_is_convolution_norm_rectifier(norm):
    kinds = [type(layer) for layer in conv_stack(3, (1, 2, 4), padding=1, norm=norm)]
    once = [nn.Conv3d, nn.BatchNorm3d, nn.ReLU] if norm else [nn.Conv3d, nn.ReLU]
    assert kinds == once * 2
    assert batch_norm(2, 3).eps == 1e-3
