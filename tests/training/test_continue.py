"""A training that starts from a model: never worse than it, and a continuation rather than a new beginning."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from test_training_loop import TINY, squares, train, weights

from napari_unetvnet.events import EpochDone, Notice, StartScored, StepDone
from napari_unetvnet.model.card import read_card
from napari_unetvnet.model.saved import save_model
from napari_unetvnet.runs.folder import MODEL, training_files
from napari_unetvnet.settings import TrainSettings, checked
from napari_unetvnet.training import loop, score, validation
from napari_unetvnet.training.ema import ema_of
from napari_unetvnet.training.schedule import Schedule

BAD = {"learning_rate": 10, "optimizer": "sgd"}
"""Destroys any weights in a few steps."""


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A model of 40 steps that has learnt the squares."""
    folder = tmp_path_factory.mktemp("first") / "run"
    train(folder, steps=40, learning_rate=0.01)
    return folder / MODEL


def dice(model):
    return read_card(model).scores["hold_out_dice"]


def notices(events):
    return [event.text for event in events if isinstance(event, Notice)]


def same_weights(a, b):
    a, b = weights(a.parent), weights(b.parent)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"seed": 2, "ema_decay": 0.9}, {"learning_rate": 0.5}, BAD, BAD | {"ema_decay": 0.9}]
)
def test_the_result_is_never_worse_than_the_start(first, tmp_path, changes):
    events = train(tmp_path / "run", start_from=first, steps=10, **changes)
    card = read_card(tmp_path / "run" / MODEL)
    assert (card.parent_dice, card.parent_steps, card.steps) == (dice(first), 40, 50)
    assert first.name in card.parent
    assert card.scores["hold_out_dice"] >= dice(first)
    assert card.unchanged == same_weights(tmp_path / "run" / MODEL, first)
    assert card.unchanged or changes.items() != BAD.items()
    assert [e for e in events if isinstance(e, StartScored)] == [StartScored(str(first), 40, dice(first))]
    done = [e for e in events if isinstance(e, StepDone)]
    assert [(e.step, e.first) for e in done] == [(40 + i, 40) for i in range(1, 11)]
    assert {e.steps for e in done} == {50}
    assert [(e.epoch, e.step) for e in events if isinstance(e, EpochDone)] == [(11, 44), (12, 48), (13, 50)]


def test_a_start_in_half_precision_scores_the_same_and_learns_in_single_precision(first, tmp_path):
    small = tmp_path / "small.safetensors"
    save_model(small, load_file(first), read_card(first), half=True)
    assert small.stat().st_size < 0.8 * first.stat().st_size
    events = train(tmp_path / "run", start_from=small, steps=4)
    (start,) = [e for e in events if isinstance(e, StartScored)]
    assert start.dice == pytest.approx(dice(first), abs=0.01)
    assert {t.dtype for t in weights(tmp_path / "run").values() if t.is_floating_point()} == {torch.float32}


def test_the_start_is_kept_if_it_is_better_on_the_whole_hold_out(first, tmp_path, monkeypatch):
    told = iter([0.5, 0.6, 0.55, 0.7])  # start and epoch on a part, then epoch and start on the whole
    for module in (validation, score):
        monkeypatch.setattr(module, "dice_on", lambda *_: (next(told), {}))
    monkeypatch.setattr(loop, "part_to_score", lambda *_: [])
    train(tmp_path / "run", start_from=first, steps=4)
    card = read_card(tmp_path / "run" / MODEL)
    assert (card.unchanged, card.parent_dice, card.scores) == (True, 0.7, {"hold_out_dice": 0.7})
    assert same_weights(tmp_path / "run" / MODEL, first)


