"""Intensities are measured on what an image shows, whatever lies around it."""

from dataclasses import replace

import numpy as np
import pytest

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.content import content_box
from napari_unetvnet.images.intensity import intensity, joint_brightness, joint_range, unchanged
from napari_unetvnet.images.volume import Volume
from tests.combinations import in_one_case


def noise(shape=(2, 12, 20, 18), seed=0):
    return np.random.default_rng(seed).normal(100, 15, shape).astype(np.float32)


def framed(image, width, value=0):
    """Pad each axis that has a length, by a width or by (before, after)."""
    sides = [np.broadcast_to(width if n > 1 else 0, 2) for n in image.shape[1:]]
    return np.pad(image, [(0, 0), *sides], constant_values=value)


def measured(image, where="content", method="zscore", mask=None):
    found = intensity(Volume(image), method, where, mask)
    return np.stack([found.shift, found.scale])


@in_one_case("method", ["zscore", "percentile"])
@in_one_case("value", [0, 255, -1024, 0.1])
@in_one_case("width", [2, 4, 8, 16, 32, (0, 9), (7, 0)])
@in_one_case("shape", [(2, 12, 20, 18), (1, 1, 40, 30)])
def test_padding_changes_nothing(shape, width, value, method):
    image = noise(shape)
    found = measured(framed(image, width, value), method=method)
    np.testing.assert_array_equal(found, measured(image, method=method))
    if method == "zscore":
        plain = image.reshape(shape[0], -1).astype(float)
        np.testing.assert_allclose(found, [plain.mean(1), plain.std(1)], rtol=1e-5)


def test_frames_in_each_other_and_half_an_image_are_left_out():
    image = noise()
    twice = framed(framed(image, 3, 255), 2, 0)
    np.testing.assert_array_equal(measured(twice), measured(image))
    half = image.copy()
    half[:, :, :10] = 0
    np.testing.assert_array_equal(measured(half), measured(image[:, :, 10:]))


def round_view(value):
    """A disc of noise, 0 and its own dark values included, and what is outside it."""
    y, x = np.ogrid[:60, :60]
    inside = (y - 29.5) ** 2 + (x - 29.5) ** 2 < 27**2
    image = np.where(inside, noise((1, 1, 60, 60)), np.float32(value))
    return image, inside


@in_one_case("value", [0, 255, -1024])
@in_one_case("width", [0, 5])
def test_the_background_around_a_round_field_of_view_is_left_out(value, width):
    image, inside = round_view(value)
    values = image[0, 0][inside].astype(float)
    found = intensity(Volume(framed(image, width, value)), "zscore", "content")
    np.testing.assert_allclose([found.shift[0], found.scale[0]], [values.mean(), values.std()], rtol=1e-5)
    assert found.left_out == pytest.approx(1 - inside.sum() / (60 + 2 * width) ** 2, abs=1e-9)


def test_nonzero_counts_each_channel_by_itself_and_all_counts_everything():
    image = noise()
    image[0, :, :9], image[1, :, 15:] = 0, 0
    channels = [channel[channel != 0].astype(float) for channel in image]
    expected = [[c.mean() for c in channels], [c.std() for c in channels]]
    np.testing.assert_allclose(measured(image, "nonzero"), expected, rtol=1e-5)
    plain = image.reshape(2, -1).astype(float)
    np.testing.assert_allclose(measured(image, "all"), [plain.mean(1), plain.std(1)], rtol=1e-5)


def test_a_mask_chooses_the_voxels():
    image, mask = noise(), np.zeros((1, 12, 20, 18), np.uint8)
    mask[:, 2:9, 3:11, 4:] = 1
    image[:, :, :2] += 1000
    shown = image[:, mask[0] > 0].astype(float)
    np.testing.assert_allclose(measured(image, "mask", mask=mask), [shown.mean(1), shown.std(1)], rtol=1e-5)
    np.testing.assert_array_equal(
        measured(framed(image, 3), "mask", mask=framed(mask, 3)), measured(image, "mask", mask=mask)
    )
    np.testing.assert_array_equal(measured(image, "content", mask=mask), measured(image, "content"))
    with pytest.raises(DataProblem, match="the mask hides all of it"):
        measured(image, "mask", mask=0 * mask)


@in_one_case(
    "image",
    [
        np.zeros((1, 3, 8, 9)),
        np.broadcast_to(np.arange(12.0), (1, 9, 10, 12)),
        np.broadcast_to(np.arange(12.0)[:, None], (1, 1, 12, 10)),
        np.pad(np.full((1, 1, 6, 6), 7.0), ((0, 0), (0, 0), (4, 4), (4, 4))),
    ],
)
def test_an_image_of_which_nothing_would_remain_is_measured_as_a_whole(image):
    found = measured(image)
    assert np.isfinite(found).all()
    if content_box(image).shape == image.shape[1:]:
        np.testing.assert_allclose(found[0], image.mean(), rtol=1e-6)


def test_a_natural_image_is_measured_as_a_whole():
    dark = noise((1, 1, 64, 64)).clip(95) - 95  # a third is exactly 0, as in a dark micrograph
    np.testing.assert_array_equal(measured(dark), measured(dark, "all"))


def test_a_huge_image_in_chunks_is_measured_without_its_cut_out_background(monkeypatch):
    from tests.images.test_arrays import Recorder

    monkeypatch.setattr("napari_unetvnet.images.content.READ_VOXELS", 20_000)
    image = np.zeros((1, 64, 64, 64), np.float32)
    image[:, 12:52, 12:52, 12:52] = noise((1, 40, 40, 40))
    recorder = Recorder(image, (1, 8, 8, 8))
    found = intensity(Volume(recorder), "zscore", "content")
    np.testing.assert_allclose([found.shift[0], found.scale[0]], [100, 15], rtol=0.02)
    again = intensity(Volume(Recorder(image, (1, 8, 8, 8))), "zscore", "content")
    np.testing.assert_array_equal(found.shift, again.shift)


def test_the_range_of_several_images_holds_that_of_each():
    ranges = [intensity(Volume(np.linspace(a, b, 1001).reshape(1, 1, 1, -1)), "none") for a, b in ((0, 100), (50, 300))]
    np.testing.assert_allclose(joint_range(ranges), [(0, 0.5, 298.75, 300)])
    assert joint_range([]) == ()


@in_one_case("method", ["zscore", "percentile", "none"])
def test_brightness_tells_dark_images_from_bright_ones_whatever_their_scale(method):
    ramp = np.linspace(0, 1, 10001) ** 3  # the median is at 1/8
    image = ramp.reshape(1, 1, 73, 137)
    for factor, offset in ((1, 0), (255, 0), (-1, 1), (-4000, 70)):
        found = intensity(Volume((image * factor + offset).astype(np.float32)), method).brightness
        expected = 0.118 if factor > 0 else 0.882  # (0.125 - 0) / 0.985, as all of the percentiles
        np.testing.assert_allclose(found, [expected], atol=0.01)


def test_the_brightness_of_a_constant_image_is_in_the_middle():
    np.testing.assert_array_equal(intensity(Volume(np.full((2, 1, 8, 8), 7)), "zscore").brightness, [0.5, 0.5])


def test_the_joint_brightness_leaves_out_a_tenth_of_the_images_on_both_sides():
    found = [replace(unchanged(1), brightness=np.array([tenth / 10])) for tenth in range(11)]
    assert joint_brightness(found) == ((0.1, 0.9),)
    assert joint_brightness([unchanged(1)]) == ()
