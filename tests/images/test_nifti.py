"""NIfTI files as other programs write them: scaled, zipped or not, with more axes than an image has."""

from __future__ import annotations

import gzip

import nibabel
import numpy as np
import pytest
from combinations import in_one_case

from napari_unetvnet.errors import DataProblem, FileProblem
from napari_unetvnet.images import image_file
from napari_unetvnet.images.io import read_labels, read_volume

SHAPE = (5, 4, 3)
RAW = np.random.default_rng(0).integers(0, 4096, SHAPE)


def save_scaled(path, raw, slope, inter):
    """Save integers as they are, with a scale."""
    image = nibabel.Nifti1Image(raw, np.eye(4))
    image.header.set_slope_inter(slope, inter)
    with nibabel.openers.ImageOpener(path, "wb") as file:
        image.header.write_to(file)
        nibabel.volumeutils.seek_tell(file, image.header.get_data_offset(), write0=True)
        file.write(raw.tobytes(order="F"))


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@in_one_case(
    "dtype, slope, inter, kept",
    [
        ("i2", 1, -1024, "i2"),  # CT
        ("u2", 1, -1024, "i2"),
        ("u2", 2, 0, "u2"),
        ("u2", 100, 0, "u4"),
        ("i2", -1, 0, "i2"),
        ("u2", 0.5, 0, "f4"),
        ("i4", 0.5, 0, "f8"),
        ("f4", 2, 1, "f4"),
        ("i2", 1, 0, "i2"),
    ],
)
def test_scaled_integers_take_no_more_memory_than_they_need(tmp_path, ending, dtype, slope, inter, kept):
    raw = RAW.astype(dtype)
    save_scaled(tmp_path / f"a{ending}", raw, slope, inter)
    data = read_volume(tmp_path / f"a{ending}").data
    np.testing.assert_array_equal(data[0].transpose(2, 1, 0), raw * float(slope) + inter)
    assert data.dtype == np.dtype(kept)


def test_a_large_scaled_file_has_the_same_values(tmp_path, monkeypatch):
    save_scaled(tmp_path / "a.nii", RAW.astype("i2"), 1, -1024)
    whole = read_volume(tmp_path / "a.nii").data
    monkeypatch.setattr(image_file, "LARGE_BYTES", 8)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii").data[:, 1:, 2, ::2], whole[:, 1:, 2, ::2])


@in_one_case("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@in_one_case("order", ["<", ">"])
def test_the_first_bytes_say_whether_a_file_is_zipped(tmp_path, kind, order):
    header = kind.header_class(endianness=order)
    header.set_data_dtype(np.uint8)
    nibabel.save(kind(RAW.astype("u1"), np.diag([1, 2, 3, 1]), header), tmp_path / "a.nii")
    content = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(content)
    (tmp_path / "c.nii").write_bytes(gzip.compress(content))
    for name in ("b.nii.gz", "c.nii"):
        volume = read_labels(tmp_path / name)
        np.testing.assert_array_equal(volume.data[0].transpose(2, 1, 0), RAW.astype("u1"))
        assert volume.spacing == (3, 2, 1)
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-9])
        with pytest.raises(FileProblem, match=f"{name} cannot be read"):
            read_volume(tmp_path / name)


@in_one_case(
    "shape, ours",
    [
        ((5, 4, 3, 1, 1), (1, 3, 4, 5)),
        ((5, 4, 3, 1, 2), (2, 3, 4, 5)),
        ((5, 4, 3, 2, 1), (2, 3, 4, 5)),
        ((5, 4, 1, 1, 2), (2, 1, 4, 5)),
        ((5, 1, 3, 1, 1, 1, 2), (2, 3, 1, 5)),
        ((5, 4), (1, 1, 4, 5)),
    ],
)
@in_one_case("large", [False, True])
def test_further_axes_of_length_1_are_left_out(tmp_path, monkeypatch, shape, ours, large):
    voxels = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    save_scaled(tmp_path / "a.nii", voxels, 1, 5 if large else 0)
    monkeypatch.setattr(image_file, "LARGE_BYTES", 8 if large else 1 << 28)
    data = read_volume(tmp_path / "a.nii").data[...]
    assert data.shape == ours
    squeezed = voxels.reshape(*(*shape, 1)[:3], -1)
    np.testing.assert_array_equal(data.transpose(3, 2, 1, 0), squeezed + 5 * large)


def test_two_further_axes_are_refused_with_the_size(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((5, 4, 3, 1, 2, 2), np.int16), np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(DataProblem, match=r"^a\.nii has 6 axes \(5 x 4 x 3 x 1 x 2 x 2\); save one volume"):
        read_volume(tmp_path / "a.nii")


def test_a_broken_qform_beside_a_good_sform_is_left_alone(tmp_path):
    image = nibabel.Nifti1Image(RAW.astype("u1"), np.diag([1, 2, 3, 1]))
    image.header["qform_code"], image.header["quatern_b"] = 1, 1.5
    nibabel.save(image, tmp_path / "a.nii")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii").affine, np.diag([1, 2, 3, 1]))


def test_a_pair_of_header_and_voxels_is_read_by_its_header(tmp_path):
    array, affine = np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.diag([0.5, 2, 4, 1.0])
    nibabel.save(nibabel.Nifti1Pair(array, affine), tmp_path / "a.hdr")
    volume = read_volume(tmp_path / "a.hdr")
    assert np.array_equal(volume.data[0], array.T)
    assert np.array_equal(volume.affine, affine)
    with pytest.raises(FileProblem, match=r"^a\.img holds the voxels of a\.hdr; name a\.hdr instead\.$"):
        read_volume(tmp_path / "a.img")


def test_a_voxel_size_that_the_affine_contradicts_is_told(tmp_path):
    for size, is_told in (((1, 1, 1), True), ((0.5, 0.5, 2), False), ((0.501, 0.5, 2), False)):
        image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.uint8), None)
        image.header.set_sform(np.diag([0.5, 0.5, 2, 1]), 2)
        image.header["pixdim"][1:4] = size
        nibabel.save(image, tmp_path / "a.nii")
        notices = []
        assert read_volume(tmp_path / "a.nii", notices=notices).spacing == pytest.approx(size[::-1])
        told = "a.nii states voxels of 1 x 1 x 1 mm (z y x), which are used, but its affine says 2 x 0.5 x 0.5."
        assert [text.startswith(told) for text in notices] == [True] * is_told
