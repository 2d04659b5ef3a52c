"""The overlay of a running training: in its place, renewed in place, gone with the next training."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Labels

from napari_unetvnet import runs
from napari_unetvnet.events import PreviewReady
from napari_unetvnet.widgets.overlay import Overlay, voxel_in_view

pytestmark = [
    pytest.mark.timeout(120),
    # napari says so of every turned 3D layer
    pytest.mark.filterwarnings("ignore:Non-orthogonal slicing:UserWarning"),
]
PLACE = {"scale": (2, 0.5, 0.25), "translate": (1, 2, 3), "rotate": (0, 20, 0), "units": ("um", "um", "um")}


@pytest.fixture
def picture(viewer):
    return viewer.add_image(np.zeros((6, 20, 24), np.float32), name="cells", **PLACE)


@pytest.fixture
def ready(tmp_path):
    def write(labels, start=(2, 3, 4), step=7):
        np.save(tmp_path / "preview.npy", labels)
        return PreviewReady(str(tmp_path / "preview.npy"), start, step, 10.0)

    return write


@pytest.fixture
def overlay(viewer, picture):
    made = Overlay(viewer)
    made.reset(picture)
    return made


def test_a_preview_lies_where_it_was_computed(viewer, picture, overlay, ready):
    painted = viewer.add_labels(np.zeros((6, 20, 24), np.uint8), name="strokes", **PLACE)
    labels = np.random.default_rng(0).integers(0, 3, (2, 8, 9), np.uint8)
    overlay.show(ready(labels))
    layer = viewer.layers["cells preview"]
    assert isinstance(layer, Labels)
    assert np.array_equal(layer.data, labels)
    assert np.allclose(layer.scale, picture.scale)
    assert np.allclose(layer.rotate, picture.rotate)
    assert layer.units == picture.units
    for point in np.random.default_rng(1).random((5, 3)) * 8:
        assert np.allclose(layer.data_to_world(point), picture.data_to_world(np.add(point, (2, 3, 4))))
    assert layer.opacity == 0.5
    assert layer.metadata == {"napari-unetvnet": {"preview": True}}
    assert not layer.editable
    assert viewer.layers.selection.active is painted  # painting goes on


def test_the_next_preview_renews_the_layer(viewer, overlay, ready):
    overlay.show(ready(np.zeros((1, 20, 24), np.uint8)))
    layer = overlay.layer
    layer.opacity = 0.9
    overlay.show(ready(np.full((1, 20, 24), 2, np.uint8), step=9))
    assert [item.name for item in viewer.layers] == ["cells", "cells preview"]
    assert overlay.layer is layer
    assert (layer.data == 2).all()
    assert layer.opacity == 0.9


def test_it_goes_when_the_next_training_begins(viewer, picture, overlay, ready):
    overlay.show(ready(np.zeros((1, 20, 24), np.uint8)))
    overlay.reset(picture)
    assert list(viewer.layers) == [picture]
    overlay.show(ready(np.zeros((1, 20, 24), np.uint8)))
    viewer.layers.remove("cells preview")  # the user may remove it, and the image too
    overlay.reset(picture)
    viewer.layers.remove(picture)
    overlay.show(ready(np.zeros((1, 20, 24), np.uint8)))
    assert list(viewer.layers) == []


def test_a_2d_image_has_a_2d_preview(viewer, overlay, ready):
    flat = viewer.add_image(np.zeros((20, 24)), name="flat", scale=(2, 3), translate=(5, 6))
    overlay.reset(flat)
    labels = np.random.default_rng(0).integers(0, 3, (1, 8, 9), np.uint8)
    overlay.show(ready(labels, start=(0, 3, 4)))
    assert np.array_equal(overlay.layer.data, labels[0])
    assert np.allclose(overlay.layer.translate, (5 + 2 * 3, 6 + 3 * 4))
    assert np.allclose(overlay.layer.scale, (2, 3))


@pytest.mark.parametrize("content", [None, b"", b"no array"])
def test_a_file_that_is_gone_or_cut_off_shows_nothing(viewer, picture, overlay, tmp_path, content):
    if content is not None:
        (tmp_path / "preview.npy").write_bytes(content)
    overlay.show(PreviewReady(str(tmp_path / "preview.npy"), (0, 0, 0), 1, 10.0))
    assert list(viewer.layers) == [picture]


def test_what_is_looked_at_is_a_voxel_of_the_image(viewer):
    image = viewer.add_image(np.zeros((6, 20, 24)), scale=(2, 0.5, 0.25), translate=(1, 2, 3))
    viewer.dims.point = (1 + 2 * 4, 2 + 0.5 * 7, 3 + 0.25 * 9)
    assert voxel_in_view(viewer, image, (6, 20, 24)) == (4, 7, 9)
    turned = viewer.add_image(np.zeros((6, 10, 24)), scale=(-2, 1, 1), translate=(3, 0, 0))
    assert voxel_in_view(viewer, turned, (6, 10, 24)) == (0, 6, 5)
    assert voxel_in_view(viewer, turned, (6, 4, 3)) == (0, 3, 2)


def test_a_2d_image_in_a_deeper_viewer_has_plane_0(viewer):
    viewer.add_image(np.zeros((6, 20, 24)))
    flat = viewer.add_image(np.zeros((20, 24)))
    viewer.dims.point = (3, 5, 6)
    assert voxel_in_view(viewer, flat, (20, 24)) == (0, 5, 6)


def test_the_form_asks_for_what_is_looked_at_and_shows_it(trainer, painted_viewer, ready, finish):
    painted_viewer.dims.point = (30, 40)
    trainer.budget.choose(2, "steps")
    trainer.panel.button.click()
    finish(trainer.panel)
    assert runs.read(trainer.panel.task.folder).preview == (0, 30, 40)
    labels = np.ones((1, 160, 192), np.uint8)
    trainer.panel.task.event_received.emit(ready(labels, start=(0, 0, 0)))
    layer = painted_viewer.layers["cells preview"]
    assert (layer.data == 1).all()
    assert layer.name not in [trainer.labels.box.itemText(i) for i in range(trainer.labels.box.count())]
