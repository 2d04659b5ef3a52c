"""The hold-out holds what is to be scored, is never in a training patch, and costs few labels beside itself."""

from __future__ import annotations

import importlib.util
from math import prod
from pathlib import Path

import numpy as np
import pytest
from combinations import in_one_case
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.data.boxes import free_around, grown, intersection, subtract, volume_of
from napari_unetvnet.data.counts import class_counts
from napari_unetvnet.data.hold_out import choose_blocks, with_margins
from napari_unetvnet.data.patches import Region
from napari_unetvnet.data.prepare import prepare_data
from napari_unetvnet.data.scored import representative_part
from napari_unetvnet.data.targets import Classes
from napari_unetvnet.data.whole_images import choose_images
from napari_unetvnet.images.intensity import Intensity
from napari_unetvnet.images.pairs import Pair
from napari_unetvnet.images.volume import Box, Volume
from napari_unetvnet.settings import TrainSettings, checked

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "hold_out.py"
RAW = Intensity(np.zeros(1, np.float32), np.ones(1, np.float32))


@pytest.fixture(scope="module")
def layouts():
    spec = importlib.util.spec_from_file_location("hold_out_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_class_is_scored_and_no_held_out_voxel_is_in_a_patch(layouts):
    for name, layout in layouts.LAYOUTS.items():
        for seed in range(5):
            for patch in [(1, 32, 32), (4, 24, 24)] if name == "object in one plane" else [(1, 32, 32)]:
                faults, margin = layouts.faults(layout(np.random.default_rng(seed)), patch, seed, batches=2)
                assert not faults, (name, seed, patch)
                assert margin <= 0.12, (name, seed, patch)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.05, 0.5), st.integers(2, 4))
def test_blocks_hold_every_class_and_leave_most_of_it(seed, share, classes):
    rng = np.random.default_rng(seed)
    target = np.full((rng.integers(1, 5), 40, 40), IGNORE, np.uint8)
    for k in range(classes):
        for _ in range(rng.integers(1, 4)):
            z, y, x = (rng.integers(n) for n in target.shape)
            target[z, y : y + 8, x : x + 8] = k
    total = class_counts(target)
    blocks = choose_blocks(target, share, (1, 16, 16))
    held_out = sum(class_counts(target[box.slices]) for box in blocks)
    assert (held_out[total > 1] > 0).all()
    assert not held_out[total == 1].any()
    assert ((total - held_out)[total > 1] >= 0.6 * (1 - share) * total[total > 1] - 1e-9).all()
    assert sum(map(volume_of, blocks)) == sum(map(volume_of, subtract(blocks, []))), "they do not overlap"
    for i, block in enumerate(blocks):
        assert not any(intersection(block, other) for other in blocks[i + 1 :])
    barred = with_margins(target, blocks, (1, 16, 16))
    left = subtract([Box((0, 0, 0), target.shape)], barred)
    lost = total - held_out - sum(class_counts(target[box.slices]) for box in left)
    assert lost.sum() <= 0.12 * total.sum()
    assert (lost <= 0.2 * (total - held_out) + 1e-9).all()


def test_margins_are_as_wide_as_the_labels_allow():
    rng = np.random.default_rng(0)
    large = rng.integers(0, 3, (1, 400, 400)).astype(np.uint8)
    (block,) = choose_blocks(large, 0.05, (1, 32, 32))
    assert with_margins(large, [block], (1, 32, 32)) == [grown(block, (0, 32, 32), large.shape)]
    small = large[:, :64, :64]
    (block,) = choose_blocks(small, 0.2, (1, 32, 32))
    (wide,) = with_margins(small, [block], (1, 32, 32))
    assert 0 < volume_of(wide) - volume_of(block) <= 0.12 * small.size
    stack = rng.integers(0, 3, (60, 30, 30)).astype(np.uint8)
    block = Box((20, 0, 0), (25, 30, 30))
    # Planes are kept apart as far as a patch is wide: 2 planes of 8.
    assert with_margins(stack, [block], (1, 16, 16), (8.0, 1.0, 1.0)) == [Box((18, 0, 0), (27, 30, 30))]


