"""What a resumed run compares with its start: images, labels, classes, network, settings."""

from __future__ import annotations

import json

import numpy as np
import pytest
from test_delivery import TINY

from napari_unetvnet import runs
from napari_unetvnet.errors import FileProblem, RunProblem
from napari_unetvnet.events import EpochDone, Notice, SplitMade, StepDone
from napari_unetvnet.model.card import read_card
from napari_unetvnet.runs.folder import JOB, MODEL, PROVENANCE
from napari_unetvnet.settings import TrainJob, checked


@pytest.fixture
def files(tmp_path):
    """Three images of squares with labels 1 and 2, and a run that was stopped after step 8 of 12."""
    rng = np.random.default_rng(0)
    for name in "abc":
        labels = np.zeros((48, 48), np.uint8)
        for i, (y, x) in enumerate(rng.integers(0, 40, (10, 2))):
            labels[y : y + 8, x : x + 8] = 1 + i % 2
        np.save(tmp_path / f"{name}.npy", labels + rng.normal(0, 0.3, labels.shape))
        np.save(tmp_path / f"{name}_labels.npy", labels)
    return tmp_path


def start(files, names="a", name="run", stop=8, **changes):
    folder = files / name
    folder.mkdir()
    sources = {"image": [str(files / f"{n}.npy") for n in names]}
    sources["label"] = [str(files / f"{n}_labels.npy") for n in names]
    runs.create(folder, checked(TrainJob, TINY | sources | {"steps": 12, "learning_rate": 0.02} | changes))
    events = runs.run(folder)
    seen = [next(events)]
    while not (isinstance(seen[-1], StepDone) and seen[-1].step == stop):
        seen.append(next(events))
    events.close()
    return folder, seen


def edit(folder, **changes):
    job = json.loads((folder / JOB).read_text())
    (folder / JOB).write_text(json.dumps(job | changes))


def resume(folder):
    return list(runs.run(folder, resume=True))


def notices(events):
    return [event.text for event in events if isinstance(event, Notice)]


def splits(events):
    return [event for event in events if isinstance(event, SplitMade)]


def test_changed_labels_are_named_and_the_best_model_is_scored_on_them_again(files):
    folder, before = start(files)
    best = read_card(folder / MODEL)
    labels = np.load(files / "a_labels.npy")
    labels[:24][labels[:24] == 1] = 2
    np.save(files / "a_labels.npy", labels)
    events = resume(folder)
    told = notices(events)
    assert any(text.startswith(f"Changed since step 8: {files / 'a_labels.npy'}.") for text in told)
    again = next(text for text in told if "scored on it again" in text)
    assert f"before {best.scores['hold_out_dice']:.3f}." in again
    assert [s.held_out for s in splits(events)] == [s.held_out for s in splits(before)]
    rescored = float(again.split("Dice ")[1].split(",")[0])
    epochs = [event.dice for event in events if isinstance(event, EpochDone)]
    card = read_card(folder / MODEL)
    assert card.scores["hold_out_dice"] == pytest.approx(max(rescored, *epochs), abs=5e-4)
    assert card.images[0].held_out == best.images[0].held_out
    inputs = [text.split("sha256 ")[1] for text in card.inputs.split("; until step 8 ")[:1]]
    assert inputs != [best.inputs.split("sha256 ")[1]]
    assert card.inputs.endswith("; until step 8 sha256 " + best.inputs.split("sha256 ")[1])
    record = json.loads((folder / PROVENANCE).read_text())
    assert [each["until_step"] for each in record["earlier"]] == [8]
    assert not any("Changed" in text or "again" in text for text in notices(resume(folder))), "told once"


