"""Cleaning, nested regions and measures of label images: properties and hand calculations."""

from __future__ import annotations

import numpy as np
import pytest
from combinations import in_one_case
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import binary_fill_holes

from napari_unetvnet.errors import DataProblem, SettingsProblem
from napari_unetvnet.postprocess import clean_brats, components, fill_holes, postprocess, table_of
from napari_unetvnet.settings import PostprocessSettings, checked

SIDES = st.tuples(*[st.integers(2, 6)] * 3)


def images(highest, sides=SIDES):
    return sides.flatmap(lambda shape: arrays(np.uint8, shape, elements=st.integers(0, highest)))


def dense(sides=SIDES):
    """Three of four voxels are of one class, so that there are holes."""
    return images(3, sides).map(lambda image: (image > 0).astype(np.uint8) * 5)


def cleaned(labels, spacing=(1, 1, 1), unit="pixel", **settings):
    return postprocess(labels, checked(PostprocessSettings, settings), spacing, unit)


@given(dense())
def test_holes_of_one_class_are_those_that_scipy_fills(classes):
    expected = binary_fill_holes(classes) * 5
    np.testing.assert_array_equal(fill_holes(classes.copy()), expected)
    planes = np.stack([binary_fill_holes(plane) * 5 for plane in classes])
    np.testing.assert_array_equal(fill_holes(classes.copy(), planes=True), planes)
    np.testing.assert_array_equal(fill_holes(classes[:1].copy()), planes[:1])  # a plane has no edge in z


@given(images(2), st.sets(st.integers(1, 2)), st.booleans())
def test_holes_become_the_class_around_them_and_nothing_else_changes(classes, only, planes):
    filled = fill_holes(classes.copy(), planes=planes, only=only)
    changed = filled != classes
    assert not classes[changed].any()
    assert set(filled[changed]) <= only
    np.testing.assert_array_equal(fill_holes(filled.copy(), planes=planes, only=only), filled)


def test_what_lies_between_two_classes_is_no_hole():
    classes = np.ones((1, 3, 5), np.uint8)
    classes[0, 1, 1] = classes[0, 1, 3] = 0
    classes[0, :, 4] = 2
    filled = fill_holes(classes.copy())
    assert filled[0, 1].tolist() == [1, 1, 1, 0, 2]


# Pieces of class 1 with 4, 2 and 1 voxels, of class 2 with 3 and 1.
ROW = np.array([[[1, 1, 1, 1, 0, 1, 1, 0, 1, 2, 2, 2, 0, 2]]], np.uint8)


@in_one_case(
    "settings, expected",
    [
        ({"min_size": 2}, [1, 1, 1, 1, 0, 1, 1, 0, 0, 2, 2, 2, 0, 0]),
        ({"min_size": "1=3"}, [1, 1, 1, 1, 0, 0, 0, 0, 0, 2, 2, 2, 0, 2]),
        ({"min_size": "3 2=1"}, [1, 1, 1, 1, 0, 0, 0, 0, 0, 2, 2, 2, 0, 2]),
        ({"keep_largest": 1}, [1, 1, 1, 1, 0, 0, 0, 0, 0, 2, 2, 2, 0, 0]),
        ({"keep_largest": "1=2"}, [1, 1, 1, 1, 0, 1, 1, 0, 0, 2, 2, 2, 0, 2]),
        ({"keep_largest": 2, "min_size": 3}, [1, 1, 1, 1, 0, 0, 0, 0, 0, 2, 2, 2, 0, 0]),
        ({"min_size": 9}, [0] * 14),
        ({}, ROW[0, 0].tolist()),
    ],
)
def test_small_pieces_go_class_by_class(settings, expected):
    result = cleaned(ROW, **settings)
    assert result.labels[0, 0].tolist() == expected
    assert result.labels.dtype == ROW.dtype
    assert result.table is None


@in_one_case("min_size, kept", [(0.3, 2), (0.30000001, 1), (0.29, 2), (0.7, 0)])
def test_a_size_in_physical_units_counts_the_voxels_volume(min_size, kept):
    """Pieces of 3 and 6 voxels of 0.1 x 1 x 1: 0.3 and 0.6, though three times 0.1 is not quite that in binary."""
    labels = np.array([[[1, 1, 1, 0, 1, 1, 1, 1, 1, 1]]], np.uint8)
    result = cleaned(labels, (0.1, 1, 1), min_size=min_size, min_size_in="physical")
    assert components(result.labels).max() == kept


def test_of_equal_pieces_the_first_is_kept():
    assert cleaned(np.array([[[1, 0, 1]]]), keep_largest=1).labels.tolist() == [[[1, 0, 0]]]


@given(images(2), st.integers(1, 4), st.integers(1, 3), st.sampled_from(["faces", "edges", "corners"]))
def test_what_is_left_is_large_enough_and_was_there(classes, min_size, most, connectivity):
    settings = {"min_size": min_size, "keep_largest": most, "connectivity": connectivity}
    result = cleaned(classes, **settings).labels
    assert ((result == classes) | (result == 0)).all()
    for value in (1, 2):
        sizes = np.bincount(components(result == value, connectivity).ravel())[1:]
        assert len(sizes) <= most
        assert (sizes >= min_size).all()
    np.testing.assert_array_equal(cleaned(result, **settings).labels, result)


