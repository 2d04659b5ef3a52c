"""What an evaluation writes down, says of odd values, and takes as settings."""

import json

import numpy as np
import pytest
from combinations import in_one_case
from test_metrics import from_matrix

from napari_unetvnet.errors import SettingsProblem
from napari_unetvnet.metrics import EvaluateSettings, evaluate
from napari_unetvnet.metrics.report import evaluation_table

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
    lines = evaluation_table(evaluate(prediction, truth, ignore=255, spacing=(1, 1, 0.5), unit="mm")).split("\n")
    assert lines == [
        "class                 dice      iou  precision   recall  surface     hd95  distance    predicted         true",
        "0 (background)      0.6667   0.5000     1.0000   0.5000        -        -         -            1            2",
        "1                   0.5000   0.3333     0.5000   0.5000   1.0000    0.475     0.250            2            2",
        "2                   0.8000   0.6667     0.6667   1.0000   1.0000    0.500     0.500            3            2",
        "foreground          0.8889   0.8000     0.8000   1.0000        -        -         -            5            4",
        "mean                0.6500   0.5000          -        -   1.0000    0.487     0.375",
        "",
        "Truth values read as classes; 6 voxels compared, 1 ignored.",
        "Global accuracy 0.6667; over all values, background included: mean accuracy 0.6667, mean IoU 0.5000.",
        "Surfaces agree within 0.5 mm; hd95 and mean distance in mm, voxel size 1 x 1 x 0.5.",
        "Objects at IoU >= 0.5: F1 0.5000, precision 0.5000, recall 0.5000; 1 found, 1 false, 1 missed.",
        "AP over IoU 0.50 to 0.95: 0.1333 (0.3333 at 0.50, 0.0000 at 0.75, 0.0000 at 0.90); panoptic quality 0.3333.",
    ]
    assert max(map(len, lines)) <= 110


def test_the_table_says_nothing_where_there_is_nothing():
    empty = np.zeros((2, 2), int)
    assert "mean                     -        -          -        -        -        -         -" in evaluation_table(
        evaluate(empty, empty)
    )


# Odd values


def test_values_that_do_not_meet_are_told():
    truth = np.array([[0, 1, 1, 0]])
    (line,) = evaluate(truth * 255, truth).notices
    assert "the prediction has 255, the truth 1." in line
    assert evaluate(truth * 255, truth).foreground.dice == 1.0
    assert line in evaluation_table(evaluate(truth * 255, truth))
    assert evaluate(truth * 255, truth).as_dict()["notices"] == [line]
    assert evaluate(truth, truth).notices == evaluate(truth * 0, truth).notices == ()


def test_ids_of_a_few_objects_read_as_classes_are_told():
    truth = np.repeat(np.arange(6), 4)[None]
    (line,) = evaluate(truth > 0, truth).notices
    assert "--truth-is objects" in line
    assert evaluate(truth > 0, truth, truth_is="objects").notices == ()
    assert evaluate(truth, truth).notices == ()


def test_all_ignored_is_told():
    image = np.full((2, 2), 255)
    assert evaluate(image, image, ignore=255).notices == ("No voxel was compared: all are ignored.",)


# Settings


def test_settings_and_changes_come_together():
    truth = np.array([[1, 1, 2, 2, 0]])
    chosen = EvaluateSettings(ignore=2, background=1)
    assert evaluate(truth, truth, chosen).ignored == 2
    assert evaluate(truth, truth, chosen, ignore=0).ignored == 1
    assert evaluate(truth, truth, chosen, ignore=0).background == 1
    assert evaluate(truth, truth, no_surfaces=True).surfaces == {}


@in_one_case(
    "changes, said",
    [
        ({"toleranse": 1}, "toleranse.*tolerance"),
        ({"tolerance": -1}, "tolerance"),
        ({"spacing": (1, 0, 1)}, "spacing"),
        ({"regions": "WT"}, "name=value"),
        ({"regions": 5}, "regions"),
        ({"iou_threshold": 0}, "iou_threshold"),
        ({"regions": "A=1", "truth_is": "objects"}, "unions of classes"),
        ({"regions": "A=1+2", "background": 1}, "Region A=1.2 contains the background value 1"),
        ({"background": 1, "ignore": 1}, "both background and ignored"),
    ],
)
def test_settings_that_do_not_exist_or_fit_are_refused(changes, said):
    with pytest.raises(SettingsProblem, match=said):
        evaluate(np.zeros((2, 2), int), np.zeros((2, 2), int), **changes)
