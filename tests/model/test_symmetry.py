"""The 48 permutations of a cube, and shifts: whole voxels to the digit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from combinations import in_one_case

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.data.augment import Change, Recipe, augment, recipe
from napari_unetvnet.data.augment.spatial import shifted
from napari_unetvnet.data.targets import TARGET_MAPS
from napari_unetvnet.model.symmetry import cube_permutations, inverse, permute

CUBE = torch.arange(27).reshape(3, 3, 3)


def test_a_labelled_cube_has_48_permutations():
    results = {tuple(permute(CUBE, permutation).flatten().tolist()) for permutation in cube_permutations()}
    assert len(cube_permutations()) == len(results) == 48
    assert torch.equal(permute(CUBE, cube_permutations()[0]), CUBE)


@in_one_case("permutation", cube_permutations())
def test_each_permutation_is_undone_by_its_inverse(permutation):
    scores = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    assert torch.equal(permute(permute(scores, permutation), inverse(permutation)), scores)
    assert inverse(permutation) in cube_permutations()


def test_axes_are_put_in_an_order_and_then_mirrored():
    volume = torch.zeros(2, 3, 4)
    volume[1, 2, 3] = 1
    turned = permute(volume, cube_permutations()[8 * 3 + 1])  # y, x, z with the last mirrored
    assert turned.shape == (3, 4, 2)
    assert turned[2, 3, 0] == 1


@in_one_case("exchange, mirror, ways", [("zyx", "zyx", 48), ("yx", "yx", 8), ("yx", "", 2), ("", "zyx", 8)])
def test_image_and_labels_are_permuted_together(exchange, mirror, ways):
    images = torch.arange(125.0).reshape(5, 5, 5).expand(600, 1, 5, 5, 5)
    fit = Recipe(mirror=tuple(mirror), exchange=tuple(exchange))
    moved, labels, _ = augment(images, images[:, 0, 1:4, 1:4, 1:4], {}, np.random.default_rng(0), fit)
    assert torch.equal(moved[:, 0, 1:4, 1:4, 1:4], labels)
    assert len({tuple(patch.flatten().tolist()) for patch in labels}) == ways


@pytest.mark.parametrize(
    ("voxels", "rows"),
    [(int(10 * 0.2), [2, 3, 4, 5, 6, 7, 8, 9, 9, 8]), (int(10 * -0.2), [1, 0, 0, 1, 2, 3, 4, 5, 6, 7]), (0, range(10))],
)
def test_the_hole_of_a_shift_is_mirrored_at_the_edge(voxels, rows):
    column = torch.arange(10).reshape(1, 10, 1)
    assert shifted(column, voxels).flatten().tolist() == list(rows)
    known = [10 * (0 <= i + voxels < 10) + i for i in range(10)]
    filled = shifted(column, voxels, IGNORE).flatten().tolist()
    assert filled == [row if k >= 10 else IGNORE for row, k in zip(rows, known, strict=True)]


def test_a_patch_is_either_mirrored_or_shifted():
    numbers = torch.arange(40 * 4.0).reshape(1, 1, 40, 4)
    images = numbers.expand(300, 1, 1, 40, 4)
    fit = Recipe(mirror=("x",), shift=Change(1, -0.15, 0.15))
    name = next(name for name, row in TARGET_MAPS.items() if row.outside == 0)
    moved, labels, maps = augment(
        images, images[:, 0], {name: torch.ones(300, 1, 40, 4)}, np.random.default_rng(0), fit
    )
    mirrored = (moved[..., 0] > moved[..., -1]).flatten(1).all(1)
    assert 110 < mirrored.sum() < 190
    assert torch.equal(moved[mirrored, 0], numbers[0].flip(-1).expand(int(mirrored.sum()), 1, 40, 4))
    rows = labels[~mirrored, 0, :, 0] / 4 - torch.arange(40)
    known = labels[~mirrored, 0, :, 0] != IGNORE
    shifts = {int(value) for row, seen in zip(rows, known, strict=True) for value in row[seen].unique()}
    assert shifts == set(range(-5, 6))
    assert torch.equal(maps[name] == 0, labels == IGNORE)
    assert torch.equal(labels[labels != IGNORE], moved[:, 0][labels != IGNORE])


def test_the_classic_recipe_permutes_cubes_and_shifts_planes():
    cube = recipe("classic", view="3d", spacing=(1, 1, 1), mirror="zyx", patch=(8, 8, 8))
    assert cube.exchange == ("z", "y", "x")
    assert not cube.shift.probability
    plane = recipe("classic", view="2d", spacing=(1, 1, 1), mirror="x", patch=(1, 8, 8))
    assert plane.exchange == ()
    assert plane.shift.probability == 1
    assert (plane.rotation.low, plane.rotation.high) == (-10, 10)
