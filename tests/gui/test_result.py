"""The layer that fills while its labels are computed; the run is played by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from combinations import in_one_case

from napari_unetvnet.events import SlabDone
from napari_unetvnet.images.formats import ome_zarr
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.postprocess import table_of
from napari_unetvnet.runs.clean import write_table
from napari_unetvnet.runs.places import growing
from napari_unetvnet.widgets import result, task
from napari_unetvnet.widgets.drawn import rasterise_shapes

pytestmark = pytest.mark.timeout(60)


def test_labels_fill_while_they_are_computed(qtbot, viewer, tmp_path):
    """The layer shows the file that grows, cannot be painted on before the end, and is the user's own after it."""
    picture = viewer.add_image(np.zeros((4, 6, 7), np.uint8), scale=(3, 1, 1))
    following = task.Task("segment", viewer)
    following.folder = tmp_path
    shown = result.ResultLayer(following, picture, "labels", {})
    labels = np.lib.format.open_memmap(tmp_path / "labels.npy", "w+", np.uint8, (4, 6, 7))
    labels[:2] = 1
    labels.flush()
    following.event_received.emit(SlabDone(0, 2, 4))
    layer = viewer.layers["labels"]
    assert not layer.editable
    assert layer.data[:2].all()
    assert not layer.data[2:].any()
    labels[2:] = 2
    labels.flush()
    following.event_received.emit(SlabDone(2, 4, 4))
    assert (layer.data[2:] == 2).all()
    following.finished.emit(None)
    assert layer.editable
    layer.data_setitem((np.array([0]), np.array([0]), np.array([0])), 9)
    assert np.load(tmp_path / "labels.npy")[0, 0, 0] == 1  # a correction does not change the run
    assert shown.layer is layer


@pytest.mark.parametrize("large", [False, True])
def test_labels_in_a_zarr_folder_fill_and_only_small_ones_can_be_corrected(viewer, tmp_path, monkeypatch, large):
    monkeypatch.setattr(result, "IN_MEMORY_BYTES", 0 if large else 2**30)
    place = growing(tmp_path / "labels.zarr", "0123456789abcdef" * 2)
    labels = ome_zarr.create(place, (4, 6, 7), np.uint8, Volume(np.zeros((1, 4, 6, 7))), 2)
    (tmp_path / "results.json").write_text(json.dumps({"labels": "0123456789abcdef" * 2}))
    values = {"image": str(tmp_path / "a.npy"), "model": "nuclei", "output": str(tmp_path / "labels.zarr")}
    (tmp_path / "job.json").write_text(json.dumps({"command": "segment"} | values))
    following = task.Task("segment", viewer)
    following.folder = tmp_path
    result.ResultLayer(following, viewer.add_image(np.zeros((4, 6, 7))), "labels", {})
    labels[:2] = 1
    following.event_received.emit(SlabDone(0, 2, 4))
    layer = viewer.layers["labels"]
    assert np.asarray(layer.data[:2]).all()
    assert not np.asarray(layer.data[2:]).any()
    labels[2:] = 2
    assert (np.asarray(layer.data[2:]) == 2).all()
    following.finished.emit(None)
    assert np.asarray(layer.data).all()
    assert layer.editable is not large


@pytest.mark.alone
def test_large_labels_are_loaded_without_a_pause(qtbot, viewer, tmp_path, monkeypatch):
    monkeypatch.setattr(result, "AT_ONCE_BYTES", 0)
    np.save(tmp_path / "labels.npy", np.ones((4, 6, 7), np.uint8))
    following = task.Task("segment", viewer)
    following.folder = tmp_path
    shown = result.ResultLayer(following, viewer.add_image(np.zeros((4, 6, 7))), "labels", {})
    following.event_received.emit(SlabDone(0, 4, 4))
    with qtbot.waitSignal(shown.ready):
        following.finished.emit(None)
    assert type(viewer.layers["labels"].data) is np.ndarray


