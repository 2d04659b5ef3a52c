"""The final fit: what was held out is learnt at the end, and the score stays that of the model before."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_continue import notices
from test_training_loop import CPU, TINY, squares, train, weights

from napari_unetvnet.data.boxes import from_numbers, subtract, volume_of
from napari_unetvnet.data.known import all_learnt, known_images, records
from napari_unetvnet.data.prepare import prepare_data, undivided
from napari_unetvnet.errors import ModelProblem
from napari_unetvnet.events import CheckpointSaved, EpochDone, StartScored, StepDone
from napari_unetvnet.model.card import ModelCard, read_card
from napari_unetvnet.model.model import load_model
from napari_unetvnet.model.saved import save_model
from napari_unetvnet.runs.comparison.runs import _parameters
from napari_unetvnet.runs.folder import FINAL_FIT, MODEL, training_files
from napari_unetvnet.settings import TrainSettings, checked
from napari_unetvnet.training import final_fit, loop, step
from napari_unetvnet.training.schedule import Schedule
from napari_unetvnet.training.score import dice_on

FIT = {"steps": 40, "final_fit": 0.2, "learning_rate": 0.01}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A model of 32 steps, and 8 of the final fit."""
    folder = tmp_path_factory.mktemp("fitted") / "run"
    return folder / MODEL, train(folder, **FIT)


@pytest.mark.parametrize(
    ("total", "share", "main"),
    [(40, 0.2, 32), (40, 0, 40), (100, 0.15, 85), (1, 0.15, 1), (3, 0.5, 1)],
)
def test_the_rate_has_fallen_before_the_final_fit(total, share, main):
    schedule, rates = Schedule(1.0, None, total, fit=share), []
    while not schedule.over:
        rates.append(schedule.rate())
        schedule.step += 1
    assert (len(rates), schedule.fit_steps, schedule.planned) == (main, total - main, total)
    whole = Schedule(1.0, None, main)
    assert rates == [(setattr(whole, "step", i), whole.rate())[1] for i in range(main)]


@given(total=st.integers(2, 300), share=st.floats(0, 0.5))
def test_a_time_budget_becomes_the_steps_that_give_the_same_rates(total, share):
    timed, rates = Schedule(1.0, 1.0, None, fit=share), []
    while not timed.over:
        rates.append(timed.rate())
        timed.step += 1
        timed.seconds += 60 / total
    main, fit = timed.step, timed.fit_steps
    counted = Schedule(1.0, None, main + fit, fit=share)
    assert (counted.main_steps, timed.steps) == (main, main + fit)
    assert rates == [(setattr(counted, "step", i), counted.rate())[1] for i in range(main)]
    assert abs((main + fit) - total) <= 3


def test_a_training_that_ended_early_is_fitted_in_proportion():
    schedule = Schedule(1.0, 5.0, None, step=80, fit=0.2)
    assert schedule.fit_steps == 20
    assert Schedule(1.0, None, 10, "falling", step=9).rate() == pytest.approx(0.1)


def test_the_last_steps_learn_what_was_held_out_and_the_score_is_the_one_before(fitted):
    model, events = fitted
    card, done = read_card(model), [event for event in events if isinstance(event, StepDone)]
    assert [(event.step, event.steps) for event in done] == [(i, 40) for i in range(1, 41)]
    assert (card.steps, card.final_fit_steps) == (40, 8)
    epochs = [event for event in events if isinstance(event, EpochDone)]
    assert [(event.epoch, event.step) for event in epochs] == [(i, 4 * i) for i in range(1, 11)]
    assert [event.dice is None for event in epochs] == [False] * 8 + [True] * 2
    settings = checked(TrainSettings, TINY | FIT)
    data = prepare_data([squares()], settings, settings.planned_patch)
    before = dice_on(data.hold_out, load_model(model, CPU, before_fit=True), data.classes)[0]
    after = dice_on(data.hold_out, load_model(model, CPU), data.classes)[0]
    assert card.scores["hold_out_dice"] == before
    assert after >= before
    assert card.score.startswith(f"Dice {before:.3f} on its hold-out before its final fit (1 image, ")
    assert isinstance(events[-1], CheckpointSaved)
    assert (events[-1].step, events[-1].dice) == (40, before)
    assert any("the last 8 steps learn what was held out, too" in text for text in notices(events))


