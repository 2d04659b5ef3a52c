"""Runs that are kept: listed, shown and removed; and what is never removed."""

from __future__ import annotations

import json
import os
import time

import pytest
from filelock import FileLock

from napari_unetvnet.cli.main import main
from napari_unetvnet.errors import SettingsProblem
from napari_unetvnet.events import EpochDone, RunFinished, SlabDone, SplitMade, to_line
from napari_unetvnet.model.card import ModelCard
from napari_unetvnet.model.model import build_model, save_model
from napari_unetvnet.runs.amounts import age_text, read_age, read_size
from napari_unetvnet.runs.places import growing, new_tag, save_tags
from napari_unetvnet.settings import SegmentSettings

DAY = 86400
DONE = (RunFinished("done"),)


@pytest.fixture
def make(runs_folder):
    """Write a run folder that looks as if it was last used so many days ago."""

    def write(name, command="segment", days=0.0, events=DONE, dice=None, **job):
        folder = runs_folder / name
        folder.mkdir(parents=True)
        (folder / "job.json").write_text(json.dumps({"command": command, **job}))
        if events:
            (folder / "events.jsonl").write_text("".join(to_line(event) + "\n" for event in events))
        if dice is not None:
            card = ModelCard(network="unet_padding", option={"width": 1, "depth": 2}, head="binary", view="2d",
                             values=(0, 1), patch=(1, 8, 8), scores={"hold_out_dice": dice})  # fmt: skip
            save_model(folder / "model.safetensors", build_model(card, SegmentSettings()).network.state_dict(), card)
        for path in folder.iterdir():
            os.utime(path, (time.time() - days * DAY,) * 2)
        return folder

    return write


@pytest.fixture
def trainings(make):
    """Three trainings on one hold-out, the better the older, and one on another."""
    split = SplitMade(0, "a", ((0, 0, 0, 1, 8, 4),), ((0, 0, 4, 1, 8, 8),))
    other = SplitMade(0, "a", ((0, 0, 0, 1, 4, 8),), ((0, 4, 0, 1, 8, 8),))
    for days, dice in ((1, 0.7), (2, 0.8), (3, 0.9)):
        events = (split, EpochDone(1, 1, 1.0, dice, 0.5, 0.0), RunFinished("done"))
        make(f"t{days}", "train", days, events, dice, image=["a.tif"], label=["b.tif"])
    events = (other, EpochDone(1, 1, 1.0, 0.1, 0.5, 0.0), RunFinished("done"))
    make("elsewhere", "train", 4, events, 0.1, image=["a.tif"], label=["b.tif"])


def left(runs_folder):
    return {path.name for path in runs_folder.iterdir()}


def test_runs_are_listed_with_state_age_size_and_what_they_made(make, trainings, capsys):
    (make("cells", days=9, events=(SlabDone(0, 5, 288),)) / "labels.npy").write_bytes(bytes(5000))
    (make("stack", events=(RunFinished("stopped", results={"labels": "/data/out.tif"}),)) / "log.txt").touch()
    make("new", events=())
    with FileLock(make("held") / ".lock"):
        assert main(["runs", "list"]) == 0
        text = capsys.readouterr().out
        assert main(["runs"]) == 0
        assert capsys.readouterr().out == text
        assert main(["runs", "list", "--json"]) == 0
        rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    lines = {line.split()[0]: " ".join(line.split()) for line in text.splitlines()}
    assert lines["cells"].startswith("cells interrupted 9 days 5 KiB")
    assert lines["cells"].endswith("KiB 5 of 288 planes of labels")
    assert lines["stack"].endswith("bytes /data/out.tif")
    assert "model, Dice 0.900 on its hold-out" in lines["t3"]
    assert lines["held"].split()[1] == "running"
    assert lines["new"].split()[1] == "waiting"
    assert text.splitlines()[-1].startswith("8 runs, ")
    assert rows["cells"]["bytes"] > 5000
    assert list(rows)[-1] == "cells", "the oldest"
    assert main(["runs", "show", "cells"]) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[-1].endswith("cells --resume")
    assert "labels.npy: 5 KiB" in text
    assert main(["runs", "show", "cell"]) == 2
    assert "did you mean cells" in capsys.readouterr().err


def test_an_empty_folder_of_runs_is_no_error(capsys):
    assert main(["runs", "list"]) == 0
    assert capsys.readouterr().out.startswith("0 runs, 0 bytes in ")


def test_damaged_runs_are_listed(make, capsys):
    (make("odd") / "job.json").write_bytes(b"\xff[")
    (make("odder") / "events.jsonl").write_bytes(b"\xff\xfe\n[]\n" + b"[" * 100_000 + b"\n")
    assert main(["runs", "list"]) == 0
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} >= {"odd", "odder"}


