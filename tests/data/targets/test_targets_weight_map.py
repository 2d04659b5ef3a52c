"""The U-Net weight map: hand calculations, and a distance transform for each object as the judge."""

from __future__ import annotations

import numpy as np
import pytest
from combinations import in_one_case
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.ndimage import distance_transform_edt

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.data.targets import Classes, distances, make_target, separation_weights
from napari_unetvnet.data.targets.distances import two_nearest
from napari_unetvnet.data.targets.weight_map import separation
from napari_unetvnet.errors import DataProblem, SettingsProblem
from napari_unetvnet.settings import TrainSettings, checked


def row(*ids, dtype=np.uint16):
    return np.array([[ids]], dtype)


def term(objects, **chosen):
    """The separation term alone."""
    return separation_weights(objects, balance=False, **chosen) - 1


def transformed(objects, spacing=(1, 1, 1)):
    """The two smallest distances, by a transform for each object."""
    nearest, second = np.full((2, *objects.shape), np.inf)
    for number in np.unique(objects[objects > 0]):
        distance = distance_transform_edt(objects != number, sampling=spacing)
        second = np.minimum(second, np.maximum(nearest, distance))
        nearest = np.minimum(nearest, distance)
    return nearest, second


def judged(objects, w0=10.0, sigma=5.0, spacing=(1, 1, 1), everywhere=False):
    nearest, second = transformed(objects, spacing)
    value = w0 * np.exp(-((nearest + second) ** 2) / (2 * sigma**2))
    return np.where(everywhere | (objects == 0), value, 0)


def blobs(shape, count, seed, size=3):
    """Boxes with random places, ids and sizes; some touch, some overlap."""
    rng = np.random.default_rng(seed)
    objects = np.zeros(shape, np.int64)
    for _ in range(count):
        start = [rng.integers(0, n) for n in shape]
        cut = tuple(slice(s, s + rng.integers(1, size + 1)) for s in start)
        objects[cut] = rng.integers(1, 10_000)
    return objects


@pytest.mark.parametrize(("gap", "expected"), [(1, 9.231163), (9, 1.353353), (19, 0.003355)])
def test_the_weight_of_a_gap_is_the_calculated_one(gap, expected):
    weights = term(row(1, *[0] * gap, 2))[0, 0]
    np.testing.assert_allclose(weights[1:-1], expected, atol=1e-6)  # d1 + d2 = gap + 1 all the way
    assert weights[0] == weights[-1] == 0


def test_objects_that_touch_are_one_apart():
    weights = term(row(0, 3, 3, 8, 8), everywhere=True)[0, 0]
    # 1 + 3 in front, then 0 inside its own object and 2, 1, 1, 2 to the other.
    np.testing.assert_allclose(weights, 10 * np.exp(-np.array([16, 4, 1, 1, 4]) / 50), rtol=1e-6)
    assert not term(row(3, 3, 8, 8)).any()  # no background, no term


@in_one_case("objects", [row(0, 0, 0), row(0, 5, 5, 0), row(5, 5, 5), row(5, 0, 5)])
def test_with_fewer_than_two_objects_nothing_is_added(objects):
    assert not term(objects, everywhere=True).any()


def test_w0_of_0_leaves_the_balance():
    assert (separation_weights(row(1, 0, 2), w0=0, balance=False) == 1).all()


@in_one_case("spacing", [(1, 1, 1), (3.5, 1, 1), (1, 0.2, 0.3), (0.7, 2, 1.3)])
@in_one_case("everywhere", [False, True])
@in_one_case("shape", [(1, 40, 53), (1, 1, 60), (1, 60, 1), (7, 19, 23), (20, 1, 20), (1, 1, 1)])
def test_the_map_is_that_of_a_transform_for_each_object(shape, spacing, everywhere):
    for seed, count in enumerate((2, 5, 40)):
        objects = blobs(shape, count, seed)
        given_ = {"spacing": spacing, "everywhere": everywhere, "sigma": 2.0}
        np.testing.assert_allclose(term(objects, **given_), judged(objects, **given_), atol=2e-6)


@given(
    arrays(
        np.uint8, array_shapes(min_dims=3, max_dims=3, max_side=7), elements=st.sampled_from([0, 0, 0, 1, 2, 7, 255])
    ),
    st.tuples(*[st.sampled_from([0.4, 1.0, 1.7])] * 3),
    st.sampled_from([1.0, 2.5, 1000.0]),
)
def test_distances_are_exact_within_reach(objects, spacing, reach):
    for found, true in zip(two_nearest(objects, reach, spacing), transformed(objects, spacing), strict=True):
        near = true <= reach
        np.testing.assert_allclose(found[near], true[near], rtol=1e-6)
        assert (found[~near] >= true[~near] * (1 - 1e-6)).all()


