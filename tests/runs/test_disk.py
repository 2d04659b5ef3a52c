"""How much runs keep: no second copy of a result, a sentence at the end, and a limit that removes nothing of value."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from test_inference_segment import pointwise_model

from napari_unetvnet import runs
from napari_unetvnet.cli.main import main
from napari_unetvnet.events import Notice, RunFinished, to_line
from napari_unetvnet.settings import SegmentJob, checked


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with an image, and a model that looks at each voxel alone."""
    np.save(tmp_path / "image.npy", np.random.default_rng(0).normal(size=(4, 20, 20)).astype(np.float32))
    (tmp_path / "m.safetensors").touch()
    monkeypatch.setattr("napari_unetvnet.model.model.load_model", lambda *_: pointwise_model())
    return tmp_path


@pytest.fixture
def segment(place, runs_folder):
    """Make a run folder of a segmentation in the folder of the runs."""

    def write(name="run", **changes):
        folder = runs_folder / name
        folder.mkdir(parents=True)
        values = {"image": str(place / "image.npy"), "model": str(place / "m.safetensors"), "device": "cpu"}
        runs.create(folder, checked(SegmentJob, values | {kind: str(place / file) for kind, file in changes.items()}))
        return folder

    return write


def texts(events):
    return [event.text for event in events if isinstance(event, Notice)]


@pytest.mark.parametrize("ending", [".tif", ".npy", ".nii.gz", ".png", ".zarr"])
def test_a_result_that_was_written_leaves_no_second_copy(place, segment, ending):
    if ending == ".png":
        np.save(place / "image.npy", np.load(place / "image.npy")[:1])
    folder = segment(output=f"l{ending}", probabilities="p.npy", uncertainty="u.npy")
    said = texts(runs.run(folder))
    assert not list(folder.glob("*.npy"))
    assert [text for text in said if text.startswith("The run keeps ")] == [said[-1]]
    assert "KiB" in said[-1] or "bytes" in said[-1]
    assert str(folder) in said[-1]
    before = {path: path.read_bytes() for path in place.iterdir() if path.is_file()}
    again = list(runs.run(folder, resume=True))
    assert texts(again) == ["The run is done, and its results are as it wrote them."]
    assert again[-1].results["labels"] == str(place / f"l{ending}")
    assert {path: path.read_bytes() for path in before} == before
    if ending != ".zarr":
        (place / f"l{ending}").unlink()
        assert list(runs.run(folder, resume=True))[-1].state == "done"
        assert (place / f"l{ending}").read_bytes() == before[place / f"l{ending}"], "computed again"


def test_a_result_without_an_output_and_that_of_a_stopped_run_stay(segment, place):
    folder = segment()
    list(runs.run(folder))
    assert (folder / "labels.npy").exists()
    stopped = segment("stopped", output="s.tif")
    for event in runs.run(stopped):
        if type(event).__name__ == "SlabDone":
            runs.ask_to_stop(stopped)
    assert (stopped / "labels.npy").exists()


def old(runs_folder, name, days, size, command="segment", state="done", **files):
    folder = runs_folder / name
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(json.dumps({"command": command}))
    (folder / "events.jsonl").write_text(to_line(RunFinished(state)) + "\n")
    (folder / "log.txt").write_bytes(bytes(size))
    for file, content in files.items():
        path = folder / file.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for path in folder.iterdir():
        os.utime(path, (runs_folder.stat().st_mtime - days * 86400,) * 2)


def test_the_oldest_runs_go_beyond_the_limit_and_nothing_of_value(segment, runs_folder, tmp_path, monkeypatch):
    """Painted labels, painted masks, the only copy of a model, stopped runs and foreign files stay, however old."""
    runs_folder.mkdir()
    size = 100_000
    (tmp_path / "out.safetensors").write_bytes(b"weights")
    for days, name in enumerate(["newer", "old", "oldest"], start=3):
        old(runs_folder, name, days, size)
    old(runs_folder, "painted", 9, size, inputs__labels__l_dot_npy=b"strokes")
    old(runs_folder, "masked", 9, size, inputs__mask__m_dot_npy=b"strokes")
    old(runs_folder, "only model", 9, size, "train", model_dot_safetensors=b"weights")
    told = json.dumps({"path": str(tmp_path / "out.safetensors"), "sha256": "0" * 64}).encode()
    old(runs_folder, "delivered", 9, size, "train", model_dot_safetensors=b"weights", delivered_dot_json=told)
    old(runs_folder, "changed", 9, size, "train", model_dot_safetensors=b"others", delivered_dot_json=told)
    old(runs_folder, "stopped", 9, size, state="stopped")
    old(runs_folder, "notes", 9, size, mine_dot_txt=b"years")
    before = {path.name for path in runs_folder.iterdir()}
    assert not [text for text in texts(runs.run(segment("first"))) if "may" in text], "there is no limit"

    monkeypatch.setenv("NAPARI_UNETVNET_DISK_LIMIT", "890KB")
    said = texts(runs.run(segment("second")))
    assert before - {path.name for path in runs_folder.iterdir()} == {"oldest", "old"}
    assert "were removed (oldest, old: 196 KiB" in said[-1]
    monkeypatch.setenv("NAPARI_UNETVNET_DISK_LIMIT", "1 KB")
    said = texts(runs.run(segment("third")))
    assert before - {path.name for path in runs_folder.iterdir()} == {"oldest", "old", "newer", "delivered"}
    assert "painted labels or the only copy of a model" in said[-1]
    assert (runs_folder / "third" / "labels.npy").exists(), "the one that has just ended"
    assert not (runs_folder / "first").exists()


def test_the_limit_is_stored_and_a_run_elsewhere_touches_nothing(segment, runs_folder, tmp_path, capsys):
    assert main(["runs", "limit"]) == 0
    assert main(["runs", "limit", "1KB"]) == 0
    assert main(["runs", "limit"]) == 0
    assert capsys.readouterr().out.splitlines() == ["Runs may keep any amount.", *["Runs may keep 1000 bytes."] * 2]
    assert main(["runs", "limit", "much"]) == 2
    old(runs_folder, "old", 9, 10_000)
    elsewhere = segment("elsewhere").rename(tmp_path / "elsewhere")
    list(runs.run(elsewhere))
    assert (runs_folder / "old").exists()
    (runs_folder / "preferences.json").write_text("[")
    assert "not applied" in texts(runs.run(segment()))[-1]
    assert (runs_folder / "old").exists()
