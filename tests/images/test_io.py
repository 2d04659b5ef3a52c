"""What is written reads back the same, and a bad file is one sentence, wherever it is cut."""

from __future__ import annotations

import gzip
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from combinations import in_one_case
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_unetvnet.errors import DataProblem, FileProblem
from napari_unetvnet.images.geometry import Geometry
from napari_unetvnet.images.io import (
    check_writable,
    read_labels,
    read_volume,
    write_labels,
    write_probabilities,
)
from napari_unetvnet.images.volume import Volume

VOLUMES = (".nii", ".nii.gz", ".tif", ".tiff", ".ome.tif", ".npy")
SPACED = (".nii", ".nii.gz", ".tif", ".ome.tif")
OBLIQUE = np.array([[0.5, -0.1, 0.2, -3], [0.1, 0.7, -0.3, 5.5], [-0.2, 0.3, 2.5, 40], [0, 0, 0, 1]])
SHEARED = np.array([[1, 0.3, 0, 1], [0, 2, 0.1, 2], [0, 0, 3, 3], [0, 0, 0, 1.0]])


def orientations():
    """All 48 ways to lay three axes along the axes of the world, with three different voxel sizes."""
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            affine = np.eye(4)
            affine[:3, :3] = np.diag(signs) @ np.eye(3)[list(order)] @ np.diag([0.5, 1.25, 4])
            affine[:3, 3] = 10, -20, 30
            yield affine


def like(shape, spacing=(1.0, 1.0, 1.0), unit="pixel", affine=None):
    return Volume(np.zeros((1, *shape), np.uint8), Geometry(spacing, unit, affine))


def names_in(folder):
    return [path.name for path in folder.iterdir()]


def counted(*shape, dtype=np.uint8):
    """Every voxel another value, as far as the type allows."""
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


@pytest.fixture(scope="module")
def folder():
    place = Path(tempfile.mkdtemp())
    yield place
    shutil.rmtree(place)


# Round trips ----------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    ending=st.sampled_from((*VOLUMES, ".png")),
    dtype=st.sampled_from(("bool", "u1", "i1", "u2", "i2", ">u2", "u4", "i4", "i8", "u8")),
    shape=st.tuples(*[st.integers(1, 5)] * 3),
    high=st.sampled_from((0, 1, 127, 255, 256, 65535, 65536, 2**31 - 1)),
    seed=st.integers(0, 99),
)
def test_labels_read_back_as_written(folder, ending, dtype, shape, high, seed):
    kind = np.dtype(dtype)
    high = 1 if kind.kind == "b" else min(high, np.iinfo(kind).max, 65535 if ending == ".png" else high)
    shape = (1, *shape[1:]) if ending == ".png" else shape
    labels = np.random.default_rng(seed).integers(0, high, shape, endpoint=True).astype(kind)
    write_labels(folder / f"a{ending}", labels, like(shape))
    back = read_labels(folder / f"a{ending}")
    assert back.data.shape == (1, *shape)
    assert np.array_equal(back.data[0], labels)
    assert back.data.dtype == np.min_scalar_type(int(labels.max()))
    assert names_in(folder) == [f"a{ending}"]  # nothing temporary stays
    (folder / f"a{ending}").unlink()


@settings(max_examples=40, deadline=None)
@given(
    ending=st.sampled_from(VOLUMES),
    dtype=st.sampled_from(("f2", "f4", ">f4")),
    shape=st.tuples(*[st.integers(1, 4)] * 4),
)
def test_probabilities_read_back_as_channels(folder, ending, dtype, shape):
    assume(ending != ".npy" or shape[-1] > 1)  # without axis names a last axis of 1 is one channel
    scores = np.random.default_rng(0).random(shape).astype(dtype)
    write_probabilities(folder / f"p{ending}", scores, like(shape[1:], (3, 2, 1), "mm"))
    back = read_volume(folder / f"p{ending}")
    assert np.array_equal(back.data, scores)
    assert back.data.dtype == (np.float16 if (dtype, ending) == ("f2", ".npy") else np.float32)
    (folder / f"p{ending}").unlink()


