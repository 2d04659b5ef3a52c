"""Results that need not fit into memory: zarr folders filled while they are computed, files written plane by plane."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import zarr
from combinations import in_one_case
from test_inference_segment import pointwise_model

from napari_unetvnet import runs
from napari_unetvnet.errors import DataProblem, FileProblem, SettingsProblem
from napari_unetvnet.events import RunFinished, SlabDone
from napari_unetvnet.images.arrays import FileArray
from napari_unetvnet.images.formats import ome_zarr, pyramid
from napari_unetvnet.images.geometry import Geometry
from napari_unetvnet.images.io import read_labels, read_volume, write_labels, write_probabilities, write_uncertainty
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.inference import Slab
from napari_unetvnet.json_files import write_sealed
from napari_unetvnet.model.card import ModelCard
from napari_unetvnet.model.model import build_model, save_model
from napari_unetvnet.runs.folder import LABELS, SETTLED
from napari_unetvnet.runs.results import labels_in, open_labels
from napari_unetvnet.runs.whole_chunks import whole_chunks
from napari_unetvnet.settings import SegmentJob, SegmentSettings, checked


def contents(folder):
    """Every file of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def like(shape, spacing=(2.0, 0.5, 0.25), unit="micrometer"):
    return Volume(np.broadcast_to(np.zeros((), np.uint8), (1, *shape)), Geometry(spacing, unit))


# OME-Zarr -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 5, 6), (1, 5, 6), (20, 300, 7)])
@in_one_case("unit", ["micrometer", "nm", "pixel"])
def test_labels_in_a_zarr_folder_read_back_as_written(tmp_path, shape, unit):
    labels = np.random.default_rng(0).integers(0, 300, shape)
    write_labels(tmp_path / "a.ome.zarr", labels, like(shape, unit=unit))
    read = read_labels(tmp_path / "a.ome.zarr")
    np.testing.assert_array_equal(read.data[0], labels)
    assert (read.spacing, read.unit, read.data.dtype) == ((2, 0.5, 0.25), unit, np.uint16)


def test_probabilities_in_a_zarr_folder_are_channels(tmp_path):
    values = np.random.default_rng(0).random((2, 3, 5, 6)).astype(np.float16)
    write_probabilities(tmp_path / "a.zarr", values, like((3, 5, 6)))
    np.testing.assert_array_equal(read_volume(tmp_path / "a.zarr").data, values)
    write_uncertainty(tmp_path / "u.zarr", values[0], like((3, 5, 6)))
    np.testing.assert_array_equal(read_volume(tmp_path / "u.zarr").data, values[:1])


