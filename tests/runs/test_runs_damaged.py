"""What a run folder holds of its own may be cut off or of another kind: a sentence, or it is told and done again."""

from __future__ import annotations

import errno
import json
import os
import shutil

import numpy as np
import pytest

from napari_unetvnet import runs
from napari_unetvnet.cli.main import main
from napari_unetvnet.errors import FileProblem, RunProblem
from napari_unetvnet.events import Notice, SlabDone
from napari_unetvnet.images.io import read_labels
from napari_unetvnet.model.card import read_card
from napari_unetvnet.model.provenance import brief
from napari_unetvnet.runs.folder import EVENTS, FALLBACK, JOB, LABELS, MODEL, PLACES, PLAN, PROVENANCE, SETTLED, STATE
from napari_unetvnet.settings import SegmentJob, TrainJob, checked

TINY = {"option": {"width": 2, "depth": 2}, "patch": (1, 16, 16), "batch": 2, "device": "cpu"}
DAMAGE = {
    "cut off": lambda whole: whole[:40],
    "empty": lambda _: b"",
    "another type": lambda _: b"7",
    "no UTF-8": lambda _: b'"\xff"',
}


def spoil(path, kind):
    path.write_bytes(DAMAGE[kind](path.read_bytes()))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run folder of a training of two steps, with its inputs and a volume beside it."""
    folder = tmp_path_factory.mktemp("trained")
    rng = np.random.default_rng(0)
    labels = np.zeros((48, 48), np.uint8)
    labels[8:20, 8:20] = labels[30:40, 24:44] = 1
    np.save(folder / "image.npy", labels + rng.normal(0, 0.3, labels.shape))
    np.save(folder / "labels.npy", labels)
    np.save(folder / "volume.npy", np.repeat(labels[None], 6, 0) + rng.normal(0, 0.3, (6, *labels.shape)))
    (folder / "run").mkdir()
    values = TINY | {"image": str(folder / "image.npy"), "label": str(folder / "labels.npy"), "steps": 2}
    runs.create(folder / "run", checked(TrainJob, values))
    list(runs.run(folder / "run"))
    return folder / "run"


def segmentation(trained, folder, **changes):
    """A run folder of a segmentation of six planes, stopped after the first two."""
    folder.mkdir()
    values = {"image": str(trained.parent / "volume.npy"), "model": str(trained / MODEL), "device": "cpu"}
    values |= {"tile": (1, 16, 16), "batch": 2} | changes
    runs.create(folder, checked(SegmentJob, values))
    for event in runs.run(folder):
        if isinstance(event, SlabDone):
            runs.ask_to_stop(folder)
    assert event.state == "stopped"
    return folder


def told(folder):
    return [event.text for event in runs.follow(folder)[0] if isinstance(event, Notice)]


def refused(folder, path, capsys, *more):
    """Resume a run from the command line, which refuses it; give the sentence."""
    capsys.readouterr()
    assert main(["run", str(folder), "--resume", *more]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    (line,) = (line for line in error.splitlines() if str(path) in line)
    return line


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_training_whose_plan_is_damaged_is_not_resumed(trained, tmp_path, capsys, kind):
    folder = shutil.copytree(trained, tmp_path / "run")
    spoil(folder / PLAN, kind)
    assert "start a new run" in refused(folder, folder / PLAN, capsys, "--steps", "4")


@pytest.mark.parametrize(
    ("rows", "reason"),
    [("[]", "does not choose view"), ("[7]", "invalid choice"), ('[{"name": "view"}]', "invalid choice")],
)
def test_a_plan_without_its_choices_is_damaged(trained, tmp_path, capsys, rows, reason):
    folder = shutil.copytree(trained, tmp_path / "run")
    (folder / PLAN).write_text(rows)
    assert reason in refused(folder, folder / PLAN, capsys, "--steps", "4")


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_run_whose_job_is_damaged_is_refused(trained, tmp_path, capsys, kind):
    folder = shutil.copytree(trained, tmp_path / "run")
    spoil(folder / JOB, kind)
    assert "not a complete run" in refused(folder, folder / JOB, capsys)


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_provenance_is_a_sentence_and_a_resumed_run_writes_it_again(trained, tmp_path, kind):
    folder = shutil.copytree(trained, tmp_path / "run")
    spoil(folder / PROVENANCE, kind)
    with pytest.raises(FileProblem, match="resume the run"):
        brief(folder / PROVENANCE)
    assert main(["run", str(folder), "--resume", "--steps", "4"]) == 0
    assert brief(folder / PROVENANCE)["inputs"] == read_card(folder / MODEL).inputs != ""


@pytest.mark.parametrize("kind", ["cut off", "empty"])
def test_a_training_whose_state_is_damaged_is_not_resumed(trained, tmp_path, capsys, kind):
    folder = shutil.copytree(trained, tmp_path / "run")
    spoil(folder / STATE, kind)
    assert "start a new run" in refused(folder, folder / STATE, capsys, "--steps", "4")


def test_events_that_are_no_text_are_refused_and_not_lost(trained, tmp_path, capsys):
    folder = shutil.copytree(trained, tmp_path / "run")
    whole = (folder / EVENTS).read_bytes()
    (folder / EVENTS).write_bytes(b"\xff\xfe\n" + whole + b'{"event": "Not')
    with pytest.raises(RunProblem, match="not an event"):
        runs.follow(folder)
    assert main(["compare", str(folder)]) == 2
    assert main(["run", str(folder), "--resume", "--steps", "4"]) == 0
    assert (folder / EVENTS).read_bytes().startswith(b"\xff\xfe\n" + whole)
    assert b'{"event": "Not{' not in (folder / EVENTS).read_bytes()


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_a_segmentation_had_settled_is_settled_again_and_told(trained, tmp_path, kind):
    whole, parts = segmentation(trained, tmp_path / "whole"), segmentation(trained, tmp_path / "parts")
    spoil(parts / SETTLED, kind)
    for folder in (whole, parts):
        assert main(["run", str(folder), "--resume"]) == 0
    assert [text for text in told(parts) if str(parts / SETTLED) in text and "chosen again" in text]
    assert not [text for text in told(whole) if SETTLED in text]
    np.testing.assert_array_equal(np.load(parts / LABELS), np.load(whole / LABELS))
    assert json.loads((parts / SETTLED).read_text()) == json.loads((whole / SETTLED).read_text())


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_segmentation_does_not_guess_how_its_tiles_were_made_smaller(trained, tmp_path, capsys, kind):
    folder = segmentation(trained, tmp_path / "run")
    facts = {"batch": 1, "tile": [1, 16, 16], "cpu": False, "compiled": False, "precision": "fp32"}
    (folder / FALLBACK).write_text(json.dumps(facts))
    spoil(folder / FALLBACK, kind)
    assert "start a new run" in refused(folder, folder / FALLBACK, capsys)
    (folder / FALLBACK).unlink()
    assert main(["run", str(folder), "--resume"]) == 0


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_segmentation_says_so_where_it_cannot_tell_where_its_results_grow(trained, tmp_path, capsys, kind):
    output = tmp_path / "out.zarr"
    folder = segmentation(trained, tmp_path / "run", output=output)
    kept = (folder / PLACES).read_bytes()
    spoil(folder / PLACES, kind)
    assert "start a new run" in refused(folder, folder / PLACES, capsys)
    (folder / PLACES).write_bytes(kept)
    assert main(["run", str(folder), "--resume"]) == 0
    assert read_labels(output).shape == (6, 48, 48)


@pytest.mark.parametrize("name", [JOB, PLAN])
def test_a_comparison_shows_the_other_runs_and_why_one_is_not_read(trained, tmp_path, capsys, name):
    for run in ("one", "two"):
        shutil.copytree(trained, tmp_path / "runs" / run)
    spoil(tmp_path / "runs" / "two" / name, "cut off")
    capsys.readouterr()
    assert main(["compare", str(tmp_path / "runs"), "--json"]) == 0
    one, two = sorted(json.loads(capsys.readouterr().out)["runs"], key=lambda row: row["name"])
    assert (one["state"], one["lines"]) == ("done", [])
    assert str(tmp_path / "runs" / "two" / name) in " ".join(two["lines"])


@pytest.mark.parametrize("path", ["x" * 5000 + ".npy", "~nobody-of-that-name/a.npy", "a\0.npy"])
@pytest.mark.parametrize("field", ["image", "model", "output"])
def test_a_job_with_a_path_that_no_file_can_have_is_refused(trained, tmp_path, capsys, path, field):
    values = {"command": "segment", "image": str(trained.parent / "volume.npy"), "model": str(trained / MODEL)}
    (tmp_path / JOB).write_text(json.dumps(values | {"device": "cpu", field: path}))
    assert main(["run", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert error


def test_events_that_cannot_be_read_are_told(trained, monkeypatch):
    """As where a disk fails, or the folder is of another user."""

    def fail(path, *_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr("pathlib.Path.open", fail)
    with pytest.raises(RunProblem, match=rf"{EVENTS} cannot be read \(Permission denied\)"):
        runs.follow(trained)