@settings(max_examples=40, deadline=None)
@given(
    ending=st.sampled_from(SPACED),
    spacing=st.tuples(*[st.floats(1e-3, 1e3)] * 3),
    unit=st.sampled_from(("micrometer", "mm", "m")),
    depth=st.sampled_from((1, 3)),
)
def test_spacing_and_unit_come_back(folder, ending, spacing, unit, depth):
    labels = counted(depth, 4, 5)
    write_labels(folder / f"s{ending}", labels, like(labels.shape, spacing, unit))
    back = read_labels(folder / f"s{ending}")
    assert back.spacing == pytest.approx(spacing, rel=1e-6)
    assert back.unit == unit
    assert np.array_equal(back.data[0], labels)


@pytest.mark.parametrize("ending", [".tif", ".ome.tif"])
@in_one_case("unit", ["nm", "pixel", "cm", "Ångström"])
def test_tiff_holds_other_units(tmp_path, ending, unit):
    write_labels(tmp_path / f"a{ending}", counted(2, 3, 4), like((2, 3, 4), (3, 0.5, 0.25), unit))
    back = read_volume(tmp_path / f"a{ending}")
    assert back.spacing == pytest.approx((3, 0.5, 0.25))
    assert back.unit == unit


@pytest.mark.parametrize(("unit", "millimetres"), [("nm", 1e-6), ("cm", 10), ("pixel", 1), ("millimeter", 1)])
def test_nifti_converts_units_it_does_not_know(tmp_path, unit, millimetres):
    write_labels(tmp_path / "a.nii", counted(2, 3, 4), like((2, 3, 4), (3, 2, 1), unit))
    back = read_volume(tmp_path / "a.nii")
    assert back.unit == "mm"
    assert back.spacing == pytest.approx((3 * millimetres, 2 * millimetres, millimetres))
    assert np.diag(back.affine)[:3] == pytest.approx((millimetres, 2 * millimetres, 3 * millimetres))


@in_one_case("affine", [*orientations(), OBLIQUE, SHEARED])
def test_affine_comes_back(tmp_path, affine):
    voxels = counted(2, 3, 4)  # x, y, z
    nibabel.save(nibabel.Nifti1Image(voxels, affine), tmp_path / "image.nii")
    image = read_volume(tmp_path / "image.nii")
    write_labels(tmp_path / "labels.nii.gz", image.data[0], image)
    back = nibabel.load(tmp_path / "labels.nii.gz")
    original = nibabel.load(tmp_path / "image.nii")
    assert np.array_equal(back.affine, original.affine)
    assert np.array_equal(image.affine, original.affine)
    assert np.array_equal(np.asarray(back.dataobj), voxels)
    assert back.header.get_zooms() == pytest.approx(original.header.get_zooms())
    assert read_volume(tmp_path / "labels.nii.gz").spacing == pytest.approx(image.spacing)


def test_zooms_that_differ_from_the_affine_come_back(tmp_path):
    write_labels(tmp_path / "a.nii", counted(2, 3, 4), like((2, 3, 4), (7, 6, 5), "mm", np.diag([1.0, 1, 1, 1])))
    back = read_volume(tmp_path / "a.nii")
    assert back.spacing == (7, 6, 5)
    assert np.array_equal(back.affine, np.eye(4))


# Reading what others write --------------------------------------------------------------------------------------------


def test_nifti_axes_are_turned_and_the_fourth_is_channels(tmp_path):
    voxels = counted(2, 3, 4, 5, dtype=np.int16)
    image = nibabel.Nifti1Image(voxels, np.diag([1.0, 2, 3, 1]))
    image.header.set_xyzt_units("micron", "sec")
    nibabel.save(image, tmp_path / "a.b.nii.gz")
    volume = read_volume(tmp_path / "a.b.nii.gz")
    assert volume.data.shape == (5, 4, 3, 2)
    assert volume.data[4, 3, 2, 1] == voxels[1, 2, 3, 4]
    assert (volume.data.dtype, volume.spacing, volume.unit, volume.name) == (np.int16, (3, 2, 1), "micrometer", "a.b")


def test_scaled_nifti_labels_are_whole_numbers(tmp_path):
    image = nibabel.Nifti1Image(np.float32(counted(2, 3, 4) % 3), np.eye(4))
    image.set_data_dtype(np.uint8)
    nibabel.save(image, tmp_path / "a.nii")
    assert nibabel.load(tmp_path / "a.nii").dataobj.slope != 1
    labels = read_labels(tmp_path / "a.nii")
    assert labels.data.dtype == np.uint8
    assert np.array_equal(labels.data[0].T, counted(2, 3, 4) % 3)


