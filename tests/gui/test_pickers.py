"""The lists of layers and models follow what is there."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unetvnet.model.card import ModelCard
from napari_unetvnet.widgets.class_names import ClassNameTable
from napari_unetvnet.widgets.models import MODEL_SIGNALS, ModelPicker, _about, class_words
from napari_unetvnet.widgets.pickers import ImagePicker, LabelsPicker, MaskPicker

pytestmark = pytest.mark.timeout(60)
DATA = np.zeros((8, 9), np.uint8)


def texts(box):
    return [box.itemText(i) for i in range(box.count())]


@pytest.fixture
def picker(qtbot, viewer):
    widget = ImagePicker(viewer)
    qtbot.addWidget(widget)
    return widget


def test_layers_come_go_move_and_are_renamed(viewer, picker):
    assert picker.layers == []
    first, second = viewer.add_image(DATA, name="a"), viewer.add_image(DATA, name="b")
    viewer.add_labels(DATA, name="c")
    assert texts(picker.box) == ["a", "b"]
    second.name = "renamed"
    assert texts(picker.box) == ["a", "renamed"]
    viewer.layers.move(0, 2)
    assert texts(picker.box) == ["renamed", "a"]
    assert picker.layers == [first]  # the choice stays with the layer, not with the row
    viewer.layers.remove(first)
    assert picker.layers == [second]
    viewer.layers.clear()
    assert picker.layers == []


def test_further_channels_are_ticked(viewer, picker):
    a, b, c = (viewer.add_image(DATA, name=name) for name in "abc")
    picker.tick(c)
    assert picker.layers == [a, c]
    b.name = "other"
    assert picker.layers == [a, c]
    viewer.layers.remove(c)
    assert picker.layers == [a]
    picker.tick(b)
    picker.more.setChecked(False)
    assert picker.layers == [a]


def test_a_chosen_image_is_not_its_own_further_channel(viewer, picker):
    a, b = (viewer.add_image(DATA, name=name) for name in "ab")
    picker.tick(b)
    picker.box.choose(b)
    assert picker.layers == [b]
    assert a not in picker.layers


def test_labels_are_listed_by_themselves(qtbot, viewer):
    box = LabelsPicker(viewer)
    qtbot.addWidget(box)
    viewer.add_image(DATA)
    strokes = viewer.add_labels(DATA, name="strokes")
    assert box.layer is strokes
    viewer.add_labels(DATA, name="more")
    assert box.layer is strokes


def test_labels_follow_the_image_that_they_are_named_after(qtbot, viewer):
    box = LabelsPicker(viewer)
    qtbot.addWidget(box)
    images = {name: viewer.add_image(DATA, name=name) for name in ("day1.tif", "day2.tif", "other")}
    labels = {name: viewer.add_labels(DATA, name=name) for name in ("day2_labels", "day1-mask", "strokes")}
    for image, expected in (("day1.tif", "day1-mask"), ("day2.tif", "day2_labels"), ("other", "day2_labels")):
        box.follow(images[image])
        assert box.layer is labels[expected]
    labels["strokes"].name = "day2"
    box.follow(images["day2.tif"])
    assert box.layer is labels["day2_labels"]  # named after it, too, so the choice stays


def test_labels_come_before_shapes_and_previews_are_not_listed(qtbot, viewer):
    box = LabelsPicker(viewer)
    qtbot.addWidget(box)
    lines = viewer.add_shapes([[[0, 0], [1, 1]]], shape_type="line", name="lines")
    assert box.layer is lines
    assert box.drawn
    strokes = viewer.add_labels(DATA, name="strokes")
    assert texts(box.box) == ["strokes", "lines"]
    assert box.layer is lines  # what was chosen stays
    box.box.choose(strokes)
    assert not box.drawn
    viewer.add_labels(DATA, name="target", metadata={"napari-unetvnet": {"preview": True}})
    assert texts(box.box) == ["strokes", "lines"]


def test_masks_of_further_classes_are_ticked_where_classes_may_overlap(qtbot, viewer):
    box = LabelsPicker(viewer)
    qtbot.addWidget(box)
    a, b, c = (viewer.add_labels(DATA, name=name) for name in "abc")
    viewer.add_shapes([[[0, 0], [1, 1]]], shape_type="line", name="lines")
    assert box.more.isHidden()
    box.allow_further(allowed=True)
    assert [box.list.item(i).text() for i in range(box.list.count())] == ["b", "c"]
    box.tick(c)
    assert box.layers == [a, c]
    box.tick(b)
    assert box.layers == [a, b, c]
    box.allow_further(allowed=False)
    assert box.layers == [a]


def test_a_mask_is_chosen_or_none(qtbot, viewer):
    viewer.add_labels(DATA, name="a")
    box = MaskPicker(viewer, "everywhere")
    qtbot.addWidget(box)
    assert box.layer is None
    inside = viewer.add_labels(DATA, name="inside")
    assert texts(box) == ["everywhere", "a", "inside"]
    assert box.layer is None  # a new layer is no choice
    box.choose(inside)
    inside.name = "renamed"
    assert box.layer is inside
    viewer.layers.remove(inside)
    assert box.layer is None


def test_a_deleted_widget_hears_no_more(qtbot, viewer):
    widget = ImagePicker(viewer)
    widget.deleteLater()
    qtbot.wait(50)
    viewer.add_image(DATA).name = "other"  # raises if a deleted box were told


def test_models_are_listed_and_described(qtbot, runs_folder, tiny_model, monkeypatch):
    monkeypatch.setattr("napari_unetvnet.runs.models.shipped_models", dict)
    picker = ModelPicker()
    qtbot.addWidget(picker)
    assert picker.path is None
    assert "no model yet" in picker.about.text()
    (runs_folder / "first").mkdir(parents=True)
    (runs_folder / "first" / "model.safetensors").write_bytes(tiny_model.read_bytes())
    MODEL_SIGNALS.model_saved.emit("")
    assert texts(picker.box) == ["first"]
    assert "unet_padding of width 4, view 2d, 1 channel, labels 0, 2" in picker.about.text()


def test_overlapping_and_named_classes_are_described():
    card = ModelCard(network="unet3d", head="multilabel", view="3d", values=(1, 2), patch=(8, 8, 8), overlapping=True)
    assert "1 channel, overlapping masks 1, 2;" in _about(card)
    assert class_words(card) == ["1", "2"]
    nested = card.model_copy(update={"overlapping": False, "class_names": ("WT", "ET")})
    assert "1 channel, labels WT, ET;" in _about(nested)


def test_any_model_file_can_be_chosen(qtbot, tiny_model):
    picker = ModelPicker()
    qtbot.addWidget(picker)
    picker.choose(tiny_model)
    assert picker.path == tiny_model
    assert picker.card.values == (0, 2)


def test_a_broken_model_is_a_sentence(qtbot, tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    picker = ModelPicker()
    qtbot.addWidget(picker)
    picker.choose(tmp_path / "bad.safetensors")
    assert picker.card is None
    assert "cut off" in picker.about.text()


def test_names_stand_beside_the_painted_values_and_the_mask_layers(viewer):
    painted = np.zeros((6, 6), np.uint8)
    painted[0], painted[1] = 1, 3
    viewer.add_labels(painted, name="mine", features={"index": [0, 3], "name": ["background", "axon"]})
    viewer.add_labels(painted, name="big [2]")
    labels = LabelsPicker(viewer)
    labels.box.choose(viewer.layers["mine"])
    table = ClassNameTable(labels)
    table.refresh("classes")
    assert table.values() == {"class_names": ["3=axon"]}
    table.item(0, 1).setText("left cell")
    assert table.values() == {"class_names": ["1=left cell", "3=axon"]}
    viewer.layers["mine"].data[2] = 7
    table.refresh()
    assert [table.item(row, 0).text() for row in range(table.rowCount())] == ["1", "3", "7"]
    assert table.values() == {"class_names": ["1=left cell", "3=axon"]}
    labels.allow_further(allowed=True)
    labels.tick(viewer.layers["big [2]"])
    table.refresh("overlapping")
    assert table.values() == {"class_names": ["1=mine", "2=big 2"]}
    viewer.layers["mine"].name = "12"  # a number cannot be the name of a class
    table.refresh()
    assert table.values() == {"class_names": ["2=big 2"]}
    table.refresh("objects")
    assert table.values() == {}
