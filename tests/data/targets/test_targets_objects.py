"""Boundaries, borders and components: counted by hand, and by looking at every pair of voxels."""

from __future__ import annotations

import numpy as np
import pytest
from combinations import in_one_case
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from skimage.measure import label
from skimage.segmentation import find_boundaries

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.data.targets import borders, boundaries, components_of, cores
from napari_unetvnet.errors import DataProblem, SettingsProblem

ids = arrays(np.uint8, array_shapes(min_dims=3, max_dims=3, max_side=6), elements=st.sampled_from([0, 0, 1, 2, 9]))
widths = st.integers(1, 4)


def row(*values, dtype=np.uint16):
    return np.array([[values]], dtype)


def pairwise(objects, reach, background=True, planar=False):
    """Look at each pair of voxels."""
    places = np.indices(objects.shape).reshape(3, -1).T
    apart = ((places[:, None] - places[None]) ** 2).sum(axis=2)
    if planar:
        apart = np.where(places[:, None, 0] == places[None, :, 0], apart, 1e9)
    flat = objects.ravel()
    differ = flat[:, None] != flat[None]
    if not background:
        differ &= (flat[:, None] != 0) & (flat[None] != 0)
    return (differ & (apart <= reach**2 + 1e-9)).any(axis=1).reshape(objects.shape)


@given(ids, widths, st.booleans(), st.booleans())
def test_a_boundary_is_where_another_id_is_near(objects, width, background, planar):
    found = boundaries(objects, width=width, background=background, planar=planar)
    np.testing.assert_array_equal(found, pairwise(objects, width, background, planar))


def test_the_thinnest_boundary_is_the_usual_one(nuclei_objects):
    dense = np.random.default_rng(0).integers(0, 3, (5, 12, 12)).repeat(3, 1).repeat(3, 2)
    for objects in (nuclei_objects[None], dense):
        np.testing.assert_array_equal(boundaries(objects), find_boundaries(objects, mode="thick"))