@pytest.mark.parametrize(("changes", "stop"), [({"ema_decay": 0.9}, 6), (BAD, 6), ({}, 2)])
def test_a_continued_run_resumes_to_the_same_model_without_the_file_it_started_from(first, tmp_path, changes, stop):
    train(tmp_path / "whole", start_from=first, **changes)
    copy = tmp_path / "start.safetensors"
    copy.write_bytes(first.read_bytes())
    settings, files = checked(TrainSettings, TINY | changes | {"start_from": copy}), tmp_path / "parts"
    files.mkdir()
    work = loop.steps([squares()], settings, training_files(files))
    assert any(isinstance(event, StepDone) and event.step == 40 + stop for event in work)
    work.close()
    copy.unlink()
    list(loop.steps([squares()], settings, training_files(files), resume=True))
    cards = [read_card(tmp_path / name / MODEL) for name in ("whole", "parts")]
    assert cards[1].parent.startswith("start.safetensors, ")
    assert cards[0] == cards[1].model_copy(update={"parent": cards[0].parent})
    assert same_weights(tmp_path / "whole" / MODEL, tmp_path / "parts" / MODEL)


@pytest.mark.parametrize(
    ("pair", "changes", "reason"),
    [
        (squares(3), {}, "label values of the classes are 0 1 2 instead of 0 1"),
        (squares(2, 2), {}, "number of image channels is 2 instead of 1"),
        (squares(), {"normalise": "percentile"}, "normalisation is percentile instead of zscore"),
        (squares(), {"option": {"width": 4, "depth": 3}}, "option depth is 3 instead of 2"),
        (squares(), {"hold_out": 0}, "nothing of the classes is held out"),
    ],
)
def test_a_start_that_cannot_be_compared_is_told_and_not_kept(first, tmp_path, pair, changes, reason):
    told = notices(train(tmp_path / "run", pair, start_from=first, steps=1, **changes))
    assert any(reason in text and "even if it is worse" in text for text in told)
    card = read_card(tmp_path / "run" / MODEL)
    assert (card.unchanged, card.parent_dice, card.parent_steps) == (False, None, 40)


def test_early_stopping_counts_from_the_start(first, tmp_path):
    events = train(tmp_path / "run", start_from=first, steps=400, patience=2, **BAD)
    assert [e.step for e in events if isinstance(e, StepDone)][-1] == 40 + 2 * TINY["steps_per_epoch"]


def test_nothing_begins_anew():
    """The average forgets no trained weights, and patches, augmentation and epochs count on."""
    for steps, share in ((0, 2 / 11), (400, 0.9)):
        network = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.zeros_(network.weight)
        ema = ema_of(network, 0.9, steps)
        torch.nn.init.ones_(network.weight)
        ema.update_parameters(network)
        assert ema.module.weight.item() == pytest.approx(1 - share)
    schedule = Schedule(1.0, None, 10, step=3, first=110)
    assert (schedule.taken, schedule.planned, schedule.epoch(25), schedule.over) == (113, 120, 6, False)


def test_strong_augmentation_goes_on(first, tmp_path, monkeypatch):
    from napari_unetvnet.training import step

    strengths = []
    monkeypatch.setattr(step, "augment", lambda *args: (strengths.append(args[-1]), args[:3])[1])
    monkeypatch.setattr(step, "AUGMENTATION_START", 10)
    train(tmp_path / "run", start_from=first, steps=2, augment="strong")
    assert strengths == [1.0, 1.0]


def test_the_licence_of_the_start_is_kept_and_told(first, tmp_path):
    licensed = tmp_path / "licensed.safetensors"
    about = {"licence": "CC BY-SA 4.0", "attribution": "A. Author"}
    save_model(licensed, load_file(first), read_card(first).model_copy(update=about))
    events = train(tmp_path / "run", start_from=licensed, steps=2)
    card = read_card(tmp_path / "run" / MODEL)
    assert (card.licence, card.attribution) == ("CC BY-SA 4.0", "A. Author")
    assert any("has the licence CC BY-SA 4.0" in text and "name A. Author" in text for text in notices(events))
