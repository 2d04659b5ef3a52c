"""A run removes and changes only what it made itself, whatever the files in its folder say."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from test_inference_segment import pointwise_model

from napari_unetvnet import runs
from napari_unetvnet.cli.main import main
from napari_unetvnet.errors import UserError
from napari_unetvnet.events import Notice, RunFinished, SlabDone, to_line
from napari_unetvnet.images.formats import ome_zarr
from napari_unetvnet.images.geometry import Geometry
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.runs import folder as own
from napari_unetvnet.runs.places import growing
from napari_unetvnet.settings import SegmentJob, checked

SHAPE, TAG = (6, 20, 20), "0123456789abcdef" * 2
HALF = to_line(SlabDone(0, 3, 6)) + "\n"


def contents(folder):
    """Every file of a folder that is no folder of runs or of the test itself."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with an image, a model that looks at each voxel alone, and files of someone else.

    The working directory is one of them, because an empty path names it.
    """
    np.save(tmp_path / "image.npy", np.random.default_rng(0).normal(size=SHAPE).astype(np.float32))
    (tmp_path / "m.safetensors").write_bytes(b"")
    monkeypatch.setattr("napari_unetvnet.model.model.load_model", lambda *_: pointwise_model())
    for name in ("out", "victim", "out/part-thesis", "out/part-0123", "here"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.txt").write_text("years")
    (tmp_path / "victim.txt").write_text("years")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def run_folder(place, output="out/o.zarr", places=None, events="", **more):
    folder = place / "run"
    folder.mkdir()
    values = {"image": str(place / "image.npy"), "model": str(place / "m.safetensors"), "device": "cpu"}
    runs.create(folder, checked(SegmentJob, values | {"output": str(place / output)} | more))
    if places is not None:
        (folder / own.PLACES).write_text(json.dumps(places))
    if events:
        (folder / own.EVENTS).write_text(events)
    return folder


def finish(folder, *, resume=True):
    """Run a folder to its end, or to its sentence."""
    try:
        return list(runs.run(folder, resume=resume))[-1].state
    except UserError as problem:
        return str(problem)


def zarr_of_someone(path):
    ome_zarr.create(path, SHAPE, np.uint8, Volume(np.zeros((1, *SHAPE)), Geometry()))[:] = 7
    return path


FORGED = (
    "{0}/victim", "{0}/victim.txt", "{0}/out/../victim", "{0}/out/part-thesis", "{0}/out", "part-thesis", "thesis",
    "..", "0123", f"{TAG}/../../victim", f"{TAG}\n", TAG.upper(), TAG[:16], "", ".", "\0", 7, None, ["labels"],
    {"path": "{0}/victim"},
)  # fmt: skip


@pytest.mark.parametrize("resume", [False, True])
def test_a_path_in_the_results_file_is_neither_removed_nor_written_to(place, resume):
    folder = run_folder(place)
    before = contents(place)
    for forged in FORGED:
        (folder / own.EVENTS).unlink(missing_ok=True)
        if resume:
            (folder / own.EVENTS).write_text(HALF)
        named = forged.format(place) if isinstance(forged, str) else forged
        (folder / own.PLACES).write_text(json.dumps({"labels": named}))
        state = finish(folder, resume=resume)
        assert "start a new run" in state if resume else state == "done", named
        after = contents(place)
        assert {name: after.get(name) for name in before} == before, named


@pytest.mark.parametrize("kind", ["text", "file", "link to a folder", "link to a zarr", "zarr with a link", "more"])
def test_what_has_the_name_of_a_growing_result_but_is_none_stays(place, kind):
    """The one place that a results file can name is beside the output, with the tag of the run."""
    folder, theirs = run_folder(place, places={"labels": TAG}, events=HALF), growing(place / "out" / "o.zarr", TAG)
    other = zarr_of_someone(place / "other.zarr")
    chunk = "0/c/0/0/0"
    if kind == "text":
        theirs.mkdir()
        (theirs / "thesis.txt").write_text("years")
    elif kind == "file":
        theirs.write_text("years")
    elif kind.startswith("link"):
        theirs.symlink_to(other if kind.endswith("zarr") else place / "victim")
    else:
        zarr_of_someone(theirs)
        (theirs / "0" / "notes.txt").write_text("years")
    if kind == "zarr with a link":
        (theirs / "0" / "notes.txt").unlink()
        (theirs / chunk).unlink()
        (theirs / chunk).symlink_to(other / chunk)
    before = {name: data for name, data in contents(place).items() if not name.startswith("run")}
    assert str(theirs) in finish(folder)
    after = contents(place)
    assert {name: after.get(name) for name in before} == before


def test_an_output_is_not_opened_to_write_because_a_file_says_that_it_was_delivered(place):
    folder = run_folder(place, output="out/their.zarr", places={"labels": "delivered"}, events=HALF)
    zarr_of_someone(place / "out" / "their.zarr")
    before = contents(place / "out")
    assert "was not written by this program" in finish(folder)
    assert contents(place / "out") == before


@pytest.mark.parametrize("target", ["victim.txt", "new.txt", "victim"])
def test_a_run_folder_with_links_in_place_of_its_own_files_is_not_run(place, target):
    folder = run_folder(place, output="out/o.npy")
    before = contents(place)
    for name in (*own.OWN_FILES, own.MAPS, "cleaned_lines_2.csv"):
        (folder / name).symlink_to(place / target)
        for resume in (False, True):
            assert f"{folder / name} is a link to {place / target}" in finish(folder, resume=resume)
        (folder / name).unlink()
        assert contents(place) == before, name


def test_a_run_folder_with_a_pipe_or_a_folder_in_place_of_a_file_is_not_run(place):
    folder = run_folder(place)
    for make, remove in ((os.mkfifo, os.unlink), (os.mkdir, os.rmdir)):
        for name in (own.EVENTS, own.LOCK, own.SETTLED):
            make(folder / name)
            assert f"{folder / name} is no file" in finish(folder)
            remove(folder / name)


@pytest.mark.parametrize("output", ["out/o.npy", "run/o.npy", "run/../victim.npy"])
def test_a_run_says_before_it_begins_where_it_writes_outside_of_its_folder(place, capsys, output):
    folder = run_folder(place, output=output, objects="components")
    assert main(["run", str(folder)]) == 0
    first = capsys.readouterr().err.partition("\n")[0]
    inside = output == "run/o.npy"
    written = f"{place / output}, {(place / output).with_name(f'{place.joinpath(output).stem}_objects.csv')}"
    assert (first == f"This run writes outside of its folder: {written}.") is not inside
    assert inside is ("outside" not in first)


def test_what_a_run_folder_of_a_stranger_says_does_not_command_the_terminal(place, capsys):
    evil = "\x1b]0;title\x07\x1b[2J\r\t\x9b5m"
    folder = place / f"run{evil}"
    folder.mkdir()
    values = {"command": "train", "image": [f"a{evil}.npy"], "label": ["b.npy"], "output": f"{evil}.safetensors"}
    (folder / own.JOB).write_text(json.dumps(values))
    events = (Notice(evil), RunFinished("failed", (evil,), {evil: evil}))
    for text in ("".join(to_line(event) + "\n" for event in events), f"{evil}\n"):
        (folder / own.EVENTS).write_text(text)
        (folder / own.PLAN).write_text(json.dumps([{"name": evil, "value": evil, "reason": evil}]))
        for command in (["compare"], ["runs", "show"], ["run"], ["run", "--resume"]):
            assert main([*command, str(folder)]) in (0, 2)
            printed = "".join(capsys.readouterr())
            assert printed
            assert not [letter for letter in printed if ord(letter) < 32 and letter != "\n"], command
            assert not [letter for letter in printed if 127 <= ord(letter) < 160], command