@given(images(2), st.integers(1, 4), st.sampled_from(["components", "watershed", "border"]))
def test_objects_are_numbered_without_gaps_and_their_table_counts_them(classes, min_size, rule):
    result = cleaned(classes, (2, 1, 0.5), "mm", objects=rule, min_size=min_size)
    table, counts = result.table, np.bincount(result.labels.ravel())[1:]
    assert table["index"].tolist() == list(range(1, len(counts) + 1))
    assert table["voxels"].tolist() == counts.tolist()
    assert (counts >= min_size).all()
    firsts = [np.flatnonzero(result.labels == index)[0] for index in table["index"]]
    assert firsts == sorted(firsts)
    if rule != "border":
        assert table["class"].tolist() == [classes.ravel()[first] for first in firsts]
    else:
        assert set(table["class"].tolist()) <= {1}


def test_holes_are_filled_before_objects_are_told_apart():
    """A ring is one round object when its hole is filled; its class and no other grows."""
    y, x = np.mgrid[-12:13, -12:13]
    ring = ((y**2 + x**2 <= 121) & (y**2 + x**2 >= 9)).astype(np.uint8)[None]
    assert cleaned(ring, objects="watershed").table["voxels"].sum() == ring.sum()
    filled = cleaned(ring, objects="watershed", fill_holes="planes").table
    assert filled["voxels"].tolist() == [(y**2 + x**2 <= 121).sum()]
    assert cleaned(ring, fill_holes="2=volume").labels.sum() == ring.sum()


def test_input_is_never_changed():
    labels = np.ones((1, 3, 3), np.uint8)
    labels[0, 1, 1] = 0
    before = labels.copy()
    for settings in ({"fill_holes": "volume"}, {"objects": "components", "min_size": 99}, {"min_size": 99}):
        cleaned(labels, **settings)
        np.testing.assert_array_equal(labels, before)


def test_masks_that_overlap_are_cleaned_each_and_their_ids_differ():
    masks = np.array([[[[1, 0, 1, 1]]], [[[7, 7, 0, 7]]]], np.uint8)
    assert cleaned(masks, keep_largest=1).labels.tolist() == [[[[0, 0, 1, 1]]], [[[7, 7, 0, 0]]]]
    result = cleaned(masks, objects="components")
    assert result.labels.tolist() == [[[[1, 0, 2, 2]]], [[[3, 3, 0, 4]]]]
    assert result.table["index"].tolist() == [1, 2, 3, 4]
    assert result.table["class"].tolist() == [1, 1, 7, 7]
    with pytest.raises(DataProblem, match="nested"):
        cleaned(masks, nested="brats")


def test_labels_that_do_not_fit_into_memory_are_told_of(monkeypatch):
    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr("napari_unetvnet.postprocess.pipeline.objects", full)
    with pytest.raises(DataProblem, match="10 bytes a voxel"):
        cleaned(ROW, min_size=2)


def test_a_table_by_hand():
    ids = np.zeros((2, 3, 4), np.int32)
    ids[0, 1, 1:4] = 2
    ids[1, 2, 0] = 4
    ids[0, 0, 0] = ids[1, 0, 0] = 5
    table = table_of(ids, (3.0, 0.5, 2.0), "um", np.array([0, 9, 1, 9, 2, 1]))
    assert {name: column.tolist() for name, column in table.items()} == {
        "index": [2, 4, 5],
        "class": [1, 2, 1],
        "voxels": [3, 1, 2],
        "volume_um3": [9.0, 3.0, 6.0],
        "z_um": [0.0, 3.0, 1.5],
        "y_um": [0.5, 1.0, 0.0],
        "x_um": [4.0, 0.0, 0.0],
        "z_start": [0, 1, 0],
        "z_stop": [1, 2, 2],
        "y_start": [1, 2, 0],
        "y_stop": [2, 3, 1],
        "x_start": [1, 0, 0],
        "x_stop": [4, 1, 1],
    }


@given(images(9), st.tuples(*[st.floats(0.1, 9)] * 3))
def test_measures_are_those_of_the_list_of_voxels(ids, spacing):
    table = table_of(ids, spacing)
    assert table["index"].tolist() == np.unique(ids[ids > 0]).tolist()
    for row, index in enumerate(table["index"]):
        voxels = np.argwhere(ids == index)
        assert table["volume_pixel3"][row] == pytest.approx(len(voxels) * np.prod(spacing))
        for axis, name in enumerate("zyx"):
            assert table[f"{name}_pixel"][row] == pytest.approx(voxels[:, axis].mean() * spacing[axis])
            assert table[f"{name}_start"][row] == voxels[:, axis].min()
            assert table[f"{name}_stop"][row] == voxels[:, axis].max() + 1


def test_an_image_without_objects_has_an_empty_table():
    result = cleaned(np.zeros((2, 3, 4), np.uint8), objects="watershed", min_size=3, keep_largest=1)
    assert not result.labels.any()
    assert {len(column) for column in result.table.values()} == {0}


