"""Training on every kind of target: what reaches the loss is right, and what is learnt comes back as labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.data.prepare import prepare_data
from napari_unetvnet.data.targets import loss_target, separation_weights
from napari_unetvnet.events import EpochDone, StepDone
from napari_unetvnet.images.pairs import Pair
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.inference import steps as segment
from napari_unetvnet.model.card import read_card
from napari_unetvnet.model.model import load_model
from napari_unetvnet.runs.folder import MODEL, training_files
from napari_unetvnet.settings import SegmentSettings, TrainSettings, checked
from napari_unetvnet.training import loop

TINY = {"option": {"width": 4, "depth": 2}, "patch": (1, 32, 32), "batch": 4, "device": "cpu", "augment": "none"}


def nested(size=64, seed=0):
    """Discs with values 2, 1 and 4 from their rim to their middle."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    labels = np.zeros((1, 1, size, size), np.uint8)
    for cy, cx in rng.integers(6, size - 6, (12, 2)):
        distance = np.hypot(y - cy, x - cx)
        for radius, value in ((9, 2), (6, 1), (3, 4)):
            labels[0, 0][distance < radius] = value
    return labels


def seen(labels):
    """An image that shows the labels under a little noise."""
    noise = np.random.default_rng(1).normal(0, 0.1, labels.shape[-3:])
    shown = (labels * np.arange(1, len(labels) + 1)[:, None, None, None]).sum(axis=0)
    return Volume((shown + noise)[None].astype(np.float32), name="image")


def learn(pair, folder, **chosen):
    """Train, segment the training image, and give labels, model card and events."""
    settings = checked(TrainSettings, TINY | chosen)
    folder.mkdir()
    events = list(loop.steps([pair], settings, training_files(folder)))
    model = load_model(folder / MODEL, SegmentSettings(device="cpu"))
    slabs = list(segment(model, pair.image, SegmentSettings(device="cpu"), probabilities=True))
    labels = np.concatenate([slab.labels for slab in slabs], axis=-3)
    probabilities = np.concatenate([slab.probabilities for slab in slabs], axis=-3)
    return labels, probabilities, read_card(folder / MODEL), events


def test_nested_regions_come_back_as_the_values_they_were_painted_with(tmp_path):
    labels = nested()
    found, probabilities, card, events = learn(
        Pair(seen(labels), Volume(labels)), tmp_path / "run", regions="brats", steps=150, learning_rate=0.01
    )
    assert (found == labels[0]).mean() > 0.95
    assert probabilities.shape == (3, 1, 64, 64)
    assert (card.head, card.values, card.class_names, card.paint_order) == (
        "multilabel", (2, 1, 4), ("WT", "TC", "ET"), (0, 1, 2),
    )  # fmt: skip
    assert set(card.scores) == {"hold_out_dice", *(f"hold_out_dice_{name}" for name in ("WT", "TC", "ET"))}
    assert max(event.dice for event in events if isinstance(event, EpochDone)) > 0.9


def test_overlapping_masks_come_back_as_masks(tmp_path):
    first = (nested() > 0).astype(np.uint8)
    second = (nested(seed=5) > 0).astype(np.uint8)
    masks = np.concatenate([first, second])
    found, probabilities, card, _ = learn(
        Pair(seen(masks), Volume(masks)), tmp_path / "run", label_values="overlapping", steps=120, learning_rate=0.01
    )
    assert (card.overlapping, card.values) == (True, (1, 2))
    assert found.shape == probabilities.shape == (2, 1, 64, 64)
    assert ((found > 0) == masks).mean() > 0.95
    assert set(np.unique(found[1])) == {0, 2}
    assert ((found[0] > 0) & (found[1] > 0)).any()


def test_lines_are_learnt_with_blurred_outputs_that_results_leave_out(tmp_path):
    labels = np.zeros((1, 1, 64, 64), np.uint8)
    labels[..., 40:, :] = 2
    labels[..., ::16] = 1
    found, probabilities, card, _ = learn(
        Pair(seen(labels), Volume(labels)),
        tmp_path / "run",
        lines=[1],
        loss="ten_channel",
        steps=200,
        learning_rate=0.01,
    )
    assert (card.values, card.lines, card.outputs, card.class_outputs) == ((0, 1, 2), (1,), 6, (0, 1, 5))
    assert probabilities.shape == (3, 1, 64, 64)
    assert (found == labels[0]).mean() > 0.95


