"""The second look of the fine-grained network, and that nothing else looks twice."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from combinations import in_one_case
from torch import nn

from napari_unetvnet.images.volume import Volume
from napari_unetvnet.inference import FallbackSteps, steps
from napari_unetvnet.model.card import ModelCard
from napari_unetvnet.model.model import build_model
from napari_unetvnet.networks import NETWORKS
from napari_unetvnet.networks.base import SegmentationNetwork
from napari_unetvnet.settings import SegmentSettings

SMALL = {"width": 4, "encoder": "orig_unet", "roi_margin": 2}
SIZES = {2: (2, 64, 96), 3: (32, 32, 64)}


def fine_grained(view="2d", seed=0, **card):
    """Draw a network that finds a big object in a part of its input and tiny ones in a part of that."""
    torch.manual_seed(seed)
    chosen = {"head": "multilabel", "values": (1, 2, 3), "overlapping": True} | card
    made = ModelCard(network="fine_grained_unet", option=SMALL, view=view, patch=(32, 32, 32) if view == "3d" else
                     (1, 64, 64), normalise="none", **chosen)  # fmt: skip
    model = build_model(made, SegmentSettings(device="cpu", precision="fp32"))
    for head in (model.network.head, model.network.roi_head):
        nn.init.normal_(head.weight, std=0.5)
    return model


def noise(size, seed=1):
    """Draw an image with something in its middle, (1, Z, Y, X)."""
    data = np.random.default_rng(seed).normal(size=size).astype(np.float32)
    data[..., size[1] // 4 : size[1] // 2, size[2] // 4 : size[2] // 2] += 3
    return data[None]


def calm(model, volume):
    """Shift the heads so that both looks find some and not all, and see that they do."""
    network = model.network.eval()
    with torch.inference_mode():
        x = as_input(model, volume)
        logits = network(x)
        network.head.bias.data -= logits.amax((0, *range(2, logits.ndim))) * 0.6
        enlarged = network.roi_logits(x)
        network.roi_head.bias.data -= enlarged.mean((0, *range(2, enlarged.ndim)))
        found = network.cascade(x)
    assert 0 < found[:, 0].float().mean() < 0.5
    assert 0 < found[:, -1].float().mean() < 0.5
    return found


def as_input(model, volume):
    x = torch.from_numpy(volume.data)
    return x[None] if model.card.dims == 3 else x.transpose(0, 1)


def in_space(model, found):
    """What the cascade finds, as (K, Z, Y, X)."""
    return (found[0] if model.card.dims == 3 else found.transpose(0, 1)).numpy()


def labelled(model, volume, **chosen):
    slabs = list(steps(model, volume, SegmentSettings(**chosen), probabilities=True))
    labels = np.concatenate([slab.labels for slab in slabs], axis=-3)
    return labels, np.concatenate([slab.probabilities for slab in slabs], axis=-3)


@in_one_case("view", ["2d", "3d"])
@in_one_case("card", [{}, {"head": "binary", "values": (0, 7), "overlapping": False}])
def test_a_whole_image_gets_the_labels_of_the_cascade(view, card):
    model = fine_grained(view, **card)
    volume = Volume(noise(SIZES[model.card.dims]))
    found = in_space(model, calm(model, volume))
    labels, likely = labelled(model, volume, tile=(1, 64, 96) if view == "2d" else (32, 32, 64))
    there = found if model.card.overlapping else found[0]
    np.testing.assert_array_equal(labels > 0, there)
    np.testing.assert_array_equal((likely if model.card.overlapping else likely[1]) >= 0.5, there)
    plain, _ = labelled(model, volume, cascade=False)
    assert ((plain > 0) != there).any()


def test_left_out_there_is_the_first_look_alone():
    model = fine_grained()
    volume = Volume(noise(SIZES[2]))
    calm(model, volume)
    labels, _ = labelled(model, volume, cascade=False)
    with torch.inference_mode():
        first = model.network(as_input(model, volume)) >= 0
    np.testing.assert_array_equal(labels > 0, in_space(model, first))


def test_each_tile_has_a_region_of_its_own():
    model = fine_grained()
    volume = Volume(noise((1, 64, 128)))
    calm(model, volume)
    labels, _ = labelled(model, volume, tile=(1, 64, 64), overlap=0)
    with torch.inference_mode():
        halves = [model.network.cascade(x) for x in as_input(model, volume).split(64, dim=-1)]
    np.testing.assert_array_equal(labels > 0, in_space(model, torch.cat(halves, dim=-1)))


def test_without_a_big_object_there_is_nothing_tiny():
    model = fine_grained()
    nn.init.zeros_(model.network.head.weight)
    model.network.head.bias.data = torch.tensor([-9.0, 9.0, 9.0])
    labels, likely = labelled(model, Volume(noise((1, 64, 64))))
    assert not labels.any()
    assert likely[1:].max() < 0.001


@pytest.mark.parametrize(
    "card",
    [
        {"head": "multiclass", "values": (0, 1, 2), "overlapping": False},
        {"head": "multilabel", "values": (0, 1, 2), "overlapping": False},
    ],
)
def test_a_background_is_no_object_to_look_into(card):
    model = fine_grained(**card)
    volume = Volume(noise((1, 64, 64)))
    twice, once = (labelled(model, volume, cascade=cascade) for cascade in (True, False))
    for seen_twice, seen_once in zip(twice, once, strict=True):
        np.testing.assert_array_equal(seen_twice, seen_once)


def test_training_sees_the_first_look():
    model = fine_grained()
    x = as_input(model, Volume(noise((1, 64, 64))))
    model.network.train()
    blocks = torch.from_numpy(noise((2, 64, 64)))[None]
    torch.testing.assert_close(model.logits(blocks), model.logits(blocks, cascade=False))
    model.network.eval()
    assert (model.logits(x[None]) != model.logits(x[None], cascade=False)).any()


def test_the_cascade_is_seen_in_each_turn_and_with_the_fallback():
    model = fine_grained()
    volume = Volume(noise((2, 64, 64)))
    calm(model, volume)
    x = as_input(model, volume)
    with torch.inference_mode():
        likely = (model.network.segmentation_logits(x).sigmoid() +
                  model.network.segmentation_logits(x.flip(-1)).sigmoid().flip(-1)) / 2  # fmt: skip
    _, turned = labelled(model, volume, tta=("x",))
    np.testing.assert_allclose(turned, in_space(model, likely), atol=2e-3)
    whole, _ = labelled(model, volume)
    parts = [part.labels for part in FallbackSteps(model, volume, SegmentSettings()).steps()]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


def test_every_other_network_looks_once():
    classes = {name: NETWORKS.resolve(name) for name in NETWORKS}
    twice = {
        name for name, kind in classes.items()
        if kind.segmentation_logits is not SegmentationNetwork.segmentation_logits
    }  # fmt: skip
    assert twice == {"fine_grained_unet"}
