"""Labels that are cleaned as a file and at the end of a run: geometry, tables, and the same bytes without options."""

from __future__ import annotations

import csv
import json

import nibabel
import numpy as np
import pytest
import tifffile
from test_inference_segment import Pointwise, pointwise_model

from napari_unetvnet import runs
from napari_unetvnet.cli.main import main
from napari_unetvnet.errors import FileProblem
from napari_unetvnet.events import Notice, SlabDone
from napari_unetvnet.images.io import read_labels
from napari_unetvnet.runs import clean as cleaning
from napari_unetvnet.runs.folder import LABELS
from napari_unetvnet.settings import SegmentJob, checked

AFFINE = np.array([[0.0, 0.5, 0.0, 7.0], [-0.5, 0.0, 0.0, 3.0], [0.0, 0.0, 2.0, -1.0], [0.0, 0.0, 0.0, 1.0]])


@pytest.fixture
def labels(tmp_path, monkeypatch):
    """Two pieces of class 1 with 8 and 1 voxels and one of class 3 with a hole, on a turned grid, as NIfTI."""
    monkeypatch.chdir(tmp_path)
    values = np.zeros((6, 9, 12), np.uint8)
    values[1:3, 1:3, 1:3] = 1
    values[5, 8, 11] = 1
    values[1:4, 4:7, 4:7] = 3
    values[2, 5, 5] = 0
    image = nibabel.Nifti1Image(values.transpose(2, 1, 0), AFFINE)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, tmp_path / "labels.nii.gz")
    return values


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_label_file_is_cleaned_on_its_own_grid(labels, tmp_path, capsys):
    given = ["clean", "labels.nii.gz", "--output", "out.nii.gz", "--min-size", "2", "--fill-holes", "volume"]
    assert main(given) == 0
    assert capsys.readouterr().out == "Labels: out.nii.gz\n"
    result = read_labels("out.nii.gz")
    expected = labels.copy()
    expected[5, 8, 11] = 0
    expected[2, 5, 5] = 3
    np.testing.assert_array_equal(result.data[0], expected)
    np.testing.assert_allclose(result.affine, AFFINE)
    assert not (tmp_path / "out_objects.csv").exists()


def test_objects_of_a_label_file_have_a_table_in_physical_units(labels, tmp_path, capsys):
    assert main(["clean", "labels.nii.gz", "--output", "ids.nii.gz", "--objects", "components"]) == 0
    assert capsys.readouterr().out == "Labels: ids.nii.gz\nObjects: ids_objects.csv\n"
    first, second, third = rows(tmp_path / "ids_objects.csv")
    assert (first["index"], first["class"], first["voxels"], first["volume_mm3"]) == ("1", "1", "8", "4.0")
    assert (second["class"], second["voxels"], second["z_mm"], second["x_mm"]) == ("3", "26", "4.0", "2.5")
    assert (third["z_start"], third["y_start"], third["x_stop"]) == ("5", "8", "12")
    assert np.unique(read_labels("ids.nii.gz").data[0]).tolist() == [0, 1, 2, 3]


def test_a_voxel_size_can_be_given_for_a_file_without_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("labels.npy", np.array([[1, 1, 0, 1]], np.uint8))
    given = ["clean", "labels.npy", "--output", "out.npy", "--spacing", "3", "2", "0.5", "--unit", "um"]
    assert main([*given, "--objects", "components", "--min-size", "6", "--min-size-in", "physical"]) == 0
    (only,) = rows(tmp_path / "out_objects.csv")
    assert only["volume_um3"] == "6.0"
    assert np.load("out.npy").tolist() == [[1, 1, 0, 0]]


