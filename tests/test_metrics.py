"""Metrics: hand calculations, properties, and agreement with loops that share no code."""

import json
import math
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_unetvnet import metrics
from napari_unetvnet.errors import DataProblem, SettingsProblem
from napari_unetvnet.metrics import Overlap, evaluate, object_scores, overlap

FEW = settings(deadline=None, max_examples=150)
small = st.integers(0, 3)


def images(count, values=small, max_dims=3, max_side=6):
    """Draw label images of one shape."""
    shapes = hnp.array_shapes(min_dims=1, max_dims=max_dims, max_side=max_side)
    return shapes.flatmap(lambda shape: st.tuples(*[hnp.arrays(np.int16, shape, elements=values)] * count))


def from_matrix(matrix):
    """Two label images with the confusion matrix M[true, predicted]."""
    pairs = [(t, p) for (t, p), count in np.ndenumerate(np.array(matrix)) for _ in range(count)]
    truth, prediction = np.array(pairs, dtype=np.uint8).T
    return prediction[None], truth[None]


def brute_overlap(prediction, truth, value):
    common = sum(p == t == value for p, t in zip(prediction.flat, truth.flat, strict=True))
    predicted, true = sum(p == value for p in prediction.flat), sum(t == value for t in truth.flat)
    union = predicted + true - common
    return Overlap(
        2 * common / (predicted + true) if union else None, common / union if union else None, predicted, true
    )


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


def brute_objects(prediction, truth, threshold, background=0):
    found, true = brute_components(prediction, background), brute_components(truth, background)
    pairs = [(i, j) for i, a in enumerate(found) for j, b in enumerate(true) if len(a & b) / len(a | b) >= threshold]
    matches = brute_matches(pairs)
    return matches, len(found) - matches, len(true) - matches


def counts(scores):
    return scores.true_positives, scores.false_positives, scores.false_negatives


# Hand calculations


def test_the_matrix_of_the_specification():
    scores = overlap(*from_matrix([[50, 3], [5, 12]]))
    assert f"{scores[0].iou:.6f}, {scores[1].iou:.6f}" == "0.862069, 0.600000"
    assert scores[1] == Overlap(dice=0.75, iou=0.6, predicted=15, true=17)
    result = evaluate(*from_matrix([[50, 3], [5, 12]]))
    assert result.foreground == scores[1]
    assert (result.mean_dice, result.mean_iou, result.voxels, result.ignored) == (0.75, 0.6, 70, 0)


def test_three_classes_by_hand():
    prediction = np.array([[0, 1, 1, 2, 2, 2]])
    truth = np.array([[0, 0, 1, 1, 2, 2]])
    result = evaluate(prediction, truth)
    assert result.classes == {
        0: Overlap(2 / 3, 1 / 2, 1, 2),
        1: Overlap(1 / 2, 1 / 3, 2, 2),
        2: Overlap(4 / 5, 2 / 3, 3, 2),
    }
    assert result.mean_dice == pytest.approx((1 / 2 + 4 / 5) / 2)
    assert result.mean_iou == pytest.approx((1 / 3 + 2 / 3) / 2)
    assert result.foreground == Overlap(8 / 9, 4 / 5, 5, 4)


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


# Reading, ignoring, other backgrounds


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


def test_many_values_against_few_are_read_as_object_ids():
    truth = grid(5)
    result = evaluate(truth > 0, truth)
    assert (result.truth_is, result.classes, result.objects.f1) == ("objects", {}, 1.0)
    assert (result.mean_dice, result.mean_iou) == (1.0, 1.0)
    assert result.foreground == Overlap(1.0, 1.0, int((truth > 0).sum()), int((truth > 0).sum()))


@pytest.mark.parametrize(("ids", "read"), [(16, "classes"), (17, "objects")])
def test_ids_begin_above_sixteen_values(ids, read):
    truth = np.arange(ids + 1)[None].repeat(2, 0)
    assert evaluate(truth > 0, truth).truth_is == read
    assert evaluate(truth, truth).truth_is == "classes"
    assert evaluate(np.minimum(truth, 2), truth).truth_is == read
    assert evaluate(np.minimum(truth, 3), truth).truth_is == "classes"


