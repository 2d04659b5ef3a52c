"""U-Nets on an encoder, with a branch or with two heads, against published counts, hand calculations and rules.

Every count of the sources is here: those of the Keras ResNet-50 need "resnet50_keras", and the one of the widely used
U-Net decoder on ResNet-34 needs the "double" decoder.
"""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from combinations import in_one_case, in_turn, pairs
from safetensors.torch import save_file
from torch import nn

from napari_unetvnet.errors import SettingsProblem
from napari_unetvnet.networks.encoder_blocks import UNITS, InceptionDown, darknet_unit, replaced_stage
from napari_unetvnet.networks.encoder_options import BlockName, EncoderName
from napari_unetvnet.networks.encoders import build_encoder
from napari_unetvnet.networks.pretrained import fit_channels
from napari_unetvnet.networks.roi import Square, crop, foreground_square, paste
from napari_unetvnet.registry import Registry

MEMBERS = Registry(
    "network",
    {
        "backboned_unet": "napari_unetvnet.networks.backboned_unet:BackbonedUNet",
        "branch_unet": "napari_unetvnet.networks.branch_unet:BranchUNet",
        "fine_grained_unet": "napari_unetvnet.networks.fine_grained_unet:FineGrainedUNet",
    },
)
ENCODERS = get_args(EncoderName)
every_member = pytest.mark.parametrize("name", MEMBERS)
both_dims = in_one_case("dims", [2, 3])


def build(name, dims, in_channels, classes, **options):
    return MEMBERS.build(name, dims, in_channels, classes, options=options)


def on_paper(name, in_channels, classes, **options):
    with torch.device("meta"):
        return build(name, 2, in_channels, classes, **options)


def small(name, dims=2, in_channels=1, classes=2, seed=0, **options):
    torch.manual_seed(seed)
    return build(name, dims, in_channels, classes, **{"width": 2, **options}).eval()


def noise(network, count=1, size=32, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, network.in_channels, *(size,) * network.dims, generator=generator)


def counts(network):
    trainable = sum(p.numel() for p in network.parameters())
    return trainable, trainable + sum(b.numel() for b in network.buffers() if b.ndim)


# in -> out channels, options, trainable, total (trainable and running statistics)
COUNTS = [
    (1, 1, {"encoder": "vgg16"}, 20_701_633, 20_707_585),
    (1, 2, {"encoder": "vgg16"}, 20_702_210, 20_708_162),
    (3, 1, {"encoder": "vgg16"}, 20_702_785, None),
    (1, 1, {"encoder": "darknet52"}, 42_509_665, 42_548_321),
    (1, 2, {"encoder": "darknet52"}, 42_509_810, 42_548_466),
    (3, 1, {"encoder": "darknet52"}, 42_510_241, None),
    (1, 1, {"encoder": "orig_unet"}, 28_313_537, 28_328_705),
    (1, 2, {"encoder": "orig_unet"}, 28_314_114, 28_329_282),
    (3, 1, {"encoder": "orig_unet"}, 28_314_689, None),
    (1, 1, {"encoder": "orig_unet", "width": 16}, 5_205_233, 5_210_753),
    (1, 2, {"encoder": "orig_unet", "width": 16}, 5_205_378, 5_210_898),
    (3, 1, {"encoder": "orig_unet", "width": 16}, 5_205_521, None),
    (1, 1, {"encoder": "resnet50_keras"}, 31_198_785, 31_257_601),
    (1, 2, {"encoder": "resnet50_keras"}, 31_198_930, 31_257_746),
    (3, 1, {"encoder": "resnet50_keras"}, 31_205_057, None),
    (1, 2, {"encoder": "resnet50_keras", "skip": "concat"}, 36_545_298, 36_605_042),
    (1, 2, {"encoder": "resnet50"}, 31_172_370, None),
    (3, 1, {"encoder": "resnet50"}, 31_178_497, None),
    (1, 1, {}, 21_765_761, None),
    (1, 2, {}, 21_765_906, None),
    (3, 1, {}, 21_772_033, None),
    (1, 1, {"decoder": "up"}, 21_612_161, None),
    (1, 2, {"decoder": "up"}, 21_612_306, None),
    (3, 1, {"decoder": "up"}, 21_618_433, None),
    (1, 1, {"skip": "concat"}, 22_115_713, None),
    (1, 2, {"skip": "concat"}, 22_115_858, None),
    (3, 1, {"skip": "concat"}, 22_121_985, None),
    (3, 1, {"decoder": "double"}, 24_436_369, None),
    (3, 1, {"encoder": "resnet18"}, 11_663_873, None),
    (1, 2, {"encoder": "orig_unet", "decoder": "up"}, None, 27_607_746),
    (1, 2, {"encoder": "vgg16", "decoder": "up"}, None, 20_330_178),
    (1, 2, {"encoder": "resnet50_keras", "decoder": "up"}, None, 28_822_738),
    (1, 2, {"encoder": "darknet52", "decoder": "up"}, None, 41_939_378),
    (1, 2, {"encoder": "orig_unet", "skip": "concat"}, None, 33_729_794),
    (1, 2, {"encoder": "vgg16", "skip": "concat"}, None, 23_093_250),
    (1, 2, {"encoder": "darknet52", "skip": "concat"}, None, 43_898_770),
]
COUNTS = [("backboned_unet", *row) for row in COUNTS] + [
    ("branch_unet", 2, 4, {}, 28_315_974, None),
    ("branch_unet", 1, 4, {}, 28_315_398, None),
    ("fine_grained_unet", 1, 2, {}, 42_509_955, None),
    ("fine_grained_unet", 1, 2, {"encoder": "orig_unet"}, 28_314_691, None),
    ("fine_grained_unet", 1, 2, {"encoder": "resnet50_keras"}, 31_199_075, None),
    ("fine_grained_unet", 1, 2, {"encoder": "vgg16"}, 20_702_787, None),
]


