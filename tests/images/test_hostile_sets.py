"""HDF5 sets of strangers: places, axes and geometries that cannot be, and links, are one sentence before any work."""

from __future__ import annotations

import json
import os
import shutil

import h5py
import nibabel
import numpy as np
import pytest
from combinations import in_one_case

from napari_unetvnet.errors import FileProblem
from napari_unetvnet.images.subjects import placement_of, subjects_of
from napari_unetvnet.runs.convert import convert
from napari_unetvnet.settings import ConvertJob

TEXT = h5py.string_dtype()
GEOMETRY = {"spacing": [1, 1, 1], "unit": "mm", "affine": None, "other_affine": None, "header": {}}


def stored(**facts):
    return np.array([json.dumps(GEOMETRY | facts)], dtype=TEXT)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    (folder / "subjects" / "p1").mkdir(parents=True)
    voxels = np.random.default_rng(0).integers(1, 99, (8, 7, 6)).astype(np.uint8)
    for name in ("t1", "seg"):
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), folder / "subjects" / "p1" / f"p1_{name}.nii.gz")
    list(convert(ConvertJob(folder=str(folder / "subjects"), output=str(folder / "set.h5"))))
    return folder / "set.h5"


def changed(folder, whole, name, value):
    path = folder / "set.h5"
    shutil.copy(whole, path)
    with h5py.File(path, "r+") as file:
        if name in file:
            del file[name]
        file[name] = value
    return path


def test_the_set_that_the_others_are_made_of_is_read(whole):
    assert len(subjects_of(str(whole))) == 1
    assert placement_of(f"{whole}:/data[0]").shape == (6, 7, 8)


@in_one_case(
    "name, value, sentence",
    [
        ("original_shape", [[0, 0, 0]], r"part \[0, 0, 0\] to \[6, 7, 8\] of \[0, 0, 0\] voxels"),
        ("original_shape", [[-6, 7, 8]], "make the set again"),
        ("original_shape", [[10**7] * 3], "no disk holds so many"),
        ("original_shape", [[10**5] * 3], "take 931322.57 GiB of memory"),
        ("crop_stop", [[10**9, 7, 8]], "make the set again"),
        ("crop_start", [[6, 7, 8]], "make the set again"),
        ("orientation", np.full((1, 3, 2), np.nan), "turned in a way that cannot be"),
        ("orientation", np.full((1, 3, 2), 7.0), "turned in a way that cannot be"),
        ("original_geometry", np.array(["[" * 100_000], dtype=TEXT), "cannot be read"),
        ("original_geometry", stored(spacing=[1e300, 1, 1]), r"states voxels of 1e\+300 x 1 x 1 mm"),
        ("original_geometry", stored(header={"x": {"dtype": "O", "shape": [1], "values": [{}]}}), "type O"),
        ("original_shape", h5py.ExternalLink("pipe", "/x"), "is a device, a pipe or a socket"),
        ("original_shape", h5py.ExternalLink("/etc/passwd", "/x"), "outside its own folder"),
    ],
)
def test_a_place_that_cannot_be_is_one_sentence(tmp_path, whole, name, value, sentence):
    if not (tmp_path / "pipe").exists():
        os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileProblem, match=sentence):
        placement_of(f"{changed(tmp_path, whole, name, value)}:/data[0]")


def test_a_set_of_a_billion_images_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", (10**7, 1, 1, 8, 8), "u1", chunks=(1, 1, 1, 8, 8))
    with pytest.raises(FileProblem, match="declares 10000000 images; at most 1048576 are read"):
        subjects_of(str(tmp_path / "a.h5"))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["subjects"] = h5py.ExternalLink("/etc/passwd", "/x")
    with pytest.raises(FileProblem, match="outside its own folder"):
        subjects_of(str(tmp_path / "a.h5"))
