"""What the loop can do besides stepping: optimizers and rates, EMA, early ends, fine-tuning, little memory."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from combinations import in_one_case
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from napari_unetvnet.errors import ModelProblem, OutOfMemory, SettingsProblem
from napari_unetvnet.events import EpochDone, Notice, SplitMade, StepDone
from napari_unetvnet.images.pairs import Pair
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.model.card import read_card
from napari_unetvnet.model.model import Model, load_model
from napari_unetvnet.model.wrappers import Wrapper
from napari_unetvnet.runs.folder import MODEL, training_files
from napari_unetvnet.settings import SegmentSettings, TrainSettings, checked
from napari_unetvnet.training import fallback, loop
from napari_unetvnet.training.ema import ema_of, ema_weights
from napari_unetvnet.training.recompute import RECOMPUTED
from napari_unetvnet.training.schedule import Schedule

TINY = {
    "network": "unet3d_ds",  # instance norm: a batch in parts is the same
    "option": {"width": 4, "depth": 2},
    "view": "2d",
    "patch": (1, 16, 16),
    "batch": 4,
    "steps_per_epoch": 4,
    "steps": 12,
    "device": "cpu",
    "precision": "fp32",
    "augment": "none",
    "loss": "ce",
}
CPU = SegmentSettings(device="cpu", precision="fp32")


def squares(classes=2, channels=1, seed=0):
    """Squares of values 1, 2, ... on noise, with 0 between them."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((1, 1, 64, 64), np.uint8)
    for i, (y, x) in enumerate(rng.integers(0, 56, (18, 2))):
        labels[0, 0, y : y + 8, x : x + 8] = 1 + i % (classes - 1)
    image = np.concatenate([labels + rng.normal(0, 0.2, labels.shape) for _ in range(channels)])
    return Pair(Volume(image, name="squares"), Volume(labels))


def train(folder, pair=None, **changes):
    folder.mkdir()
    values = TINY | changes
    if {"minutes", "epochs"} & set(changes):
        values.pop("steps")
    return list(loop.steps([pair or squares()], checked(TrainSettings, values), training_files(folder)))


def losses(events):
    return [event.loss for event in events if isinstance(event, StepDone)]


def weights(folder):
    return load_model(folder / MODEL, CPU).network.state_dict()


@pytest.mark.parametrize("changes", [{}, {"folds": 3, "fold": 1}, {"hold_out": 0}])
def test_the_split_of_the_first_image_is_told_before_the_first_step(tmp_path, changes):
    events = train(tmp_path / "run", steps=1, **changes)
    kinds = [type(event) for event in events]
    assert kinds.count(SplitMade) == 1
    assert kinds.index(SplitMade) < kinds.index(StepDone)
    split = events[kinds.index(SplitMade)]
    assert (split.number, split.name) == (0, "squares")
    marks = np.zeros((1, 64, 64), int)
    for box in (*split.learnt, *split.held_out):
        marks[tuple(slice(a, b) for a, b in zip(box[:3], box[3:], strict=True))] += 1
    assert marks.max() == 1  # nothing scores that is learnt from
    assert len(split.held_out) == (0 if "hold_out" in changes else 1)
    # On both sides of a fold, around a block in a corner.
    assert len(split.learnt) == (1 if "hold_out" in changes else 2)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "sgd"},
        {"lr_schedule": "poly"},
        {"lr_schedule": "one_cycle"},
        {"ema_decay": 0.9},
        {"precision": "bf16"},
    ],
)
def test_every_way_of_learning_learns(tmp_path, changes):
    rate = {} if "optimizer" in changes else {"learning_rate": 0.01}
    events = train(tmp_path / "run", **({"steps": 60} | rate | changes))
    found = losses(events)
    assert np.mean(found[-10:]) < 0.6 * found[0]
    assert max(event.dice for event in events if isinstance(event, EpochDone)) > 0.7