def test_the_training_before_is_that_of_a_run_without_it(fitted, tmp_path):
    train(tmp_path / "run", steps=32, learning_rate=0.01)
    before = load_model(fitted[0], CPU, before_fit=True).network.state_dict()
    for name, tensor in weights(tmp_path / "run").items():
        assert torch.equal(tensor, before[name])


def test_patches_are_drawn_from_all_of_the_images():
    settings = checked(TrainSettings, TINY | {"steps": 1})
    pair = squares()
    data = prepare_data([pair], settings, settings.planned_patch)
    whole = undivided([pair], data)
    assert (whole.train[0].target == np.asarray(pair.labels.data)[0]).all()  # no margin, no block
    assert whole.parts(0)[0] == [whole.train[0].boxes[0]]
    assert volume_of(whole.train[0].boxes[0]) == 64 * 64
    assert whole.classes is data.classes
    assert (data.train[0].target == 255).any()  # what the training had is left as it is


def test_the_card_tells_what_only_the_final_fit_learnt(fitted):
    (image,) = read_card(fitted[0]).images
    boxes = {name: [from_numbers(row) for row in getattr(image, name)] for name in ("trained", "held_out", "fitted")}
    marks = np.zeros((1, 64, 64), int)
    for box in (*boxes["trained"], *boxes["fitted"]):
        marks[box.slices] += 1
    assert (marks == 1).all()
    for box in boxes["held_out"]:
        assert subtract([box], boxes["fitted"]) == []
        assert subtract([box], boxes["trained"]) == [box]


@pytest.mark.parametrize(
    ("stop", "changes"),
    [(30, {}), (32, {}), (33, {}), (38, {"ema_decay": 0.9, "optimizer": "sgd", "learning_rate": 0.02}), (40, {})],
)
def test_a_run_that_is_stopped_resumes_to_the_same_bytes(tmp_path, stop, changes):
    values = FIT | changes
    train(tmp_path / "whole", **values)
    (tmp_path / "parts").mkdir()
    settings, files = checked(TrainSettings, TINY | values), training_files(tmp_path / "parts")
    work = loop.steps([squares()], settings, files)
    assert any(isinstance(event, StepDone) and event.step == stop for event in work)
    work.close()
    card = read_card(tmp_path / "parts" / MODEL)
    assert (card.final_fit_steps, card.images[0].fitted) == (0, ())  # what is there now has not learnt it
    list(loop.steps([squares()], settings, files, resume=True))
    assert (tmp_path / "whole" / MODEL).read_bytes() == (tmp_path / "parts" / MODEL).read_bytes()


def test_a_kill_within_the_final_fit_leaves_the_last_epoch_to_resume_from(tmp_path):
    train(tmp_path / "whole", **FIT)
    (tmp_path / "parts").mkdir()
    settings, files = checked(TrainSettings, TINY | FIT), training_files(tmp_path / "parts")
    work, kept = loop.steps([squares()], settings, files), {}
    for event in work:
        if isinstance(event, StepDone) and event.step == 38:  # a kill writes nothing more
            kept = {path: path.read_bytes() for path in (tmp_path / "parts").iterdir() if path.is_file()}
            break
    work.close()
    for path in (tmp_path / "parts").iterdir():
        path.write_bytes(kept[path]) if path in kept else path.unlink()
    list(loop.steps([squares()], settings, files, resume=True))
    assert (tmp_path / "whole" / MODEL).read_bytes() == (tmp_path / "parts" / MODEL).read_bytes()


def test_a_longer_budget_goes_on_from_the_training_and_not_from_the_final_fit(tmp_path):
    train(tmp_path / "long", **FIT | {"steps": 60})
    train(tmp_path / "short", **FIT | {"final_fit": 0.5})  # 20 steps, before the rate of the long one falls
    settings = checked(TrainSettings, TINY | FIT | {"steps": 60})
    assert (tmp_path / "short" / FINAL_FIT).exists()
    events = list(loop.steps([squares()], settings, training_files(tmp_path / "short"), resume=True))
    assert next(event.step for event in events if isinstance(event, StepDone)) == 21
    cards = [read_card(tmp_path / name / MODEL) for name in ("long", "short")]
    assert [(card.steps, card.final_fit_steps) for card in cards] == [(60, 12), (60, 12)]


