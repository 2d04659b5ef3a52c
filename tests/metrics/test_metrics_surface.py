"""Metrics of surfaces: hand calculations, properties, an exhaustive computation, and MONAI."""

import math
from itertools import permutations

import numpy as np
import pytest
from combinations import in_one_case
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from test_metrics import FEW, images

from napari_unetvnet.errors import DataProblem, SettingsProblem
from napari_unetvnet.metrics import SurfaceScores, counts, evaluate, surface_scores

edges = st.sampled_from([0.25, 0.5, 1.0, 1.25, 2.0, 3.5])  # in binary, so that sums of squares are exact
spacings = st.tuples(edges, edges, edges)
tolerances = st.sampled_from([0.0, 0.3, 1.01, 2.3])


def brute_surface(image, value, hidden, steps):
    """Voxels of a value with a face neighbour of another value, or beyond the image; hidden ones do not exist."""
    surface = []
    for place in np.argwhere((image == value) & ~hidden):
        for step in steps:
            near = place + step
            inside = all(0 <= a < length for a, length in zip(near, image.shape, strict=True))
            if not inside or (image[tuple(near)] != value and not hidden[tuple(near)]):
                surface.append(place)
                break
    return np.array(surface).reshape(-1, image.ndim)


def brute_scores(prediction, truth, value, spacing, tolerance, ignore=None):
    """All distances between all surface voxels."""
    hidden = truth == ignore if ignore is not None else np.zeros(truth.shape, bool)
    unit = np.eye(truth.ndim, dtype=int)[[length > 1 or truth.size == 1 for length in truth.shape]]
    found, true = (brute_surface(image, value, hidden, [*unit, *-unit]) for image in (prediction, truth))
    if not len(found) or not len(true):
        return SurfaceScores(0.0 if len(found) + len(true) else None, None, None, len(found), len(true))
    apart = (found[:, None] - true[None]) * np.array(spacing[3 - truth.ndim :])
    apart = np.sqrt((apart**2).sum(-1))
    there, back = apart.min(1), apart.min(0)
    both = np.concatenate([there, back])
    hd95 = max(np.percentile(there, 95), np.percentile(back, 95))
    return SurfaceScores((both <= tolerance).mean(), hd95, both.mean(), len(found), len(true))


def same(one, other):
    """Whether two scores agree, None only with None."""
    return all(
        (a is None) == (b is None) and (a is None or math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9))
        for a, b in zip(vars(one).values(), vars(other).values(), strict=True)
    )


# Hand calculations


def test_a_square_that_is_one_pixel_off():
    truth, prediction = np.zeros((10, 10), int), np.zeros((10, 10), int)
    truth[2:6, 2:6], prediction[2:6, 3:7] = 1, 1
    # Of 12 border pixels each, 3 in the upper and 3 in the lower row are common; the other 6 are one column off.
    scores = surface_scores(prediction, truth, [1], (1, 1, 0.5), tolerance=0.4)[1]
    assert (scores.predicted, scores.true) == (12, 12)
    assert scores.surface_dice == (6 + 6) / 24
    assert scores.hd95 == 0.5
    assert scores.mean_distance == pytest.approx((6 * 0.5 + 6 * 0.5) / 24)
    assert surface_scores(prediction, truth, [1], (1, 1, 0.5))[1].surface_dice == 1.0


def test_spacing_is_z_y_x_and_2d_takes_the_last_two():
    truth = np.zeros((5, 5, 5), int)
    truth[2, 2, 2] = 1
    for axis, length in enumerate((4.0, 2.0, 1.0)):
        scores = surface_scores(np.roll(truth, 1, axis), truth, [1], (4, 2, 1), tolerance=length)[1]
        assert (scores.hd95, scores.mean_distance, scores.surface_dice) == (length, length, 1.0)
    plane = surface_scores(np.roll(truth[2], 1, 0), truth[2], [1], (4, 2, 1))[1]
    assert (plane.hd95, plane.surface_dice) == (2.0, 0.0)  # the usual tolerance is the shortest edge, 1


