"""The loop: repeatable, resumable, stoppable at any step, and it learns."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from combinations import in_turn, pairs
from hypothesis import given
from hypothesis import strategies as st

from napari_unetvnet.errors import ModelProblem, RunProblem, SettingsProblem
from napari_unetvnet.events import CheckpointSaved, EpochDone, Notice, StepDone
from napari_unetvnet.images.pairs import Pair
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.inference import steps as segment
from napari_unetvnet.metrics import evaluate
from napari_unetvnet.model.card import read_card
from napari_unetvnet.model.model import load_model
from napari_unetvnet.runs.folder import MODEL, STATE, training_files
from napari_unetvnet.settings import SegmentSettings, TrainSettings, checked
from napari_unetvnet.training import build, loop
from napari_unetvnet.training.schedule import Schedule

TINY = {
    "option": {"width": 2, "depth": 2},
    "patch": (1, 16, 16),
    "batch": 2,
    "steps_per_epoch": 4,
    "steps": 10,
    "device": "cpu",
    "unlabelled": "ignore",
    "background": 1,
}


def settings_of(**changes):
    values = TINY | changes
    if {"minutes", "epochs"} & set(changes):
        values.pop("steps")
    return checked(TrainSettings, values)


@pytest.fixture(scope="module")
def pair():
    """Bright squares on noise, painted all over: 1 background, 2 square."""
    rng = np.random.default_rng(0)
    labels = np.ones((1, 1, 64, 64), np.uint8)
    for y, x in rng.integers(0, 56, (12, 2)):
        labels[0, 0, y : y + 8, x : x + 8] = 2
    return Pair(Volume(labels + rng.normal(0, 0.3, labels.shape), name="squares"), Volume(labels))


def train(pair, settings, folder, **kwargs):
    folder.mkdir(exist_ok=True)
    return list(loop.steps([pair], settings, training_files(folder), **kwargs))


def model_bytes(folder):
    return (folder / MODEL).read_bytes()


@given(st.integers(2, 5000), st.floats(1e-5, 1))
def test_the_rate_warms_up_stays_and_falls_to_zero(total, peak):
    schedule = Schedule(peak, None, total)
    rates = []
    while not schedule.over:
        rates.append(schedule.rate())
        schedule.step += 1
    assert len(rates) == total
    assert min(rates) > 0
    assert max(rates) <= peak * (1 + 1e-9)
    if total > 20:
        assert rates[10] == peak
        assert rates[-1] <= peak / (total * 0.3) * 1.01


@given(st.lists(st.floats(0.01, 5), min_size=2, max_size=200), st.floats(0.01, 1))
def test_a_time_budget_gives_the_rates_of_the_number_of_steps_that_it_ends_with(durations, minutes):
    timed = Schedule(1.0, minutes, None)
    rates = []
    while not timed.over:
        rates.append(timed.rate())
        timed.seconds += durations[timed.step % len(durations)]
        timed.step += 1
    counted = Schedule(1.0, None, timed.step)
    again = []
    while not counted.over:
        again.append(counted.rate())
        counted.step += 1
    assert rates == again


def test_same_seed_same_bytes_other_seed_other_bytes(pair, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(pair, settings_of(seed=seed), tmp_path / name)
    assert model_bytes(tmp_path / "a") == model_bytes(tmp_path / "b")
    assert model_bytes(tmp_path / "a") != model_bytes(tmp_path / "c")


def test_minutes_and_the_steps_they_took_make_the_same_model(pair, tmp_path):
    train(pair, settings_of(minutes=0.02), tmp_path / "timed")
    steps = read_card(tmp_path / "timed" / MODEL).steps
    assert steps > 4
    train(pair, settings_of(steps=steps), tmp_path / "counted")
    assert model_bytes(tmp_path / "timed") == model_bytes(tmp_path / "counted")


@pytest.mark.alone
def test_a_time_budget_is_held(pair, tmp_path):
    begin = time.monotonic()
    train(pair, settings_of(minutes=0.05), tmp_path / "run")
    assert 2 < time.monotonic() - begin < 7


def test_events_tell_the_course(pair, tmp_path):
    events = train(pair, settings_of(), tmp_path / "run")
    assert "Held out of squares" in next(e.text for e in events if isinstance(e, Notice))
    assert [e.step for e in events if isinstance(e, StepDone)] == list(range(1, 11))
    epochs = [e for e in events if isinstance(e, EpochDone)]
    assert [(e.epoch, e.step) for e in epochs] == [(1, 4), (2, 8), (3, 10)]
    assert all(0 <= e.dice <= 1 for e in epochs)
    best = [e for e in events if isinstance(e, CheckpointSaved)][-1]
    assert best.dice == max(e.dice for e in epochs)
    card = read_card(tmp_path / "run" / MODEL)
    assert card.scores["hold_out_dice"] == best.dice
    assert (card.steps, card.values) == (10, (0, 2))


def test_stopping_in_the_first_epoch_leaves_a_model_that_loads(pair, tmp_path):
    (tmp_path / "run").mkdir()
    work = loop.steps([pair], settings_of(), training_files(tmp_path / "run"))
    assert any(isinstance(event, StepDone) and event.step == 2 for event in work)
    work.close()
    model = load_model(tmp_path / "run" / MODEL, SegmentSettings(device="cpu"))
    assert model.card.steps == 2


def test_stopping_before_the_first_step_leaves_nothing(pair, tmp_path):
    (tmp_path / "run").mkdir()
    work = loop.steps([pair], settings_of(), training_files(tmp_path / "run"))
    next(work)
    work.close()
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.parametrize(("stop_at", "network"), in_turn([3, 4, 6], ["unet_original", "unet_padding"]))
def test_a_resumed_run_ends_with_the_same_bytes_as_an_uninterrupted_one(pair, tmp_path, stop_at, network):
    chosen = settings_of(network=network)  # the original has dropout
    train(pair, chosen, tmp_path / "whole")
    (tmp_path / "parts").mkdir()
    work = loop.steps([pair], chosen, training_files(tmp_path / "parts"))
    assert any(isinstance(event, StepDone) and event.step == stop_at for event in work)
    work.close()
    events = train(pair, chosen, tmp_path / "parts", resume=True)
    assert next(e.step for e in events if isinstance(e, StepDone)) == stop_at + 1
    assert model_bytes(tmp_path / "whole") == model_bytes(tmp_path / "parts")


def test_a_cut_off_state_is_refused_with_a_sentence(pair, tmp_path):
    train(pair, settings_of(), tmp_path / "run")
    last = tmp_path / "run" / STATE
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(RunProblem, match="cut off or of another run"):
        train(pair, settings_of(), tmp_path / "run", resume=True)


def test_ignored_voxels_change_nothing(pair, tmp_path):
    """Half of the labels unpainted: what the hidden half would have been cannot matter."""
    models = []
    for hidden in (1, 2):
        labels = np.full_like(np.asarray(pair.labels.data), 0)
        labels[..., :32] = pair.labels.data[..., :32]
        truth = labels.copy()
        truth[..., 32:] = hidden
        half = Pair(pair.image, Volume(labels))
        train(half, settings_of(), tmp_path / str(hidden))
        models.append(model_bytes(tmp_path / str(hidden)))
        train(Pair(pair.image, Volume(truth)), settings_of(), tmp_path / f"all-{hidden}")
    assert models[0] == models[1]
    assert model_bytes(tmp_path / "all-1") != model_bytes(tmp_path / "all-2")


@pytest.mark.parametrize(
    ("network", "view", "loss"),
    pairs(["unet_padding", "unet_original", "unet3d"], ["2d", "2.5d", "3d"], ["dice_ce", "0.5*dice + ce"]),
)
def test_every_network_and_view_trains_and_segments(tmp_path, network, view, loss):
    rng = np.random.default_rng(0)
    shape = (24, 56, 56)
    labels = rng.integers(0, 3, (6, 14, 14)).repeat(4, 0).repeat(4, 1).repeat(4, 2)[None].astype(np.uint8)
    image = Volume(np.stack([labels[0], 2 - labels[0]]) + rng.normal(0, 0.1, (2, *shape)))
    chosen = settings_of(
        network=network, view=view, loss=loss, steps=2, unlabelled="background", background=None,
        patch=(4, 16, 16) if view == "3d" else (1, 16, 16), option={"width": 2, "depth": 2},
    )  # fmt: skip
    train(Pair(image, Volume(labels)), chosen, tmp_path / "run")
    model = load_model(tmp_path / "run" / MODEL, SegmentSettings(device="cpu"))
    out = np.concatenate([slab.labels for slab in segment(model, image, SegmentSettings())])
    assert out.shape == shape
    assert set(np.unique(out)) <= {0, 1, 2}


def test_auxiliary_heads_are_trained_and_change_the_training(pair, tmp_path):
    for levels in (0, 1):
        option = {"width": 2, "depth": 3, "deep_supervision": levels}
        train(pair, settings_of(option=option, steps=4), tmp_path / str(levels))
    weights = [load_model(tmp_path / name / MODEL, SegmentSettings(device="cpu")).network for name in "01"]
    assert sum(p.numel() for p in weights[1].parameters()) > sum(p.numel() for p in weights[0].parameters())
    heads = [p for name, p in weights[1].named_parameters() if "auxiliary" in name and p.ndim == 1]
    assert heads
    assert all((p != 0).all() for p in heads)  # biases begin at 0


def test_training_goes_on_from_a_model_file(pair, tmp_path):
    train(pair, settings_of(), tmp_path / "first")
    start = {"start_from": tmp_path / "first" / MODEL, "learning_rate": 1e-9, "steps": 1}
    train(pair, settings_of(**start), tmp_path / "second")
    first, second = (read_card(tmp_path / name / MODEL).scores["hold_out_dice"] for name in ("first", "second"))
    assert second == pytest.approx(first, abs=0.05)
    with pytest.raises(ModelProblem, match=r"width.*2.*shares no weights with.*width.*3"):
        train(pair, settings_of(**start, option={"width": 3, "depth": 2}), tmp_path / "third")


def test_pretrained_weights_begin_the_training_and_are_not_asked_for_again(pair, tmp_path):
    from safetensors.torch import save_file

    from napari_unetvnet.networks import build_network

    option = {"encoder": "resnet18", "width": 4}
    encoder = build_network("backboned_unet", 2, 1, 1, option).encoder
    save_file(encoder.state_dict(), tmp_path / "encoder.safetensors")
    chosen = {
        "network": "backboned_unet",
        "patch": (1, 64, 64),
        "steps": 1,
        "learning_rate": 1e-12,
        "normalise": "none",
    }
    train(
        pair,
        settings_of(**chosen, option={**option, "weights": str(tmp_path / "encoder.safetensors")}),
        tmp_path / "run",
    )
    (tmp_path / "encoder.safetensors").unlink()
    model = load_model(tmp_path / "run" / MODEL, SegmentSettings(device="cpu"))
    for name, weight in encoder.named_parameters():
        np.testing.assert_allclose(model.network.encoder.get_parameter(name).detach(), weight.detach(), atol=1e-6)


@pytest.mark.parametrize(
    ("view", "shape"), [("2d", (3, 5, 7)), ("2d", (6, 1, 48)), ("2.5d", (1, 1, 9)), ("3d", (1, 20, 24))]
)
def test_an_image_smaller_than_the_network_is_mirrored_and_learnt(view, shape, tmp_path):
    image, labels = np.zeros((1, *shape), np.uint8), np.ones((1, *shape), np.uint8)
    image[..., shape[2] // 2 :], labels[..., shape[2] // 2 :] = 200, 2
    patch = (16, 16, 16) if view == "3d" else (1, 16, 16)
    chosen = {"view": view, "patch": patch}
    chosen |= {"network": "unet3d" if view == "3d" else "unetpp", "option": {"width": 4, "depth": 4}}
    events = train(Pair(Volume(image), Volume(labels)), settings_of(**chosen, steps=2), tmp_path / "run")
    assert any("mirrored at its borders" in event.text for event in events if isinstance(event, Notice))
    model = load_model(tmp_path / "run" / MODEL, SegmentSettings(device="cpu"))
    assert any(a > b for a, b in zip(model.card.patch, shape, strict=True))
    assert {slab.labels.shape[1:] for slab in segment(model, Volume(image), SegmentSettings(device="cpu"))} == {
        shape[1:]
    }


def test_a_loss_that_does_not_fit_the_classes_is_refused(tmp_path):
    labels = Volume(np.arange(3, dtype=np.uint8).repeat(400).reshape(1, 1, 30, 40))
    image = Volume(np.zeros((1, 1, 30, 40)))
    with pytest.raises(SettingsProblem, match="3 classes"):
        train(Pair(image, labels), settings_of(loss="bce", unlabelled="background", background=None), tmp_path / "run")


def test_a_training_that_diverges_says_so_and_leaves_a_model_that_loads(pair, tmp_path, monkeypatch):
    losses = iter([1.0, 1.0, float("nan")])
    monkeypatch.setattr(build, "build_loss", lambda *_, **__: lambda logits, *_, **__: logits.mean() * 0 + next(losses))
    with pytest.raises(RunProblem, match=r"at step 3.*learning rate below 0.002"):
        train(pair, settings_of(), tmp_path / "run")
    assert load_model(tmp_path / "run" / MODEL, SegmentSettings(device="cpu")).card.steps == 2


KILLED = """
import sys, pathlib, numpy as np
sys.path[:0] = {tests!r}
from test_training import *
rng = np.random.default_rng(0)
labels = np.ones((1, 1, 64, 64), np.uint8)
for y, x in rng.integers(0, 56, (12, 2)):
    labels[0, 0, y : y + 8, x : x + 8] = 2