@pytest.mark.parametrize(
    ("options", "removed"),
    [
        (["--older-than", "2.5days"], {"t3", "elsewhere", "old"}),
        (["--older-than", "48 hours", "--without-model"], {"old"}),
        (["--larger-than", "1MB"], {"old"}),
        (["--keep-best", "1"], {"t1", "t2"}),
        (["--keep-best", "0"], {"t1", "t2", "t3", "elsewhere"}),
        (["--keep-best", "1", "--older-than", "36hours"], {"t2"}),
        (["t1", "old"], {"t1", "old"}),
    ],
)
def test_what_meets_all_criteria_is_removed(make, trainings, runs_folder, capsys, options, removed):
    (make("old", days=8) / "labels.npy").write_bytes(bytes(2_000_000))
    make("new")
    before = left(runs_folder)
    assert main(["runs", "prune", "--dry-run", *options]) == 0
    assert left(runs_folder) == before
    said = capsys.readouterr().out
    assert main(["runs", "prune", *options]) == 0
    assert before - left(runs_folder) == removed
    assert capsys.readouterr().out == said.replace("Would remove", "Removed").replace("would be", "were")


def test_nothing_is_removed_without_a_criterion(make, runs_folder, capsys):
    make("old", days=100)
    assert main(["runs", "prune"]) == 2
    assert "--older-than" in capsys.readouterr().err
    assert main(["runs", "prune", "--older-than", "a while"]) == 2
    assert main(["runs", "prune", "--larger-than", "12 parsec"]) == 2
    assert main(["runs", "prune", "--keep-best", "-1"]) == 2
    assert left(runs_folder) == {"old"}


def test_what_is_no_run_or_may_be_needed_stays(make, trainings, runs_folder, tmp_path, capsys):
    """Links, folders of others, files of others, runs under way, painted labels, models that others continue from."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "job.json").write_text('{"command": "segment"}')
    (runs_folder / "link").symlink_to(victim, target_is_directory=True)
    (runs_folder / "notes").mkdir()
    (runs_folder / "notes" / "years.txt").touch()
    (make("with notes", days=8) / "notes.txt").touch()
    (make("painted", "train", days=8) / "inputs" / "labels").mkdir(parents=True)
    make("names a victim", days=8, output=str(victim))
    (runs_folder / "names a victim" / "results.json").write_text(json.dumps({"labels": str(victim)}))
    (runs_folder / "names a victim" / "labels.npy").symlink_to(victim / "job.json")
    make("continues", "train", 8, (), start_from=str(runs_folder / "t1" / "model.safetensors"))
    before = left(runs_folder)
    with FileLock(make("held", days=8) / ".lock"):
        assert main(["runs", "prune", "--older-than", "0days"]) == 0
        assert main(["runs", "prune", "held"]) == 2
    error = capsys.readouterr().err
    assert before - left(runs_folder) == {"t2", "t3", "elsewhere", "names a victim", "continues"}
    assert "t1 stays: t1 has the model that continues needs" in error
    assert "with notes stays" in error
    assert "notes.txt, which no run writes" in error
    assert "painted stays: it holds labels that were painted" in error
    assert "held stays: held is under way; stop it first" in error
    assert (victim / "job.json").read_text() == '{"command": "segment"}'
    assert main(["runs", "prune", str(victim)]) == 2
    assert main(["runs", "prune", "painted", "t1", "--painted"]) == 0
    assert "painted" not in left(runs_folder)
    assert not [name for name in left(runs_folder) if name.startswith(".")]


def test_a_lock_that_is_a_link_is_not_followed(make, runs_folder, tmp_path, capsys):
    victim = tmp_path / "victim"
    victim.write_text("years")
    (make("old", days=8) / ".lock").symlink_to(victim)
    assert main(["runs", "list"]) == 0
    assert main(["runs", "prune", "old"]) == 2
    assert "is a link" in capsys.readouterr().err
    assert victim.read_text() == "years"


def test_amounts_are_read_and_written():
    assert [read_size(text) for text in ("5MB", "1.5 GiB", "7 b")] == [5_000_000, 3 * 2**29, 7]
    assert [read_age(text) for text in ("2d", "1 hour", "3weeks", "90minutes")] == [2 * DAY, 3600, 21 * DAY, 5400]
    assert [age_text(seconds) for seconds in (59, 60, 7300, 3 * DAY, 15 * DAY)] == [
        "0 minutes", "1 minute", "2 hours", "3 days", "2 weeks",
    ]  # fmt: skip
    for text in ("5", "MB", "-5MB", "5 MBs"):
        with pytest.raises(SettingsProblem):
            read_size(text)


def test_what_a_removed_run_has_left_beside_its_output_is_told(make, runs_folder, tmp_path, capsys):
    """A result grows beside its output in a folder of its own; it stays, since a path in a file is never removed."""
    folder = make("old", days=8, events=(SlabDone(0, 1, 4),), image="i.npy", model="m", output=str(tmp_path / "o.zarr"))
    tag = new_tag()
    save_tags(folder, {"labels": tag})
    place = growing(tmp_path / "o.zarr", tag)
    place.mkdir()
    assert main(["runs", "prune", "old"]) == 0
    assert f"Its unfinished result is {place}" in capsys.readouterr().out
    assert place.exists()
    assert left(runs_folder) == set()
