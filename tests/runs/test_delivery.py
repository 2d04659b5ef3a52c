"""What becomes of a file that is already at the output of a training."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from test_runs import TINY

from napari_unetvnet import runs
from napari_unetvnet.events import Notice, RunFinished, StepDone
from napari_unetvnet.model.card import read_card
from napari_unetvnet.runs.folder import MODEL, REPLACED
from napari_unetvnet.settings import TrainJob, checked
from napari_unetvnet.temporary import TEMPORARY

GOOD = {"steps": 40, "learning_rate": 0.02}
POOR = {"steps": 1, "learning_rate": 1e-9}
BAD = {"steps": 8, "learning_rate": 10, "optimizer": "sgd"}


@pytest.fixture
def files(tmp_path):
    """An image of squares and its labels, once with one class and once with two."""
    rng = np.random.default_rng(0)
    labels = np.zeros((48, 48), np.uint8)
    for i, (y, x) in enumerate(rng.integers(0, 40, (12, 2))):
        labels[y : y + 8, x : x + 8] = 1 + i % 2
    np.save(tmp_path / "image.npy", (labels > 0) + rng.normal(0, 0.3, labels.shape))
    np.save(tmp_path / "two.npy", labels)
    np.save(tmp_path / "labels.npy", (labels > 0).astype(np.uint8))
    return tmp_path


def job(files, **changes):
    values = TINY | {"image": files / "image.npy", "label": files / "labels.npy", "output": files / "out.safetensors"}
    return checked(TrainJob, {name: str(v) if hasattr(v, "parent") else v for name, v in (values | changes).items()})


def begin(files, name, **changes):
    (files / name).mkdir()
    runs.create(files / name, job(files, **changes))
    return runs.run(files / name)


def train(files, name, **changes):
    """Train, and give the place of the model and what is said about other models."""
    return ended(begin(files, name, **changes))


def ended(events):
    events = list(events)
    texts = [event.text for event in events if isinstance(event, Notice) and "safetensors" in event.text]
    told = [
        text
        for text in texts
        if not text.startswith("The run keeps") and "Held out" not in text and "copied" not in text
    ]
    assert isinstance(events[-1], RunFinished)
    return events[-1].results["model"], told


def dice(model):
    return read_card(model).scores["hold_out_dice"]


def test_a_worse_model_is_written_beside_and_a_better_one_keeps_what_it_replaces(files):
    out, second = files / "out.safetensors", str(files / "out-2.safetensors")
    assert train(files, "good", **GOOD) == (str(out), [])
    good = out.read_bytes()
    place, told = train(files, "poor", **POOR)
    assert (place, out.read_bytes()) == (second, good)
    scores = f"Dice {dice(out):.3f} on the hold-out of this training, the new one {dice(second):.3f}"
    assert told == [f"{out} was left as it is, because its model is better: {scores}. The new model is {second}."]
    out.write_bytes(poor := (files / "poor" / MODEL).read_bytes())
    place, told = train(files, "better", **GOOD)
    assert (place, out.read_bytes()) == (str(out), (files / "better" / MODEL).read_bytes())
    assert (files / "better" / REPLACED).read_bytes() == poor
    assert len(told) == 1
    assert f"{out} was replaced" in told[0]
    assert str(files / "better" / REPLACED) in told[0]
    assert train(files, "again", **GOOD) == (str(out), []), "the same model"


def test_a_start_that_is_not_improved_stays_as_it_is(files):
    out = files / "out.safetensors"
    train(files, "good", **GOOD)
    good = out.read_bytes()
    place, told = train(files, "bad", start_from=out, **BAD)
    assert (place, out.read_bytes()) == (str(out), good)
    assert told == [
        f"None of the 8 steps scored better on the hold-out than {out} (Dice {dice(out):.3f}), so the result is that "
        "model, unchanged."
    ]
    assert not list(files.glob("out-*"))
    place, told = train(files, "other", start_from=out, label=files / "two.npy", **POOR)
    assert (place, out.read_bytes()) == (str(files / "out-2.safetensors"), good), "another question"
    assert "label values of the classes are 0 1 2 instead of 0 1" in told[-1]


@pytest.mark.parametrize("kind", ["other classes", "no model", "no hold-out"])
def test_what_cannot_be_compared_is_not_replaced(files, kind):
    out, changes = files / "out.safetensors", {"hold_out": 0} if kind == "no hold-out" else {}
    if kind == "no model":
        out.write_bytes(b"notes of a person")
    else:
        train(files, "first", **POOR | ({"label": files / "two.npy"} if kind == "other classes" else {}))
    before = out.read_bytes()
    place, told = train(files, "second", **GOOD | changes)
    assert (place, out.read_bytes()) == (str(files / "out-2.safetensors"), before)
    reasons = {"other classes": "label values", "no model": "not a model file", "no hold-out": "nothing is held out"}
    assert reasons[kind] in told[-1]


def test_of_two_trainings_at_once_none_is_lost(files):
    slow = begin(files, "slow", **GOOD)
    assert any(isinstance(event, StepDone) for event in slow)
    first, told = train(files, "quick", **POOR)
    assert told[0].startswith(f"Another run is writing {files / 'out.safetensors'}, too.")
    place, told = ended(slow)
    assert (first, place) == (str(files / "out.safetensors"), str(files / "out-2.safetensors"))
    assert "was written since this training began" in told[-1]
    assert dice(first) < dice(place)


def _of_a_dead_process(path):
    """Write what a process leaves that is killed after its file is in place."""
    code = "import sys, pathlib, napari_unetvnet.temporary as t; t.beside(pathlib.Path(sys.argv[1])).touch()"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    (stray,) = path.parent.glob(f"{TEMPORARY}*")
    return stray


def test_a_resumed_run_replaces_what_it_wrote_itself(files):
    out = files / "out.safetensors"
    events = begin(files, "run", **GOOD)
    assert any(isinstance(event, StepDone) and event.step == 5 for event in events)
    events.close()
    assert out.exists()
    stray = _of_a_dead_process(out)
    assert ended(runs.run(files / "run", resume=True)) == (str(out), [])
    assert out.read_bytes() == (files / "run" / MODEL).read_bytes()
    assert not stray.exists(), "although nothing was left to write"
    out.write_bytes(b"changed by a person")
    place, told = ended(runs.run(files / "run", resume=True, budget={"steps": 44}))
    assert (place, out.read_bytes()) == (str(files / "out-2.safetensors"), b"changed by a person")
    assert len(told) == 1