def test_the_metadata_are_those_of_ngff(tmp_path):
    write_labels(tmp_path / "a.zarr", np.ones((4, 600, 700), np.uint8), like((4, 600, 700)))
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    described = group.attrs["ome"]
    assert (described["version"], described["image-label"], group.metadata.zarr_format) == ("0.5", {}, 3)
    (image,) = described["multiscales"]
    assert image["axes"] == [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    assert [each["path"] for each in image["datasets"]] == ["0", "1"]
    scales = [each["coordinateTransformations"][0]["scale"] for each in image["datasets"]]
    assert scales == [[2, 0.5, 0.25], [2, 1, 0.5]]
    assert group["0"].metadata.dimension_names == ("z", "y", "x")


def test_coarser_levels_of_labels_hold_every_second_voxel(tmp_path):
    labels = np.random.default_rng(0).integers(0, 9, (5, 1030, 601)).astype(np.uint8)
    write_labels(tmp_path / "a.zarr", labels, like((5, 1030, 601), (1.0, 1.0, 1.0)))
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    assert sorted(group.array_keys()) == ["0", "1", "2"]
    np.testing.assert_array_equal(group["1"][:], labels[::2, ::2, ::2])
    np.testing.assert_array_equal(group["2"][:], labels[::4, ::4, ::4])


def test_coarser_levels_of_fractions_hold_means_and_say_where(tmp_path):
    values = np.random.default_rng(0).random((2, 2, 530, 515)).astype(np.float32)
    write_probabilities(tmp_path / "a.zarr", values, like((2, 530, 515), (1.0, 1.0, 1.0)))
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    coarse = group["1"][:]
    assert coarse.shape == (2, 1, 265, 258)
    np.testing.assert_allclose(coarse[1, 0, 3, 7], values[1, :, 6:8, 14:16].mean(), rtol=1e-6)
    np.testing.assert_allclose(coarse[0, 0, 9, 257], values[0, :, 18:20, 514].mean(), rtol=1e-6)  # the last half one
    transforms = group.attrs["ome"]["multiscales"][0]["datasets"][1]["coordinateTransformations"]
    assert transforms[1] == {"type": "translation", "translation": [0, 0.5, 0.5, 0.5]}


@in_one_case(
    "shape, spacing, factors",
    [
        ((9, 512, 512), (1, 1, 1), []),
        ((9, 513, 100), (1, 1, 1), [(2, 2, 2)]),
        ((9, 2048, 2048), (3, 1, 1), [(1, 2, 2), (2, 4, 4)]),
        ((1, 600, 600), (1, 1, 1), [(1, 2, 2)]),
        ((3, 5000, 1), (1, 1, 1), [(2, 2, 1), (4, 4, 1), (4, 8, 1), (4, 16, 1)]),
    ],
)
def test_levels_go_on_until_a_plane_is_small(shape, spacing, factors):
    assert list(pyramid.level_factors(shape, spacing)) == factors


def test_a_mean_of_what_is_constant_is_that():
    block = np.full((3, 5, 7), 0.3, np.float16)
    np.testing.assert_array_equal(pyramid._means(block, (2, 2, 2)), np.full((2, 3, 4), 0.3, np.float16))


def test_completing_again_changes_nothing_and_strays_are_removed(tmp_path):
    write_labels(tmp_path / "a.zarr", np.ones((2, 600, 600), np.uint8), like((2, 600, 600)))
    before = contents(tmp_path)
    (tmp_path / "a.zarr" / "0" / "c" / "0.1234.partial").write_bytes(b"half")
    ome_zarr.complete(tmp_path / "a.zarr")
    assert contents(tmp_path) == before


def test_another_zarr_folder_is_replaced_but_no_other_folder(tmp_path):
    for value in (1, 2):
        write_labels(tmp_path / "a.zarr", np.full((2, 3, 4), value, np.uint8), like((2, 3, 4)))
    assert read_labels(tmp_path / "a.zarr").data[0].min() == 2
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]
    (tmp_path / "mine.zarr").mkdir()
    (tmp_path / "mine.zarr" / "notes.txt").write_text("precious")
    with pytest.raises(FileProblem, match="is not an OME-Zarr folder"):
        write_labels(tmp_path / "mine.zarr", np.ones((2, 3, 4), np.uint8), like((2, 3, 4)))


# Planes ---------------------------------------------------------------------------------------------------------------


class Watched:
    """An array that can only be sliced, and notes the largest part that was asked for."""

    def __init__(self, data):
        self._data, self.shape, self.dtype, self.ndim, self.most = data, data.shape, data.dtype, data.ndim, 0

    def __getitem__(self, key):
        part = self._data[key]
        self.most = max(self.most, part.size)
        return part


