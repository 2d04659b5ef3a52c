"""Names of classes in files: written and read back in each format that has room, and as tables beside the others."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import tifffile
import zarr
from combinations import in_one_case

from napari_unetvnet.images.class_names import from_json, tables_beside
from napari_unetvnet.images.formats import FORMATS
from napari_unetvnet.images.geometry import Geometry
from napari_unetvnet.images.io import read_labels, read_volume, write_labels, write_probabilities
from napari_unetvnet.images.volume import Volume

NAMES = ((0, "background"), (1, "céll <a> & b"), (7, "left nucleus"))
LABELS = np.zeros((1, 4, 5), np.uint8)
LABELS[0, 1:3, 2:] = 1
LABELS[0, 3, :2] = 7
ENDINGS = [
    (each, ending) for each in FORMATS for ending in (*each.endings, *each.long_endings) if each.writes("labels")
]


def like(names=NAMES):
    return Volume(np.zeros((1, *LABELS.shape), np.uint8), Geometry((1.0, 0.5, 0.5), "mm"), class_names=names)


@in_one_case("each, ending", ENDINGS)
def test_names_are_read_back_where_the_format_keeps_them(tmp_path_factory, each, ending):
    path = tmp_path_factory.mktemp("files") / f"a{ending}"
    write_labels(path, LABELS, like())
    read = read_labels(path)
    np.testing.assert_array_equal(read.data[0], LABELS)
    assert read.class_names == (NAMES if "class names" in each.keeps else ())
    assert [table.exists() for table in tables_beside(path)] == [each.tables] * 2
    write_labels(path, LABELS, like(()))
    assert read_labels(path).class_names == ()
    assert not any(table.exists() for table in tables_beside(path)), "of an earlier result"


@in_one_case("ending", [".nii.gz", ".tif", ".ome.tif", ".zarr"])
def test_masks_and_probabilities_have_the_names_of_their_channels(tmp_path_factory, ending):
    path = tmp_path_factory.mktemp("files") / f"a{ending}"
    masks, names = np.stack([LABELS == 1, LABELS == 7]).astype(np.uint8), ((1, "big"), (2, "tiny"))
    write_labels(path, masks, like(names))
    read = read_labels(path, overlapping=True)
    np.testing.assert_array_equal(read.data, masks)
    assert read.class_names == names
    likely = path.with_name(f"p{ending}")
    write_probabilities(likely, masks / 2, like(names))
    np.testing.assert_allclose(read_volume(likely).data, masks / 2)


def test_other_programs_find_them(tmp_path):
    write_labels(tmp_path / "a.nii.gz", LABELS, like())
    itk_snap, slicer = (table.read_text(encoding="utf-8") for table in tables_beside(tmp_path / "a.nii.gz"))
    assert '7 227 119 194 1 1 1 "left nucleus"' in itk_snap
    assert "7 left_nucleus 227 119 194 255" in slicer
    assert slicer.startswith("# Color table file")
    (comment,) = nibabel.load(tmp_path / "a.nii.gz").header.extensions
    assert (comment.get_code(), from_json(comment.get_content().decode())) == (6, NAMES)
    write_labels(tmp_path / "a.zarr", LABELS, like())
    described = zarr.open_group(tmp_path / "a.zarr", mode="r").attrs["ome"]["image-label"]
    assert described == {"properties": [{"label-value": value, "name": name} for value, name in NAMES]}
    write_labels(tmp_path / "a.ome.tif", LABELS, like())
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        assert '<M K="7">left nucleus</M>' in file.ome_metadata


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"napari-unetvnet class names": 3}', '{"a": {"1": "b"}}'])
def test_other_texts_are_no_names(text):
    assert from_json(text) == ()


def test_a_table_of_the_users_own_stays(tmp_path):
    table = tables_beside(tmp_path / "a.nii.gz")[0]
    table.write_text("mine")
    write_labels(tmp_path / "a.nii.gz", LABELS, like(()))
    assert table.read_text() == "mine"
