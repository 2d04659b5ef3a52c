"""Volumes: reading boxes that reach beyond the image, and intensities."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from combinations import in_one_case
from hypothesis import given
from hypothesis import strategies as st

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.geometry import Geometry
from napari_unetvnet.images.intensity import intensity
from napari_unetvnet.images.volume import Box, Volume, check_finite, read_box

MODES = {"reflect": "reflect", "symmetric": "symmetric", "edge": "edge"}
modes = st.tuples(*[st.sampled_from(list(MODES))] * 3)
sizes = st.tuples(*[st.integers(1, 6)] * 3)


def padded_index(size, start, stop, mode):
    """Which voxels of an axis numpy.pad shows between start and stop."""
    margin = max(0, -start, stop - size)
    return np.pad(np.arange(size), margin, mode=MODES[mode])[start + margin : stop + margin]


def by_numpy(data, start, stop, chosen):
    for axis, (a, b, mode) in enumerate(zip(start, stop, chosen, strict=True), start=data.ndim - 3):
        data = np.take(data, padded_index(data.shape[axis], a, b, mode), axis=axis)
    return data


def numbered(size, channels=2):
    return np.arange(channels * np.prod(size)).reshape(channels, *size)


@st.composite
def boxes(draw):
    """A size and a box that may lie anywhere, also far outside."""
    size = draw(sizes)
    start = tuple(draw(st.integers(-30, 30)) for _ in size)
    stop = tuple(a + draw(st.integers(1, 25)) for a in start)
    return size, start, stop


class Recorder:
    """An array that remembers what was read."""

    def __init__(self, data):
        self.data, self.shape, self.ndim, self.dtype = data, data.shape, data.ndim, data.dtype
        self.read = []

    def __getitem__(self, key):
        self.read.append(key)
        return self.data[key]


@given(boxes(), modes)
def test_a_box_equals_the_padded_image(box, chosen):
    size, start, stop = box
    data = numbered(size)
    got = read_box(data, start, stop, chosen)
    assert got.shape == (2, *(b - a for a, b in zip(start, stop, strict=True)))
    np.testing.assert_array_equal(got, by_numpy(data, start, stop, chosen))


@given(boxes(), modes)
def test_nothing_but_the_needed_voxels_is_read_and_that_once(box, chosen):
    size, start, stop = box
    data = Recorder(numbered(size))
    read_box(data, start, stop, chosen)
    (key,) = data.read
    assert key[0] is Ellipsis
    for cut, n, a, b, mode in zip(key[1:], size, start, stop, chosen, strict=True):
        needed = padded_index(n, a, b, mode)
        assert (cut.start, cut.stop, cut.step) == (needed.min(), needed.max() + 1, None)


@pytest.mark.parametrize("chosen", [("reflect",) * 3, ("edge",) * 3, ("edge", "reflect", "symmetric")])
def test_a_box_of_a_lazy_array_equals_that_of_a_real_one(chosen):
    data = numbered((5, 9, 7))
    lazy = da.from_array(data, chunks=(1, 2, 4, 3))
    for start, stop in (((-3, -2, -20), (9, 30, 4)), ((1, 2, 3), (4, 5, 6))):
        got = read_box(lazy, start, stop, chosen)
        assert isinstance(got, np.ndarray)
        np.testing.assert_array_equal(got, by_numpy(data, start, stop, chosen))


def test_labels_without_channels_are_read_too():
    data = numbered((3, 4, 5), 1)[0]
    np.testing.assert_array_equal(
        read_box(data, (-1, -1, -1), (4, 5, 6), ("reflect",) * 3), np.pad(data, 1, mode="reflect")
    )


def test_a_box_knows_its_shape_and_its_slices():
    box = Box((1, 0, 2), (4, 6, 3))
    assert box.shape == (3, 6, 1)
    assert numbered((5, 7, 8))[0][box.slices].shape == box.shape


def test_a_crop_keeps_the_spacing_and_lies_where_its_voxels_lay():
    data = numbered((4, 5, 6))
    whole = Volume(data, Geometry.upright((2.0, 0.5, 0.25), "micrometer", (10, 20, 30)), "cells")
    part = whole.crop(Box((1, 0, 2), (3, 5, 6)))
    np.testing.assert_array_equal(part.data, data[:, 1:3, 0:5, 2:6])
    assert (part.spacing, part.unit, part.name) == (whole.spacing, "micrometer", "cells")
    assert part.geometry.origin == (12, 20, 30.5)


def test_a_crop_of_a_lazy_image_reads_nothing():
    data = Recorder(numbered((4, 5, 6)))
    assert Volume(data).crop(Box((0, 0, 0), (1, 2, 3))).shape == (1, 2, 3)
    lazy = Volume(da.from_array(numbered((4, 5, 6)))).crop(Box((0, 0, 0), (1, 2, 3)))
    assert isinstance(lazy.data, da.Array)


def test_a_volume_knows_its_size():
    volume = Volume(numbered((4, 5, 6), channels=3))
    assert (volume.channels, volume.shape) == (3, (4, 5, 6))


@in_one_case("shape", [(4, 5), (3, 4, 5), (1, 1, 1, 4, 5), (1, 0, 4, 5), (0, 1, 4, 5)])
def test_an_array_that_is_no_image_is_refused_with_its_shape(shape):
    with pytest.raises(DataProblem, match=r"^cells: .*\(C, Z, Y, X\).*\.$") as caught:
        Volume(np.zeros(shape), name="cells")
    assert str(shape) in str(caught.value)


@pytest.mark.parametrize("dtype", [np.complex64, "U3", object])
def test_values_that_are_no_intensities_are_refused_with_their_type(dtype):
    with pytest.raises(DataProblem, match=rf"^cells: .*{np.dtype(dtype)}.*\.$"):
        Volume(np.zeros((1, 1, 2, 2), dtype), name="cells")


@in_one_case("method", ["zscore", "percentile", "none"])
@in_one_case("dtype", [bool, np.uint8, np.int16, np.uint64, np.float16, np.float32, np.float64])
def test_every_number_type_becomes_finite_float32(dtype, method):
    data = np.random.default_rng(0).integers(0, 2, (2, 3, 8, 9)).astype(dtype)
    applied = intensity(Volume(data), method).apply(data)
    assert applied.dtype == np.float32
    assert applied.shape == data.shape
    assert np.isfinite(applied).all()


def some_image(seed=0, scale=(3.0, 100.0), shift=(-5.0, 1000.0)):
    noise = np.random.default_rng(seed).gamma(2.0, size=(2, 6, 20, 30))
    return noise * np.reshape(scale, (2, 1, 1, 1)) + np.reshape(shift, (2, 1, 1, 1))


def test_zscore_gives_each_channel_mean_0_and_deviation_1():
    applied = intensity(Volume(some_image()), "zscore").apply(some_image())
    np.testing.assert_allclose(applied.mean((1, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(applied.std((1, 2, 3)), 1, atol=1e-4)


def test_percentile_brings_the_1st_to_0_and_the_99_8th_to_1():
    applied = intensity(Volume(some_image()), "percentile").apply(some_image())
    np.testing.assert_allclose(np.percentile(applied, 1, axis=(1, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(np.percentile(applied, 99.8, axis=(1, 2, 3)), 1, atol=1e-4)


def test_none_leaves_values_as_they_are():
    data = some_image().astype(np.float32)
    np.testing.assert_array_equal(intensity(Volume(data), "none").apply(data), data)


@pytest.mark.parametrize("method", ["zscore", "percentile"])
def test_other_units_give_the_same_network_input(method):
    one, other = some_image(), some_image(scale=(0.3, 4000.0), shift=(7.0, 0.0))
    np.testing.assert_allclose(
        intensity(Volume(one), method).apply(one), intensity(Volume(other), method).apply(other), atol=1e-3
    )


@pytest.mark.parametrize("method", ["zscore", "percentile"])
@in_one_case("value", [0, 7, 0.1, -1e-3, 1e6 / 3])
@in_one_case("dtype", [np.float32, np.float64])
def test_a_constant_channel_becomes_zero_and_hardly_blows_up_what_differs(value, dtype, method):
    data = np.full((1, 3, 17, 19), value, dtype)
    measured = intensity(Volume(data), method)
    np.testing.assert_allclose(measured.apply(data), 0, atol=1e-6 * max(1, abs(value)))
    np.testing.assert_allclose(measured.scale, 1)


@pytest.mark.parametrize("spread", [1e-50, 1e-39])
def test_a_spread_below_float32_stays_finite(spread):
    data = np.random.default_rng(0).random((1, 1, 8, 8)) * spread
    assert np.isfinite(intensity(Volume(data), "zscore").apply(data)).all()


@pytest.mark.parametrize("method", ["zscore", "percentile"])
@in_one_case("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused_with_their_count(bad, method):
    data = some_image()
    data[1, 2, 3, 4:6] = bad
    with pytest.raises(DataProblem, match=r"^cells: 2 voxels are NaN or infinite; .*\.$"):
        intensity(Volume(data, name="cells"), method)


def test_whole_numbers_are_always_finite():
    check_finite(np.array([1, 2]), "cells")
    check_finite(np.array([1.0, 2.0]), "cells")
    with pytest.raises(DataProblem, match="cells: 1 voxels"):
        check_finite(np.array([1.0, np.nan]), "cells")


def test_a_large_image_is_measured_from_a_sample_of_its_planes(monkeypatch):
    monkeypatch.setattr("napari_unetvnet.images.intensity.SAMPLE_VOXELS", 500)
    data = np.random.default_rng(0).normal(50, 10, (1, 40, 30, 30))
    recorder = Recorder(data)
    measured = intensity(Volume(recorder), "zscore")
    (key,) = recorder.read
    assert data[key].size <= 1000
    assert measured.shift[0] == pytest.approx(50, abs=3)
    assert measured.scale[0] == pytest.approx(10, abs=3)
