"""Metrics of objects: hand calculations, properties, and agreement with a search that tries every match."""

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from combinations import in_one_case
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from test_metrics import FEW, images

from napari_unetvnet.errors import SettingsProblem
from napari_unetvnet.metrics import object_scores

THRESHOLDS = [f"{percent / 100:.2f}" for percent in range(50, 100, 5)]


def brute_components(image, background):
    """Flood fill by equal value over all neighbours; a list of sets of places."""
    left = {tuple(map(int, place)) for place in np.argwhere(image != background)}
    steps = list(product((-1, 0, 1), repeat=image.ndim))
    components = []
    while left:
        front = [left.pop()]
        component = set(front)
        while front:
            place = front.pop()
            for step in steps:
                near = tuple(a + b for a, b in zip(place, step, strict=True))
                if near in left and image[near] == image[place]:
                    left.remove(near)
                    component.add(near)
                    front.append(near)
        components.append(component)
    return components


def brute_matches(candidates):
    """Try every choice of pairs that share no object."""
    if not candidates:
        return 0
    (a, b), *others = candidates
    taken = 1 + brute_matches([pair for pair in others if pair[0] != a and pair[1] != b])
    return max(taken, brute_matches(others))


def stardist_matching(prediction, truth, threshold):
    """TP, FP, FN, AP and panoptic quality as in stardist.matching: optimal assignment, IoU breaking ties."""
    found, true = brute_components(prediction, 0), brute_components(truth, 0)
    ious = np.array([[len(a & b) / len(a | b) for b in found] for a in true]).reshape(len(true), len(found))
    most = max(1, min(ious.shape))
    rows, columns = linear_sum_assignment(-(ious >= threshold).astype(float) - ious / (2 * most))
    matched = ious[rows, columns][ious[rows, columns] >= threshold]
    tp, fp, fn = len(matched), len(found) - len(matched), len(true) - len(matched)
    quality = matched.sum() / (tp + fp / 2 + fn / 2) if tp else 0.0
    return tp, fp, fn, tp / (tp + fp + fn) if tp else 0.0, quality


def brute_objects(prediction, truth, threshold, background=0):
    found, true = brute_components(prediction, background), brute_components(truth, background)
    pairs = [(i, j) for i, a in enumerate(found) for j, b in enumerate(true) if len(a & b) / len(a | b) >= threshold]
    matches = brute_matches(pairs)
    return matches, len(found) - matches, len(true) - matches


def counts(scores):
    return scores.true_positives, scores.false_positives, scores.false_negatives


# Hand calculations


def test_two_found_one_missed_one_made_up():
    truth = np.zeros((12, 12), int)
    prediction = np.zeros((12, 12), int)
    truth[0:3, 0:3], prediction[0:3, 0:3] = 1, 1
    truth[0:2, 6:10], prediction[0:2, 7:11] = 1, 1  # 6 common of 10
    truth[6:8, 0:2] = 1
    prediction[9:11, 9:11] = 1
    scores = object_scores(prediction, truth)
    assert counts(scores) == (2, 1, 1)
    assert (scores.f1, scores.precision, scores.recall) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert counts(object_scores(prediction, truth, 0.6)) == (2, 1, 1)
    assert counts(object_scores(prediction, truth, 0.61)) == (1, 2, 2)


def test_merging_two_touching_objects_loses_the_smaller_one():
    truth = np.zeros((8, 20), int)
    truth[2:6, 2:8], truth[2:6, 8:12], truth[2:6, 15:18] = 1, 2, 3
    merged = np.where(truth > 0, 1, 0)
    assert counts(object_scores(truth, truth)) == (3, 0, 0)
    assert counts(object_scores(merged, truth)) == (2, 0, 1)  # 24 of 40 voxels still match
    assert counts(object_scores(merged, truth, 0.7)) == (1, 1, 2)
    assert counts(object_scores(merged, truth > 0)) == (2, 0, 0)


