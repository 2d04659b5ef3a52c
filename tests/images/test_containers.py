"""Images in zarr folders and HDF5 files: which array, which axes, how large a voxel, and nothing read too early."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import h5py
import nibabel
import numpy as np
import pytest
import tifffile
import zarr
from combinations import in_one_case

from napari_unetvnet.errors import DataProblem, FileProblem
from napari_unetvnet.images import image_file
from napari_unetvnet.images import io as files
from napari_unetvnet.images.arrays import View
from napari_unetvnet.images.io import find_pairs, read_labels, read_volume

FORMATS = pytest.mark.parametrize("form", [2, 3])


def counted(*shape, dtype=np.uint16):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def ngff(path, voxels, form, axes="tczyx", scale=(), units=(), levels=2):
    """Write an OME-Zarr image, level 0 with the voxels and coarser ones of zeros."""
    group = zarr.open_group(path, mode="w", zarr_format=form)
    for level in range(levels):
        data = voxels if level == 0 else np.zeros_like(voxels)
        group.create_array(f"s{level}", data=data, chunks=tuple(min(4, n) for n in voxels.shape))
    transform = [{"type": "scale", "scale": list(scale)}] if scale else []
    image = {
        "axes": [
            {"name": a, **({"unit": u} if u else {})} for a, u in zip(axes, units or [""] * len(axes), strict=True)
        ],
        "datasets": [{"path": f"s{level}", "coordinateTransformations": transform} for level in range(levels)],
    }
    group.attrs.update({"multiscales": [image]} if form == 2 else {"ome": {"version": "0.5", "multiscales": [image]}})
    return group


@FORMATS
def test_the_finest_level_of_an_ome_zarr_is_read_with_axes_and_spacing(tmp_path, form):
    voxels = counted(1, 2, 3, 5, 6, dtype=">u2")
    units = ("second", "", "micrometer", "nanometer", "nanometer")
    ngff(tmp_path / "a.ome.zarr", voxels, form, scale=(1, 1, 2, 250, 300), units=units)
    volume = read_volume(tmp_path / "a.ome.zarr")
    np.testing.assert_array_equal(volume.data, voxels[0])
    assert volume.data.dtype.isnative
    assert volume.spacing == pytest.approx((2000, 250, 300))
    assert (volume.unit, volume.name, volume.shape) == ("nm", "a", (3, 5, 6))


@FORMATS
def test_ome_axes_may_come_in_another_order(tmp_path, form):
    voxels = counted(3, 5, 6, 2)
    ngff(tmp_path / "a.zarr", voxels, form, axes="zyxc", scale=(3, 2, 1, 1))
    volume = read_volume(tmp_path / "a.zarr")
    np.testing.assert_array_equal(volume.data, voxels.transpose(3, 0, 1, 2))
    assert (volume.spacing, volume.unit) == ((3, 2, 1), "pixel")


@FORMATS
@pytest.mark.parametrize(("shape", "ours"), [((5, 6), (1, 1, 5, 6)), ((5, 5, 6), (1, 5, 5, 6)), ((2, 3, 5, 6),) * 2])
def test_plain_arrays_are_like_npy(tmp_path, form, shape, ours):
    zarr.create_array(str(tmp_path / "a.zarr"), data=counted(*shape), zarr_format=form)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["only"] = counted(*shape)
    for name in ("a.zarr", "a.h5"):
        volume = read_volume(tmp_path / name)
        np.testing.assert_array_equal(volume.data, counted(*shape).reshape(ours))
        assert (volume.spacing, volume.unit, volume.name) == ((1, 1, 1), "pixel", "a")
    assert read_volume(tmp_path / "a.zarr", spacing=(3, 2, 1)).spacing == (3, 2, 1)


@FORMATS
@in_one_case(
    "shape, ours",
    [
        ((3, 5, 6, 1), (1, 3, 5, 6)),
        ((1, 3, 5, 6, 1), (1, 3, 5, 6)),
        ((2, 3, 5, 6, 1), (2, 3, 5, 6)),
        ((1, 1, 3, 5, 6, 1), (1, 3, 5, 6)),
        ((1, 3, 5, 6), (1, 3, 5, 6)),
        ((2, 3, 1, 1), (2, 3, 1, 1)),
    ],
)
def test_a_last_axis_of_one_channel_is_no_x(tmp_path, form, shape, ours):
    zarr.create_array(str(tmp_path / "a.zarr"), data=counted(*shape), zarr_format=form, overwrite=True)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["only"] = counted(*shape)
    np.save(tmp_path / "a.npy", counted(*shape))
    for name in ("a.zarr", "a.h5", "a.npy"):
        np.testing.assert_array_equal(read_volume(tmp_path / name).data, counted(*shape).reshape(ours))


def test_axis_names_of_plain_arrays_are_kept_to(tmp_path):
    voxels = counted(3, 5, 6, 2)
    named = dict.fromkeys(("a.zarr", "b.h5", "c.hdf5"))
    zarr.create_array(str(tmp_path / "a.zarr"), data=voxels, dimension_names=("z", "y", "x", "channel"))
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["raw"] = voxels
        file["raw"].attrs["axistags"] = json.dumps({"axes": [{"key": key} for key in "zyxc"]})  # as ilastik has it
    with h5py.File(tmp_path / "c.hdf5", "w") as file:
        file["raw"] = voxels
        file["raw"].attrs["element_size_um"] = (2.0, 0.5, 0.25)
        for dimension, name in zip(file["raw"].dims, "zyxc", strict=True):
            dimension.label = name
    for name in named:
        np.testing.assert_array_equal(read_volume(tmp_path / name).data, voxels.transpose(3, 0, 1, 2))
    assert (read_volume(tmp_path / "c.hdf5").spacing, read_volume(tmp_path / "c.hdf5").unit) == (
        (2, 0.5, 0.25),
        "micrometer",
    )


def test_a_dataset_is_named_after_the_file(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["volumes/raw"], file["volumes/labels"], file["table"] = counted(3, 5, 6), np.ones((3, 5, 6)), [1, 2]
    np.testing.assert_array_equal(read_volume(f"{tmp_path}/a.h5:/volumes/raw", axes="zyx").data[0], counted(3, 5, 6))
    labels = read_labels(f"{tmp_path}/a.h5:volumes/labels")
    assert (labels.data.dtype, labels.name, bool(labels.data.all())) == (np.uint8, "a", True)
    with pytest.raises(
        FileProblem, match=r"a\.h5 holds 2 images; name one, such as \S+a\.h5:/volumes/labels: .*raw \(3"
    ):
        read_volume(tmp_path / "a.h5")
    with pytest.raises(FileProblem, match=r"a\.h5 holds no dataset /none; it holds /volumes/labels \(3 x 5 x 6\)"):
        read_volume(f"{tmp_path}/a.h5:/none")
    with pytest.raises(FileProblem, match="There is no file"):
        read_volume(f"{tmp_path}/b.h5:/raw")


@FORMATS
def test_an_image_within_a_zarr_folder_is_named_by_its_path(tmp_path, form):
    group = ngff(tmp_path / "a.zarr", counted(3, 5, 6), form, axes="zyx")
    ngff(tmp_path / "a.zarr" / "labels" / "cells", counted(3, 5, 6) % 3, form, axes="zyx")
    assert read_labels(tmp_path / "a.zarr" / "labels" / "cells").data[...].max() == 2
    assert group["s0"].shape == read_volume(tmp_path / "a.zarr").shape
    several = zarr.open_group(str(tmp_path / "b.zarr"), mode="w", zarr_format=form)
    for name in "xy":
        several.create_array(name, data=counted(5, 6))
    with pytest.raises(FileProblem, match=r"b\.zarr holds 2 images; name one, such as \S+b\.zarr/x: x \(5 x 6\), y"):
        read_volume(tmp_path / "b.zarr")
    assert read_volume(tmp_path / "b.zarr" / "y").shape == (1, 5, 6)


def test_a_zip_file_may_hold_the_image_in_a_folder(tmp_path):
    zarr.create_array(str(tmp_path / "a.zarr"), data=counted(3, 20, 24))
    for base in ("a.zarr", "."):
        root = tmp_path if base == "a.zarr" else tmp_path / "a.zarr"
        packed = shutil.make_archive(str(tmp_path / "packed"), "zip", root_dir=root, base_dir=base)
        image = shutil.move(packed, tmp_path / "b.zarr.zip")
        assert np.array_equal(read_volume(image, axes="zyx").data[0], counted(3, 20, 24))


def test_what_is_no_image_is_one_sentence(tmp_path):
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "b.zarr").mkdir()
    (tmp_path / "b.zarr" / "zarr.json").write_text("{")
    (tmp_path / "c.h5").write_bytes(bytes(2000))
    for name in ("a.zarr", "b.zarr", "c.h5"):
        with pytest.raises(FileProblem, match=rf"^{name} cannot be read: .*created it\.$"):
            read_volume(tmp_path / name)
    zarr.open_group(str(tmp_path / "d.zarr"), mode="w")
    h5py.File(tmp_path / "d.h5", "w").close()
    for name in ("d.zarr", "d.h5"):
        with pytest.raises(FileProblem, match="holds no array with at least two axes"):
            read_volume(tmp_path / name)
    ngff(tmp_path / "e.zarr", counted(3, 1, 1, 5, 6), 3)
    with pytest.raises(DataProblem, match="3 time points"):
        read_volume(tmp_path / "e.zarr")
    with pytest.raises(FileProblem, match=r"There is no file .*f\.zarr"):
        read_volume(tmp_path / "f.zarr")


@FORMATS
def test_nothing_but_the_sliced_chunks_is_read_and_damage_is_one_sentence(tmp_path, form):
    stored = zarr.create_array(
        str(tmp_path / "a.zarr"), shape=(8, 8, 8), chunks=(4, 4, 4), dtype="u2", zarr_format=form
    )
    stored[...] = counted(8, 8, 8)
    chunks = [
        path for path in (tmp_path / "a.zarr").rglob("*") if path.is_file() and not path.name.startswith((".", "z"))
    ]
    assert len(chunks) == 8
    for path in chunks:
        if not str(path.relative_to(tmp_path)).endswith(("0.0.0", "c/0/0/0")):
            path.write_bytes(b"no chunk")
    data = read_volume(tmp_path / "a.zarr").data
    np.testing.assert_array_equal(data[0, 1:4, :4, 2], counted(8, 8, 8)[1:4, :4, 2])
    with pytest.raises(FileProblem, match=r"^a\.zarr cannot be read: it is cut off, damaged"):
        data[:, :5]


def test_a_damaged_hdf5_file_is_one_sentence_when_it_is_read(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("raw", data=counted(8, 8, 8), chunks=(4, 4, 4), compression="gzip")
        offset = file["raw"].id.get_chunk_info(7).byte_offset
    content = bytearray((tmp_path / "a.h5").read_bytes())
    content[offset : offset + 30] = bytes(30)
    (tmp_path / "a.h5").write_bytes(content)
    data = read_volume(tmp_path / "a.h5").data
    assert data[0, 0, 0, 5] == 5
    with pytest.raises(FileProblem, match=r"^a\.h5 cannot be read: it is cut off, damaged"):
        data[:, 4:, 4:, 4:]


def test_zarr_folders_are_images_in_lists_and_folders(tmp_path):
    for place in ("i", "l"):
        (tmp_path / place).mkdir()
        for name in ("a", "b"):
            zarr.create_array(str(tmp_path / place / f"{name}.zarr"), data=counted(5, 6))
    images, labels = ([str(tmp_path / place / f"{name}.zarr") for name in "ab"] for place in "il")
    pairs = list(zip(images, labels, strict=True))
    assert find_pairs([str(tmp_path / "i")], [str(tmp_path / "l")]) == pairs
    assert find_pairs(images, labels[::-1]) == pairs
    inside = f"{tmp_path}/i/a.h5:/raw"
    h5py.File(tmp_path / "i" / "a.h5", "w").close()
    assert find_pairs([inside], [f"{tmp_path}/i/a.h5:/labels"]) == [(inside, f"{tmp_path}/i/a.h5:/labels")]
    assert files.resolve("a.h5:/raw", tmp_path) == f"{tmp_path}/a.h5:/raw"


@pytest.mark.parametrize("dtype", ["u1", "f4", "bool"])
def test_labels_are_checked_part_by_part(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr("napari_unetvnet.images.arrays.PART_VOXELS", 20)
    labels = (counted(4, 5, 6) % 2).astype(dtype)
    zarr.create_array(str(tmp_path / "a.zarr"), data=labels, chunks=(2, 5, 6))
    found = read_labels(tmp_path / "a.zarr").data
    np.testing.assert_array_equal(found[0], labels)
    assert found.dtype == np.uint8
    if dtype == "f4":
        labels[3, 4, 5] = 0.4
        zarr.create_array(str(tmp_path / "b.zarr"), data=labels, chunks=(2, 5, 6))
        with pytest.raises(DataProblem, match=r"fractional values such as 0\.4"):
            read_labels(tmp_path / "b.zarr")


def test_large_files_of_every_kind_are_read_in_parts_with_the_same_values(tmp_path, monkeypatch):
    voxels = counted(5, 5, 6)
    scaled = nibabel.Nifti1Image(voxels.T, np.diag([1.0, 2, 3, 1]))
    scaled.header.set_slope_inter(0.5, 3)
    nibabel.save(scaled, tmp_path / "scaled.nii")
    tifffile.imwrite(tmp_path / "imagej.tif", voxels, imagej=True, byteorder=">", metadata={"axes": "ZYX"})
    np.save(tmp_path / "a.npy", voxels.astype(">u2"))
    names = ("scaled.nii", "imagej.tif", "a.npy")
    whole = [read_volume(f"{tmp_path}/{name}") for name in names]
    monkeypatch.setattr(image_file, "LARGE_BYTES", 0)
    for name, volume in zip(names, whole, strict=True):
        lazy = read_volume(f"{tmp_path}/{name}")
        assert isinstance(lazy.data, View), name
        assert isinstance(volume.data, np.ndarray)
        assert (lazy.spacing, lazy.unit, lazy.data.dtype) == (volume.spacing, volume.unit, volume.data.dtype)
        np.testing.assert_array_equal(lazy.data, volume.data)
    np.save(tmp_path / "b.npy", voxels + 1)
    both = read_volume(f"{tmp_path}/a.npy|{tmp_path}/b.npy").data
    assert isinstance(both, View)
    np.testing.assert_array_equal(both, [voxels, voxels + 1])


def test_importing_the_readers_loads_neither_library():
    code = "import sys, napari_unetvnet.images.io; print({'zarr', 'h5py', 'dask'} & set(sys.modules) or '')"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
