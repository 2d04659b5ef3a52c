"""Views, stacks and parts of arrays give what numpy gives, and read no more than that."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_unetvnet.images import arrays
from napari_unetvnet.images.arrays import Stack, View, cut, new_array, parts
from napari_unetvnet.images.intensity import intensity
from napari_unetvnet.images.volume import Box, Volume

sizes = st.tuples(*[st.integers(1, 5)] * 4)


class Recorder:
    """An array that can only be sliced, and notes what was read."""

    def __init__(self, data, chunks=None):
        self._data, self.shape, self.dtype, self.chunks, self.voxels = data, data.shape, data.dtype, chunks, 0

    @property
    def ndim(self):
        return len(self.shape)

    def __getitem__(self, key):
        found = self._data[key]
        self.voxels += found.size
        return found


def numbered(shape, dtype=np.int64):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


@st.composite
def keys(draw, shape):
    """An index with up to four axes, some of them left to an ellipsis."""
    each = []
    for n in shape:
        places = st.none() | st.integers(-n - 1, n + 1)
        steps = st.sampled_from((None, 1, 2, 3, -1, -2))
        each.append(draw(st.integers(-n, n - 1) | st.builds(slice, places, places, steps)))
    first, last = draw(st.integers(0, 4)), draw(st.integers(0, 4))
    return tuple(each) if first + last >= 4 else (*each[:first], ..., *each[4 - last :])


@given(st.data(), sizes, st.permutations(range(4)))
def test_a_view_is_sliced_like_the_array_that_it_turns(data, shape, order):
    source = numbered(shape)
    view = View(source, order)
    key = data.draw(keys(view.shape))
    np.testing.assert_array_equal(view[key], source.transpose(order)[key])
    np.testing.assert_array_equal(np.asarray(view), source.transpose(order))


@given(st.data(), sizes)
def test_a_cut_of_a_cut_is_read_like_a_slice_of_a_slice_and_only_then(data, shape):
    source = Recorder(numbered(shape))
    shown, view = numbered(shape), source
    for _ in range(2):
        bounds = [sorted(data.draw(st.tuples(*[st.integers(0, n)] * 2))) for n in shown.shape]
        key = tuple(slice(a, b) for a, b in bounds)
        shown, view = shown[key], cut(view, key)
    assert source.voxels == 0
    key = data.draw(keys(shown.shape)) if shown.size else ...
    np.testing.assert_array_equal(view[key], shown[key])
    assert source.voxels <= shown.size


def test_a_view_puts_in_and_leaves_out_axes_of_one_voxel_and_turns_bytes():
    source = numbered((3, 1, 4), ">u2")
    view = View(source, (None, None, 0, 2))
    assert (view.shape, view.dtype, view.dtype.isnative) == ((1, 1, 3, 4), np.uint16, True)
    np.testing.assert_array_equal(view[0, 0], source[:, 0])
    assert view[:, 0, 1:].dtype.isnative


def test_a_view_reads_what_is_asked_for_and_knows_its_chunks():
    source = Recorder(numbered((6, 7, 8, 2)), (1, 2, 3, 2))
    view = View(source, (3, 0, 1, 2))
    assert view.chunks == (2, 1, 2, 3)
    assert view[1, 2:4, 3, ::2].shape == (2, 4)
    assert source.voxels == 8


@given(st.data(), st.lists(st.integers(1, 3), min_size=1, max_size=3))
def test_a_stack_is_sliced_like_the_joined_arrays(data, channels):
    each = [numbered((c, 2, 3, 4)) + 100 * i for i, c in enumerate(channels)]
    joined, stack = np.concatenate(each), Stack([Recorder(array) for array in each])
    key = data.draw(keys(joined.shape))
    if joined[key].size:
        np.testing.assert_array_equal(View(stack)[key], joined[key])
    np.testing.assert_array_equal(np.asarray(stack), joined)


@given(st.tuples(*[st.integers(1, 12)] * 3), st.integers(1, 300))
def test_parts_follow_each_other_as_the_voxels_do(shape, voxels):
    array = numbered(shape)
    read = [array[box] for box in parts(array, voxels)]
    assert max(part.size for part in read) <= voxels
    np.testing.assert_array_equal(np.concatenate([part.ravel() for part in read]), array.ravel())


@pytest.mark.parametrize("share", [1.0, 0.0])
def test_an_array_that_is_too_large_for_the_memory_lies_in_a_file(monkeypatch, share):
    monkeypatch.setattr(arrays, "MEMORY_SHARE", share)
    made = new_array((3, 4, 5), np.uint8)
    made[...] = numbered((3, 4, 5))
    assert isinstance(made, np.memmap) == (share == 0)
    np.testing.assert_array_equal(made, numbered((3, 4, 5)))


def test_a_crop_of_an_image_that_can_only_be_sliced_reads_nothing():
    data = Recorder(numbered((2, 6, 7, 8)))
    part = Volume(data).crop(Box((1, 2, 3), (3, 5, 8))).crop(Box((1, 0, 1), (2, 3, 4)))
    assert data.voxels == 0
    np.testing.assert_array_equal(part.data[...], numbered((2, 6, 7, 8))[:, 2:3, 2:5, 4:7])


def test_a_large_image_in_chunks_is_measured_by_some_of_them(monkeypatch):
    monkeypatch.setattr("napari_unetvnet.images.content.READ_VOXELS", 5000)
    voxels = np.random.default_rng(0).normal(7, 3, (2, 40, 40, 40)).astype(np.float32)
    voxels[1] *= 2
    data = Recorder(voxels, (1, 8, 8, 8))
    found = intensity(Volume(data), "zscore")
    assert data.voxels <= 2 * 10 * 8**3
    np.testing.assert_allclose(found.shift, (7, 14), rtol=0.05)
    np.testing.assert_allclose(found.scale, (3, 6), rtol=0.05)
    again = intensity(Volume(Recorder(voxels, (1, 8, 8, 8))), "zscore")
    np.testing.assert_array_equal(found.shift, again.shift)