def nan_in_the_final_fit(backward):
    return lambda run, batch: float("nan") if run.fitting else backward(run, batch)


def worse(run, best, regions):
    return SimpleNamespace(dice=0.0)


@pytest.mark.parametrize(
    ("module", "name", "fault", "told"),
    [
        (step, "_backward", nan_in_the_final_fit(step._backward), "The final fit diverged"),
        (final_fit, "score_weights", worse, "Dice of what was held out 0.000 instead of 0"),
    ],
)
def test_a_final_fit_that_fails_leaves_the_model_before(fitted, tmp_path, monkeypatch, module, name, fault, told):
    monkeypatch.setattr(module, name, fault)
    events = train(tmp_path / "run", **FIT)
    assert any(told in text and "so the model before it is kept" in text for text in notices(events))
    card, good = read_card(tmp_path / "run" / MODEL), read_card(fitted[0])
    assert (card.steps, card.final_fit_steps, card.images[0].fitted) == (32, 0, ())
    assert card.scores == good.scores
    before = load_model(fitted[0], CPU, before_fit=True).network.state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(tmp_path / "run").items())


def test_without_a_hold_out_there_is_no_final_fit(tmp_path):
    events = train(tmp_path / "run", hold_out=0, **FIT | {"steps": 8})
    assert any("There is no final fit, because nothing is held out" in text for text in notices(events))
    assert (read_card(tmp_path / "run" / MODEL).steps, read_card(tmp_path / "run" / MODEL).final_fit_steps) == (8, 0)


def test_early_stopping_is_followed_by_a_final_fit(tmp_path):
    events = train(tmp_path / "run", steps=400, learning_rate=1e-9, patience=2, final_fit=0.25)
    assert [event.step for event in events if isinstance(event, StepDone)][-1] == 16  # 4 + 2 * 4 steps, and a quarter
    assert read_card(tmp_path / "run" / MODEL).final_fit_steps == 4


def test_a_training_that_starts_from_it_is_never_scored_on_what_was_learnt(fitted, tmp_path):
    model, _ = fitted
    events = train(tmp_path / "run", start_from=model, steps=4, learning_rate=1e-9)
    card, start = read_card(tmp_path / "run" / MODEL), read_card(model)
    assert [event for event in events if isinstance(event, StartScored)] == [
        StartScored(str(model), 32, start.scores["hold_out_dice"])
    ]
    assert any("goes on from its weights before the final fit" in text for text in notices(events))
    assert (card.parent_steps, card.steps, card.images[0].held_out) == (32, 36, start.images[0].held_out)
    assert (card.images[0].fitted, card.unchanged) == ((), False)


def test_images_of_an_earlier_final_fit_only_are_not_learnt_by_the_weights_before_it(fitted):
    known = known_images(fitted[0])
    other = squares(seed=3)
    settings = checked(TrainSettings, TINY)
    data = prepare_data([other], settings, settings.planned_patch, known)
    rows = records(data, [other.image])
    assert [bool(row.fitted) for row in rows] == [False, False]
    assert [bool(row.fitted) for row in all_learnt(rows, [other.image])] == [True, False]


def test_weights_before_it_that_are_gone_are_told(fitted, tmp_path):
    model = load_model(fitted[0], CPU)
    save_model(tmp_path / "alone.safetensors", model.network.state_dict(), model.card)
    assert isinstance(model.card, ModelCard)
    with pytest.raises(ModelProblem, match="does not hold the weights before it"):
        load_model(tmp_path / "alone.safetensors", CPU, before_fit=True)
    assert load_model(tmp_path / "alone.safetensors", CPU).card == model.card
    assert _parameters(tmp_path / "alone.safetensors") == _parameters(fitted[0])