def tumour():
    """A whole tumour of 16^3, in it a core of 8^3 at (4, 4, 4), in that 5^3 enhancing voxels."""
    classes = np.zeros((24, 40, 40), np.uint8)
    classes[2:18, 2:18, 2:18] = 2
    classes[6:14, 6:14, 6:14] = 1
    classes[7:12, 7:12, 7:12] = 4
    return classes


def test_a_tumour_without_small_pieces_stays_as_it_is():
    np.testing.assert_array_equal(clean_brats(tumour()), tumour())


def test_a_second_small_tumour_vanishes_but_a_single_one_stays():
    classes = tumour()
    classes[2:14, 2:14, 24:36] = 2  # 1728 voxels
    np.testing.assert_array_equal(clean_brats(classes), tumour())
    classes[2:18, 2:18, 2:18] = 0
    np.testing.assert_array_equal(clean_brats(classes), classes)


def test_a_second_tumour_of_more_than_2000_voxels_stays():
    classes = tumour()
    classes[2:15, 2:15, 24:36] = 2  # 13 x 13 x 12 = 2028
    np.testing.assert_array_equal(clean_brats(classes), classes)


def test_small_cores_are_whole_tumour_again_where_there_are_several():
    classes = tumour()
    classes[16, 16, 16] = 1  # two cores, none of them above 2000: what is enhancing goes with its core
    expected = tumour()
    expected[expected > 0] = 2
    np.testing.assert_array_equal(clean_brats(classes), expected)


def test_a_core_outside_of_the_whole_tumour_goes_with_it():
    classes = tumour()
    classes[20, 30:33, 30] = 4
    np.testing.assert_array_equal(clean_brats(classes), tumour())


@pytest.mark.parametrize(("count", "value"), [(99, 1), (100, 4)])
def test_less_than_100_voxels_that_enhance_become_core(count, value):
    classes = tumour()
    classes[classes == 4] = 1
    places = np.argwhere(classes == 1)[:count]
    classes[tuple(places.T)] = 4
    assert set(clean_brats(classes)[tuple(places.T)]) == {value}


def test_a_gap_in_the_tumour_is_closed():
    classes = tumour()
    classes[3, 3, 3] = 0
    np.testing.assert_array_equal(clean_brats(classes), tumour())


@given(arrays(np.uint8, (6, 6, 6), elements=st.sampled_from([0, 1, 2, 4])))
def test_regions_stay_in_each_other_at_the_edge_of_the_image_too(classes):
    result = clean_brats(classes)
    assert set(np.unique(result)) <= {0, 1, 2, 4}
    if components(result > 0, "edges").max() == 1:  # closing takes nothing away
        assert result[classes > 0].all()


def test_labels_that_are_no_tumour_regions_are_refused():
    with pytest.raises(DataProblem, match="but there is 3;"):
        clean_brats(np.full((2, 2, 2), 3, np.uint8))


@in_one_case(
    "values, stored",
    [
        ({"min_size": "50"}, ((0, 50.0),)),
        ({"min_size": 50}, ((0, 50.0),)),
        ({"min_size": ["1=50", "2=2.5"]}, ((1, 50.0), (2, 2.5))),
        ({"min_size": ["1=50 2=2.5"]}, ((1, 50.0), (2, 2.5))),
        ({"keep_largest": "1, 2=3"}, ((0, 1), (2, 3))),
        ({"fill_holes": "planes 2=volume"}, ((0, "planes"), (2, "volume"))),
        ({"fill_holes": [[0, "planes"]]}, ((0, "planes"),)),
    ],
)
def test_choices_for_all_classes_or_for_each(values, stored):
    (name,) = values
    settings = checked(PostprocessSettings, values)
    assert getattr(settings, name) == stored
    assert checked(PostprocessSettings, settings.model_dump(mode="json")) == settings


@in_one_case(
    "values, fragments",
    [
        ({"objects": "cells"}, ["objects=cells", "'watershed'"]),
        ({"min_size": "many"}, ["min_size", "many", "number"]),
        ({"min_size": -1}, ["min_size", "-1", "0"]),
        ({"keep_largest": 0}, ["keep_largest", "0", "1"]),
        ({"keep_largest": "1=2.5"}, ["keep_largest", "2.5", "integer"]),
        ({"keep_largest": {"1": 2}}, ["keep_largest"]),
        ({"fill_holes": "cells=planes"}, ["fill_holes", "cells"]),
        ({"fill_holes": "1=lines"}, ["fill_holes", "lines", "'planes'"]),
        ({"split_depth": 2}, ["split_depth", "watershed"]),
        ({"split_depth": 0, "objects": "watershed"}, ["split_depth=0", "greater than 0"]),
    ],
)
def test_a_wrong_choice_is_refused_with_a_sentence(values, fragments):
    with pytest.raises(SettingsProblem) as caught:
        checked(PostprocessSettings, values)
    (line,) = caught.value.lines
    for fragment in fragments:
        assert fragment in line
