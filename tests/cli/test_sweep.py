"""Several trainings under one budget: nothing is lost, nothing is done twice, a failure is a row."""

from __future__ import annotations

import json

import pytest
from test_comparison import TINY, write_pair

from napari_unetvnet.cli.main import main
from napari_unetvnet.cli.sweep import TABLE, members, sweep
from napari_unetvnet.errors import DataProblem, RunProblem, SettingsProblem
from napari_unetvnet.events import EpochDone, StepDone
from napari_unetvnet.model.card import read_card
from napari_unetvnet.runs import EVENTS, LOG, ask_to_stop, run
from napari_unetvnet.runs.comparison import Table

NETWORKS = ["unet_padding", "unet_padding(width=3)"]


@pytest.fixture
def values(tmp_path):
    return TINY | write_pair(tmp_path)


def follow(folder, *, resume):
    *_, last = run(folder, resume=resume)
    return last


def do(folder, planned, follow=follow, output=None):
    told = list(sweep(folder, planned, follow, output))
    return [text for text in told if isinstance(text, str)], [table for table in told if isinstance(table, Table)]


def test_every_network_is_trained_with_every_loss(values, tmp_path):
    planned = members(values, NETWORKS, ["dice", "bce + 2*dice"])
    assert len({member.name for member in planned}) == 4
    texts, tables = do(tmp_path / "s", planned, output=tmp_path / "best.safetensors")
    assert [len(table.rows) for table in tables] == [1, 2, 3, 4, 4]
    assert {row.configuration for row in tables[-1].rows} == {
        f"unet_padding(depth=2, width={width}) {loss}" for width in (2, 3) for loss in ("dice", "bce + 2.0*dice")
    }
    assert tables[-1].comparable
    stored = json.loads((tmp_path / "s" / TABLE).read_text())
    assert [run["name"] for run in stored["runs"]] == [row.name for row in tables[-1].rows]
    best = tables[-1].rows[0]
    assert read_card(tmp_path / "best.safetensors").scores["hold_out_dice"] == best.dice
    assert best.name in texts[-1]


def test_an_interrupted_sweep_goes_on_to_the_same_models(values, tmp_path):
    planned = members(values, NETWORKS)
    do(tmp_path / "whole", planned)

    def crash(folder, *, resume):
        if folder.name != planned[1].name:
            return follow(folder, resume=resume)
        events = run(folder, resume=resume)
        next(event for event in events if isinstance(event, EpochDone))
        next(events)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        do(tmp_path / "part", planned, crash)
    assert len(json.loads((tmp_path / "part" / TABLE).read_text())["runs"]) == 1, "written as it came"
    resumed = []

    def watch(folder, *, resume):
        resumed.append((folder.name, resume))
        return follow(folder, resume=resume)

    texts, tables = do(tmp_path / "part", planned, watch)
    assert resumed == [(planned[1].name, True)]
    assert "was trained before" in texts[0]
    assert {row.state for row in tables[-1].rows} == {"done"}
    for member in planned:
        files = [tmp_path / folder / member.name / "model.safetensors" for folder in ("whole", "part")]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_a_stopped_run_ends_the_sweep_and_is_resumed(values, tmp_path):
    planned = members(values, NETWORKS)

    def stop(folder, *, resume):
        events = run(folder, resume=resume)
        next(event for event in events if isinstance(event, StepDone))
        ask_to_stop(folder)
        *_, last = events
        return last

    with pytest.raises(KeyboardInterrupt):
        do(tmp_path / "s", planned, stop)
    (row,) = json.loads((tmp_path / "s" / TABLE).read_text())["runs"]
    assert (row["state"], row["steps"] < 4) == ("stopped", True)
    _, tables = do(tmp_path / "s", planned)
    assert [(row.state, row.steps) for row in tables[-1].rows] == [("done", 4)] * 2