def test_rgb_nifti_colours_become_channels(tmp_path):
    voxels = np.zeros((2, 3, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    voxels["G"] = 7
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "a.nii")
    assert read_volume(tmp_path / "a.nii").data[:, 0, 0, 0].tolist() == [0, 7, 0]


@pytest.mark.parametrize(("axes", "shape", "ours"), [("ZCYX", (2, 3, 4, 5), (1, 0, 2, 3)), ("CYX", (3, 4, 5), None)])
def test_imagej_axes(tmp_path, axes, shape, ours):
    pixels = counted(*shape)
    facts = {"axes": axes, "unit": "\\u00B5m", "spacing": 2.0}
    tifffile.imwrite(tmp_path / "a.tif", pixels, imagej=True, metadata=facts, resolution=(4, 2))
    volume = read_volume(tmp_path / "a.tif")
    assert np.array_equal(volume.data, pixels.transpose(ours) if ours else pixels[:, None])
    assert (volume.spacing, volume.unit) == ((2, 0.5, 0.25), "micrometer")


def test_ome_units_may_differ_between_axes(tmp_path):
    facts = {"axes": "CZYX", "PhysicalSizeX": 500.0, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.5}
    tifffile.imwrite(tmp_path / "a.ome.tif", counted(2, 3, 4, 5), metadata=facts | {"PhysicalSizeZ": 2.0})
    volume = read_volume(tmp_path / "a.ome.tif")
    assert volume.spacing == pytest.approx((2000, 500, 500))
    assert (volume.unit, volume.name, volume.data.shape) == ("nm", "a", (2, 3, 4, 5))


@pytest.mark.parametrize("metadata", [None, {}])
def test_unnamed_tiff_axis_is_depth(tmp_path, metadata):
    pixels = counted(5, 4, 5, dtype=">u2")
    tifffile.imwrite(tmp_path / "a.tif", pixels, metadata=metadata, photometric="minisblack", byteorder=">")
    volume = read_volume(tmp_path / "a.tif", spacing=(3, 2, 1))
    assert np.array_equal(volume.data[0], pixels)
    assert volume.data.dtype == np.uint16
    assert (volume.spacing, volume.unit) == ((3, 2, 1), "pixel")


def test_given_spacing_yields_to_that_of_the_file(tmp_path):
    write_labels(tmp_path / "a.tif", counted(2, 3, 4), like((2, 3, 4), (5, 5, 5), "mm"))
    assert read_volume(tmp_path / "a.tif", spacing=(3, 2, 1)).spacing == (5, 5, 5)


@pytest.mark.parametrize("ending", [".tif", ".png"])
@in_one_case("colours, channels", [(1, 1), (2, 1), (3, 3), (4, 3)])
def test_colours_become_channels_and_alpha_goes(tmp_path, ending, colours, channels):
    pixels = counted(4, 5, colours)
    if ending == ".tif":
        kind = "rgb" if colours > 2 else "minisblack"
        extra = {"extrasamples": ["unassalpha"]} if colours in {2, 4} else {}
        flat = {"planarconfig": "contig"} if colours > 1 else {}
        tifffile.imwrite(tmp_path / "a.tif", pixels.squeeze(), photometric=kind, **flat, **extra)
    else:
        Image.fromarray(pixels.squeeze()).save(tmp_path / "a.png")
    volume = read_volume(tmp_path / f"a{ending}")
    assert np.array_equal(volume.data[:, 0], np.moveaxis(pixels[..., :channels], -1, 0))


def test_channel_files_are_stacked_in_order(tmp_path):
    for value in range(3):
        write_labels(tmp_path / f"{value}.nii", counted(2, 3, 4) + value, like((2, 3, 4), (3, 2, 1), "mm"))
    volume = read_volume(" | ".join(str(tmp_path / f"{value}.nii") for value in (2, 0, 1)))
    assert volume.data[:, 0, 0, 0].tolist() == [2, 0, 1]
    assert (volume.spacing, volume.name) == ((3, 2, 1), "2")


def test_npy_axes(tmp_path):
    for shape, ours in (((4, 5), (1, 1, 4, 5)), ((5, 4, 5), (1, 5, 4, 5)), ((2, 3, 4, 5), (2, 3, 4, 5))):
        np.save(tmp_path / "a.npy", np.asfortranarray(counted(*shape).astype(">i2")))
        volume = read_volume(tmp_path / "a.npy")
        assert np.array_equal(volume.data, counted(*shape).reshape(ours))
        assert volume.data.dtype == np.int16


def test_uncompressed_files_are_mapped_not_loaded(tmp_path):
    for ending in (".npy", ".nii", ".tif"):
        write_labels(tmp_path / f"a{ending}", counted(5, 3, 4), like((5, 3, 4)))
        data = read_volume(tmp_path / f"a{ending}").data
        assert isinstance(data, np.memmap)
        data[...] = 0  # a copy: the file keeps its values
        assert read_volume(tmp_path / f"a{ending}").data.any()


def test_palette_is_label_numbers_but_no_intensity(tmp_path):
    image = Image.fromarray(counted(2, 3), mode=None).convert("P")
    image.putpalette(list(range(255, -1, -1)) * 3)
    image.save(tmp_path / "a.png")
    assert np.array_equal(read_labels(tmp_path / "a.png").data[0, 0], counted(2, 3))
    with pytest.raises(DataProblem, match="palette colours"):
        read_volume(tmp_path / "a.png")


def test_equal_colours_are_labels(tmp_path):
    Image.fromarray(np.repeat(counted(4, 5)[..., None], 3, axis=2)).save(tmp_path / "a.png")
    assert np.array_equal(read_labels(tmp_path / "a.png").data[0, 0], counted(4, 5))


def test_importing_io_loads_no_file_library():
    code = (
        "import sys, napari_unetvnet.images.io; print({'torch', 'nibabel', 'tifffile', 'PIL'} & set(sys.modules) or '')"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""


# Sentences ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ([0, 0.37], "fractional values such as 0.37, .*thresholded"),
        ([0, 9e-5, 1e-4], "from 0 to 0.0001 only, which all are next to 0; their file was scaled"),
        ([0, np.nan], "1 voxels are NaN or infinite"),
        ([0, -1.0], "negative values such as -1; number classes"),
        (np.array([3, -2], np.int16), "negative values such as -2"),
        ([0, 1e30], "such as 1e\\+30"),
        ([0, 1j], "not intensities"),
    ],
)
def test_values_that_are_no_labels(tmp_path, values, sentence):
    np.save(tmp_path / "a.npy", np.array([values]))
    with pytest.raises(DataProblem, match=f"a: .*{sentence}"):
        read_labels(tmp_path / "a.npy")


