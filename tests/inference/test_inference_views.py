"""The mean over the planes along all three axes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_inference_orientations import model_of
from test_inference_segment import Pointwise, pointwise_model
from test_inference_selection import segmented

from napari_unetvnet.errors import SettingsProblem
from napari_unetvnet.images.geometry import Geometry
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.inference import resample_for, small_image_notice, steps
from napari_unetvnet.model.card import ModelCard
from napari_unetvnet.model.model import build_model
from napari_unetvnet.settings import SegmentSettings

SHAPE = (12, 16, 20)


@pytest.fixture
def volume():
    return Volume(np.random.default_rng(1).normal(size=(1, *SHAPE)).astype(np.float32))


def model_for(view, head="multiclass", values=(0, 1, 2)):
    torch.manual_seed(0)
    card = ModelCard(network="unet_padding", option={"width": 2, "depth": 2}, head=head, view=view, values=values,
                     context=1 if view == "2.5d" else 0, patch=(1, 8, 8), normalise="none")  # fmt: skip
    model = build_model(card, SegmentSettings(device="cpu", precision="fp32"))
    model.network.eval()
    return model


def along(model, volume, order, flips=()):
    """Probabilities of the planes along one axis, (K, Z, Y, X)."""
    turned = Volume(volume.data.transpose(0, *(1 + axis for axis in order)).copy())
    _, likely = segmented(model, turned, tta=flips)
    return likely.astype(float).transpose(0, *(1 + order.index(axis) for axis in range(3)))


@pytest.mark.parametrize(
    ("view", "head", "values"),
    [
        ("2d", "multiclass", (0, 1, 2)),
        ("2.5d", "multiclass", (0, 1, 2)),
        ("2d", "binary", (0, 5)),
        ("2.5d", "multilabel", (3, 4)),
    ],
)
def test_it_is_the_mean_of_three_segmentations(volume, view, head, values):
    model = model_for(view, head, values)
    labels, likely = segmented(model, volume, view="multi-view")
    three = [along(model, volume, order) for order in ((0, 1, 2), (1, 0, 2), (2, 0, 1))]
    assert np.abs(three[0] - three[1]).max() > 0.01
    np.testing.assert_allclose(likely.astype(float), np.mean(three, axis=0), atol=2e-3)
    if head == "multiclass":
        first, second = np.sort(likely.astype(float), axis=0)[[-1, -2]]
        clear = first - second > 2e-3
        np.testing.assert_array_equal(labels[clear], likely.argmax(0)[clear])


def test_axes_to_mirror_are_those_of_the_image(volume):
    model = model_for("2d")
    _, likely = segmented(model, volume, view="multi-view", tta=("z",))
    names = {(0, 1, 2): (), (1, 0, 2): ("y",), (2, 0, 1): ("y",)}  # z is the first axis of these planes
    three = [along(model, volume, order, flips) for order, flips in names.items()]
    np.testing.assert_allclose(likely.astype(float), np.mean(three, axis=0), atol=2e-3)


def test_a_pointwise_network_says_the_same_along_all_axes(volume):
    model = pointwise_model("2d")
    np.testing.assert_array_equal(segmented(model, volume, view="multi-view")[0], segmented(model, volume)[0])


def test_a_volume_whose_axes_are_all_exchanged_gives_the_exchanged_result(volume):
    model = model_for("2d")
    for layer in model.network.modules():  # rows and columns are alike to it
        if isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            layer.weight.data = (layer.weight + layer.weight.transpose(-1, -2)) / 2
    straight = segmented(model, volume, view="multi-view")[1].astype(float)
    turned = segmented(model, Volume(volume.data.transpose(0, 3, 2, 1).copy()), view="multi-view")[1].astype(float)
    np.testing.assert_allclose(turned.transpose(0, 3, 2, 1), straight, atol=3e-3)


def test_going_on_from_a_plane_gives_the_same_bits(volume):
    model, chosen = model_for("2.5d"), SegmentSettings(view="multi-view")
    everything = np.concatenate([slab.labels for slab in steps(model, volume, chosen)])
    rest = np.concatenate([slab.labels for slab in steps(model, volume, chosen, first_plane=7)])
    np.testing.assert_array_equal(rest, everything[7:])


def test_inside_of_a_mask_all_is_as_without_it_and_less_is_computed(volume):
    model = model_for("2d")
    mask = np.zeros((1, *SHAPE), np.uint8)
    mask[0, 2:5, 3:9, 11:13] = 1
    assert model.voxel_bytes  # to measure it the network runs once more
    seen = []
    model.network.register_forward_hook(lambda _, inputs, __: seen.append(tuple(inputs[0].shape)))
    labels, _ = segmented(model, volume, mask=mask, view="multi-view")
    assert len(seen) == 3 + 6 + 2
    np.testing.assert_array_equal(labels, segmented(model, volume, view="multi-view")[0] * mask[0])


def test_planes_are_brought_as_near_as_the_voxels_in_them():
    model = model_of(Pointwise, "2d")
    flat = Volume(np.zeros((1, 5, 16, 20)), Geometry((3.0, 1.0, 1.0), "micrometer"))
    several = SegmentSettings(view="multi-view")
    assert resample_for(model.card, flat, several).shape == (15, 16, 20)
    assert resample_for(model.card, flat, SegmentSettings()) is flat
    assert resample_for(model.card, flat, SegmentSettings(view="multi-view", resample=False)) is flat
    model.card = model.card.model_copy(update={"spacing": (9.0, 2.0, 2.0), "unit": "micrometer"})
    assert resample_for(model.card, flat, several).shape == (8, 8, 10)
    labels, _ = segmented(model, flat, view="multi-view")
    assert labels.shape == flat.shape


def test_what_cannot_be_seen_along_all_axes_is_refused(volume):
    with pytest.raises(SettingsProblem, match=r"view 2d or 2\.5d; this model has view 3d"):
        next(steps(pointwise_model("3d"), volume, SegmentSettings(view="multi-view")))


def test_a_stack_of_few_planes_is_mirrored_for_the_planes_along_the_other_axes():
    thin, model = Volume(np.random.default_rng(0).normal(size=(1, 3, 16, 16))), pointwise_model("2d", divisor=4)
    labels, _ = segmented(model, thin, view="multi-view")
    np.testing.assert_array_equal(labels, thin.data[0] < 0)
    assert not small_image_notice(model, thin)
    assert "fewer than the 4 x 4 x 4 that" in small_image_notice(model, thin, "multi-view")
