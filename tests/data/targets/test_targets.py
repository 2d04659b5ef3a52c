"""From painted values to class indices and back."""

from __future__ import annotations

import numpy as np
import pytest
from combinations import in_one_case
from hypothesis import given
from hypothesis import strategies as st

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.data.targets import MANY_VALUES, Classes, encode, find_values, output_values
from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.settings import TrainSettings, checked


def painted(*values, dtype=np.int32):
    """Labels that hold some values, each at two voxels, with shape (1, 1, n, 2)."""
    return Volume(np.array([[[[v, v] for v in values]]], dtype))


def settings(**chosen):
    return checked(TrainSettings, chosen)


IGNORING = {"unlabelled": "ignore"}


@in_one_case(
    "chosen, volumes, values",
    [
        ({}, [painted(0, 1, 2)], (0, 1, 2)),
        ({}, [painted(5, 0)], (0, 5)),
        ({}, [painted(3, 7)], (0, 3, 7)),
        ({}, [painted(0, 1), painted(0, 4)], (0, 1, 4)),
        (IGNORING, [painted(0, 1, 2)], (1, 2)),
        (IGNORING, [painted(1, 2)], (1, 2)),
        (IGNORING, [painted(0, 9), painted(0, 4)], (4, 9)),
        ({**IGNORING, "background": 9}, [painted(0, 4, 9)], (9, 4)),
        ({"label_values": "objects"}, [painted(0, *range(1, 500))], (0, 1)),
        ({"classes": (1, 2)}, [painted(0, 1, 2)], (0, 1, 2)),
        ({"classes": (2, 1, 2, 0)}, [painted(0, 1, 2)], (0, 1, 2)),
        ({"classes": (1, 2), **IGNORING}, [painted(0, 1, 2)], (1, 2)),
        ({"classes": tuple(range(1, 101))}, [painted(*range(101))], tuple(range(101))),
    ],
)
def test_classes_are_the_painted_values_in_order(chosen, volumes, values):
    assert find_values(volumes, settings(**chosen)) == values


@in_one_case(
    "chosen, volume, fragments",
    [
        ({}, painted(0, 0), ["Only the value 0", "two classes"]),
        (IGNORING, painted(0, 3), ["Only the value 3", "--unlabelled background"]),
        ({}, painted(*range(MANY_VALUES + 2)), [f"{MANY_VALUES + 2} different values", "objects", "list the classes"]),
        ({"classes": (1, 2)}, painted(0, 1, 2, 5), ["5", "beyond the classes 0, 1, 2"]),
        ({"classes": (1, 2), **IGNORING}, painted(0, 1, 2, 5), ["5", "beyond the classes 1, 2"]),
        ({"classes": (1, 2, 3)}, painted(0, 1, 2), ["3", "not painted anywhere", "0, 1, 2"]),
        ({**IGNORING, "background": 7}, painted(0, 1, 2), ["Background value 7", "1, 2"]),
    ],
)
def test_labels_that_make_no_classes_are_refused_with_what_was_found(chosen, volume, fragments):
    with pytest.raises(DataProblem, match=r"\.$") as caught:
        find_values([volume], settings(**chosen))
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_a_long_list_of_strays_is_shown_in_part():
    with pytest.raises(DataProblem, match=r" \.\.\. are beyond") as caught:
        find_values([painted(*range(60))], settings(classes=(1,)))
    assert len(str(caught.value)) < 200


def test_more_classes_than_the_indices_can_tell_from_ignored_are_refused():
    values = tuple(range(IGNORE + 1))
    chosen = settings(classes=values)
    with pytest.raises(DataProblem, match=r"\.$"):
        encode(painted(*values).data[0], find_values([painted(*values)], chosen), chosen, "ids")


@in_one_case("dtype", [np.uint8, np.int16, np.int64, np.uint16])
def test_unpainted_is_class_0_where_it_means_background(dtype):
    labels = np.array([[[0, 5, 9], [9, 0, 5]]], dtype)
    codes = encode(labels, (0, 5, 9), settings(), "ids")
    assert codes.dtype == np.uint8
    assert codes.tolist() == [[[0, 1, 2], [2, 0, 1]]]


def test_unpainted_is_ignored_where_it_means_nothing():
    labels = np.array([[[0, 5, 9], [9, 0, 5]]])
    assert encode(labels, (5, 9), settings(**IGNORING), "ids").tolist() == [[[IGNORE, 0, 1], [1, IGNORE, 0]]]


def test_objects_become_one_class():
    labels = np.array([[[0, 1, 300], [70_000, 0, 2]]])
    assert encode(labels, (0, 1), settings(label_values="objects"), "ids").tolist() == [[[0, 1, 1], [1, 0, 1]]]


def test_truth_values_are_labels():
    labels = np.array([[[True, False]]])
    chosen = settings()
    assert find_values([Volume(labels[None])], chosen) == (0, 1)
    assert encode(labels, (0, 1), chosen, "mask").tolist() == [[[1, 0]]]


@pytest.mark.parametrize("chosen", [{}, IGNORING])
def test_a_stray_value_is_refused_with_the_name_of_the_labels(chosen):
    with pytest.raises(DataProblem, match=r"^Labels cells hold value\(s\) 8 beyond the classes .*\.$"):
        encode(np.array([[[5, 8]]]), (0, 5) if not chosen else (5, 6), settings(**chosen), "cells")


@given(
    st.lists(st.integers(1, 1000), min_size=2, max_size=20, unique=True),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_class_indices_lead_back_to_the_painted_values(values, ignore, seed):
    chosen = settings(unlabelled="ignore" if ignore else "background")
    labels = np.random.default_rng(seed).choice([0, *values], size=(2, 6, 7))
    labels[0, 0, : len(values[:7])] = values[:7]
    found = find_values([Volume(labels[None])], chosen)
    codes = encode(labels, found, chosen, "labels")
    known = codes != IGNORE
    np.testing.assert_array_equal(np.array(found)[codes[known]], labels[known])
    np.testing.assert_array_equal(known, (labels != 0) | (not ignore))


@in_one_case(
    "chosen, values, written, in_front",
    [
        ({}, (0, 5, 9), (0, 5, 9), [1, 2]),
        (IGNORING, (5, 9), (5, 9), [0, 1]),
        ({**IGNORING, "background": 9}, (5, 9), (5, 0), [0]),
        ({**IGNORING, "background": 5}, (5, 7, 9), (0, 7, 9), [1, 2]),
    ],
)
def test_results_carry_the_painted_values_and_0_for_the_background(chosen, values, written, in_front):
    assert output_values(values, settings(**chosen)) == written
    assert Classes(values, written).foreground == in_front
