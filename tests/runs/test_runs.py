"""A run is a folder: what it does, what it says, how it is stopped, resumed and followed."""

from __future__ import annotations

import json
import os
import signal
import time

import numpy as np
import pytest

from napari_unetvnet import runs
from napari_unetvnet.errors import FileProblem, RunProblem, SettingsProblem, UserError
from napari_unetvnet.events import Notice, RunFinished, SlabDone, SplitMade, StepDone
from napari_unetvnet.images.io import read_labels
from napari_unetvnet.model import provenance
from napari_unetvnet.model.card import read_card
from napari_unetvnet.model.model import load_model
from napari_unetvnet.runs.folder import LABELS, MODEL, PROVENANCE
from napari_unetvnet.settings import SegmentJob, SegmentSettings, TrainJob, checked

TINY = {"option": {"width": 2, "depth": 2}, "patch": (1, 16, 16), "batch": 2, "steps_per_epoch": 4, "device": "cpu"}


@pytest.fixture
def files(tmp_path):
    """An image of squares in six planes and its labels, as files."""
    rng = np.random.default_rng(0)
    labels = np.zeros((6, 48, 48), np.uint8)
    for z, y, x in rng.integers(0, (6, 40, 40), (40, 3)):
        labels[z, y : y + 8, x : x + 8] = 1
    np.save(tmp_path / "image.npy", labels + rng.normal(0, 0.3, labels.shape))
    np.save(tmp_path / "labels.npy", labels)
    return tmp_path


def train_folder(files, name="train", **changes):
    folder = files / name
    folder.mkdir()
    values = TINY | {"image": str(files / "image.npy"), "label": str(files / "labels.npy"), "steps": 6} | changes
    runs.create(folder, checked(TrainJob, values))
    return folder


def segment_folder(files, model, name="segment", **changes):
    folder = files / name
    folder.mkdir()
    values = {"image": str(files / "image.npy"), "model": str(model), "device": "cpu"} | changes
    runs.create(folder, checked(SegmentJob, values))
    return folder


@pytest.fixture
def model(files):
    folder = train_folder(files, "model")
    list(runs.run(folder))
    return folder / MODEL


def test_a_run_leaves_model_events_and_settings(files):
    folder = train_folder(files, output=str(files / "out.safetensors"))
    events = list(runs.run(folder))
    assert events[-1] == RunFinished(
        "done",
        results={"model": str(files / "out.safetensors"), "steps": "6", "repeat": "--steps 6", "run": str(folder)},
    )
    assert (folder / MODEL).read_bytes() == (files / "out.safetensors").read_bytes()
    written, _ = runs.follow(folder)
    assert written[-1] == events[-1]
    assert runs.read(folder).steps == 6


def test_following_gives_each_event_once(files):
    folder = train_folder(files)
    seen, offset = [], 0
    for _ in runs.run(folder):
        events, offset = runs.follow(folder, offset)
        seen += events
    assert seen == runs.follow(folder)[0]
    assert isinstance(seen[-1], RunFinished)
    assert runs.follow(folder, offset) == ([], offset)


def test_what_is_0_in_a_mask_or_outside_of_a_box_is_background(files):
    np.save(files / "painted.npy", np.load(files / "labels.npy") + 1)
    trained = train_folder(files, label=str(files / "painted.npy"), unlabelled="ignore", background=0, steps=1)
    mask = np.zeros((6, 48, 48), np.uint8)
    mask[1:4, 8:40] = 1
    np.save(files / "mask.npy", mask)
    chosen = {"plain": {}, "part": {"mask": str(files / "mask.npy"), "box_stop": (3, 48, 20), "tta": "y x"}}
    list(runs.run(trained))
    for name, changes in chosen.items():
        folder = segment_folder(files, trained / MODEL, name, **changes)
        assert list(runs.run(folder))[-1].state == "done"
    assert np.load(files / "plain" / LABELS).all()
    mask[3:], mask[..., 20:] = 0, 0
    np.testing.assert_array_equal(np.load(files / "part" / LABELS) > 0, mask > 0)