def test_whole_floats_become_the_smallest_integers(tmp_path):
    for high, kind in ((255, np.uint8), (256, np.uint16), (65536, np.uint32)):
        np.save(tmp_path / "a.npy", np.array([[0.0, high]], np.float32))
        assert read_labels(tmp_path / "a.npy").data.dtype == kind


def test_whole_half_floats_are_labels(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[0, 3]], np.float16))
    assert read_labels(tmp_path / "a.npy").data.ravel().tolist() == [0, 3]


def test_images_that_are_not_one_image(tmp_path):
    write = tifffile.imwrite
    write(tmp_path / "time.tif", counted(3, 4, 5), imagej=True, metadata={"axes": "TYX"})
    write(tmp_path / "many.tif", counted(2, 2, 4, 5), photometric="minisblack")
    nibabel.save(nibabel.Nifti1Image(counted(2, 3, 4, 2, 2), np.eye(4)), tmp_path / "five.nii")
    np.save(tmp_path / "line.npy", counted(7))
    Image.fromarray(counted(4, 5, 3)).save(tmp_path / "colour.png")
    with tifffile.TiffWriter(tmp_path / "two.ome.tif", ome=True) as tif:
        tif.write(counted(4, 5), photometric="minisblack")
        tif.write(counted(4, 5), photometric="minisblack")
    for name, sentence in {
        "time.tif": "3 time points, 0 to 2; name one",
        "many.tif": "axes QQYX",
        "five.nii": "holds 2 time points",
        "line.npy": "1 axes",
        "two.ome.tif": "2 images; name one by its number, such as two.ome.tif:2, .* 1 \\(4 x 5\\), 2 \\(4 x 5\\)",
        "colour.png": "3 channels that differ",
    }.items():
        with pytest.raises(DataProblem, match=sentence):
            read_labels(tmp_path / name)


