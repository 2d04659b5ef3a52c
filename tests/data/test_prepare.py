"""Where patches come from: never from the hold-out, always around labels, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.data.prepare import prepare_data
from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.pairs import Pair
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.settings import TrainSettings, checked

DENSE = TrainSettings(normalise="none")


def numbered(shape):
    """An image in which every voxel has its own value, so that a patch tells where it is from."""
    return np.arange(np.prod(shape), dtype=np.float64).reshape(1, *shape)


def painted(shape, rng):
    return rng.integers(0, 2, (1, *shape)).astype(np.uint8)


@settings(max_examples=30, deadline=None)
@given(
    st.tuples(st.integers(1, 12), st.integers(20, 60), st.integers(20, 60)),
    st.tuples(st.integers(1, 4), st.integers(4, 24), st.integers(4, 24)),
    st.tuples(st.integers(0, 2), st.integers(0, 30), st.integers(0, 30)),
    st.integers(0, 1000),
)
def test_no_voxel_of_the_hold_out_is_ever_in_a_training_patch(shape, patch, margin, seed):
    rng = np.random.default_rng(seed)
    pair = Pair(Volume(numbered(shape)), Volume(painted(shape, rng)))
    data = prepare_data([pair], DENSE, patch)
    assert data.hold_out
    held = np.concatenate([np.asarray(pair.image.crop(box).data).ravel() for box in data.parts(0)[1]])
    for _ in range(5):
        images, _, _ = data.batch(rng, 2, patch, margin)
        assert not np.isin(images, held.astype(np.float32)).any()


def test_patches_bring_the_image_and_the_labels_of_one_place():
    shape = (6, 40, 50)
    rng = np.random.default_rng(0)
    labels = painted(shape, rng)
    data = prepare_data(
        [Pair(Volume(numbered(shape)), Volume(labels))], TrainSettings(normalise="none", hold_out=0), (2, 8, 8)
    )
    images, target, _ = data.batch(rng, 16, (2, 8, 8), (1, 4, 4))
    inner = images[:, 0, 1:-1, 4:-4, 4:-4].astype(np.int64)
    np.testing.assert_array_equal(labels.ravel()[inner], target)


def test_the_same_seed_draws_the_same_patches():
    shape = (1, 64, 64)
    labels = painted(shape, np.random.default_rng(0))
    data = prepare_data([Pair(Volume(numbered(shape)), Volume(labels))], DENSE, (1, 16, 16))
    first, second = (data.batch(np.random.default_rng([3, 7]), 4, (1, 16, 16), (0, 0, 0)) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def test_a_rare_class_is_drawn_as_often_as_the_others():
    labels = np.ones((1, 1, 100, 100), np.uint8)
    labels[0, 0, 40:44, 20:24] = 2  # 16 of 10000 pixels
    chosen = checked(TrainSettings, {"unlabelled": "ignore", "hold_out": 0, "normalise": "none"})
    data = prepare_data([Pair(Volume(numbered((1, 100, 100))), Volume(labels))], chosen, (1, 9, 9))
    _, target, _ = data.batch(np.random.default_rng(0), 400, (1, 9, 9), (0, 0, 0))
    share = (target == 1).any(axis=(1, 2, 3)).mean()
    assert 0.4 < share < 0.65


def test_every_patch_around_scribbles_holds_a_painted_voxel():
    labels = np.zeros((1, 1, 200, 200), np.uint8)
    labels[0, 0, 10:14, 10:60] = 1
    labels[0, 0, 150:154, 100:160] = 2
    chosen = checked(TrainSettings, {"unlabelled": "ignore", "normalise": "none"})
    data = prepare_data([Pair(Volume(numbered((1, 200, 200))), Volume(labels))], chosen, (1, 32, 32))
    _, target, _ = data.batch(np.random.default_rng(0), 100, (1, 32, 32), (0, 0, 0))
    assert (target != IGNORE).any(axis=(1, 2, 3)).all()


def test_a_volume_smaller_than_the_patch_is_mirrored_and_its_outside_ignored():
    labels = np.ones((1, 1, 6, 6), np.uint8)
    labels[0, 0, :3] = 2
    chosen = checked(TrainSettings, {"unlabelled": "ignore", "hold_out": 0, "normalise": "none"})
    data = prepare_data([Pair(Volume(numbered((1, 6, 6))), Volume(labels))], chosen, (1, 10, 10))
    images, targets, _ = data.batch(np.random.default_rng(0), 30, (1, 10, 10), (0, 0, 0))
    places = set()
    for image, target in zip(images[:, 0, 0], targets[:, 0], strict=True):
        inside = np.argwhere(target != IGNORE)
        y, x = (int(n) for n in inside.min(axis=0))
        places.add((y, x))
        assert (inside.max(axis=0) == (y + 5, x + 5)).all()
        widths = ((y, 4 - y), (x, 4 - x))
        np.testing.assert_array_equal(image, np.pad(numbered((1, 6, 6))[0, 0], widths, mode="reflect"))
        np.testing.assert_array_equal(target == IGNORE, np.pad(np.zeros((6, 6), bool), widths, constant_values=True))
    assert len(places) > 10


def test_whole_volumes_are_held_out_where_there_are_several():
    rng = np.random.default_rng(0)
    pairs = [Pair(Volume(numbered((1, 30, 30)) + i, name=str(i)), Volume(painted((1, 30, 30), rng))) for i in range(10)]
    data = prepare_data(pairs, DENSE, (1, 16, 16))
    assert (len(data.train), len(data.hold_out)) == (8, 2)
    parts = [data.parts(number) for number in range(10)]
    assert sorted((len(learnt), len(held)) for learnt, held in parts) == [(0, 1)] * 2 + [(1, 0)] * 8
    names = {region.image.name for region in data.hold_out}
    assert all(name in data.notices[0] for name in names)
    again = prepare_data(pairs, DENSE, (1, 16, 16))
    assert {region.image.name for region in again.hold_out} == names


def test_the_users_split_is_kept():
    rng = np.random.default_rng(0)
    pairs = [
        Pair(Volume(numbered((1, 30, 30)), name=name), Volume(painted((1, 30, 30), rng)), split)
        for name, split in (("a", "train"), ("b", "val"), ("c", "train"))
    ]
    data = prepare_data(pairs, DENSE, (1, 16, 16))
    assert [region.image.name for region in data.hold_out] == ["b"]
    with pytest.raises(DataProblem, match="All pairs are marked val"):
        prepare_data([Pair(pairs[0].image, pairs[0].labels, "val")], DENSE, (1, 16, 16))


def test_images_of_different_channels_are_refused():
    labels = Volume(painted((1, 30, 30), np.random.default_rng(0)))
    pairs = [Pair(Volume(np.zeros((c, 1, 30, 30)), name=str(c)), labels) for c in (1, 3)]
    with pytest.raises(DataProblem, match="1: 1, 3: 3"):
        prepare_data(pairs, DENSE, (1, 16, 16))


def test_labels_without_any_paint_are_refused_unless_other_images_have_some():
    rng = np.random.default_rng(0)
    empty = Pair(Volume(numbered((1, 30, 30))), Volume(np.zeros((1, 1, 30, 30), np.uint8), name="empty"))
    full = Pair(empty.image, Volume(painted((1, 30, 30), rng)))
    with pytest.raises(DataProblem, match=r"^Labels empty contain only 0; paint .*\.$"):
        prepare_data([empty], DENSE, (1, 16, 16))
    assert prepare_data([empty, full], DENSE, (1, 16, 16)).classes.values == (0, 1)
    with pytest.raises(DataProblem, match="Labels empty"):
        prepare_data([empty, full], checked(TrainSettings, {"unlabelled": "ignore"}), (1, 16, 16))
