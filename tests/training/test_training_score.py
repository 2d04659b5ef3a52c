"""What scores a model: a quick part after each epoch, all that was held out at the end."""

from __future__ import annotations

from math import prod
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_inference_segment import RAW, pointwise_model
from test_training import settings_of, train

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.data.patches import Region
from napari_unetvnet.data.prepare import prepare_data
from napari_unetvnet.data.targets import Classes
from napari_unetvnet.events import CheckpointSaved, EpochDone
from napari_unetvnet.images.pairs import Pair
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.model.card import read_card
from napari_unetvnet.model.model import load_model
from napari_unetvnet.runs.folder import MODEL, training_files
from napari_unetvnet.settings import SegmentSettings
from napari_unetvnet.training import loop, score, validation
from napari_unetvnet.training.processes import SINGLE
from napari_unetvnet.training.run import Best
from napari_unetvnet.training.score import counts_on, dice_on, mean_dice, standard_error


@pytest.fixture
def pairs():
    """Four noisy images of squares; one of them will be held out."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(4):
        labels = np.ones((1, 1, 64, 64), np.uint8)
        for y, x in rng.integers(0, 56, (12, 2)):
            labels[0, 0, y : y + 8, x : x + 8] = 2
        made.append(Pair(Volume(labels + rng.normal(0, 0.5, labels.shape), name=f"squares {i}"), Volume(labels)))
    return made


def test_the_kept_model_has_its_score_on_all_that_was_held_out(pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(score, "LEAST_VOXELS", 400)
    settings = settings_of(steps_per_epoch=4, batch=1, steps=12)
    data = prepare_data(pairs, settings, settings.planned_patch)
    part = score.part_to_score(data, settings)
    assert sum(prod(each.image.shape) for each in part) < prod(data.hold_out[0].image.shape) / 4
    (tmp_path / "run").mkdir()
    events = list(loop.steps(pairs, settings, training_files(tmp_path / "run")))
    model = load_model(tmp_path / "run" / MODEL, SegmentSettings(device="cpu"))
    whole, by_class = dice_on(data.hold_out, model, data.classes)
    card = read_card(tmp_path / "run" / MODEL)
    assert card.scores["hold_out_dice"] == pytest.approx(whole)
    assert card.scores["hold_out_dice_2"] == pytest.approx(by_class["2"])
    last = [event for event in events if isinstance(event, CheckpointSaved)][-1]
    assert last.dice == pytest.approx(whole)
    looks = {event.step: event.dice for event in events if isinstance(event, EpochDone)}
    assert looks[last.step] == max(looks.values()) or last.step == 12  # the best on the part, or as good and the last


def test_what_is_said_of_ignored_voxels_does_not_count():
    image = np.array([1.0, 1, -1, -1, 1, -1]).reshape(1, 1, 1, 6)  # the network says 0 0 1 1 0 1
    target = np.array([0, 1, 1, 0, IGNORE, IGNORE], np.uint8).reshape(1, 1, 6)
    region = Region(Volume(image), target, RAW)
    mean, by_class = dice_on([region], pointwise_model(patch=(1, 1, 6)), Classes((0, 1), (0, 1)))
    assert by_class["1"] == 2 * 1 / (2 + 2)  # one of two, of which there are two
    assert mean == by_class["1"]


def pieces(*of_class_1):
    """Counts of parts with (intersection, sum) of class 1."""
    return np.array([[[0, one], [0, both]] for one, both in of_class_1], float)


def test_the_error_of_a_difference_is_that_of_leaving_out_each_part():
    classes = Classes((0, 1), (0, 1))
    one, other = pieces((4, 8), (2, 8), (0, 0)), pieces((4, 8), (4, 8), (0, 0))
    # Dice 12/16 and 1; without the first part 1/2 and 1, without the second 1 and 1: differences -1/2 and 0.
    assert mean_dice(one, classes) == (0.75, {"1": 0.75})
    assert standard_error(one, other, classes) == pytest.approx(np.sqrt((2 - 1) * 0.25**2))
    assert standard_error(one, one, classes) == 0
    assert standard_error(one[:1], other[:1], classes) == 0  # one part tells nothing about others


def test_parts_add_up_to_the_whole():
    rng = np.random.default_rng(0)
    image, target = rng.normal(size=(1, 3, 9, 7)), rng.integers(0, 2, (3, 9, 7)).astype(np.uint8)
    model, classes = pointwise_model(patch=(1, 9, 7)), Classes((0, 1), (0, 1))
    counts = counts_on([Region(Volume(image), target, RAW)], model, classes)
    predicted = image[0] < 0  # as the model above says
    assert counts.shape == (16, 2, 2)
    assert counts[:, 0, 1].sum() == (predicted & (target == 1)).sum()
    assert counts[:, 1, 1].sum() == predicted.sum() + (target == 1).sum()
    corner = (slice(None), slice(0, 2), slice(0, 1))  # a quarter of 9 and of 7, rounded down
    assert counts[0, 0, 1] == (predicted & (target == 1))[corner].sum()


def scored(monkeypatch, of_best, of_last):
    """Choose between a best model of step 3 and the last one of step 8, which give these counts."""
    told = iter([of_best, of_last])
    monkeypatch.setattr(validation, "counts_on", lambda *_: next(told))
    network = torch.nn.Linear(1, 1)
    best = Best({name: torch.zeros_like(tensor) for name, tensor in network.state_dict().items()}, 3, 0.9, 3)
    run = SimpleNamespace(best=best, ema=None, model=SimpleNamespace(network=network), group=SINGLE)
    run.data = SimpleNamespace(hold_out=[], classes=Classes((0, 1), (0, 1)))
    run.schedule = SimpleNamespace(step=8, over=True)
    return run, validation._last_if_as_good(run)


def test_the_last_model_is_kept_unless_the_best_one_is_better_by_more_than_chance(monkeypatch):
    even, uneven = pieces((3, 8), (3, 8), (3, 8), (3, 8)), pieces((4, 8), (1, 8), (4, 8), (3, 8))
    run, last = scored(monkeypatch, pieces((4, 8), (4, 8), (4, 8), (4, 8)), even)
    assert last is None  # better by 1/4 in each part
    run, last = scored(monkeypatch, even, uneven)
    assert (last.step, last.dice, last.scores) == (8, 0.75, {"1": 0.75})  # no worse
    assert all(torch.equal(last.weights[name], t) for name, t in run.model.network.state_dict().items())
    run, last = scored(monkeypatch, pieces((4, 8), (3, 8), (4, 8), (3, 8)), pieces((4, 8), (1, 8), (4, 8), (4, 8)))
    assert last is not None  # better by 1/16, but only in one of four parts


def test_a_small_hold_out_is_scored_whole_each_time(pairs, tmp_path):
    settings = settings_of()
    data = prepare_data(pairs, settings, settings.planned_patch)
    assert score.part_to_score(data, settings) == data.hold_out
    events = train(pairs[0], settings, tmp_path / "run")
    saved = [event for event in events if isinstance(event, CheckpointSaved)]
    assert len({event.step for event in saved}) == len(saved)
