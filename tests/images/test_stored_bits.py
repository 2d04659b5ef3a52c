"""A flipped bit is refused in one sentence wherever the format has a check sum; TIFF of other colours is told apart."""

from __future__ import annotations

import shutil
import zipfile

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from napari_unetvnet.errors import DataProblem, FileProblem
from napari_unetvnet.images.geometry import Geometry
from napari_unetvnet.images.io import find_pairs, read_labels, read_volume, write_labels
from napari_unetvnet.images.volume import Volume

STACK = np.random.default_rng(0).integers(0, 9, (3, 20, 24)).astype(np.uint8)


def written(path, planes=STACK):
    geometry = Geometry((3.0, 1.0, 1.0), "micrometer")
    write_labels(path, planes, Volume(np.zeros((1, *planes.shape), np.uint8), geometry))
    return path


@pytest.mark.parametrize("ending", [".png", ".nii.gz", ".zarr", ".nrrd", ".mha", ".tif"])
def test_a_flipped_bit_is_refused(ending, tmp_path):
    if ending in {".nrrd", ".mha"}:
        pytest.importorskip("SimpleITK")
    planes = STACK[:1] if ending == ".png" else STACK
    path = written(tmp_path / f"a{ending}", planes)
    if ending == ".tif":  # what is written is not packed, and has no check sum
        tifffile.imwrite(path, planes, imagej=True, metadata={"axes": "ZYX"}, compression="zlib")
    damaged = path / "0" / "c" / "0" / "0" / "0" if ending == ".zarr" else path
    whole, wrong = damaged.read_bytes(), []
    for place in range(len(whole) // 2, len(whole) - 12, max(1, len(whole) // 12)):
        damaged.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        try:
            wrong += [] if np.array_equal(read_volume(path).data[0], planes) else [place]
        except FileProblem as problem:
            assert "cannot be read: it is cut off, damaged" in str(problem)
    assert not wrong


def test_zarr_folders_are_known_by_their_files_and_zipped_ones_are_read(tmp_path):
    stored = written(tmp_path / "a.zarr")
    shutil.copytree(stored, tmp_path / "scans" / "brain")
    zarr.create_array(str(tmp_path / "plain"), shape=STACK.shape, dtype="u1", zarr_format=2)[:] = STACK
    with zipfile.ZipFile(tmp_path / "b.ome.zarr.zip", "w") as packed:
        for file in stored.rglob("*"):
            packed.write(file, file.relative_to(stored))
    for source in ("scans/brain", "scans/brain/0", "plain", "b.ome.zarr.zip", "b.ome.zarr.zip:/0"):
        volume = read_volume(tmp_path / source, axes="zyx" if source == "plain" else "")
        assert np.array_equal(volume.data[0], STACK)
        assert volume.name == {"s": "brain", "p": "plain", "b": "b"}[source[0]]
    assert read_volume(tmp_path / "b.ome.zarr.zip").spacing == (3.0, 1.0, 1.0)
    (tmp_path / "labels").mkdir()
    written(tmp_path / "labels" / "brain.tif")
    assert [image for image, _ in find_pairs([str(tmp_path / "scans")], [str(tmp_path / "labels")])] == [
        str(tmp_path / "scans" / "brain")
    ]


def test_a_file_with_a_wrong_ending_is_named_by_its_content(tmp_path):
    np.save(tmp_path / "a.npy", STACK)
    for ending in (".tif", ".png", ".nrrd", ".h5"):
        wrong = (tmp_path / "a.npy").rename(tmp_path / f"a{ending}")
        with pytest.raises(FileProblem, match=rf"a{ending} is NPY by its content; give it the ending .npy"):
            read_volume(wrong)
        wrong.rename(tmp_path / "a.npy")
    Image.fromarray(STACK[0]).convert("L").save(tmp_path / "a.jpg")
    photo = (tmp_path / "a.jpg").rename(tmp_path / "b.png")
    assert read_volume(photo).shape == (1, *STACK.shape[1:])
    with pytest.raises(DataProblem, match="JPEG changes values, so labels cannot be read from it"):
        read_labels(photo)


def test_a_picture_in_transparency_alone_is_refused(tmp_path):
    picture = np.zeros((24, 30, 4), np.uint8)
    picture[5:10, 5:10, 3] = 255
    Image.fromarray(picture).save(tmp_path / "a.png")
    for read in (read_volume, read_labels):
        with pytest.raises(DataProblem, match=r"a.png is of one colour, and its picture is in the transparency"):
            read(tmp_path / "a.png")


def test_white_is_high_and_palette_colours_are_labels_only(tmp_path):
    path = tmp_path / "a.tif"
    for array in (STACK[0], STACK[0].astype(np.uint16), STACK[0] > 4):
        tifffile.imwrite(path, array, photometric="miniswhite")
        expected = ~array if array.dtype == bool else np.iinfo(array.dtype).max - array
        assert np.array_equal(read_volume(path).data[0, 0], expected)
        # Numbers of labels have no brightness: ImageJ shows them as they are stored.
        assert np.array_equal(read_labels(path).data[0, 0], expected if array.dtype == bool else array)
        if array.dtype != np.uint16:
            assert np.array_equal(np.asarray(Image.open(path)), expected)
    tifffile.imwrite(path, STACK[0].astype(np.float32), photometric="miniswhite")
    with pytest.raises(DataProblem, match="0 is white in this file of float32; save it with 0 as black"):
        read_volume(path)
    colours = np.random.default_rng(1).integers(0, 2**16, (3, 256)).astype(np.uint16)
    tifffile.imwrite(path, STACK[0], photometric="palette", colormap=colours)
    assert np.array_equal(read_labels(path).data[0, 0], STACK[0])
    with pytest.raises(DataProblem, match="has palette colours, not intensities"):
        read_volume(path)
    tifffile.imwrite(path, STACK, photometric="palette", colormap=colours, imagej=True)
    assert np.array_equal(read_volume(path).data[:, 0], STACK)  # ImageJ says that they are channels
