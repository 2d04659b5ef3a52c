"""Patches to look at: what a training would see of the same job, changed at full strength."""

from __future__ import annotations

import numpy as np
import pytest
from tifffile import imread

from napari_unetvnet.cli.main import main
from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.errors import FileProblem
from napari_unetvnet.runs.augment import check_patches, labels_beside, training_patches, write_patches
from napari_unetvnet.settings import TrainJob, checked


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A bright block in a dark stack of two channels, and its labels."""
    labels = np.zeros((20, 48, 48), np.uint8)
    labels[6:14, 12:36, 12:36] = 1
    np.save(tmp_path / "image.npy", np.stack([labels, 1 - labels]) * 10.0)
    np.save(tmp_path / "labels.npy", labels)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def job(folder, **changes):
    files = {"image": str(folder / "image.npy"), "label": str(folder / "labels.npy")}
    return checked(TrainJob, files | {"device": "cpu"} | changes)


@pytest.mark.parametrize(
    ("view", "patch", "depth"), [("2d", (1, 32, 32), 1), ("2.5d", (1, 32, 32), 1), ("3d", (16, 32, 32), 16)]
)
def test_patches_have_the_shape_of_the_view_and_labels_stay_classes(folder, view, patch, depth):
    images, target = training_patches(job(folder, view=view, patch=patch), 5)
    assert images.shape == (5, 2, depth, 32, 32)
    assert target.shape == (5, depth, 32, 32)
    assert set(np.unique(target)) <= {0, 1, IGNORE}
    again, _ = training_patches(job(folder, view=view, patch=patch), 5)
    assert (images == again).all()
    other, _ = training_patches(job(folder, view=view, patch=patch, seed=1), 5)
    assert (images != other).any()


def test_labels_move_with_the_image(folder):
    """Where nothing is changed but place, bright is labelled and dark is not."""
    images, target = training_patches(job(folder, view="2d", patch=(1, 32, 32), augment="none"), 8)
    known = target != IGNORE  # beyond the image and beside what is held out
    assert ((images[:, 0] > 0) == (target == 1))[known].all()
    changed, target = training_patches(job(folder, view="2d", patch=(1, 32, 32), augment="strong"), 32)
    known = target != IGNORE
    assert np.corrcoef(changed[:, 0][known], target[known])[0, 1] > 0.8
    assert (changed[:, 0] != np.sign(changed[:, 0])).any()


def test_overlapping_classes_have_a_channel_each(folder):
    labels = np.load(folder / "labels.npy")
    np.save(folder / "masks.npy", np.stack([labels, labels]))
    made = job(folder, label=str(folder / "masks.npy"), label_values="overlapping", view="2d", patch=(1, 16, 16))
    assert training_patches(made, 2)[1].shape == (2, 2, 1, 16, 16)


@pytest.mark.parametrize("ending", ["npy", "tif"])
def test_the_command_writes_patches_and_labels_beside_them(folder, capsys, ending):
    options = ["--image", "image.npy", "--label", "labels.npy", "--view", "2d", "--patch", "1", "16", "16"]
    assert main(["augment", *options, "--count", "3", "--patches", f"out.{ending}"]) == 0
    assert f"out_labels.{ending}" in capsys.readouterr().out
    read = np.load if ending == "npy" else imread
    assert read(folder / f"out.{ending}").shape == (3, 2, 1, 16, 16)
    assert read(folder / f"out_labels.{ending}").squeeze().shape == (3, 16, 16)


def test_what_cannot_be_written_is_told(folder):
    arrays = np.zeros((1, 1, 1, 4, 4), np.float32), np.zeros((1, 1, 4, 4), np.uint8)
    with pytest.raises(FileProblem, match=r"\.npy, \.tif"):
        check_patches(folder / "a.png", job(folder))
    with pytest.raises(FileProblem, match="There is no folder"):
        check_patches(folder / "missing" / "a.npy", job(folder))
    with pytest.raises(FileProblem, match="choose another place"):
        write_patches(folder / "missing" / "a.npy", *arrays)
    assert labels_beside(folder / "a.tif").name == "a_labels.tif"
    assert main(["augment", "--image", "image.npy", "--label", "labels.npy", "--patches", "a.npy", "--count", "0"]) == 2
