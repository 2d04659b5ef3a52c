"""Training from images that are larger than the memory: read patch by patch, with the same result as any other."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import zarr
from combinations import in_one_case

from napari_unetvnet.data.prepare import prepare_data
from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.io import read_labels, read_volume
from napari_unetvnet.images.pairs import Pair
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.runs.folder import training_files
from napari_unetvnet.settings import TrainSettings, checked
from napari_unetvnet.training import loop

CHUNK = 32
TRAIN = """
import json, resource, sys, tempfile
from pathlib import Path
from napari_unetvnet.training import loop
from napari_unetvnet.data.prepare import Pair
from napari_unetvnet.images.io import read_labels, read_volume
from napari_unetvnet.runs.folder import training_files
from napari_unetvnet.settings import TrainSettings, checked

folder = Path(sys.argv[1])
settings = checked(TrainSettings, json.loads(sys.argv[2]))
pair = Pair(read_volume(folder / "image.zarr"), read_labels(folder / "labels.zarr"))
with tempfile.TemporaryDirectory() as run:
    events = [type(event).__name__ for event in loop.steps([pair], settings, training_files(Path(run)))]
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"peak": peak, "steps": events.count("StepDone")}))
"""
SETTINGS = {
    "unlabelled": "ignore", "background": 1, "steps": 2, "view": "3d", "patch": (16, 32, 32), "batch": 1,
    "network": "unet3d", "option": {"width": 4, "depth": 2}, "device": "cpu", "augment": "none",
}  # fmt: skip


def stitched(folder, shape):
    """Write an image that is blank but for some places, and two strokes there."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    image = zarr.create_array(str(folder / "image.zarr"), shape=(4, *shape), chunks=(1, 16, 128, 128), dtype="f4")
    labels = zarr.create_array(str(folder / "labels.zarr"), shape=shape, chunks=(16, 128, 128), dtype="u1")
    for corner in (0, shape[1] - 60):
        box = (slice(2, 14), slice(corner, corner + 60), slice(10, 70))
        image[(slice(None), *box)] = rng.normal(size=(4, 12, 60, 60))
        painted = np.ones((12, 60, 60), np.uint8)
        painted[:, 20:40, 20:40] = 2
        labels[box] = painted
    return folder


