"""When the peak rate does no more good: the rate of a time budget falls earlier, and the training ends then."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from test_continue import notices
from test_training_loop import TINY, squares, train

from napari_unetvnet.events import EpochDone, StepDone
from napari_unetvnet.model.card import read_card
from napari_unetvnet.runs.folder import MODEL, training_files
from napari_unetvnet.settings import TrainSettings, checked
from napari_unetvnet.training import loop, plateau
from napari_unetvnet.training.plateau import is_flat, note_score
from napari_unetvnet.training.run import Best
from napari_unetvnet.training.schedule import Schedule


def curve(gain, noise):
    """32 scores: a steep start, then a quarter around 0.8, and a quarter that is better by some gain."""
    return [
        *(0.05 * i for i in range(16)),
        *[0.8 - noise, 0.8 + noise] * 4,
        *[0.8 + gain + noise, 0.8 + gain - noise] * 4,
    ]


@pytest.mark.parametrize(
    ("gain", "noise", "flat"),
    [
        (0, 0, True),
        (-0.1, 0.005, True),  # worse, as after too long a training
        (0.0008, 0, True),
        (0.0012, 0, False),
        (0, 0.001, True),  # the standard error is 0.001 * sqrt(8 / 7 * 2 / 8) = 0.00053
        (0.0006, 0.001, False),  # 0.0006 + 0.00053
        (0, 0.002, False),  # 0.00107: the noise could hide a gain
    ],
)
def test_scores_are_flat_where_a_gain_is_surely_little(gain, noise, flat):
    scores = curve(gain, noise)
    assert is_flat(scores) == flat
    assert not is_flat(scores[1:])  # too few


def test_a_rising_curve_is_never_flat():
    scores = [1 - 0.99**i for i in range(120)]
    assert not any(is_flat(scores[:n]) for n in range(len(scores)))


def noted(dice, scores, **schedule):
    run = SimpleNamespace(
        curve=curve(0, 0)[:-1], schedule=Schedule(1.0, **{"minutes": 5.0, "steps": None, "seconds": 160} | schedule)
    )
    note_score(run, Best(dice=dice, scores=scores))
    return run


def test_only_a_time_budget_with_all_classes_found_ends_early():
    assert noted(0.8, {"1": 0.9, "2": 0.7}).schedule.flat
    assert not noted(0.8, {"1": 0.9, "2": 0.05}).schedule.flat  # may still be found
    assert not noted(0.8, {"1": 0.8}, minutes=None, steps=400).schedule.flat
    assert not noted(0.8, {"1": 0.8}, steps=400).schedule.flat  # the rate falls already
    assert not noted(0.8, {"1": 0.9}, seconds=140).schedule.flat  # half of the time is used
    assert len(noted(None, {}).curve) == 31


def test_the_rate_falls_at_once_and_the_steps_so_far_are_the_ones_before():
    schedule = Schedule(1.0, 60.0, None, step=70, seconds=30, flat=True)
    assert schedule.rate() == 1
    assert schedule.steps == 100
    assert [(setattr(schedule, "step", i), schedule.rate())[1] for i in (71, 85, 99)] == pytest.approx(
        [29 / 30, 0.5, 1 / 30]
    )


@pytest.fixture
def soon(monkeypatch):
    """Scores that are flat after 5 epochs."""
    monkeypatch.setattr(plateau, "is_flat", lambda scores: len(scores) >= 5)
    monkeypatch.setattr(plateau, "FOUND", 0)
    monkeypatch.setattr(plateau, "USED", 0)


def test_a_flat_training_ends_before_its_time_and_says_so(soon, tmp_path):
    events = train(tmp_path / "run", minutes=60)
    steps = [event for event in events if isinstance(event, StepDone)]
    assert (steps[-1].step, steps[20].steps) == (29, 29)  # 20 steps are 7 tenths of 29, rounded up
    assert sum("the learning rate falls now" in text for text in notices(events)) == 1
    train(tmp_path / "counted", steps=29)
    assert (tmp_path / "run" / MODEL).read_bytes() == (tmp_path / "counted" / MODEL).read_bytes()


@pytest.mark.parametrize("stop", [18, 20, 23])
def test_it_is_resumed_to_the_same_bytes(soon, tmp_path, stop):
    train(tmp_path / "whole", minutes=60, final_fit=0.1)
    values = {name: value for name, value in TINY.items() if name != "steps"} | {"minutes": 60, "final_fit": 0.1}
    settings, files = checked(TrainSettings, values), training_files(tmp_path / "parts")
    (tmp_path / "parts").mkdir()
    work = loop.steps([squares()], settings, files)
    assert any(isinstance(event, StepDone) and event.step == stop for event in work)
    work.close()
    told = notices(loop.steps([squares()], settings, files, resume=True))
    assert any("the learning rate falls now" in text for text in told)
    assert (tmp_path / "whole" / MODEL).read_bytes() == (tmp_path / "parts" / MODEL).read_bytes()


def test_a_new_budget_is_used(soon, tmp_path, monkeypatch):
    train(tmp_path / "run", minutes=60)
    values = {name: value for name, value in TINY.items() if name != "steps"} | {"minutes": 90}
    monkeypatch.setattr(plateau, "is_flat", lambda scores: len(scores) >= 3)
    events = list(
        loop.steps([squares()], checked(TrainSettings, values), training_files(tmp_path / "run"), resume=True)
    )
    epochs = [event.step for event in events if isinstance(event, EpochDone)]
    assert epochs[:3] == [32, 36, 40]  # counted anew
    assert read_card(tmp_path / "run" / MODEL).steps == 58  # 40 steps are 7 tenths of 58, rounded up
