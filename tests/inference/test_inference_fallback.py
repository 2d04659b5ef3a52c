"""A segmentation whose tiles do not fit into memory, or whose GPU fails: what is done, told, kept and remembered."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
import torch
from test_inference_segment import pointwise_model

from napari_unetvnet import runs
from napari_unetvnet.errors import DeviceProblem, OutOfMemory
from napari_unetvnet.events import Notice, SlabDone
from napari_unetvnet.images.intensity import intensity
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.inference import FallbackSteps, steps
from napari_unetvnet.inference import precision_check as agreement_module
from napari_unetvnet.inference.fallback import TileOptions
from napari_unetvnet.model import fallback as fallback_module
from napari_unetvnet.model.card import ModelCard
from napari_unetvnet.model.device import FALLBACK, device_failed, lacks_memory
from napari_unetvnet.model.model import Model, build_model, save_model
from napari_unetvnet.runs.folder import LABELS
from napari_unetvnet.settings import SegmentJob, SegmentSettings, checked

CPU = SegmentSettings(device="cpu", precision="fp32")
TILE = {"tile": (8, 16, 16)}
TOO_LARGE = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def a_model(view="3d", patch=(8, 16, 16), **changes):
    torch.manual_seed(0)
    card = ModelCard(network="unet_padding", option={"width": 2, "depth": 2}, head="multiclass", view=view,
                     values=(0, 1, 2), patch=patch, **changes)  # fmt: skip
    model = build_model(card, CPU)
    model.network.eval()
    return model


def noise():
    return Volume(np.random.default_rng(1).normal(size=(1, 24, 32, 40)).astype(np.float32))


@pytest.fixture
def volume():
    return noise()


def starved(monkeypatch, fits, calls=0):
    """Let the network fail on blocks that do not fit, after so many calls; give the shapes that were tried."""
    tried = []
    whole = Model.logits

    def logits(self, blocks, *rest, **further):
        tried.append(tuple(blocks.shape))
        if len(tried) > calls and not fits(blocks):
            raise TOO_LARGE
        return whole(self, blocks, *rest, **further)

    monkeypatch.setattr(Model, "logits", logits)
    return tried


def segmented(model, volume, file=None, **chosen):
    """All labels, and the sentences with the number of planes that were there before each."""
    labels, told = [], []
    for part in FallbackSteps(model, volume, SegmentSettings(**TILE | chosen), file).steps():
        if isinstance(part, Notice):
            told.append((sum(map(len, labels)), part.text))
        else:
            assert part.start == sum(map(len, labels))
            labels.append(part.labels)
    return np.concatenate(labels), told


def plain(model, volume, first_plane=0, **chosen):
    return np.concatenate(
        [slab.labels for slab in steps(model, volume, SegmentSettings(**TILE | chosen), first_plane=first_plane)]
    )


def test_what_fits_is_what_it_is_without_a_fallback(volume, tmp_path):
    labels, told = segmented(a_model(), volume, tmp_path / "fallback.json", batch=3)
    np.testing.assert_array_equal(labels, plain(a_model(), volume, batch=3))
    assert told == []
    assert not list(tmp_path.iterdir())


def test_fewer_tiles_at_once_come_first_and_change_no_label(volume, monkeypatch):
    expected = plain(a_model(), volume)
    tried = starved(monkeypatch, lambda blocks: len(blocks) <= 1)
    labels, told = segmented(a_model(), volume, batch=5)
    np.testing.assert_array_equal(labels, expected)
    assert [shape[0] for shape in tried[:3]] == [5, 2, 1]
    assert [text for _, text in told] == [
        "The tiles did not fit into the memory of the device; from plane 0 on 2 are computed at a time instead of 5.",
        "The tiles did not fit into the memory of the device; from plane 0 on 1 are computed at a time instead of 2.",
    ]


def test_no_step_is_taken_that_changes_nothing(volume, monkeypatch):
    tried = starved(monkeypatch, lambda blocks: blocks[0].numel() <= 4 * 16 * 16)
    segmented(a_model(), volume, tile=(8, 32, 40), batch=64)  # of which a slab has one tile
    assert [shape[2:] for shape in tried[:2]] == [(8, 32, 40), (8, 16, 20)]


def test_smaller_tiles_go_on_behind_the_planes_that_are_finished(volume, monkeypatch):
    large = plain(a_model(), volume)
    per_slab = 3 * 3  # tiles
    starved(monkeypatch, lambda blocks: blocks.numel() <= 8 * 8 * 8, calls=2 * per_slab + 4)  # within the third slab
    labels, [(planes, text)] = segmented(a_model(), volume)
    assert planes > 0
    assert f"from plane {planes} on they are 8 x 8 x 8 voxels instead of 8 x 16 x 16" in text
    assert "differ slightly from those of large tiles" in text
    np.testing.assert_array_equal(labels[:planes], large[:planes])
    small = plain(a_model(), volume, first_plane=planes, tile=(8, 8, 8))
    np.testing.assert_array_equal(labels[planes:], small)
    assert (small != large[planes:]).any()


def test_planes_are_computed_apart_before_they_are_cut(volume, monkeypatch):
    expected = plain(a_model("2d", (1, 16, 16)), volume, tile=(1, 32, 40))
    starved(monkeypatch, lambda blocks: blocks.shape[2] * len(blocks) <= 1)
    labels, told = segmented(a_model("2d", (1, 16, 16)), volume, tile=(4, 32, 40))
    np.testing.assert_array_equal(labels, expected)
    assert [text.split(" on ")[1] for _, text in told] == [
        "they hold 2 planes instead of 4.",
        "they hold 1 planes instead of 2.",
    ]


@pytest.mark.parametrize("view", ["3d", "2d"])
def test_what_cannot_fit_at_all_is_refused_in_a_sentence(volume, monkeypatch, view):
    tried = starved(monkeypatch, lambda blocks: False)
    with pytest.raises(OutOfMemory, match=r"one tile of \d x 2 x 2 voxels .* cpu; close other programs.*\.$"):
        segmented(a_model(view, (1, 16, 16) if view == "2d" else (8, 16, 16)), volume, batch=4)
    assert len(tried) == len(set(tried))


def test_the_gpu_is_given_up_for_tiles_as_large_as_were_asked_for(monkeypatch):
    model = a_model(patch=(16, 64, 64))
    model.device, model.precision = torch.device("cuda"), "bf16"
    monkeypatch.setattr(fallback_module, "device_name", lambda device: "a GPU")
    fallback = FallbackSteps(
        model, Volume(np.zeros((1, 16, 64, 64), np.float32)), SegmentSettings(tile=(16, 64, 64))
    ).fallback
    told = [fallback.next("The tiles").text for _ in range(2)]
    assert "16 x 32 x 32 voxels instead of 16 x 64 x 64" in told[0]
    assert "continues on the CPU, which is slower, with tiles of 16 x 64 x 64 voxels" in told[1]
    assert (model.device.type, model.precision) == ("cpu", "fp32")
    assert fallback.options == TileOptions(batch=1, cpu=True)
    assert "16 x 32 x 32" in fallback.next("The tiles").text  # the CPU has steps of its own


def test_a_tile_that_is_turned_like_a_cube_stays_one(monkeypatch):
    cubes = Volume(np.random.default_rng(1).normal(size=(1, 8, 8, 8)).astype(np.float32))
    starved(monkeypatch, lambda blocks: blocks.numel() <= 4**3)
    _, told = segmented(a_model(patch=(8, 8, 8)), cubes, tta="rotations", overlap=0, tile=(8, 8, 8))
    assert "4 x 4 x 4 voxels instead of 8 x 8 x 8" in told[0][1]


def test_what_worked_is_where_the_next_segmentation_of_the_kind_begins(volume, monkeypatch):
    tried = starved(monkeypatch, lambda blocks: blocks.numel() <= 8 * 8 * 8)
    first, _ = segmented(a_model(), volume)
    tried.clear()
    second, told = segmented(a_model(), volume)
    assert {shape[1:] for shape in tried} == {(1, 8, 8, 8)}
    np.testing.assert_array_equal(second, first)
    assert [text for _, text in told] == [
        "Such tiles did not fit into the memory of this device before, so 1 tile(s) of 8 x 8 x 8 voxels are computed "
        "per forward pass; choose another tile size to try again."
    ]
    tried.clear()
    segmented(a_model(), volume, tile=(8, 16, 32))
    assert tried[0][2:] == (8, 16, 32)


def test_any_other_fault_comes_through(volume, monkeypatch):
    def logits(self, blocks, *rest, **further):
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(Model, "logits", logits)
    with pytest.raises(RuntimeError, match="multiplied"):
        segmented(a_model(), volume)


def test_formats_that_cannot_be_compared_for_want_of_memory_are_not(volume, monkeypatch):
    monkeypatch.setattr(agreement_module, "faster_formats", lambda _: ("bf16",))
    monkeypatch.setattr(agreement_module, "LEAST_TIMES", 0)

    def labels(*_, **further):
        raise OutOfMemory("too large")

    monkeypatch.setattr(agreement_module, "_labels", labels)
    model = a_model()
    model.precision = "bf16"
    text = agreement_module.choose_precision(model, volume, CPU, intensity(volume, "zscore"))
    assert "fp32 is used" in text
    assert model.precision == "fp32"


@pytest.fixture
def folder_of(tmp_path):
    """Make run folders that segment one volume with one model."""
    return partial(run_folder, tmp_path)


def run_folder(parent, name, **changes):
    model, image, folder = parent / "model.safetensors", parent / "image.npy", parent / name
    if not model.exists():
        made = a_model()
        save_model(model, made.network.state_dict(), made.card)
        np.save(image, noise().data[0])
    folder.mkdir()
    chosen = {"image": str(image), "model": str(model), "device": "cpu", "precision": "fp32", "overlap": 0.5}
    chosen |= TILE | changes
    runs.create(folder, checked(SegmentJob, chosen))
    return folder


def slabs_of(events):
    return [event.stop for event in events if isinstance(event, SlabDone)]


def stopped_after(folder, slabs):
    """Run a folder until so many slabs are done."""
    for event in runs.run(folder):
        slabs -= isinstance(event, SlabDone)
        if slabs == 0:
            runs.ask_to_stop(folder)
    assert event.state == "stopped"


def test_a_run_that_was_interrupted_continues_as_it_fitted_to_the_same_bits(folder_of, monkeypatch, cache_folder):
    whole, parts = folder_of("whole"), folder_of("parts")
    for folder in (whole, parts):
        with monkeypatch.context() as patch:
            starved(patch, lambda blocks: blocks.numel() <= 8 * 8 * 8, calls=30)
            (cache_folder / FALLBACK).unlink(missing_ok=True)
            list(runs.run(folder)) if folder == whole else stopped_after(folder, 3)
    told = [event.text for event in runs.follow(whole)[0] if isinstance(event, Notice)]
    assert any("from plane 8 on they are 8 x 8 x 8 voxels" in text for text in told)
    kept = json.loads((parts / FALLBACK).read_text())
    assert kept == {"batch": 1, "tile": [8, 8, 8], "cpu": False, "compiled": False, "check": kept["check"]}
    (cache_folder / FALLBACK).unlink()
    tried = starved(monkeypatch, lambda blocks: True)
    list(runs.run(parts, resume=True))
    assert {shape[2:] for shape in tried} == {(8, 8, 8)}
    np.testing.assert_array_equal(np.load(parts / LABELS), np.load(whole / LABELS))


def test_what_another_run_remembered_does_not_change_one_that_is_resumed(folder_of, monkeypatch):
    whole, parts, other = (folder_of(name) for name in ("whole", "parts", "other"))
    list(runs.run(whole))
    stopped_after(parts, 2)
    with monkeypatch.context() as patch:
        starved(patch, lambda blocks: blocks.numel() <= 8 * 8 * 8)
        list(runs.run(other))
    list(runs.run(parts, resume=True))
    np.testing.assert_array_equal(np.load(parts / LABELS), np.load(whole / LABELS))
    assert (np.load(other / LABELS) != np.load(whole / LABELS)).any()


def test_what_begins_as_another_run_fitted_is_resumed_so(folder_of, monkeypatch, cache_folder):
    other, whole, parts = (folder_of(name) for name in ("other", "whole", "parts"))
    with monkeypatch.context() as patch:
        starved(patch, lambda blocks: blocks.numel() <= 8 * 8 * 8)
        list(runs.run(other))
    list(runs.run(whole))
    stopped_after(parts, 2)
    (cache_folder / FALLBACK).unlink()
    list(runs.run(parts, resume=True))
    for folder in (whole, parts):
        np.testing.assert_array_equal(np.load(folder / LABELS), np.load(other / LABELS))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be reported later."),
        getattr(torch, "AcceleratorError", RuntimeError)("CUDA error: unspecified launch failure"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    ],
)
def test_a_gpu_that_fails_leaves_its_planes_and_says_how_to_go_on(folder_of, monkeypatch, error):
    whole, broken = folder_of("whole"), folder_of("broken")
    list(runs.run(whole))
    with monkeypatch.context() as patch:
        logits, calls = Model.logits, []

        def failing(self, blocks, *rest, **further):
            calls.append(1)
            if len(calls) > 30:
                raise error
            return logits(self, blocks, *rest, **further)

        patch.setattr(Model, "logits", failing)
        told = (
            r"^The GPU failed \(.*\)\. The first 8 planes are finished and saved; resume with: .*run .*broken --resume$"
        )
        with pytest.raises(DeviceProblem, match=told):
            list(runs.run(broken))
    finished = runs.follow(broken)[0][-1]
    assert (finished.state, finished.fault) == ("failed", False)
    assert slabs_of(runs.follow(broken)[0]) == [4, 8]
    list(runs.run(broken, resume=True))
    np.testing.assert_array_equal(np.load(broken / LABELS), np.load(whole / LABELS))


def test_memory_devices_and_faults_are_told_apart():
    assert lacks_memory(TOO_LARGE)
    assert lacks_memory(RuntimeError("CUDA error: out of memory"))
    assert not device_failed(RuntimeError("CUDA error: out of memory"))
    assert not lacks_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))
    assert device_failed(RuntimeError("CUDA error: an illegal memory access was encountered"))
    assert not device_failed(RuntimeError("shapes cannot be multiplied"))
    assert not device_failed(ValueError("CUDA error"))


def test_pointwise_networks_do_not_care_for_tiles(volume, monkeypatch):
    expected = plain(pointwise_model(), volume)
    starved(monkeypatch, lambda blocks: blocks.numel() <= 64, calls=7)
    labels, told = segmented(pointwise_model(), volume)
    assert told
    np.testing.assert_array_equal(labels, expected)