def test_padding_changes_no_label_and_another_scale_is_told(files):
    folder = train_folder(files, "raw", normalise="none")
    list(runs.run(folder))
    image = np.load(files / "image.npy")
    (lowest, low, high, highest) = read_card(folder / MODEL).intensity_range[0]
    assert image.min() <= lowest <= low < high <= highest <= image.max()
    assert 0 < read_card(folder / MODEL).brightness[0][0] < 1
    np.save(files / "image.npy", image * 1000)
    events = list(runs.run(segment_folder(files, folder / MODEL, "scaled")))
    (line,) = [event.text for event in events if isinstance(event, Notice) and "trained on" in event.text]
    assert line.startswith("image has intensities of ")

    np.save(files / "image.npy", image)
    list(runs.run(folder := train_folder(files, "normalised")))
    assert read_card(folder / MODEL).normalise_in == "content"
    labels = []
    for name, sides in (("plain", (0, 0)), ("framed", (16, 16))):
        np.save(files / "image.npy", np.pad(image, ((0, 0), sides, sides), constant_values=-3))
        list(runs.run(done := segment_folder(files, folder / MODEL, name)))
        labels.append(np.load(done / LABELS))
    np.testing.assert_array_equal(labels[1], np.pad(labels[0], ((0, 0), (16, 16), (16, 16))))


@pytest.mark.parametrize(("precision", "told"), [("auto", True), ("bf16", False)])
def test_a_number_format_that_is_not_good_enough_is_told(files, model, monkeypatch, precision, told):
    from napari_unetvnet.inference import precision_check

    monkeypatch.setattr(precision_check, "faster_formats", lambda _: ("bf16",))
    monkeypatch.setattr(precision_check, "LEAST_TIMES", 1)
    monkeypatch.setattr(precision_check, "AGREEMENT", 1.1)
    events = list(runs.run(segment_folder(files, model, precision=precision)))
    notices = [event.text for event in events if isinstance(event, Notice)]
    assert any("agree with fp32" in text for text in notices) is told


def test_a_half_written_event_waits_for_its_end(files):
    folder = files / "run"
    folder.mkdir()
    (folder / runs.EVENTS).write_text('{"event": "Notice", "text": "a"}\n{"event": "Not')
    events, offset = runs.follow(folder)
    assert events == [Notice("a")]
    with (folder / runs.EVENTS).open("a") as file:
        file.write('ice", "text": "b"}\n')
    assert runs.follow(folder, offset)[0] == [Notice("b")]


def test_a_stop_request_keeps_what_was_reached(files):
    folder = train_folder(files, output=str(files / "out.safetensors"), steps=1000)
    seen = 0
    for event in runs.run(folder):
        seen += isinstance(event, StepDone)
        if seen == 3:
            runs.ask_to_stop(folder)
    assert event.state == "stopped"
    assert load_model(files / "out.safetensors", SegmentSettings(device="cpu")).card.steps == 3


def test_a_stopped_run_goes_on_to_the_same_bytes(files):
    whole = train_folder(files, "whole", steps=10)
    list(runs.run(whole))
    parts = train_folder(files, "parts", steps=10)
    for event in runs.run(parts):
        if isinstance(event, StepDone) and event.step == 5:
            runs.ask_to_stop(parts)
    with pytest.raises(RunProblem, match="run before"):
        next(runs.run(parts))
    assert list(runs.run(parts, resume=True))[-1].state == "done"
    assert (parts / MODEL).read_bytes() == (whole / MODEL).read_bytes()


def test_a_consumer_that_goes_away_stops_the_run(files):
    folder = train_folder(files, steps=1000)
    running = runs.run(folder)
    for event in running:
        if isinstance(event, StepDone) and event.step == 5:
            break
    running.close()
    assert runs.follow(folder)[0][-1].state == "stopped"
    assert (folder / MODEL).exists()


def test_a_segmentation_that_was_interrupted_ends_with_the_same_bytes(files, model):
    whole = segment_folder(files, model, "whole", output=str(files / "whole.tif"))
    list(runs.run(whole))
    parts = segment_folder(files, model, "parts", output=str(files / "parts.tif"))
    for event in runs.run(parts):
        if isinstance(event, SlabDone) and event.stop == 3:
            runs.ask_to_stop(parts)
    assert not (files / "parts.tif").exists()
    with (parts / runs.EVENTS).open("a") as file:
        file.write('{"event": "Sla')  # killed while it wrote
    events = list(runs.run(parts, resume=True))
    assert next(e for e in events if isinstance(e, SlabDone)).start == 3
    assert (files / "parts.tif").read_bytes() == (files / "whole.tif").read_bytes()


def test_labels_and_probabilities_are_written_on_the_images_grid(files, model):
    output, shares = files / "out.nii.gz", files / "shares.npy"
    folder = segment_folder(files, model, output=str(output), probabilities=str(shares))
    assert list(runs.run(folder))[-1].results["labels"] == str(output)
    labels = read_labels(output)
    assert labels.shape == (6, 48, 48)
    assert np.load(shares).shape == (2, 6, 48, 48)
    inside = segment_folder(files, model, "inside")
    list(runs.run(inside))
    np.testing.assert_array_equal(np.load(inside / LABELS), labels.data[0])


