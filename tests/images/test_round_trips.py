"""Where voxels lie is the same before and after, whatever the geometry: asked of nibabel, SimpleITK and tifffile."""

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_unetvnet.images.formats import FORMATS, ending_of, format_of
from napari_unetvnet.images.io import read_labels, read_volume, write_labels

DATA = "NAPARI_UNETVNET_DATA"
TURNED = np.diag([-1.0, -1.0, 1.0, 1.0])
"""From positions of NIfTI to those of ITK."""
ENDINGS = [row.endings[0] for row in FORMATS if row.writes("labels") and "affine" in row.keeps]
UPRIGHT = [row.endings[0] for row in FORMATS if row.writes("labels") and "position" in row.keeps]
UPRIGHT = [ending for ending in (*UPRIGHT, ".ome.tif") if ending not in ENDINGS]
itk = pytest.importorskip("SimpleITK")


@st.composite
def geometries(draw):
    """Affine, both codes, unit and shape of a NIfTI file: turned, mirrored, oblique, sheared."""
    order, signs = draw(st.permutations(range(3))), draw(st.tuples(*[st.sampled_from((-1, 1))] * 3))
    edges = np.array(draw(st.tuples(*[st.sampled_from((0.02, 0.7, 1.0, 3.5))] * 3)))
    affine = np.zeros((4, 4))
    affine[order, range(3)] = edges * signs
    angle = draw(st.sampled_from((0.0, 0.1, 0.6)))
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = turn @ affine
    shear = draw(st.sampled_from((0.0, 0.0, 0.05)))
    affine[:3, 0] += shear * affine[:3, 1]
    affine[:3, 3] = draw(st.tuples(*[st.sampled_from((-120.5, 0.0, 33.25))] * 3))
    affine[3, 3] = 1
    codes = draw(st.sampled_from(((0, 1), (1, 0), (1, 1), (2, 4), (3, 2), (0, 0))))
    codes = (0, max(1, codes[1])) if shear else codes
    shape = draw(st.sampled_from(((5, 4, 3), (5, 4, 1), (5, 4), (5, 4, 3, 2))))
    return affine, codes, draw(st.sampled_from(("mm", "micron", "meter", "unknown"))), shape, bool(shear)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(geometries())
def test_labels_lie_where_their_image_lies(tmp_path, geometry):
    affine, codes, unit, shape, sheared = geometry
    path = tmp_path / "image.nii"
    image = nib.Nifti1Image(np.zeros(shape, np.uint8), affine)
    image.set_qform(affine, codes[0])
    image.set_sform(affine, codes[1])
    image.header.set_xyzt_units(unit)
    nib.save(image, path)
    volume, stored = read_volume(path), nib.load(path).header
    labels = np.arange(np.prod(volume.shape), dtype=np.uint8).reshape(volume.shape)
    for ending in ENDINGS:
        result = tmp_path / f"result{ending}"
        if sheared and not ending.startswith(".nii"):
            continue  # ITK holds no shear
        write_labels(result, labels, volume)
        back = read_labels(result)
        np.testing.assert_array_equal(back.data[0], labels)
        assert back.spacing == pytest.approx(volume.spacing, rel=1e-4)
        if codes != (0, 0):
            np.testing.assert_allclose(back.affine, volume.affine, rtol=1e-4, atol=1e-4)
        if ending.startswith(".nii"):
            _same_forms(nib.load(result).header, stored)
            _same_in_itk(result, path, sheared)
        elif codes != (0, 0):
            _where_nibabel_says(result, volume.affine, {"micron": 1e-3, "meter": 1e3}.get(unit, 1.0))
    if volume.geometry.origin is not None and not sheared:
        _same_where_axes_are_those_of_space(tmp_path, labels, volume)