@pytest.mark.parametrize(
    "changes", [{"optimizer": "sgd"}, {"ema_decay": 0.9}, {"lr_schedule": "poly"}, {"gradient_accumulation": 2}]
)
def test_each_of_them_can_be_resumed_to_the_same_model(tmp_path, changes):
    train(tmp_path / "whole", **changes)
    settings = checked(TrainSettings, TINY | changes)
    (tmp_path / "parts").mkdir()
    work = loop.steps([squares()], settings, training_files(tmp_path / "parts"))
    assert any(isinstance(event, StepDone) and event.step == 6 for event in work)
    work.close()
    list(loop.steps([squares()], settings, training_files(tmp_path / "parts"), resume=True))
    assert (tmp_path / "whole" / MODEL).read_bytes() == (tmp_path / "parts" / MODEL).read_bytes()


@pytest.mark.parametrize("rule", ["linear", "poly"])
@given(peak=st.floats(1e-5, 1), total=st.integers(1, 400))
def test_the_rate_warms_up_stays_and_falls(rule, peak, total):
    schedule = Schedule(peak, None, total, rule)
    rates = []
    while not schedule.over:
        rates.append(schedule.rate())
        schedule.step += 1
    assert len(rates) == total
    assert 0 < min(rates) <= max(rates) <= peak
    assert rates[-1] < 0.2 * peak or total < 20
    falling = rates[max(10, total * 7 // 10) :]
    assert falling == sorted(falling, reverse=True)


@given(total=st.integers(10, 300))
def test_one_cycle_rises_and_falls(total):
    schedule = Schedule(1.0, None, total, "one_cycle")
    rates = []
    while not schedule.over:
        rates.append(schedule.rate())
        schedule.step += 1
    top = int(np.argmax(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert 0.15 < top / total < 0.4
    assert rates[0] < 0.3


def test_one_cycle_needs_a_number_of_steps():
    with pytest.raises(SettingsProblem, match="one_cycle needs the number of steps"):
        checked(TrainSettings, {"lr_schedule": "one_cycle", "minutes": 1})


def test_a_poly_budget_of_time_is_a_number_of_steps():
    timed = Schedule(1.0, 1.0, None, "poly")
    rates = []
    while not timed.over:
        rates.append(timed.rate())
        timed.step += 1
        timed.seconds += 0.25
    counted = Schedule(1.0, None, timed.step, "poly")
    again = []
    while not counted.over:
        again.append(counted.rate())
        counted.step += 1
    assert rates == again
    assert timed.seconds == pytest.approx(60, rel=0.05)


def test_a_batch_in_parts_is_the_same_step(tmp_path):
    whole, parts = (losses(train(tmp_path / str(n), gradient_accumulation=n, steps=4, optimizer="sgd")) for n in (1, 4))
    assert whole == pytest.approx(parts, rel=1e-4)
    for a, b in zip(weights(tmp_path / "1").values(), weights(tmp_path / "4").values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_the_ema_follows_and_is_what_is_scored():
    model = SimpleNamespace(network=torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False), torch.nn.BatchNorm1d(1)))
    weight, norm = model.network[0].weight, model.network[1]
    torch.nn.init.zeros_(weight)
    ema = ema_of(model.network, 0.5)
    expected = 0.0
    for step in range(1, 20):
        torch.nn.init.constant_(weight, float(step))
        norm.running_mean.fill_(float(step))
        norm.num_batches_tracked += 1
        ema.update_parameters(model.network)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    network = model.network
    with ema_weights(model, ema):
        assert model.network[0].weight.item() == pytest.approx(expected)
        assert model.network[1].running_mean.item() == pytest.approx(expected)
        assert model.network[1].num_batches_tracked.item() == 19  # a count, not a mean
    assert model.network is network
    assert network[0].weight.item() == 19


def test_no_ema_costs_nothing():
    model = SimpleNamespace(network=(network := torch.nn.Linear(1, 1)))
    assert ema_of(network, 0) is None
    with ema_weights(model, None):
        assert model.network is network


def test_a_training_that_gets_no_better_ends_early_and_keeps_the_best(tmp_path):
    events = train(tmp_path / "run", learning_rate=1e-9, patience=2, steps=400)
    last = [event for event in events if isinstance(event, StepDone)][-1]
    best = next(e for e in events if isinstance(e, EpochDone))
    assert last.step == best.step + 2 * 4  # each epoch scores the same as the first
    assert read_card(tmp_path / "run" / MODEL).scores["hold_out_dice"] == pytest.approx(best.dice)


@pytest.mark.parametrize(("classes", "channels"), [(3, 1), (2, 2), (4, 3)])
def test_a_model_is_tuned_to_other_classes_and_channels(tmp_path, classes, channels):
    train(tmp_path / "first", steps=4)
    events = train(
        tmp_path / "second", squares(classes, channels), start_from=tmp_path / "first" / MODEL, steps=1,
        learning_rate=1e-9,
    )  # fmt: skip
    told = next(e.text for e in events if isinstance(e, Notice) and "newly initialised" in e.text)
    before, after = weights(tmp_path / "first"), weights(tmp_path / "second")
    new = [name for name in after if before[name].shape != after[name].shape]
    assert new
    assert all(name in told for name in new[:6])
    assert f"{len(after) - len(new)} of {len(after)} tensors" in told
    for name in after.keys() - set(new):
        torch.testing.assert_close(after[name], before[name], atol=1e-5, rtol=1e-5)


def test_a_model_that_shares_nothing_is_refused(tmp_path):
    train(tmp_path / "first", steps=1)
    with pytest.raises(ModelProblem, match="shares no weights with unet_padding"):
        train(
            tmp_path / "second", network="unet_padding", option={"width": 5, "depth": 2},
            start_from=tmp_path / "first" / MODEL,
        )  # fmt: skip


ENCODED = {
    "network": "branch_unet",
    "patch": (1, 32, 32),
    "batch": 2,
    "steps": 3,
    "steps_per_epoch": 2,
    "loss": "dice_ce",
}
BRANCH = ("branch.", "branch_up.")
BEFORE = ("encoder.", "centre.", "decoder.0.", "decoder.1.", "decoder.2.", "decoder.3.first.")


@in_one_case(
    "chosen, optimizer, kept",
    [
        ({"train": "branch"}, {"optimizer": "adamw", "ema_decay": 0.9}, lambda name: not name.startswith(BRANCH)),
        ({"train": "branch", "targets": "0"}, {"optimizer": "sgd"}, lambda name: not name.startswith(BRANCH)),
        ({"freeze": -1}, {"ema_decay": 0.5}, lambda name: name.startswith(BEFORE)),
    ],
)
def test_what_is_frozen_stays_the_same_to_the_byte(tmp_path_factory, chosen, optimizer, kept):
    """Weight decay, EMA and batch norm change nothing either, nor do the steps and heads after the branch."""
    folder, pair, width = tmp_path_factory.mktemp("frozen"), squares(3), {"width": 1, "deep_supervision": 1}
    train(folder / "base", pair, **ENCODED | {"network": "backboned_unet", "option": width | {"encoder": "orig_unet"}})
    start = {"start_from": folder / "base" / MODEL, "option": width | chosen}
    events = train(folder / "next", pair, **ENCODED | start | optimizer)
    base, after = (load_file(folder / run / MODEL) for run in ("base", "next"))
    changed = {name for name in base if base[name].numpy().tobytes() != after[name].numpy().tobytes()}
    assert not {name for name in base if kept(name)} & changed
    moved = {name for name in after if not kept(name) and name in base}
    assert changed >= {name for name in moved if name.endswith("weight") and not name.startswith("auxiliary")}
    assert after["branch.weight"].any()
    (told,) = [e.text for e in events if isinstance(e, Notice) and "Trained are" in e.text]
    trained = [n for name, n in read_sizes(after) if not kept(name)]
    assert f"{sum(trained):,} of {sum(n for _, n in read_sizes(after)):,} parameters" in told


def read_sizes(tensors):
    """Names and sizes of the parameters among some tensors."""
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    return [(name, tensor.numel()) for name, tensor in tensors.items() if not name.endswith(buffers)]


def test_random_weights_that_would_never_be_trained_are_refused(tmp_path):
    for number, option in enumerate(({"train": "branch"}, {"freeze": -1})):
        with pytest.raises(SettingsProblem, match="would never be trained, but have random values; start from"):
            train(tmp_path / str(number), **ENCODED | {"option": option | {"width": 1}})


def starved(monkeypatch, fits):
    """Let a step fail wherever its blocks do not fit; give the sizes that were tried."""
    tried = []
    whole = Model.supervised

    def supervised(self, blocks, objects=None):
        tried.append(tuple(blocks.shape))
        if not fits(blocks):
            raise OutOfMemory("too large")
        return whole(self, blocks, objects)

    monkeypatch.setattr(Model, "supervised", supervised)
    return tried


def test_what_does_not_fit_is_computed_in_parts_and_told(tmp_path, monkeypatch):
    starved(monkeypatch, lambda blocks: len(blocks) <= 1)
    events = train(tmp_path / "run", steps=2)
    told = [e.text for e in events if isinstance(e, Notice) and "did not fit" in e.text]
    assert [text.split("; ")[1] for text in told] == [
        "each step now computes its 4 patches in 2 parts.",
        "each step now computes its 4 patches in 4 parts.",
    ]
    assert losses(events) == pytest.approx(losses(train(tmp_path / "starving", steps=2, gradient_accumulation=4)))


def test_what_worked_is_where_the_next_training_of_the_kind_begins(tmp_path, monkeypatch):
    tried = starved(monkeypatch, lambda blocks: len(blocks) <= 1)
    train(tmp_path / "first", steps=2)
    tried.clear()
    events = train(tmp_path / "second", steps=2)
    assert {shape[0] for shape in tried} == {1}
    assert any(e.text.endswith("before, so it is computed in 4 parts.") for e in events if isinstance(e, Notice))
    tried.clear()
    train(tmp_path / "other", steps=1, patch=(1, 8, 8))
    assert tried[0][0] == 4


def test_after_the_parts_blocks_are_computed_twice(tmp_path, monkeypatch):
    done = []
    wrapper = Wrapper(RECOMPUTED.name, lambda network: (done.append(True), RECOMPUTED.apply(network))[1])
    monkeypatch.setattr(fallback, "RECOMPUTED", wrapper)
    starved(monkeypatch, lambda blocks: bool(done))
    events = train(tmp_path / "run", steps=2)
    told = [e.text for e in events if isinstance(e, Notice) and "did not fit" in e.text]
    assert told[-1].endswith("activations are now recomputed in the backward pass.")
    alike = losses(train(tmp_path / "starving", steps=2, gradient_accumulation=4))
    assert losses(events) == pytest.approx(alike)


def test_then_patches_become_smaller(tmp_path, monkeypatch):
    starved(monkeypatch, lambda blocks: blocks[0, 0].numel() <= 64)
    events = train(tmp_path / "run", steps=2)
    assert len(losses(events)) == 2
    assert read_card(tmp_path / "run" / MODEL).patch == (1, 8, 8)
    assert any("patches are now 1 x 8 x 8 voxels" in e.text for e in events if isinstance(e, Notice))


def test_what_cannot_fit_at_all_is_refused_and_a_run_resumes_as_it_fitted(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        starved(patch, lambda blocks: False)
        with pytest.raises(OutOfMemory, match=r"^Not even one patch of 1 x 2 x 2 voxels fits into the memory of cpu; "):
            train(tmp_path / "never")
    with monkeypatch.context() as patch:
        starved(patch, lambda blocks: len(blocks) <= 2)
        (tmp_path / "run").mkdir()
        work = loop.steps([squares()], checked(TrainSettings, TINY), training_files(tmp_path / "run"))
        list(itertools.takewhile(lambda e: not (isinstance(e, StepDone) and e.step == 5), work))
        work.close()
    tried = starved(monkeypatch, lambda blocks: True)
    list(loop.steps([squares()], checked(TrainSettings, TINY), training_files(tmp_path / "run"), resume=True))
    assert {shape[0] for shape in tried} == {2}
