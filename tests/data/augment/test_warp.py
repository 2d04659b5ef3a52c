"""Rotation, scaling and bending, against patches whose change is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from combinations import in_one_case

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.data.augment import Change, Recipe, augment, warp

QUARTER = Change(1, 90, 90)
PLANE = ("y", "x")


def warped(volume, recipe, seed=0):
    """Warp a volume that is an image and its target."""
    images = volume[None, None].float()
    image, target, _ = augment(images, volume[None], {}, np.random.default_rng(seed), recipe)
    return image[0, 0], target[0]


def bar(size=(1, 9, 9), at=(0, 2, slice(2, 7))):
    volume = torch.zeros(size, dtype=torch.uint8)
    volume[at] = 1
    return volume


def test_a_quarter_turn_puts_rows_into_columns():
    image, target = warped(bar(), Recipe(moving=PLANE, rotation=QUARTER))
    turned = bar().rot90(1, (1, 2))
    assert torch.equal(target, turned) or torch.equal(target, bar().rot90(-1, (1, 2)))
    assert (image - target).abs().max() < 1e-5


@pytest.mark.parametrize(("moving", "dims"), [(("z", "y"), (0, 1)), (("z", "x"), (0, 2)), (("y", "x"), (1, 2))])
def test_each_plane_of_a_volume_can_be_turned(moving, dims):
    volume = bar((7, 7, 7), (1, 2, slice(1, 5)))
    _, target = warped(volume, Recipe(moving=moving, rotation=QUARTER))
    assert any(torch.equal(target, volume.rot90(k, dims)) for k in (1, -1))


def test_angles_are_right_where_voxels_are_longer_than_wide():
    # Along y voxels are 2 long: 4 of them become 8 along x, and 4 along x become 2.
    upright = bar((1, 12, 12), (0, slice(4, 8), slice(4, 8)))
    _, target = warped(upright, Recipe(moving=PLANE, spacing=(1, 2, 1), rotation=QUARTER))
    assert torch.equal(target == 1, bar((1, 12, 12), (0, slice(5, 7), slice(2, 10))) == 1)


def test_a_patch_is_magnified_about_its_centre():
    volume = bar((1, 12, 12), (0, slice(5, 7), slice(5, 7)))
    _, target = warped(volume, Recipe(moving=PLANE, scale=Change(1, 3, 3)))
    assert torch.equal(target, bar((1, 12, 12), (0, slice(3, 9), slice(3, 9))))
    _, smaller = warped(target, Recipe(moving=PLANE, scale=Change(1, 1 / 3, 1 / 3)))
    assert torch.equal(smaller[0, 4:8, 4:8], volume[0, 4:8, 4:8])
    assert (smaller == IGNORE).sum() == 144 - 16


def test_coarse_planes_are_neither_mixed_nor_scaled():
    volume = torch.arange(6.0).reshape(6, 1, 1).expand(6, 16, 16).contiguous()
    changes = {"rotation": Change(1, -180, 180), "scale": Change(1, 0.7, 1.4, 1), "elastic": Change(1, 0.2, 0.25)}
    image, target = warped(volume, Recipe(moving=PLANE, **changes))
    assert (image - volume).abs().max() < 1e-4
    assert torch.equal(target[target != IGNORE], volume[target != IGNORE])


def test_a_coarse_axis_in_the_plane_is_not_turned_into():
    volume = torch.arange(8.0).expand(12, 12, 8).contiguous()
    changes = {"rotation": Change(1, -30, 30), "scale": Change(1, 0.7, 1.4, 1), "elastic": Change(1, 0.2, 0.25)}
    image, _ = warped(volume, Recipe(moving=("z", "y"), **changes))
    assert (image - volume).abs().max() < 1e-4


def test_planes_of_a_patch_move_alike():
    plane = torch.rand(1, 24, 24)
    changes = {"rotation": Change(1, -180, 180), "elastic": Change(1, 0.2, 0.25)}
    image, _ = warped(plane.expand(5, 24, 24).contiguous(), Recipe(moving=PLANE, **changes))
    assert all(torch.equal(other, image[0]) for other in image)
    assert not torch.equal(image[0], plane[0])


@pytest.mark.parametrize("size", [(40, 40), (16, 20, 24)])
@in_one_case("seed", range(5))
def test_bends_are_smooth_and_never_fold(size, seed):
    axes = len(size)
    points = np.random.default_rng(seed).uniform(-1, 1, (1, axes, *[warp.INTERVALS + 3] * axes)) * 2 * 0.25 / 4
    places = warp._places(size, torch.eye(axes)[None]) + warp._bends(size, torch.from_numpy(points).float())
    voxels = places[0].flip(0) * torch.tensor(size).reshape(-1, *[1] * axes) / 2
    slopes = torch.stack([torch.stack(torch.gradient(part)) for part in voxels])
    determinant = torch.linalg.det(slopes.movedim((0, 1), (-2, -1)))
    assert determinant.min() > 0
    assert determinant.max() < 4


def test_splines_share_each_voxel_out():
    basis = warp._spline(32)
    assert torch.allclose(basis.sum(1), torch.ones(32, dtype=basis.dtype))
    assert basis.min() >= 0


def test_images_are_mirrored_outside_and_labels_are_unknown():
    volume = torch.rand(1, 8, 8) + 1
    image, target = warped(volume, Recipe(moving=PLANE, scale=Change(1, 0.25, 0.25)))
    assert image.min() >= volume.min()
    assert image.max() <= volume.max()
    assert torch.equal(target[0, 3:5, 3:5] != IGNORE, torch.ones(2, 2, dtype=torch.bool))
    assert (target == IGNORE).sum() == 60
