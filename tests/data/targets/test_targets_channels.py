"""A channel for each class or region, and softened ones that are still shares."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from combinations import in_one_case
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.ndimage import gaussian_filter

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.data.targets import one_hot, region_channels, soft
from napari_unetvnet.errors import DataProblem, SettingsProblem
from napari_unetvnet.settings.regions import PRESETS, parse_regions

targets = arrays(
    np.uint8, array_shapes(min_dims=3, max_dims=3, max_side=7), elements=st.sampled_from([0, 0, 1, 2, IGNORE])
)


def test_every_class_has_a_channel():
    found = one_hot(np.array([[[0, 2, IGNORE]]], np.uint8), 3)
    assert found.dtype == np.uint8
    assert found[:, 0, 0].tolist() == [[1, 0, IGNORE], [0, 0, IGNORE], [0, 1, IGNORE]]


@given(targets)
def test_the_channels_say_the_class_again(target):
    channels = one_hot(target, 4)
    known = target != IGNORE
    assert (channels[:, ~known] == IGNORE).all()
    assert (channels[:, known].sum(axis=0) == 1).all()
    np.testing.assert_array_equal(channels.argmax(axis=0)[known], target[known])


def test_all_255_classes_have_a_channel():
    target = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    channels = one_hot(target, 255)
    assert (channels[:, 0, 0, 0] == [1, *[0] * 254]).all()
    assert (channels[:, 0, 15, 15] == IGNORE).all()


def test_tumour_regions_lie_in_each_other():
    labels = np.array([[[0, 1, 2, 4]]], np.int16)
    found = region_channels(labels, PRESETS["brats"])
    assert found.dtype == np.uint8
    assert found[:, 0, 0].tolist() == [[0, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1]]


@given(targets, arrays(bool, 7**3))
def test_unknown_voxels_are_unknown_in_every_region(labels, pool):
    known = pool[: labels.size].reshape(labels.shape)
    found = region_channels(labels, parse_regions("a=1 b=1+2"), known)
    assert (found[:, ~known] == IGNORE).all()
    np.testing.assert_array_equal(found[0, known], labels[known] == 1)
    np.testing.assert_array_equal(found[1, known], (labels[known] == 1) | (labels[known] == 2))


@given(targets, st.sampled_from([0, 0.3, 1.0, 3.0, (0, 1, 2)]))
def test_softened_classes_are_1_in_sum_and_keep_what_is_unknown(target, sigma):
    softened = soft(one_hot(target, 3), sigma)
    known = target != IGNORE
    assert softened.dtype == np.float32
    assert (softened[:, ~known] == IGNORE).all()
    assert ((softened[:, known] >= 0) & (softened[:, known] <= 1)).all()
    np.testing.assert_allclose(softened[:, known].sum(axis=0), 1, atol=1e-5)


@given(targets)
def test_a_sigma_of_0_changes_nothing(target):
    channels = one_hot(target, 3)
    np.testing.assert_array_equal(soft(channels, 0), channels)


def test_inside_the_image_it_is_the_gaussian():
    channels = np.zeros((1, 31, 31, 31), np.uint8)
    channels[:, 10:20, 12:18, 15:] = 1
    expected = gaussian_filter(channels[0].astype(float), (1, 2, 0.5))
    found = soft(channels, (1, 2, 0.5))[0]
    np.testing.assert_allclose(found[8:-8, 8:-8, 8:-8], expected[8:-8, 8:-8, 8:-8], atol=1e-6)


def test_a_plane_is_softened_like_the_planes_of_a_stack_without_a_z():
    target = np.random.default_rng(0).integers(0, 3, (4, 20, 20))
    stack = soft(one_hot(target, 3), (0, 1.5, 1.5))
    planes = np.concatenate([soft(one_hot(plane[None], 3), 1.5) for plane in target], axis=1)
    np.testing.assert_allclose(stack, planes, atol=1e-6)


def test_unknown_voxels_do_not_bleed_and_cut_the_image_off():
    """Beside unknown voxels the target is as at the border of an image that ends there."""
    target = np.random.default_rng(1).integers(0, 2, (1, 12, 20)).astype(np.uint8)
    half = target.copy()
    half[:, :, 10:] = IGNORE
    np.testing.assert_allclose(soft(one_hot(half, 2), 1)[..., :10], soft(one_hot(target[:, :, :10], 2), 1), atol=1e-6)


def test_each_channel_may_have_its_own_unknown_voxels():
    channels = np.ones((2, 1, 1, 6), np.uint8)
    channels[1, ..., :3] = IGNORE
    softened = soft(channels, 1)
    assert (softened == channels).all()


@in_one_case(
    "call, problem, said",
    [
        (lambda: one_hot(np.array([[[0, 3]]]), 3), DataProblem, "class index 3, but there are 3 classes"),
        (lambda: one_hot(np.array([[[0.0]]]), 3), DataProblem, "float64 are no labels"),
        (lambda: one_hot(np.array([0, 1]), 3), DataProblem, r"give \(Z, Y, X\)"),
        (lambda: one_hot(np.array([[[0]]]), 0), SettingsProblem, "cannot be 0 classes"),
        (lambda: one_hot(np.array([[[0]]]), 256), SettingsProblem, "cannot be 256 classes"),
        (lambda: region_channels(np.array([[[0]]]), ()), SettingsProblem, "no region"),
        (lambda: region_channels(np.array([[[0.5]]]), PRESETS["brats"]), DataProblem, "no labels"),
        (lambda: soft(np.ones((1, 1, 2, 2)), -1), SettingsProblem, "Sigma is -1; .* at least 0"),
        (lambda: soft(np.ones((1, 1, 2, 2)), (1, 2)), SettingsProblem, "three of them"),
        (lambda: soft(np.ones((1, 1, 2, 2)), np.nan), SettingsProblem, "finite"),
        (lambda: soft(np.ones((1, 2, 2)), 1), DataProblem, r"give \(K, Z, Y, X\)"),
        (lambda: soft(np.full((1, 1, 2, 2), 3), 1), DataProblem, "from 3 to 3; give 0 to 1"),
        (lambda: soft(np.full((1, 1, 2, 2), "a"), 1), DataProblem, "are no numbers"),
    ],
)
def test_what_makes_no_channels_is_refused_with_a_sentence(call, problem, said):
    with pytest.raises(problem, match=said) as caught:
        call()
    assert str(caught.value).endswith(".")


def test_making_targets_possible_does_not_load_what_only_some_need():
    code = (
        "import sys, napari_unetvnet.data.targets; print(*{'scipy', 'skimage', 'torch', 'napari'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
