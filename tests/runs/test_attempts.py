"""A training that does not learn begins again by another plan."""

from __future__ import annotations

import json

import numpy as np
import pytest
from test_delivery import TINY

from napari_unetvnet import runs
from napari_unetvnet.events import EpochDone, Notice, StepDone
from napari_unetvnet.model.card import read_card
from napari_unetvnet.runs.folder import ATTEMPTS, FIRST_MODEL, MODEL, PLAN
from napari_unetvnet.runs.repeat import options_to_repeat
from napari_unetvnet.settings import TrainJob, checked
from napari_unetvnet.training.plan import pace, stall
from napari_unetvnet.training.plan.stall import Watch

OPEN = {name: value for name, value in TINY.items() if name not in ("network", "option", "learning_rate", "view")}


def epoch(step, loss, dice, share=0.2):
    return EpochDone(step // 25, step, loss, dice, 100 * share, 100 * (1 - share))


def stalls(*epochs):
    watch = Watch()
    return [watch.add(each) for each in epochs]


def test_a_loss_that_stays_is_noticed_after_some_steps_and_time():
    flat = [epoch(25 * k, 1.0, 0.0) for k in range(1, 5)]
    assert stalls(*flat) == [False, False, True, True]
    assert stalls(*[epoch(25 * k, 1.0, 0.0, 0.1) for k in range(1, 5)]) == [False] * 4, "too early"
    assert stalls(*[epoch(25 * k, 1.0, 0.0, 0.6) for k in range(1, 5)]) == [False] * 4, "too late"


def test_a_training_that_learns_is_left_alone():
    assert not any(stalls(*[epoch(25 * k, 1.0 / k, 0.0) for k in range(1, 9)])), "the loss falls"
    assert not any(stalls(*[epoch(25 * k, 1.0, 0.06) for k in range(1, 9)])), "it finds something"
    assert not any(stalls(*[epoch(25 * k, 1.0 / k, None) for k in range(1, 9)])), "no hold-out, the loss falls"


def test_a_falling_loss_that_finds_nothing_is_noticed_later():
    found = stalls(*[epoch(50 * k, 1.0 / k, 0.0, 0.35) for k in range(1, 7)])
    assert found == [False, False, False, False, True, True]


def test_steps_of_the_model_that_was_started_from_do_not_count():
    begun = StepDone(351, 650, 15, 1.0, 0.1, 10.0, first=350)
    scored = [epoch(350 + 25 * k, 1.0, 0.0) for k in range(1, 5)]
    assert stalls(begun, *scored) == [False, False, False, True, True]
    unscored = [epoch(350 + 25 * k, 0.1, None) for k in range(1, 5)]
    assert not any(stalls(begun, *unscored)), "it may know everything already"


@pytest.fixture
def noise(tmp_path, monkeypatch):
    """A volume whose labels have nothing to do with its image, and a watch that is sure after 4 steps."""
    monkeypatch.setattr(stall, "LEAST_STEPS", 4)
    monkeypatch.setattr(stall, "LEAST_DICE", 2.0)
    monkeypatch.setattr(stall, "FALL", 0.9)
    monkeypatch.setattr(pace, "NARROW", 2)
    rng = np.random.default_rng(0)
    np.save(tmp_path / "image.npy", rng.normal(size=(16, 48, 48)).astype(np.float32))
    np.save(tmp_path / "labels.npy", (rng.random((16, 48, 48)) < 0.3).astype(np.uint8))
    return tmp_path


def start(files, **chosen):
    folder = files / "run"
    folder.mkdir()
    sources = {"image": [str(files / "image.npy")], "label": [str(files / "labels.npy")], "unlabelled": "background"}
    values = OPEN | sources | {"steps": 10, "steps_per_epoch": 2, "patch": None} | chosen
    runs.create(folder, checked(TrainJob, {name: value for name, value in values.items() if value is not None}))
    return folder


def told(events):
    return [event.text for event in events if isinstance(event, Notice) and "does not learn" in event.text]


def chosen(folder):
    return {row["name"]: row["value"] for row in json.loads((folder / PLAN).read_text())}


def test_view_norm_and_rate_are_changed_in_turn_and_then_it_is_said(noise):
    folder = start(noise)
    events = list(runs.run(folder))
    texts = told(events)
    assert len(texts) == 4
    assert "2.5D patches" in texts[0]
    assert "nothing left" in texts[3]
    values = chosen(folder)
    assert values["view"] == "2.5d"
    assert values["option"]["norm"] == "instance"
    assert values["learning_rate"] == pytest.approx(0.0005)
    assert json.loads((folder / ATTEMPTS).read_text())["changed"].keys() == {"view", "option", "learning_rate"}
    assert events[-1].state == "done"


def test_what_the_user_set_stays(noise):
    folder = start(noise, view="3d", network="unet_padding", option={"width": 2, "depth": 2}, learning_rate=0.001)
    texts = told(list(runs.run(folder)))
    assert len(texts) == 1
    assert "nothing left" in texts[0]
    assert not (folder / ATTEMPTS).exists()


def test_what_repeats_a_training_names_what_was_measured_or_changed(tmp_path):
    rows = [{"name": "option", "value": {"width": 8}, "reason": ""}, {"name": "view", "value": "2.5d", "reason": ""}]
    (tmp_path / PLAN).write_text(json.dumps(rows))
    timed = checked(TrainJob, {"image": "a", "label": "b", "minutes": 1})
    assert options_to_repeat(tmp_path, timed, 40) == "--steps 40 --option width=8"
    (tmp_path / ATTEMPTS).write_text(json.dumps({"changed": {"view": "2.5d"}, "seconds": 9.0, "epochs": 3}))
    assert options_to_repeat(tmp_path, timed, 40) == "--steps 40 --option width=8 --view 2.5d"
    counted = checked(TrainJob, {"image": "a", "label": "b", "steps": 40})
    assert options_to_repeat(tmp_path, counted, 40) == "--steps 40"


def test_the_model_of_the_first_plan_stays_if_it_is_the_better_one(noise):
    folder = start(noise)
    events = list(runs.run(folder))
    first, last = (read_card(folder / name).scores["hold_out_dice"] for name in (FIRST_MODEL, MODEL))
    assert last >= first
    kept = [event.text for event in events if isinstance(event, Notice) and "first plan is kept" in event.text]
    assert len(kept) == (read_card(folder / MODEL).view == "3d")


def test_a_stopped_second_attempt_is_resumed_with_its_own_plan(noise):
    folder = start(noise)
    events = runs.run(folder)
    for event in events:
        if isinstance(event, Notice) and "does not learn" in event.text:
            break
    next(event for event in events if isinstance(event, EpochDone))
    events.close()
    assert chosen(folder)["view"] == "2.5d"
    rest = list(runs.run(folder, resume=True))
    assert not [text for text in told(rest) if "2.5D patches" in text and "3D" in text]
    assert rest[-1].state == "done"
    assert chosen(folder)["learning_rate"] == pytest.approx(0.0005)