def test_a_mistake_is_the_last_event_and_is_raised(files):
    np.save(files / "labels.npy", np.zeros((6, 48, 48), np.uint8))
    folder = train_folder(files)
    with pytest.raises(UserError, match="only 0"):
        list(runs.run(folder))
    last = runs.follow(folder)[0][-1]
    assert (last.state, last.fault) == ("failed", False)
    assert "only 0" in last.lines[0]


def test_a_fault_is_the_last_event_and_is_raised(files, monkeypatch):
    folder = train_folder(files)
    monkeypatch.setattr("napari_unetvnet.training.loop.steps", lambda *_, **__: iter([1 / 0 for _ in "a"]))
    with pytest.raises(ZeroDivisionError):
        list(runs.run(folder))
    last = runs.follow(folder)[0][-1]
    assert (last.state, last.fault) == ("failed", True)


@pytest.mark.parametrize("text", ["", "{", '{"command": "tra', "[]", '"train"'])
def test_a_half_written_folder_is_refused_with_a_sentence(tmp_path, text):
    (tmp_path / runs.JOB).write_text(text)
    with pytest.raises(RunProblem, match="not a complete run"):
        runs.read(tmp_path)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunProblem, match="not a complete run"):
        next(runs.run(tmp_path))
    (tmp_path / runs.JOB).write_text('{"command": "bake"}')
    with pytest.raises(RunProblem, match="bake"):
        runs.read(tmp_path)
    (tmp_path / runs.JOB).write_text('{"command": "segment", "image": "a.tif", "model": "m", "overlap": 2}')
    with pytest.raises(SettingsProblem, match="overlap=2"):
        runs.read(tmp_path)


def test_a_run_that_is_being_worked_on_is_left_alone(files):
    folder = train_folder(files, steps=1000)
    running = runs.run(folder)
    next(running)
    with pytest.raises(RunProblem, match="in use by another process"):
        next(runs.run(folder, resume=True))
    running.close()


@pytest.mark.parametrize("damage", ["cut", "shape", "gone"])
def test_a_damaged_result_is_computed_again(files, model, damage):
    whole = segment_folder(files, model, "whole")
    list(runs.run(whole))
    parts = segment_folder(files, model, "parts")
    for event in runs.run(parts):
        if isinstance(event, SlabDone) and event.stop == 3:
            runs.ask_to_stop(parts)
    labels = parts / LABELS
    if damage == "cut":
        labels.write_bytes(labels.read_bytes()[:50])
    elif damage == "shape":
        np.save(labels, np.zeros((2, 2), np.uint8))
    else:
        labels.unlink()
    events = list(runs.run(parts, resume=True))
    assert next(e for e in events if isinstance(e, SlabDone)).start == 0
    assert labels.read_bytes() == (whole / LABELS).read_bytes()


def test_inputs_beside_the_job_are_found(files):
    folder = files / "moved"
    (folder / "inputs").mkdir(parents=True)
    for name in ("image", "labels"):
        (files / f"{name}.npy").rename(folder / "inputs" / f"{name}.npy")
    values = TINY | {"image": "inputs/image.npy|inputs/image.npy", "label": "inputs/labels.npy", "steps": 1}
    runs.create(folder, checked(TrainJob, values))
    assert list(runs.run(folder))[-1].state == "done"


def test_run_folders_never_collide(tmp_path):
    folders = {runs.new_folder("a b/c", tmp_path) for _ in range(5)}
    assert len(folders) == 5
    assert all(folder.is_dir() and folder.parent == tmp_path for folder in folders)
    (tmp_path / "file").touch()
    with pytest.raises(FileProblem, match="No run folder"):
        runs.new_folder("x", tmp_path / "file")


def wait_for(folder, kind, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        events, _ = runs.follow(folder)
        if any(isinstance(event, kind) for event in events):
            return events
        time.sleep(0.05)
    raise TimeoutError((folder / runs.LOG).read_text())


@pytest.mark.slow
def test_a_child_does_the_same_as_this_process(files):
    here, there = train_folder(files, "here"), train_folder(files, "there")
    list(runs.run(here))
    with runs.start(there) as child:
        assert child.wait(60) == 0
    assert (here / MODEL).read_bytes() == (there / MODEL).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["ask", "terminate"])
def test_a_child_that_is_stopped_leaves_a_model(files, how):
    folder = train_folder(files, steps=1_000_000)
    with runs.start(folder) as child:
        wait_for(folder, StepDone)
        runs.ask_to_stop(folder) if how == "ask" else child.terminate()
        assert child.wait(30) == 130
    assert runs.follow(folder)[0][-1].state == "stopped"
    load_model(folder / MODEL, SegmentSettings(device="cpu"))


