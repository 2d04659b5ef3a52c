"""From all kinds of labels to one form of target, and from a target to what a loss compares with."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from combinations import in_one_case
from hypothesis import given
from hypothesis import strategies as st

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.data.targets import (
    LABEL_KINDS,
    Classes,
    find_classes,
    label_margin,
    loss_target,
    loss_weights,
    make_target,
    separation_weights,
    target_margin,
)
from napari_unetvnet.data.targets.weight_map import separation
from napari_unetvnet.errors import DataProblem, SettingsProblem
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.settings import TrainSettings, checked

ROW = np.array([[[0, 1, 2, 4, 255]]])


def of(labels, mask=None, **chosen):
    """The classes and the target of labels (Z, Y, X) or (K, Z, Y, X)."""
    settings = checked(TrainSettings, chosen)
    labels = labels if labels.ndim == 4 else labels[None]
    classes = find_classes([Volume(labels, name="labels")], settings)
    return classes, make_target(labels, classes, settings, "labels", mask)


def test_each_choice_of_labels_is_a_row():
    fields = TrainSettings.model_fields
    choices = [value for name in ("label_values", "objects_as") for value in get_args(fields[name].annotation)]
    assert set(LABEL_KINDS) == {*choices, "lines", "regions"} - {"objects"}


@pytest.mark.parametrize("kind", ["foreground", "separated", "boundaries", "borders", "cores"])
def test_a_part_with_its_margin_has_the_target_of_the_whole(kind):
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 3, (1, 4, 20, 4)).repeat(5, 2).repeat(5, 3)
    ids += 3 * (np.arange(100)[:, None] // 10)  # no object is longer than 10 rows
    chosen = {"label_values": "objects", "objects_as": kind} | ({"boundary_width": 3} if kind == "boundaries" else {})
    margin = label_margin(checked(TrainSettings, chosen))
    assert (margin > 0) == (kind != "foreground")
    _, whole = of(ids, **chosen)
    _, part = of(ids[:, :, 45 - margin : 55 + margin], **chosen)
    np.testing.assert_array_equal(part[:, margin : margin + 10], whole[:, 45:55])


def test_an_ignored_value_is_no_class():
    classes, target = of(ROW, ignore_value=255)
    assert classes.values == (0, 1, 2, 4)
    assert target.tolist() == [[[0, 1, 2, 3, IGNORE]]]


def test_without_it_255_is_a_value_like_any_other():
    classes, target = of(ROW)
    assert classes.values == (0, 1, 2, 4, 255)
    assert target.tolist() == [[[0, 1, 2, 3, 4]]]


@in_one_case(
    "chosen",
    [
        {},
        {"regions": "brats", "ignore_value": 255},
        {"lines": [1]},
        {"head": "multilabel"},
        {"label_values": "objects"},
        {"label_values": "objects", "objects_as": "borders"},
    ],
)
def test_nothing_is_known_outside_of_a_mask(chosen):
    mask = np.array([[[1, 7, 0, 1, 0]]])
    _, free = of(ROW, **chosen)
    _, masked = of(ROW, mask, **chosen)
    assert (masked[..., mask == 0] == IGNORE).all()
    np.testing.assert_array_equal(masked[..., mask != 0], free[..., mask != 0])


def test_regions_are_channels_that_lie_in_each_other():
    classes, target = of(ROW, regions="brats", ignore_value=255)
    assert (classes.names, classes.output_values, classes.multilabel) == (("WT", "TC", "ET"), (2, 1, 4), True)
    assert target[:, 0, 0].tolist() == [[0, 1, 1, 1, IGNORE], [0, 1, 0, 1, IGNORE], [0, 0, 0, 1, IGNORE]]


def test_unpainted_voxels_of_regions_are_ignored_and_the_background_value_is_in_none():
    _, target = of(ROW, regions="A=2+4 B=4", unlabelled="ignore", background=1, ignore_value=255)
    assert target[:, 0, 0].tolist() == [[IGNORE, 0, 1, 1, IGNORE], [IGNORE, 0, 0, 1, IGNORE]]


def test_regions_that_are_nowhere_are_refused():
    with pytest.raises(DataProblem, match=r"Region\(s\) C=3\+9 are painted nowhere"):
        of(ROW, regions="A=1+2 C=3+9")


def test_overlapping_masks_are_channels():
    masks = np.array([[[[0, 1, 5]]], [[[0, 1, 0]]]])
    classes, target = of(masks, label_values="overlapping")
    assert (classes.values, classes.output_values) == ((1, 2), (1, 2))
    assert target[:, 0, 0].tolist() == [[0, 1, 1], [0, 1, 0]]


def test_where_no_mask_is_painted_nothing_is_known_if_unlabelled_is_ignored():
    masks = np.array([[[[0, 1, 2, 2, 255]]], [[[0, 0, 2, 1, 1]]]])
    _, target = of(masks, label_values="overlapping", unlabelled="ignore", background=1, ignore_value=255)
    assert target[:, 0, 0].tolist() == [[IGNORE, 0, 1, 1, IGNORE], [IGNORE, 0, 1, 0, 0]]


def test_an_empty_mask_is_refused():
    with pytest.raises(DataProblem, match=r"Mask\(s\) 2 hold no voxel of their class"):
        of(np.array([[[[1]]], [[[0]]]]), label_values="overlapping")
    with pytest.raises(DataProblem, match=r"Mask\(s\) 1 hold no voxel of their class"):
        of(np.array([[[[3]]], [[[1]]]]), label_values="overlapping", unlabelled="ignore", background=3)


def test_images_with_different_numbers_of_masks_are_refused():
    volumes = [Volume(np.ones((k, 1, 2, 2), np.uint8), name=f"v{k}") for k in (1, 2)]
    with pytest.raises(DataProblem, match="v1: 1, v2: 2"):
        find_classes(volumes, checked(TrainSettings, {"label_values": "overlapping"}))


def two_squares():
    """Two touching squares of 4 x 4 and one apart, each with an id of its own."""
    objects = np.zeros((1, 12, 16), int)
    objects[0, 2:6, 2:6], objects[0, 2:6, 6:10], objects[0, 7:11, 11:15] = 7, 9, 300
    return objects


def test_objects_are_one_class():
    classes, target = of(two_squares(), label_values="objects")
    assert (classes.values, len(classes)) == ((0, 1), 2)
    np.testing.assert_array_equal(target, two_squares() > 0)


def test_boundaries_of_objects_lie_between_them():
    _, target = of(two_squares(), label_values="objects", objects_as="boundaries")
    assert target[0, 3, 5:7].tolist() == [1, 1]
    assert target[0, 8, 12] == 0


def test_borders_of_objects_leave_their_insides_apart():
    from scipy import ndimage

    classes, target = of(two_squares(), label_values="objects", objects_as="borders")
    assert len(classes) == 3
    assert ndimage.label(target == 1)[1] == 3
    np.testing.assert_array_equal(target == 0, two_squares() == 0)


def test_lines_get_three_blurred_channels_each_and_the_others_stay():
    labels = np.zeros((1, 33, 33), int)
    labels[0, :, 16], labels[0, 3:9, 3:9] = 5, 8
    settings = checked(TrainSettings, {"lines": [5]})
    classes, target = of(labels, lines=[5])
    assert (classes.values, classes.lines, target.shape) == ((0, 5, 8), (1,), (3, 1, 33, 33))
    channels = loss_target(target, classes, settings)
    assert channels.shape == (6, 1, 33, 33)
    np.testing.assert_array_equal(channels[[0, 1, 5]], target)
    assert channels[2:5, 0, 16, 16] == pytest.approx([0.5, 0.28125, 0.15401], abs=1e-5)
    assert target_margin(classes, settings) == (0, 7, 7)


def test_a_line_that_is_no_class_is_refused():
    with pytest.raises(DataProblem, match=r"Line\(s\) \[3\] are no classes; the labels hold \[0, 1, 2, 4, 255\]"):
        of(ROW, lines=[1, 3])


@pytest.mark.parametrize(("view", "margin"), [("2d", (0, 6, 6)), ("3d", (6, 6, 6))])
def test_softened_targets_sum_to_one_and_keep_what_is_unknown(view, margin):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (4, 16, 16))
    settings = checked(TrainSettings, {"label_blur": 1.5, "view": view, "ignore_value": 9})
    labels[0, 0] = 9
    classes, target = of(labels, ignore_value=9)
    softened = loss_target(target, classes, settings)
    unknown = labels == 9
    assert (softened[:, unknown] == IGNORE).all()
    np.testing.assert_allclose(softened.sum(axis=0)[~unknown], 1, rtol=1e-5)
    assert target_margin(classes, settings) == margin
    planes_alone = np.concatenate([loss_target(target[z : z + 1], classes, settings) for z in range(4)], axis=1)
    assert np.allclose(planes_alone, softened) == (view == "2d")


def test_a_binary_head_compares_with_the_softened_foreground_alone():
    labels = np.zeros((1, 9, 9), int)
    labels[0, 4:] = 1
    settings = checked(TrainSettings, {"label_blur": 1.0})
    classes, target = of(labels)
    softened = loss_target(target, classes, settings)
    assert softened.shape == (1, 1, 9, 9)
    assert 0 < softened[0, 0, 3, 4] < 0.5 < softened[0, 0, 4, 4] < 1


def test_without_softening_the_target_is_as_painted():
    classes, target = of(ROW)
    assert loss_target(target, classes, checked(TrainSettings, {})) is target
    assert target_margin(classes, checked(TrainSettings, {})) == (0, 0, 0)


def test_the_weight_map_knows_objects_by_their_ids_or_as_pieces():
    objects = np.zeros((1, 20, 20), int)
    objects[0, 2:18, 2:9], objects[0, 2:18, 11:18] = 3, 8
    by_id = checked(TrainSettings, {"label_values": "objects"})
    by_class = checked(TrainSettings, {})
    same = (objects > 0).astype(int)
    expected = separation_weights(objects)
    for labels, settings in ((objects, by_id), (same, by_class)):
        target = make_target(labels[None], find_classes([Volume(labels[None])], settings), settings, "labels")
        np.testing.assert_allclose(separation(labels[None], target, settings), expected)
    assert expected[0, 10, 9] == expected[0, 10, 10] > 5


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("none", ()), ("inverse_frequency", (100 / 180, 5.0)), ((3.0, 0.5), (3.0, 0.5))],
)
def test_weights_of_classes(rule, expected):
    settings = checked(TrainSettings, {"class_weights": rule})
    found = loss_weights(np.array([90, 10]), np.array([100, 100]), Classes((0, 1), (0, 1)), settings)
    assert found == pytest.approx(expected)


def test_a_channel_weighs_its_class_against_the_rest_and_a_line_four_times():
    settings = checked(TrainSettings, {"class_weights": "inverse_frequency"})
    classes = Classes((1, 2), (1, 2), multilabel=True, lines=(0,))
    found = loss_weights(np.array([20, 50]), np.array([100, 100]), classes, settings)
    assert found == pytest.approx((4, 4, 4, 4, 1))


def test_a_wrong_number_of_weights_is_refused_with_the_classes():
    settings = checked(TrainSettings, {"class_weights": "1 2 3"})
    with pytest.raises(DataProblem, match=r"3 class weights were given, but there are 2 classes \(values 0, 7\)"):
        loss_weights(np.array([1, 1]), np.array([2, 2]), Classes((0, 7), (0, 7)), settings)


@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=6))
def test_weights_by_frequency_leave_the_scale_of_the_loss(counts):
    settings = checked(TrainSettings, {"class_weights": "effective_number"})
    numbers = tuple(range(len(counts)))
    known = np.full(len(counts), sum(counts))
    found = loss_weights(np.array(counts), known, Classes(numbers, numbers), settings)
    assert np.dot(found, counts) / sum(counts) == pytest.approx(1)


@in_one_case(
    "chosen, said",
    [
        ({"regions": "brats", "lines": [1]}, "regions and lines were given; choose one"),
        ({"regions": "brats", "label_values": "objects"}, "cannot be learnt from object ids"),
        ({"regions": "brats", "head": "multiclass"}, "need head multilabel, not multiclass"),
        ({"regions": "brats", "loss": "ce"}, "ce does not fit a multilabel head"),
        ({"regions": "WT"}, "'WT' should be name=value"),
        ({"regions": "A=1", "classes": [1, 2]}, "leave out classes"),
        ({"objects_as": "borders"}, "objects_as=borders is for label_values=objects only"),
        ({"unlabelled": "ignore", "background": 3, "ignore_value": 3}, "cannot be both background and ignored"),
        ({"class_weights": "often"}, "'often' should be one of none"),
        ({"class_weights": [0, 0]}, "should not all be 0"),
        ({"class_weights": [1, -1]}, "greater than or equal to 0"),
        ({"deep_supervision_weights": [0, 0]}, "All deep_supervision_weights are 0"),
        ({"loss": "attention_dice"}, "attention, which unet_padding does not have; choose network unet25d"),
        ({"loss": "vae", "network": "segresnet_vae", "option": {"vae": "none"}}, "turn it on with option vae"),
        (
            {"network": "segresnet_vae", "view": "3d", "patch": [32, 48, 32], "option": {"patch_z": 16}},
            "name different patches, 32 48 32 and 16 48 32; leave out the options",
        ),
    ],
)
def test_choices_that_do_not_go_together_are_refused_with_a_sentence(chosen, said):
    with pytest.raises(SettingsProblem, match=said):
        checked(TrainSettings, chosen)


def test_touching_objects_are_separated_by_a_gap_and_others_stay_whole():
    labels = np.zeros((1, 1, 8, 12), np.uint8)
    labels[0, 0, 2:6, 1:5], labels[0, 0, 2:6, 5:9], labels[0, 0, 7, 11] = 1, 2, 3
    classes, target = of(labels, label_values="objects", objects_as="separated")
    assert classes.output_values == (0, 1)
    assert (target[0, 3, :10] == [0, 1, 1, 1, 0, 0, 1, 1, 1, 0]).all()  # a voxel of each is given up
    assert target[0, 7, 11] == 1
    assert target.sum() == 2 * 4 * 3 + 1


def test_objects_that_meet_at_a_corner_are_separated_too():
    from skimage.measure import label

    labels = np.zeros((1, 8, 8), np.uint8)
    labels[0, :4, :4], labels[0, 4:, 4:] = 1, 2
    _, target = of(labels, label_values="objects", objects_as="separated")
    assert label(target[0], connectivity=2).max() == 2
    assert target.sum() >= 2 * 12


def test_the_width_of_boundaries_is_chosen():
    labels = np.repeat([1, 2], 6).reshape(1, 1, 1, 12)
    for width in (1, 2, 3):
        _, target = of(labels, label_values="objects", objects_as="boundaries", boundary_width=width)
        assert np.flatnonzero(target[0, 0]).tolist() == list(range(6 - width, 6 + width))
