"""What a model computes besides logits: as its network gives it, on the grid of the image, whatever the tiles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from combinations import in_one_case
from torch import nn

from napari_unetvnet.errors import ModelProblem
from napari_unetvnet.images.geometry import Geometry
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.inference import map_steps, steps
from napari_unetvnet.model.card import ModelCard
from napari_unetvnet.model.model import build_model
from napari_unetvnet.model.outputs import OutputModel, choose_outputs
from napari_unetvnet.networks import NETWORKS, available_outputs
from napari_unetvnet.networks.decoder_blocks import resize
from napari_unetvnet.settings import SegmentSettings

CPU = {"device": "cpu", "precision": "fp32"}
VAE = {"width": 8, "vae": "paper", "patch_z": 16, "patch_y": 16, "patch_x": 32}
MODELS = {
    "unetpp": ("unetpp", {"width": 2, "depth": 2}, "2d"),
    "unet3d_ds": ("unet3d_ds", {"width": 2, "depth": 4}, "3d"),
    "hypercolumn": ("hypercolumn_unet", {"width": 2, "depth": 3, "deep_supervision": 1}, "2.5d"),
    "unet25d": ("unet25d", {"width": 2}, "3d"),
    "vae": ("segresnet_vae", VAE, "3d"),
    "planes of a vae": ("segresnet_vae", VAE, "2.5d"),
    "backboned": ("backboned_unet", {"width": 1, "deep_supervision": 1}, "2d"),
    "unet_padding": ("unet_padding", {"width": 2, "depth": 2}, "2d"),
}


def a_model(name, head="multiclass", **card):
    """An untrained model whose running statistics are no longer those of the start."""
    network, option, view = MODELS[name]
    values = {"binary": (0, 1), "multiclass": (0, 1, 2), "multilabel": (1, 2)}[head]
    patch = (16, 16, 32) if view == "3d" else (1, 32, 32)
    context = int(view == "2.5d")
    facts = {"network": network, "option": option, "head": head, "view": view, "values": values, "context": context}
    torch.manual_seed(0)
    model = build_model(ModelCard(**facts | {"patch": patch} | card), SegmentSettings(**CPU))
    model.network.train()
    with torch.no_grad():
        size = model.network.patch or model.network.fit((32,) * model.card.dims)
        model.network(torch.randn(2, model.card.in_channels, *size))
        for parameter in model.network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))  # a branch or a bias of 0 would show nothing
    model.network.eval()
    return model


def noise(shape, **facts):
    data = np.random.default_rng(0).normal(100, 20, (1, *shape)).astype(np.float32)
    return Volume(np.sort(data, axis=-1), Geometry(**facts))


def maps_of(model, what, volume, **chosen):
    slabs = list(map_steps(OutputModel(model, what), volume, SegmentSettings(**CPU | chosen)))
    assert [slab.start for slab in slabs] == [0, *(slab.stop for slab in slabs[:-1])]
    assert slabs[-1].stop == volume.shape[0]
    return {name: np.concatenate([slab.maps[name] for slab in slabs], axis=1) for name in slabs[0].maps}


def normalised(volume, model):
    """The volume as the network sees it whole: (Z, C, Y, X) of planes, or (1, C, Z, Y, X)."""
    x = torch.from_numpy((volume.data - volume.data.mean()) / volume.data.std()).float()
    if model.card.dims == 3:
        return x[None]
    planes = np.arange(x.shape[1])
    near = [x[0, (planes + i).clip(0, len(planes) - 1)] for i in range(-model.card.context, model.card.context + 1)]
    return torch.stack(near, dim=1)


@in_one_case(
    "name, head, facts",
    [
        ("unetpp", "binary", {}),
        ("unet3d_ds", "multiclass", {}),
        ("unet3d_ds", "multilabel", {"spacing": (2.0, 1.0, 1.5), "unit": "mm", "resampled": True}),
        ("hypercolumn", "multilabel", {}),
        ("backboned", "multiclass", {"spacing": (1.0, 1.6, 1.0), "unit": "mm", "resampled": True}),
    ],
)
def test_the_main_level_is_what_segment_gives(name, head, facts):
    model, volume = a_model(name, head, **facts), noise((12, 36, 40), unit=facts.get("unit", "pixel"))
    chosen = {"tile": (8, 32, 32)}
    maps = maps_of(model, "levels", volume, **chosen)
    expected = steps(model, volume, SegmentSettings(**CPU | chosen), probabilities=True)
    expected = np.concatenate([slab.probabilities for slab in expected], axis=1)
    np.testing.assert_allclose(maps["main"], expected, atol=1e-3)
    assert len(maps) == {"unetpp": 2, "unet3d_ds": 3}.get(name, 2)
    assert all(part.shape == expected.shape and part.min() >= 0 and part.max() <= 1 for part in maps.values())
    if head != "multilabel":
        assert all(np.allclose(part.sum(axis=0), 1, atol=1e-5) for part in maps.values())


@pytest.mark.parametrize(("name", "what"), [("unetpp", "levels"), ("unet25d", "attention"), ("backboned", "heatmaps")])
def test_a_frame_changes_nothing_within(name, what):
    """As in a segmentation, which leaves a frame of one value out."""
    model, inner = a_model(name, normalise_in="content"), noise((6, 32, 64))
    framed = Volume(np.pad(inner.data, ((0, 0), (2, 1), (5, 9), (3, 4))))
    expected, maps = maps_of(model, what, inner), maps_of(model, what, framed)
    for part, own in zip(maps.values(), expected.values(), strict=True):
        np.testing.assert_allclose(part[:, 2:-1, 5:-9, 3:-4], own, atol=1e-5)
        around = part[:, :2].reshape(len(part), -1).T
        outside = {"levels": [1, 0, 0], "attention": [0], "heatmaps": [np.nan]}[what]
        np.testing.assert_array_equal(around, np.broadcast_to(outside, around.shape))


def test_each_level_is_that_of_the_network():
    model, volume = a_model("unet3d_ds", "binary"), noise((8, 16, 24))
    maps, x = maps_of(model, "levels", volume), normalised(volume, model)
    with torch.no_grad():
        for name, dropped in (("level1", (0,)), ("level2", (0, 1))):
            for i in dropped:  # without the heads above, the output is the sum that the level begins
                nn.init.zeros_(model.network.heads[i].weight)
                nn.init.zeros_(model.network.heads[i].bias)
            np.testing.assert_allclose(maps[name][1], model.network(x).sigmoid()[0, 0], atol=1e-5)


@pytest.mark.parametrize("depth", [5, 8])
def test_attention_is_that_of_the_network_at_the_size_of_the_image(depth):
    model, volume = a_model("unet25d"), noise((depth, 32, 48))
    maps = maps_of(model, "attention", volume)
    attended = model.network.training_outputs(normalised(volume, model)).attention
    planes = {5: (5, 5, 5, 3, 2), 8: (8, 8, 8, 4, 2)}[depth]  # what is beyond them was added to odd numbers
    assert list(maps) == [f"level{i}" for i in range(5)]
    for part, own, n in zip(maps.values(), attended, planes, strict=True):
        expected = resize(own[:, :, :n], volume.shape)[0].detach().numpy()
        np.testing.assert_allclose(part, expected, atol=1e-5)
        assert part.shape == (1, *volume.shape)
        assert 0 <= part.min() < part.max() <= 1


@pytest.mark.parametrize(("name", "shape"), [("backboned", (2, 64, 32)), ("unet_padding", (1, 32, 34))])
def test_heat_maps_are_mean_magnitudes(name, shape):
    model, volume = a_model(name), noise(shape)
    maps, levels = maps_of(model, "heatmaps", volume), model.network.activations(normalised(volume, model))
    assert list(maps) == list(levels)
    for part, level in zip(maps.values(), levels.values(), strict=True):
        expected = resize(level.abs().mean(dim=1, keepdim=True), shape[1:])[:, 0].detach().numpy()
        np.testing.assert_allclose(part[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "shape"), [("vae", (16, 16, 32)), ("planes of a vae", (3, 16, 32)), ("vae", (9, 20, 50))]
)
def test_a_reconstruction_is_given_back_in_the_intensities_of_the_image(name, shape):
    model, volume = a_model(name), noise(shape)
    (restored,) = maps_of(
        model, "reconstruction", volume, tile=OutputModel(model, "reconstruction").fit((1, 1, 1))
    ).values()
    assert restored.shape == (1, *shape)
    if shape[1:] == (16, 32):  # the patch of the branch, so a single tile
        x = normalised(volume, model)
        given_back = model.network.training_outputs(x).reconstruction.detach().numpy()
        own = given_back[0] if model.card.dims == 3 else given_back[:, 1][None]  # the plane between its neighbours
        np.testing.assert_allclose(restored, own * volume.data.std() + volume.data.mean(), rtol=1e-4, atol=1e-3)
    with pytest.raises(ModelProblem, match="takes tiles of"):
        maps_of(model, "reconstruction", noise((17, 40, 40)), tile=(32, 64, 64))


@in_one_case("name, what, size", [("unetpp", "levels", 2), ("unet_padding", "heatmaps", 1)])
def test_tiles_agree_with_the_whole(name, what, size):
    """Each voxel comes from the tile whose centre is nearest, and no tile ends within reach of it."""
    model, volume = a_model(name), noise((1, 96, 64))
    tiled = maps_of(model, what, volume, tile=(1, 48, 48), overlap=0.83, blending="centre")
    for name, part in maps_of(model, what, volume).items():
        assert part.std() > 0
        np.testing.assert_allclose(tiled[name], part, rtol=1e-3, atol=1e-4)
    assert len(tiled) == size


def test_what_a_model_has_is_declared():
    """By the network and the options of the model; the rest is refused with what there is."""
    assert set(choose_outputs(a_model("backboned").card, ())) == {"heatmaps", "levels"}
    assert choose_outputs(a_model("unet25d").card, ["attention"]) == ("attention",)
    with pytest.raises(ModelProblem, match=r"has no attention; it has levels\. There are heatmaps of .*unet_padding"):
        choose_outputs(a_model("unetpp").card, ["levels", "attention"])
    for options in ({}, {"supervision": True}, {"supervision": False}):
        assert available_outputs("unetpp", options) == (("levels",) if options.get("supervision", True) else ())
    card = a_model("vae").card.model_copy(update={"option": {}})
    with pytest.raises(ModelProblem, match=r"computes nothing but its labels\. .*reconstruction of segresnet_vae"):
        choose_outputs(card, [])
    with_attention = [name for name in NETWORKS if "attention" in available_outputs(name, {})]
    assert with_attention == ["unet25d", "vs_seg", "attention_unet"]