def test_the_reading_can_be_ordered():
    truth = grid(5)
    assert len(evaluate(truth > 0, truth, truth_is="classes").classes) == 26
    two = np.minimum(truth, 1)
    result = evaluate(two * 2, two, truth_is="objects")
    assert (result.classes, result.mean_dice, result.objects.f1) == ({}, 1.0, 1.0)


def test_another_background_value():
    truth = np.array([[1, 1, 2, 2, 1, 0]])
    prediction = np.array([[1, 2, 2, 2, 1, 1]])
    result = evaluate(prediction, truth, background=1)
    assert result.foreground == Overlap(4 / 6, 2 / 4, 3, 3)
    assert result.mean_dice == pytest.approx((0 + 4 / 5) / 2)  # classes 0 and 2
    assert counts(result.objects) == (1, 0, 1)


def test_ignored_voxels_leave_everything():
    truth = np.array([[0, 0, 1, 1, 255, 255]])
    prediction = np.array([[0, 0, 1, 1, 1, 7]])
    result = evaluate(prediction, truth, ignore=255)
    assert list(result.classes) == [0, 1]
    assert (result.mean_dice, result.objects.f1, result.voxels, result.ignored) == (1.0, 1.0, 4, 2)
    assert result.foreground == Overlap(1.0, 1.0, 2, 2)


def test_zero_may_be_ignored_beside_another_background():
    truth = np.array([[0, 0, 1, 2, 2, 1]])
    prediction = np.array([[2, 1, 1, 2, 2, 1]])
    result = evaluate(prediction, truth, background=1, ignore=0)
    assert (result.mean_dice, result.objects.f1, result.ignored) == (1.0, 1.0, 2)


# Degenerate inputs


def test_a_class_absent_from_both_has_no_score():
    image = np.array([[0, 1]])
    assert overlap(image, image, values=[0, 5])[5] == Overlap(None, None, 0, 0)
    assert evaluate(image, image).mean_dice == 1.0


def test_a_class_in_one_image_only_scores_nothing_and_counts_in_the_mean():
    prediction, truth = np.array([[0, 1, 3]]), np.array([[0, 1, 0]])
    result = evaluate(prediction, truth)
    assert result.classes[3] == Overlap(0.0, 0.0, 1, 0)
    assert (result.mean_dice, result.mean_iou) == (0.5, 0.5)
    assert overlap(truth, prediction)[3] == Overlap(0.0, 0.0, 0, 1)


def test_all_background():
    empty = np.zeros((4, 5), np.uint8)
    result = evaluate(empty, empty)
    assert (result.mean_dice, result.mean_iou, result.foreground) == (None, None, Overlap(None, None, 0, 0))
    assert (result.objects.f1, result.objects.precision, result.objects.recall) == (1.0, None, None)


def test_nothing_predicted_and_nothing_there():
    empty, one = np.zeros((4, 5), np.uint8), np.eye(4, 5, dtype=np.uint8)
    missed, false = object_scores(empty, one), object_scores(one, empty)
    assert (missed.f1, missed.precision, missed.recall) == (0.0, None, 0.0)
    assert (false.f1, false.precision, false.recall) == (0.0, 0.0, None)


def test_all_ignored_and_no_voxel_have_no_scores():
    for image in (np.full((3, 3), 255), np.zeros((0, 3), int), np.zeros((3, 0), int)):
        result = evaluate(image, image, ignore=255)
        assert (result.voxels, result.classes, result.mean_dice, result.objects.f1) == (0, {}, None, 1.0)


def test_a_single_voxel():
    one = np.array([[[7]]])
    assert evaluate(one, one).classes == {7: Overlap(1.0, 1.0, 1, 1)}
    assert counts(evaluate(one, one).objects) == (1, 0, 0)


# Kinds of input


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int32", "uint32", "int64", "uint64"])
def test_every_integer_type(dtype):
    low, high = (0, 1) if dtype == "bool" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    truth = np.array([[low, low, high, high]], dtype=dtype)
    prediction = np.array([[low, high, high, high]], dtype=dtype)
    scores = overlap(prediction, truth)
    assert scores == {low: Overlap(2 / 3, 1 / 2, 1, 2), high: Overlap(4 / 5, 2 / 3, 3, 2)}
    assert counts(object_scores(prediction, truth)) == ((1, 0, 0) if low == 0 else (2, 0, 0))


