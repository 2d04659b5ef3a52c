"""A model that learnt single objects gives single objects, unless it is asked for its classes."""

from __future__ import annotations

import numpy as np
import pytest
from combinations import in_one_case
from test_inference_segment import pointwise_model

from napari_unetvnet import runs
from napari_unetvnet.events import Notice
from napari_unetvnet.images.geometry import Geometry
from napari_unetvnet.images.io import read_labels
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.model.card import ModelCard, ObjectsLearnt
from napari_unetvnet.runs import objects
from napari_unetvnet.settings import SegmentJob, checked

LEARNT = ObjectsLearnt(rule="components", count=3, voxels=(7, 20, 90))


def job(**chosen):
    return checked(SegmentJob, {"image": "a.npy", "model": "m", **chosen})


def card(learnt=LEARNT, **facts):
    given = {"network": "unet3d", "head": "multiclass", "view": "3d", "values": (0, 1), "patch": (8, 16, 16)}
    return ModelCard(**given, objects=learnt, **facts)


def image(shape=(4, 8, 8), spacing=(1.0, 1.0, 1.0), unit="pixel"):
    return Volume(np.broadcast_to(np.zeros((), np.float32), (1, *shape)), Geometry(spacing, unit))


def test_auto_is_what_the_card_says_and_half_of_the_smallest_object_is_the_least():
    settled, notice = objects.settle_objects(job(), card(), image())
    assert (settled.objects, settled.min_size, settled.min_size_in) == ("components", ((0, 3.0),), "voxels")
    assert "an id for each, without pieces below 3 voxels" in notice
    assert "objects=none" in notice


@in_one_case("chosen", [{"objects": "none"}, {"objects": "watershed"}, {"objects": "components", "keep_largest": 2}])
def test_what_is_chosen_stays(chosen):
    assert objects.settle_objects(job(**chosen), card(), image()) == (job(**chosen), "")


def test_a_chosen_size_stays():
    settled, notice = objects.settle_objects(job(min_size=5, min_size_in="physical"), card(), image())
    assert (settled.objects, settled.min_size, settled.min_size_in) == ("components", ((0, 5.0),), "physical")
    assert "pieces" not in notice


@in_one_case("chosen, learnt", [({}, None), ({"thin": [1]}, LEARNT), ({"nested": "brats"}, LEARNT)])
def test_classes_stay_classes(chosen, learnt):
    settled, notice = objects.settle_objects(job(**chosen), card(learnt), image())
    assert (settled, notice) == (job(**chosen, objects="none"), "")


@in_one_case(
    "resampled, spacing, unit, least",
    [
        (False, (2.0, 0.5, 0.5), "micrometer", 3),  # the network sees voxels, whatever their length
        (True, (1.0, 0.5, 0.5), "micrometer", 12),  # 3 voxels of 1 are 12 of 1/4
        (True, (0.001, 0.001, 0.0005), "mm", 6),
        (True, (9.0, 9.0, 9.0), "micrometer", 1),
        (True, (1.0, 0.5, 0.5), "pixel", 3),  # not comparable
    ],
)
def test_the_least_size_is_that_of_the_grid_that_was_learnt(resampled, spacing, unit, least):
    learnt = card(resampled=resampled, spacing=(1.0, 1.0, 1.0), unit="micrometer")
    settled, _ = objects.settle_objects(job(), learnt, image(spacing=spacing, unit=unit))
    assert settled.min_size == ((0, least),)


@in_one_case(
    "edges, resampled, spacing, unit, depth",
    [
        (None, False, (1.0, 1.0, 1.0), "micrometer", None),
        (2.0, False, (4.0, 0.5, 0.5), "micrometer", 8.0),
        (2.0, True, (4.0, 0.5, 0.5), "micrometer", 2.0),  # the network sees edges of 1
        (2.0, True, (0.004, 0.0005, 0.0005), "mm", 0.002),
    ],
)
def test_necks_are_split_at_the_depth_that_was_learnt(edges, resampled, spacing, unit, depth):
    learnt = LEARNT.model_copy(update={"rule": "watershed", "split_edges": edges})
    told = card(learnt, resampled=resampled, spacing=(1.0, 1.0, 1.0), unit="micrometer")
    settled, _ = objects.settle_objects(job(), told, image(spacing=spacing, unit=unit))
    assert settled.objects == "watershed"
    assert settled.split_depth == (None if depth is None else pytest.approx(depth))


def test_a_plane_has_no_depth():
    learnt = LEARNT.model_copy(update={"rule": "watershed", "split_edges": 3.0})
    settled, _ = objects.settle_objects(job(), card(learnt), image((1, 8, 8), spacing=(9.0, 1.0, 1.0)))
    assert settled.split_depth == 3


def test_an_image_that_does_not_fit_into_memory_stays_classes(monkeypatch):
    monkeypatch.setattr(objects, "_memory_bytes", lambda: 15 * 256)
    assert objects.settle_objects(job(), card(), image((4, 8, 8)))[0].objects == "components"
    settled, notice = objects.settle_objects(job(), card(), image((5, 8, 8)))
    assert settled.objects == "none"
    assert "the result holds classes" in notice


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An image of two squares and a speck, below 0, and a model that finds what is below 0."""
    picture = np.ones((8, 16, 16), np.float32)
    picture[2:4, 2:4, 2:4] = picture[2:4, 8:12, 8:12] = picture[6, 14, 14] = -1
    np.save(tmp_path / "image.npy", picture)
    (tmp_path / "m.safetensors").write_bytes(b"")
    model = pointwise_model()
    model.card = model.card.model_copy(update={"objects": LEARNT, "class_names": ("background", "object")})
    monkeypatch.setattr("napari_unetvnet.model.model.load_model", lambda *_: model)
    return tmp_path


def segmented(place, **chosen):
    folder = place / "run"
    folder.mkdir()
    files = {"image": str(place / "image.npy"), "model": str(place / "m.safetensors")}
    runs.create(folder, job(**files, device="cpu", output=str(place / "out.tif"), **chosen))
    events = list(runs.run(folder))
    return read_labels(place / "out.tif"), [event.text for event in events if isinstance(event, Notice)]


def test_a_model_of_objects_writes_ids(place):
    labels, notices = segmented(place)
    assert np.bincount(labels.data.ravel()).tolist() == [2048 - 8 - 32, 8, 32]
    assert any("an id for each" in text for text in notices)
    assert (place / "out_objects.csv").exists()
    assert labels.class_names == ()  # ids are no classes


def test_its_classes_are_there_for_the_asking(place):
    labels, notices = segmented(place, objects="none")
    assert np.bincount(labels.data.ravel()).tolist() == [2048 - 41, 41]
    assert not any("an id for each" in text for text in notices)
    assert labels.class_names == ((0, "background"), (1, "object"))
