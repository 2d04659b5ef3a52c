"""The width of the network follows from the steps that the budget holds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_unetvnet.images.pairs import Pair
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.settings import TrainSettings, checked
from napari_unetvnet.training.plan import memory, pace, plan
from napari_unetvnet.training.plan.pace import seconds_per_step


def planned(device="cpu", **chosen):
    labels = np.zeros((1, 64, 64), np.uint8)
    labels[0, 10:30, 10:30] = 1
    pair = Pair(Volume(np.random.default_rng(0).normal(size=(1, 1, 64, 64))), Volume(labels[None]))
    made = plan([pair], checked(TrainSettings, chosen), device)
    return made.settings.option.get("width"), {choice.name: choice.reason for choice in made.choices}


@pytest.mark.parametrize(
    ("seconds", "minutes", "width", "steps"),
    [(0.1, 2, 16, 1200), (0.1, 0.5, 8, 300), (0.5, 10, 16, 1200), (1.0, 10, 8, 600)],
)
def test_few_steps_get_a_narrow_network(monkeypatch, seconds, minutes, width, steps):
    monkeypatch.setattr(pace, "seconds_per_step", lambda settings, channels: seconds)
    chosen, reasons = planned(minutes=minutes)
    assert chosen == width
    assert f"{steps} steps at {seconds:.2g} s a step" in reasons["option"]


def test_a_budget_in_steps_needs_no_measurement(monkeypatch):
    monkeypatch.setattr(pace, "seconds_per_step", lambda *_: pytest.fail("measured"))
    monkeypatch.setattr(memory, "free_bytes", lambda device: 2**33)
    assert planned(steps=999)[0] == 8
    assert planned(epochs=40, steps_per_epoch=25)[0] == 16
    assert planned("cuda", minutes=1)[0] == 32
    assert planned(network="vnet", minutes=1)[0] is None
    assert planned(network="unet_padding", option={"width": 4}, minutes=1)[0] == 4


def test_a_step_is_measured_without_touching_the_random_numbers():
    settings = checked(TrainSettings, {"option": {"width": 2, "depth": 2}, "patch": (1, 16, 16), "batch": 2})
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    assert 0 < seconds_per_step(settings, 3) < 60
    assert torch.equal(torch.random.get_rng_state(), before)


def test_each_view_can_be_measured():
    for view, patch in (("2.5d", (1, 16, 16)), ("3d", (16, 16, 16))):
        settings = checked(
            TrainSettings, {"view": view, "option": {"width": 2, "depth": 2}, "patch": patch, "batch": 2}
        )
        assert seconds_per_step(settings, 1) > 0