@pytest.mark.parametrize("block", [1, 100])
def test_lines_may_be_treated_in_any_number_of_blocks(monkeypatch, block):
    objects = blobs((5, 17, 19), 15, 1)
    whole = term(objects, everywhere=True)
    monkeypatch.setattr(distances, "BLOCK_VOXELS", block)
    np.testing.assert_array_equal(term(objects, everywhere=True), whole)


def test_real_nuclei_have_the_map_of_a_transform_for_each(nuclei_objects):
    objects = nuclei_objects[None, :200, :200]
    np.testing.assert_allclose(term(objects), judged(objects), atol=2e-6)


@in_one_case("dtype", [bool, np.uint8, np.uint16, np.int32, np.uint32, np.int64, np.uint64])
def test_any_integer_type_holds_ids(dtype):
    one = term(np.array([[[1, 0, 0, 1]]], dtype))
    assert not one.any()
    if dtype is not bool:
        largest = np.iinfo(dtype).max
        weights = term(np.array([[[largest, 0, largest - 1]]], dtype))
        assert weights[0, 0, 1] == pytest.approx(9.231163, abs=1e-6)


@given(st.permutations(range(1, 9)), st.integers(0, 2**32 - 1))
def test_which_id_an_object_has_does_not_matter(order, seed):
    objects = np.random.default_rng(seed).choice(9, size=(2, 8, 9), p=[0.6, *[0.05] * 8])
    renamed = np.array([0, *order])[objects] * 1_000_003
    np.testing.assert_array_equal(separation_weights(objects), separation_weights(renamed))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_mirrored_image_has_the_mirrored_map(axis):
    objects = blobs((6, 17, 19), 12, 0)
    np.testing.assert_array_equal(np.flip(term(objects), axis), term(np.flip(objects, axis)))


def test_the_axes_are_alike():
    objects = blobs((9, 17, 19), 12, 0)
    turned = term(objects.transpose(2, 0, 1), spacing=(3, 1, 2))
    np.testing.assert_allclose(turned, term(objects, spacing=(1, 2, 3)).transpose(2, 0, 1), rtol=1e-5)


def test_planes_far_apart_are_images_of_their_own():
    objects = blobs((4, 30, 30), 30, 3)
    alone = np.concatenate([term(plane[None]) for plane in objects])
    np.testing.assert_array_equal(term(objects, spacing=(1000, 1, 1)), alone)


def test_spacing_and_sigma_in_another_unit_give_the_same():
    objects = blobs((3, 20, 20), 10, 4)
    in_nm = term(objects, spacing=(3000, 1000, 1000), sigma=5000.0)
    np.testing.assert_allclose(term(objects, spacing=(3, 1, 1)), in_nm, rtol=1e-4)


def test_the_balance_is_inverse_to_the_frequency_and_1_in_the_mean():
    weights = separation_weights(row(5, 0, 0, 0), w0=0)
    np.testing.assert_allclose(weights[0, 0], [2, 2 / 3, 2 / 3, 2 / 3], rtol=1e-6)
    objects = blobs((3, 20, 20), 10, 5)
    assert separation_weights(objects, w0=0).mean() == pytest.approx(1, abs=1e-6)
    assert (separation_weights(np.zeros((1, 3, 3), int)) == 1).all()


def test_unknown_voxels_weigh_nothing_and_change_nothing():
    objects = row(1, 0, 2, 2, 0, 0, 4)
    known = row(1, 1, 1, 1, 0, 0, 0, dtype=bool)
    weights = separation_weights(objects, known=known, everywhere=True)
    assert (weights[~known] == 0).all()
    np.testing.assert_allclose(
        weights[known], separation_weights(objects[:, :, :4], everywhere=True).ravel(), rtol=1e-6
    )
    other = np.where(known, objects, 9)
    np.testing.assert_array_equal(weights, separation_weights(other, known=known, everywhere=True))


def test_the_map_leaves_its_input_alone_and_is_single_precision():
    objects = blobs((1, 20, 20), 10, 6)
    before = objects.copy()
    weights = separation_weights(objects)
    assert weights.dtype == np.float32
    assert weights.shape == objects.shape
    np.testing.assert_array_equal(objects, before)
    objects.flags.writeable = False
    np.testing.assert_array_equal(separation_weights(objects), weights)


