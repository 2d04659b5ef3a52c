"""From data to settings: each rule, and that what the user chose stays."""

from __future__ import annotations

import json
from math import prod

import numpy as np
import pytest

from napari_unetvnet.data import Pair
from napari_unetvnet.networks import NETWORKS
from napari_unetvnet.plan import load_plan, plan, save_plan
from napari_unetvnet.settings import TrainJob, TrainSettings, checked
from napari_unetvnet.volume import Volume


def a_pair(shape=(1, 200, 200), spacing=(1.0, 1.0, 1.0), labels=None, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, shape).astype(np.uint8) if labels is None else labels
    return Pair(Volume(rng.normal(size=(1, *shape)), spacing=spacing), Volume(labels[None]))


def planned(pairs, device="cpu", **chosen):
    made = plan(pairs, checked(TrainSettings, chosen), device)
    return made.settings, {choice.name: choice.reason for choice in made.choices}


@pytest.mark.parametrize(
    ("shape", "spacing", "view", "why"),
    [
        ((1, 64, 64), (1, 1, 1), "2d", "planes"),
        ((4, 64, 64), (1, 1, 1), "2.5d", "only 4 planes"),
        ((40, 64, 64), (5, 1, 1), "2.5d", "5.0 times as far apart"),
        ((40, 64, 64), (2, 1, 1), "3d", "volumes"),
    ],
)
def test_the_view_follows_from_planes_and_spacing(shape, spacing, view, why):
    settings, reasons = planned([a_pair(shape, spacing)])
    assert settings.view == view
    assert why in reasons["view"]


def test_a_few_painted_planes_of_a_stack_are_learnt_as_planes():
    labels = np.zeros((40, 64, 64), np.uint8)
    labels[[10, 30]] = 1
    settings, reasons = planned([a_pair((40, 64, 64), labels=labels)], unlabelled="ignore")
    assert settings.view == "2.5d"
    assert "2 of 40 planes" in reasons["view"]


def test_what_the_user_chose_stays():
    chosen = {"view": "2d", "network": "vnet", "patch": (1, 32, 32), "batch": 3, "loss": "focal", "augment": "strong"}
    settings, reasons = planned([a_pair((40, 64, 64))], **chosen)
    assert {name: getattr(settings, name) for name in ("view", "network", "patch", "batch", "augment")} == {
        name: chosen[name] for name in ("view", "network", "patch", "batch", "augment")
    }
    assert settings.loss[0].name == "focal"
    assert set(reasons) == {"mirror"}


def test_a_network_without_a_3d_form_is_not_given_volumes(monkeypatch):
    facts = NETWORKS.describe("unet_drive").facts
    monkeypatch.setitem(facts, "supported_dims", (2,))
    settings, reasons = planned([a_pair((40, 64, 64))], network="unet_drive")
    assert settings.view == "2d"
    assert "no 3D form" in reasons["view"]


@pytest.mark.parametrize("spacing", [(1, 1, 1), (2, 1, 1), (1, 2, 2.5)])
def test_blocks_are_as_wide_on_each_side(spacing):
    settings, _ = planned([a_pair((128, 128, 128), spacing)])
    sides = [n * s for n, s in zip(settings.patch, spacing, strict=True)]
    assert max(sides) <= 1.5 * min(sides)
    assert 20_000 < prod(settings.patch) <= 90_000


def test_blocks_lie_within_small_images_and_steps_take_more_of_them():
    settings, _ = planned([a_pair((24, 30, 28))])
    assert all(p <= n for p, n in zip(settings.patch, (24, 30, 28), strict=True))
    larger, _ = planned([a_pair((128, 128, 128))])
    assert settings.batch > larger.batch >= 2


def test_a_gpu_gets_larger_networks_and_batches():
    cpu, _ = planned([a_pair()])
    gpu, _ = planned([a_pair()], "cuda")
    assert gpu.option["width"] > cpu.option["width"]
    assert gpu.batch > cpu.batch


def sided(seed, size=32):
    """Class 1 is before class 2 along y; both lie anywhere along x."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((1, size, size), np.uint8)
    x = rng.integers(0, 26, 2)
    labels[0, 4:10, x[0] : x[0] + 6] = 1
    labels[0, 20:26, x[1] : x[1] + 6] = 2
    return a_pair(labels.shape, labels=labels, seed=seed)


def test_axes_along_which_classes_have_sides_are_not_mirrored():
    settings, reasons = planned([sided(seed) for seed in range(6)])
    assert settings.mirror == ("z", "x")
    assert "different sides along y" in reasons["mirror"]


def test_one_image_tells_nothing_of_sides():
    settings, _ = planned([sided(0)])
    assert settings.mirror == ("z", "y", "x")


@pytest.mark.parametrize(
    ("chosen", "loss"), [({}, "dice_ce"), ({"regions": "A=1+2 B=2"}, "bce_dice"), ({"lines": [1]}, "ten_channel")]
)
def test_the_loss_fits_what_is_learnt(chosen, loss):
    settings, _ = planned([a_pair()], **chosen)
    assert [term.name for term in settings.loss] == [loss]


def test_a_plan_is_told_in_a_sentence_and_kept_for_the_run(tmp_path):
    settings = checked(TrainSettings, {"minutes": 1})
    made = plan([a_pair()], settings, "cpu")
    assert made.text.startswith("Planned: view 2d (the images are planes); network unet_padding (")
    assert made.text.endswith(".")
    save_plan(made, tmp_path / "plan.json")
    assert load_plan(settings, tmp_path / "plan.json") == made
    assert {row["name"] for row in json.loads((tmp_path / "plan.json").read_text())} == {c.name for c in made.choices}
    assert load_plan(settings, tmp_path / "none") is None


def test_auto_is_the_same_as_saying_nothing():
    given = {"image": "a.tif", "label": "b.tif"}
    auto = {"view": "auto", "network": "auto", "loss": "auto", "batch": "auto", "augment": "auto"}
    assert checked(TrainJob, given | auto).model_fields_set == {"image", "label"}