def test_one_voxel_far_away_does_not_count_among_twenty_but_does_among_ten():
    truth, prediction = np.zeros((1, 100), int), np.zeros((1, 100), int)
    for column in range(0, 42, 2):
        truth[0, column] = prediction[0, column] = 1
    prediction[0, 80] = 1
    assert surface_scores(prediction, truth, [1])[1].hd95 == pytest.approx(0.0)  # the 20.9th of 0, ..., 21
    truth[0, 20:], prediction[0, 20:80] = 0, 0
    assert surface_scores(prediction, truth, [1])[1].hd95 == pytest.approx(0.5 * 62)  # the 9.5th of 0, ..., 10


def test_ten_steps_of_a_tenth_are_within_one():
    truth = np.zeros((1, 40), int)
    truth[0, 3] = 1
    for steps in range(1, 30):
        scores = surface_scores(np.roll(truth, steps), truth, [1], (1, 1, 0.1), tolerance=steps / 10)[1]
        assert scores.surface_dice == 1.0, steps


def test_missing_surfaces():
    one, empty = np.eye(4, dtype=int), np.zeros((4, 4), int)
    assert surface_scores(empty, one, [1])[1] == SurfaceScores(0.0, None, None, 0, 4)
    assert surface_scores(one, empty, [1])[1] == SurfaceScores(0.0, None, None, 4, 0)
    assert surface_scores(empty, empty, [1])[1] == SurfaceScores(None, None, None, 0, 0)


def test_full_images_have_the_border_as_surface():
    for shape in ((1,), (1, 1, 1), (5,), (4, 6), (1, 4, 6), (3, 4, 5)):
        full = np.ones(shape, np.uint8)
        inner = math.prod(max(0, length - 2) for length in shape if length > 1) if max(shape) > 1 else 0
        scores = surface_scores(full, full)[1]
        assert scores == SurfaceScores(1.0, 0.0, 0.0, full.size - inner, full.size - inner)


def test_a_volume_of_one_plane_is_a_2d_image():
    rng = np.random.default_rng(0)
    prediction, truth = rng.integers(0, 3, (2, 12, 13))
    flat = surface_scores(prediction, truth, spacing=(9, 2, 1))
    assert surface_scores(prediction[None], truth[None], spacing=(9, 2, 1)) == flat
    assert evaluate(prediction[None], truth[None], spacing=(0.1, 2, 1)).tolerance == 1.0


def test_no_surface_runs_along_ignored_voxels():
    truth = np.array([[0, 1, 1, 1, 255, 255, 255]])
    prediction = np.array([[0, 1, 1, 1, 1, 0, 1]])
    assert surface_scores(prediction, truth, [1], ignore=255)[1] == SurfaceScores(1.0, 0.0, 0.0, 1, 1)
    hidden = np.array([[255, 1, 1, 255]])
    assert surface_scores(hidden, hidden, [1], ignore=255)[1] == SurfaceScores(None, None, None, 0, 0)


def test_all_ignored_and_no_voxel_have_no_surface():
    for image in (np.full((3, 3), 255), np.zeros((0, 3), int), np.zeros((3, 0), int), np.zeros(0, int)):
        assert surface_scores(image, image, [255, 1], ignore=255)[1] == SurfaceScores(None, None, None, 0, 0)


def test_any_integers_may_be_values():
    for low, high, dtype in ((-5, 2**40, "int64"), (3, 2**64 - 1, "uint64"), (False, True, "bool")):
        truth = np.array([[low, high, high, low]], dtype)
        prediction = np.array([[low, high, low, low]], dtype)
        assert surface_scores(prediction, truth, [high])[high] == SurfaceScores(1.0, 0.95, 1 / 3, 1, 2)


@in_one_case(
    "wrong",
    [
        {"spacing": (1, 1)},
        {"spacing": (1, 0, 1)},
        {"spacing": (1, math.nan, 1)},
        {"spacing": 1.0},
        {"tolerance": -1},
        {"tolerance": math.nan},
        {"tolerance": math.inf},
    ],
)
def test_what_is_no_length_is_refused(wrong):
    with pytest.raises(SettingsProblem, match="was given; give a length"):
        surface_scores(np.ones((2, 2, 2), int), np.ones((2, 2, 2), int), **wrong)


def test_four_axes_are_refused():
    with pytest.raises(DataProblem, match="one to three axes"):
        surface_scores(np.ones((2, 2, 2, 2), int), np.ones((2, 2, 2, 2), int))


# Properties


