"""Two grids are compared in voxels: a tenth of one is the limit, wherever they lie and however small they are."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from combinations import in_one_case
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from napari_unetvnet.images.geometry import Geometry, Grid
from napari_unetvnet.images.same_grid import brought_onto, difference, same_grid
from napari_unetvnet.images.volume import Volume

SHAPE = (5, 24, 30)


def grid(spacing=(2.0, 1.0, 1.0), unit="mm", origin=(0.0, 0.0, 0.0), shape=SHAPE):
    return Grid(shape, Geometry.upright(spacing, unit, origin))


def text(one, other):
    found = difference(one, other, "a")
    return found.text if found else ""


@settings(max_examples=30, deadline=None)
@given(
    voxel=st.sampled_from((5e-7, 0.01, 1.0, 3e4)),
    place=st.sampled_from((0.0, 1.0, 1e5)),
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    shift=st.sampled_from((0.0, 0.05, 0.2, 1.0, 100.0)),
    axis=st.sampled_from((0, 1, 2)),
)
def test_a_shift_is_seen_from_a_tenth_of_a_voxel_whatever_the_unit_and_the_place(voxel, place, angles, shift, axis):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * voxel
    affine[:3, 3] = place * voxel * 100
    moved = affine.copy()
    moved[:3, 3] += affine[:3, 2 - axis] * shift
    one, other = (Grid(SHAPE, Geometry((voxel,) * 3, "mm", each)) for each in (affine, moved))
    assert same_grid(one, other) == same_grid(other, one) == (shift < 0.1)
    if shift > 0.1:
        assert text(one, other) == f"lies beside a, by {shift:.3g} voxel{'s' * (shift != 1)} along {'zyx'[axis]}"


@in_one_case(
    "other, sentence",
    [
        (grid(), ""),
        (grid((2000.0, 1000.0, 1000.0), "micrometer"), ""),
        (grid(unit="micrometer"), "has voxels of 2 x 1 x 1 micrometer, a of 2 x 1 x 1 mm, by up to 4 voxels along z, "
         "23 voxels along y, 29 voxels along x"),
        (grid((2.0, 1.0, 1.01)), "has voxels of 2 x 1 x 1.01 mm, a of 2 x 1 x 1 mm, by up to 0.29 voxels along x"),
        (grid((2.0, 1.0, 1.00001)), ""),  # a rounded header
        (grid(unit="furlong"), "has voxel sizes in furlong, a has them in mm"),
        (grid(unit="pixel"), ""),  # numbers without a unit may be of any
        (grid(shape=(5, 30, 24)), "has 5 x 30 x 24 voxels (z y x), a has 5 x 24 x 30"),
        (grid(origin=(3.0, 0.0, -2.0)), "lies beside a, by 1.5 voxels along z, 2 voxels along x"),
        (Grid(SHAPE, Geometry((2.0, 1.0, 1.0), "mm")), ""),  # says no position
        (Grid(SHAPE, Geometry((4.0, 1.0, 1.0), "mm")), "has voxels of 4 x 1 x 1 mm, a of 2 x 1 x 1 mm, by up to "
         "4 voxels along z"),
        (Grid(SHAPE), ""),  # says nothing
    ],
)  # fmt: skip
def test_a_difference_is_told_in_voxels_along_each_axis(other, sentence):
    assert text(grid(), other) == sentence
    assert same_grid(other, grid()) == (sentence == "")


@in_one_case(
    "turn, sentence",
    [
        (np.diag([-1.0, 1, 1, 1]), "is mirrored along x against a, by up to 58 voxels along x"),
        (np.diag([-1.0, -1, 1, 1]), "is mirrored along x and y against a, by up to 46 voxels along y, 58 voxels"),
        (np.eye(4)[[1, 0, 2, 3]], "has its axes in another order than a, by up to"),
    ],
)
def test_a_turn_is_told(turn, sentence):
    one, other = Grid(SHAPE, Geometry(affine=np.eye(4))), Grid(SHAPE, Geometry(affine=turn))
    assert sentence in text(one, other)


def test_a_rotation_is_told_in_degrees():
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("z", 3, degrees=True).as_matrix()
    one, other = Grid(SHAPE, Geometry(affine=np.eye(4))), Grid(SHAPE, Geometry(affine=affine))
    assert "is turned by 3 degrees against a, by up to 1.5" in text(one, other)


def test_either_place_of_a_file_that_states_two_will_do():
    here, there = np.eye(4), np.diag([1.0, 1, 1, 1])
    there[0, 3] = 50
    both = Grid(SHAPE, Geometry(affine=here, other_affine=there))
    assert same_grid(both, Grid(SHAPE, Geometry(affine=there)))
    assert same_grid(Grid(SHAPE, Geometry(affine=here)), both)
    far = np.diag([1.0, 1, 1, 1])
    far[0, 3] = 20
    assert "20 voxels along x" in text(both, Grid(SHAPE, Geometry(affine=far)))


def test_a_plane_need_not_say_how_thick_it_is():
    assert same_grid(grid(shape=(1, 24, 30)), grid((1.0, 1.0, 1.0), shape=(1, 24, 30)))


def orientations():
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            yield np.diag(signs) @ np.eye(3)[list(order)]


def test_mirrored_and_exchanged_axes_are_brought_back():
    data = np.arange(2 * 5 * 3 * 4).reshape(2, 5, 3, 4)
    oblique = np.eye(4)
    oblique[:3, :3] = Rotation.from_euler("xyz", (10, 20, 30), degrees=True).as_matrix() @ np.diag([0.5, 0.7, 3])
    oblique[:3, 3] = 10, 20, 30
    original = Volume(data, Geometry((3, 0.7, 0.5), "mm", oblique))
    for matrix in orientations():
        # Store the same voxels along other axes: voxel (x, y, z) of the copy is matrix @ it + start of the original.
        sizes = np.abs(matrix).T @ (4, 3, 5)
        step = np.eye(4)
        step[:3, :3] = matrix
        step[:3, 3] = np.where(matrix.sum(axis=1) < 0, np.array([4, 3, 5]) - 1, 0)
        stored = np.zeros((2, *sizes[::-1].astype(int)), int)
        for x, y, z in np.ndindex(*sizes.astype(int)):
            i, j, k, _ = (step @ (x, y, z, 1)).astype(int)
            stored[:, z, y, x] = data[:, k, j, i]
        copy = Volume(stored, original.geometry.after(step))
        turned = brought_onto(copy, original.grid)
        assert np.array_equal(turned.data[...], data)
        assert same_grid(turned.grid, original.grid)
        assert np.array_equal(turned.data[:, 1:3, 2, :2], data[:, 1:3, 2, :2])


@pytest.mark.parametrize(
    "geometry", [Geometry(), Geometry((3, 0.7, 0.5), "mm"), Geometry(affine=np.diag([-1.0, 1, 1, 1]))]
)
def test_what_lies_elsewhere_or_nowhere_is_not_turned(geometry):
    volume = Volume(np.zeros((1, 5, 3, 4)), geometry)
    assert brought_onto(volume, replace(volume, geometry=Geometry(affine=np.eye(4))).grid) is volume