def trained(folder):
    command = [sys.executable, "-c", TRAIN, str(folder), json.dumps(SETTINGS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert told["steps"] == 2
    return told["peak"]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_image(tmp_path):
    small, shape = (16, 128, 128), (64, 736, 720)
    peak = trained(stitched(tmp_path / "large", shape)) - trained(stitched(tmp_path / "small", small))
    size, voxels = 4 * 4 * np.prod(shape), np.prod(shape)
    assert size > 512 * 2**20
    # A byte a voxel for the target, and parts of 2 million voxels in what is computed of them.
    assert peak < voxels + 80 * 2**20 < 0.25 * size


class Counting:
    """An array in chunks that can only be sliced, and notes which chunks were read."""

    def __init__(self, data):
        self._data, self.shape, self.dtype, self.ndim = data, data.shape, data.dtype, data.ndim
        self.chunks, self.read = (1, 4, CHUNK, CHUNK), set()

    def __getitem__(self, key):
        numbers = np.zeros(self.shape, np.uint8)
        numbers[key] = 1
        for place in np.argwhere(numbers):
            self.read.add(tuple(int(p) // edge for p, edge in zip(place, self.chunks, strict=True)))
        return self._data[key]

    @property
    def share(self):
        return len(self.read) / np.prod([-(-n // edge) for n, edge in zip(self.shape, self.chunks, strict=True)])


def scribbled(seed=0):
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(1, 16, 160, 160)).astype(np.float32)
    labels = np.zeros((1, 16, 160, 160), np.uint8)
    labels[0, 3, 20:24, 10:30], labels[0, 3, 30:34, 10:30] = 1, 2
    return image, labels


CHOSEN = {"unlabelled": "ignore", "view": "3d", "hold_out": 0}


def test_of_a_large_image_few_chunks_are_read(monkeypatch):
    for name in ("images.content.READ_VOXELS", "images.refusals.READ_VALUES", "images.refusals.SAMPLED_VALUES"):
        monkeypatch.setattr(f"napari_unetvnet.{name}", 5 * 4 * CHUNK**2)
    image, labels = scribbled()
    counting = Counting(image)
    patch = (2, 8, 8)
    data = prepare_data([Pair(Volume(counting), Volume(labels))], checked(TrainSettings, CHOSEN), patch)
    assert 0 < counting.share < 0.5  # five bands for NaN, eight chunks for the intensities, of a hundred
    counting.read.clear()
    for step in range(3):
        data.batch(np.random.default_rng(step), 2, patch, (0, 0, 0))
    assert len(counting.read) <= 2 * 2  # those around the strokes


def test_a_value_that_no_look_has_found_is_told_when_a_patch_holds_it(monkeypatch):
    for name in ("READ_VALUES", "SAMPLED_VALUES"):
        monkeypatch.setattr(f"napari_unetvnet.images.refusals.{name}", 160)
    monkeypatch.setattr("napari_unetvnet.images.intensity.SAMPLE_VOXELS", 160)
    image, labels = scribbled()
    image[0, 3, 25:28] = np.nan
    chosen = checked(TrainSettings, {**CHOSEN, "normalise": "none"})
    data = prepare_data([Pair(Volume(image, name="scan"), Volume(labels))], chosen, (1, 30, 30))
    with pytest.raises(DataProblem, match=r"^scan: .* NaN or infinite"):
        for step in range(10):
            data.batch(np.random.default_rng(step), 2, (1, 30, 30), (0, 0, 0))


@in_one_case("chosen", [{}, {"label_values": "objects", "objects_as": "borders"}, {"regions": "a=1+2 b=2"}])
@in_one_case("share", [0.0, 1.0])
def test_targets_made_in_parts_and_in_a_file_are_those_made_at_once(monkeypatch, chosen, share):
    rng = np.random.default_rng(1)
    labels = np.kron(rng.integers(0, 3, (1, 4, 9, 8)), np.ones((1, 2, 5, 5))).astype(np.uint8)
    image = Volume(rng.normal(size=labels.shape))
    mask = Volume((rng.random(labels.shape) > 0.1).astype(np.uint8))
    settings = checked(TrainSettings, {"view": "3d", **chosen})
    whole = prepare_data([Pair(image, Volume(labels), mask=mask)], settings, (4, 16, 16))
    monkeypatch.setattr("napari_unetvnet.images.arrays.PART_VOXELS", 700)
    monkeypatch.setattr("napari_unetvnet.images.arrays.MEMORY_SHARE", share)
    parts = prepare_data([Pair(image, Volume(labels), mask=mask)], settings, (4, 16, 16))
    assert parts.parts(0) == whole.parts(0)
    for one, other in zip([*whole.train, *whole.hold_out], [*parts.train, *parts.hold_out], strict=True):
        np.testing.assert_array_equal(one.target, other.target)
    ways = [data.batch(np.random.default_rng(0), 8, (4, 16, 16), (0, 2, 2)) for data in (whole, parts)]
    for one, other in zip(ways[0][:2], ways[1][:2], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("overlapping", [False, True])
def test_a_zarr_image_trains_the_model_that_its_voxels_train(tmp_path, overlapping):
    image, labels = scribbled()
    if overlapping:
        labels = np.concatenate([labels == 1, labels == 2]).astype(np.uint8)
    zarr.create_array(str(tmp_path / "image.zarr"), data=image, chunks=(1, 4, 64, 64))
    zarr.create_array(str(tmp_path / "labels.zarr"), data=labels, chunks=(1, 4, 64, 64))
    values = {"label_values": "overlapping"} if overlapping else {}
    settings = checked(TrainSettings, {**SETTINGS, "background": None, **values})
    stored = Pair(read_volume(tmp_path / "image.zarr"), read_labels(tmp_path / "labels.zarr", overlapping=overlapping))
    weights = []
    for place, pair in (("a", stored), ("b", Pair(Volume(image, name="image"), Volume(labels, name="labels")))):
        (tmp_path / place).mkdir()
        for _ in loop.steps([pair], settings, training_files(tmp_path / place)):
            pass
        weights.append((tmp_path / place / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    assert torch.get_num_threads() == 1
