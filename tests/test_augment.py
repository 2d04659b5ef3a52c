"""Augmentation must move an image and its labels together and leave the labels right."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_unetvnet.augment import augment
from napari_unetvnet.settings import IGNORE

IN_PLANE = (-2, -1)


def coordinates(count=8, size=(3, 4, 5), margin=(0, 0, 0)):
    """Patches whose voxels hold their own number, with the same number as the label inside of the margin."""
    whole = [n + 2 * m for n, m in zip(size, margin, strict=True)]
    numbers = torch.arange(float(np.prod(whole))).reshape(whole)
    inner = numbers[tuple(slice(m, m + n) for n, m in zip(size, margin, strict=True))]
    images = torch.stack([numbers, numbers + 1000]).expand(count, 2, *whole).clone()
    return images, inner.expand(count, *size).clone()


class NoNoise:
    """A generator that flips by chance and changes no intensity."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed).random

    def normal(self, mean, deviation, shape):
        return np.full(shape, float(mean))


@pytest.mark.parametrize("margin", [(0, 0, 0), (1, 2, 2)])
@pytest.mark.parametrize("axes", [IN_PLANE, (-3, -2, -1), (-1,), ()])
def test_image_and_labels_are_flipped_together(margin, axes):
    images, target = coordinates(count=100, margin=margin)
    flipped, labels, _ = augment(images, target, None, NoNoise(0), axes)
    z, y, x = (slice(m, m + n) for n, m in zip(target.shape[1:], margin, strict=True))
    assert torch.equal(flipped[:, 0, z, y, x], labels)
    assert torch.equal(flipped[:, 1], flipped[:, 0] + 1000)
    different = {tuple(patch.flatten().tolist()) for patch in labels}
    assert len(different) == 2 ** len(axes)


def test_only_the_chosen_axes_are_mirrored():
    images, target = coordinates(count=32)
    _, labels, _ = augment(images, target, None, NoNoise(0))
    for patch in labels:
        assert any(torch.equal(patch.flip(axes), target[0]) for axes in ((), (-1,), (-2,), (-2, -1)))


def test_shapes_types_and_labels_are_kept():
    images = torch.randn(6, 2, 3, 8, 9)
    target = torch.randint(0, 3, (6, 1, 4, 5), dtype=torch.uint8)
    target[:, :, 0] = IGNORE
    new_images, new_target, _ = augment(images, target, None, np.random.default_rng(0))
    assert (new_images.shape, new_images.dtype) == (images.shape, images.dtype)
    assert (new_target.shape, new_target.dtype) == (target.shape, target.dtype)
    for before, after in zip(target, new_target, strict=True):
        assert torch.equal(before.flatten().sort().values, after.flatten().sort().values)


def test_the_same_chance_gives_the_same_patches():
    images, target = coordinates()
    first = augment(images, target, None, np.random.default_rng(4))
    again = augment(images, target, None, np.random.default_rng(4))
    other = augment(images, target, None, np.random.default_rng(5))
    assert all(torch.equal(a, b) for a, b in zip(first[:2], again[:2], strict=True))
    assert not torch.equal(first[0], other[0])


def test_what_comes_in_is_left_as_it_was():
    images, target = coordinates()
    kept = images.clone(), target.clone()
    new_images, new_target, _ = augment(images, target, None, np.random.default_rng(0), ())
    new_images += 1
    new_target += 1
    assert torch.equal(images, kept[0])
    assert torch.equal(target, kept[1])


def test_brightness_and_contrast_change_by_about_a_tenth_for_each_patch_and_channel():
    ends = torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 1, 2).expand(2000, 2, 1, 1, 2)
    images, _, _ = augment(ends, torch.zeros(2000, 1, 1, 2), None, np.random.default_rng(0), ())
    offset, gain = images[..., 0], images[..., 1] - images[..., 0]
    assert offset.mean().item() == pytest.approx(0, abs=0.01)
    assert offset.std().item() == pytest.approx(0.1, abs=0.01)
    assert gain.mean().item() == pytest.approx(1, abs=0.01)
    assert gain.std().item() == pytest.approx(0.1, abs=0.01)
    assert abs(torch.corrcoef(offset[:, :, 0, 0].T)[0, 1].item()) < 0.1


def test_weights_and_channels_of_a_target_are_flipped_with_the_image():
    images, target = coordinates(count=32)
    channels = torch.stack([target, target + 1], dim=1)
    flipped, labels, weight = augment(images, channels, target + 0.5, NoNoise(0))
    assert torch.equal(labels[:, 0], flipped[:, 0])
    assert torch.equal(labels[:, 1], flipped[:, 0] + 1)
    assert torch.equal(weight, flipped[:, 0] + 0.5)