def test_channel_files_must_share_a_grid(tmp_path):
    write_labels(tmp_path / "a.nii", counted(2, 3, 4), like((2, 3, 4)))
    write_labels(tmp_path / "shape.nii", counted(2, 3, 5), like((2, 3, 5)))
    write_labels(tmp_path / "spacing.nii", counted(2, 3, 4), like((2, 3, 4), (2, 1, 1)))
    write_labels(tmp_path / "affine.nii", counted(2, 3, 4), like((2, 3, 4), affine=np.diag([-1.0, 1, 1, 1])))
    for name, sentence in {
        "shape": "has 2 x 3 x 5 voxels (z y x), a.nii has 2 x 3 x 4",
        "spacing": "has voxels of 2 x 1 x 1 mm, a.nii of 1 x 1 x 1 mm, by up to 1 voxel along z",
        "affine": "is mirrored along x against a.nii, by up to 6 voxels along x",
    }.items():
        with pytest.raises(DataProblem, match=re.escape(f"{name}.nii {sentence}; ")):
            read_volume(f"{tmp_path}/a.nii|{tmp_path}/{name}.nii")


def test_missing_and_unknown_files(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    for name, sentence in (
        ("b.tif", "There is no file .*b.tif"),
        ("a.txt", "has an unknown ending"),
        ("", "folder"),
    ):
        with pytest.raises(FileProblem, match=sentence):
            read_volume(tmp_path / name)


@pytest.mark.parametrize("ending", [*VOLUMES, ".png", ".jpg", ".jpeg"])
@in_one_case("content", [b"", b"x", b"no image, but some lines of text\n" * 40, bytes(2000)])
def test_other_content_is_one_sentence(tmp_path, ending, content, caplog):
    (tmp_path / f"a{ending}").write_bytes(content)
    with pytest.raises(FileProblem, match=f"^a{ending} cannot be read: .*created it.$"):
        read_volume(tmp_path / f"a{ending}")
    assert not caplog.records


def whole_files(folder):
    """One file of each way to store pixels that has its own way to be cut."""
    pixels = np.random.default_rng(0).integers(1, 200, (5, 24, 30)).astype(np.uint8)
    place, grid = folder / "whole", like(pixels.shape, (3, 2, 1), "mm")
    place.mkdir()
    for name in ("a.nii", "a.nii.gz", "a.npy", "imagej.tif", "a.ome.tif"):
        write_labels(place / name, pixels, grid)
    plain = {"photometric": "minisblack"}
    tifffile.imwrite(place / "plain.tif", pixels, **plain)
    tifffile.imwrite(place / "strips.tif", pixels, compression="zlib", rowsperstrip=8, metadata=None, **plain)
    tifffile.imwrite(place / "shaped.tif", pixels, compression="zlib", **plain)
    tifffile.imwrite(place / "tiles.tif", pixels, tile=(16, 16), **plain)
    tifffile.imwrite(place / "big.tif", pixels, bigtiff=True, **plain)
    with tifffile.TiffWriter(place / "pages.tif") as tif:
        for page in pixels:
            tif.write(page, metadata=None, contiguous=False, **plain)
    Image.fromarray(pixels[0]).save(place / "a.png")
    Image.fromarray(pixels[0]).save(place / "a.jpg")
    Image.fromarray(pixels[0]).save(place / "progressive.jpg", progressive=True)
    return sorted(place.iterdir())


def test_cut_files_are_one_sentence(tmp_path, caplog):
    for path in whole_files(tmp_path):
        content, whole, cut = path.read_bytes(), read_volume(path), tmp_path / path.name
        size = len(content)
        for length in {*range(0, size, 37), *range(size - 30, size)}:
            cut.write_bytes(content[:length])
            try:
                volume = read_volume(cut)
            except FileProblem as problem:
                assert path.name in str(problem)
                assert len(problem.lines) == 1
                continue
            # Only what carries no voxel may be missing.
            assert np.array_equal(volume.data, whole.data), f"{path.name} cut at {length} of {size}"
            assert path.suffix == ".tif"
            assert volume.spacing == whole.spacing
    assert not caplog.records


def test_damage_inside_gzip_is_seen(tmp_path):
    write_labels(tmp_path / "a.nii", counted(9, 20, 20), like((9, 20, 20)))
    packed = bytearray(gzip.compress((tmp_path / "a.nii").read_bytes(), compresslevel=0))
    packed[-20] ^= 1  # the last voxels
    (tmp_path / "a.nii.gz").write_bytes(packed)
    with pytest.raises(FileProblem, match="CRC"):
        read_volume(tmp_path / "a.nii.gz")


# Writing --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "sentence"),
    [
        ("a.jpg", "labels", "Cannot write labels to a.jpg: JPEG changes values; use .nii.gz"),
        ("a.png", "probabilities", "PNG holds no fractions"),
        ("a.xyz", "labels", "the ending decides the format"),
        ("a", "labels", "the ending decides the format"),
        ("a.pt", "model", "use .safetensors"),
        ("none/a.tif", "labels", "There is no folder .*none"),
        ("folder.tif", "labels", "is a folder"),
    ],
)
def test_places_that_cannot_be_written(tmp_path, name, kind, sentence):
    (tmp_path / "folder.tif").mkdir()
    with pytest.raises(FileProblem, match=sentence):
        check_writable(tmp_path / name, kind)
    assert names_in(tmp_path) == ["folder.tif"]