@in_one_case(
    "objects, chosen, problem, said",
    [
        (np.zeros((4, 4), int), {}, DataProblem, r"shape \(4, 4\); give \(Z, Y, X\).*Z = 1"),
        (np.zeros((1, 0, 4), int), {}, DataProblem, "at least one voxel"),
        (np.zeros((1, 4, 4)), {}, DataProblem, "float64 are no labels; give integers"),
        (row(1, -3, dtype=int), {}, DataProblem, "the value -3"),
        (row(1, 0), {"sigma": 0}, SettingsProblem, "sigma is 0"),
        (row(1, 0), {"sigma": np.inf}, SettingsProblem, "sigma is inf"),
        (row(1, 0), {"w0": -1}, SettingsProblem, "w0 is -1"),
        (row(1, 0), {"spacing": (1, 1)}, SettingsProblem, r"Spacing is \(1, 1\)"),
        (row(1, 0), {"spacing": (0, 1, 1)}, SettingsProblem, "above 0"),
        (row(1, 0), {"known": np.ones((1, 1, 3), bool)}, DataProblem, r"bool of shape \(1, 1, 3\)"),
        (row(1, 0), {"known": np.ones((1, 1, 2), int)}, DataProblem, "int64 of shape"),
    ],
)
def test_what_cannot_be_weighed_is_refused_with_a_sentence(objects, chosen, problem, said):
    with pytest.raises(problem, match=said) as caught:
        separation_weights(objects, **chosen)
    assert str(caught.value).endswith(".")


TOUCHING = np.zeros((1, 20, 24), np.int64)
TOUCHING[0, 5:15, 4:12], TOUCHING[0, 5:15, 12:20] = 1, 2
CLASSES = Classes((0, 1), (0, 1))


def mapped(labels, spacing=(1.0, 1.0, 1.0), mask=None, **chosen):
    """The target of labels (Z, Y, X), and its weight map."""
    settings = checked(TrainSettings, {"label_values": "objects", "loss": "unet_weighted_ce", **chosen})
    target = make_target(labels[None], CLASSES, settings, "labels", mask)
    return target, separation(labels[None], target, settings, spacing)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 1.0, 2.0), (0.1, 0.5, 1.0)])
@pytest.mark.parametrize("kind", ["foreground", "separated", "borders", "boundaries"])
def test_the_map_is_made_of_the_gaps_and_classes_that_the_target_shows(kind, spacing):
    target, weights = mapped(TOUCHING, spacing, objects_as=kind)
    inside = target == (0 if kind == "boundaries" else 1)
    objects = np.where(inside, TOUCHING, 0)
    counts = np.bincount(target.ravel())
    balance = (target.size / len(counts) / counts)[target]
    relative = (1, *(edge / min(spacing[1:]) for edge in spacing[1:]))
    np.testing.assert_allclose(weights, balance + judged(objects, spacing=relative), rtol=1e-4)
    if kind == "separated" and spacing == (1, 1, 1):
        gap = weights[(target == 0) & (TOUCHING > 0)]
        assert (len(gap), gap[3]) == (20, pytest.approx(9.059, abs=1e-3))


@pytest.mark.parametrize("chosen", [{}, {"label_values": "classes"}, {"label_values": "classes", "head": "multilabel"}])
def test_in_views_of_planes_each_plane_has_the_separation_of_itself(chosen):
    stack = np.zeros((3, 12, 30), np.int64)
    stack[:2, 3:9, 3:9] = stack[1:, 3:9, 12:18] = stack[1, 8, 3:18] = 1  # two pieces, joined by the plane between
    ids = stack * np.where(np.arange(30) < 10, 1, 2)
    labels = stack if chosen else ids
    for view, reaches in (("2d", False), ("2.5d", False), ("3d", True)):
        _, weights = mapped(labels, view=view, **chosen)
        background = weights[0][stack[0] == 0]
        assert (np.ptp(background) > 1) == (reaches and not chosen)
    _, weights = mapped(stack[[0, 2]].max(axis=0, keepdims=True), **chosen | {"label_values": "classes"})
    assert weights[0, 5, 10] > 5


def test_what_is_ignored_is_no_object_and_background_is_what_is_called_so():
    mask = np.ones(TOUCHING.shape)
    mask[..., 12:] = 0
    target, weights = mapped(TOUCHING, mask=mask)
    assert (weights[target == IGNORE] == 0).all()
    assert np.ptp(weights[target == 0]) == 0  # a single object is left
    gap = np.insert(np.where(TOUCHING > 0, 1, 2), 12, 2, axis=2)  # 1 = object, 2 = background
    strokes = {"label_values": "classes", "unlabelled": "ignore", "background": 2}
    settings = checked(TrainSettings, strokes)
    target = make_target(gap[None], Classes((1, 2), (1, 0)), settings, "labels")
    weights = separation(gap[None], target, settings)
    ids = np.insert(TOUCHING, 12, 0, axis=2)
    term = weights - gap.size / 2 / np.bincount(gap.ravel())[gap]
    np.testing.assert_allclose(term, judged(ids), atol=1e-4)