def test_a_failing_member_is_a_row_and_the_others_go_on(values, tmp_path):
    planned = members(values, NETWORKS, ["focal_typo", "dice"])

    def fail(folder, *, resume):
        if "width=3" in folder.name:
            raise DataProblem("Something is wrong with the labels.")
        if resume:
            raise AssertionError(folder)
        raise ZeroDivisionError if folder.name.startswith("broken") else DataProblem("It does not fit.")

    texts, tables = do(tmp_path / "s", planned, fail)
    assert "It does not fit." in texts
    assert "Something is wrong with the labels." in texts
    states = {row.name: row.state for row in tables[-1].rows}
    assert sorted(states.values()) == ["refused", "refused", "waiting", "waiting"]
    assert "There is no loss 'focal_typo'" in json.loads((tmp_path / "s" / TABLE).read_text())["runs"][0]["lines"][0]
    _, tables = do(tmp_path / "s", planned)
    assert sorted(row.state for row in tables[-1].rows) == ["done", "done", "refused", "refused"], "tried again"


def test_a_fault_ends_one_run_only(values, tmp_path):
    planned = members(values, NETWORKS)

    def broken(folder, *, resume):
        if folder.name == planned[0].name:
            raise ZeroDivisionError
        return follow(folder, resume=resume)

    texts, tables = do(tmp_path / "s", planned, broken)
    assert any("bug in napari-unetvnet" in text for text in texts)
    assert "ZeroDivisionError" in (tmp_path / "s" / planned[0].name / LOG).read_text()
    assert tables[-1].rows[0].state == "done"


def test_no_other_model_is_taken_for_the_best_while_one_cannot_be_read(values, tmp_path):
    planned, output = members(values, NETWORKS), tmp_path / "best.safetensors"
    _, tables = do(tmp_path / "s", planned)
    best = tmp_path / "s" / tables[-1].rows[0].name / "model.safetensors"
    whole = best.read_bytes()
    best.write_bytes(whole[:100])
    with pytest.raises(RunProblem, match="may be the best"):
        do(tmp_path / "s", planned, output=output)
    assert not output.exists()
    best.write_bytes(whole)
    do(tmp_path / "s", planned, output=output)
    assert output.read_bytes() == whole


def test_a_run_that_failed_says_why_in_the_table(values, tmp_path):
    (tmp_path / "labels.tif").unlink()
    _, tables = do(tmp_path / "s", members(values))
    assert (tables[-1].rows[0].state, len(tables[-1].rows[0].lines)) == ("failed", 1)
    with pytest.raises(RunProblem, match="no run could be ranked"):
        do(tmp_path / "s", members(values), output=tmp_path / "best.safetensors")


def test_another_setting_needs_another_folder(values, tmp_path):
    do(tmp_path / "s", members(values))
    with pytest.raises(SettingsProblem, match="different seed"):
        do(tmp_path / "s", members(values | {"seed": 3}))


def test_members_that_cannot_be(values):
    with pytest.raises(SettingsProblem, match="no loss 'no_loss'"):
        members(values, (), ["no_loss"])
    with pytest.raises(SettingsProblem, match="all folds"):
        members(values | {"fold": 1})
    with pytest.raises(SettingsProblem, match="should be a name"):
        members(values, ["2*unet_padding"])


def test_the_command_trains_all_folds_and_skips_them_the_next_time(tmp_path, capsys, monkeypatch):
    write_pair(tmp_path)
    monkeypatch.chdir(tmp_path)
    given = ["sweep", "--image", "image.tif", "--label", "labels.tif", "--unlabelled", "ignore", "--background", "1",
             "--patch", "1", "16", "16", "--batch", "2", "--steps", "4", "--steps-per-epoch", "2", "--device", "cpu",
             "--option", "depth=2", "--networks", "unet_padding(width=2)", "--folds", "3"]  # fmt: skip
    assert main(given) == 2
    assert "--run" in capsys.readouterr().err
    assert main([*given, "--run", "s", "--output", "best.safetensors"]) == 0
    text = capsys.readouterr().out
    assert "3/3    unet_padding(depth=2, width=2)" in text
    assert (tmp_path / "best.safetensors").exists()
    stored = json.loads((tmp_path / "s" / TABLE).read_text())
    held = [json.loads(row["scored_on"])["held_out"] for row in stored["runs"]]
    assert len({str(boxes) for boxes in held}) == 3
    assert stored["comparable"]
    lengths = {path: path.stat().st_size for path in (tmp_path / "s").glob(f"*/{EVENTS}")}
    assert main([*given, "--run", "s"]) == 0
    assert lengths == {path: path.stat().st_size for path in (tmp_path / "s").glob(f"*/{EVENTS}")}
    assert main(["compare", "s"]) == 0
    assert "Dice over folds" in capsys.readouterr().out
