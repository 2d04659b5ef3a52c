"""Line targets: OpenCV's numbers, what unknown voxels may do, and paths without gaps."""

from __future__ import annotations

import numpy as np
import pytest
from combinations import in_one_case
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.data.targets import components_of, draw_paths, gaussian_masks, with_line_channels
from napari_unetvnet.errors import DataProblem, SettingsProblem

masks = arrays(np.uint8, array_shapes(min_dims=3, max_dims=3, max_side=9), elements=st.integers(0, 1))
vertex = st.floats(-5, 25, allow_nan=False)


def upright(size=41):
    """A line of one voxel in the middle of a plane."""
    mask = np.zeros((1, size, size), bool)
    mask[:, :, size // 2] = True
    return mask


def test_a_thin_line_has_the_profile_of_opencv():
    blurred = gaussian_masks(upright())[:, 0]
    assert blurred.dtype == np.float32
    np.testing.assert_allclose(blurred[:, 7, 20], [1, 0.5, 0.28125, 0.15401], atol=5e-6)
    np.testing.assert_allclose(blurred[:, 7, 21], [0, 0.25, 0.21875, 0.14303], atol=5e-6)
    np.testing.assert_array_equal(blurred[:, :, 21], blurred[:, :, 19])
    np.testing.assert_allclose(blurred.sum(axis=2), 1, atol=1e-5)


def test_kernels_of_5_and_of_9():
    plane = gaussian_masks(upright(), (5, 9))[1:, 0, 0, 20:25]
    np.testing.assert_allclose(plane[0], [0.375, 0.25, 0.0625, 0, 0], atol=1e-6)
    # sigma = 0.3 (4 - 1) + 0.8 = 1.7
    raw = np.exp(-(np.arange(-4, 5) ** 2) / (2 * 1.7**2))
    np.testing.assert_allclose(plane[1], (raw / raw.sum())[4:], atol=1e-6)


def test_the_border_is_mirrored_without_its_last_voxel():
    """In a, b, c, ... the voxel before a is b."""
    mask = np.array([[[0, 1, 0, 0, 0, 0]]])
    assert gaussian_masks(mask, (3,))[1, 0, 0].tolist() == [0.5, 0.5, 0.25, 0, 0, 0]
    mask = np.array([[[1, 0, 0, 0, 0, 0]]])
    assert gaussian_masks(mask, (3,))[1, 0, 0].tolist() == [0.5, 0.25, 0, 0, 0, 0]


@given(masks)
def test_every_plane_is_blurred_by_itself(mask):
    alone = np.concatenate([gaussian_masks(plane[None]) for plane in mask], axis=1)
    np.testing.assert_array_equal(gaussian_masks(mask), alone)


@given(masks)
def test_a_turned_or_mirrored_mask_has_turned_or_mirrored_copies(mask):
    blurred = gaussian_masks(mask)
    np.testing.assert_allclose(gaussian_masks(mask.swapaxes(1, 2)), blurred.swapaxes(2, 3), atol=1e-6)
    np.testing.assert_allclose(gaussian_masks(mask[:, ::-1]), blurred[:, :, ::-1], atol=1e-6)


@given(masks, arrays(bool, 9**3))
def test_unknown_voxels_stay_unknown_and_do_not_bleed(mask, pool):
    known = pool[: mask.size].reshape(mask.shape)
    blurred = gaussian_masks(mask, known=known)
    assert ((blurred == IGNORE) == ~known).all()
    assert (blurred[:, known] <= 1 + 1e-6).all()
    for other in (0, 1):
        np.testing.assert_array_equal(blurred, gaussian_masks(np.where(known, mask, other), known=known))


@pytest.mark.parametrize("constant", [0, 1, 0.25])
def test_a_constant_stays_constant_beside_unknown_voxels(constant):
    known = np.random.default_rng(0).random((2, 20, 20)) < 0.5
    blurred = gaussian_masks(np.full(known.shape, constant), known=known)
    np.testing.assert_allclose(blurred[:, known], constant, atol=1e-6)


def test_a_line_keeps_its_profile_where_it_runs_into_unknown_voxels():
    known = np.ones((1, 41, 41), bool)
    known[:, 30:] = False
    blurred = gaussian_masks(upright(), known=known)
    np.testing.assert_allclose(blurred[:, :, :30], gaussian_masks(upright())[:, :, :30], atol=1e-6)


def test_four_classes_with_two_lines_become_ten_channels():
    rng = np.random.default_rng(1)
    channels = (rng.random((4, 2, 20, 20)) < 0.2).astype(np.uint8)
    channels[:, :, :3] = IGNORE
    found = with_line_channels(channels, [3, 1])
    assert found.shape == (10, 2, 20, 20)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[[0, 1, 5, 6]], channels)  # in their order, each line before its copies
    known = channels[0] != IGNORE
    for first, k in ((1, 1), (6, 3)):
        np.testing.assert_array_equal(found[first : first + 4], gaussian_masks(channels[k] == 1, known=known))


def test_without_lines_channels_stay_as_they_are():
    channels = np.random.default_rng(2).integers(0, 2, (3, 1, 5, 5))
    np.testing.assert_array_equal(with_line_channels(channels, []), channels)


