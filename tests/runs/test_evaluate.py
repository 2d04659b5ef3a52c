"""The evaluate command as a person uses it: files, folders and tables in; a table, JSON or CSV out."""

import csv
import io
import json
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile

from napari_unetvnet.cli.main import main
from napari_unetvnet.metrics import EvaluateSettings, evaluate
from napari_unetvnet.metrics.report import COLUMNS
from napari_unetvnet.runs.evaluate import score_files


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three cases of two classes in two folders; the prediction of "b" lacks class 2, "c" is perfect."""
    rng = np.random.default_rng(0)
    for name in ("found", "right"):
        (tmp_path / name).mkdir()
    for name in "abc":
        truth = np.kron(rng.integers(0, 3, (6, 8)), np.ones((5, 5), int)).astype(np.uint8)
        found = np.roll(truth, 1) if name != "c" else truth.copy()
        if name == "b":
            found[found == 2] = 0
        tifffile.imwrite(tmp_path / "right" / f"{name}_labels.tif", truth)
        tifffile.imwrite(tmp_path / "found" / f"{name}.tif", found)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def evaluated(capsys, *arguments):
    capsys.readouterr()
    assert main(["evaluate", *arguments]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def refused(capsys, *arguments):
    capsys.readouterr()
    assert main(["evaluate", *arguments]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error


def nifti(path, labels, spacing=(1, 1, 1), unit="mm"):
    image = nibabel.Nifti1Image(labels, np.diag([*spacing, 1.0]))
    image.header.set_xyzt_units(unit)
    nibabel.save(image, path)


def test_two_files_give_all_that_applies(folder, capsys):
    plain = json.loads(evaluated(capsys, "found/a.tif", "right/a_labels.tif", "--json"))
    assert set(plain) == {
        "truth_is", "background", "ignore", "voxels", "ignored", "mean_dice", "mean_iou", "foreground", "classes",
        "objects", "confusion", "regions", "surfaces", "spacing", "unit", "tolerance", "notices", "mean_surface_dice",
        "mean_hd95", "mean_distance", "class_names",
    }  # fmt: skip
    assert set(plain["classes"]) == {"0", "1", "2"}
    assert set(plain["classes"]["1"]) == {"dice", "iou", "precision", "recall", "predicted", "true"}
    assert set(plain["surfaces"]) == {"1", "2"}
    table = evaluated(capsys, "found/a.tif", "right/a_labels.tif")
    assert f"{plain['classes']['1']['dice']:.4f}" in table
    assert max(map(len, table.splitlines())) <= 110


def test_surfaces_can_be_left_out(folder, capsys):
    plain = json.loads(evaluated(capsys, "found/a.tif", "right/a_labels.tif", "--json", "--no-surfaces"))
    assert (plain["surfaces"], plain["mean_hd95"], plain["tolerance"]) == ({}, None, None)


def test_a_file_may_be_compared_with_itself(folder, capsys):
    plain = json.loads(evaluated(capsys, "found/a.tif", "found/a.tif", "--json"))
    assert (plain["mean_dice"], plain["mean_hd95"], plain["confusion"]["accuracy"]) == (1.0, 0.0, 1.0)


def test_folders_are_paired_by_name(folder, capsys):
    plain = json.loads(evaluated(capsys, "found", "right", "--json"))
    assert [case["case"] for case in plain["cases"]] == ["a", "b", "c"]
    assert [case["truth"].rpartition("/")[2] for case in plain["cases"]] == [f"{name}_labels.tif" for name in "abc"]
    assert plain["cases"][2]["mean_dice"] == 1.0
    one = json.loads(evaluated(capsys, "found/a.tif", "right/a_labels.tif", "--json"))
    assert {key: plain["cases"][0][key] for key in one} == one
    assert sum(plain["pooled"]["confusion"]["matrix"][2]) == sum(
        case["classes"]["2"]["true"] for case in plain["cases"]
    )
    found = plain["case_level"]["parts"]["2"]
    assert (found["true_positives"], found["false_negatives"], found["recall"]) == (2, 1, 2 / 3)
    dices = [case["classes"]["1"]["dice"] for case in plain["cases"]]
    assert plain["mean_over_cases"]["parts"]["1"]["dice"] == pytest.approx(np.mean(dices))
    table = evaluated(capsys, "found", "right")
    assert all(word in table for word in ("Pooled", "Mean over", "Cases that have", "(mean)"))
    assert max(map(len, table.splitlines())) <= 110


def test_painted_background_is_compared_with_what_segment_writes(folder, capsys):
    for name, values in (("a", (0, 2, 3)), ("b", (0, 2, 2)), ("c", (0, 2, 3))):
        labels = tifffile.imread(f"right/{name}_labels.tif")
        painted = np.where(np.random.default_rng(1).random(labels.shape) < 0.5, labels + 1, 0)
        tifffile.imwrite(f"right/{name}_labels.tif", painted.astype(np.uint8))
        tifffile.imwrite(f"found/{name}.tif", np.array(values, np.uint8)[labels])
    options = ["--ignore", "0", "--background", "1"]  # as docs/how-to/evaluate.md gives them
    plain = json.loads(evaluated(capsys, "found", "right", *options, "--json"))
    assert [case["mean_dice"] == 1 for case in plain["cases"]] == [True, False, True]
    assert set(plain["case_level"]["parts"]) == {"2", "3", "foreground"}
    rows = list(csv.DictReader(io.StringIO(evaluated(capsys, "found/a.tif", "right/a_labels.tif", *options, "--csv"))))
    scores = [float(row[name]) for row in rows for name in ("dice", "iou", "surface_dice", "accuracy", "object_f1",
              "panoptic_quality", "mean_average_precision") if row.get(name)]  # fmt: skip
    assert set(scores) == {1.0} and len(scores) > 10
    assert "Notice" not in evaluated(capsys, "found", "right", *options)


def test_a_table_of_pairs(folder, capsys):
    (folder / "pairs.csv").write_text("image,label\nfound/b.tif,right/b_labels.tif\nfound/c.tif,right/c_labels.tif\n")
    plain = json.loads(evaluated(capsys, "--pairs", "pairs.csv", "--json"))
    assert [case["case"] for case in plain["cases"]] == ["b", "c"]


def test_files_of_one_name_in_several_folders_keep_it_apart(folder, capsys):
    (folder / "other").mkdir()
    (folder / "other" / "a.tif").write_bytes((folder / "found" / "a.tif").read_bytes())
    rows = "".join(f"{place}/a.tif,right/a_labels.tif\n" for place in ("found", "other"))
    (folder / "pairs.csv").write_text("image,label\n" + rows)
    plain = json.loads(evaluated(capsys, "--pairs", "pairs.csv", "--json"))
    assert [case["case"].rpartition("found")[1] for case in plain["cases"]] == ["found", ""]
    assert len({case["case"] for case in plain["cases"]}) == 2


def test_csv_says_what_json_says(folder, capsys):
    plain = json.loads(evaluated(capsys, "found", "right", "--json", "--regions", "both=1+2"))
    rows = list(csv.DictReader(io.StringIO(evaluated(capsys, "found", "right", "--csv", "--regions", "both=1+2"))))
    assert tuple(rows[0]) == COLUMNS
    cells = {(row["case"], row["part"]): row for row in rows}
    for case in plain["cases"]:
        assert float(cells[case["case"], "1"]["dice"]) == case["classes"]["1"]["dice"]
        assert float(cells[case["case"], "both"]["hd95"]) == case["surfaces"]["both"]["hd95"]
        assert float(cells[case["case"], "mean"]["object_f1"]) == case["objects"]["f1"]
    assert float(cells["(pooled)", "2"]["recall"]) == plain["pooled"]["classes"]["2"]["recall"]
    assert float(cells["(mean)", "2"]["hd95"]) == plain["mean_over_cases"]["parts"]["2"]["hd95"]
    assert float(cells["(mean)", "mean"]["dice"]) == plain["mean_over_cases"]["mean_dice"]
    assert cells["b", "2"]["hd95"] == ""
    single = list(csv.DictReader(io.StringIO(evaluated(capsys, "found/a.tif", "right/a_labels.tif", "--csv"))))
    assert [row["part"] for row in single] == ["0", "1", "2", "foreground", "mean"]


def test_a_case_with_few_objects_is_read_like_the_others(folder, capsys):
    for side in ("found", "right"):
        (folder / f"ids_{side}").mkdir()
    for name, count in (("few", 3), ("many", 30)):
        ids = np.repeat(np.arange(count + 1), 4)[None].repeat(3, 0).astype(np.uint16)
        tifffile.imwrite(f"ids_right/{name}.tif", ids)
        tifffile.imwrite(f"ids_found/{name}.tif", (ids > 0).astype(np.uint8) * 255)
    plain = json.loads(evaluated(capsys, "ids_found", "ids_right", "--json"))
    assert [case["truth_is"] for case in plain["cases"]] == ["objects", "objects"]
    assert (plain["pooled"]["mean_dice"], plain["notices"]) == (1.0, [])


def test_a_table_of_objects_beside_a_prediction_says_that_it_holds_ids(folder, capsys):
    ids = np.repeat(np.arange(4), 4)[None].repeat(3, 0).astype(np.uint16)
    tifffile.imwrite("ids.tif", ids)
    tifffile.imwrite("cells.tif", np.array([0, 2, 3, 1], np.uint16)[ids])  # the same objects, other ids
    assert json.loads(evaluated(capsys, "cells.tif", "ids.tif", "--json"))["mean_dice"] == 0
    Path("cells_objects.csv").touch()
    plain = json.loads(evaluated(capsys, "cells.tif", "ids.tif", "--json"))
    assert (plain["truth_is"], plain["mean_dice"], plain["objects"]["f1"]) == ("objects", 1, 1)
    assert json.loads(evaluated(capsys, "cells.tif", "ids.tif", "--json", "--truth-is", "classes"))["mean_dice"] == 0


def test_distances_are_in_the_unit_of_the_truth(folder, capsys):
    truth = np.zeros((8, 9, 10), np.uint8)  # x, y, z as NIfTI has them
    truth[2:5, 3:6, 4:7] = 1
    nifti("truth.nii.gz", truth, (0.5, 0.75, 2))
    nifti("moved.nii.gz", np.roll(truth, 1, axis=2), (0.5, 0.75, 2))
    plain = json.loads(evaluated(capsys, "moved.nii.gz", "truth.nii.gz", "--json"))
    assert (plain["spacing"], plain["unit"], plain["tolerance"]) == ([2.0, 0.75, 0.5], "mm", 0.5)
    assert plain["surfaces"]["1"]["hd95"] == 2.0
    table = evaluated(capsys, "moved.nii.gz", "truth.nii.gz", "--tolerance", "3")
    assert "Surfaces agree within 3 mm; hd95 and mean distance in mm, voxel size 2 x 0.75 x 0.5." in table
    given = ["--spacing", "30", "10", "10", "--unit", "nm", "--json"]
    plain = json.loads(evaluated(capsys, "moved.nii.gz", "truth.nii.gz", *given))
    assert (plain["surfaces"]["1"]["hd95"], plain["unit"]) == (30.0, "nm")


def test_where_the_truth_says_no_spacing_the_prediction_does(folder, capsys):
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[1:3, 1:3, 1:3] = 1
    nifti("found.nii.gz", labels, (0.5, 0.5, 2))
    np.save("truth.npy", labels.transpose())
    result = score_files("found.nii.gz", "truth.npy", EvaluateSettings())
    assert (result.spacing, result.unit, result.notices) == ((2.0, 0.5, 0.5), "mm", ())


def test_files_that_lie_differently_are_told(folder, capsys):
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[1:3, 1:3, 1:3] = 1
    nifti("truth.nii.gz", labels, (1, 1, 2))
    nifti("found.nii.gz", labels, (1, 1, 3))
    nibabel.save(nibabel.Nifti1Image(labels, np.diag([-1.0, 1, 2, 1])), "flipped.nii.gz")
    (size,) = json.loads(evaluated(capsys, "found.nii.gz", "truth.nii.gz", "--json"))["notices"]
    assert "prediction has voxels of 3 x 1 x 1 mm, the truth of 2 x 1 x 1 mm, by up to 2.5 voxels along z." in size
    assert "with the voxel size of the truth" in size
    table = " ".join(evaluated(capsys, "flipped.nii.gz", "truth.nii.gz").split())
    assert "The prediction is mirrored along x against the truth, by up to 6 voxels along x." in table
    assert "Notice" not in evaluated(capsys, "truth.nii.gz", "truth.nii.gz")


@pytest.mark.parametrize("turn", [((0, -1), (1, 1), (2, 1)), ((2, 1), (0, -1), (1, -1)), ((1, 1), (2, 1), (0, 1))])
def test_files_that_are_stored_along_other_axes_are_brought_together(folder, capsys, turn):
    labels = np.random.default_rng(0).integers(0, 3, (4, 5, 6)).astype(np.uint8)
    image = nibabel.Nifti1Image(labels, np.array([[0.9, 0.1, 0, 5], [-0.1, 0.9, 0, 6], [0, 0, 3, 7], [0, 0, 0, 1]]))
    nibabel.save(image, "truth.nii.gz")
    nibabel.save(image.as_reoriented(np.array(turn)), "found.nii.gz")
    for files in (["found.nii.gz", "truth.nii.gz"], ["truth.nii.gz", "found.nii.gz"]):
        plain = json.loads(evaluated(capsys, *files, "--json", "--no-surfaces"))
        assert plain["mean_dice"] == 1
        assert plain["notices"] == [
            "The prediction is stored along other axes than the truth; both were brought together by their positions."
        ]


def test_regions_by_preset_as_text_and_as_words(folder, capsys):
    for words in (["brats"], ["WT=1+2+4 TC=1+4 ET=4"], ["WT=1+2+4", "TC=1+4", "ET=4"]):
        plain = json.loads(evaluated(capsys, "found/a.tif", "right/a_labels.tif", "--json", "--regions", *words))
        assert list(plain["regions"]) == ["WT", "TC", "ET"]
        assert plain["regions"]["ET"]["dice"] == 1.0


def test_values_that_do_not_meet_are_told_for_each_case(folder, capsys):
    for name in "ab":
        image = tifffile.imread(f"found/{name}.tif")
        tifffile.imwrite(f"found/{name}.tif", (image > 0).astype(np.uint8) * 255)
    notices = json.loads(evaluated(capsys, "found", "right", "--json"))["notices"]
    assert [line.partition(":")[0] for line in notices] == ["a", "b"]
    assert "Notice: a: Only the background value is in both images" in evaluated(capsys, "found", "right")


WRONG = {
    "one argument": (["found"], ["two files or two folders"]),
    "nothing": ([], ["two files or two folders"]),
    "pairs and files": (["found", "right", "--pairs", "p.csv"], ["nothing else"]),
    "no such file": (["none.tif", "right/a_labels.tif"], ["There is no file none.tif"]),
    "no such table": (["--pairs", "none.csv"], ["none.csv"]),
    "file and folder": (
        ["found/a.tif", "right"],
        ["predictions (1) and truth files (3)", "without predictions (2): b_labels.tif, c_labels.tif", "--in-order"],
    ),
    "one folder twice": (["found", "found"], ["different files"]),
    "JSON and CSV": (["found", "right", "--json", "--csv"], ["--csv", "--json"]),
    "no region": (["found", "right", "--regions", "WT"], ["name=value"]),
    "regions of objects": (["found", "right", "--regions", "A=1", "--truth-is", "objects"], ["unions of classes"]),
    "no length": (["found", "right", "--spacing", "1", "0", "1"], ["spacing"]),
    "no number": (["found", "right", "--tolerance", "far"], ["tolerance=far"]),
    "several at once": (["found", "right", "--tolerance", "-1", "--ignore", "x"], ["tolerance", "ignore"]),
}


@pytest.mark.parametrize(("arguments", "said"), WRONG.values(), ids=WRONG.keys())
def test_wrong_use_is_told_in_sentences(folder, capsys, arguments, said):
    error = refused(capsys, *arguments)
    assert all(word in error for word in said), error
    assert len(error.strip().splitlines()) <= len(said)


def test_bad_cases_of_a_folder_are_told_at_once(folder, capsys):
    np.save("found/a.npy", np.zeros((3, 4), np.uint8))
    (folder / "found" / "a.tif").unlink()
    tifffile.imwrite("found/b.tif", np.full((30, 40), 0.5, np.float32))
    lines = refused(capsys, "found", "right").splitlines()
    assert lines[0].startswith("a: The prediction has shape (1, 3, 4), the truth (1, 30, 40)")
    assert lines[1].startswith("b: labels have fractional values")
    assert len(lines) == 2


PAGES = [Path(__file__).parents[2] / "docs" / page for page in ("how-to/evaluate.md", "reference/metrics.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_options_of_the_pages_exist(page, capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page.read_text(encoding="utf-8"))) <= known


def test_the_pages_python_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", PAGES[0].read_text(encoding="utf-8"), flags=re.DOTALL)
    image = np.array([[0, 1, 2, 4]])
    exec(code, {"predicted": image, "truth": image})  # noqa: S102
    assert capsys.readouterr().out.startswith("1.0 0.0 1.0\n")


def test_the_page_of_metrics_names_every_score():
    text = PAGES[1].read_text(encoding="utf-8")
    names = {*COLUMNS[3:], *vars(evaluate(np.eye(2, dtype=int), np.eye(2, dtype=int)).objects)} - {
        "matches",
        "iou_threshold",
    }
    left_out = {"true_positives", "false_positives", "false_negatives"}  # TP, FP, FN there
    assert all(f"`{name.removeprefix('object_')}`" in text for name in names - left_out)
