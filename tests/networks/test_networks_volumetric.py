"""The 2.5D networks and BraTS 2018's winner with its autoencoder branch: counts, sizes, attention, the random code."""

from __future__ import annotations

import pytest
import torch
from combinations import in_one_case, pairs
from torch import nn

from napari_unetvnet.errors import DataProblem, SettingsProblem
from napari_unetvnet.registry import Registry

MEMBERS = Registry(
    "network",
    {
        "unet25d": "napari_unetvnet.networks.unet25d:UNet25D",
        "vs_seg": "napari_unetvnet.networks.unet25d:VSSeg",
        "segresnet_vae": "napari_unetvnet.networks.segresnet_vae:SegResNetVAE",
    },
)
CHEAP = {"unet25d": {"width": 4, "depth": 4}, "vs_seg": {"width": 4, "depth": 4}}
CHEAP["segresnet_vae"] = {"width": 4, "groups": 2, "latent": 5, "patch_z": 16, "patch_y": 16, "patch_x": 32}
CASES = [("unet25d", 3), ("vs_seg", 3), ("segresnet_vae", 2), ("segresnet_vae", 3)]
every_member = pytest.mark.parametrize("name", MEMBERS)
every_case = pytest.mark.parametrize(("name", "dims"), CASES)


def build(name, dims, in_channels, classes, **options):
    return MEMBERS.build(name, dims, in_channels, classes, options=options)


def on_paper(name, dims, in_channels, classes, **options):
    with torch.device("meta"):
        return build(name, dims, in_channels, classes, **options)


def small(name, dims, in_channels=1, classes=2, seed=0, **chosen):
    torch.manual_seed(seed)
    return build(name, dims, in_channels, classes, **{**CHEAP[name], **chosen}).eval()


def batch(network, size=None, count=1, seed=1):
    size = network.smallest if size is None else size
    return torch.randn(count, network.in_channels, *size, generator=torch.Generator().manual_seed(seed))


def trainable(network):
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def empty(*shape):
    return torch.empty(*shape, device="meta")


CUBE = {"patch_z": 64, "patch_y": 64, "patch_x": 64}
NARROW = {"activation": "prelu", "growth": "linear"}
# Not expressible: per-element PReLU (20,013,878) depends on the input size; MONAI's SegResNet is a member of its own,
# its SegResNetVAE (24,828,439) and IAmSuyogJadhav's Keras form (17,372,067 / 22,861,079) are other networks.
COUNTS = [
    ("unet25d", (1, 1), {}, 7_684_918),
    ("unet25d", (1, 2), {}, 7_685_063),
    ("unet25d", (1, 1), {"activation": "prelu"}, 7_686_390),
    ("unet25d", (1, 2), NARROW, 1_849_207),
    ("vs_seg", (1, 2), {}, 3_453_012),
    ("vs_seg", (1, 2), {"attention": False}, 2_645_390),
    ("vs_seg", (1, 2), {"depth": 5}, 1_869_934),
    ("vs_seg", (1, 2), {"depth": 5, "attention": False}, 1_441_481),
    ("segresnet_vae", (4, 3), {}, 18_802_115),
    ("segresnet_vae", (4, 3), {"skip": "concat"}, 18_845_347),
    ("segresnet_vae", (4, 3), {"vae": "paper"}, 26_037_367),
    ("segresnet_vae", (4, 3), {"vae": "source", "skip": "concat"}, 40_055_607),
    ("segresnet_vae", (4, 3), {"vae": "paper", **CUBE}, 20_518_007),
    ("segresnet_vae", (4, 3), {"vae": "source", "skip": "concat", **CUBE}, 21_590_839),
]


@every_member
@in_one_case("channels, options, parameters", lambda name: [row[1:] for row in COUNTS if row[0] == name])
def test_has_the_published_number_of_parameters(name, channels, options, parameters):
    assert trainable(on_paper(name, 3, *channels, **options)) == parameters


@pytest.mark.parametrize(("classes", "total"), [(1, 7_687_862), (2, 7_688_007)])
def test_unet25d_with_its_running_statistics_has_the_count_of_keras(classes, total):
    network = on_paper("unet25d", 3, 1, classes)
    assert trainable(network) + sum(b.numel() for b in network.buffers() if b.ndim) == total


def test_the_source_holds_76256_parameters_that_it_never_uses():
    network = on_paper("segresnet_vae", 3, 4, 3, vae="source", skip="concat")
    assert sum(p.numel() for p in network.branch.unused.parameters()) == 76_256


# Sizes, gradients, deep supervision.


