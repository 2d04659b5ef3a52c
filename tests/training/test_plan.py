"""From data to settings: each rule, and that what the user chose stays."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import psutil
import pytest
from combinations import in_one_case

from napari_unetvnet.images.geometry import Geometry
from napari_unetvnet.images.pairs import Pair
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.networks import NETWORKS
from napari_unetvnet.settings import TrainJob, TrainSettings, checked
from napari_unetvnet.training.plan import load_plan, memory, pace, plan, planner, save_plan


@pytest.fixture(autouse=True)
def usual_speed(monkeypatch):
    """A machine that takes a tenth of a second for a step, so that nothing is measured."""
    monkeypatch.setattr(pace, "seconds_per_step", lambda *_: 0.1)


def a_pair(shape=(1, 200, 200), spacing=(1.0, 1.0, 1.0), labels=None, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, shape).astype(np.uint8) if labels is None else labels
    return Pair(Volume(rng.normal(size=(1, *shape)), geometry=Geometry(spacing)), Volume(labels[None]))


def planned(pairs, device="cpu", **chosen):
    made = plan(pairs, checked(TrainSettings, chosen), device)
    return made.settings, {choice.name: choice.reason for choice in made.choices}


@in_one_case(
    "shape, spacing, view, why",
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
    _, everything = planned([a_pair((40, 64, 64))])
    assert set(reasons) == set(everything) - set(chosen) - {"option"}, "a chosen network keeps its own options"


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


def test_a_gpu_gets_larger_networks_and_batches(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 2**40)
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
    assert settings.mirror_axes == ("z", "x")
    assert "different sides along y" in reasons["mirror_axes"]


def test_one_or_two_images_show_sides_only_of_classes_that_look_alike():
    for count in (1, 2):
        alike = [sided(seed) for seed in range(count)]
        settings, reasons = planned(alike)
        assert "y" not in settings.mirror_axes
        assert "same brightness" in reasons["mirror_axes"]
        bright = [
            replace(pair, image=replace(pair.image, data=pair.image.data + 9 * pair.labels.data)) for pair in alike
        ]
        settings, reasons = planned(bright)
        assert settings.mirror_axes == ("z", "y", "x")
        assert "cannot show whether classes differ by their side only" in reasons["mirror_axes"]


@pytest.mark.parametrize(
    ("chosen", "loss"), [({}, "dice_ce"), ({"regions": "A=1+2 B=2"}, "bce_dice"), ({"lines": [1]}, "heatmap_dice_ce")]
)
def test_the_loss_fits_what_is_learnt(chosen, loss):
    settings, _ = planned([a_pair()], **chosen)
    assert [term.name for term in settings.loss] == [loss]


def test_a_plan_is_told_in_a_sentence_and_kept_for_the_run(tmp_path):
    settings = checked(TrainSettings, {"minutes": 1})
    made = plan([a_pair()], settings, "cpu")
    assert made.text.startswith("Planned: 2D patches of 128 x 128 pixels, ")
    assert "a small U-Net, loss dice_ce, mirrored along z y x, standard augmentation" in made.text
    assert made.understood == "", "only a job leaves the meaning of labels open"
    save_plan(made, tmp_path / "plan.json")
    assert load_plan(settings, tmp_path / "plan.json") == made
    assert {row["name"] for row in json.loads((tmp_path / "plan.json").read_text())} == {c.name for c in made.choices}
    assert load_plan(settings, tmp_path / "none") is None


def test_auto_is_the_same_as_saying_nothing():
    given = {"image": "a.tif", "label": "b.tif"}
    auto = {"view": "auto", "network": "auto", "loss": "auto", "batch": "auto", "augment": "auto"}
    assert checked(TrainJob, given | auto).model_fields_set == {"image", "label"}


def test_images_of_different_voxel_sizes_are_brought_to_their_median():
    sizes = [(1, s, s) for s in (0.5, 1.0, 2.0)]
    settings, reasons = planned([a_pair(spacing=size) for size in sizes])
    assert settings.target_spacing == (1, 1, 1)
    assert "median" in reasons["target_spacing"]
    assert planned([a_pair(), a_pair(spacing=(1, 1.05, 1))])[0].target_spacing is None
    stacks = [a_pair((20, 32, 32), (z, 1, 1)) for z in (4, 5)]
    assert planned(stacks)[0].target_spacing is None  # seen in 2.5d, where planes stay as far apart as they are
    assert planned(stacks, view="3d")[0].target_spacing == (4.5, 1, 1)


def test_patches_are_planned_on_the_grid_that_the_network_sees():
    pairs = [a_pair((1, 64, 64), (1, 4, 4)), a_pair((1, 256, 256))]
    settings, _ = planned(pairs, target_spacing=(1, 4, 4))
    assert settings.patch == (1, 64, 64)


def test_a_few_bright_voxels_do_not_decide_the_scale():
    settings, _ = planned([a_pair()])
    assert settings.normalise == "zscore"
    bright = a_pair()
    bright.image.data[0, 0, 0, :3] = 1000
    settings, reasons = planned([bright])
    assert settings.normalise == "percentile"
    assert "far brighter" in reasons["normalise"]


def test_rare_classes_weigh_more_where_the_loss_counts_voxels():
    labels = np.zeros((1, 100, 100), np.uint8)
    labels[0, :10, :10] = 1
    rare, even = a_pair(labels.shape, labels=labels), a_pair()
    assert planned([rare], loss="ce")[0].class_weights == "inverse_frequency"
    assert "1.0%" in planned([rare], loss="ce")[1]["class_weights"]
    assert planned([rare])[0].class_weights == "none"
    assert planned([even], loss="ce")[0].class_weights == "none"


def test_objects_are_kept_apart():
    labels = np.arange(16, dtype=np.uint8).repeat(100).reshape(1, 40, 40)
    settings, _ = planned([a_pair(labels.shape, labels=labels)], label_values="objects")
    assert settings.objects_as == "separated"
    assert "objects_as" not in planned([a_pair()])[1]


@pytest.mark.parametrize("budget", [{"minutes": 1}, {"epochs": 3}, {"steps": 5}])
def test_a_budget_is_chosen_only_where_there_is_none(budget):
    assert "minutes" in planned([a_pair()])[1]
    assert "minutes" not in planned([a_pair()], **budget)[1]


def test_strokes_are_learnt_for_less_time():
    labels = np.zeros((1, 100, 100), np.uint8)
    labels[0, 10], labels[0, 50] = 1, 2
    strokes = a_pair(labels.shape, labels=labels)
    assert planned([strokes], unlabelled="ignore")[0].minutes == 2
    assert planned([strokes])[0].minutes == 5


def test_what_goes_on_from_a_model_is_what_the_model_is(tmp_path):
    from napari_unetvnet.model.card import ModelCard
    from napari_unetvnet.model.model import build_model, save_model

    card = ModelCard(network="vnet2d", option={"width": 2}, head="binary", view="2.5d", context=2, values=(0, 1),
                     patch=(1, 48, 48), spacing=(1, 2, 2), resampled=True, normalise="percentile")  # fmt: skip
    save_model(tmp_path / "m.safetensors", build_model(card, TrainSettings()).network.state_dict(), card)
    settings, reasons = planned([a_pair()], start_from=tmp_path / "m.safetensors")
    found = settings.network, settings.option, settings.view, settings.context, settings.patch, settings.normalise
    assert found == ("vnet2d", {"width": 2}, "2.5d", 2, (1, 48, 48), "percentile")
    assert settings.target_spacing == (1, 2, 2)
    assert reasons["network"] == "as the model to start from"
    other, _ = planned([a_pair()], start_from=tmp_path / "m.safetensors", network="unetpp")
    assert other.option == {}


@in_one_case(
    "names, count, kind",
    [
        (("background", "core", "rim"), 3, "cores"),
        (("background", "inside", "border"), 3, "borders"),
        (("background", "object"), 2, "separated"),
        ((), 2, "separated"),
        ((), 3, "separated"),  # not known: as if there were no model
    ],
)
def test_what_goes_on_from_a_model_learns_the_same_of_objects(tmp_path, names, count, kind):
    from napari_unetvnet.model.card import ModelCard
    from napari_unetvnet.model.model import build_model, save_model

    card = ModelCard(network="vnet2d", option={"width": 2}, head="multiclass", view="2d", values=tuple(range(count)),
                     class_names=names, patch=(1, 48, 48))  # fmt: skip
    save_model(tmp_path / "m.safetensors", build_model(card, TrainSettings()).network.state_dict(), card)
    chosen = {"start_from": tmp_path / "m.safetensors", "label_values": "objects"}
    assert planned([a_pair()], **chosen)[0].objects_as == kind
    assert planned([a_pair()], **chosen | {"label_values": "classes"})[0].objects_as == "foreground"


def test_a_batch_that_does_not_fit_is_computed_in_parts(monkeypatch):
    settings, _ = planned([a_pair()])
    needed = memory.step_bytes(settings, 1, settings.batch)
    monkeypatch.setattr(memory, "free_bytes", lambda device: needed)
    settings, reasons = planned([a_pair()])
    assert settings.gradient_accumulation == 2
    assert "GiB are free" in reasons["gradient_accumulation"]
    monkeypatch.setattr(memory, "free_bytes", lambda device: 2 * needed)
    settings, reasons = planned([a_pair()])
    assert settings.gradient_accumulation == 1
    assert f"a step needs about {needed / 2**30:.1f} GiB" in reasons["gradient_accumulation"]


@in_one_case("name", list(NETWORKS))
def test_every_network_has_an_estimate_that_grows_with_the_batch(name):
    dims = 2 if 2 in NETWORKS.describe(name).facts.get("supported_dims", (2, 3)) else 3
    view, patch = ("2d", (1, 64, 64)) if dims == 2 else ("3d", (32, 32, 32))
    option = {"width": 8} if "width" in NETWORKS.describe(name).defaults else {}
    settings = checked(TrainSettings, {"network": name, "view": view, "patch": patch, "option": option})
    one, four = (memory.step_bytes(settings, 1, patches) for patches in (1, 4))
    assert 0 < one < four < 4 * one


@in_one_case("name", ["unet_padding", "vnet", "unet3d_ds"])
@in_one_case("view, patch", [("2d", (1, 128, 96)), ("2.5d", (1, 128, 96)), ("3d", (32, 64, 48))])
def test_what_is_estimated_is_what_autograd_keeps_and_some_more(name, view, patch):
    """The same sum over a real pass: every tensor that the backward pass needs, once."""
    import torch

    from napari_unetvnet.networks import build_network

    settings = checked(TrainSettings, {"network": name, "view": view, "patch": patch, "option": {"width": 4}})
    channels = 3 if view == "2.5d" else 1
    network = build_network(name, settings.dims, channels, memory.FEW_CLASSES, {"width": 4})
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = network.training_outputs(torch.zeros(4, channels, *patch[-settings.dims :]))
    assert outputs is not None
    assert 0.95 * sum(kept.values()) < memory.step_bytes(settings, 1, 4) < 2.5 * sum(kept.values())


def test_an_estimate_leaves_no_activations_behind():
    """A stored tensor that refers to its own graph is never freed: 130 MiB a call for this network."""
    chosen = {"view": "3d", "network": "unet3d", "option": {"width": 16}, "patch": (32, 64, 64)}
    settings, process = checked(TrainSettings, chosen), psutil.Process()
    for _ in range(2):
        memory.step_bytes(settings, 1, 2)
    before = process.memory_info().rss
    for _ in range(4):
        memory.step_bytes(settings, 1, 2)
    assert process.memory_info().rss - before < 200 * 2**20


def test_of_many_images_a_smaller_share_is_held_out():
    assert planned([a_pair(seed=i) for i in range(9)])[0].hold_out == 0.2
    many = [a_pair(seed=i) for i in range(10)]
    assert planned(many)[0].hold_out == 0.1
    assert planned(many, folds=5)[0].hold_out == 0.2


def test_a_network_whose_weights_alone_are_too_large_is_counted_and_not_made(monkeypatch):
    settings = checked(TrainSettings, {"option": {"width": 64}, "patch": (1, 64, 64)})
    whole = memory.step_bytes(settings, 1, 2)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 2**20)
    monkeypatch.setattr(memory, "_activations", None)  # whoever runs it fails
    assert 2**28 < memory.step_bytes(settings, 1, 2) < whole


def test_every_setting_that_is_left_open_has_a_rule_and_every_rule_is_listed():
    sources = "".join(path.read_text("utf-8") for path in Path(planner.__file__).parent.glob("*.py"))
    assert [name for name in TrainJob.left_open if f'Decision("{name}"' not in sources] == []
    written = re.findall(r"^def (\w+)\(pairs: Sequence\[Pair\], settings: TrainSettings, device", sources, re.MULTILINE)
    assert set(written) - {"plan"} == {rule.__name__ for rule in planner.RULES}