def test_values_far_apart_and_types_that_differ():
    truth = np.array([[0, 127, 255, 60000, 60000]], np.uint16)
    prediction = np.array([[0, 127, 255, 255, 60000]], np.int64)
    scores = overlap(prediction, truth)
    assert scores[60000] == Overlap(2 / 3, 1 / 2, 1, 2)
    assert list(scores) == [0, 127, 255, 60000]
    assert evaluate(prediction.astype(np.uint16), truth, ignore=60000).mean_dice == 1.0


def test_an_ignore_value_that_the_type_cannot_hold_ignores_nothing():
    image = np.array([[0, 1]], np.uint8)
    assert evaluate(image, image, ignore=-1).voxels == evaluate(image, image, ignore=60000).voxels == 2


def test_a_memory_mapped_image_is_counted_in_slabs(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics, "SLAB_VOXELS", 100)
    rng = np.random.default_rng(0)
    truth, prediction = rng.integers(0, 4, (2, 7, 8, 9), dtype=np.uint8)
    np.save(tmp_path / "truth.npy", truth)
    mapped = np.load(tmp_path / "truth.npy", mmap_mode="r")
    assert overlap(prediction, mapped) == {value: brute_overlap(prediction, truth, value) for value in range(4)}
    assert evaluate(prediction, mapped) == evaluate(prediction, truth)


def test_inputs_are_left_as_they_were():
    prediction, truth = np.array([[3, 1]]), np.array([[255, 1]])
    for image in (prediction, truth):
        image.setflags(write=False)
    evaluate(prediction, truth, ignore=255)
    assert prediction.tolist() == [[3, 1]]


@pytest.mark.parametrize("measure", [overlap, object_scores, evaluate])
def test_shapes_that_differ_are_refused(measure):
    with pytest.raises(DataProblem, match=r"shape \(4, 5\), the truth \(5, 4\).*crop"):
        measure(np.zeros((4, 5), int), np.zeros((5, 4), int))


@pytest.mark.parametrize("measure", [overlap, object_scores, evaluate])
def test_floats_are_refused(measure):
    with pytest.raises(DataProblem, match=r"prediction holds values of type float32.*turn probabilities") as caught:
        measure(np.zeros((4, 5), np.float32), np.zeros((4, 5), float))
    assert len(caught.value.lines) == 2


def test_four_axes_have_overlaps_but_no_objects():
    image = np.ones((2, 2, 2, 2), int)
    assert overlap(image, image)[1].dice == 1.0
    with pytest.raises(DataProblem, match="one to three axes"):
        object_scores(image, image)


@pytest.mark.parametrize("threshold", [0, -1, 1.01, math.nan, math.inf])
def test_thresholds_out_of_range_are_refused(threshold):
    with pytest.raises(SettingsProblem, match="above 0"):
        object_scores(np.zeros((2, 2), int), np.zeros((2, 2), int), threshold)


def test_an_unknown_reading_is_refused():
    with pytest.raises(SettingsProblem, match="auto, classes or objects"):
        evaluate(np.zeros((2, 2), int), np.zeros((2, 2), int), truth_is="ids")


# Writing down


def test_the_dictionary_survives_json():
    for result in (
        evaluate(*from_matrix([[50, 3], [5, 12]])),
        evaluate(np.zeros((2, 2), int), np.zeros((2, 2), int)),
    ):
        plain = result.as_dict()
        assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["mean_dice"] is None
    assert list(plain["classes"]) == ["0"]


def test_the_table_of_a_small_case():
    prediction, truth = np.array([[0, 1, 1, 2, 2, 2, 0]]), np.array([[0, 0, 1, 1, 2, 2, 255]])
    lines = evaluate(prediction, truth, ignore=255).table().split("\n")
    assert lines == [
        "class                 dice     iou    predicted         true",
        "0 (background)      0.6667  0.5000            1            2",
        "1                   0.5000  0.3333            2            2",
        "2                   0.8000  0.6667            3            2",
        "foreground          0.8889  0.8000            5            4",
        "mean                0.6500  0.5000",
        "",
        "Truth values read as classes; 6 voxels compared, 1 ignored.",
        "Objects at IoU >= 0.5: F1 0.5000, precision 0.5000, recall 0.5000; 1 found, 1 false, 1 missed.",
    ]