@every_case
def test_wrong_sizes_are_refused_with_a_size_that_fits(name, dims):
    network = small(name, dims)
    size = tuple(n + 1 for n in network.smallest)
    with pytest.raises(DataProblem, match=" x ".join(map(str, network.fit(size)))):
        network(batch(network, size))


@every_case
def test_gradients_reach_every_parameter(name, dims):
    options = {"vae": "paper", "latent": 8} if name == "segresnet_vae" else {}
    reached = set()
    for seed in range(6):  # a rectifier may rest for one draw of weights
        network = small(name, dims, 2, seed=seed, deep_supervision=2, **options)
        x = batch(network, network.patch if options else None, count=2, seed=seed)
        outputs = network.train(bool(options)).training_outputs(x)
        parts = [outputs.logits, *outputs.auxiliary, *outputs.attention]
        parts += [outputs.reconstruction, *outputs.latent] if options else []
        sum(part.square().sum() for part in parts).backward()
        gradients = {key: p.grad for key, p in network.named_parameters()}
        assert all(g is not None and g.isfinite().all() for g in gradients.values())
        reached |= {key for key, g in gradients.items() if g.abs().sum() > 0}
    assert reached == set(gradients)


@every_case
def test_deep_supervision_gives_full_size_logits_in_training_outputs_only(name, dims):
    network = small(name, dims, deep_supervision=2)
    added = sum(p.numel() for p in network.auxiliary_heads.parameters())
    assert trainable(network) - trainable(small(name, dims)) == added > 0
    calls = []
    network.auxiliary_heads.register_forward_hook(lambda *_: calls.append(1))
    x = batch(network, network.fit([n + 4 for n in network.smallest]))
    with torch.no_grad():
        logits = network(x)
        assert not calls
        outputs = network.training_outputs(x)
    assert torch.equal(outputs.logits, logits)
    assert [a.shape for a in outputs.auxiliary] == [logits.shape] * 2


@every_case
def test_deep_supervision_takes_the_finest_levels_first(name, dims):
    network = small(name, dims, deep_supervision=2)
    sizes = []
    for head in network.auxiliary_heads.heads:
        head.register_forward_hook(lambda _, inputs, __: sizes.append(inputs[0].shape[-1]))
    network.training_outputs(batch(network, network.fit([32] * dims)))
    assert sizes == [16, 8]


@every_case
@in_one_case("count", [-1, 3])
def test_more_heads_than_levels_are_refused(name, dims, count):
    with pytest.raises(SettingsProblem, match="2 decoder levels"):
        small(name, dims, deep_supervision=count)


IMPOSSIBLE = [
    *[("unet25d", {key: value}) for key, value in (("width", 0), ("depth", 1), ("planar", -1))],
    *[("vs_seg", {key: value}) for key, value in (("width", 0), ("depth", 1), ("planar", -1), ("dropout", 1.0))],
    *[("segresnet_vae", {key: 0}) for key in ("width", "groups", "latent")],
    ("segresnet_vae", {"width": 12, "groups": 8}),
    ("segresnet_vae", {"dropout": 1.0}),
    ("segresnet_vae", {"down_dropout": -0.1}),
    ("segresnet_vae", {"vae": "paper", "patch_y": 24}),
    ("segresnet_vae", {"vae": "paper", "patch_x": 8}),
]


@every_member
@in_one_case("options", lambda name: [options for other, options in IMPOSSIBLE if other == name])
def test_impossible_options_are_refused_with_a_sentence(name, options):
    with pytest.raises(SettingsProblem, match=r"\.$"):
        small(name, 3, **options)


# 2.5D.


@pytest.mark.parametrize("name", ["unet25d", "vs_seg"])
def test_thick_slice_networks_have_no_2d_form(name):
    with pytest.raises(SettingsProblem, match="2D"):
        small(name, 2)


def test_unet25d_gives_five_maps_of_the_sizes_of_its_source():
    torch.manual_seed(0)
    network = build("unet25d", 3, 1, 1, width=2).eval()
    with torch.no_grad():
        outputs = network.training_outputs(batch(network, (5, 64, 64)))
    assert outputs.logits.shape == (1, 1, 5, 64, 64)
    sizes = [(5, 64, 64), (5, 32, 32), (6, 16, 16), (4, 8, 8), (2, 4, 4)]
    assert [tuple(a.shape) for a in outputs.attention] == [(1, 1, *size) for size in sizes]
    assert all(0 <= a.min() <= a.max() <= 1 for a in outputs.attention)