def test_very_large_labels_stay_on_disk_but_can_be_corrected(viewer, tmp_path, monkeypatch):
    monkeypatch.setattr(result, "IN_MEMORY_BYTES", 0)
    np.save(tmp_path / "labels.npy", np.ones((4, 6, 7), np.uint8))
    following = task.Task("segment", viewer)
    following.folder = tmp_path
    result.ResultLayer(following, viewer.add_image(np.zeros((4, 6, 7))), "labels", {})
    following.event_received.emit(SlabDone(0, 4, 4))
    following.finished.emit(None)
    layer = viewer.layers["labels"]
    layer.data_setitem((np.array([0]), np.array([0]), np.array([0])), 9)
    assert layer.data[0, 0, 0] == 9
    assert np.load(tmp_path / "labels.npy").max() == 1


def test_a_removed_result_is_not_missed(viewer, tmp_path):
    np.save(tmp_path / "labels.npy", np.ones((4, 6, 7), np.uint8))
    following = task.Task("segment", viewer)
    following.folder = tmp_path
    result.ResultLayer(following, viewer.add_image(np.zeros((4, 6, 7))), "labels", {})
    following.event_received.emit(SlabDone(0, 2, 4))
    viewer.layers.remove("labels")
    following.event_received.emit(SlabDone(2, 4, 4))
    following.finished.emit(None)
    assert len(viewer.layers) == 1


def test_masks_that_overlap_are_layers_of_their_own(viewer, tmp_path):
    picture = viewer.add_image(np.zeros((4, 6, 7), np.uint8), scale=(3, 1, 1))
    following = task.Task("segment", viewer)
    following.folder = tmp_path
    shown = result.ResultLayer(following, picture, "labels", {}, ["WT", "9"])
    labels = np.lib.format.open_memmap(tmp_path / "labels.npy", "w+", np.uint8, (2, 4, 6, 7))
    labels[0, :2], labels[1, 1:2] = 1, 9
    labels.flush()
    following.event_received.emit(SlabDone(0, 2, 4))
    whole, inner = viewer.layers["labels: WT"], viewer.layers["labels: 9"]
    assert shown.layers == [whole, inner]
    assert not inner.editable
    assert np.allclose(inner.scale, (3, 1, 1))
    labels[1, 2:] = 9
    labels.flush()
    following.event_received.emit(SlabDone(2, 4, 4))
    assert (inner.data[1:] == 9).all()
    viewer.layers.remove(whole)
    following.finished.emit(None)
    assert inner.editable
    assert (inner.data[1:] == 9).all()
    assert not inner.data[0].any()


@pytest.mark.parametrize("planes", [1, 4])
def test_objects_replace_the_classes_at_the_end_and_bring_their_table(viewer, tmp_path, planes):
    np.save(tmp_path / "labels.npy", np.ones((planes, 6, 7), np.uint8))
    following = task.Task("segment", viewer)
    following.folder = tmp_path
    picture = viewer.add_image(np.zeros((6, 7) if planes == 1 else (planes, 6, 7)))
    result.ResultLayer(following, picture, "labels", {})
    following.event_received.emit(SlabDone(0, planes, planes))
    ids = np.zeros((planes, 6, 7), np.uint16)
    ids[0, :2], ids[0, 4:] = 1, 300
    np.save(tmp_path / "cleaned.npy", ids)
    write_table(tmp_path / "objects.csv", table_of(ids, (1, 0.5, 0.5), "um"))
    following.finished.emit(None)
    layer = viewer.layers["labels"]
    np.testing.assert_array_equal(layer.data, ids[0] if planes == 1 else ids)
    assert layer.editable
    assert layer.features["volume_um3"].tolist() == [3.5, 3.5]
    viewer.dims.set_current_step(0, 0)
    shown = layer.get_status((4.0, 0.0) if planes == 1 else (0.0, 4.0, 0.0))["coordinates"]
    assert ": 300; voxels: 14, volume_um3: 3.5" in shown