def test_many_objects_fit_into_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = np.zeros((60, 60), np.uint8)
    values[::2, ::2] = 1
    tifffile.imwrite("labels.tif", values)
    assert main(["clean", "labels.tif", "--output", "out.tif", "--objects", "watershed"]) == 0
    assert tifffile.imread("out.tif").max() == 900


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "There is nothing to do"),
        (["--objects", "border"], "not 3"),
        (["--objects", "cells"], "objects=cells"),
        (["--nested", "brats"], "there is 3"),
        (["--min-size", "2", "--output", "labels.nii.gz"], "would replace"),
        (["--min-size", "2", "--output", "out.jpg"], "JPEG"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(labels, options, sentence, capsys):
    assert main(["clean", "labels.nii.gz", "--output", "out.nii.gz", *options]) == 2
    assert sentence in capsys.readouterr().err


def test_a_table_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileProblem, match="folder"):
        cleaning.write_table(tmp_path / "folder", {"index": np.arange(2)})
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.fixture
def bright(tmp_path, monkeypatch):
    """An image whose dark voxels are class 1 of a model that looks at each voxel alone."""
    image = np.full((6, 20, 20), 9.0, np.float32)
    image[1:3, 2:6, 2:6] = -9
    image[2:5, 10:16, 9:17] = -9
    image[5, 19, 19] = -9
    np.save(tmp_path / "image.npy", image)
    (tmp_path / "m.safetensors").write_bytes(b"")
    monkeypatch.setattr("napari_unetvnet.model.model.load_model", lambda *_: pointwise_model())
    return (image < 0).astype(np.uint8)


def segmented(tmp_path, name, **settings):
    folder = tmp_path / name
    folder.mkdir()
    values = {"image": str(tmp_path / "image.npy"), "model": str(tmp_path / "m.safetensors"), "device": "cpu"}
    runs.create(folder, checked(SegmentJob, values | {"tile": (2, 16, 16)} | settings))
    return folder


def test_without_options_a_run_leaves_what_it_always_left(bright, tmp_path):
    folder = segmented(tmp_path, "plain", output=str(tmp_path / "out.npy"))
    results = list(runs.run(folder))[-1].results
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), bright)
    assert not (folder / LABELS).exists(), "the output has them"
    assert results == {"labels": str(tmp_path / "out.npy"), "run": str(folder)}
    assert not {cleaning.CLEANED, cleaning.OBJECTS} & {path.name for path in folder.iterdir()}


def test_a_run_writes_ids_and_their_table(bright, tmp_path):
    folder = segmented(tmp_path, "ids", output=str(tmp_path / "out.npy"), objects="components", min_size=2)
    events = list(runs.run(folder))
    assert any(isinstance(event, Notice) and "Cleaning" in event.text for event in events)
    expected = bright.copy()
    expected[2:5, 10:16, 9:17] = 2
    expected[5, 19, 19] = 0
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected)
    assert not {LABELS, cleaning.CLEANED} & {path.name for path in folder.iterdir()}, "the output has them"
    assert (folder / cleaning.OBJECTS).read_bytes() == (tmp_path / "out_objects.csv").read_bytes()
    assert [row["voxels"] for row in rows(folder / cleaning.OBJECTS)] == ["32", "144"]
    assert events[-1].results["objects"] == str(tmp_path / "out_objects.csv")


@pytest.mark.parametrize("after", [4, 6])
def test_a_run_that_was_interrupted_is_cleaned_alike(bright, tmp_path, after):
    settings = {"objects": "watershed", "keep_largest": 1}
    whole = segmented(tmp_path, "whole", output=str(tmp_path / "whole.npy"), **settings)
    list(runs.run(whole))
    parts = segmented(tmp_path, "parts", output=str(tmp_path / "parts.npy"), **settings)
    for event in runs.run(parts):
        if isinstance(event, SlabDone) and event.stop == after:
            runs.ask_to_stop(parts)
    assert not (tmp_path / "parts.npy").exists()
    list(runs.run(parts, resume=True))
    assert (parts / cleaning.OBJECTS).read_bytes() == (whole / cleaning.OBJECTS).read_bytes()
    assert (tmp_path / "parts.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_a_run_says_what_does_not_fit_and_keeps_its_labels(bright, tmp_path, monkeypatch):
    model = pointwise_model()
    model = type(model)(Pointwise(3), model.card.model_copy(update={"values": (0, 5)}), model.device)
    monkeypatch.setattr("napari_unetvnet.model.model.load_model", lambda *_: model)
    folder = segmented(tmp_path, "misfit", objects="border")
    with pytest.raises(Exception, match="not 5"):
        list(runs.run(folder))
    assert np.load(folder / LABELS).max() == 5


def test_the_settings_are_in_the_job_file(bright, tmp_path):
    folder = segmented(tmp_path, "stored", min_size="1=50 2=10", fill_holes="planes")
    assert json.loads((folder / runs.JOB).read_text())["min_size"] == [[1, 50.0], [2, 10.0]]
    assert runs.read(folder).fill_holes == ((0, "planes"),)