def test_vs_seg_gives_six_maps_and_wants_multiples_of_its_strides():
    network = on_paper("vs_seg", 3, 1, 2)
    assert network.divisor == (8, 32, 32)
    outputs = network.training_outputs(empty(1, 1, 64, 384, 384))
    assert outputs.logits.shape == (1, 2, 64, 384, 384)
    sizes = [(64, 384, 384), (64, 192, 192), (64, 96, 96), (32, 48, 48), (16, 24, 24), (8, 12, 12)]
    assert [tuple(a.shape) for a in outputs.attention] == [(1, 1, *size) for size in sizes]


@pytest.mark.parametrize("name", ["unet25d", "vs_seg"])
def test_without_attention_there_are_no_maps(name):
    network = small(name, 3, attention=False)
    assert network.training_outputs(batch(network, count=2)).attention == ()


@in_one_case("planes", range(1, 12))
def test_unet25d_takes_any_number_of_planes(planes):
    network = on_paper("unet25d", 3, 1, 2, width=2)
    assert network.fit((planes, 17, 16)) == (planes, 32, 16)
    assert network(empty(1, 1, planes, 32, 16)).shape == (1, 2, planes, 32, 16)


@pytest.mark.parametrize("name", ["unet25d", "vs_seg"])
def test_the_first_two_levels_mix_nothing_across_planes(name):
    network = small(name, 3, width=4)
    x = batch(network, (8, 32, 32))
    changed = x.clone()
    changed[:, :, 3] += 1
    seen = []
    for level in (1, 2):
        network.encoder[level].register_forward_hook(lambda _, __, out, level=level: seen.append((level, out)))
    with torch.no_grad():
        network(x)
        network(changed)
    planes = {
        level: {z for z in range(8) if (a[:, :, z] != b[:, :, z]).any()}
        for level in (1, 2)
        for (_, a), (_, b) in [[entry for entry in seen if entry[0] == level]]
    }
    assert planes[1] == {3}
    assert planes[2] > {3}


@pytest.mark.parametrize("name", ["unet25d", "vs_seg"])
def test_attention_multiplies_by_one_plus_its_map(name):
    network = small(name, 3)
    gate = network.attention[0]
    seen = {}
    gate.register_forward_hook(lambda _, inputs, out: seen.update(before=inputs[0], map=out))
    network.decoder[0].register_forward_hook(lambda _, inputs, __: seen.update(after=inputs[0]))
    with torch.no_grad():
        network(batch(network))
    torch.testing.assert_close(seen["after"], seen["before"] * (1 + seen["map"]))


@pytest.mark.parametrize(("name", "skip_comes_first"), [("unet25d", False), ("vs_seg", True)])
def test_skips_are_joined_in_the_order_of_their_source_and_padded_with_a_plane_of_zeros(name, skip_comes_first):
    network = small(name, 3, attention=False)
    seen = {}
    network.encoder[2].register_forward_hook(lambda _, __, out: seen.update(skip=out))
    network.decoder[2].register_forward_hook(lambda _, inputs, __: seen.update(joined=inputs[0]))
    planes = 5 if name == "unet25d" else 4
    with torch.no_grad():
        network(batch(network, (planes, 16, 16)))
    n = seen["skip"].shape[1]
    joined = seen["joined"][:, :n] if skip_comes_first else seen["joined"][:, -n:]
    assert torch.equal(joined[:, :, :planes], seen["skip"])
    assert joined.shape[2] == 6 or planes == 4
    assert not joined[:, :, planes:].any()


def test_prelu_has_a_slope_per_channel_in_unet25d_and_one_a_layer_in_vs_seg():
    wide = {m.num_parameters for m in small("unet25d", 3, activation="prelu").modules() if isinstance(m, nn.PReLU)}
    one = {m.num_parameters for m in small("vs_seg", 3).modules() if isinstance(m, nn.PReLU)}
    assert wide == {4, 8, 16, 32}
    assert one == {1}


@pytest.mark.parametrize("name", ["unet25d", "vs_seg"])
def test_a_patch_with_one_voxel_at_the_bottom_trains_or_is_refused_with_a_sentence(name):
    network = small(name, 3).train()
    for planes in {network.fit((z, 1, 1))[0] for z in (1, 2, 3, 4)}:
        x = batch(network, (planes, *network.smallest[1:]))
        try:
            network(x).sum().backward()
        except DataProblem as problem:
            assert planes <= 2
            assert "single voxel" in str(problem)
        else:
            assert planes > 2
        network(x.expand(2, -1, -1, -1, -1))


