"""Metrics of voxels and all at once: hand calculations, properties, loops that share no code, scikit-learn."""

import json
from itertools import permutations

import dask.array as da
import numpy as np
import pytest
from combinations import in_one_case
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as sklearn_metrics

from napari_unetvnet.errors import DataProblem, SettingsProblem
from napari_unetvnet.metrics import (
    ConfusionMatrix,
    Overlap,
    confusion_matrix,
    counts,
    evaluate,
    object_scores,
    overlap,
    surface_scores,
)

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
        2 * common / (predicted + true) if union else None,
        common / union if union else None,
        predicted,
        true,
        common / predicted if predicted else None,
        common / true if true else None,
    )


def grid(side, pitch=10):
    """Ids of squares in rows and columns."""
    ids = np.zeros((side * pitch, side * pitch), np.uint16)
    for number, (row, column) in enumerate(np.ndindex(side, side), start=1):
        ids[row * pitch + 2 : row * pitch + 8, column * pitch + 2 : column * pitch + 8] = number
    return ids


def brief(scores):
    """Dice, IoU, predicted and true voxels of one class or of all."""
    if isinstance(scores, dict):
        return {value: brief(part) for value, part in scores.items()}
    return scores.dice, scores.iou, scores.predicted, scores.true


def rounded(evaluation):
    """All that an evaluation says, to nine digits."""
    return json.loads(json.dumps(evaluation.as_dict()), parse_float=lambda text: round(float(text), 9))


# Hand calculations


def test_the_matrix_of_the_specification():
    scores = overlap(*from_matrix([[50, 3], [5, 12]]))
    assert f"{scores[0].iou:.6f}, {scores[1].iou:.6f}" == "0.862069, 0.600000"
    assert scores[1] == Overlap(dice=0.75, iou=0.6, predicted=15, true=17, precision=12 / 15, recall=12 / 17)
    result = evaluate(*from_matrix([[50, 3], [5, 12]]))
    assert result.foreground == scores[1]
    assert (result.mean_dice, result.mean_iou, result.voxels, result.ignored) == (0.75, 0.6, 70, 0)
    confusion = result.confusion
    assert confusion.matrix().tolist() == [[50, 3], [5, 12]]
    assert f"{scores[0].recall:.6f}, {scores[1].recall:.6f}" == "0.943396, 0.705882"
    assert f"{confusion.accuracy:.6f}" == "0.885714"
    assert f"{confusion.mean_accuracy:.6f}" == "0.824639"
    assert f"{confusion.mean_iou:.6f}" == "0.731034"


def test_the_log_of_a_vessel_segmentation():
    """Global accuracy 95.2 and class accuracies 97.2, 81.5 fix the matrix; IoU and Dice must follow to the rounding."""
    vessels = (97.2 - 95.2) / (97.2 - 81.5)
    matrix = np.array([[0.972, 0.028], [0.185, 0.815]]) * [[1 - vessels], [vessels]]
    counted = ConfusionMatrix({place: round(share * 1e6) for place, share in np.ndenumerate(matrix)})
    background, vessel = counted.overlap(0), counted.overlap(1)
    assert counted.accuracy == pytest.approx(0.952, abs=1e-4)
    assert (background.iou, vessel.iou, counted.mean_iou) == pytest.approx((0.947, 0.686, 0.816), abs=0.004)
    assert vessel.dice == pytest.approx(0.813, abs=0.003)


def test_a_predicted_class_that_the_truth_lacks_leaves_the_mean_accuracy_and_is_named():
    counted = confusion_matrix(np.array([0, 0, 1, 7]), np.array([0, 0, 1, 1]))
    assert (counted.overlap(7).recall, counted.overlap(7).iou) == (None, 0.0)
    assert counted.mean_accuracy == (1 + 1 / 2) / 2
    assert counted.mean_iou == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert counted.absent == (7,)


def test_three_classes_by_hand():
    prediction = np.array([[0, 1, 1, 2, 2, 2]])
    truth = np.array([[0, 0, 1, 1, 2, 2]])
    result = evaluate(prediction, truth)
    assert brief(result.classes) == {0: (2 / 3, 1 / 2, 1, 2), 1: (1 / 2, 1 / 3, 2, 2), 2: (4 / 5, 2 / 3, 3, 2)}
    assert [scores.precision for scores in result.classes.values()] == [1, 1 / 2, 2 / 3]
    assert [scores.recall for scores in result.classes.values()] == [1 / 2, 1 / 2, 1]
    assert result.mean_dice == pytest.approx((1 / 2 + 4 / 5) / 2)
    assert result.mean_iou == pytest.approx((1 / 3 + 2 / 3) / 2)
    assert result.foreground == Overlap(8 / 9, 4 / 5, 5, 4, 4 / 5, 1)


# Reading, ignoring, other backgrounds


def test_many_values_against_few_are_read_as_object_ids():
    truth = grid(5)
    result = evaluate(truth > 0, truth)
    assert (result.truth_is, result.classes, result.objects.f1) == ("objects", {}, 1.0)
    assert (result.mean_dice, result.mean_iou) == (1.0, 1.0)
    assert brief(result.foreground) == (1.0, 1.0, int((truth > 0).sum()), int((truth > 0).sum()))


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