@every_member
@in_one_case(
    "in_channels, classes, options, trainable, total", lambda name: [row[1:] for row in COUNTS if row[0] == name]
)
def test_has_the_published_number_of_parameters(name, in_channels, classes, options, trainable, total):
    found = counts(on_paper(name, in_channels, classes, **options))
    assert trainable in (None, found[0])
    assert total in (None, found[1])


def test_the_parts_of_the_resnet34_unet_have_their_published_sizes():
    network = on_paper("backboned_unet", 3, 1, decoder="double")
    assert counts(network.encoder)[0] == 21_284_672
    assert counts(network.decoder)[0] + counts(network.head)[0] == 3_151_697


def test_keras_and_torch_resnet50_differ_by_the_biases_of_their_convolutions():
    keras, torchs = (on_paper("backboned_unet", 1, 1, encoder=name) for name in ("resnet50_keras", "resnet50"))
    assert counts(keras)[0] - counts(torchs)[0] == 26_560


FEATURES = {
    "resnet50": [(32, 2048), (16, 1024), (8, 512), (4, 256), (2, 64)],
    "resnet50_keras": [(32, 2048), (16, 1024), (8, 512), (4, 256), (2, 64)],
    "resnet34": [(32, 512), (16, 256), (8, 128), (4, 64), (2, 64)],
    "resnet18": [(32, 512), (16, 256), (8, 128), (4, 64), (2, 64)],
    "vgg16": [(32, 512), (16, 512), (8, 512), (4, 256), (2, 128), (1, 64)],
    "darknet52": [(32, 1024), (16, 512), (8, 256), (4, 128), (2, 64)],
    "orig_unet": [(32, 1024), (16, 1024), (8, 512), (4, 256), (2, 128), (1, 64)],
    "efficientnet_lite0": [(32, 320), (16, 112), (8, 40), (4, 24), (2, 16)],
}


