"""Runs beside each other: what is read of them, how they are ranked, and when they are not."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import tifffile

from napari_unetvnet import runs as job
from napari_unetvnet.cli.main import main
from napari_unetvnet.errors import RunProblem
from napari_unetvnet.events import EpochDone, RunFinished, StepDone, to_line
from napari_unetvnet.runs.comparison import Point, Row, as_text, compare, read_run, tabulate
from napari_unetvnet.runs.comparison import runs as reading
from napari_unetvnet.runs.comparison import table as drawing
from napari_unetvnet.runs.folder import MODEL, PLAN
from napari_unetvnet.settings import TrainJob, checked

TINY = {"option": {"width": 2, "depth": 2}, "patch": (1, 16, 16), "batch": 2, "steps_per_epoch": 2, "steps": 4,
        "device": "cpu", "unlabelled": "ignore", "background": 1, "view": "2d", "network": "unet_padding",
        "augment": "none"}  # fmt: skip


def write_pair(folder, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.ones((48, 64), np.uint8)
    for y, x in rng.integers(0, (40, 56), (12, 2)):
        labels[y : y + 8, x : x + 8] = 2
    tifffile.imwrite(folder / "image.tif", (labels * 90 + rng.normal(0, 20, labels.shape)).astype(np.uint8))
    tifffile.imwrite(folder / "labels.tif", labels)
    return {"image": str(folder / "image.tif"), "label": str(folder / "labels.tif")}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three short trainings: two on the same hold-out, one on another."""
    folder = tmp_path_factory.mktemp("runs")
    inputs = write_pair(folder)
    for name, changes in {"a": {}, "b": {"loss": "bce", "learning_rate": 0.01}, "c": {"hold_out": 0.4}}.items():
        (folder / name).mkdir()
        job.create(folder / name, checked(TrainJob, TINY | inputs | changes))
        list(job.run(folder / name))
    return folder


def test_the_files_of_a_run_are_called_as_those_who_write_them_call_them():
    assert (reading.JOB, reading.MODEL, reading.PLAN) == (job.JOB, MODEL, PLAN)


def test_a_row_says_what_was_trained_and_what_it_cost(runs):
    row = read_run(runs / "b")
    assert (row.network, row.option, row.loss) == ("unet_padding", {"width": 2, "depth": 2}, "bce")
    assert (row.steps, row.state, [point.step for point in row.curve]) == (4, "done", [2, 4])
    assert row.dice == max(point.dice for point in row.curve)
    assert row.by_class == {"2": row.dice}
    assert row.seconds_per_step == pytest.approx(60 * row.minutes / 4)
    assert 100 < row.parameters < 2000


def test_parameters_are_those_of_the_network(runs):
    from napari_unetvnet.networks import build_network

    network = build_network("unet_padding", 2, 1, 1, {"width": 2, "depth": 2})
    assert read_run(runs / "a").parameters == sum(p.numel() for p in network.parameters())


def test_runs_on_the_same_hold_out_are_ranked(runs):
    table = compare([runs / "a", runs / "b", runs / "a"])
    assert table.comparable
    assert [row.name for row in table.rows] == sorted("ab", key=lambda name: -read_run(runs / name).dice)
    assert [rank for rank, _ in table.ranked()] == [1, 2]
    text = as_text(table)
    assert "learning_rate=0.01" in text, "what else differs is told"
    assert "steps=" not in text
    assert not table.remarks


def test_different_hold_outs_are_told_and_not_ranked(runs):
    table = compare([runs])
    assert len(table.rows) == 3
    assert not table.comparable
    assert {rank for rank, _ in table.ranked()} == {None}
    assert "not all scored on the same hold-out" in as_text(table)


def test_other_inputs_are_another_hold_out(runs):
    row = read_run(runs / "a")
    other = json.loads(row.scored_on)
    other["inputs"]["image"] = ["elsewhere.tif"]
    assert not tabulate([row, replace(row, scored_on=json.dumps(other))]).comparable


