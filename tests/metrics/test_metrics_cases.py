"""Metrics of regions and of several cases: hand calculations and properties."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from test_metrics import FEW, images, small

from napari_unetvnet.metrics import (
    CaseScores,
    EvaluateSettings,
    Overlap,
    confusion_matrix,
    evaluate,
    object_scores,
    overlap,
    summarise,
    surface_scores,
)
from napari_unetvnet.metrics.report import evaluation_table, summary_table
from napari_unetvnet.settings.regions import PRESETS

BRATS = {region.name: region.values for region in PRESETS["brats"]}
tumours = st.sampled_from([0, 1, 2, 4])


@st.composite
def several(draw):
    """Predictions and truths of one to four images of different shapes."""
    count = draw(st.integers(1, 4))
    return [draw(images(2, max_side=4)) for _ in range(count)]


def summary_of(pairs, **changes):
    chosen = EvaluateSettings(**changes)
    return summarise({f"case {i}": evaluate(*pair, chosen) for i, pair in enumerate(pairs)}, chosen)


# Regions


def test_regions_by_hand():
    prediction, truth = np.array([[0, 1, 2, 4, 4, 0]]), np.array([[0, 1, 1, 4, 2, 2]])
    result = evaluate(prediction, truth, regions="brats")
    assert {name: (scores.dice, scores.iou) for name, scores in result.regions.items()} == {
        "WT": (8 / 9, 4 / 5),
        "TC": (4 / 6, 2 / 4),
        "ET": (2 / 3, 1 / 2),
    }
    assert result.regions["ET"] == result.classes[4]
    assert list(result.surfaces) == ["1", "2", "4", "WT", "TC", "ET"]
    assert "TC                  0.6667   0.5000" in evaluation_table(result)


def test_a_region_that_neither_image_has_is_right():
    empty = np.zeros((2, 2), int)
    result = evaluate(empty, empty, regions="ET=4")
    assert result.regions == {"ET": Overlap(1.0, 1.0, 0, 0, None, None)}
    assert result.surfaces["ET"].surface_dice is None
    one = np.array([[4, 0]])
    assert evaluate(one * 0, one, regions="ET=4").regions["ET"].dice == 0.0


@FEW
@given(hnp.array_shapes(min_dims=1, max_dims=3, max_side=5).flatmap(
    lambda shape: st.tuples(*[hnp.arrays(np.uint8, shape, elements=tumours)] * 2)
))  # fmt: skip
def test_a_region_is_the_class_of_its_mask(pair):
    result = evaluate(*pair, regions="brats", spacing=(2, 1, 0.5))
    for name, values in BRATS.items():
        masks = [np.isin(image, values) for image in pair]
        expected = overlap(*masks, [1])[1]
        dice = (2 * (masks[0] & masks[1]).sum() + 1e-10) / (masks[0].sum() + masks[1].sum() + 1e-10)
        assert result.regions[name].dice == pytest.approx(dice, abs=1e-9)
        assert (result.regions[name].predicted, result.regions[name].true) == (expected.predicted, expected.true)
        assert result.surfaces[name] == surface_scores(*masks, [1], (2, 1, 0.5))[1]


@FEW
@given(images(3), st.integers(0, 3))
def test_ignored_voxels_leave_regions_too(three, ignore):
    prediction, other, truth = three
    changed = np.where(truth == ignore, other, prediction)
    here, there = (evaluate(image, truth, ignore=ignore, regions="A=1+2") for image in (prediction, changed))
    assert (here.regions, here.surfaces) == (there.regions, there.surfaces)


def test_values_outside_of_all_regions_are_told():
    image = np.array([[0, 1, 2, 3]])
    (line,) = evaluate(image, image, regions="WT=1+2+4 TC=1+4").notices
    assert line.startswith("No region has the value 3,")


def test_regions_make_many_values_classes():
    truth = np.arange(30)[None]
    assert evaluate(truth > 0, truth).truth_is == "objects"
    assert evaluate(truth > 0, truth, regions="A=1+2").truth_is == "classes"


# Several cases


def test_pooled_and_mean_differ_as_they_should():
    large, small_one = np.ones((1, 90), int), np.ones((1, 10), int)
    summary = summary_of([(large, large), (small_one * 0, small_one)])
    assert summary.pooled.classes[1].recall == 90 / 100
    assert summary.means["1"].recall == (1 + 0) / 2
    assert summary.means["1"].dice == (1 + 0) / 2
    assert summary.mean_scores["mean_dice"] == (1 + 0) / 2
    assert summary.pooled.mean_dice == 2 * 90 / 190


def test_a_class_that_a_case_lacks_is_left_out_of_its_mean():
    one, both = np.array([[0, 1]]), np.array([[2, 1]])
    summary = summary_of([(one, one), (both, both), (one, both)])
    assert (summary.means["2"].cases, summary.means["2"].cases_with_distance) == (2, 1)
    assert (summary.means["2"].dice, summary.means["2"].surface_dice, summary.means["2"].hd95) == (0.5, 0.5, 0.0)
    assert summary.means["1"].cases == 3


@pytest.mark.parametrize(("voxels", "expected"), [(10, (1, 1, 1, 2)), (9, (2, 1, 1, 1)), (100, (0, 0, 0, 5))])
def test_a_case_has_a_class_above_ten_voxels(voxels, expected):
    def image(count):
        return (np.arange(40) < count).astype(int)[None]

    pairs = [
        (image(11), image(30)),
        (image(11), image(0)),
        (image(3), image(11)),
        (image(0), image(0)),
        (image(10), image(10)),
    ]
    summary = summary_of(pairs, case_voxels=voxels)
    assert summary.detection["1"] == summary.detection["foreground"] == CaseScores(*expected)
    assert "0" not in summary.detection


def test_case_level_scores_by_hand():
    scores = CaseScores(true_positives=3, false_positives=1, false_negatives=2, true_negatives=4)
    assert (scores.recall, scores.precision, scores.accuracy) == (3 / 5, 3 / 4, 7 / 10)
    nothing = CaseScores(0, 0, 0, 2)
    assert (nothing.recall, nothing.precision, nothing.accuracy) == (None, None, 1.0)


def test_object_ids_of_several_cases():
    truth = np.repeat(np.arange(20), 3)[None]
    summary = summary_of([(truth > 0, truth), (truth * 0, truth)], truth_is="objects")
    assert (summary.pooled.truth_is, summary.pooled.classes) == ("objects", {})
    assert summary.pooled.foreground.recall == 0.5
    assert list(summary.means) == ["foreground"]
    assert (summary.means["foreground"].surface_dice, summary.means["foreground"].cases_with_distance) == (0.5, 1)


def test_distances_in_different_units_are_not_averaged():
    image = np.array([[0, 1]])
    cases = {unit: evaluate(image, image, unit=unit) for unit in ("mm", "nm")}
    summary = summarise(cases)
    assert summary.means["1"].hd95 is summary.mean_scores["mean_hd95"] is None
    assert "differ in the unit" in summary.notices[-1]
    assert summary.means["1"].surface_dice == 1.0


def test_the_table_of_two_cases():
    first, second = np.array([[0, 1, 1, 2]]), np.array([[0, 0, 1, 1]])
    summary = summary_of([(first, first), (second, second)], unit="mm", case_voxels=0)
    lines = summary_table(summary).split("\n")
    assert lines[:4] == [
        "case        dice       iou  accuracy   surface      hd95 object F1        AP        PQ",
        "case 0    1.0000    1.0000    1.0000    1.0000     0.000    1.0000    1.0000    1.0000",
        "case 1    1.0000    1.0000    1.0000    1.0000     0.000    1.0000    1.0000    1.0000",
        "(mean)    1.0000    1.0000    1.0000    1.0000     0.000    1.0000    1.0000    1.0000",
    ]
    assert (
        "2                   1.0000   1.0000     1.0000   1.0000   1.0000    0.000     0.000            1            1"
        in lines
    )
    assert "2                     1.0000     1.0000     1.0000          1          0          0          1" in lines
    assert max(map(len, lines)) <= 110


def test_a_long_name_loses_its_beginning():
    image = np.array([[0, 1]])
    name = "a folder with a name that is far too long for a table/case 7"
    line = summary_table(summarise({name: evaluate(image, image)})).split("\n")[1]
    assert line.startswith("...")
    assert "table/case 7 " in line


@FEW
@given(several())
def test_pooled_is_the_score_of_all_voxels_in_one_image(pairs):
    summary = summary_of(pairs)
    flat = [np.concatenate([pair[side].ravel() for pair in pairs]) for side in (0, 1)]
    whole = confusion_matrix(*flat)
    assert summary.pooled.confusion == whole
    assert summary.pooled.classes == overlap(*flat)
    assert summary.pooled.voxels == flat[0].size


@FEW
@given(st.lists(images(2, max_dims=1, max_side=8), min_size=1, max_size=3), st.sampled_from([0.3, 0.5, 0.7]))
def test_pooled_objects_are_those_of_images_side_by_side(pairs, threshold):
    summary = summary_of(pairs, iou_threshold=threshold)
    apart = [np.concatenate([np.append(pair[side], 0) for pair in pairs]) for side in (0, 1)]
    together = object_scores(*apart, threshold)
    found = summary.pooled.objects
    assert (found.matches, found.average_precision) == (together.matches, together.average_precision)
    assert (found.f1, found.precision, found.recall) == (together.f1, together.precision, together.recall)
    assert found.panoptic_quality == pytest.approx(together.panoptic_quality)


@FEW
@given(images(2), st.sampled_from([None, 3]))
def test_one_case_is_its_own_mean(pair, ignore):
    summary = summary_of([pair], ignore=ignore)
    (only,) = summary.cases.values()
    assert summary.pooled.classes == only.classes
    assert (summary.pooled.mean_dice, summary.pooled.ignored) == (only.mean_dice, only.ignored)
    assert summary.pooled.objects == only.objects or summary.pooled.objects.f1 == only.objects.f1
    for name, scores in only.surfaces.items():
        assert (summary.means[name].hd95, summary.means[name].surface_dice) == (scores.hd95, scores.surface_dice)
    assert summary.mean_scores["mean_dice"] == only.mean_dice


@FEW
@given(several())
def test_summaries_survive_json(pairs):
    plain = summary_of(pairs, regions="A=1+2").as_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain


@FEW
@given(st.lists(st.tuples(small, small), min_size=1, max_size=6), st.integers(0, 3))
def test_cases_are_counted_as_by_loops(counts, voxels):
    pairs = [tuple((np.arange(5) < count).astype(int) for count in pair) for pair in counts]
    found = summary_of(pairs, case_voxels=voxels, no_surfaces=True).detection["foreground"]
    assert found.true_positives == sum(p > voxels and t > voxels for p, t in counts)
    assert found.false_positives == sum(p > voxels >= t for p, t in counts)
    assert found.false_negatives == sum(t > voxels >= p for p, t in counts)
    assert found.true_negatives == sum(p <= voxels and t <= voxels for p, t in counts)
