"""A segmentation with two models: the first finds the region in which the second one is applied."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from combinations import in_one_case, pairs
from scipy import ndimage

from napari_unetvnet.errors import SettingsProblem, UserError
from napari_unetvnet.events import Notice
from napari_unetvnet.inference.region import cut_of, region_classes, voxels_of
from napari_unetvnet.model.card import ModelCard
from napari_unetvnet.model.model import build_model
from napari_unetvnet.runs.folder import LABELS, REGION
from napari_unetvnet.runs.segment import segment
from napari_unetvnet.settings import SegmentJob, SegmentSettings, checked

SIZES = {2: (1, 40, 48), 3: (20, 24, 32)}
SPACING = (2.0, 1.0, 1.0)


def image(dims):
    """Give objects in the first channel, and details everywhere in the second one, (2, Z, Y, X)."""
    size = SIZES[dims]
    data = np.zeros((2, *size), np.float32)
    data[0, size[0] // 4 : size[0] // 4 + 3, 4:10, 5:12] = 1
    data[0, -3:, -6:-2, -9:-3] = 1
    data[1] = np.random.default_rng(0).random(size) > 0.8
    return data


def model(channel, dims, channels=2):
    """Give a model that finds what is above 0.5 in a channel."""
    card = ModelCard(network="unet_padding", option={"width": 2, "depth": 2}, head="binary", values=(0, 1),
                     channels=channels, view=f"{dims}d", patch=(1, 16, 16), normalise="none",
                     class_names=("background", "object"))  # fmt: skip
    built = build_model(card, SegmentSettings(device="cpu", precision="fp32"))
    built.logits = lambda blocks, cascade=True: 20 * (blocks[:, channel : channel + 1] - 0.5)
    return built


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Give a function that segments an image by two models: labels, region and notices."""
    for name in ("first", "second"):
        (tmp_path / f"{name}.safetensors").touch()

    def run(data, finished=0, **chosen):
        dims = 2 if data.shape[1] == 1 else 3

        def load(path, *_):  # the second model fits the image in any case
            return model(1, dims, len(data)) if str(path).endswith("second.safetensors") else model(0, dims)

        monkeypatch.setattr("napari_unetvnet.model.model.load_model", load)
        np.save(tmp_path / "image.npy", data)
        paths = {"model": str(tmp_path / "second.safetensors"), "region_model": str(tmp_path / "first.safetensors")}
        made = checked(SegmentJob, {"image": str(tmp_path / "image.npy"), "spacing": SPACING} | paths | chosen)
        events = list(segment(tmp_path, made, finished=finished))
        said = [event.text for event in events if isinstance(event, Notice)]
        return np.load(tmp_path / LABELS), np.load(tmp_path / REGION)[0], said

    return run


def grown(mask, margin):
    """Enlarge a mask by a margin in y and x and half of it in z, where voxels are twice as long."""
    reach = (round(margin / 2), margin, margin)
    return ndimage.binary_dilation(mask, np.ones([2 * n + 1 for n in reach]))


def boxed(mask):
    """Fill the box around a mask."""
    filled = np.zeros_like(mask)
    filled[ndimage.find_objects(mask.astype(int))[0]] = True
    return filled


@in_one_case("dims, shape, margin", pairs([2, 3], ["box", "union", "mask"], [0, 3]))
def test_the_second_model_is_applied_in_the_region_of_the_first(job, dims, shape, margin):
    data = image(dims)
    first, second = data > 0.5
    numbers, count = ndimage.label(first, np.ones((3, 3, 3)))
    expected = {
        "box": np.any([grown(boxed(numbers == k + 1), margin) for k in range(count)], axis=0),
        "union": grown(boxed(first), margin),
        "mask": grown(first, margin),
    }[shape]
    labels, region, said = job(data, region_shape=shape, region_margin=margin)
    np.testing.assert_array_equal(region, expected)
    np.testing.assert_array_equal(labels, second & expected)
    assert 0 < expected.mean() < 1
    assert "2 objects" in said[-1]


def test_only_the_largest_objects_within_box_and_mask_make_the_region(job, tmp_path):
    data = image(2)
    mask = np.ones(SIZES[2], np.uint8)
    mask[:, :6] = 0
    np.save(tmp_path / "mask.npy", mask)
    chosen = {"region_largest": 1, "region_margin": 1, "mask": str(tmp_path / "mask.npy"), "box_stop": (1, 40, 9)}
    labels, region, said = job(data, **chosen)
    expected = np.zeros(SIZES[2], bool)
    expected[0, 6:11, 4:10] = True
    np.testing.assert_array_equal(region, expected)
    expected[..., 9:] = False
    np.testing.assert_array_equal(labels, (data[1] > 0.5) & expected)
    assert "1 object," in said[-1]
    assert "1 of 2 objects" in job(data, region_largest=1)[2][-1]


def test_an_empty_region_is_said_and_labels_nothing(job):
    data = image(3)
    data[0] *= 0.3
    labels, region, said = job(data, region_class="object")
    assert not labels.any()
    assert not region.any()
    assert "finds no object in" in said[-1]


def test_a_resumed_run_uses_the_region_that_it_found(job, tmp_path):
    labels, region, _ = job(image(3))
    np.save(tmp_path / REGION, np.ones_like(region)[None])
    again, _, said = job(image(3), finished=len(labels))
    np.testing.assert_array_equal(again, labels)  # nothing was left to do
    assert not any("Finding" in text for text in said)


@in_one_case(
    "chosen, said",
    [
        ({"region_model": None, "region_margin": 3}, "region_margin would have no effect; give region_model"),
        ({"region_class": "liver"}, "no class liver; choose region_class from 0, 1, background, object"),
        ({"region_shape": "ball"}, "region_shape"),
    ],
)
def test_what_cannot_make_a_region_is_refused_with_a_sentence(job, chosen, said):
    with pytest.raises(SettingsProblem, match=said):
        job(image(2), **chosen)


def test_a_first_model_for_other_images_is_named(job):
    with pytest.raises(UserError, match=r"The region model .*first.safetensors: The model expects images with 2 chan"):
        job(image(2)[:1])


def test_classes_are_cut_by_their_labels_or_their_probability():
    likely = np.array([0.2, 0.5, 0.3])[:, None, None, None]
    slab = SimpleNamespace(labels=np.array([[[4]]]), probabilities=likely)
    card = ModelCard(network="unet_padding", head="multiclass", view="2d", values=(0, 4, 7), patch=(1, 8, 8))
    assert region_classes(card, ()) == (1, 2)
    assert region_classes(card, ("7",)) == (2,)
    for classes, cut, inside in (((1,), None, True), ((2,), None, False), ((1, 2), 0.75, True), ((1,), 0.6, False)):
        assert voxels_of(slab, card, classes, cut).all() == inside
    nested = card.model_copy(update={"head": "multilabel", "values": (2, 4, 7), "paint_order": (0, 1, 2)})
    assert cut_of(nested, None) == 0.5  # the class that is painted over is there as well
    assert voxels_of(slab, nested, (1, 2), 0.5).all()
    assert not voxels_of(slab, nested, (0, 2), 0.5).any()
