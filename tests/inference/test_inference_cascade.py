"""The second stage of the fine-grained network, and that no other network has one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from combinations import in_one_case
from torch import nn

from napari_unetvnet.errors import SettingsProblem
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.inference import FallbackSteps, steps
from napari_unetvnet.model.card import ModelCard, with_options
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
    chosen.setdefault("option", SMALL)
    made = ModelCard(network="fine_grained_unet", view=view, patch=(32, 32, 32) if view == "3d" else
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


def test_left_out_there_is_the_first_stage_alone_cut_at_the_same_thresholds():
    model = fine_grained(option=SMALL | {"roi_threshold": 0.3, "tiny_threshold": 0.4})
    volume = Volume(noise(SIZES[2]))
    found = in_space(model, calm(model, volume))
    once, likely = labelled(model, volume, cascade=False)
    with torch.inference_mode():
        scores = in_space(model, model.network(as_input(model, volume)).sigmoid())
    expected = np.stack([scores[0] > 0.3, scores[1] > 0.4, scores[2] > 0.4])
    np.testing.assert_array_equal(once > 0, expected)
    np.testing.assert_array_equal(likely > 0.5, expected)
    twice, _ = labelled(model, volume)
    np.testing.assert_array_equal(once[0], twice[0])
    np.testing.assert_array_equal(twice > 0, found)
    assert (once[1:] != twice[1:]).any()


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
    assert "no second stage" in model.card.one_stage
    assert not fine_grained().card.one_stage


def test_thresholds_can_be_changed_after_the_training_and_other_options_cannot():
    card = with_options(fine_grained().card, {"roi_threshold": "0.5"})
    assert card.option == SMALL | {"roi_threshold": 0.5}
    for network, option, words in (
        ("fine_grained_unet", "roi_crop", "only roi_threshold, tiny_threshold, roi_margin can"),
        ("unet_padding", "width", "none of its options can"),
    ):
        with pytest.raises(SettingsProblem, match=words):
            with_options(card.model_copy(update={"network": network}), {option: 1})


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
    for method in ("segmentation_logits", "outputs_with_objects"):
        own = getattr(SegmentationNetwork, method)
        assert [name for name in NETWORKS if getattr(NETWORKS.resolve(name), method) is not own] == [
            "fine_grained_unet"
        ]
    assert [name for name in NETWORKS if NETWORKS.describe(name).facts["two_stages"]] == ["fine_grained_unet"]