@settings(max_examples=60)
@given(st.data())
def test_the_part_around_a_voxel_is_free(data):
    shape = data.draw(st.tuples(*[st.integers(1, 9)] * 3))
    places = [st.integers(0, n - 1) for n in shape]
    voxel = data.draw(st.tuples(*places))
    corners = st.tuples(st.tuples(*places), st.tuples(*[st.integers(1, 4)] * 3))
    barred = []
    for corner, size in data.draw(st.lists(corners, max_size=4)):
        box = Box(corner, tuple(min(a + n, end) for a, n, end in zip(corner, size, shape, strict=True)))
        if intersection(box, Box(voxel, tuple(v + 1 for v in voxel))) is None:
            barred.append(box)
    free = free_around(voxel, shape, barred, (2, 3, 3))
    assert all(a <= v < b for a, v, b in zip(free.start, voxel, free.stop, strict=True))
    assert not any(intersection(free, box) for box in barred)
    expected, covered = np.ones(shape, int), np.zeros(shape, int)
    for box in barred:
        expected[box.slices] = 0
    for box in subtract([Box((0, 0, 0), shape)], barred):
        covered[box.slices] += 1
    np.testing.assert_array_equal(covered, expected)


def images_with(*values, shape=(1, 30, 30)):
    """Give a pair for each tuple of values, with a square of each value."""
    pairs = []
    for i, row in enumerate(values):
        labels = np.zeros((1, *shape), np.uint8)
        for place, value in enumerate(row):
            labels[0, 0, 2 + 8 * place : 8 + 8 * place, 4:20] = value
        image = np.random.default_rng(i).normal(size=(1, *shape))
        pairs.append(Pair(Volume(image, name=f"a{i}"), Volume(labels)))
    return pairs


def split_of(pairs, **chosen):
    data = prepare_data(pairs, checked(TrainSettings, {"normalise": "none", **chosen}), (1, 16, 16))
    sides = [
        np.sum([r.class_counts[: len(data.classes)] for r in side], axis=0) for side in (data.train, data.hold_out)
    ]
    return data, *sides


@in_one_case("seed", range(8))
def test_whole_images_are_chosen_such_that_every_class_is_on_both_sides(seed):
    # An object in two of six images, then a class in two of six, then one in a single image of six.
    data, train, hold_out = split_of(images_with((1,), (), (), (1,), (), ()), seed=seed)
    assert train.all() and hold_out.all()
    assert {r.image.name for r in data.hold_out} in ({"a0"}, {"a3"})
    data, train, hold_out = split_of(images_with((1,), (1, 2), (1,), (1,), (1, 2), (1,)), seed=seed)
    assert train.all() and hold_out.all()
    assert {r.image.name for r in data.hold_out} in ({"a1"}, {"a4"})
    data, train, hold_out = split_of(images_with((1,), (1,), (1, 2), (1,), (1,), (1,)), seed=seed)
    assert train.all() and hold_out.all()
    assert all(data.parts(2)), "a block of the only one"
    assert len({r.number for r in data.hold_out}) == 2


def test_images_of_one_content_stay_together_and_chosen_ones_depend_on_the_seed():
    counts = np.ones((10, 2), int) * 100
    chosen = {tuple(choose_images(counts, 0.2, seed, range(10))) for seed in range(20)}
    assert len(chosen) > 5
    assert {len(row) for row in chosen} == {2}
    for seed in range(10):
        held_out = set(choose_images(counts, 0.2, seed, [0, 0, 0, 3, 4, 5, 6, 7, 8, 9]))
        assert not held_out & {0, 1, 2} or {0, 1, 2} <= held_out