def test_an_object_that_was_learnt_by_its_core_is_called_an_object(viewer, tmp_path):
    np.save(tmp_path / "labels.npy", np.ones((1, 6, 7), np.uint8))
    following = task.Task("segment", viewer)
    following.folder = tmp_path
    learnt = {"class_names": {"0": "background", "1": "core", "2": "rim"}, "objects": True}
    result.ResultLayer(following, viewer.add_image(np.zeros((6, 7))), "labels", learnt)
    following.event_received.emit(SlabDone(0, 1, 1))
    ids = np.ones((1, 6, 7), np.uint8)
    np.save(tmp_path / "cleaned.npy", ids)
    write_table(tmp_path / "objects.csv", table_of(ids, (1, 1, 1), "pixel", np.array([0, 1])))
    following.finished.emit(None)
    assert viewer.layers["labels"].features["name"].tolist() == ["object"]


def test_the_layer_has_the_names_of_its_classes(viewer, tmp_path):
    following = task.Task("segment", viewer)
    following.folder = tmp_path
    np.save(tmp_path / "labels.npy", np.full((1, 6, 7), 2, np.uint8))
    named = {"class_names": {"0": "background", "2": "left nucleus"}}
    result.ResultLayer(following, viewer.add_image(np.zeros((6, 7))), "labels", named)
    following.event_received.emit(SlabDone(0, 1, 1))
    layer = viewer.layers["labels"]
    assert layer.features["name"].tolist() == ["background", "left nucleus"]
    assert "left nucleus" in str(layer.get_status((0, 0)))


@pytest.mark.parametrize("depth", [1, 2])
def test_lines_come_back_as_shapes_on_their_image(qtbot, viewer, tmp_path, depth):
    labels = np.zeros((depth, 30, 40), np.uint8)
    labels[-1, 9:12, 4:36], labels[-1, 20:25] = 3, 1
    np.save(tmp_path / "labels.npy", labels)
    following = task.Task("segment", viewer)
    following.folder = tmp_path
    picture = viewer.add_image(
        np.zeros(labels.shape if depth > 1 else labels.shape[1:]), scale=(4, 2, 0.5)[-min(3, depth + 1) :]
    )
    shown = result.ResultLayer(following, picture, "labels", {}, lines=(3,))
    following.event_received.emit(SlabDone(0, depth, depth))
    with qtbot.waitSignal(shown.ready):
        following.finished.emit(None)
    lines = viewer.layers["labels: lines"]
    assert shown.shapes is lines
    assert set(lines.shape_type) == {"path"}
    assert set(lines.features["label"]) == {3}
    (path,) = lines.data
    assert (abs(path[:, -2] - 10) <= 1).all()
    assert np.ptp(path[:, -1]) >= 28
    assert path.shape[1] == picture.ndim == (2 if depth == 1 else 3)
    assert np.allclose(lines.data_to_world(path[0]), picture.data_to_world(path[0]))
    drawn = np.asarray(rasterise_shapes(picture, picture.data.shape, lines))
    assert (drawn[(labels == 3).reshape(drawn.shape)]).sum() == drawn.sum() >= 29


@in_one_case("table", [b"", b"\xff\xfe", b"class\n1\n1,2,3\n", b"volume\n1\n", b"\0" * 99])
def test_a_damaged_table_of_objects_is_told_and_leaves_the_labels(viewer, tmp_path, monkeypatch, table):
    said = []
    monkeypatch.setattr(result, "show_warning", said.append)
    viewer.layers.clear()
    np.save(tmp_path / "labels.npy", np.ones((4, 6, 7), np.uint8))
    (tmp_path / "objects.csv").write_bytes(table)
    following = task.Task("segment", viewer)
    following.folder = tmp_path
    result.ResultLayer(following, viewer.add_image(np.zeros((4, 6, 7))), "labels", {"objects": True})
    following.event_received.emit(SlabDone(0, 4, 4))
    following.finished.emit(None)
    (sentence,) = said
    assert sentence.startswith(f"{tmp_path / 'objects.csv'} cannot be read (")
    assert sentence.endswith("), so the labels have no table of objects.")
    assert viewer.layers["labels"].editable
    assert viewer.layers["labels"].data.all()