pair = Pair(Volume(labels + rng.normal(0, 0.3, labels.shape), name="squares"), Volume(labels))
for event in loop.steps([pair], settings_of(steps=40), training_files(pathlib.Path({folder!r}))):
    if isinstance(event, StepDone):
        print(event.step, flush=True)
        if event.step > 9:
            import time; time.sleep(60)
"""


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bytes(pair, tmp_path):
    train(pair, settings_of(steps=40), tmp_path / "whole")
    (tmp_path / "killed").mkdir()
    code = KILLED.format(tests=[str(place) for place in Path(__file__).parents[:2]], folder=str(tmp_path / "killed"))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        while child.stdout.readline().strip() != b"10":
            assert child.poll() is None
        child.send_signal(signal.SIGKILL)
    load_model(tmp_path / "killed" / MODEL, SegmentSettings(device="cpu"))
    events = train(pair, settings_of(steps=40), tmp_path / "killed", resume=True)
    assert next(e.step for e in events if isinstance(e, StepDone)) == 9
    assert model_bytes(tmp_path / "whole") == model_bytes(tmp_path / "killed")


@pytest.mark.slow
def test_the_real_image_is_learnt_from_its_painted_half(nuclei, nuclei_objects, painted_half, tmp_path):
    chosen = settings_of(option={"width": 8}, patch=(1, 128, 128), steps=100, steps_per_epoch=25, batch=4)
    train(Pair(nuclei, painted_half), chosen, tmp_path / "run")
    model = load_model(tmp_path / "run" / MODEL, SegmentSettings(device="cpu"))
    out = np.concatenate([slab.labels for slab in segment(model, nuclei, SegmentSettings())])[0]
    scores = evaluate(out[:, 256:], nuclei_objects[:, 256:], truth_is="objects")
    assert scores.foreground.dice > 0.85
    assert json.loads(json.dumps(scores.as_dict()))["objects"]["f1"] > 0.6
    start = read_card(tmp_path / "run" / MODEL).scores["hold_out_dice"]
    for seed, rate in ((1, 0.002), (2, 0.5)):
        changes = {"start_from": tmp_path / "run" / MODEL, "seed": seed, "learning_rate": rate}
        again = chosen.model_copy(update={**changes, "steps": 25, "ema_decay": 0.98})
        train(Pair(nuclei, painted_half), again, tmp_path / str(seed))
        card = read_card(tmp_path / str(seed) / MODEL)
        assert card.scores["hold_out_dice"] >= card.parent_dice == pytest.approx(start)
        assert (card.steps, card.unchanged) == (125, rate == 0.5 or card.unchanged)