def test_average_precision_and_panoptic_quality_by_hand():
    truth, prediction = np.zeros((4, 40), int), np.zeros((4, 40), int)
    truth[0, 0:10], prediction[0, 0:10] = 1, 1  # IoU 1
    truth[0, 20:30], prediction[0, 20:26] = 2, 2  # 6 of 10
    truth[2, 0:10], prediction[2, 0:4] = 3, 3  # 4 of 10
    prediction[2, 20:30] = 4
    scores = object_scores(prediction, truth)
    assert counts(scores) == (2, 2, 1)
    assert scores.matches == {key: 2 if float(key) <= 0.6 else 1 for key in THRESHOLDS}
    assert scores.average_precision == {key: 2 / 5 if float(key) <= 0.6 else 1 / 6 for key in THRESHOLDS}
    assert scores.mean_average_precision == pytest.approx((3 * 2 / 5 + 7 * 1 / 6) / 10)
    assert scores.panoptic_quality == pytest.approx((1 + 0.6) / 2 * scores.f1)
    assert object_scores(prediction, truth, 0.4).matches == scores.matches


def test_no_objects_at_all_are_no_mistake():
    empty = np.zeros((3, 3), int)
    scores = object_scores(empty, empty)
    assert (scores.mean_average_precision, scores.panoptic_quality) == (1.0, 1.0)
    assert set(scores.average_precision.values()) == {1.0}
    missed = object_scores(empty, empty + 1)
    assert (missed.mean_average_precision, missed.panoptic_quality) == (0.0, 0.0)


def test_halves_match_a_whole_only_once():
    truth = np.array([[1, 1, 2, 2]])
    whole = np.ones((1, 4), int)
    assert counts(object_scores(whole, truth, 0.5)) == (1, 0, 1)
    assert counts(object_scores(truth, whole, 0.5)) == (1, 1, 0)


def test_as_many_as_possible_match_where_there_is_a_choice():
    truth = np.array([[1, 1, 1, 1, 2, 2, 2, 2, 2]])
    prediction = np.array([[0, 3, 4, 4, 4, 4, 4, 4, 4]])
    # IoU: 4 with 2 is 5/7, 4 with 1 is 2/9, 3 with 1 is 1/4; taking 4 with 1 first would leave 2 and 3 alone.
    assert counts(object_scores(prediction, truth, 0.2)) == (2, 0, 0)
    assert counts(object_scores(prediction, truth, 0.25)) == (2, 0, 0)
    assert counts(object_scores(prediction, truth, 0.26)) == (1, 1, 1)


def test_corners_touch_in_2d_and_3d():
    for dims in (2, 3):
        diagonal = np.zeros((2,) * dims, int)
        diagonal[(0,) * dims] = diagonal[(1,) * dims] = 1
        assert counts(object_scores(diagonal, diagonal)) == (1, 0, 0)


def test_objects_of_different_value_are_apart_and_values_are_not_compared():
    truth = np.array([[5, 5, 5, 9, 9, 9]])
    assert counts(object_scores(truth * 7, truth)) == (2, 0, 0)


