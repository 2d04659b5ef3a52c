"""A channel on another grid comes to where its file says that it lies, as nibabel puts it there."""

import nibabel as nib
import numpy as np
import pytest
from nibabel.processing import resample_from_to

from napari_unetvnet.cli.main import main
from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.geometry import Geometry
from napari_unetvnet.images.io import read_volume
from napari_unetvnet.images.onto_grid import onto_grid
from napari_unetvnet.images.volume import Volume


def volume(shape, affine, values=None, name="b", unit="mm"):
    """A volume of shape z, y, x; by default a ramp over the positions in space, which interpolation keeps."""
    if values is None:
        indices = np.stack([*np.indices(shape[::-1]), np.ones(shape[::-1])])
        x, y, z, _ = np.tensordot(affine, indices, 1)
        values = (x + 10 * y + 100 * z).transpose(2, 1, 0)
    spacing = tuple(np.linalg.norm(affine[:3, :3], axis=0)[::-1])
    return Volume(np.asarray(values, np.float32)[None], Geometry(spacing, unit, np.asarray(affine, float)), name)


def rotated(degrees, edges, origin):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    affine = np.eye(4)
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) * edges
    affine[:3, 3] = origin
    return affine


@pytest.mark.parametrize("degrees", [0, 20])
@pytest.mark.parametrize("edges", [(2, 2, 3), (0.5, 0.7, 1)])
def test_a_ramp_over_space_stays_one(degrees, edges):
    target = volume((5, 6, 7), rotated(0, (1, 1, 1), (10, 20, 30)), name="a")
    source = volume((40, 60, 60), rotated(degrees, edges, (3, 12, 25)))
    placed, said = onto_grid(source, target.grid, "a")
    np.testing.assert_allclose(placed.data, target.data, rtol=1e-4)
    assert placed.grid == target.grid
    assert "It was resampled to the grid of a by linear interpolation." in said
    assert "lie beyond" not in said


def test_it_is_where_nibabel_resamples_it():
    values = np.random.default_rng(0).normal(size=(9, 10, 11)).astype(np.float32)
    source, target = volume((9, 10, 11), rotated(15, (1.1, 0.9, 1.3), (2, 1, 0)), values), np.diag([1.0, 1, 2, 1])
    target[:3, 3] = (3, 4, 2)
    image = nib.Nifti1Image(values.transpose(2, 1, 0), source.geometry.affine)
    expected = resample_from_to(image, ((5, 6, 4), target), order=1, cval=-99).get_fdata().transpose(2, 1, 0)
    placed, _ = onto_grid(source, volume((4, 6, 5), target).grid, "a")
    inside = expected != -99
    assert inside.mean() > 0.5
    np.testing.assert_allclose(placed.data[0][inside], expected[inside], atol=1e-4)


def test_what_lies_beyond_is_told_and_what_cannot_be_placed_is_refused():
    target = volume((2, 4, 4), np.eye(4), name="a")
    half = volume((2, 4, 2), np.eye(4), np.arange(16).reshape(2, 4, 2) + 5)
    placed, said = onto_grid(half, target.grid, "a")
    np.testing.assert_array_equal(placed.data[..., :2], half.data)
    assert (placed.data[..., 2:] == 5).all()
    assert "50 % of a lie beyond it and have its lowest value" in said
    far = np.eye(4)
    far[0, 3] = 100
    with pytest.raises(DataProblem, match="b lies nowhere in a"):
        onto_grid(volume((2, 4, 4), far), target.grid, "a")
    with pytest.raises(DataProblem, match="do not say how they lie to each other"):
        onto_grid(Volume(half.data, name="b"), target.grid, "a")
    assert onto_grid(target, target.grid, "a") == (target, "")
    mirrored = np.diag([-1.0, 1, 1, 1])
    mirrored[0, 3] = 3
    turned, said = onto_grid(volume((2, 4, 4), mirrored), target.grid, "a")
    assert "was turned to them" in said
    np.testing.assert_array_equal(np.asarray(turned.data), target.data)


def test_channel_files_are_brought_to_the_grid_of_the_first(tmp_path, capsys):
    fine, coarse = np.diag([1.0, 1, 1, 1]), np.diag([2.0, 2, 1, 1])
    coarse[:2, 3] = 0.5
    ramp = np.indices((16, 16, 3))[0].astype(np.float32)
    nib.save(nib.Nifti1Image(ramp, fine), tmp_path / "p_t1.nii.gz")
    nib.save(nib.Nifti1Image(ramp[::2, ::2] + 0.5, coarse), tmp_path / "p_t2.nii.gz")
    nib.save(nib.Nifti1Image((ramp > 7).astype(np.uint8), fine), tmp_path / "p_seg.nii.gz")
    source, said = f"{tmp_path}/p_t1.nii.gz|{tmp_path}/p_t2.nii.gz", []
    read = read_volume(source, notices=said)
    np.testing.assert_allclose(read.data[1, :, :, 1:-1], read.data[0, :, :, 1:-1], atol=1e-5)
    assert "p_t2.nii.gz has 3 x 8 x 8 voxels (z y x), p_t1.nii.gz has 3 x 16 x 16. It was resampled" in said[0]
    with pytest.raises(DataProblem, match="must have the same grid, so resample"):
        read_volume(source)
    main(["check", "--image", source, "--label", str(tmp_path / "p_seg.nii.gz"), "--view", "2d"])
    assert "It was resampled to the grid of" in " ".join(capsys.readouterr().out.split())