def test_the_command_prints_a_table_and_finite_json(runs, capsys):
    assert main(["compare", str(runs / "a"), str(runs / "b")]) == 0
    text = capsys.readouterr().out
    assert "unet_padding(depth=2, width=2) bce" in text
    assert "Dice over time" in text
    assert main(["compare", str(runs), "--json"]) == 0

    def refuse(word):
        raise AssertionError(word)

    told = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert [len(run["curve"]) for run in told["runs"]] == [2, 2, 2]
    assert told["comparable"] is False


def test_a_run_without_a_model_is_a_row(tmp_path):
    folder = tmp_path / "r"
    folder.mkdir()
    job.create(folder, checked(TrainJob, TINY | {"image": "a.tif", "label": "b.tif"}))
    assert read_run(folder).state == "waiting"
    with (folder / job.EVENTS).open("w") as file:
        file.write(
            to_line(StepDone(1, 4, 1, 0.5, 2.0, 3.0)) + "\n" + to_line(EpochDone(1, 2, float("nan"), 0.5, 4.0, 0))
        )
        file.write("\n{half a line")
    row = read_run(folder)
    assert (row.state, row.steps, row.dice, row.curve[0].loss) == ("interrupted", 2, 0.5, None)
    assert row.network == "unet_padding"
    with (folder / job.EVENTS).open("w") as file:
        file.write(to_line(RunFinished("failed", ("There is no a.tif.",))) + "\n")
    assert "r: There is no a.tif." in as_text(tabulate([read_run(folder)]))
    json.loads(as_text(tabulate([read_run(folder)]), as_json=True))


def test_steps_taken_twice_count_once():
    events = [EpochDone(1, 2, 0.5, 0.1, 1, 1), EpochDone(2, 4, 0.4, 0.2, 2, 1), EpochDone(2, 4, 0.4, 0.3, 2, 1)]
    assert [(point.step, point.dice) for point in reading._curve(events)] == [(2, 0.1), (4, 0.3)]


def test_what_is_no_training_is_refused(tmp_path, capsys):
    with pytest.raises(RunProblem, match="nor has any folder in it"):
        compare([tmp_path])
    assert main(["compare", str(tmp_path / "missing")]) == 2
    (tmp_path / job.JOB).write_text('{"command": "segment"}')
    with pytest.raises(RunProblem, match="is not a training"):
        compare([tmp_path])


def test_curves_share_time_and_scale():
    long = Row("long", dice=1.0, curve=tuple(Point(i, i, None, i / 16) for i in range(1, 17)))
    short = Row("short", dice=0.5, curve=(Point(1, 8.0, None, 1 / 16),))
    first, second = drawing._sparklines([long, short], drawing.BLOCKS)
    assert (len(first), first[0], first[-1]) == (16, "▁", "█")
    assert second == " " * 7 + "▁"
    assert as_text(tabulate([long, short]), plain=True).isascii()


def test_folds_are_summed_up_with_mean_and_spread():
    rows = [Row(f"r{i}", "net", {}, "dice", folds=2, fold=i, dice=0.5 + i / 10, scored_on=str(i)) for i in range(2)]
    table = tabulate([*rows, Row("o", "other", {}, "dice", folds=2, fold=0, dice=0.9, scored_on="0")])
    best, half = table.configurations[1], table.configurations[0]
    assert (best.name, best.done, best.mean, best.spread) == ("net dice", 2, 0.55, pytest.approx(0.0707, abs=1e-3))
    assert (half.done, half.spread) == (1, None)
    assert table.comparable
    assert "Some folds are missing" in table.remarks[0]


def test_reading_runs_loads_no_torch(runs):
    code = (
        "import sys; from pathlib import Path; from napari_unetvnet.runs.comparison import compare;"
        f"compare([Path({str(runs)!r})]); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
