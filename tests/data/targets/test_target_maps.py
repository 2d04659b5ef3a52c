"""What every map that a loss can ask for must do; a new row is held to it without an edit here."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_unetvnet.data import prepare
from napari_unetvnet.data.targets import TARGET_MAPS, TargetMap, find_classes, for_loss, make_target, needed_maps
from napari_unetvnet.images.pairs import Pair
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.losses import LOSSES
from napari_unetvnet.settings import TrainSettings, checked

MEANINGS = {
    "classes": {},
    "strokes": {"unlabelled": "ignore"},
    "objects": {"label_values": "objects"},
    "regions": {"regions": "WT=1+2 ET=2"},
    "lines": {"lines": [1]},
    "overlapping": {"label_values": "overlapping"},
}


def blobs(masks=1, size=(4, 24, 24)):
    """Blocks of values 0 to 3, (C, Z, Y, X)."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 4, (masks, *(n // 4 for n in size))).repeat(4, 1).repeat(4, 2).repeat(4, 3).astype(np.uint8)


def target_of(labels, settings, mask=None):
    return make_target(labels, find_classes([Volume(labels)], settings), settings, "labels", mask)


@pytest.mark.parametrize("name", TARGET_MAPS)
@pytest.mark.parametrize("meaning", MEANINGS)
def test_a_map_is_finite_for_labels_of_any_kind(name, meaning):
    row, settings = TARGET_MAPS[name], checked(TrainSettings, MEANINGS[meaning])
    labels = blobs(2 if meaning == "overlapping" else 1)
    mask = np.ones(labels.shape[1:], np.uint8)
    mask[:, 5:9] = 0
    values = row.compute(labels, target_of(labels, settings, mask), settings)
    assert np.isfinite(values).all()
    assert np.isfinite(row.outside)
    assert row.use == "map" or (values.min() >= 0 and row.channels is None)
    assert row.help.endswith(".")


@pytest.mark.parametrize("name", TARGET_MAPS)
def test_a_mirrored_image_has_the_mirrored_map(name):
    row, settings = TARGET_MAPS[name], checked(TrainSettings, {})
    labels = blobs()
    for axis in (-3, -2, -1):
        values, mirrored = (
            row.compute(each, target_of(each, settings), settings) for each in (labels, np.flip(labels, axis))
        )
        np.testing.assert_allclose(np.flip(mirrored, axis), values, rtol=1e-5)


def test_the_maps_of_a_loss_are_those_that_it_names():
    assert needed_maps(checked(TrainSettings, {"loss": "dice"})) == {}
    for name in LOSSES:
        needs = LOSSES.describe(name).facts.get("needs", ())
        asked = [need for need in needs if need in TARGET_MAPS]
        if asked and "multiclass" in LOSSES.describe(name).facts["head_modes"]:
            assert list(needed_maps(checked(TrainSettings, {"loss": f"dice + {name}"}))) == asked


def toy(labels, target, settings):
    """Count label values in a 3 x 3 x 3 block, in two channels."""
    padded = np.pad(labels[0].astype(np.float32), 1)
    total = sum(np.roll(padded, (z, y, x), (0, 1, 2)) for z in (-1, 0, 1) for y in (-1, 0, 1) for x in (-1, 0, 1))
    return np.stack([total, -total])[:, 1:-1, 1:-1, 1:-1].astype(np.float32)


@pytest.fixture
def toy_map(monkeypatch):
    row = TargetMap(help="A toy.", function=f"{__name__}:toy", channels=2, margin=1)
    monkeypatch.setitem(TARGET_MAPS, "toy", row)
    monkeypatch.setattr("napari_unetvnet.data.targets.maps.loss_needs", lambda _: {"toy": "any"})
    return row


@pytest.mark.parametrize("name", [*(name for name, row in TARGET_MAPS.items() if row.margin is not None), "toy"])
def test_the_margin_of_a_map_is_enough(name, toy_map):
    row, settings = TARGET_MAPS[name], checked(TrainSettings, {})
    labels = blobs(size=(4, 24, 24 + 4 * row.margin))
    target, first = target_of(labels, settings), 2 * row.margin
    wide = (..., slice(first - row.margin, first + 8 + row.margin))
    whole, part = row.compute(labels, target, settings), row.compute(labels[wide], target[wide], settings)
    np.testing.assert_array_equal(part[..., row.margin : row.margin + 8], whole[..., first : first + 8])


@pytest.mark.parametrize("voxels", [500, 10**9])
def test_a_map_is_the_same_whole_and_part_by_part(toy_map, monkeypatch, voxels):
    monkeypatch.setattr("napari_unetvnet.images.arrays.PART_VOXELS", voxels)
    labels, settings = blobs(), checked(TrainSettings, {"hold_out": 0})
    image = Volume(np.zeros(labels.shape, np.float32))
    (region,) = prepare.prepare_data([Pair(image, Volume(labels))], settings, (1, 8, 8)).train
    np.testing.assert_array_equal(region.maps["toy"], toy(labels, None, None))


def test_a_function_that_returns_another_shape_than_its_row_says_is_refused(toy_map):
    with pytest.raises(TypeError, match="not float32"):
        TargetMap(help="", function=f"{__name__}:toy").compute(blobs(), None, None)


def test_weights_are_multiplied_and_maps_keep_their_names(toy_map, monkeypatch):
    weight = TargetMap(help="", function="", use="weight")
    monkeypatch.setitem(TARGET_MAPS, "one", weight)
    monkeypatch.setitem(TARGET_MAPS, "two", weight)
    tensors = {name: torch.full((1, 2, 3, 4), float(i)) for i, name in enumerate(("toy", "one", "two"), start=2)}
    product, named = for_loss(tensors)
    assert (product == 12).all()
    assert named == {"toy": tensors["toy"]}
    assert for_loss({}) == (None, {})