@pytest.mark.slow
def test_a_child_that_was_killed_leaves_its_best_model_and_can_be_resumed(files):
    folder = train_folder(files, steps=60, steps_per_epoch=5)
    with runs.start(folder) as child:
        wait_for(folder, StepDone)
        while not (folder / MODEL).exists():
            time.sleep(0.02)
        os.kill(child.pid, signal.SIGKILL)
    load_model(folder / MODEL, SegmentSettings(device="cpu"))
    assert list(runs.run(folder, resume=True))[-1].state == "done"


def test_settings_files_must_be_json_objects(tmp_path):
    with pytest.raises(FileProblem, match="cannot be read"):
        runs.read_settings(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{'a': 1}")
    with pytest.raises(FileProblem, match="no JSON"):
        runs.read_settings(tmp_path / "bad.json")
    (tmp_path / "good.json").write_text(json.dumps({"image": ["x.npy|" + "y.npy"], "minutes": 1}))
    (tmp_path / "x.npy").touch()
    values = runs.read_settings(tmp_path / "good.json")
    assert values == {"image": [f"{tmp_path / 'x.npy'}|{tmp_path / 'y.npy'}"], "minutes": 1}


def test_a_finished_run_goes_on_for_longer(files):
    folder = train_folder(files, steps=6, ema_decay=0.9)
    list(runs.run(folder))
    events = list(runs.run(folder, resume=True, budget={"steps": 10}))
    assert [e.step for e in events if isinstance(e, StepDone)] == [7, 8, 9, 10]
    assert runs.read(folder).steps == 10
    assert read_card(folder / MODEL).steps <= 10
    again = [e for e in runs.run(folder, resume=True) if isinstance(e, StepDone)]
    assert not again  # it is over


@pytest.mark.alone
def test_a_time_budget_is_decided_anew_for_longer(files):
    # All that another plan could change is set, so that a training that does not learn in seconds does not begin again.
    folder = train_folder(files, steps=None, minutes=0.02, learning_rate=0.003)
    first = max(e.step for e in runs.run(folder) if isinstance(e, StepDone))
    events = list(runs.run(folder, resume=True, budget={"minutes": 0.06}))
    steps = [e for e in events if isinstance(e, StepDone)]
    assert steps[0].step == first + 1
    assert 2 < steps[-1].seconds < 8


def test_a_segmentation_has_no_budget(files, model):
    with pytest.raises(SettingsProblem, match="Only a training has a budget"):
        list(runs.run(segment_folder(files, model), budget={"steps": 3}))


def test_what_a_training_was_made_of_is_recorded(files):
    cards = []
    for name in ("one", "two"):
        folder = train_folder(files, name, steps=1)
        list(runs.run(folder))
        made = json.loads((folder / PROVENANCE).read_text())
        assert made["versions"]["torch"]
        assert made["hardware"]["threads"] >= 1
        assert made["hardware"]["precision"] in {"fp32", "bf16"}
        cards.append(read_card(folder / MODEL))
    assert cards[0] == cards[1]
    assert cards[0].inputs.startswith("1 image(s), sha256 ")
    assert cards[0].device == made["hardware"]["device"] != ""
    events, _ = runs.follow(folder)
    assert [event.number for event in events if isinstance(event, SplitMade)] == [0]
    labels = np.load(files / "labels.npy")
    labels[0, 0, 0] ^= 1
    np.save(files / "labels.npy", labels)
    other = train_folder(files, "three", steps=1)
    list(runs.run(other))
    assert read_card(other / MODEL).inputs != cards[0].inputs


def test_the_hash_of_an_input_is_that_of_its_contents_wherever_it_lies(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name / "x.zarr" / "c").mkdir(parents=True)
        (tmp_path / name / "x.zarr" / "c" / "0").write_bytes(b"chunk")
    first, second = (provenance._hash(str(tmp_path / name / "x.zarr")) for name in "ab")
    assert first == second
    assert first.startswith("sha256:")
    (tmp_path / "b" / "x.zarr" / "c" / "0").write_bytes(b"chank")
    assert provenance._hash(str(tmp_path / "b" / "x.zarr")) != first
    monkeypatch.setattr(provenance, "MOST_BYTES", 3)
    sizes = {provenance._hash(str(tmp_path / name / "x.zarr")) for name in "ab"}
    assert len(sizes) == 1
    assert sizes.pop().startswith("sizes:")
