"""What the card says of the objects that a model learnt from."""

from __future__ import annotations

import numpy as np
from combinations import in_one_case

from napari_unetvnet.images.pairs import Pair
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.settings import TrainSettings, checked
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


def test_the_radius_is_that_of_a_disk_in_images_and_of_a_ball_in_volumes():
    assert learnt([pair([314, 314, 5000])], objects_as="cores").radius_voxels == 10.0  # pi 10^2
    ids = np.zeros((2, 1, 2000), np.uint16)
    ids[0, 0, :905] = 1  # 4/3 pi 6^3
    volume = Pair(Volume(np.zeros((1, 2, 1, 2000), np.float32)), Volume(ids[None]))
    assert learnt([volume], objects_as="cores").radius_voxels == 6.0


def test_a_slip_of_the_brush_is_not_the_smallest_object():
    assert learnt([pair([1, *[40] * 150])], objects_as="cores").voxels == (40, 40, 40)


def test_ignored_voxels_are_no_object():
    told = learnt([pair([10, 30, 99])], objects_as="separated", ignore_value=3)
    assert (told.rule, told.count, told.voxels[2]) == ("watershed", 2, 30)


@in_one_case("chosen", [{"objects_as": "foreground"}, {"objects_as": "boundaries"}, {"label_values": "classes"}])
def test_classes_stay_classes(chosen):
    assert learnt([pair([10, 30])], **chosen) is None