@pytest.mark.parametrize("ending", [".npy", ".nii", ".nii.gz", ".tif", ".ome.tif", ".zarr"])
def test_no_writer_reads_more_than_a_plane(tmp_path, ending, monkeypatch):
    monkeypatch.setattr("napari_unetvnet.images.arrays.PART_VOXELS", 30)
    monkeypatch.setattr("napari_unetvnet.images.formats.ome_zarr.CHUNK_VOXELS", 28)
    labels = Watched(np.random.default_rng(0).integers(0, 9, (7, 5, 6)).astype(np.uint8))
    write_labels(tmp_path / f"a{ending}", labels, like(labels.shape))
    assert labels.most <= 30
    np.testing.assert_array_equal(read_labels(tmp_path / f"a{ending}").data[0], labels._data)
    likely = Watched(np.random.default_rng(0).random((2, 7, 5, 6)).astype(np.float16))
    write_probabilities(tmp_path / f"p{ending}", likely, like(labels.shape))
    assert likely.most <= 30
    np.testing.assert_array_equal(read_volume(tmp_path / f"p{ending}").data, likely._data)


def test_plane_by_plane_is_as_the_libraries_write_it(tmp_path):
    import nibabel

    values = np.random.default_rng(0).random((2, 3, 5, 6)).astype(np.float32)
    write_probabilities(tmp_path / "a.npy", values, like((3, 5, 6)))
    np.save(tmp_path / "b.npy", values)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    for ending in (".nii", ".nii.gz"):
        write_probabilities(tmp_path / f"a{ending}", values, like((3, 5, 6)))
        read = nibabel.load(tmp_path / f"a{ending}")
        nibabel.save(nibabel.Nifti1Image(np.asarray(read.dataobj), read.affine, read.header), tmp_path / f"b{ending}")
        assert (tmp_path / f"a{ending}").read_bytes() == (tmp_path / f"b{ending}").read_bytes()


def test_a_filed_array_is_what_was_put_into_it(tmp_path):
    filed = FileArray.create(tmp_path / "a.npy", (2, 4, 5, 3), np.uint8)
    filed[..., 1:3, :, :] = 7
    assert filed[0, 2, 4, 0] == 7
    assert (np.load(tmp_path / "a.npy") == 7).sum() == 2 * 2 * 5 * 3
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-1])
    with pytest.raises(ValueError, match="mmap length"):
        FileArray(tmp_path / "a.npy")


@in_one_case("sizes", [(3, 1, 1, 5, 2), (12,), (1,) * 12, (7, 5)])
@in_one_case("planes", [1, 2, 4, 16])
def test_slabs_end_where_chunks_do(planes, sizes):
    values = np.arange(12)[:, None, None]
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    cut = [values[a : a + n] for a, n in zip(starts, sizes, strict=True)]
    slabs = [Slab(a, part, part[None] / 16, part / 2) for a, part in zip(starts, cut, strict=True)]
    made = list(whole_chunks(slabs, planes, 12))
    assert all((slab.start + len(slab.labels)) % planes == 0 for slab in made[:-1])
    assert [slab.start for slab in made] == list(np.cumsum([0, *(len(slab.labels) for slab in made[:-1])]))
    np.testing.assert_array_equal(np.concatenate([slab.labels for slab in made]), values)
    np.testing.assert_array_equal(np.concatenate([slab.probabilities[0] for slab in made]), values / 16)
    np.testing.assert_array_equal(np.concatenate([slab.uncertainty for slab in made]), values / 2)


# Runs -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with an image, and a model that looks at each voxel alone."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "image.npy", rng.normal(size=(37, 20, 20)).astype(np.float32))
    (tmp_path / "m.safetensors").write_bytes(b"")
    monkeypatch.setattr("napari_unetvnet.model.model.load_model", lambda *_: pointwise_model())
    return tmp_path


def run_folder(place, name, **changes):
    (place / name).mkdir()
    values = {"image": str(place / "image.npy"), "model": str(place / "m.safetensors"), "device": "cpu"}
    values |= {"tile": (8, 16, 16)} | {kind: str(place / file) for kind, file in changes.items() if "." in str(file)}
    values |= {kind: value for kind, value in changes.items() if "." not in str(value)}
    runs.create(place / name, checked(SegmentJob, values))
    return place / name


