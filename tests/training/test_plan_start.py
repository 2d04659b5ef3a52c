"""Auto starts from a shipped model only where its labels agree with those of the training, and nothing forbids it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from combinations import in_one_case
from test_training_loop import squares, train

from napari_unetvnet.events import Notice, StartScored
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.model.card import read_card
from napari_unetvnet.runs.folder import MODEL
from napari_unetvnet.settings import TrainJob, TrainSettings, checked
from napari_unetvnet.training.plan import plan, start

AUTO = {"image": "squares.npy", "label": "labels.npy", "device": "cpu", "unlabelled": "background"}


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """A model that has learnt the squares."""
    folder = tmp_path_factory.mktemp("shipped") / "run"
    train(folder, steps=60, learning_rate=0.01)
    return folder / MODEL


@pytest.fixture(autouse=True)
def only_it(monkeypatch, shipped):
    monkeypatch.setattr(start, "shipped_models", lambda: {"squares": shipped})


def planned(pair, kind=TrainJob, **chosen):
    made = plan([pair], checked(kind, (AUTO if kind is TrainJob else {}) | chosen), "cpu")
    return made, {choice.name: choice.reason for choice in made.choices}


def other_squares(**changes):
    """The same kind of image, which the model has not seen."""
    pair = squares(seed=7)
    return replace(pair, **changes)


def test_a_model_that_agrees_with_the_labels_is_chosen_with_its_network_and_told(shipped):
    made, reasons = planned(other_squares())
    assert made.settings.start_from == shipped
    assert (made.settings.network, made.settings.option["width"]) == ("unet3d_ds", 4)
    assert "agrees with your labels, Dice " in reasons["start_from"]
    assert f"starting from the model {shipped.stem}" in made.text
    assert "its own training" not in reasons["start_from"]


def test_strokes_of_other_values_are_enough(shipped):
    pair = other_squares()
    truth, strokes = pair.labels.data, np.zeros_like(pair.labels.data)
    strokes[..., ::9, :] = np.where(truth[..., ::9, :] > 0, 5, 3)
    strokes = Volume(strokes)
    made, _ = planned(replace(pair, labels=strokes), unlabelled="ignore", background=3)
    assert made.settings.start_from == shipped


def test_a_few_strokes_correct_a_model_that_agrees(shipped):
    pair = other_squares()
    truth, strokes = pair.labels.data, np.zeros_like(pair.labels.data)
    strokes[..., 5::30, :] = np.where(truth[..., 5::30, :] > 0, 2, 1)
    assert 0 < (strokes > 0).mean() < 0.05
    made, _ = planned(replace(pair, labels=Volume(strokes)), unlabelled="ignore", background=1)
    assert made.settings.start_from == shipped
    assert made.settings.distillation == start.FOLLOWED
    assert made.settings.learning_rate < checked(TrainSettings, {}).peak_rate
    assert "to learn your strokes and keep its answers where nothing is painted" in made.text


def test_of_a_large_image_the_part_with_most_labels_is_tried(shipped, monkeypatch):
    monkeypatch.setattr(start, "PART", {2: (1, 40, 32)})
    pair = other_squares()
    labels = pair.labels.data.copy()
    labels[..., :24] = 0
    part = start._part(replace(pair, labels=Volume(labels)), 2)
    assert part.image.shape == part.labels.shape == (1, 40, 32)
    assert (part.labels.data > 0).sum() > 0.6 * (labels > 0).sum()
    assert planned(pair)[0].settings.start_from == shipped


def test_images_of_its_own_training_are_told():
    _, reasons = planned(squares())
    assert reasons["start_from"].endswith("images of its own training")


@in_one_case("what", ["rows", "all", "three classes"])
def test_labels_of_something_else_are_learnt_anew(what):
    labels = np.zeros((1, 1, 64, 64), np.uint8)
    labels[..., ::2, :] = 1
    if what == "all":  # a model that says "all is foreground" would score well
        labels = np.where(np.random.default_rng(0).random(labels.shape) < 0.95, 1, 0).astype(np.uint8)
    if what == "three classes":
        labels = squares(3, seed=7).labels.data
    made, _ = planned(other_squares(labels=Volume(labels)))
    assert made.settings.start_from is None
    assert made.settings.network == "unet_padding"


@in_one_case(
    "chosen",
    [
        {"start_from": "none"},
        {"network": "unet_padding"},
        {"view": "3d"},
        {"normalise": "percentile"},
        {"option": {"width": 8}, "network": "unet3d_ds"},
        {"head": "multiclass"},
    ],
)
def test_what_is_set_otherwise_stays(chosen):
    made, _ = planned(other_squares(), **chosen)
    assert made.settings.start_from is None


def test_images_unlike_those_of_its_training_are_not_tried():
    pair = other_squares()
    bright = Volume(-pair.image.data, name="bright")
    assert planned(replace(pair, image=bright))[0].settings.start_from is None
    colour = Volume(np.concatenate([pair.image.data] * 3))
    assert planned(replace(pair, image=colour))[0].settings.start_from is None


def test_settings_of_a_script_begin_at_random():
    assert planned(other_squares(), TrainSettings)[0].settings.start_from is None


def test_classes_of_other_values_are_compared_in_their_order(shipped, tmp_path):
    pair = squares()
    pair = replace(pair, labels=Volume(pair.labels.data * 4))
    events = train(tmp_path / "run", pair, start_from=shipped, steps=4)
    texts = [event.text for event in events if isinstance(event, Notice)]
    assert any("taken in order, label 1 as 4" in text for text in texts)
    assert not any("cannot be compared" in text for text in texts)
    (scored,) = [event for event in events if isinstance(event, StartScored)]
    assert scored.dice > 0.5
    assert read_card(tmp_path / "run" / MODEL).values == (0, 4)