@in_one_case(
    "width, background, expected",
    [
        (1, True, [0, 1, 1, 0, 1, 1, 0, 1, 1, 0]),
        (1, False, [0, 0, 0, 0, 1, 1, 0, 0, 0, 0]),
        (2, False, [0, 0, 0, 1, 1, 1, 1, 0, 0, 0]),
        (2, True, [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
    ],
)
def test_boundaries_in_a_row(width, background, expected):
    objects = row(0, 0, 5, 5, 5, 7, 7, 7, 0, 0)
    assert boundaries(objects, width=width, background=background)[0, 0].tolist() == [bool(e) for e in expected]


def test_borders_in_a_row():
    objects = row(0, 5, 5, 5, 5, 7, 7, 7, 7, 0)
    assert borders(objects)[0, 0].tolist() == [0, 2, 1, 1, 2, 2, 1, 1, 2, 0]
    assert borders(objects, touching=True)[0, 0].tolist() == [0, 1, 1, 1, 2, 2, 1, 1, 1, 0]
    assert borders(objects, touching=True, width=3)[0, 0].tolist() == [0, 1, 2, 2, 2, 2, 2, 2, 1, 0]


def test_cores_in_a_row():
    # Distances to the border: 1 2 3 2 1 | 1 2 1 | 1 | 1 2 3 4 to the end of the image, which is no border.
    objects = row(0, 5, 5, 5, 5, 5, 7, 7, 7, 0, 3, 0, 4, 4, 4, 4)
    assert cores(objects)[0, 0].tolist() == [0, 2, 1, 1, 1, 2, 2, 1, 2, 0, 1, 0, 2, 2, 1, 1]


def test_thin_objects_that_touch_have_no_core_between_them():
    assert cores(row(0, 5, 7, 0, 5))[0, 0].tolist() == [0, 2, 2, 0, 1]


def test_a_large_disk_has_a_broad_rim():
    y, x = np.mgrid[-30:31, -30:31]
    classes = cores(((y**2 + x**2) < 21**2).astype(np.uint8)[None])
    assert np.sqrt((classes == 1).sum() / np.pi) == pytest.approx(10.5, abs=0.7)


def test_cores_in_planes_do_not_look_along_z():
    objects = np.ones((3, 5, 5), np.uint8)
    objects[:, [0, -1]] = objects[:, :, [0, -1]] = 0
    alone = cores(objects[:1])
    np.testing.assert_array_equal(cores(objects, planar=True), np.repeat(alone, 3, axis=0))


def test_unknown_voxels_are_in_no_core():
    known = np.ones((1, 1, 9), bool)
    known[..., 5] = False
    assert cores(row(0, 5, 5, 5, 5, 5, 5, 5, 0), known=known)[0, 0].tolist() == [0, 2, 1, 1, 2, IGNORE, 2, 2, 0]


@given(ids, st.booleans())
def test_a_piece_of_core_belongs_to_one_object(objects, planar):
    classes = cores(objects, planar=planar)
    np.testing.assert_array_equal(classes > 0, objects > 0)
    blocks = [slice(z, z + 1) for z in range(len(objects))] if planar else [slice(None)]
    for block in blocks:
        pieces = label(classes[block] == 1, connectivity=3)
        for piece in range(1, pieces.max() + 1):
            assert len(np.unique(objects[block][pieces == piece])) == 1


@given(ids, st.permutations([1, 2, 9]), widths, st.booleans())
def test_which_id_an_object_has_does_not_matter(objects, order, width, planar):
    renamed = np.zeros(10, np.int64)
    renamed[[1, 2, 9]] = np.array(order) * 1_000_000_007
    other = renamed[objects]
    for make in (boundaries, borders):
        np.testing.assert_array_equal(
            make(objects, width=width, planar=planar), make(other, width=width, planar=planar)
        )


@given(ids, widths, st.booleans())
def test_planar_borders_are_those_of_each_plane_by_itself(objects, width, choice):
    for make, option in ((boundaries, {"background": choice}), (borders, {"touching": choice})):
        alone = np.concatenate([make(plane[None], width=width, **option) for plane in objects])
        np.testing.assert_array_equal(make(objects, width=width, planar=True, **option), alone)


@given(ids, widths, st.booleans())
def test_a_border_is_taken_from_inside_the_object(objects, width, touching):
    classes = borders(objects, width=width, touching=touching)
    np.testing.assert_array_equal(classes > 0, objects > 0)
    thicker = borders(objects, width=width + 1, touching=touching)
    assert (thicker[classes == 2] == 2).all()


@given(ids, widths, st.booleans())
def test_each_piece_of_the_inside_belongs_to_one_object(objects, width, touching):
    pieces = components_of(borders(objects, width=width, touching=touching) == 1)
    for piece in range(1, pieces.max() + 1):
        assert len(np.unique(objects[pieces == piece])) == 1


@in_one_case("touching", [False, True])
@in_one_case("shape", [(1, 48, 48), (24, 24, 24)])
def test_thick_objects_are_counted_by_their_insides(shape, touching):
    """Cells of a grid with slanted walls touch each other on all sides."""
    z, y, x = np.indices(shape)
    z = np.zeros_like(z) if shape[0] == 1 else z
    grid = ((y + z // 3) // 12) * 100 + ((x + y // 3) // 12) * 10 + z // 12 + 1
    sizes = np.bincount(grid.ravel())
    objects = np.where(sizes[grid] > 12 ** (2 if shape[0] == 1 else 3) // 2, grid, 0)
    assert components_of(objects > 0).max() == 1
    inside = components_of(borders(objects, touching=touching) == 1)
    assert inside.max() == len(np.unique(objects)) - 1 >= 6


def test_objects_that_touch_at_a_corner_come_apart():
    objects = np.zeros((1, 8, 8), np.uint8)
    objects[0, :4, :4], objects[0, 4:, 4:] = 1, 2
    assert components_of(objects > 0).max() == 1
    assert components_of(borders(objects, touching=True) == 1).max() == 2


@given(ids, arrays(bool, 6**3), widths)
def test_unknown_voxels_make_no_border(objects, mask, width):
    known = mask[: objects.size].reshape(objects.shape)
    other = np.where(known, objects, 7)
    classes = borders(objects, width=width, known=known)
    np.testing.assert_array_equal(classes == IGNORE, ~known)
    np.testing.assert_array_equal(classes, borders(other, width=width, known=known))
    marked = boundaries(objects, width=width, known=known)
    assert not marked[~known].any()
    np.testing.assert_array_equal(marked, boundaries(other, width=width, known=known))
    assert not (marked & ~boundaries(objects, width=width)).any()  # knowing less finds no more


def test_the_largest_ids_have_boundaries_with_background_too():
    largest = np.iinfo(np.uint64).max
    assert boundaries(row(0, 0, largest, largest, largest - 1, dtype=np.uint64))[0, 0].tolist() == [0, 1, 1, 1, 1]
    assert boundaries(row(0, 0, 2**31 - 1, dtype=np.int32))[0, 0].tolist() == [0, 1, 1]


@given(ids)
def test_components_are_those_of_each_class(objects):
    found = components_of(objects)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found > 0, objects > 0)
    pairs = {(int(a), int(b)) for a, b in zip(found.ravel(), objects.ravel(), strict=True) if a}
    assert len(pairs) == found.max()  # each piece is of one class
    assert found.max() == sum(label(objects == value, connectivity=3).max() for value in (1, 2, 9))


def test_components_pass_over_background_and_ignored():
    classes = row(0, 0, 1, IGNORE, 1, 2, 2, 0)
    assert components_of(classes)[0, 0].tolist() == [0, 0, 1, 0, 2, 3, 3, 0]
    assert components_of(classes, background=1)[0, 0].tolist() == [1, 1, 0, 0, 0, 2, 2, 3]


def test_pieces_that_touch_at_a_corner_are_one():
    assert components_of(np.eye(4, dtype=np.uint8)[None]).max() == 1


@pytest.mark.parametrize("make", [boundaries, borders])
@in_one_case("width", [0, -1, 1.5])
def test_a_width_that_is_no_number_of_voxels_is_refused(make, width):
    with pytest.raises(SettingsProblem, match=rf"The width is {width}; .*\.$"):
        make(row(1, 2), width=width)


@pytest.mark.parametrize("make", [boundaries, borders, components_of])
@in_one_case("objects", [np.zeros((2, 2), int), np.zeros((1, 2, 2)), row(-1, 1, dtype=int)])
def test_what_are_no_ids_is_refused(make, objects):
    with pytest.raises(DataProblem, match=r"\.$"):
        make(objects)