@pytest.mark.parametrize("chosen", [{"label_blur": 1.0}, {"lines": [1]}])
def test_the_target_of_a_patch_is_that_of_the_whole_image(chosen):
    labels = nested()
    settings = checked(TrainSettings, {"hold_out": 0, "normalise": "none", **chosen})
    numbered = np.arange(64 * 64, dtype=np.float32).reshape(1, 1, 64, 64)
    data = prepare_data([Pair(Volume(numbered), Volume(labels))], settings, (1, 16, 16))
    whole = loss_target(data.train[0].target, data.classes, settings)
    images, targets, _ = data.batch(np.random.default_rng(0), 40, (1, 16, 16), (0, 0, 0))
    inside = 0
    for image, target in zip(images, targets, strict=True):
        y, x = divmod(int(image[0, 0, 0, 0]), 64)
        if 8 <= y <= 40 and 8 <= x <= 40:  # beyond the image nothing is known, within it the blur sees everything
            np.testing.assert_allclose(target, whole[:, :, y : y + 16, x : x + 16], atol=1e-6)
            inside += 1
    assert inside > 5


def test_the_weight_map_comes_with_its_patch():
    objects = np.zeros((1, 1, 64, 64), np.uint16)
    objects[..., 10:30, 10:20], objects[..., 10:30, 22:40] = 1, 2
    chosen = {"label_values": "objects", "hold_out": 0, "normalise": "none", "loss": "unet_weighted_ce"}
    settings = checked(TrainSettings, chosen)
    numbered = np.arange(64 * 64, dtype=np.float32).reshape(1, 1, 64, 64)
    data = prepare_data([Pair(Volume(numbered), Volume(objects))], settings, (1, 16, 16))
    images, _, maps = data.batch(np.random.default_rng(0), 8, (1, 16, 16), (0, 0, 0))
    expected = separation_weights(objects[0])
    assert expected.max() > 5
    (weights,) = maps.values()
    np.testing.assert_allclose(weights, expected.ravel()[images[:, 0].astype(int)])


def test_a_mask_keeps_what_is_outside_from_being_drawn_or_learnt():
    labels = nested()
    mask = np.zeros_like(labels)
    mask[..., :32] = 1
    settings = checked(TrainSettings, {"hold_out": 0, "normalise": "none"})
    data = prepare_data([Pair(seen(labels), Volume(labels), mask=Volume(mask))], settings, (1, 16, 16))
    target = data.batch(np.random.default_rng(0), 60, (1, 16, 16), (0, 0, 0)).target
    assert (target != IGNORE).any(axis=(1, 2, 3)).all()
    assert (data.train[0].target[..., 32:] == IGNORE).all()


def losses_of(events):
    return [event.loss for event in events if isinstance(event, StepDone)]


def test_weights_of_classes_and_levels_change_what_is_minimised(tmp_path):
    labels = nested()
    pair = Pair(seen(labels), Volume(labels))
    option = {"network": "backboned_unet", "option": {"width": 4, "encoder": "orig_unet", "deep_supervision": 2}}

    def first_loss(name, **chosen):
        _, _, _, events = learn(pair, tmp_path / name, steps=1, loss="ce", **option, **chosen)
        return losses_of(events)[0]

    plain, weighted = first_loss("plain"), first_loss("weighted", class_weights="inverse_frequency")
    alone, doubled = (
        first_loss("alone", deep_supervision_weights=(1, 0, 0)),
        first_loss("doubled", deep_supervision_weights=(2, 0, 0)),
    )
    assert plain > alone  # 1 + 1/2 + 1/4 of about the same
    assert weighted != plain
    assert doubled == pytest.approx(2 * alone)