@in_one_case("block", ["own", "double", "inception"])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_encoders_give_features_at_the_strides_and_widths_of_the_table(encoder, block):
    with torch.device("meta"):
        features = build_encoder(encoder, 2, 3, 64, block)(torch.empty(1, 3, 64, 96))
    assert [(64 // f.shape[2], f.shape[1]) for f in features] == FEATURES[encoder]
    assert all(f.shape[3] * 2 == f.shape[2] * 3 for f in features)


@every_member
@in_one_case("dims, channels", pairs([2, 3], [(1, 1), (3, 2), (4, 5)]))
def test_keeps_the_size_for_any_channels(name, dims, channels):
    in_channels, classes = channels
    with torch.device("meta"):
        network = build(name, dims, in_channels, classes, width=2)
        size = network.fit((33, 7, 65)[:dims])
        assert network.divisor == (32,) * dims
        for fits in (network.smallest, size):
            assert network(torch.empty(2, in_channels, *fits)).shape == (2, classes, *fits)


BLOCKS = pairs(ENCODERS, ["own", *UNITS], [2, 3])


@pytest.mark.parametrize("encoder", ENCODERS)
@in_one_case("block, dims", lambda encoder: [row[1:] for row in BLOCKS if row[0] == encoder])
def test_any_block_replaces_an_encoders_own(encoder, block, dims):
    network = build("backboned_unet", dims, 3, 2, encoder=encoder, block=block, width=2)
    with torch.no_grad():
        assert network(torch.zeros(2, 3, *(32,) * dims)).shape == (2, 2, *(32,) * dims)


@every_member
@both_dims
def test_gradients_reach_every_parameter(name, dims):
    reached, wakes_later = set(), set(MEMBERS.describe(name).facts.get("wakes_later", ()))
    for seed in range(3):  # a rectifier may rest for one draw of weights
        network = small(name, dims, 2, 2, seed=seed, width=4, deep_supervision=2)
        out = network.training_outputs(noise(network, 2, seed=seed))
        parts = [out.logits, *out.auxiliary, *([] if out.roi is None else [out.roi])]
        sum(logits.square().sum() for logits in parts).backward()
        gradients = {key: p.grad for key, p in network.named_parameters()}
        assert all(g is not None and g.isfinite().all() for g in gradients.values())
        reached |= {key for key, g in gradients.items() if g.abs().sum() > 0}
        if set(gradients) - reached == wakes_later:
            return
    assert set(gradients) - reached == wakes_later


def test_every_block_has_a_name_among_the_options():
    assert get_args(BlockName) == ("own", *UNITS)


@in_one_case("block", list(UNITS))
def test_gradients_reach_every_parameter_of_replaced_blocks(block):
    torch.manual_seed(0)
    stage = replaced_stage(2, 3, 8, 2, 2, block).eval()
    stage(torch.randn(2, 3, 16, 16)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in stage.parameters())


@every_member
def test_evaluation_gives_the_same_logits_with_and_without_what_training_wants(name):
    network = small(name, deep_supervision=4)
    x = noise(network, 2, 64)
    with torch.no_grad():
        out = network.training_outputs(x)
        assert torch.equal(out.logits, network(x))
        assert torch.equal(out.logits, network(x))
    assert [a.shape for a in out.auxiliary] == [out.logits.shape] * len(out.auxiliary)
    assert len(out.auxiliary) == 4
    assert (out.roi is not None) == (name == "fine_grained_unet")


def test_deep_supervision_gives_its_heads_answers_enlarged():
    network = small("backboned_unet", deep_supervision=2, classes=3)
    nn.init.zeros_(network.auxiliary_heads[1].weight)
    nn.init.constant_(network.auxiliary_heads[1].bias, 2.5)
    auxiliary = network.training_outputs(noise(network)).auxiliary
    assert (auxiliary[1] == 2.5).all()
    assert not (auxiliary[0] == 2.5).any()
    assert counts(network.auxiliary_heads)[0] == sum(
        3 * (network.level_widths[level] + 1) for level in ("decoder1", "decoder2")
    )


IMPOSSIBLE = [
    ("backboned_unet", {"width": 0}, "0"),
    ("backboned_unet", {"deep_supervision": 5}, "5"),
    ("backboned_unet", {"deep_supervision": -1}, "-1"),
    ("backboned_unet", {"freeze": -2}, "-2"),
    ("backboned_unet", {"weights": "nowhere.pth"}, "nowhere.pth"),
    ("backboned_unet", {"weights": "nowhere.pth", "block": "double"}, "double"),
    ("branch_unet", {"targets": "4"}, "4"),
    ("branch_unet", {"targets": "one"}, "one"),
    ("branch_unet", {"targets": ""}, "targets"),
    ("branch_unet", {"encoder": "resnet18", "source": "encoder0"}, "encoder0"),
    ("fine_grained_unet", {"roi_threshold": 1.0}, "1.0"),
    ("fine_grained_unet", {"roi_margin": -1}, "-1"),
    ("fine_grained_unet", {"tiny_threshold": 0.0}, "0.0"),
]


@every_member
@in_one_case("options, word", lambda name: [row[1:] for row in IMPOSSIBLE if row[0] == name])
def test_impossible_options_are_refused_with_a_sentence(name, options, word):
    with pytest.raises(SettingsProblem, match=rf"{word}.*\.$"):
        build(name, 2, 1, 4, **{"width": 1, **options})


@every_member
def test_pretrained_weights_are_refused_in_three_dimensions(name):
    with pytest.raises(SettingsProblem, match=r"3D network\.$"):
        build(name, 3, 1, 1, width=1, weights="any.pth")


# Blocks, by hand.


def test_a_silenced_darknet_unit_gives_its_input_back():
    unit = darknet_unit(2, 4, 4).eval()
    for parameter in unit.parameters():
        nn.init.zeros_(parameter)
    x = torch.randn(1, 4, 5, 6)
    assert torch.equal(unit(x), x)


@in_one_case("inputs, outputs, pooled", [(4, 8, 4), (4, 4, 2), (8, 4, 2), (1, 3, 1), (5, 3, 1)])
def test_inception_halves_the_size_and_keeps_what_it_pooled_first(inputs, outputs, pooled):
    step = InceptionDown(2, inputs, outputs).eval()
    x = torch.randn(2, inputs, 8, 12)
    out = step(x)
    assert out.shape == (2, outputs, 4, 6)
    assert torch.equal(out[:, :pooled], nn.functional.max_pool2d(x, 3, 2, 1)[:, :pooled])
    assert step.single[0].out_channels + step.chain[-1][0].out_channels == outputs - pooled


def test_darknet_pads_before_the_start_only():
    down = build_encoder("darknet52", 2, 1, 2, "own").eval().stages[0][0]
    nn.init.ones_(down.conv.weight)
    out = down(torch.ones(1, down.conv.in_channels, 4, 4))
    taps = out[0, 0] / out[0, 0, 1, 1] * 9
    torch.testing.assert_close(taps, torch.tensor([[4.0, 6.0], [6.0, 9.0]]))


def test_the_skip_is_added_to_or_concatenated_after_the_decoders_own():
    for skip in ("add", "concat"):
        network = small("backboned_unet", skip=skip)
        levels = network.levels(noise(network))
        block, fine = network.decoder[0], levels["encoder4"]
        own = block.last(block.step(levels["level5"]))
        joined = own + fine if skip == "add" else torch.cat([own, fine], dim=1)
        assert torch.equal(levels["decoder4"], joined)


# Pretrained weights, freezing.


def published(name):
    """An encoder with every tensor drawn, as a file would hold it with its classification tail."""
    torch.manual_seed(5)
    encoder = build_encoder(name, 2, 3, 2, "own")
    state = {key: torch.rand_like(value) if value.ndim else value for key, value in encoder.state_dict().items()}
    tail = "classifier.0.weight" if name == "vgg16" else "fc.weight"
    if name == "efficientnet_lite0":
        names = {key: ".".join(p if p.isdigit() or p[0] in "wr" or p == "bias" or p.startswith("num") else f"_{p}"
                               for p in key.split(".")) for key in state}  # fmt: skip
        return {names[key]: value for key, value in state.items()} | {"_fc.weight": torch.ones(2, 2)}, state
    return {**state, tail: torch.ones(2, 2)}, state


@pytest.mark.parametrize(("encoder", "suffix"), in_turn(ENCODERS, [".pth", ".safetensors"]))
def test_pretrained_weights_are_found_by_their_published_names(tmp_path, encoder, suffix):
    file, state = published(encoder)
    path = str(tmp_path / f"weights{suffix}")
    torch.save(file, path) if suffix == ".pth" else save_file(file, path)
    if encoder in ("darknet52", "orig_unet"):  # nobody's layout but ours, which has no tail
        with pytest.raises(SettingsProblem, match=r"unknown fc\.weight"):
            small("backboned_unet", in_channels=3, encoder=encoder, weights=path)
        return
    network = small("backboned_unet", in_channels=3, encoder=encoder, weights=path)
    assert all(torch.equal(value, state[key]) for key, value in network.encoder.state_dict().items())


TORCHVISION = {
    "resnet34": {"conv1.weight": (64, 3, 7, 7), "bn1.running_var": (64,), "layer1.2.bn2.weight": (64,),
                 "layer2.0.downsample.0.weight": (128, 64, 1, 1), "layer2.0.downsample.1.bias": (128,),
                 "layer4.2.conv2.weight": (512, 512, 3, 3)},
    "resnet50": {"conv1.weight": (64, 3, 7, 7), "layer1.0.conv3.weight": (256, 64, 1, 1),
                 "layer1.0.downsample.0.weight": (256, 64, 1, 1), "layer3.5.bn3.running_mean": (1024,),
                 "layer4.0.conv1.weight": (512, 1024, 1, 1), "layer4.2.conv3.weight": (2048, 512, 1, 1)},
    "vgg16": {"features.0.weight": (64, 3, 3, 3), "features.2.bias": (64,), "features.5.weight": (128, 64, 3, 3),
              "features.14.weight": (256, 256, 3, 3), "features.17.weight": (512, 256, 3, 3),
              "features.28.weight": (512, 512, 3, 3), "features.28.bias": (512,)},
    "efficientnet_lite0": {"conv_stem.weight": (32, 3, 3, 3), "blocks.0.depthwise_conv.weight": (32, 1, 3, 3),
                           "blocks.1.expand_conv.weight": (96, 16, 1, 1), "blocks.15.bn1.running_var": (1152,),
                           "blocks.15.project_conv.weight": (320, 1152, 1, 1)},
}  # fmt: skip
# Tensors of the whole published file without its classification tail, and trainable numbers in them.
SIZES = {"resnet34": (216, 21_284_672), "resnet50": (318, 23_508_032), "vgg16": (26, 14_714_688),
         "efficientnet_lite0": (288, 2_958_848)}  # fmt: skip


@in_one_case("encoder", TORCHVISION)
def test_encoders_have_the_names_and_shapes_of_the_published_files(encoder):
    with torch.device("meta"):
        built = build_encoder(encoder, 2, 3, 64, "own")
    state = {key: tuple(value.shape) for key, value in built.state_dict().items()}
    assert TORCHVISION[encoder].items() <= state.items()
    assert (len(state), counts(built)[0]) == SIZES[encoder]


def test_weights_that_do_not_fit_are_named(tmp_path):
    path = str(tmp_path / "weights.pth")
    file, _ = published("resnet18")
    file["layer1.0.bn1.weight"] = torch.ones(9)
    file["layer9.weight"] = torch.ones(1)
    del file["bn1.bias"], file["bn1.num_batches_tracked"]
    torch.save(file, path)
    with pytest.raises(SettingsProblem) as caught:
        small("backboned_unet", encoder="resnet18", weights=path)
    words = str(caught.value)
    assert all(w in words for w in ("missing bn1.bias", "unknown layer9.weight", "layer1.0.bn1.weight (9,) instead of"))
    assert "num_batches" not in words
    assert "fc.weight" not in words


@pytest.mark.parametrize("content", [b"no tensors", [1, 2], {"a": 1}])
def test_files_without_tensors_are_refused_with_a_sentence(tmp_path, content):
    path = tmp_path / "weights.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(SettingsProblem, match=r"weights\.pth.*\.$"):
        small("backboned_unet", weights=str(path))


def test_a_file_that_would_run_something_is_refused(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"conv1.weight": nn.Identity()}, path)
    with pytest.raises(SettingsProblem, match=r"no torch state dict"):
        small("backboned_unet", weights=str(path))


def test_a_whole_networks_file_gives_its_encoder(tmp_path):
    path = str(tmp_path / "weights.pth")
    first = small("backboned_unet", seed=1, classes=5)
    torch.save({"state_dict": first.state_dict()}, path)
    second = small("backboned_unet", seed=2, weights=path)
    x = noise(first)
    assert torch.equal(first.levels(x)["encoder5"], second.levels(x)["encoder5"])


@in_one_case("channels", [1, 2, 3, 4, 6])
def test_the_first_convolution_answers_grey_as_it_answered_grey_in_colour(channels):
    weight = torch.randn(8, 3, 7, 7, dtype=torch.float64)
    grey = torch.randn(1, 1, 20, 20, dtype=torch.float64)
    fitted = fit_channels(weight, channels)
    torch.testing.assert_close(
        nn.functional.conv2d(grey.expand(1, channels, 20, 20), fitted),
        nn.functional.conv2d(grey.expand(1, 3, 20, 20), weight),
    )
    assert channels != 3 or fitted is weight


@pytest.mark.parametrize("encoder", ["resnet18", "vgg16"])
def test_a_grey_network_answers_as_one_that_sees_three_equal_channels(tmp_path, encoder):
    path = str(tmp_path / "weights.safetensors")
    save_file(published(encoder)[0], path)
    grey, colour = (small("backboned_unet", in_channels=n, encoder=encoder, weights=path) for n in (1, 3))
    x = noise(grey)
    for one, three in zip(grey.encoder(x), colour.encoder(x.expand(1, 3, 32, 32)), strict=True):
        torch.testing.assert_close(one, three, rtol=1e-3, atol=1e-3 * three.abs().max().item())


@pytest.mark.parametrize(("freeze", "frozen"), [(0, []), (2, [0, 1]), (-1, [0, 1, 2, 9])])
def test_the_encoder_is_frozen_for_its_epochs(freeze, frozen):
    network = small("backboned_unet", freeze=freeze)
    for epoch in (0, 1, 2, 9):
        network.freeze_for(epoch)
        network.train()
        assert all(p.requires_grad is (epoch not in frozen) for p in network.encoder.parameters())
        assert all(p.requires_grad for p in network.decoder.parameters())
        before = network.encoder.bn1.running_mean.clone()
        network(noise(network, 2)).sum().backward()
        assert torch.equal(network.encoder.bn1.running_mean, before) is (epoch in frozen)
        assert network.decoder[0].last[1].training


def test_a_frozen_encoder_is_frozen_from_the_first_step_without_being_told():
    network = small("backboned_unet", freeze=3)
    assert not any(p.requires_grad for p in network.encoder.parameters())
    assert not network.train().encoder.bn1.training


# The branch.


def test_the_branch_has_130_parameters_for_one_target():
    with torch.device("meta"):
        with_branch, without = build("branch_unet", 2, 1, 4), build("backboned_unet", 2, 1, 4, encoder="orig_unet")
    assert counts(with_branch)[0] - counts(without)[0] == 130
    assert with_branch.branch.weight.numel() == 64
    assert with_branch.branch_up.weight.shape == (1, 1, 8, 8)


def test_the_bilinear_kernel_is_bilinear():
    up = small("branch_unet").branch_up
    taps = torch.tensor([0.125, 0.375, 0.625, 0.875, 0.875, 0.625, 0.375, 0.125])
    assert torch.equal(up.weight[0, 0], torch.outer(taps, taps))
    assert up.weight.sum() == 16
    out = up(torch.ones(1, 1, 4, 4))[0, 0]
    assert out.shape == (16, 16)
    assert (out[2:-2, 2:-2] == 1).all()
    assert out[0, 0] == 0.390625


@pytest.mark.parametrize("dims", [2, 3])
@in_one_case("source", ["level1", "level3", "encoder0", "encoder5", "decoder0", "decoder3"])
def test_the_branch_enlarges_any_level_exactly_to_the_image(source, dims):
    network = small("branch_unet", dims, source=source, targets="0,2", classes=3, width=1)
    stride = 2 ** int(source[-1])
    out = network.branch_up(torch.ones(1, 2, *(3,) * dims))
    assert out.shape == (1, 2, *(3 * stride,) * dims)
    assert torch.allclose(out[(..., *(slice(stride, 2 * stride),) * dims)], torch.ones(()))
    assert network(noise(network)).shape == (1, 3, *(32,) * dims)


@pytest.mark.parametrize("dims", [2, 3])
def test_at_first_the_branch_changes_nothing_and_then_its_target_only(dims):
    network = small("branch_unet", dims, classes=4)
    base = small("backboned_unet", dims, classes=4, encoder="orig_unet")
    base.load_state_dict({key: value for key, value in network.state_dict().items() if not key.startswith("branch")})
    x = noise(network)
    with torch.no_grad():
        assert torch.equal(network(x), base(x))
        nn.init.normal_(network.branch.weight)
        moved = (network(x) - base(x)).abs().amax((0, *range(2, dims + 2)))
    assert moved[1] > 0
    assert not moved[[0, 2, 3]].any()


def test_the_branch_wakes_in_two_steps():
    network = small("branch_unet", freeze=-1)
    x = noise(network)
    optimizer = torch.optim.SGD([*network.branch.parameters(), *network.branch_up.parameters()], lr=1e-3)
    network(x).square().sum().backward()
    assert network.branch.weight.grad.abs().sum() > 0
    assert not network.branch_up.weight.grad.any()
    optimizer.step()
    optimizer.zero_grad()
    network(x).square().sum().backward()
    assert network.branch_up.weight.grad.abs().sum() > 0


def test_freezing_a_branched_network_holds_everything_before_the_branch():
    network = small("branch_unet", freeze=-1)
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    assert {name.split(".")[0] for name in frozen} == {"encoder", "centre", "decoder"}
    assert {name.rsplit(".", 2)[0] for name in frozen if name.startswith("decoder.3")} == {"decoder.3.first"}
    assert not any(name.startswith("decoder.4") for name in frozen)
    after = {name for name, p in network.named_parameters() if p.requires_grad}
    assert {"head.weight", "branch.weight", "decoder.3.step.weight"} <= after
    from_encoder = small("branch_unet", freeze=-1, source="encoder2")
    assert all(p.requires_grad for p in from_encoder.decoder.parameters())


def test_one_output_channel_is_corrected_itself():
    assert small("branch_unet", classes=1).targets == (0,)


# The region.


def test_the_square_surrounds_the_largest_object():
    mask = torch.zeros(200, 200)
    mask[50:70, 80:120] = 1
    mask[150:160, 150:160] = 1
    square = foreground_square(mask)
    assert square == Square((60, 100), 20 + 20)
    assert square.within((200, 200)) == (slice(20, 100), slice(60, 140))


def test_the_largest_object_counts_with_its_hole():
    mask = torch.zeros(60, 60)
    mask[5:25, 5:25] = 1
    mask[6:24, 6:24] = 0  # a ring of 76 pixels
    mask[40:50, 40:50] = 1  # 100 pixels
    assert foreground_square(mask, 0) == Square((15, 15), 10)


@pytest.mark.parametrize("corner", [(slice(0, 4), slice(0, 4)), (slice(28, 32), slice(28, 32))])
def test_a_square_at_a_corner_is_clipped(corner):
    mask = torch.zeros(32, 32)
    mask[corner] = 1
    place = foreground_square(mask, 3).within((32, 32))
    assert place == ((slice(0, 7),) * 2 if corner[0].start == 0 else (slice(25, 32),) * 2)
    assert crop(mask[None, None], place).shape == (1, 1, 32, 32)


def test_no_foreground_has_no_square():
    assert foreground_square(torch.zeros(8, 8)) is None


@in_one_case("size, centre", pairs([(40, 56), (12, 24, 20)], [0, 9, 11]))
def test_what_was_cut_out_fills_its_clipped_square_again(size, centre):
    place = Square((centre,) * len(size), 5).within(size)
    ones = torch.ones(1, 1, *size)
    filled = paste(crop(ones, place), place, torch.zeros(1, 1, *size)) > 0.5
    expected = torch.zeros(1, 1, *size, dtype=torch.bool)
    expected[(0, 0, *place)] = True
    assert torch.equal(filled, expected)


def test_a_crop_may_be_darkened_outside_its_foreground():
    x, foreground = torch.ones(1, 2, 8, 8), torch.zeros(1, 1, 8, 8)
    foreground[..., :4] = 1
    assert crop(x, Square((4, 4), 8).within((8, 8)), foreground)[..., 4:].sum() == 0


def test_the_heads_share_one_trunk():
    with torch.device("meta"):
        network = build("fine_grained_unet", 2, 1, 2)
    assert counts(network.head)[0] == 290
    assert counts(network.roi_head)[0] == 145
    fine, base = small("fine_grained_unet"), small("backboned_unet", encoder="darknet52")
    base.load_state_dict({key: value for key, value in fine.state_dict().items() if not key.startswith("roi_head")})
    x = noise(fine)
    with torch.no_grad():
        assert torch.equal(fine(x), base(x))
        assert torch.equal(fine.roi_logits(x), fine.roi_head(base.levels(x)["decoder0"]))


def constant_heads(network, image, region):
    """Make both heads say the same everywhere."""
    for head, values in ((network.head, image), (network.roi_head, region)):
        nn.init.zeros_(head.weight)
        head.bias.data = torch.tensor(values)
    return network


def test_no_big_object_means_no_tiny_one():
    network = constant_heads(small("fine_grained_unet"), [-9.0, 9.0], [9.0])
    assert not network.cascade(noise(network, 2)).any()
    assert network.training_outputs(noise(network, 2)).roi.isfinite().all()


@pytest.mark.parametrize(("classes", "dims"), [(1, 2), (2, 2), (4, 2), (2, 3)])
def test_the_cascade_puts_the_regions_answer_into_the_big_objects_square(classes, dims, monkeypatch):
    network = small("fine_grained_unet", dims, classes=classes, roi_margin=2)
    constant_heads(network, [9.0] * classes, [9.0] * max(1, classes - 1))
    place = (slice(3, 11),) * dims
    monkeypatch.setattr(network, "places", lambda logits: [place, None])
    found = network.cascade(noise(network, 2))
    expected = torch.zeros(32**dims, dtype=torch.bool).reshape((32,) * dims)
    expected[place] = True
    assert torch.equal(found[0, -1], expected)
    assert found[1, 0].all()
    assert classes == 1 or (found[0, 0].all() and not found[1, 1:].any())


def test_regions_come_from_the_big_channel_above_its_threshold():
    network = small("fine_grained_unet", roi_margin=1)
    logits = torch.full((2, 2, 32, 32), -9.0)
    logits[0, 0, 10:14, 10:14] = -0.8  # a score of 0.31
    logits[1, 1] = 9.0
    logits[1, 0] = -0.9  # 0.29
    assert network.places(logits) == [(slice(9, 15), slice(9, 15)), None]


@pytest.mark.parametrize("dims", [2, 3])
@in_one_case("training, mask", pairs(["true", "predicted", "mixed"], [False, True]))
def test_the_region_head_is_trained_on_the_region_that_is_asked_for(dims, training, mask, monkeypatch):
    chosen = {"roi_margin": 1, "roi_training": training, "roi_crop": "mask" if mask else "square"}
    network = constant_heads(small("fine_grained_unet", dims, **chosen), [-9.0, -9.0], [5.0])
    x, objects = torch.ones(64, 1, *(32,) * dims)[: 64 if dims == 2 else 6], None
    objects = torch.zeros(x.shape[0], *x.shape[2:], dtype=torch.bool)
    objects[(slice(None), *(slice(10, 14),) * dims)] = True
    seen, levels = [], network.levels
    monkeypatch.setattr(network, "levels", lambda y: seen.append(y) or levels(y))
    roi = network.outputs_with_objects(x, objects).roi
    inside = torch.isclose(roi[:, 1], torch.tensor(5.0))
    in_square = inside.flatten(1).sum(1)
    whole = inside.flatten(1).all(1)  # nothing is predicted, so the predicted region is the whole image
    assert torch.equal(whole | (in_square == 6**dims), torch.ones(len(x), dtype=torch.bool))
    share = whole.float().mean().item()
    assert share == {"true": 0.0, "predicted": 1.0}.get(training, pytest.approx(0.5, abs=0.45))
    dark = (seen[-1] == 0).flatten(1).any(1)
    assert torch.equal(dark, ~whole if mask else torch.zeros_like(whole))


def test_the_first_stage_alone_is_trained_where_no_class_is_an_object():
    network = small("fine_grained_unet")
    x = noise(network, 2)
    with torch.no_grad():
        out = network.outputs_with_objects(x, None)
        assert out.roi is None
        assert torch.equal(out.logits, network(x))


def test_region_logits_are_put_back_and_the_big_channel_is_kept():
    network = constant_heads(small("fine_grained_unet"), [9.0, -3.0], [5.0])
    out = network.training_outputs(noise(network, 2, 64))
    refined = out.roi
    assert torch.equal(refined[:, 0], out.logits[:, 0])
    assert (refined[:, 1] == 5).all()  # the square of an object that fills the image is the image
