"""A training on strokes keeps to the answers of the model that it starts from where nothing is painted."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_continue import notices
from test_training_loop import TINY, squares, train

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.images.pairs import Pair
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.model.card import ObjectsLearnt, read_card
from napari_unetvnet.runs.folder import MODEL, training_files
from napari_unetvnet.settings import TrainJob, TrainSettings, checked
from napari_unetvnet.training import distillation, loop
from napari_unetvnet.training.distillation import DOUBTED, Teacher
from napari_unetvnet.training.plan import plan

FILES = {"image": ("a.tif",), "label": ("b.tif",)}
WIDE = 2 * DOUBTED + 20


def teacher(head, answers, weight=1.0):
    """A teacher with the same answers whatever it sees."""
    network = torch.nn.Identity()
    outputs = SimpleNamespace(logits=answers)
    model = SimpleNamespace(
        network=network, card=SimpleNamespace(head=head), supervised=lambda images: (outputs, images)
    )
    return Teacher(model, weight)


def test_the_loss_is_the_cross_entropy_with_the_probabilities_of_the_teacher():
    answers, logits = torch.full((1, 1, 1, 2, 2), 1.0), torch.full((1, 1, 1, 2, 2), -0.5)
    target = torch.full((1, 1, 2, 2), IGNORE, dtype=torch.uint8)
    p, q = 1 / (1 + np.exp(-1.0)), 1 / (1 + np.exp(0.5))
    by_hand = -(p * np.log(q) + (1 - p) * np.log(1 - q))
    assert float(teacher("binary", answers, 2.0).loss(answers, logits, target)) == pytest.approx(2 * by_hand)
    three = torch.tensor([2.0, 0.0, -1.0]).reshape(1, 3, 1, 1, 1).expand(1, 3, 1, 2, 2)
    p = np.exp([2, 0, -1]) / np.exp([2, 0, -1]).sum()
    found = teacher("multiclass", three).loss(three, torch.zeros(1, 3, 1, 2, 2), target)
    assert float(found) == pytest.approx(-(p * np.log(1 / 3)).sum())


def test_neither_labelled_voxels_nor_those_around_a_correction_count():
    answers, target = torch.full((1, 1, 1, 1, WIDE), 3.0), torch.full((1, 1, 1, WIDE), IGNORE, dtype=torch.uint8)
    logits = torch.zeros((1, 1, 1, 1, WIDE), requires_grad=True)
    target[..., 0] = 0  # the teacher says 1
    target[..., -1] = 1  # it says so, too
    teacher("binary", answers).loss(answers, logits, target).backward()
    counts = np.flatnonzero(logits.grad.numpy()).tolist()
    assert counts == list(range(DOUBTED + 1, WIDE - 1))
    whole = torch.zeros_like(target)
    assert float(teacher("binary", answers).loss(answers, logits, whole).detach()) == 0


def test_beside_an_error_another_answer_still_counts():
    answers, target = torch.full((1, 1, 1, 1, WIDE), 3.0), torch.full((1, 1, 1, WIDE), IGNORE, dtype=torch.uint8)
    answers[..., 5:8] = -3.0
    logits = torch.zeros((1, 1, 1, 1, WIDE), requires_grad=True)
    target[..., 0] = 0  # the teacher says 1
    teacher("binary", answers).loss(answers, logits, target).backward()
    assert np.flatnonzero(logits.grad.numpy()).tolist() == [5, 6, 7, *range(DOUBTED + 1, WIDE)]
    three = torch.cat([answers, -answers, torch.zeros_like(answers)], 1)  # class 0, from 5 to 8 class 1
    logits = torch.zeros((1, 3, 1, 1, WIDE), requires_grad=True)
    target[..., 0] = 2
    teacher("multiclass", three).loss(answers, logits, target).backward()
    assert np.flatnonzero(logits.grad.numpy()[0, 0]).tolist() == [5, 6, 7, *range(DOUBTED + 1, WIDE)]


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    folder = tmp_path_factory.mktemp("first") / "run"
    train(folder, steps=40, learning_rate=0.01)
    return folder / MODEL


def corrected():
    """Squares with two strokes that call a part of the background, and of a square, the other class."""
    whole = squares()
    truth, painted = whole.labels.data[0, 0], np.zeros((1, 1, 64, 64), np.uint8)
    for value in (0, 1):
        y, x = np.argwhere(truth[:48, :48] == value)[5]
        painted[0, 0, y : y + 3, x : x + 3] = 2 - value
    return Pair(whole.image, Volume(painted)), truth


def changed(first, folder, **changes):
    """Give the share of voxels without strokes whose class a training on corrections changed."""
    from test_frequencies import labelled

    pair, _ = corrected()
    strokes = {"unlabelled": "ignore", "background": 1, "hold_out": 0, "steps": 60, "learning_rate": 0.01}
    events = train(folder, pair, start_from=first, **strokes, **changes)
    after, before = labelled(folder / MODEL, pair) == 2, labelled(first, pair) == 1
    return (after != before)[pair.labels.data[0] == 0].mean(), events


def test_corrections_leave_the_rest_as_it_was(first, tmp_path, monkeypatch):
    monkeypatch.setattr(distillation, "DOUBTED", 4)
    alone, _ = changed(first, tmp_path / "alone")
    kept, _ = changed(first, tmp_path / "kept", distillation=3.0)
    assert kept < alone / 2


def test_a_model_that_follows_one_of_single_objects_gives_them_too(first):
    card, objects = read_card(first), ObjectsLearnt(rule="watershed", count=9, voxels=(20, 50, 90), split_edges=2)
    network, own = torch.nn.Identity(), card.model_copy(update={"objects": objects})
    kept = Teacher(SimpleNamespace(network=network, card=own), 1.0).noted_in(card)
    assert (kept.objects, kept.distilled) == (objects, True)
    other = objects.model_copy(update={"count": 3})
    kept = Teacher(SimpleNamespace(network=network, card=own), 1.0).noted_in(card.model_copy(update={"objects": other}))
    assert kept.objects == other  # what it was trained on itself


def test_it_is_resumed_to_the_same_bytes(first, tmp_path):
    pair, _ = corrected()
    strokes = {"unlabelled": "ignore", "background": 1, "hold_out": 0, "distillation": 1.0, "start_from": first}
    train(tmp_path / "whole", pair, **strokes)
    settings, files = checked(TrainSettings, TINY | strokes), training_files(tmp_path / "parts")
    (tmp_path / "parts").mkdir()
    work = loop.steps([pair], settings, files)
    assert any(getattr(event, "step", 0) == 46 for event in work)
    work.close()
    list(loop.steps([pair], settings, files, resume=True))
    assert (tmp_path / "whole" / MODEL).read_bytes() == (tmp_path / "parts" / MODEL).read_bytes()


def test_what_cannot_be_followed_is_told(first, tmp_path):
    pair, _ = corrected()
    strokes = {"unlabelled": "ignore", "background": 1, "hold_out": 0, "distillation": 1.0, "steps": 1}
    events = train(tmp_path / "none", pair, **strokes)
    assert any("no model to start from" in text for text in notices(events))
    events = train(tmp_path / "other", pair, start_from=first, normalise="percentile", **strokes)
    assert any("is not followed" in text for text in notices(events))


def planned(start, pair, **values):
    chosen = plan([pair], checked(TrainJob, {"start_from": start, **values} | FILES), "cpu").settings
    return chosen.distillation, chosen.learning_rate


def test_the_plan_keeps_what_a_model_knows_where_strokes_correct_it(first, tmp_path):
    pair, _ = corrected()
    elsewhere = Pair(Volume(np.asarray(pair.image.data)[..., ::-1].copy()), Volume(pair.labels.data[..., ::-1].copy()))
    strokes = {"unlabelled": "ignore", "background": 1}
    assert planned(first, elsewhere, **strokes) == (1.0, pytest.approx(2e-4))
    assert planned(first, pair, **strokes) == (0.0, None)  # it learnt from this image: the training goes on
    assert planned(first, squares(seed=1), unlabelled="background") == (0.0, None)
    # A model that has been corrected is corrected again.
    train(tmp_path / "run", elsewhere, start_from=first, hold_out=0, steps=1, distillation=1.0, **strokes)
    assert planned(tmp_path / "run" / MODEL, elsewhere, **strokes) == (1.0, pytest.approx(2e-4))
