"""What the card says of the objects that a model learnt from."""

from __future__ import annotations

import numpy as np
from combinations import in_one_case

from napari_unetvnet import runs
from napari_unetvnet.events import Notice
from napari_unetvnet.images.geometry import Geometry
from napari_unetvnet.images.pairs import Pair
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.metrics import object_scores
from napari_unetvnet.model.card import read_card
from napari_unetvnet.runs.folder import training_files
from napari_unetvnet.runs.results import labels_in, open_labels
from napari_unetvnet.settings import SegmentJob, TrainSettings, checked
from napari_unetvnet.training import loop
from napari_unetvnet.training.objects import objects_learnt


def pair(sizes, first=1):
    ids = np.repeat(np.arange(first, first + len(sizes)), sizes)
    labels = np.concatenate([np.zeros(5, int), ids])[None, None, None]
    return Pair(Volume(np.zeros(labels.shape, np.float32)), Volume(labels.astype(np.uint16)))


def learnt(pairs, **chosen):
    return objects_learnt(pairs, checked(TrainSettings, {"label_values": "objects", **chosen}))


def test_sizes_are_those_of_all_images():
    told = learnt([pair([10, 30]), pair([20, 40, 50])], objects_as="cores")
    assert (told.rule, told.count) == ("cores", 5)
    assert told.voxels == (10, 30, 50)  # of 10, 20, 30, 40, 50: 10 + 0.04 * 10 and 50 - 0.04 * 10, rounded
    assert told.least_voxels == 5


def squares(*sides, gap):
    """Squares beside each other."""
    ids = np.zeros((1, 40, 120), np.uint16)
    x = 2
    for number, side in enumerate(sides, start=1):
        ids[0, 20 - side // 2 : 20 + side // 2 + 1, x : x + side] = number
        x += side + gap
    return Pair(Volume(np.zeros((1, *ids.shape), np.float32)), Volume(ids[None]))


def dumbbell(ids):
    """The dumbbell of a neck of depth 2, painted as so many objects."""
    labels = np.zeros((1, 1, 9, 21), np.uint16)
    labels[..., 1:8, 1:8] = labels[..., 1:8, 13:20] = labels[..., 3:6, 8:13] = 1
    if ids == 2:
        labels[..., 11:] *= 2
    return Pair(Volume(np.zeros(labels.shape, np.float32)), Volume(labels))


@in_one_case(
    "painted, expected", [([2], ("watershed", 1.5)), ([1], ("components", None)), ([2, 2, 1], ("watershed", 1.5))]
)
def test_necks_are_split_if_that_gives_the_objects_that_were_painted(painted, expected):
    """The neck is 2 deep, so 1.5 is the deepest of the depths that split it; of three, two are right if split."""
    told = learnt([dumbbell(ids) for ids in painted], objects_as="separated")
    assert (told.rule, told.split_edges) == expected


def test_objects_that_are_apart_are_not_split():
    told = learnt([squares(7, 9, 15, gap=2)], objects_as="separated")
    assert (told.rule, told.split_edges) == ("components", None)


def test_the_depth_of_a_neck_is_in_voxel_edges():
    coarse = dumbbell(2)
    labels = Volume(np.asarray(coarse.labels.data), Geometry((9.0, 0.25, 0.25), "micrometer"))
    assert learnt([Pair(coarse.image, labels)], objects_as="separated").split_edges == 1.5


def test_a_slip_of_the_brush_is_not_the_smallest_object():
    assert learnt([pair([1, *[40] * 150])], objects_as="cores").voxels == (40, 40, 40)


def test_ignored_voxels_are_no_object():
    told = learnt([pair([10, 30, 99])], objects_as="separated", ignore_value=3)
    assert (told.rule, told.count, told.voxels[2]) == ("components", 2, 30)


@in_one_case("chosen", [{"objects_as": "foreground"}, {"objects_as": "boundaries"}, {"label_values": "classes"}])
def test_classes_stay_classes(chosen):
    assert learnt([pair([10, 30])], **chosen) is None


@in_one_case("kind", ["separated", "cores"])
def test_ids_are_learnt_and_come_back_as_ids(tmp_path, kind):
    """Discs of radius 9 in a row that touch: a foreground would be one object."""
    y, x = np.mgrid[:64, :96]
    ids = np.zeros((1, 64, 96), np.uint16)
    for number, (cy, cx) in enumerate([(16, 14), (16, 32), (16, 50), (46, 20), (46, 38), (46, 70)], start=1):
        ids[0][np.hypot(y - cy, x - cx) < 9.4] = number
    image = (ids > 0) + np.random.default_rng(0).normal(0, 0.1, ids.shape)
    pair = Pair(Volume(image[None].astype(np.float32)), Volume(ids[None]))
    chosen = {"label_values": "objects", "objects_as": kind, "option": {"width": 4, "depth": 3}, "patch": (1, 64, 96)}
    chosen |= {"batch": 2, "hold_out": 0, "learning_rate": 0.01, "steps": 80, "augment": "none", "device": "cpu"}
    folder = tmp_path / kind
    folder.mkdir()
    files = training_files(folder)
    for _ in loop.steps([pair], checked(TrainSettings, chosen), files):
        pass
    assert read_card(files.model).objects.count == 6
    np.save(tmp_path / "image.npy", image[0].astype(np.float32))
    run = tmp_path / f"segmented {kind}"
    run.mkdir()
    job = {"image": str(tmp_path / "image.npy"), "model": str(files.model), "device": "cpu"}
    runs.create(run, checked(SegmentJob, job))
    told = [event.text for event in runs.run(run) if isinstance(event, Notice)]
    assert any("an id for each" in text for text in told)
    found = open_labels(labels_in(run))
    assert object_scores(np.asarray(found), ids.astype(np.int64)).f1 == 1
