"""What patches lie around: the classes in the shares that were asked for, the same for the same seed, never IGNORE."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from combinations import in_one_case
from hypothesis import given
from hypothesis import strategies as st

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.data import sampler
from napari_unetvnet.data.patches import BLANK_SHARE, Region, TrainingData
from napari_unetvnet.data.prepare import prepare_data
from napari_unetvnet.data.sampler import Sampler, places
from napari_unetvnet.data.targets import Classes
from napari_unetvnet.images import arrays
from napari_unetvnet.images.intensity import Intensity
from napari_unetvnet.images.pairs import Pair
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.settings import TrainSettings, checked

MODES = ("balanced", "random", "one_positive", "all_positive")
THREE = Classes((0, 1, 2), (0, 1, 2))
OVERLAPPING = Classes((1, 2), (1, 2), multilabel=True)
DRAWS, BATCH = 3000, 4


def indices(seed=0):
    """Two volumes: 70 % of what is known is class 0, 20 % class 1, 10 % class 2, which the first does not have."""
    rng = np.random.default_rng(seed)
    first = rng.choice([0, 1, IGNORE], (4, 20, 20), p=(0.5, 0.2, 0.3)).astype(np.uint8)
    second = rng.choice([0, 1, 2, IGNORE], (2, 30, 30), p=(0.3, 0.2, 0.2, 0.3)).astype(np.uint8)
    return [first, second]


def channels():
    """Two masks that overlap in the middle; nothing is known of the first plane, and of one mask in the second."""
    target = np.zeros((2, 4, 20, 20), np.uint8)
    target[0, :, :12], target[1, :, 8:16] = 1, 1
    target[:, 0], target[1, 1] = IGNORE, IGNORE
    return [target, np.zeros((2, 3, 10, 10), np.uint8)]


def drawn(targets, classes, mode, seed=0):
    """Draw voxels, batch after batch."""
    chooser, rng = Sampler(targets, classes, mode), np.random.default_rng(seed)
    return [chooser.voxel(rng, chooser.kind(rng, i % BATCH, BATCH)) for i in range(DRAWS)]


def shares(targets, voxels):
    counts = Counter(int(targets[i][voxel]) for i, voxel in voxels)
    return [counts[k] / len(voxels) for k in (*range(3), IGNORE)]


def near(share, wanted):
    """Whether a share is within four standard deviations of that of so many draws."""
    return abs(share - wanted) <= 4 * np.sqrt(wanted * (1 - wanted) / DRAWS) + 1e-9


def known_shares(targets):
    counts = sum(np.bincount(target.ravel(), minlength=256) for target in targets)[:3]
    return counts / counts.sum()


@pytest.mark.parametrize("seed", range(3))
def test_each_class_has_the_share_that_was_asked_for(seed):
    targets = indices(seed)
    natural = known_shares(targets)
    third = 2 / BATCH  # a third of four, rounded up
    expected = {
        "balanced": [1 / 3] * 3,
        "random": natural,
        "one_positive": [(1 - third) * natural[0], *((1 - third) * natural[1:] + third / 2)],
        "all_positive": [0, 1 / 2, 1 / 2],
    }
    for mode in MODES:
        *found, ignored = shares(targets, drawn(targets, THREE, mode, seed))
        assert ignored == 0
        assert all(near(share, wanted) for share, wanted in zip(found, expected[mode], strict=True)), (mode, found)


def test_random_voxels_are_alike_in_all_volumes():
    targets = [np.zeros((1, 10, 10), np.uint8), np.zeros((1, 30, 10), np.uint8)]
    targets[1][0, 0, 0] = 1
    found = drawn(targets, Classes((0, 1), (0, 1)), "random")
    assert near(np.mean([i == 0 for i, _ in found]), 1 / 4)
    assert near(np.mean([voxel[1] < 15 for i, voxel in found if i == 1]), 1 / 2)


@in_one_case("batch, positive", [(1, 1), (2, 1), (3, 1), (4, 2), (6, 2), (7, 3)])
def test_a_third_of_a_batch_rounded_up_is_foreground(batch, positive):
    targets = [np.zeros((1, 50, 50), np.uint8)]
    targets[0][0, 20, 20] = 1
    chooser, rng = Sampler(targets, Classes((0, 1), (0, 1)), "one_positive"), np.random.default_rng(0)
    found = [chooser.voxel(rng, chooser.kind(rng, i, batch))[1] for i in range(batch)]
    assert sum(voxel == (0, 20, 20) for voxel in found) == positive


@in_one_case("mode", MODES)
def test_overlapping_classes_are_drawn_each_for_itself(mode):
    targets = channels()
    found = drawn(targets, OVERLAPPING, mode)
    at = np.array([targets[i][(slice(None), *voxel)] for i, voxel in found])
    assert (at != IGNORE).any(axis=1).all()
    nothing = (at == 0).all(axis=1)
    if mode == "all_positive":
        assert not nothing.any()
    if mode == "balanced":
        assert near(nothing.mean(), 1 / 3)
    if mode == "random":
        known = np.concatenate([t.reshape(2, -1)[:, (t != IGNORE).any(axis=0).ravel()] for t in targets], axis=1)
        assert near(nothing.mean(), (known == 0).all(axis=0).mean())


@in_one_case("mode", MODES)
def test_without_any_foreground_patches_lie_around_what_there_is(mode):
    targets = [np.zeros((1, 10, 10), np.uint8), np.full((1, 10, 10), IGNORE, np.uint8)]
    assert all(i == 0 for i, _ in drawn(targets, THREE, mode))


@in_one_case("mode", MODES)
def test_the_same_seed_draws_the_same_voxels(mode):
    assert drawn(indices(), THREE, mode, 5) == drawn(indices(), THREE, mode, 5)
    assert drawn(indices(), THREE, mode, 5) != drawn(indices(), THREE, mode, 6)


@given(st.integers(0, 200), st.sampled_from((0, 3)), st.integers(1, 60), st.integers(1, 400))
def test_places_found_in_parts_are_those_found_at_once(seed, several, remembered, voxels):
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(1, 9, 3))
    values = [0, 1, IGNORE] if several else [0, 1, 2, IGNORE]
    target = rng.choice(values, (several, *shape) if several else shape).astype(np.uint8)
    wanted = [target == k for k in range(3)]
    if several:
        wanted = [*(target == 1), (target == 0).all(axis=0)]
    wanted.append((target != IGNORE).reshape(-1, *shape).any(axis=0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "PART_VOXELS", voxels)
        found, counts = places(target, len(wanted) - 1, remembered)
    for mask, here, count in zip(wanted, found, counts, strict=True):
        every = np.flatnonzero(mask)
        thin = np.linspace(0, len(every) - 1, remembered).astype(int) if len(every) > remembered else slice(None)
        np.testing.assert_array_equal(here, every[thin])
        assert count == len(every)


def test_what_is_stored_does_not_grow_with_the_number_of_images(monkeypatch):
    monkeypatch.setattr(sampler, "STORED_IN_ALL", 4000)
    monkeypatch.setattr(sampler, "FEWEST", 10)
    target = np.arange(2 * 40 * 40).reshape(2, 40, 40).astype(np.uint8) % 3
    for images, each in ((1, 1000), (20, 50), (1000, 10)):  # three classes, and any labelled voxel
        stored = Sampler([target] * images, THREE, "balanced")._places
        assert {len(places) for row in stored for places in row} == {each}


# Patches --------------------------------------------------------------------------------------------------------------


def data_of(voxels, target, classes=THREE, **chosen):
    image = Volume(voxels)
    scale = Intensity(np.zeros(image.channels, np.float32), np.ones(image.channels, np.float32))
    return TrainingData([Region(image, target, scale)], [], classes, checked(TrainSettings, chosen))


def test_balanced_patches_are_where_they_always_were():
    """The rule, written down once more: class, volume that has it, voxel of it, place of the voxel in the patch."""
    rng = np.random.default_rng(0)
    image = rng.normal(size=(1, 3, 40, 50))
    target = rng.choice([0, 1, IGNORE], (3, 40, 50)).astype(np.uint8)
    patch, shape = (2, 8, 8), target.shape
    found = data_of(image, target).batch(np.random.default_rng(7), 20, patch, (0, 0, 0))
    rng = np.random.default_rng(7)
    for got, labels in zip(found.images, found.target, strict=True):
        k, _ = rng.integers(2), rng.integers(1)
        every = np.flatnonzero(target == k)
        voxel = np.unravel_index(every[rng.integers(len(every))], shape)
        start = [int(np.clip(v - rng.integers(p), 0, n - p)) for v, p, n in zip(voxel, patch, shape, strict=True)]
        box = tuple(slice(s, s + p) for s, p in zip(start, patch, strict=True))
        np.testing.assert_array_equal(got, image[(slice(None), *box)].astype(np.float32))
        np.testing.assert_array_equal(labels, target[box])


def half_black():
    """An image that is black on the left, with background everywhere and an object on the right."""
    image = np.zeros((2, 1, 60, 400))
    image[..., 200:] = np.random.default_rng(0).normal(size=(2, 1, 60, 200))
    target = np.zeros((1, 60, 400), np.uint8)
    target[:, 20:40, 300:340] = 1
    return image, target


def blank(images):
    return (images == images[:, :, :1, :1, :1]).all(axis=(1, 2, 3, 4))


@in_one_case("mode", MODES)
def test_blank_patches_are_few_but_there_are_some(mode):
    data = data_of(*half_black(), Classes((0, 1), (0, 1)), sampling=mode)
    found = data.batch(np.random.default_rng(0), 1000, (1, 8, 8), (0, 0, 0))
    background = (found.target == 0).all(axis=(1, 2, 3))
    share = blank(found.images).sum() / max(1, background.sum())
    # Half of the background is black: without a second draw the share would be a half.
    assert (share == 0) if mode == "all_positive" else (0.02 < share < 0.2)
    assert 0 < BLANK_SHARE < 1


def test_drawing_again_keeps_the_shares_of_the_classes():
    image, target = half_black()
    image[..., 200:280] = 0
    data = data_of(image, target, Classes((0, 1), (0, 1)))
    found = data.batch(np.random.default_rng(0), 1000, (1, 1, 1), (0, 0, 0))  # a patch is the voxel: always blank
    assert abs((found.target == 1).mean() - 0.5) < 0.07


def test_a_set_of_blank_images_is_trained_on_all_the_same():
    data = data_of(np.zeros((1, 1, 30, 30)), np.zeros((1, 30, 30), np.uint8))
    found = data.batch(np.random.default_rng(0), 4, (1, 8, 8), (0, 0, 0))
    assert blank(found.images).all()


def test_one_channel_that_is_not_constant_makes_a_patch_worth_seeing():
    image = np.zeros((2, 1, 30, 30))
    image[1, 0, ::2] = 1
    data = data_of(image, np.zeros((1, 30, 30), np.uint8))
    first = data.batch(np.random.default_rng(3), 30, (1, 8, 8), (0, 0, 0))
    image[0] = np.random.default_rng(0).normal(size=image[0].shape)
    other = data.batch(np.random.default_rng(3), 30, (1, 8, 8), (0, 0, 0))
    np.testing.assert_array_equal(first.images[:, 1], other.images[:, 1])  # nothing was drawn again


def test_the_same_seed_draws_the_same_patches_where_some_are_blank():
    data = data_of(*half_black(), Classes((0, 1), (0, 1)), sampling="one_positive")
    first, again = (data.batch(np.random.default_rng([1, 2]), 20, (1, 8, 8), (0, 2, 2)) for _ in range(2))
    np.testing.assert_array_equal(first.images, again.images)
    np.testing.assert_array_equal(first.target, again.target)


@in_one_case("mode", MODES)
def test_every_way_of_sampling_goes_through_the_settings(mode):
    labels = np.zeros((1, 1, 60, 60), np.uint8)
    labels[..., 20:40, 20:40] = 1
    chosen = checked(TrainSettings, {"sampling": mode, "hold_out": 0})
    image = np.random.default_rng(0).normal(size=(1, 1, 60, 60))
    found = prepare_data([Pair(Volume(image), Volume(labels))], chosen, (1, 1, 1)).batch(
        np.random.default_rng(0), 300, (1, 1, 1), (0, 0, 0)
    )
    share = {"balanced": 1 / 2, "random": 1 / 9, "one_positive": 1 / 3 + 2 / 27, "all_positive": 1}[mode]
    assert abs((found.target == 1).mean() - share) <= 4 * np.sqrt(share * (1 - share) / 300)
