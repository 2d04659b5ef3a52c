"""Counting without loading, and class weights by hand."""

from __future__ import annotations

from collections import Counter

import dask.array
import numpy as np
import pytest
import zarr
from combinations import in_one_case
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from napari_unetvnet.data import counts as counting
from napari_unetvnet.data.counts import count_values
from napari_unetvnet.data.targets import class_weights
from napari_unetvnet.errors import DataProblem, SettingsProblem

RULES = ("inverse_frequency", "effective_number")
sizes = st.lists(st.integers(0, 10**9), min_size=1, max_size=8).filter(any)
integers = st.sampled_from([np.uint8, np.int8, np.int16, np.uint32, np.int64, np.uint64])


class Lazy:
    """Labels that are never in memory as a whole; remembers what was asked for."""

    dtype = np.dtype(np.uint8)

    def __init__(self, shape, chunks=None):
        self.shape, self.chunks, self.asked = shape, chunks, []

    def __getitem__(self, key):
        ranges = [range(*cut.indices(n)) for cut, n in zip(key[-3:], self.shape[-3:], strict=True)]
        self.asked.append(tuple(len(r) for r in ranges))
        z = np.arange(self.shape[-3])[key[-3]]
        return np.broadcast_to((z % 5).astype(np.uint8)[:, None, None], self.asked[-1])


@given(integers.flatmap(lambda dtype: arrays(dtype, array_shapes(min_dims=3, max_dims=3, max_side=6))))
def test_values_are_counted(labels):
    assert count_values(labels) == Counter(labels.ravel().tolist())
    assert count_values(labels[None]) == Counter(labels.ravel().tolist())


def test_truth_values_are_counted():
    assert count_values(np.array([[[True, False, True]]])) == {1: 2, 0: 1}


def test_large_labels_are_read_in_parts():
    lazy = Lazy((50, 1024, 1024))
    assert count_values(lazy) == dict.fromkeys(range(5), 10 << 20)
    assert max(np.prod(asked) for asked in lazy.asked) <= counting.SLAB_VOXELS
    assert len(lazy.asked) < 10


@in_one_case(
    "shape, chunks, box",
    [
        ((60, 50, 30), (7, 8, 9), (7, 32, 30)),  # rows of chunks, and as many of them as go in
        ((60, 30, 30), ((7,) * 8 + (4,), (30,), (30,)), (7, 30, 30)),
        ((60, 100, 100), None, (1, 70, 100)),
        ((60, 10, 10), None, (60, 10, 10)),
        ((1, 60, 100, 100), (1, 100, 10, 10), (60, 10, 10)),
        ((60, 100, 100), (60, 100, 100), (1, 70, 100)),  # one chunk that is too large
    ],
)
def test_parts_are_whole_chunks(monkeypatch, shape, chunks, box):
    monkeypatch.setattr(counting, "SLAB_VOXELS", 7000)
    lazy = Lazy(shape, chunks)
    assert sum(count_values(lazy).values()) == np.prod(shape)
    assert max(lazy.asked) == box
    assert max(np.prod(asked) for asked in lazy.asked) <= 7000


def test_stores_are_counted_like_arrays(tmp_path, monkeypatch):
    monkeypatch.setattr(counting, "SLAB_VOXELS", 1000)
    labels = np.random.default_rng(0).integers(0, 300, (9, 31, 17)).astype(np.uint16)
    np.save(tmp_path / "labels.npy", labels)
    stored = zarr.create_array(tmp_path / "labels.zarr", data=labels, chunks=(4, 8, 8))
    for lazy in (np.load(tmp_path / "labels.npy", mmap_mode="r"), stored, dask.array.from_array(labels, (4, 8, 8))):
        assert count_values(lazy) == Counter(labels.ravel().tolist())


@pytest.mark.parametrize("labels", [np.zeros((2, 2), int), np.zeros((2, 1, 3, 3), int), np.zeros((1, 3, 3))])
def test_what_cannot_be_counted_is_refused(labels):
    with pytest.raises(DataProblem, match=r"; give .*\.$"):
        count_values(labels)


def test_inverse_frequency_by_hand():
    # N = 10, K = 2: 10 / (2 * 8) and 10 / (2 * 2)
    assert class_weights([8, 2], "inverse_frequency") == pytest.approx((0.625, 2.5))
    assert class_weights([8, 0, 2], "inverse_frequency") == pytest.approx((0.625, 1, 2.5))


def test_effective_number_by_hand():
    # N = 4, beta = 3 / 4: E_1 = 1 and E_3 = (1 - 27 / 64) * 4 = 37 / 16; 3 * 16 / 37 + 1 = 85 / 37, so the mean is
    # 85 / 148 and the weights are (16 / 37) / (85 / 148) = 64 / 85 and 148 / 85.
    assert class_weights([3, 1], "effective_number") == pytest.approx((64 / 85, 148 / 85))


@pytest.mark.parametrize("rule", RULES)
@given(counts=sizes)
def test_the_mean_over_the_voxels_is_1(rule, counts):
    weights = class_weights(counts, rule)
    assert sum(n * w for n, w in zip(counts, weights, strict=True)) / sum(counts) == pytest.approx(1)
    assert all(w == 1 for n, w in zip(counts, weights, strict=True) if n == 0)
    assert all(w > 0 for w in weights)


@pytest.mark.parametrize("rule", RULES)
@given(counts=sizes)
def test_rarer_weighs_no_less_and_the_order_of_classes_is_kept(rule, counts):
    weights = class_weights(counts, rule)
    there = sorted((n, -w) for n, w in zip(counts, weights, strict=True) if n)
    assert [w for _, w in there] == sorted(w for _, w in there)
    assert class_weights(counts[::-1], rule) == pytest.approx(weights[::-1])


@pytest.mark.parametrize("rule", RULES)
@in_one_case("counts", [[7], [7, 7], [1, 1, 1, 0], [0, 0], [1], []])
def test_classes_that_are_alike_weigh_1(rule, counts):
    assert class_weights(counts, rule) == pytest.approx((1,) * len(counts))


@given(st.lists(st.integers(1, 10**9), min_size=2, max_size=6), st.integers(2, 1000))
def test_inverse_frequency_looks_at_shares_only(counts, factor):
    larger = [n * factor for n in counts]
    assert class_weights(larger, "inverse_frequency") == pytest.approx(class_weights(counts, "inverse_frequency"))


@given(st.lists(st.integers(1, 10**9), min_size=2, max_size=6))
def test_the_effective_number_lies_between_no_weights_and_inverse_frequency(counts):
    inverse, effective = (class_weights(counts, rule) for rule in RULES)
    rare, frequent = np.argmin(counts), np.argmax(counts)
    steepness = effective[rare] / effective[frequent]
    assert 1 - 1e-9 <= steepness <= inverse[rare] / inverse[frequent] * (1 + 1e-9)


def test_what_are_no_counts_is_refused():
    with pytest.raises(DataProblem, match=r"\[3, -1\] hold a negative number.*\.$"):
        class_weights([3, -1], "inverse_frequency")
    with pytest.raises(SettingsProblem, match=r"'median'.*inverse_frequency or effective_number\.$"):
        class_weights([3, 1], "median")
