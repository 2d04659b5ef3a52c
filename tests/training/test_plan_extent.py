"""The size of the labelled objects, and what the plan makes of it."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unetvnet.images.geometry import Geometry
from napari_unetvnet.images.pairs import Pair
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.settings import TrainSettings, checked
from napari_unetvnet.training.plan import pace, plan
from napari_unetvnet.training.plan.extent import object_widths


@pytest.fixture(autouse=True)
def usual_speed(monkeypatch):
    """A machine that takes a tenth of a second for a step, so that nothing is measured."""
    monkeypatch.setattr(pace, "seconds_per_step", lambda *_: 0.1)


def a_pair(labels, spacing=(1.0, 1.0, 1.0)):
    image = labels + np.random.default_rng(0).normal(0, 0.3, labels.shape)
    return Pair(Volume(image[None].astype(np.float32), Geometry(spacing)), Volume(labels[None], Geometry(spacing)))


def cube(edges, shape=(64, 96, 96), value=1):
    labels = np.zeros(shape, np.uint8)
    labels[tuple(slice(4, 4 + n) for n in edges)] = value
    return labels


def widths_of(*pairs, **chosen):
    return object_widths(pairs, checked(TrainSettings, chosen))


def test_the_largest_ball_in_each_class_is_measured():
    labels = cube((20, 20, 20))
    labels[50:60, 50:60, 50:60] = 1
    labels[40:50, 80:90, 0:10] = 2
    assert widths_of(a_pair(labels)) == {1: pytest.approx(20), 2: pytest.approx(10)}
    larger = cube((30, 30, 30))
    assert widths_of(a_pair(labels), a_pair(larger))[1] == pytest.approx(30), "of all images"


def test_edges_are_in_voxels_of_the_finest_axis():
    # 5 planes of 4 mm hold a cube of 20 mm, as 20 x 20 voxels of 1 mm do.
    labels = cube((7, 20, 20), (16, 64, 64))
    assert widths_of(a_pair(labels, (4.0, 1.0, 1.0))) == {1: pytest.approx(20)}


def test_planes_have_discs_and_objects_one_size():
    labels = np.zeros((1, 96, 96), np.uint8)
    labels[0, 4:34, 4:34] = 1
    assert widths_of(a_pair(labels)) == {1: pytest.approx(30)}
    ids = np.zeros((1, 64, 64), np.uint16)
    ids[0, :16, :16], ids[0, :16, 16:48] = 7, 9  # they touch
    # At the border of the image nothing is known to end an object: 17 columns, counted to the next one behind.
    assert widths_of(a_pair(ids), label_values="objects") == {1: pytest.approx(32, abs=2)}


def test_large_labels_are_thinned_without_changing_the_size():
    labels = cube((60, 120, 120), (128, 192, 192))
    assert widths_of(a_pair(labels))[1] == pytest.approx(60, rel=0.05)


def test_strokes_boundaries_and_lines_have_no_size():
    pair = a_pair(cube((20, 20, 20)))
    assert widths_of(pair, unlabelled="ignore") == {}
    assert widths_of(pair, label_values="objects", objects_as="boundaries") == {}


def test_an_object_larger_than_a_block_is_learnt_from_planes():
    made = plan([a_pair(cube((50, 60, 60)))], checked(TrainSettings, {}), "cpu")
    reason = next(choice.reason for choice in made.choices if choice.name == "view")
    assert made.settings.view == "2.5d"
    assert "50 voxels wide" in reason
    assert plan([a_pair(cube((24, 24, 24)))], checked(TrainSettings, {}), "cpu").settings.view == "3d"


def test_boundaries_are_learnt_from_planes():
    ids = np.repeat(np.repeat(np.arange(1, 65).reshape(4, 4, 4), 12, 1), 12, 2).repeat(8, 0).astype(np.uint16)
    chosen = checked(TrainSettings, {"label_values": "objects", "objects_as": "boundaries"})
    made = plan([a_pair(ids)], chosen, "cpu").settings
    assert (made.view, made.context) == ("2.5d", 2)
    assert plan([a_pair(ids, (2, 1, 1))], chosen, "cpu").settings.context == 1, "planes are far apart"
    fixed = checked(TrainSettings, {"label_values": "objects", "objects_as": "boundaries", "context": 3})
    assert plan([a_pair(ids)], fixed, "cpu").settings.context == 3


def test_in_3d_images_become_coarser_until_a_block_holds_the_object():
    labels = cube((50, 60, 60), (80, 120, 120))
    made = plan([a_pair(labels, (0.5, 0.5, 0.5))], checked(TrainSettings, {"view": "3d"}), "cpu")
    spacing, patch = made.settings.target_spacing, made.settings.patch
    assert spacing[0] == spacing[1] == spacing[2] > 0.5
    assert np.prod(patch) ** (1 / 3) * spacing[0] > 50 * 0.5, "the block holds the object"


def test_images_do_not_become_so_coarse_that_a_small_class_is_lost():
    labels = cube((50, 60, 60), (80, 120, 120))
    labels[70:78, 100:108, 100:108] = 2
    made = plan([a_pair(labels)], checked(TrainSettings, {"view": "3d"}), "cpu")
    assert made.settings.target_spacing is None, "a class of 8 voxels would become one of 4"


def test_a_thin_structure_through_the_whole_image_is_not_large():
    labels = np.zeros((64, 64, 64), np.uint8)
    labels[::8] = 1
    labels[:, 32] = 1
    assert widths_of(a_pair(labels))[1] < 4


@pytest.mark.parametrize(("voxels", "view"), [(1600, "2.5d"), (1700, "3d")])  # 1.5 % are 1659
def test_rare_classes_are_learnt_from_planes(voxels, view):
    labels = np.zeros((48, 48, 48), np.uint8)
    labels.flat[np.linspace(0, labels.size - 1, voxels).astype(int)] = 1
    made = plan([a_pair(labels)], checked(TrainSettings, {}), "cpu")
    assert made.settings.view == view
    reason = next(choice.reason for choice in made.choices if choice.name == "view")
    assert ("planes show more" in reason) == (view == "2.5d")
