"""Changes of intensity, each alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from combinations import in_one_case
from scipy.ndimage import gaussian_filter

from napari_unetvnet.data.augment import Change, Recipe, augment

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randn(4, 2, 12, 16, 16, generator=GENERATOR) + torch.arange(8.0).reshape(4, 2, 1, 1, 1)
VOXELS = (-3, -2, -1)


def changed(images=IMAGES, moving=("z", "y", "x"), **changes):
    target = torch.zeros(len(images), *images.shape[2:], dtype=torch.uint8)
    return augment(images, target, {}, np.random.default_rng(0), Recipe(moving=moving, **changes))[0]


def test_noise_has_the_deviation_that_was_asked_for():
    noise = changed(noise=Change(1, 0.3, 0.3)) - IMAGES
    assert noise.std().item() == pytest.approx(0.3, rel=0.02)
    assert noise.mean().item() == pytest.approx(0, abs=0.01)
    rows = noise.flatten(0, 1).flatten(1)
    assert (torch.corrcoef(rows) - torch.eye(8)).abs().max() < 0.1


@pytest.mark.parametrize("moving", [("z", "y", "x"), ("y", "x")])
def test_blur_is_a_gaussian_of_the_moving_axes(moving):
    blurred = changed(moving=moving, blur=Change(1, 0.8, 0.8))
    sigma = [0.8 if axis in moving else 0 for axis in "zyx"]
    expected = gaussian_filter(IMAGES[0, 0].numpy(), sigma, mode="nearest", radius=[3 if s else 0 for s in sigma])
    assert np.allclose(blurred[0, 0], expected, atol=1e-5)


def test_brightness_and_offset_are_within_their_range():
    images = changed(IMAGES.sign(), brightness=Change(1, 0.9, 1.1, 1))
    assert images.abs().min() >= 0.9
    assert images.abs().max() <= 1.1
    moved = changed(offset=Change(1, -0.1, 0.1)) - IMAGES
    assert 0 < moved.abs().max() <= 0.1 + 1e-5
    assert len(moved.mul(1000).round().unique()) > 4


def test_contrast_keeps_the_mean_and_the_range():
    less = changed(contrast=Change(1, 0.5, 0.5))
    assert torch.allclose(less.mean(VOXELS), IMAGES.mean(VOXELS), atol=1e-4)
    assert torch.allclose(less.std(VOXELS), IMAGES.std(VOXELS) / 2, rtol=1e-3)
    more = changed(contrast=Change(1, 1.5, 1.5))
    assert torch.equal(more.amax(VOXELS), IMAGES.amax(VOXELS))
    assert torch.equal(more.amin(VOXELS), IMAGES.amin(VOXELS))


@pytest.mark.parametrize("moving", [("z", "y", "x"), ("y", "x")])
def test_low_resolution_keeps_the_mean_and_loses_detail(moving):
    coarse = changed(moving=moving, low_resolution=Change(1, 0.5, 0.5))
    assert torch.allclose(coarse.mean(VOXELS), IMAGES.mean(VOXELS), atol=0.02)
    assert (coarse.std(VOXELS) < 0.6 * IMAGES.std(VOXELS)).all()
    if "z" not in moving:
        alone = changed(IMAGES[:, :, 3:4].contiguous(), moving=moving, low_resolution=Change(1, 0.5, 0.5))
        assert torch.allclose(coarse[:, :, 3:4], alone)


@pytest.mark.parametrize("name", ["gamma", "inverted_gamma"])
def test_gamma_keeps_mean_deviation_and_order(name):
    bent = changed(**{name: Change(1, 1.5, 1.5)})
    assert torch.allclose(bent.mean(VOXELS), IMAGES.mean(VOXELS), atol=1e-4)
    assert torch.allclose(bent.std(VOXELS), IMAGES.std(VOXELS), rtol=1e-3)
    assert not torch.allclose(bent, IMAGES, atol=0.1)
    order = IMAGES[0, 0].flatten().argsort()
    assert (bent[0, 0].flatten()[order].diff() >= -1e-4).all()
    darker = bent[0, 0].median() < IMAGES[0, 0].median()
    assert darker == (name == "gamma")


@in_one_case("size", [(1, 1, 1), (1, 2, 9), (3, 1, 4)])
@in_one_case("field", ["noise", "blur", "brightness", "contrast", "low_resolution", "gamma", "inverted_gamma"])
def test_even_images_and_tiny_ones_stay_finite(field, size):
    images = torch.ones(2, 1, *size)
    assert changed(images, **{field: Change(1, 0.5, 0.5)}).isfinite().all()


def test_channels_that_are_not_chosen_keep_their_values():
    images = changed(gamma=Change(0.5, 0.7, 1.5, 1))
    same = [torch.equal(a, b) for a, b in zip(images.flatten(0, 1), IMAGES.flatten(0, 1), strict=True)]
    assert 0 < sum(same) < 8