def disks(shape, centres, radius=3):
    """Object ids from 1."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    ids = np.zeros(shape, np.uint16)
    for number, (a, b) in enumerate(centres, start=1):
        ids[(y - a) ** 2 + (x - b) ** 2 <= radius**2] = number
    return ids


def grid(side, pitch=10):
    return disks(
        (side * pitch, side * pitch), [(pitch * (i + 0.5), pitch * (j + 0.5)) for i, j in np.ndindex(side, side)]
    )


def test_nothing_predicted_and_nothing_there():
    empty, one = np.zeros((4, 5), np.uint8), np.eye(4, 5, dtype=np.uint8)
    missed, false = object_scores(empty, one), object_scores(one, empty)
    assert (missed.f1, missed.precision, missed.recall) == (0.0, None, 0.0)
    assert (false.f1, false.precision, false.recall) == (0.0, 0.0, None)


@in_one_case("threshold", [0, -1, 1.01, math.nan, math.inf])
def test_thresholds_out_of_range_are_refused(threshold):
    with pytest.raises(SettingsProblem, match="above 0"):
        object_scores(np.zeros((2, 2), int), np.zeros((2, 2), int), threshold)


# Properties


@FEW
@given(images(2, max_side=4), st.sampled_from([0.1, 0.25, 1 / 3, 0.5, 0.6, 1.0]), st.sampled_from([0, 1, -1]))
def test_objects_agree_with_loops(pair, threshold, background):
    prediction, truth = (image % 3 + min(background, 0) for image in pair)  # values from -1 where that is background
    scores = object_scores(prediction, truth, threshold, background=background)
    assert counts(scores) == brute_objects(prediction, truth, threshold, background)


@FEW
@given(images(2, max_side=4))
def test_all_thresholds_agree_with_stardists_definition(pair):
    scores = object_scores(*pair)
    for key in THRESHOLDS:
        tp, fp, fn, precision, _ = stardist_matching(*pair, float(key))
        assert counts(object_scores(*pair, float(key))) == (tp, fp, fn)
        assert scores.matches[key] == tp
        if tp + fp + fn:
            assert scores.average_precision[key] == pytest.approx(precision)
    if scores.f1 < 1 or scores.true_positives:
        assert scores.panoptic_quality == pytest.approx(stardist_matching(*pair, 0.5 + 1e-9)[-1])


@FEW
@given(images(2), st.permutations([1, 2, 3]), st.sampled_from([0.3, 0.5, 0.7]))
def test_renaming_objects_changes_nothing(pair, names, threshold):
    prediction, truth = pair
    renamed = np.array([0, *names])[truth]
    there, here = object_scores(prediction, renamed, threshold), object_scores(prediction, truth, threshold)
    assert replace(there, panoptic_quality=0) == replace(here, panoptic_quality=0)
    assert there.panoptic_quality == pytest.approx(here.panoptic_quality)


@FEW
@given(images(2), st.sampled_from([0.2, 0.5, 0.8]))
def test_swapping_the_images_swaps_false_and_missed(pair, threshold):
    there, back = object_scores(*pair, threshold), object_scores(*pair[::-1], threshold)
    assert counts(there) == (back.true_positives, back.false_negatives, back.false_positives)
    assert (there.f1, there.average_precision) == (back.f1, back.average_precision)
    assert there.panoptic_quality == pytest.approx(back.panoptic_quality)


@FEW
@given(images(2))
def test_a_stricter_threshold_never_matches_more(pair):
    matched = [object_scores(*pair, threshold).true_positives for threshold in (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)]
    assert matched == sorted(matched, reverse=True)


def test_joining_pairs_of_touching_objects_loses_exactly_one_of_each():
    truth = np.zeros((40, 40), int)
    for number, (row, column) in enumerate(product(range(4), range(4))):
        truth[10 * row : 10 * row + 6, 10 * column : 10 * column + 4] = 2 * number + 1
        truth[10 * row : 10 * row + 6, 10 * column + 4 : 10 * column + 7] = 2 * number + 2
    joined = truth.copy()
    for lost in range(1, 17):
        joined[joined == 2 * lost] = 2 * lost - 1  # 24 of 42 voxels: the larger part still matches
        assert counts(object_scores(joined, truth)) == (32 - lost, 0, lost)


def test_two_hundred_objects_against_the_loops():
    truth = grid(15)
    rng = np.random.default_rng(1)
    prediction = np.roll(truth, 1, axis=0) * ~np.isin(np.roll(truth, 1, axis=0), rng.integers(1, 226, 20))
    prediction[0, ::10] = 300
    scores = object_scores(prediction, truth, 0.6)
    found, true = brute_components(prediction, 0), brute_components(truth, 0)
    matches = sum(len(a & b) / len(a | b) >= 0.6 for a in found for b in true)
    assert counts(scores) == (matches, len(found) - matches, len(true) - matches)
    assert scores.false_positives == 15