def test_a_zarr_result_is_the_same_as_a_file_and_there_is_no_second_one(place):
    plain = run_folder(place, "plain", probabilities="p.npy", uncertainty="u.npy")
    list(runs.run(plain))
    folder = run_folder(place, "run", output="l.zarr", probabilities="p.ome.zarr", uncertainty="u.zarr")
    events = list(runs.run(folder))
    stops = [event.stop for event in events if isinstance(event, SlabDone)]
    assert stops == [16, 32, 37]  # ends of chunks of 16 planes, and of the volume
    assert events[-1].results["labels"] == str(place / "l.zarr")
    assert not list(folder.glob("*.npy"))
    assert not list(place.glob("part-*"))
    np.testing.assert_array_equal(read_labels(place / "l.zarr").data[0], np.load(plain / LABELS))
    np.testing.assert_array_equal(read_volume(place / "p.ome.zarr").data, np.load(place / "p.npy"))
    np.testing.assert_array_equal(read_volume(place / "u.zarr").data[0], np.load(place / "u.npy"))
    assert (labels_in(folder), labels_in(plain)) == (place / "l.zarr", plain / LABELS)


@pytest.mark.parametrize("objects", ["none", "components"])
def test_a_volume_that_its_format_cannot_hold_is_refused_before_it_is_segmented(place, objects):
    folder = run_folder(place, "run", output="l.png", objects=objects)
    with pytest.raises(DataProblem, match="PNG holds one plane, not 37"):
        list(runs.run(folder))
    assert not (folder / LABELS).exists()


def test_labels_in_a_zarr_folder_can_be_seen_while_they_are_computed(place):
    folder = run_folder(place, "run", output="l.zarr")
    for event in runs.run(folder):
        if isinstance(event, SlabDone) and event.stop == 16:
            seen = open_labels(labels_in(folder))[:16]
            runs.ask_to_stop(folder)
    assert not (place / "l.zarr").exists()
    np.testing.assert_array_equal(seen, (np.load(place / "image.npy")[:16] < 0).astype(np.uint8))
    assert event.results["labels"] == str(labels_in(folder))
    assert labels_in(folder).name.startswith("part-")


def test_an_interrupted_zarr_result_is_gone_on_with_and_a_foreign_one_is_not(place):
    list(runs.run(run_folder(place, "whole", output="whole.zarr")))
    folder, other = run_folder(place, "run", output="l.zarr"), run_folder(place, "other", output="l.zarr")
    for event in runs.run(folder):
        if isinstance(event, SlabDone):
            runs.ask_to_stop(folder)
    assert [e.start for e in runs.run(other) if isinstance(e, SlabDone)] == [0, 16, 32]
    events = [event for event in runs.run(folder, resume=True) if isinstance(event, SlabDone)]
    assert events[0].start == 16
    assert contents(place / "l.zarr") == contents(place / "whole.zarr")
    assert not list(place.glob("part-*"))
    list(runs.run(folder, resume=True))  # of a run that is done nothing is computed again, and nothing lost
    assert contents(place / "l.zarr") == contents(place / "whole.zarr")


def test_a_run_can_be_stopped_while_coarser_levels_are_computed(place, monkeypatch):
    monkeypatch.setattr("napari_unetvnet.images.formats.pyramid.WHOLE_PLANE", 5)
    list(runs.run(run_folder(place, "whole", output="whole.zarr")))
    folder, completing = run_folder(place, "run", output="l.zarr"), ome_zarr.completing

    def stopped(path):
        for number, _ in enumerate(completing(path)):
            assert not number, "it went on"
            runs.ask_to_stop(folder)
            yield

    with monkeypatch.context() as patched:
        patched.setattr(ome_zarr, "completing", stopped)
        assert list(runs.run(folder))[-1].state == "stopped"
    assert not (place / "l.zarr").exists()
    assert list(runs.run(folder, resume=True))[-1].state == "done"
    assert contents(place / "l.zarr") == contents(place / "whole.zarr")