def test_the_table_says_nothing_where_there_is_nothing():
    empty = np.zeros((2, 2), int)
    assert "mean                     -       -" in evaluate(empty, empty).table()


# Properties


@FEW
@given(images(2))
def test_overlap_agrees_with_loops(pair):
    scores = overlap(*pair, values=range(5))
    assert scores == {value: brute_overlap(*pair, value) for value in range(5)}


@FEW
@given(images(2, max_side=4), st.sampled_from([0.1, 0.25, 1 / 3, 0.5, 0.6, 1.0]), st.sampled_from([0, 1, -1]))
def test_objects_agree_with_loops(pair, threshold, background):
    prediction, truth = (image % 3 + min(background, 0) for image in pair)  # values from -1 where that is background
    scores = object_scores(prediction, truth, threshold, background=background)
    assert counts(scores) == brute_objects(prediction, truth, threshold, background)


@FEW
@given(images(2))
def test_dice_is_symmetric_bounded_and_fits_the_iou(pair):
    there, back = overlap(*pair), overlap(*pair[::-1])
    for value, scores in there.items():
        assert (back[value].dice, back[value].iou) == (scores.dice, scores.iou)
        assert 0 <= scores.iou <= scores.dice <= 1
        assert scores.dice == pytest.approx(2 * scores.iou / (1 + scores.iou))


@FEW
@given(images(2))
def test_all_scores_are_one_only_for_equal_images(pair):
    equal = bool(np.array_equal(*pair))
    assert all(scores.dice == 1 for scores in overlap(*pair).values()) == equal
    same = evaluate(pair[0], pair[0])
    assert same.mean_dice in (1.0, None)
    assert same.objects.f1 == 1.0


@FEW
@given(images(3), st.integers(0, 3))
def test_what_is_predicted_at_ignored_voxels_changes_nothing(three, ignore):
    prediction, other, truth = three
    changed = np.where(truth == ignore, other, prediction)
    assert evaluate(changed, truth, ignore=ignore) == evaluate(prediction, truth, ignore=ignore)


@FEW
@given(images(2))
def test_ignoring_a_value_is_leaving_its_voxels_out(pair):
    prediction, truth = pair
    keep = truth != 3
    assert overlap(prediction, truth, ignore=3) == overlap(prediction[keep], truth[keep])


@FEW
@given(images(2, max_dims=3), st.data())
def test_turning_and_mirroring_both_images_changes_nothing(pair, data):
    axes = data.draw(st.sampled_from(list(permutations(range(pair[0].ndim)))))
    flips = data.draw(st.sets(st.integers(0, pair[0].ndim - 1)))
    turned = [np.flip(image.transpose(axes), tuple(flips)) for image in pair]
    assert evaluate(*turned, iou_threshold=0.3) == evaluate(*pair, iou_threshold=0.3)


@FEW
@given(images(2), st.permutations([1, 2, 3]), st.sampled_from([0.3, 0.5, 0.7]))
def test_renaming_objects_changes_nothing(pair, names, threshold):
    prediction, truth = pair
    renamed = np.array([0, *names])[truth]
    assert object_scores(prediction, renamed, threshold) == object_scores(prediction, truth, threshold)


@FEW
@given(images(2), st.lists(st.integers(-(2**40), 2**40), min_size=4, max_size=4, unique=True))
def test_any_integers_may_be_values(pair, names):
    renamed = overlap(*(np.array(names)[image] for image in pair))
    assert renamed == {names[value]: scores for value, scores in overlap(*pair).items()}


@FEW
@given(images(2), st.sampled_from([0.2, 0.5, 0.8]))
def test_swapping_the_images_swaps_false_and_missed(pair, threshold):
    there, back = object_scores(*pair, threshold), object_scores(*pair[::-1], threshold)
    assert counts(there) == (back.true_positives, back.false_negatives, back.false_positives)
    assert there.f1 == back.f1


@FEW
@given(images(2))
def test_a_stricter_threshold_never_matches_more(pair):
    matched = [object_scores(*pair, threshold).true_positives for threshold in (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)]
    assert matched == sorted(matched, reverse=True)


@FEW
@given(images(2), st.sampled_from([None, 0, 3]))
def test_the_dictionary_is_always_finite(pair, ignore):
    json.dumps(evaluate(*pair, ignore=ignore).as_dict(), allow_nan=False)


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
