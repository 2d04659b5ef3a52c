"""NRRD and MetaImage: what SimpleITK writes lies where it lies for NIfTI readers, and goes back as it came."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from napari_unetvnet.errors import DataProblem, FileProblem
from napari_unetvnet.images.io import read_labels, read_volume, write_labels
from napari_unetvnet.images.outputs import check_writable

itk = pytest.importorskip("SimpleITK")
EACH = pytest.mark.parametrize("ending", [".nrrd", ".mha", ".nhdr", ".mhd"])
QUARTER_TURN = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)  # its x goes to y, its y to -x


def image(array, **options):
    made = itk.GetImageFromArray(array, **options)
    made.SetSpacing((0.5, 2.0, 4.0, 1.0)[: made.GetDimension()])
    if made.GetDimension() == 3:
        made.SetOrigin((10.0, 20.0, 30.0))
        made.SetDirection(QUARTER_TURN)
    return made


def voxels(*shape):
    return np.random.default_rng(0).integers(0, 9, shape).astype(np.uint16)


@EACH
def test_voxels_and_their_place_are_read_and_given_to_results(ending, tmp_path):
    source, array = tmp_path / f"a{ending}", voxels(2, 3, 4)
    itk.WriteImage(image(array), str(source), useCompression=True)
    volume = read_volume(source)
    assert np.array_equal(volume.data[0], array)
    assert (volume.spacing, volume.unit) == ((4.0, 2.0, 0.5), "mm")
    # ITK: position = (10 - 2 y, 20 + 0.5 x, 30 + 4 z) to left, posterior, superior; RAS changes the first two signs.
    assert volume.affine == pytest.approx(np.array([[0, 2, 0, -10], [-0.5, 0, 0, -20], [0, 0, 4, 30], [0, 0, 0, 1]]))
    for result in (tmp_path / "r.nrrd", tmp_path / "r.mha", tmp_path / "r.nii.gz"):
        write_labels(result, array, volume)
        back, reference = itk.ReadImage(str(result)), itk.ReadImage(str(source))
        assert back.GetOrigin() == pytest.approx(reference.GetOrigin())
        assert back.GetDirection() == pytest.approx(reference.GetDirection())
        assert back.GetSpacing() == pytest.approx(reference.GetSpacing())
        assert np.array_equal(itk.GetArrayFromImage(back), array)


def test_planes_vectors_and_a_fourth_axis_become_channels_planes_rows_and_columns(tmp_path):
    cases = {
        "plane": (image(voxels(3, 4)), voxels(3, 4)[None, None]),
        "colours": (image(voxels(3, 4, 3), isVector=True), np.moveaxis(voxels(3, 4, 3), -1, 0)[:, None]),
        "vectors": (image(voxels(2, 3, 4, 5), isVector=True), np.moveaxis(voxels(2, 3, 4, 5), -1, 0)),
        "fourth": (image(voxels(5, 2, 3, 4), isVector=False), voxels(5, 2, 3, 4)),
    }
    for name, (written, expected) in cases.items():
        itk.WriteImage(written, str(tmp_path / f"{name}.mha"))
        volume = read_volume(tmp_path / f"{name}.mha")
        assert np.array_equal(volume.data, expected)
        assert volume.spacing[1:] == (2.0, 0.5)
    with pytest.raises(DataProblem, match=r"fourth.mha holds 5 time points"):
        read_volume(tmp_path / "fourth.mha", axes="tzyx")
    assert np.array_equal(read_volume(f"{tmp_path}/fourth.mha@t=3", axes="tzyx").data[0], voxels(5, 2, 3, 4)[3])
    itk.WriteImage(image(voxels(2, 3, 4, 5, 6), isVector=True), str(tmp_path / "five.mha"))
    with pytest.raises(DataProblem, match=r"has 5 axes; save one volume \(x, y, z\)"):
        read_volume(tmp_path / "five.mha")


@EACH
def test_a_flipped_bit_and_a_missing_end_are_refused(ending, tmp_path):
    path = tmp_path / f"a{ending}"
    itk.WriteImage(image(voxels(6, 30, 40)), str(path), useCompression=True)
    data = path if ending in {".nrrd", ".mha"} else next(p for p in tmp_path.iterdir() if p != path)
    whole = data.read_bytes()
    for damaged in (whole[:-100] + bytes([whole[-100] ^ 4]) + whole[-99:], whole[:-40]):
        data.write_bytes(damaged)
        with pytest.raises(FileProblem, match=r"^a\.\w+ cannot be read: it is cut off, damaged"):
            read_volume(path)


def test_without_the_library_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    (tmp_path / "a.mha").write_bytes(b"x")
    with pytest.raises(FileProblem, match=r'a\.mha .* pip install "napari-unetvnet\[formats\]"\.$'):
        read_labels(tmp_path / "a.mha")
    with pytest.raises(FileProblem, match=r'b\.nrrd is written by SimpleITK.* pip install "napari-unetvnet'):
        check_writable(tmp_path / "b.nrrd", "labels")