@in_one_case(
    "call, problem, said",
    [
        (lambda: gaussian_masks(upright(), (4,)), SettingsProblem, "size 4; give an odd number"),
        (lambda: gaussian_masks(upright(), (-3,)), SettingsProblem, "size -3"),
        (lambda: gaussian_masks(upright()[0]), DataProblem, r"bool of shape \(41, 41\)"),
        (lambda: gaussian_masks(upright() * 7), DataProblem, "from 0 to 7; give 0 to 1"),
        (lambda: gaussian_masks(upright() * IGNORE), DataProblem, "holds the value 255"),
        (lambda: gaussian_masks(upright() * np.nan), DataProblem, "give 0 to 1"),
        (lambda: gaussian_masks(upright(), known=upright()[0]), DataProblem, "mask of known voxels"),
        (lambda: with_line_channels(upright(), [0]), DataProblem, r"give \(K, Z, Y, X\)"),
        (lambda: with_line_channels(upright()[None], [1]), SettingsProblem, r"\[1\] are not among .* 0 to 0"),
        (lambda: with_line_channels(upright()[None], [0, 0]), SettingsProblem, "each once"),
    ],
)
def test_what_cannot_be_blurred_is_refused_with_a_sentence(call, problem, said):
    with pytest.raises(problem, match=said) as caught:
        call()
    assert str(caught.value).endswith(".")


def test_a_path_is_drawn_through_its_vertices():
    drawn = draw_paths([np.array([[1, 1], [1, 4], [4, 4]])], (1, 6, 6))
    assert drawn.dtype == bool
    assert sorted(map(tuple, np.argwhere(drawn[0]))) == [(1, 1), (1, 2), (1, 3), (1, 4), (2, 4), (3, 4), (4, 4)]


@given(st.lists(st.tuples(vertex, vertex, vertex), min_size=1, max_size=5))
def test_a_path_has_no_gaps_and_is_clipped(path):
    everything = draw_paths([np.array(path) + 10], (50, 50, 50))
    assert components_of(everything).max() == 1
    clipped = draw_paths([np.array(path)], (20, 20, 20))
    np.testing.assert_array_equal(clipped, everything[10:30, 10:30, 10:30])


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=2, max_size=2), st.integers(0, 4))
def test_a_flat_path_stays_in_its_plane(path, z):
    flat = draw_paths([np.array(path)], (1, 13, 13), width=3)[0]
    for height in (z, z + 0.3):
        deep = draw_paths([np.array([(height, y, x) for y, x in path])], (5, 13, 13), width=3)
        np.testing.assert_array_equal(deep[z], flat)
        assert deep.sum() == flat.sum()


@given(st.tuples(st.integers(0, 12), st.integers(0, 12)), st.tuples(st.integers(0, 12), st.integers(0, 12)))
def test_a_thin_straight_line_has_one_voxel_for_each_step(a, b):
    drawn = draw_paths([np.array([a, b])], (1, 13, 13))
    assert drawn.sum() == max(abs(a[0] - b[0]), abs(a[1] - b[1])) + 1
    ends = draw_paths([np.array([a]), np.array([b])], (1, 13, 13))
    assert drawn[ends].all()


@in_one_case("width", [1, 2, 3, 4, 7])
def test_a_line_is_as_thick_as_asked(width):
    along = draw_paths([np.array([[10, 0], [10, 20]])], (1, 21, 21), width=width)
    assert (along[0, :, 3:17].sum(axis=0) == width).all()
    through = draw_paths([np.array([[0, 10, 10], [20, 10, 10]])], (21, 21, 21), width=width)
    assert (through[5:15, 10].sum(axis=1) == width).all()
    assert (through[5:15, :, 10].sum(axis=1) == width).all()


def test_a_wider_line_holds_the_thinner():
    path = [np.array([[2, 3], [17, 9], [5, 18.5]])]
    for width in range(1, 6):
        assert draw_paths(path, (1, 20, 20), width=width + 2)[draw_paths(path, (1, 20, 20), width=width)].all()


def test_a_single_vertex_is_a_dot_and_none_is_nothing():
    assert np.argwhere(draw_paths([np.array([[2.4, 3.6]])], (1, 6, 6))).tolist() == [[0, 2, 4]]
    assert not draw_paths([np.zeros((0, 2))], (1, 6, 6)).any()
    assert not draw_paths([], (1, 6, 6)).any()


@in_one_case(
    "path, shape, chosen, problem, said",
    [
        (np.zeros((2, 2)), (5, 6, 6), {}, DataProblem, r"give \(z, y, x\) for each vertex"),
        (np.zeros((2, 4)), (1, 6, 6), {}, DataProblem, r"\(2, 4\).*or \(y, x\)"),
        (np.zeros(2), (1, 6, 6), {}, DataProblem, r"\(2,\)"),
        (np.array([[np.nan, 1]]), (1, 6, 6), {}, DataProblem, "not finite"),
        (np.array([[1e30, 1]]), (1, 6, 6), {}, DataProblem, "beyond"),
        (np.zeros((2, 2)), (1, 6, 6), {"width": 0}, SettingsProblem, "width is 0"),
    ],
)
def test_what_is_no_path_is_refused_with_a_sentence(path, shape, chosen, problem, said):
    with pytest.raises(problem, match=said) as caught:
        draw_paths([path], shape, **chosen)
    assert str(caught.value).endswith(".")