def test_protected_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(FileProblem, match="write-protected"):
        write_labels(tmp_path / "a.tif", counted(2, 3, 4), like((2, 3, 4)))


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    def full_disk(path, *_):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    write_labels(tmp_path / "a.npy", counted(2, 3, 4), like((2, 3, 4)))
    monkeypatch.setattr("napari_unetvnet.images.formats.npy.write", full_disk)
    with pytest.raises(FileProblem, match=r"a\.npy cannot be written \(No space left on device\)"):
        write_labels(tmp_path / "a.npy", np.zeros((2, 3, 4), np.uint8), like((2, 3, 4)))
    assert names_in(tmp_path) == ["a.npy"]
    assert read_labels(tmp_path / "a.npy").data.any()


def test_results_that_do_not_fit(tmp_path):
    grid = like((2, 3, 4))
    for name, labels, sentence in (
        ("a.png", counted(2, 3, 4), r"PNG holds one plane, not 2; use \.nii\.gz, .*\.mha\.$"),
        ("a.tif", counted(2, 3, 4).astype(np.uint64) + 2**33, r"TIFF holds labels to 4294967295, not .*; use \.nii"),
        ("a.nii", counted(2, 3, 5), "not on the grid"),
        ("a.nii", counted(2, 3, 4) * 1.5, "give integers"),
        ("a.nii", counted(2, 3, 4, dtype=np.int8) - 3, "negative"),
    ):
        with pytest.raises(DataProblem, match=sentence):
            write_labels(tmp_path / name, labels, grid)
    with pytest.raises(DataProblem, match="give float16"):
        write_probabilities(tmp_path / "a.nii", counted(1, 2, 3, 4), grid)
    assert not names_in(tmp_path)


@pytest.mark.parametrize("shape", [(2, 1, 5, 6), (3, 1, 5, 3)])
def test_several_masks_are_no_png(tmp_path, shape):
    with pytest.raises(DataProblem, match="PNG holds one mask, not"):
        write_labels(tmp_path / "a.png", counted(*shape) % 2, like(shape[-3:]))
    write_labels(tmp_path / "a.png", counted(1, *shape[1:]) % 2, like(shape[-3:]))
    assert np.array_equal(read_labels(tmp_path / "a.png").data, counted(1, *shape[1:]) % 2)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_an_axis_that_is_too_long_for_nifti_1_is_written_as_nifti_2(tmp_path, ending):
    for length, kind in ((32767, nibabel.Nifti1Image), (32768, nibabel.Nifti2Image)):
        image = like((1, 2, length))
        for _ in range(2):  # the second time with the fields of a NIfTI header
            write_labels(tmp_path / f"a{ending}", counted(1, 2, length), image)
            image = read_volume(tmp_path / f"a{ending}")
        written = nibabel.load(tmp_path / f"a{ending}")
        assert type(written) is kind
        np.testing.assert_array_equal(np.asarray(written.dataobj).T, counted(1, 2, length))
        np.testing.assert_allclose(image.spacing, like((1, 2, length)).spacing)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".npy", ".zarr"])
def test_labels_beyond_32_bits_are_kept(tmp_path, ending):
    labels = counted(2, 3, 4, dtype=np.uint64) + 2**40
    write_labels(tmp_path / f"a{ending}", labels, like(labels.shape))
    assert np.array_equal(read_labels(tmp_path / f"a{ending}").data[0], labels)