@pytest.mark.parametrize("corners", [True, False])
def test_corner_voxels_stay_in_place_only_if_asked(corners):
    network = small("unet25d", 3, align_corners=corners)
    step = network.ups[0]
    seen = {}
    step.conv.register_forward_hook(lambda _, inputs, __: seen.update(larger=inputs[0]))
    x = torch.arange(3.0).reshape(1, 1, 1, 1, 3).expand(1, 8, 2, 3, 3)
    step(x)
    row = seen["larger"][0, 0, 0, 0]
    expected = torch.arange(6) * 2 / 5 if corners else torch.tensor([0, 0.25, 0.75, 1.25, 1.75, 2])
    torch.testing.assert_close(row, expected)


def test_dropout_of_vs_seg_acts_in_training_only():
    network = small("vs_seg", 3).train()
    x = batch(network, count=2)
    with torch.no_grad():
        assert not torch.equal(network(x), network(x))
        network.eval()
        assert torch.equal(network(x), network(x))


# BraTS 2018's winner.


def test_stages_have_the_sizes_of_the_paper():
    network = on_paper("segresnet_vae", 3, 4, 3, vae="paper")
    seen = []
    watched = (network.stem, *network.encoder, *reversed(network.decoder), network.branch.squeeze)
    watched += (network.branch.encode, network.branch.decode, network.branch.enlarge, *network.branch.blocks)
    for stage in watched:
        stage.register_forward_hook(lambda _, __, out: seen.append(tuple(out.shape[1:])))
    outputs = network.training_outputs(empty(1, 4, 160, 192, 128))
    full, half, quarter, eighth = [(160 // n, 192 // n, 128 // n) for n in (1, 2, 4, 8)]
    assert seen == [
        *[(32, *full), (32, *full), (64, *half), (128, *quarter), (256, *eighth)],
        *[(128, *quarter), (64, *half), (32, *full)],
        *[(16, 10, 12, 8), (256,), (15_360,), (256, *eighth), (128, *quarter), (64, *half), (32, *full)],
    ]
    assert outputs.logits.shape == (1, 3, *full)
    assert outputs.reconstruction.shape == (1, 4, *full)
    assert [len(block) for block in network.encoder] == [1, 2, 2, 4]


@pytest.mark.parametrize("form", ["paper", "source"])
@in_one_case("dims", [2, 3])
def test_the_branch_takes_odd_batches_and_gives_input_means_and_log_variances(form, dims):
    network = small("segresnet_vae", dims, 3, vae=form).train()
    outputs = network.training_outputs(batch(network, network.patch, count=3))
    assert outputs.reconstruction.shape == (3, 3, *network.patch)
    assert [tuple(part.shape) for part in outputs.latent] == [(3, 5), (3, 5)]
    loss = outputs.logits.square().mean() + outputs.reconstruction.square().mean()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("form", ["paper", "source"])
def test_segmentation_is_the_same_with_and_without_the_branch_and_does_not_run_it(form):
    network, plain = small("segresnet_vae", 3, vae=form), small("segresnet_vae", 3, seed=1)
    left = plain.load_state_dict(network.state_dict(), strict=False)
    assert not left.missing_keys
    assert all(key.startswith(("branch.", "give_back.")) for key in left.unexpected_keys)
    calls = []
    network.branch.register_forward_hook(lambda *_: calls.append(1))
    for size in (network.patch, (8, 24, 8)):
        x = batch(network, size)
        with torch.no_grad():
            assert torch.equal(network(x), plain(x))
    assert not calls


def test_the_code_is_drawn_in_training_and_is_the_mean_in_evaluation():
    network = small("segresnet_vae", 3, vae="paper", dropout=0.0)
    x = batch(network, network.patch)
    decoded = []
    network.branch.decode.register_forward_hook(lambda _, inputs, __: decoded.append(inputs[0]))
    with torch.no_grad():
        first, second = network.training_outputs(x), network.training_outputs(x)
        assert torch.equal(first.reconstruction, second.reconstruction)
        assert torch.equal(decoded[0], first.latent[0])
        network.train()
        third, fourth = network.training_outputs(x), network.training_outputs(x)
    assert torch.equal(third.latent[0], fourth.latent[0])
    assert not torch.equal(decoded[2], decoded[3])
    assert not torch.equal(third.reconstruction, fourth.reconstruction)


def test_drawing_passes_the_gradient_to_mean_and_spread():
    network = small("segresnet_vae", 3, vae="paper").train()
    drawn = []
    network.branch.decode.register_forward_hook(lambda _, inputs, __: drawn.append(inputs[0]))
    network.training_outputs(batch(network, network.patch, count=2))
    drawn[0].sum().backward()
    gradient = network.branch.encode.weight.grad
    assert gradient[:5].abs().sum() > 0
    assert gradient[5:].abs().sum() > 0


@pytest.mark.parametrize(("bias", "clamped"), [(1000.0, 20.0), (-1000.0, -20.0)])
def test_log_variances_are_clamped_so_that_spreads_stay_finite_and_positive(bias, clamped):
    network = small("segresnet_vae", 3, vae="paper").train()
    nn.init.constant_(network.branch.encode.bias, bias)
    outputs = network.training_outputs(batch(network, network.patch))
    assert (outputs.latent[1] == clamped).all()
    assert outputs.reconstruction.isfinite().all()


def test_the_drawn_code_has_the_spread_that_the_log_variance_says():
    network = small("segresnet_vae", 2, vae="paper").train()
    for parameter in network.branch.encode.parameters():
        nn.init.zeros_(parameter)
    with torch.no_grad():
        network.branch.encode.bias[:5] = 3.0
        network.branch.encode.bias[5:] = 2 * torch.tensor(0.5).log()
    drawn = []
    network.branch.decode.register_forward_hook(lambda _, inputs, __: drawn.append(inputs[0]))
    with torch.no_grad():
        network.training_outputs(batch(network, network.patch, count=400))
    assert drawn[0].mean().item() == pytest.approx(3, abs=0.05)
    assert drawn[0].std().item() == pytest.approx(0.5, rel=0.05)


def test_another_patch_than_the_branchs_is_refused_in_training_and_goes_without_it_in_evaluation():
    network = small("segresnet_vae", 3, vae="paper")
    x = batch(network, (16, 16, 16))
    assert network.training_outputs(x).reconstruction is None
    with pytest.raises(DataProblem, match="16 x 16 x 32"):
        network.train().training_outputs(x)


def test_group_norm_needs_a_width_divisible_by_its_groups_and_other_norms_do_not():
    with pytest.raises(SettingsProblem, match="8 groups"):
        build("segresnet_vae", 3, 1, 1, width=12)
    build("segresnet_vae", 3, 1, 1, width=3, norm="none")


@pytest.mark.parametrize("dims", [2, 3])
@in_one_case(
    "options",
    [
        *[{"norm": norm} for norm in ("none", "batch", "instance")],
        *[{"act": "elu"}, {"down": "maxpool"}, {"up": "transposed"}, {"skip": "concat"}, {"align_corners": True}],
        {"down_dropout": 0.3},
    ],
)
def test_every_choice_builds_and_learns_with_the_branch(options, dims):
    network = small("segresnet_vae", dims, vae="paper", **options).train()
    outputs = network.training_outputs(batch(network, network.patch, count=2))
    (outputs.logits.square().mean() + outputs.reconstruction.square().mean()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@in_one_case("norm, dims", pairs(["group", "none", "batch", "instance"], [2, 3]))
def test_the_smallest_patch_trains_or_is_refused_with_a_sentence(norm, dims):
    network = small("segresnet_vae", dims, norm=norm).train()
    with torch.no_grad():
        try:
            network(batch(network))
        except DataProblem:
            assert norm == "batch"
        network(batch(network, count=2))
        network.eval()(batch(network))


def test_dropout_drops_whole_channels_after_the_first_convolution_in_training_only():
    network = small("segresnet_vae", 3, width=16, dropout=0.5).train()
    seen = []
    network.stem.register_forward_hook(lambda _, __, out: seen.append(out))
    with torch.no_grad():
        network(batch(network, (16, 16, 16)))
        network.eval()(batch(network, (16, 16, 16)))
    emptied = (seen[0] == 0).flatten(2).all(-1)
    assert 0 < emptied.sum() < 16
    assert ((seen[0] == 0).flatten(2).any(-1) == emptied).all()
    assert not (seen[1] == 0).flatten(2).all(-1).any()
    torch.testing.assert_close(seen[0][~emptied], 2 * seen[1][~emptied])


def test_a_silenced_block_gives_its_input():
    block = small("segresnet_vae", 3).decoder[0]
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    x = torch.randn(1, 4, 4, 4, 4)
    assert torch.equal(block(x), x)


def test_skips_are_added_or_concatenated_behind_what_comes_up():
    up, skip = torch.randn(1, 4, 2, 2, 2), torch.randn(1, 4, 2, 2, 2)
    assert torch.equal(small("segresnet_vae", 3)._join(0, up, skip), up + skip)
    network = small("segresnet_vae", 3, skip="concat")
    assert torch.equal(network._join(0, up, skip), network.fuse[0](torch.cat([up, skip], dim=1)))