def test_another_background_value_is_compared_with_zero():
    truth = np.array([[1, 1, 2, 2, 1, 0]])
    for background in (0, 1):  # segment writes 0, other programs what was painted
        prediction = np.array([[background, 2, 2, 2, background, background]])
        result = evaluate(prediction, truth, background=1)
        assert brief(result.foreground) == (4 / 5, 2 / 3, 3, 2)
        assert (result.mean_dice, list(result.classes)) == (4 / 5, [0, 2])
        assert (result.objects.true_positives, result.objects.false_negatives) == (1, 0)
        assert "1 voxels of 0 beside the background 1" in result.notices[0]
    assert "no voxel of the background value 300" in evaluate(truth.astype(np.uint8), truth, background=300).notices[0]


def test_ignored_voxels_leave_everything():
    truth = np.array([[0, 0, 1, 1, 255, 255]])
    prediction = np.array([[0, 0, 1, 1, 1, 7]])
    result = evaluate(prediction, truth, ignore=255)
    assert list(result.classes) == [0, 1]
    assert (result.mean_dice, result.objects.f1, result.voxels, result.ignored) == (1.0, 1.0, 4, 2)
    assert brief(result.foreground) == (1.0, 1.0, 2, 2)


def test_what_was_painted_and_what_segment_writes_of_it_agree_in_every_score():
    labels = np.random.default_rng(0).integers(0, 3, (3, 20, 20)).repeat(2, 1).repeat(2, 2)
    painted = np.where(np.random.default_rng(1).random(labels.shape) < 0.3, labels + 1, 0)
    for output in ((0, 2, 3), (1, 2, 3)):
        result = evaluate(np.array(output)[labels], painted.astype(np.uint8), background=1, ignore=0)
        means = (result.mean_dice, result.mean_iou, *result.mean_surfaces().values())
        confusion, objects = result.confusion, result.objects
        assert means == (1.0, 1.0, 1.0, 0.0, 0.0)
        assert (confusion.accuracy, confusion.mean_accuracy, confusion.mean_iou, result.foreground.dice) == (1.0,) * 4
        assert (objects.f1, objects.panoptic_quality, objects.mean_average_precision) == (1.0, 1.0, 1.0)
        assert (list(result.classes), result.ignored, result.notices) == ([0, 2, 3], int((painted == 0).sum()), ())


# Degenerate inputs


def test_a_class_absent_from_both_has_no_score():
    image = np.array([[0, 1]])
    assert overlap(image, image, values=[0, 5])[5] == Overlap(None, None, 0, 0, None, None)
    assert evaluate(image, image).mean_dice == 1.0


def test_a_class_in_one_image_only_scores_nothing_and_counts_in_the_mean():
    prediction, truth = np.array([[0, 1, 3]]), np.array([[0, 1, 0]])
    result = evaluate(prediction, truth)
    assert result.classes[3] == Overlap(0.0, 0.0, 1, 0, 0.0, None)
    assert (result.mean_dice, result.mean_iou) == (0.5, 0.5)
    assert overlap(truth, prediction)[3] == Overlap(0.0, 0.0, 0, 1, None, 0.0)


def test_all_background():
    empty = np.zeros((4, 5), np.uint8)
    result = evaluate(empty, empty)
    assert (result.mean_dice, result.mean_iou, brief(result.foreground)) == (None, None, (None, None, 0, 0))
    assert (result.objects.f1, result.objects.precision, result.objects.recall) == (1.0, None, None)


def test_all_ignored_and_no_voxel_have_no_scores():
    for image in (np.full((3, 3), 255), np.zeros((0, 3), int), np.zeros((3, 0), int)):
        result = evaluate(image, image, ignore=255)
        assert (result.voxels, result.classes, result.mean_dice, result.objects.f1) == (0, {}, None, 1.0)


def test_a_single_voxel():
    one = np.array([[[7]]])
    assert evaluate(one, one).classes == {7: Overlap(1.0, 1.0, 1, 1, 1.0, 1.0)}
    assert evaluate(one, one).objects.true_positives == 1
    assert evaluate(one, one).surfaces["7"].surface_dice == 1.0


# Kinds of input


@in_one_case("dtype", ["bool", "int8", "uint8", "int32", "uint32", "int64", "uint64"])
def test_every_integer_type(dtype):
    low, high = (0, 1) if dtype == "bool" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    truth = np.array([[low, low, high, high]], dtype=dtype)
    prediction = np.array([[low, high, high, high]], dtype=dtype)
    scores = overlap(prediction, truth)
    assert brief(scores) == {low: (2 / 3, 1 / 2, 1, 2), high: (4 / 5, 2 / 3, 3, 2)}
    assert object_scores(prediction, truth).true_positives == (1 if low == 0 else 2)
    assert list(surface_scores(prediction, truth)) == [low, high]