def test_cleaned_labels_go_to_the_zarr_folder_at_the_end(place):
    folder = run_folder(place, "run", output="l.zarr", objects="components")
    again = run_folder(place, "again", objects="components")
    list(runs.run(folder)), list(runs.run(again))
    np.testing.assert_array_equal(read_labels(place / "l.zarr").data[0], np.load(labels_in(again)))
    assert not (folder / LABELS).exists()
    assert not labels_in(folder).exists()


def test_planes_of_a_result_that_was_lost_do_not_count_although_the_run_breaks_off_again(place):
    folder = run_folder(place, "run")
    for event in runs.run(folder):
        if isinstance(event, SlabDone) and event.stop > 20:
            runs.ask_to_stop(folder)
    (folder / LABELS).unlink()
    running = runs.run(folder, resume=True)
    while not (folder / LABELS).exists():
        next(running)
    running.close()  # nothing is computed yet
    list(runs.run(folder, resume=True))
    np.testing.assert_array_equal(np.load(folder / LABELS), np.load(place / "image.npy") < 0)


def test_a_resumed_run_keeps_to_its_scale_and_number_format(place, monkeypatch):
    folder = run_folder(place, "run")
    for event in runs.run(folder):
        if isinstance(event, SlabDone):
            runs.ask_to_stop(folder)
    settled = json.loads((folder / SETTLED).read_text())
    del settled["check"]
    write_sealed(folder / SETTLED, settled | {"shift": [100.0], "precision": "bf16"})
    model = pointwise_model()
    monkeypatch.setattr("napari_unetvnet.model.model.load_model", lambda *_: model)
    first = next(e for e in runs.run(folder, resume=True) if isinstance(e, SlabDone)).start
    list(runs.run(folder, resume=True))
    assert model.precision == "bf16"
    assert np.load(folder / LABELS)[first + 8 :].all()  # all voxels are dark, less 100


def test_results_must_be_apart_and_replace_nothing_that_is_read(tmp_path):
    given = {"image": str(tmp_path / "a.zarr" / "0"), "model": "m"}
    for changes, sentence in (
        ({"output": "l.tif", "uncertainty": "l.tif"}, "Two results"),
        ({"output": str(tmp_path / "a.zarr")}, "would replace"),
        ({"uncertainty_kind": "entropy"}, "Uncertainty has no output"),
        ({"uncertainty": "u.tif", "uncertainty_kind": "variance"}, "choose tta"),
    ):
        with pytest.raises(SettingsProblem, match=sentence):
            checked(SegmentJob, given | changes)


# Processes ------------------------------------------------------------------------------------------------------------


def tiny_model(path, **changes):
    """Write a small network that was not trained."""
    facts = {"network": "unet3d", "option": {"width": 2, "depth": 2}, "head": "multiclass", "view": "3d"}
    card = ModelCard(**facts | {"values": (0, 1, 2, 3), "patch": (16, 64, 64), "normalise": "zscore"} | changes)
    save_model(path, build_model(card, SegmentSettings(device="cpu")).network.state_dict(), card)


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["npy", "zarr"])
def test_a_run_that_is_killed_goes_on_to_the_same_bytes(tmp_path, ending):
    image = np.random.default_rng(0).normal(size=(90, 48, 48)).astype(np.float32)
    zarr.create_array(str(tmp_path / "image.zarr"), data=image, chunks=(16, 48, 48))
    tiny_model(tmp_path / "m.safetensors", patch=(16, 48, 48))
    kinds = {"output": "labels", "probabilities": "likely", "uncertainty": "unsure"}
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        outputs = {kind: str(tmp_path / name / f"{word}.{ending}") for kind, word in kinds.items()}
        given = {"image": str(tmp_path / "image.zarr"), "model": str(tmp_path / "m.safetensors"), "device": "cpu"}
        runs.create(tmp_path / name, checked(SegmentJob, given | {"overlap": 0.8, "tile": (16, 48, 48)} | outputs))
    list(runs.run(tmp_path / "whole"))
    child = runs.start(tmp_path / "killed")
    while child.poll() is None:
        if any(isinstance(event, SlabDone) and event.stop >= 32 for event in runs.follow(tmp_path / "killed")[0]):
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
        time.sleep(0.01)
    before, _ = runs.follow(tmp_path / "killed")
    assert child.returncode == -signal.SIGKILL
    assert not any(isinstance(event, RunFinished) for event in before)
    assert not (tmp_path / "killed" / f"labels.{ending}").exists() or ending == "npy"
    again = subprocess.run(
        [sys.executable, "-m", "napari_unetvnet", "run", str(tmp_path / "killed"), "--resume"], capture_output=True
    )
    assert again.returncode == 0, again.stderr
    after = runs.follow(tmp_path / "killed")[0][len(before) :]
    assert next(event.start for event in after if isinstance(event, SlabDone)) >= 32
    one, other = contents(tmp_path / "whole"), contents(tmp_path / "killed")
    results = {name for name in one if name.startswith((*kinds.values(), "settled"))}
    assert {name for name in other if name.startswith((*kinds.values(), "settled", "part-"))} == results
    assert [name for name in results if one[name] != other[name]] == []