@FEW
@given(images(2, max_side=5), spacings, tolerances, st.sampled_from([None, 3]), st.sampled_from([1, 8, 1 << 22]))
def test_surfaces_agree_with_an_exhaustive_computation(pair, spacing, tolerance, ignore, slab):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counts, "SLAB_VOXELS", slab)
        found = surface_scores(*pair, range(4), spacing, tolerance, ignore)
    for value, scores in found.items():
        assert same(scores, brute_scores(*pair, value, spacing, tolerance, ignore))


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
@settings(deadline=None, max_examples=60)
@given(
    hnp.array_shapes(min_dims=2, max_dims=3, min_side=2, max_side=6).flatmap(
        lambda shape: st.tuples(*[hnp.arrays(bool, shape)] * 2)
    ),
    spacings,
    tolerances,
)
def test_surfaces_agree_with_monai(pair, spacing, tolerance):
    torch = pytest.importorskip("torch")
    monai = pytest.importorskip("monai.metrics", reason="MONAI is optional")
    assume(all(image.any() for image in pair))  # of which MONAI warns
    scores = surface_scores(*pair, [1], spacing, tolerance)[1]
    both = [torch.from_numpy(image.astype(np.float32))[None, None] for image in pair]
    lengths = {"include_background": True, "spacing": spacing[3 - pair[0].ndim :]}
    theirs = (
        monai.compute_surface_dice(*both, [tolerance], **lengths).item(),
        monai.compute_hausdorff_distance(*both, percentile=95, **lengths).item(),
        monai.compute_average_surface_distance(*both, symmetric=True, **lengths).item(),
    )
    assert (scores.surface_dice, scores.hd95, scores.mean_distance) == pytest.approx(
        theirs, rel=1e-4, abs=1e-6
    )  # float32


@FEW
@given(images(2, max_side=5), spacings)
def test_swapping_the_images_swaps_the_counts_alone(pair, spacing):
    there, back = (surface_scores(*images, range(4), spacing) for images in (pair, pair[::-1]))
    for value, scores in there.items():
        other = back[value]
        assert same(
            scores, SurfaceScores(other.surface_dice, other.hd95, other.mean_distance, other.true, other.predicted)
        )


@FEW
@given(images(2, max_side=5), st.data())
def test_turned_images_with_turned_spacing_give_the_same(pair, data):
    dims = pair[0].ndim
    spacing = np.array(data.draw(spacings))[3 - dims :]
    axes = data.draw(st.sampled_from(list(permutations(range(dims)))))
    flips = tuple(data.draw(st.sets(st.integers(0, dims - 1))))
    turned = [np.flip(image.transpose(axes), flips) for image in pair]
    here = surface_scores(*pair, range(4), spacing, tolerance=1.0)
    there = surface_scores(*turned, range(4), spacing[list(axes)], tolerance=1.0)
    assert all(same(there[value], here[value]) for value in here)


@FEW
@given(images(2, max_side=5), spacings, st.sampled_from([0.25, 2.0, 1000.0]))
def test_lengths_scale_with_the_spacing(pair, spacing, factor):
    here = surface_scores(*pair, range(4), spacing)
    there = surface_scores(*pair, range(4), [edge * factor for edge in spacing])
    for value, scores in here.items():
        lengths = [None if length is None else length * factor for length in (scores.hd95, scores.mean_distance)]
        assert same(there[value], SurfaceScores(scores.surface_dice, *lengths, scores.predicted, scores.true))


@FEW
@given(images(2, max_side=5))
def test_equal_masks_are_at_distance_0_and_only_they(pair):
    for value, scores in surface_scores(*pair, range(4), tolerance=0).items():
        equal = bool(np.array_equal(pair[0] == value, pair[1] == value))
        if scores.hd95 is not None:
            assert (scores.surface_dice == 1.0) == (scores.mean_distance == 0.0)
        if equal and (pair[0] == value).any():
            assert (scores.surface_dice, scores.hd95, scores.mean_distance) == (1.0, 0.0, 0.0)


@FEW
@given(images(3, max_side=5), st.integers(0, 3))
def test_what_is_predicted_at_ignored_voxels_moves_no_surface(three, ignore):
    prediction, other, truth = three
    changed = np.where(truth == ignore, other, prediction)
    assert surface_scores(changed, truth, range(4), ignore=ignore) == surface_scores(
        prediction, truth, range(4), ignore=ignore
    )
