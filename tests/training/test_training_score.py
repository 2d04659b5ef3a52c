"""What scores a model: a quick part after each epoch, all that was held out at the end."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
from combinations import in_one_case
from test_inference_segment import RAW, pointwise_model
from test_training import settings_of, train

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.data.boxes import volume_of
from napari_unetvnet.data.patches import Region
from napari_unetvnet.data.prepare import prepare_data
from napari_unetvnet.data.targets import Classes
from napari_unetvnet.events import CheckpointSaved, EpochDone
from napari_unetvnet.images.pairs import Pair
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.model.card import read_card
from napari_unetvnet.model.model import load_model
from napari_unetvnet.runs.folder import MODEL, training_files
from napari_unetvnet.settings import SegmentSettings
from napari_unetvnet.training import loop, score, validation
from napari_unetvnet.training.score import dice_on


@pytest.fixture
def pairs():
    """Four noisy images of squares; one of them will be held out."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(4):
        labels = np.ones((1, 1, 64, 64), np.uint8)
        for y, x in rng.integers(0, 56, (12, 2)):
            labels[0, 0, y : y + 8, x : x + 8] = 2
        made.append(Pair(Volume(labels + rng.normal(0, 0.5, labels.shape), name=f"squares {i}"), Volume(labels)))
    return made


def test_the_kept_model_has_its_score_on_all_that_was_held_out(pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(score, "LEAST_VOXELS", 400)
    settings = settings_of(steps_per_epoch=4, batch=1, steps=12)
    data = prepare_data(pairs, settings, settings.planned_patch)
    part = score.part_to_score(data, settings)
    assert sum(prod(each.image.shape) for each in part) < prod(data.hold_out[0].image.shape) / 4
    (tmp_path / "run").mkdir()
    events = list(loop.steps(pairs, settings, training_files(tmp_path / "run")))
    model = load_model(tmp_path / "run" / MODEL, SegmentSettings(device="cpu"))
    whole, by_class = dice_on(data.hold_out, model, data.classes)
    card = read_card(tmp_path / "run" / MODEL)
    assert card.scores["hold_out_dice"] == pytest.approx(whole)
    assert card.scores["hold_out_dice_2"] == pytest.approx(by_class["2"])
    last = [event for event in events if isinstance(event, CheckpointSaved)][-1]
    assert last.dice == pytest.approx(whole)
    looks = {event.step: event.dice for event in events if isinstance(event, EpochDone)}
    assert looks[last.step] == max(looks.values()) or last.step == 12  # the best on the part, or the last


@pytest.mark.parametrize(("of_last", "kept"), [(0.59, 4), (0.6, 12), (0.7, 12)])
def test_the_best_on_the_part_and_the_last_are_compared_on_the_whole(pairs, tmp_path, monkeypatch, of_last, kept):
    told = iter([0.9, 0.8, 0.7, 0.6, of_last])  # three epochs on a part, then the best and the last on the whole
    for module in (validation, score):
        monkeypatch.setattr(module, "dice_on", lambda *_: (next(told), {}))
    monkeypatch.setattr(loop, "part_to_score", lambda *_: [])
    events = train(pairs[0], settings_of(steps_per_epoch=4, batch=1, steps=12), tmp_path / "run")
    last = [event for event in events if isinstance(event, CheckpointSaved)][-1]
    assert (last.step, last.dice) == (kept, max(0.6, of_last))


def test_what_is_said_of_ignored_voxels_does_not_count():
    image = np.array([1.0, 1, -1, -1, 1, -1]).reshape(1, 1, 1, 6)  # the network says 0 0 1 1 0 1
    target = np.array([0, 1, 1, 0, IGNORE, IGNORE], np.uint8).reshape(1, 1, 6)
    region = Region(Volume(image), target, RAW)
    mean, by_class = dice_on([region], pointwise_model(patch=(1, 1, 6)), Classes((0, 1), (0, 1)))
    assert by_class["1"] == 2 * 1 / (2 + 2)  # one of two, of which there are two
    assert mean == by_class["1"]


def test_a_small_hold_out_is_scored_whole_each_time(pairs, tmp_path):
    settings = settings_of()
    data = prepare_data(pairs, settings, settings.planned_patch)
    assert score.part_to_score(data, settings) == data.hold_out
    events = train(pairs[0], settings, tmp_path / "run")
    saved = [event for event in events if isinstance(event, CheckpointSaved)]
    assert len({event.step for event in saved}) == len(saved)


@in_one_case(
    "view, shape, patch",
    [("2.5d", (9, 96, 96), (1, 32, 32)), ("3d", (40, 48, 40), (16, 16, 16)), ("2d", (1, 160, 160), (1, 32, 32))],
)
def test_tiles_are_scored_with_what_is_around_them(view, shape, patch, monkeypatch):
    monkeypatch.setattr(score, "LEAST_VOXELS", prod(shape) // 2)
    monkeypatch.setattr(score, "TIME_SHARE", 0)
    rng = np.random.default_rng(0)
    labels = np.kron(rng.random((1, *(-(-n // 8) for n in shape))) < 0.3, np.ones((1, 8, 8, 8)))
    labels = labels[:, : shape[0], : shape[1], : shape[2]].astype(np.uint8) + 1
    images = [labels + rng.normal(0, 1, labels.shape) for _ in range(2)]
    pairs = [Pair(Volume(images[i]), Volume(labels), split=("train", "val")[i]) for i in range(2)]
    settings = settings_of(view=view, patch=patch)
    data = prepare_data(pairs, settings, patch)
    part, (whole,) = score.part_to_score(data, settings), data.hold_out
    along_z = {"3d": 8, "2.5d": settings.context, "2d": 0}[view]
    seen = 0
    for tile in part:
        (box,) = tile.boxes
        seen += volume_of(box)
        for axis, reach in enumerate((along_z, 8, 8)):
            assert tile.start[axis] <= max(0, box.start[axis] - reach)
            assert tile.start[axis] + tile.image.shape[axis] >= min(shape[axis], box.stop[axis] + reach)
        scored = tile.target != IGNORE
        assert scored.sum() == volume_of(box)
        np.testing.assert_array_equal(tile.target[scored], whole.target[box.slices].ravel())
    assert 0 < seen < prod(shape)