def test_what_cannot_be_scored_is_told_once_with_its_class():
    labels = np.zeros((1, 1, 64, 64), np.uint8)
    labels[0, 0, 10:30, 10:30], labels[0, 0, 50, 50] = 1, 3
    pair = Pair(Volume(np.random.default_rng(0).normal(size=labels.shape)), Volume(labels))
    data, train, hold_out = split_of([pair])
    assert [text for text in data.notices if "Class" in text] == [
        "Class 3 is in one place only, so it is trained on and not scored."
    ]
    assert list(train > 0) == [True, True, True]
    assert list(hold_out > 0) == [True, True, False]
    assert data.scored.class_voxels == {"0": hold_out[0], "1": hold_out[1], "3": 0}
    assert data.notices[-1] == f"The score stands on 1 image, {hold_out.sum()} voxels, 1 object."
    labels[0, 0, 10:30, 10:30] = 0
    single, _, hold_out = split_of([pair])
    assert not hold_out.any()
    assert not any("aint" in text for text in single.notices)
    assert "Each class is in one place only" in single.notices[0]
    assert single.scored is None


def test_an_object_in_the_middle_of_a_labelled_image_is_held_out_in_part():
    labels = np.zeros((1, 1, 700, 700), np.uint8)
    labels[0, 0, 300:420, 300:420] = 1
    data, train, hold_out = split_of([Pair(Volume(np.broadcast_to(0.0, labels.shape)), Volume(labels))])
    assert hold_out[1] == pytest.approx(0.2 * 14400, rel=0.2)
    assert train[1] > 0.6 * 14400
    assert data.scored.objects == 1


NEAR_CLASSES = Classes((0, 1), (0, 1))


@in_one_case(
    "shape, box, patch, voxels",
    [
        ((40, 100, 100), ((16, 40, 40), (24, 60, 60)), (8, 24, 24), 2**14),
        ((1, 500, 500), ((0, 200, 200), (1, 250, 250)), (1, 64, 64), 2**14),
        ((1, 500, 500), ((0, 490, 490), (1, 500, 500)), (1, 64, 64), 2**14),
        ((12, 120, 120), ((7, 70, 80), (8, 90, 100)), (1, 64, 64), 2**14),
    ],
)
def test_the_part_scored_after_each_epoch_holds_every_class_and_is_no_larger_than_asked(shape, box, patch, voxels):
    target = np.zeros(shape, np.uint8)
    target[Box(*box).slices] = 1
    region = Region(Volume(np.broadcast_to(0.0, (1, *shape))), target, RAW)
    empty = Region(region.image, np.zeros(shape, np.uint8), RAW, number=1)
    part = representative_part([region, empty], NEAR_CLASSES, voxels, patch, 0)
    counts = sum(each.class_counts for each in part)
    assert counts[1] > 0
    assert voxels / 2 < sum(prod(each.image.shape) for each in part) <= voxels
    again = representative_part([region, empty], NEAR_CLASSES, voxels, patch, 0)
    assert [(each.number, each.start) for each in part] == [(each.number, each.start) for each in again]


def test_the_part_represents_the_whole():
    rng = np.random.default_rng(0)
    target = (np.kron(rng.random((1, 32, 32)) < 0.3, np.ones((1, 16, 16)))).astype(np.uint8)
    target[0, :, 400:] *= 2  # class 2 on one side only
    region = Region(Volume(np.broadcast_to(0.0, (1, *target.shape))), target, RAW)
    part = representative_part([region], Classes((0, 1, 2), (0, 1, 2)), target.size // 8, (1, 64, 64), 3)
    fraction = (sum(each.class_counts for each in part) / region.class_counts.clip(1))[:3]
    np.testing.assert_allclose(fraction, fraction.mean(), atol=0.01)
    assert sum(prod(each.image.shape) for each in part) == pytest.approx(target.size / 8, rel=0.2)
    assert len(part) > 3