def test_values_far_apart_and_types_that_differ():
    truth = np.array([[0, 127, 255, 60000, 60000]], np.uint16)
    prediction = np.array([[0, 127, 255, 255, 60000]], np.int64)
    scores = overlap(prediction, truth)
    assert brief(scores[60000]) == (2 / 3, 1 / 2, 1, 2)
    assert list(scores) == [0, 127, 255, 60000]
    assert evaluate(prediction.astype(np.uint16), truth, ignore=60000).mean_dice == 1.0


def test_an_ignore_value_that_the_type_cannot_hold_ignores_nothing():
    image = np.array([[0, 1]], np.uint8)
    assert evaluate(image, image, ignore=-1).voxels == evaluate(image, image, ignore=60000).voxels == 2


def test_memory_mapped_and_dask_images_are_read_in_slabs(tmp_path, monkeypatch):
    monkeypatch.setattr(counts, "SLAB_VOXELS", 100)
    rng = np.random.default_rng(0)
    truth, prediction = rng.integers(0, 4, (2, 7, 8, 9), dtype=np.uint8)
    np.save(tmp_path / "truth.npy", truth)
    mapped = np.load(tmp_path / "truth.npy", mmap_mode="r")
    assert overlap(prediction, mapped) == {value: brute_overlap(prediction, truth, value) for value in range(4)}
    in_slabs = evaluate(da.from_array(prediction, chunks=3), mapped)
    monkeypatch.undo()
    assert in_slabs == evaluate(prediction, truth)


def test_inputs_are_left_as_they_were():
    prediction, truth = np.array([[3, 1]]), np.array([[255, 1]])
    for image in (prediction, truth):
        image.setflags(write=False)
    evaluate(prediction, truth, ignore=255)
    assert prediction.tolist() == [[3, 1]]


@in_one_case("measure", [overlap, object_scores, surface_scores, evaluate])
def test_shapes_that_differ_are_refused(measure):
    with pytest.raises(DataProblem, match=r"shape \(4, 5\), the truth \(5, 4\).*crop"):
        measure(np.zeros((4, 5), int), np.zeros((5, 4), int))


@in_one_case("measure", [overlap, object_scores, surface_scores, evaluate])
def test_floats_are_refused(measure):
    with pytest.raises(DataProblem, match=r"prediction has values of type float32.*turn probabilities") as caught:
        measure(np.zeros((4, 5), np.float32), np.zeros((4, 5), float))
    assert len(caught.value.lines) == 2


def test_four_axes_have_overlaps_but_no_objects():
    image = np.ones((2, 2, 2, 2), int)
    assert overlap(image, image)[1].dice == 1.0
    for measure in (object_scores, surface_scores, evaluate):
        with pytest.raises(DataProblem, match="one to three axes"):
            measure(image, image)


def test_an_unknown_reading_is_refused():
    with pytest.raises(SettingsProblem, match=r"auto.*classes.*objects"):
        evaluate(np.zeros((2, 2), int), np.zeros((2, 2), int), truth_is="ids")


# Properties


@FEW
@given(images(2))
def test_voxels_agree_with_scikit_learn(pair):
    prediction, truth = (image.ravel() for image in pair)
    counted = confusion_matrix(prediction, truth)
    values = list(counted.values)
    table = sklearn_metrics.confusion_matrix(truth, prediction, labels=range(4))
    assert counted.matrix().tolist() == table[np.ix_(values, values)].tolist()
    assert counted.accuracy == pytest.approx(sklearn_metrics.accuracy_score(truth, prediction))
    scores = [counted.overlap(value) for value in values]
    each = {"labels": values, "average": None, "zero_division": 0}
    for name, score in (("iou", "jaccard"), ("dice", "f1"), ("precision", "precision"), ("recall", "recall")):
        expected = getattr(sklearn_metrics, f"{score}_score")(truth, prediction, **each)
        assert [getattr(part, name) or 0.0 for part in scores] == pytest.approx(expected.tolist())
    recalls = sklearn_metrics.recall_score(truth, prediction, labels=sorted(set(truth.tolist())), average="macro")
    assert counted.mean_accuracy == pytest.approx(recalls)
    assert counted.mean_iou == pytest.approx(
        sklearn_metrics.jaccard_score(truth, prediction, labels=values, average="macro", zero_division=0)
    )


@FEW
@given(images(2))
def test_overlap_agrees_with_loops(pair):
    scores = overlap(*pair, values=range(5))
    assert scores == {value: brute_overlap(*pair, value) for value in range(5)}


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
    here, there = evaluate(*pair, iou_threshold=0.3), evaluate(*turned, iou_threshold=0.3)
    assert rounded(there) == rounded(here)


@FEW
@given(images(2), st.lists(st.integers(-(2**40), 2**40), min_size=4, max_size=4, unique=True))
def test_any_integers_may_be_values(pair, names):
    renamed = overlap(*(np.array(names)[image] for image in pair))
    assert renamed == {names[value]: scores for value, scores in overlap(*pair).items()}


@FEW
@given(images(2), st.sampled_from([None, 0, 3]))
def test_the_dictionary_is_always_finite(pair, ignore):
    result = evaluate(*pair, ignore=ignore, regions="A=1+2 B=2")
    assert json.loads(json.dumps(result.as_dict(), allow_nan=False)) == result.as_dict()