MEMORY = """
import contextlib, json, sys
from pathlib import Path

import torch

from napari_unetvnet.model import device as compute

from napari_unetvnet import runs

from napari_unetvnet.model import model
from napari_unetvnet.model.card import ModelCard
from napari_unetvnet.networks.base import SegmentationNetwork

class Four(SegmentationNetwork):
    divisor = (1, 1, 1)

    def forward(self, x):
        return torch.cat([x, -x, 2 * x - 1, 0 * x], dim=1)

facts = {"head": "multiclass", "view": "3d", "values": (0, 1, 2, 3), "patch": (16, 128, 128)}
card = ModelCard(network="unet3d", **facts)
model.load_model = lambda *_: model.Model(Four(3, 1, 4), card, torch.device("cpu"))

compute.keep_freed_memory = contextlib.nullcontext  # freed memory goes back at once, so that the peak can be seen

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024

from napari_unetvnet.inference import fallback
steps = fallback.steps

def measured(*given, **more):
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    seen.append(status("VmRSS"))
    return steps(*given, **more)

seen, fallback.steps = [], measured
events = list(runs.run(Path(sys.argv[1])))
print(json.dumps({"state": events[-1].state, "loaded": seen[0], "peak": status("VmHWM")}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("ending", ["zarr", "nii"])
def test_memory_does_not_grow_with_the_depth(tmp_path, ending):
    """Above the loaded model and its image; 4 classes of 256 x 256, all that a run can write."""
    (tmp_path / "m.safetensors").write_bytes(b"")
    above, environment = [], os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**20)}
    for depth in (96, 480):
        folder = tmp_path / str(depth)
        folder.mkdir()
        image = str(folder / "image.zarr")
        stored = zarr.create_array(image, shape=(depth, 256, 256), chunks=(16, 128, 128), dtype=np.uint16)
        for z in range(0, depth, 16):
            stored[z : z + 16] = np.random.default_rng(z).integers(0, 9, (16, 256, 256), np.uint16)
        outputs = {kind: str(folder / f"{kind}.{ending}") for kind in ("output", "probabilities", "uncertainty")}
        given = {"image": image, "model": str(tmp_path / "m.safetensors"), "device": "cpu", "overlap": 0}
        given["tile"] = (16, 128, 128)
        runs.create(folder, checked(SegmentJob, given | {"precision": "fp32"} | outputs))
        command = [sys.executable, "-c", MEMORY, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr[-2000:]
        told = json.loads(done.stdout)
        assert told["state"] == "done"
        above.append(told["peak"] - told["loaded"])
    assert above[1] < 1.1 * above[0], above