def test_the_hold_out_stays_whatever_is_painted_elsewhere(files):
    folder, before = start(files)
    mark = splits(before)[0].held_out[0]
    labels = np.load(files / "a_labels.npy")
    outside = np.ones(labels.shape, bool)
    outside[mark[1] : mark[4], mark[2] : mark[5]] = False
    labels[outside & (labels == 1)] = 2
    labels[outside & (np.arange(48) % 5 == 0)] = 1
    np.save(files / "a_labels.npy", labels)
    events = resume(folder)
    assert [s.held_out for s in splits(events)] == [s.held_out for s in splits(before)]
    assert any("a_labels.npy" in text for text in notices(events))


def test_images_are_known_by_content(files):
    """Order and place may change; others are refused by name, and a moved one with what to do."""
    whole, _ = start(files, "abc", "whole", stop=12)
    resume(whole)
    folder, before = start(files, "abc")
    (files / "moved").mkdir()
    (files / "b.npy").rename(files / "moved" / "b.npy")
    with pytest.raises(FileProblem, match=r"b\.npy[\s\S]*write its new place into .*job\.json"):
        resume(folder)
    places = [files / "c.npy", files / "a.npy", files / "moved" / "b.npy"]
    labels = [str(files / f"{name}_labels.npy") for name in "cab"]
    edit(folder, image=list(map(str, places)), label=labels)
    events = resume(folder)
    assert splits(events) == splits(before)
    a, b = ((each / MODEL).read_bytes().split(b"}}", 1)[1] for each in (whole, folder))
    assert a == b, "the same weights"
    edit(folder, image=list(map(str, places[:2])), label=labels[:2])
    with pytest.raises(RunProblem, match=r"with other images: b\.npy is missing\..*--start-from"):
        resume(folder)
    np.save(files / "a.npy", np.load(files / "a.npy") + 1)
    edit(folder, image=list(map(str, places)), label=labels)
    with pytest.raises(RunProblem, match=r"a\.npy has changed"):
        resume(folder)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda labels: np.where(labels == 2, 7, labels), "label values of the classes are 0 1 7 instead of 0 1 2"),
        (lambda labels: np.where(labels == 2, 0, labels), "label values of the classes are 0 1 instead of 0 1 2"),
        (
            lambda labels: np.where(np.indices(labels.shape)[0] % 6 == 0, 3, labels),
            "label values of the classes are 0 1 2 3 instead of 0 1 2",
        ),
        ({"option": {"width": 3, "depth": 2}}, "option width is 3 instead of 2"),
        ({"network": "unetpp"}, "network is unetpp instead of unet_padding"),
        ({"view": "2.5d", "context": 1}, "view is 2.5d instead of 2d"),
        ({"optimizer": "sgd"}, "optimizer is sgd instead of adamw"),
        ({"ema_decay": 0}, "ema_decay is 0 instead of 0.98"),
    ],
)
def test_another_network_or_other_classes_are_refused_with_the_reason(files, change, reason):
    folder, _ = start(files)
    if callable(change):
        np.save(files / "a_labels.npy", change(np.load(files / "a_labels.npy")).astype(np.uint8))
    else:
        edit(folder, **change)
    with pytest.raises(RunProblem) as caught:
        resume(folder)
    assert reason in str(caught.value)
    assert f"--start-from {folder / MODEL}" in str(caught.value)
    assert len(str(caught.value)) < 500


def test_other_settings_may_change_and_are_told(files):
    folder, before = start(files)
    edit(folder, learning_rate=0.01, hold_out=0.4, seed=5, loss="dice", steps=10)
    events = resume(folder)
    told = next(text for text in notices(events) if text.startswith("Changed after step 8"))
    for words in ("learning_rate is 0.01 instead of 0.02", "hold_out is 0.4 instead of 0.2", "loss is dice instead of"):
        assert words in told
    assert "steps is 10 instead of 12" in told
    assert "The hold-out and the weights to start from stay as they were." in told
    assert [s.held_out for s in splits(events)] == [s.held_out for s in splits(before)]
    assert not any("Changed" in text for text in notices(resume(folder)))
