"""The split as a layer: exactly where it is in the image, under the labels, and never in the way."""

from __future__ import annotations

import numpy as np
import pytest
from combinations import in_one_case
from napari.layers import Labels

from napari_unetvnet.events import SplitMade
from napari_unetvnet.widgets.layers import place_of
from napari_unetvnet.widgets.split import HELD_OUT, TRAINING, SplitLayer, draw_split

pytestmark = [
    pytest.mark.timeout(120),
    # napari says so of every turned 3D layer
    pytest.mark.filterwarnings("ignore:Non-orthogonal slicing:UserWarning"),
]
PLACE = {"scale": (2, 0.5, 0.25), "translate": (1, 2, 3), "rotate": (0, 20, 0), "units": ("um", "um", "um")}
SPLIT = SplitMade(0, "cells", ((0, 0, 0, 6, 20, 8), (0, 0, 20, 6, 20, 24)), ((0, 0, 12, 6, 20, 16),))


@pytest.fixture
def picture(viewer):
    return viewer.add_image(np.zeros((6, 20, 24), np.float32), name="cells", **PLACE)


@pytest.fixture
def split(viewer, picture):
    made = SplitLayer(viewer)
    made.reset(picture)
    return made


def test_parts_are_drawn_where_they_are():
    labels, step = draw_split(SPLIT, (6, 20, 24))
    assert step == [1, 1, 1]
    expected = [TRAINING] * 8 + [0] * 4 + [HELD_OUT] * 4 + [0] * 4 + [TRAINING] * 4
    assert (labels == np.array(expected, np.uint8)).all()


@in_one_case("most", [1, 50, 700, 2879])
def test_a_large_image_is_drawn_coarsely(most):
    labels, step = draw_split(SPLIT, (6, 20, 24), most)
    assert labels.size <= most
    exact, _ = draw_split(SPLIT, (6, 20, 24))
    for z, y, x in np.argwhere(exact == HELD_OUT)[::7]:
        assert labels[z // step[0], y // step[1], x // step[2]] == HELD_OUT


def test_huge_images_take_little_memory():
    labels, _ = draw_split(SplitMade(0, "", (), ((0, 0, 0, 100, 8192, 8192),)), (2000, 8192, 8192))
    assert labels.size <= 2**24


def test_it_lies_on_the_image_below_the_labels_and_is_not_active(viewer, picture, split):
    second = viewer.add_image(np.zeros((6, 20, 24), np.float32), name="second channel", **PLACE)
    painted = viewer.add_labels(np.zeros((6, 20, 24), np.uint8), name="strokes", **PLACE)
    split.show(SPLIT)
    layer = viewer.layers["cells split"]
    assert list(viewer.layers) == [picture, second, layer, painted]
    assert isinstance(layer, Labels)
    assert viewer.layers.selection.active is painted
    assert layer.visible
    assert not layer.editable
    assert layer.units == picture.units
    for point in np.random.default_rng(0).random((5, 3)) * 6:
        assert np.allclose(layer.data_to_world(point), picture.data_to_world(point))
    assert layer.colormap.map(HELD_OUT)[3] == 1
    assert layer.colormap.map(TRAINING)[3] == layer.colormap.map(0)[3] == 0
    assert layer.opacity <= 0.3
    assert layer.metadata["napari-unetvnet"]["split"] == {1: "training", 2: "hold-out"}
    assert "hold-out" in layer.get_status(picture.data_to_world((3, 4, 13)), world=True)["value"]


def test_a_coarse_layer_covers_the_same_place(viewer, picture):
    step = (1, 2, 4)
    layer = Labels(np.zeros((6, 10, 6), np.uint8), **place_of(picture, [(edge - 1) / 2 for edge in step], step))
    for corner in ((-0.5, -0.5, -0.5), (5.5, 9.5, 5.5), (2.0, 3.5, 0.5)):
        fine = [(c + 0.5) * edge - 0.5 for c, edge in zip(corner, step, strict=True)]
        assert np.allclose(layer.data_to_world(corner), picture.data_to_world(fine))


def test_a_2d_image_has_a_2d_split(viewer, split):
    flat = viewer.add_image(np.zeros((20, 24, 3), np.uint8), name="flat", rgb=True, scale=(2, 3), translate=(5, 6))
    split.reset(flat)
    split.show(SplitMade(0, "flat", ((0, 0, 0, 1, 20, 10),), ((0, 0, 14, 1, 20, 24),)))
    assert split.layer.data.shape == (20, 24)
    assert (split.layer.data[:, 14:] == HELD_OUT).all()
    assert np.allclose(split.layer.translate, (5, 6))


def test_it_goes_when_the_next_training_begins_and_stays_hidden(viewer, picture, split):
    split.show(SPLIT)
    split.layer.visible = False
    split.reset(picture)
    assert list(viewer.layers) == [picture]
    split.show(SPLIT)
    assert not split.layer.visible
    viewer.layers.remove("cells split")  # the user may remove it, and the image too
    split.reset(picture)
    viewer.layers.remove(picture)
    split.show(SPLIT)
    assert list(viewer.layers) == []


def test_without_a_hold_out_there_is_nothing_to_see(viewer, picture, split):
    split.show(SplitMade(0, "cells", ((0, 0, 0, 6, 20, 24),), ()))
    assert list(viewer.layers) == [picture]


@pytest.mark.slow
def test_a_training_shows_what_it_holds_out(trainer, painted_viewer, finish):
    trainer.budget.choose(1, "steps")
    before = [trainer.labels.box.itemText(i) for i in range(trainer.labels.box.count())]
    active = painted_viewer.layers.selection.active
    trainer.panel.button.click()
    finish(trainer.panel)
    assert trainer.panel.view.error.text() == ""
    layer = painted_viewer.layers["cells split"]
    assert set(np.unique(layer.data)) == {0, TRAINING, HELD_OUT}
    assert painted_viewer.layers.selection.active is active
    assert [trainer.labels.box.itemText(i) for i in range(trainer.labels.box.count())] == before
    trainer.panel.button.click()
    finish(trainer.panel)
    assert sum("split" in each.name for each in painted_viewer.layers) == 1