@pytest.mark.parametrize(
    ("loss", "network", "option", "patch"),
    [
        ("attention_dice", "unet25d", {"width": 2}, (4, 16, 16)),
        ("0.5*dice + attention_dice", "vs_seg", {"width": 2}, (8, 32, 32)),
        ("vae", "segresnet_vae", {"width": 8, "latent": 4}, (16, 16, 16)),
    ],
)
def test_losses_learn_from_attention_and_reconstruction(loss, network, option, patch, tmp_path):
    labels = np.repeat(nested(), 16, axis=1)
    pair = Pair(seen(labels), Volume(labels))
    chosen = {"network": network, "option": option, "view": "3d", "patch": patch, "batch": 2, "seed": 3, "hold_out": 0}
    _, _, _, events = learn(pair, tmp_path / "run", loss=loss, steps=3, **chosen)
    _, _, _, plain = learn(pair, tmp_path / "plain", loss="dice", steps=1, **chosen)
    found = losses_of(events)
    assert np.isfinite(found).all()
    assert found[0] != pytest.approx(losses_of(plain)[0])


@pytest.mark.parametrize(
    ("view", "size", "chosen", "patch"),
    [
        ("3d", (18, 35, 20), {"patch": (32, 48, 32)}, (32, 48, 32)),  # cut to the image, and lengthened by mirroring
        ("3d", (18, 35, 20), {}, (32, 48, 32)),
        ("3d", (4, 35, 20), {"option": {"patch_z": 16, "patch_y": 48, "patch_x": 32}}, (16, 48, 32)),
        ("2d", (3, 35, 5), {"patch": (1, 64, 64)}, (1, 48, 16)),
    ],
)
def test_the_branch_is_built_for_the_patch_of_the_training(view, size, chosen, patch, tmp_path):
    labels = np.zeros((1, *size), np.uint8)
    labels[:, 1:3, 5:25, :4] = 1
    job = {
        "network": "segresnet_vae",
        "loss": "vae",
        "view": view,
        "patch": None,
        "batch": 2,
        "steps": 1,
        "hold_out": 0,
    }
    job |= chosen | {"option": {"width": 8, "latent": 2} | chosen.get("option", {})}
    labelled, _, card, events = learn(Pair(seen(labels), Volume(labels)), tmp_path / "run", **job)
    assert card.patch == patch
    assert tuple(card.option[f"patch_{axis}"] for axis in "zyx")[-card.dims :] == patch[-card.dims :]
    assert card.option["vae"] == "paper"
    assert np.isfinite(losses_of(events)).all()
    assert labelled.shape == size


def test_the_region_head_learns_by_its_own_weight(tmp_path):
    labels = nested()
    masks = np.concatenate([(labels > 0), (labels == 4)]).astype(np.uint8)
    pair = Pair(seen(masks), Volume(masks))
    chosen = {"network": "fine_grained_unet", "option": {"width": 4, "encoder": "orig_unet", "roi_margin": 1}}
    values = {}
    for weight in (0.0, 1.0, 2.0):
        _, _, _, events = learn(
            pair, tmp_path / str(weight), label_values="overlapping", steps=1, roi_weight=weight, **chosen
        )
        values[weight] = losses_of(events)[0]
    assert values[2] - values[0] == pytest.approx(2 * (values[1] - values[0]), rel=1e-4)
    assert values[1] > values[0]


def test_a_training_on_channels_can_be_resumed_to_the_same_model(tmp_path):
    labels = nested()
    pair = Pair(seen(labels), Volume(labels))
    settings = checked(TrainSettings, TINY | {"regions": "brats", "label_blur": 1.0, "steps": 6, "steps_per_epoch": 2})
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    list(loop.steps([pair], settings, training_files(tmp_path / "whole")))
    stopped = loop.steps([pair], settings, training_files(tmp_path / "parts"))
    while not isinstance(next(stopped), EpochDone):
        pass
    stopped.close()
    list(loop.steps([pair], settings, training_files(tmp_path / "parts"), resume=True))
    models = [load_model(tmp_path / name / MODEL, SegmentSettings(device="cpu")) for name in ("whole", "parts")]
    pairs = zip(*(model.network.state_dict().values() for model in models), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
