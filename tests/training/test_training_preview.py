"""Previews: when they come, where they look, what they show, and that the training does not notice them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from combinations import in_turn
from hypothesis import given
from hypothesis import strategies as st

from napari_unetvnet.data.blocks import block_around, block_of_labels
from napari_unetvnet.errors import OutOfMemory, SettingsProblem
from napari_unetvnet.events import Notice, PreviewReady, StepDone
from napari_unetvnet.images.pairs import Pair
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.inference import steps as segment
from napari_unetvnet.model.model import Model, load_model
from napari_unetvnet.runs.folder import MODEL, STATE, training_files
from napari_unetvnet.settings import SegmentSettings, TrainSettings, checked
from napari_unetvnet.training import loop, preview
from napari_unetvnet.training.preview import PreviewTimes

TINY = {
    "network": "unet3d_ds",
    "option": {"width": 4, "depth": 2},
    "patch": (1, 16, 16),
    "batch": 2,
    "steps_per_epoch": 4,
    "steps": 6,
    "device": "cpu",
    "precision": "fp32",
}
CPU = SegmentSettings(device="cpu", precision="fp32")
BLOCKS = {"view": "3d", "patch": (4, 8, 8)}
triple = st.tuples(*[st.integers(1, 40)] * 3)


def pair_of(shape, seed=0):
    """Bright boxes on noise, of value 2, painted 1 elsewhere."""
    rng = np.random.default_rng(seed)
    labels = np.ones((1, *shape), np.uint8)
    for z, y, x in rng.integers(0, shape, (12, 3)):
        labels[0, z : z + 3, y : y + 8, x : x + 8] = 2
    return Pair(Volume(labels + rng.normal(0, 0.3, labels.shape), name="boxes"), Volume(labels))


def train(folder, pair, **changes):
    folder.mkdir()
    values = TINY | {"unlabelled": "ignore", "background": 1} | changes
    return list(loop.steps([pair], checked(TrainSettings, values), training_files(folder)))


def previews(events):
    return [event for event in events if isinstance(event, PreviewReady)]


@pytest.fixture
def always(monkeypatch):
    """A preview after each step."""
    monkeypatch.setattr(PreviewTimes, "due", lambda self, seconds: True)


def test_a_preview_is_there_after_10_seconds_and_after_20_and_40(tmp_path, monkeypatch):
    ticks = iter(range(1_000))  # one at the start and two a step: a step takes two seconds
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))
    found = previews(train(tmp_path / "run", pair_of((1, 48, 48)), steps=41))
    assert [(event.seconds, event.step) for event in found] == [(10, 5), (20, 10), (40, 20), (80, 40)]
    assert {event.path for event in found} == {str(tmp_path / "run" / "preview.npy")}


@given(st.lists(st.floats(0.01, 30), min_size=1, max_size=200))
def test_each_time_is_asked_for_once(durations):
    times, told = PreviewTimes(), []
    for seconds in np.cumsum(durations):
        if times.due(seconds):
            told.append(seconds)
    assert told == [] or told[0] >= 10
    doublings = [int(np.log2(seconds / 10)) for seconds in told]
    assert doublings == sorted(set(doublings))
    reached = sum(durations)
    assert len(told) >= 1 or reached < 10


def test_slow_previews_are_put_off():
    times = PreviewTimes()
    assert times.due(10)
    times.took(6)
    assert not times.due(59)
    assert times.due(61)
    times.took(0.1)
    assert times.due(80)


@given(st.tuples(*[st.integers(0, 60)] * 3), triple, triple)
def test_a_block_lies_in_the_image_around_the_voxel(at, shape, size):
    box = block_around(at, shape, size)
    assert box.shape == tuple(map(min, size, shape))
    for place, start, stop, n in zip(at, box.start, box.stop, shape, strict=True):
        assert 0 <= start <= min(place, n - 1) < stop <= n


@given(st.tuples(*[st.integers(0, 20)] * 3), st.tuples(*[st.integers(3, 9)] * 3))
def test_a_block_of_labels_holds_them(corner, size):
    labels = np.zeros((1, 24, 25, 26), np.uint8)
    z, y, x = corner
    labels[0, z : z + 3, y : y + 3, x : x + 3] = 1
    box = block_of_labels(labels, size)
    assert box.shape == size
    assert labels[0][box.slices].sum() == labels.sum()


def test_without_a_wish_the_plane_with_most_labels_is_shown(tmp_path, always):
    pair = pair_of((5, 24, 30))
    pair.labels.data[:, :3] = 0
    pair.labels.data[:, 3, 1:9] = 0
    (event, *_) = previews(train(tmp_path / "run", pair, steps=1))
    assert event.start == (4, 0, 0)
    assert np.load(event.path).shape == (1, 24, 30)


def test_a_large_plane_is_cut_around_the_wish(tmp_path, always, monkeypatch):
    monkeypatch.setattr(preview, "WHOLE_PLANE", 32)
    (event,) = previews(train(tmp_path / "run", pair_of((3, 80, 90)), steps=1, preview=(1, 0, 60)))
    assert event.start == (1, 0, 44)
    assert np.load(event.path).shape == (1, 32, 32)


def test_in_3d_a_block_of_two_patches_is_shown(tmp_path, always):
    (event,) = previews(train(tmp_path / "run", pair_of((6, 40, 40)), steps=1, preview=(99, 20, 24), **BLOCKS))
    assert event.start == (0, 12, 16)
    assert np.load(event.path).shape == (6, 16, 16)


@pytest.mark.parametrize(
    ("changes", "plane"),
    in_turn([{"network": "unet_padding"}, {"ema_decay": 0.9}, {"view": "2.5d", "context": 2}, {}], [0, 3]),
)
def test_the_last_preview_is_what_the_model_says(tmp_path, always, plane, changes):
    """Without a hold-out the newest weights are the model; planes beside the shown one are seen."""
    pair = pair_of((5, 24, 24))
    events = train(tmp_path / "run", pair, preview=(plane, 0, 0), hold_out=0, **changes)
    shown = np.load(previews(events)[-1].path)
    slabs = segment(load_model(tmp_path / "run" / MODEL, CPU), pair.image, CPU)
    expected = np.concatenate([slab.labels for slab in slabs])[plane : plane + 1]
    assert shown.dtype == expected.dtype == np.uint8
    assert np.array_equal(shown, expected)


def test_of_classes_that_overlap_the_later_one_is_shown(tmp_path, always):
    masks = np.zeros((2, 1, 32, 32), np.uint8)
    masks[0, :, 4:28, 4:28], masks[1, :, 10:20, 10:20] = 1, 1
    pair = Pair(Volume(5.0 * masks.sum(axis=0, keepdims=True)), Volume(masks))
    settings = {"label_values": "overlapping", "unlabelled": "background", "background": None, "hold_out": 0}
    events = train(tmp_path / "run", pair, steps=40, learning_rate=0.02, **settings)
    shown = np.load(previews(events)[-1].path)
    slabs = segment(load_model(tmp_path / "run" / MODEL, CPU), pair.image, CPU)
    first, second = np.concatenate([slab.labels for slab in slabs], axis=1)
    assert second.any()
    assert np.array_equal(shown, np.where(second, second, first))


@pytest.mark.parametrize("changes", [{}, {"ema_decay": 0.9}, BLOCKS, {"network": "unet_padding"}])
def test_the_model_is_the_same_with_and_without_previews(tmp_path, monkeypatch, changes):
    pair = pair_of((6, 40, 40))
    without = train(tmp_path / "without", pair, **changes)
    monkeypatch.setattr(PreviewTimes, "due", lambda self, seconds: True)
    events = train(tmp_path / "with", pair, **changes)
    assert len(previews(without)) == 0
    assert len(previews(events)) == 6
    assert (tmp_path / "with" / MODEL).read_bytes() == (tmp_path / "without" / MODEL).read_bytes()


@pytest.mark.parametrize(("ema_decay", "last"), [(0, 1), (0.9, 2)])  # the last is scored before: the EMA, if any
def test_modes_and_random_numbers_stay_as_they_are(tmp_path, monkeypatch, ema_decay, last):
    seen = []
    show = preview.TrainingPreview.show

    def watched(self):
        network = self._run.model.network
        next(network.children()).eval()  # as a part that is frozen

        def state():
            modes = [part.training for part in network.modules()]
            weights = [tensor.clone() for tensor in network.state_dict().values()]
            return modes, [*weights, torch.get_rng_state()], np.random.get_state()[1].tolist()

        before = state()
        yield from show(self)
        after = state()
        same = all(torch.equal(a, b) for a, b in zip(before[1], after[1], strict=True))
        seen.append((before[0] == after[0], same, before[2] == after[2], len(set(before[0]))))

    monkeypatch.setattr(PreviewTimes, "due", lambda self, seconds: True)
    monkeypatch.setattr(preview.TrainingPreview, "show", watched)
    train(tmp_path / "run", pair_of((1, 40, 40)), ema_decay=ema_decay, steps=3)
    assert seen == [(True, True, True, 2), (True, True, True, 2), (True, True, True, last)]


def test_no_memory_for_a_preview_ends_previews_and_nothing_else(tmp_path, always, monkeypatch):
    asked = []

    def logits(self, blocks, **_):
        asked.append(blocks)
        raise OutOfMemory("too large")

    monkeypatch.setattr(Model, "logits", logits)
    events = train(tmp_path / "run", pair_of((1, 40, 40)), hold_out=0)
    assert previews(events) == []
    assert len(asked) == 1
    assert sum(isinstance(event, StepDone) for event in events) == 6
    assert sum("no more previews: too large" in event.text for event in events if isinstance(event, Notice)) == 1


def test_a_preview_is_written_whole_or_not_at_all(tmp_path, always, monkeypatch):
    save, calls = np.save, []

    def failing(file, labels):
        calls.append(file)
        if len(calls) == 2:
            file.write(b"half")
            raise OSError("No space left on device")
        save(file, labels)

    monkeypatch.setattr(preview.np, "save", failing)
    events = train(tmp_path / "run", pair_of((1, 40, 40)), steps=2)
    assert [event.step for event in previews(events)] == [1]
    assert np.load(tmp_path / "run" / "preview.npy").shape == (1, 40, 40)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {MODEL, STATE, "preview.npy"}


def test_the_place_is_a_voxel():
    assert checked(TrainSettings, {"preview": [0, 3, 4]}).preview == (0, 3, 4)
    with pytest.raises(SettingsProblem, match="preview"):
        checked(TrainSettings, {"preview": (-1, 0, 0)})