def _same_where_axes_are_those_of_space(folder, labels, volume):
    for ending in UPRIGHT:
        write_labels(folder / f"result{ending}", labels, volume)
        back = read_labels(folder / f"result{ending}")
        np.testing.assert_array_equal(back.data[0], labels)
        np.testing.assert_allclose(back.geometry.origin, volume.geometry.origin, rtol=1e-4, atol=1e-6)
        assert back.spacing == pytest.approx(volume.spacing, rel=1e-4)


def _same_forms(header, stored):
    for form in ("get_qform", "get_sform"):
        mine, theirs = (getattr(each, form)(coded=True) for each in (header, stored))
        assert mine[1] == theirs[1]
        assert (mine[0] is None) == (theirs[0] is None)
        if mine[0] is not None:
            np.testing.assert_allclose(mine[0], theirs[0], rtol=1e-6)
    assert header.get_xyzt_units()[0] == stored.get_xyzt_units()[0]


def _where_nibabel_says(path, affine, scale):
    """Compare where SimpleITK sees a file with an affine of nibabel, whose positions are mirrored to those of ITK."""
    seen, expected = itk.ReadImage(str(path)), np.diag([scale] * 3 + [1.0]) @ TURNED @ affine
    matrix = np.reshape(seen.GetDirection(), (3, 3)) * seen.GetSpacing()
    np.testing.assert_allclose(matrix, expected[:3, :3], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(seen.GetOrigin(), expected[:3, 3], rtol=1e-4, atol=1e-7)


def _same_in_itk(result, path, sheared=False):
    """Compare where SimpleITK sees two files; of an image with channels the first three axes. It takes no shear."""
    if sheared:
        return
    mine, theirs = (itk.ReadImage(str(each)) for each in (result, path))
    n = min(mine.GetDimension(), theirs.GetDimension(), 3)
    for name in ("GetSpacing", "GetOrigin"):
        np.testing.assert_allclose(getattr(mine, name)()[:n], getattr(theirs, name)()[:n], rtol=1e-5)
    directions = [np.reshape(each.GetDirection(), (each.GetDimension(),) * 2)[:n, :n] for each in (mine, theirs)]
    np.testing.assert_allclose(*directions, atol=1e-6)


def _data():
    """List the images of the folder of real data."""
    folder = os.environ.get(DATA)
    if not folder:
        return []
    return [path for path in sorted(Path(folder).rglob("*")) if path.is_file() and format_of(path.name)]


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get(DATA), reason=f"needs real images, in the folder ${DATA}")
def test_real_images_get_labels_on_their_own_grid(tmp_path):
    paths = _data()
    assert paths
    for path in paths:
        volume = read_volume(path)
        labels = np.zeros(volume.shape, np.uint8)
        labels[..., 0, 1] = 7
        ending = ending_of(path) if format_of(path).writes("labels") else ".png"
        result = tmp_path / f"result{ending}"
        write_labels(result, labels, volume)
        np.testing.assert_array_equal(read_labels(result).data[0], labels, err_msg=str(path))
        if ending.startswith(".nii"):
            mine, theirs = nib.load(result), nib.load(path)
            assert mine.shape == theirs.shape[:3], path
            np.testing.assert_array_equal(mine.affine, theirs.affine, err_msg=str(path))
            for code in ("qform_code", "sform_code"):
                assert mine.header[code] == theirs.header[code], path
            assert mine.header.get_zooms()[:3] == theirs.header.get_zooms()[:3], path
            if len(theirs.shape) == 3:
                _same_in_itk(result, path)
        elif ending.startswith(".tif"):
            with tifffile.TiffFile(result) as mine, tifffile.TiffFile(path) as theirs:
                assert mine.asarray().shape == theirs.asarray().shape[: mine.asarray().ndim], path
                for tag in ("XResolution", "YResolution"):
                    if theirs.is_imagej and tag in theirs.pages[0].tags:
                        assert mine.pages[0].tags[tag].value == theirs.pages[0].tags[tag].value, path
        else:
            with Image.open(result) as mine, Image.open(path) as theirs:
                assert mine.size == theirs.size, path
