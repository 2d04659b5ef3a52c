"""Targets as layers: what the loss would see, on the grid of the image, without a pause."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Image, Labels

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.losses import LOSSES
from napari_unetvnet.widgets import preview
from napari_unetvnet.widgets.train import TrainWidget

pytestmark = [
    pytest.mark.timeout(60),
    # napari says so of every turned 3D layer
    pytest.mark.filterwarnings("ignore:Non-orthogonal slicing:UserWarning"),
]
PLACE = {"scale": (2, 0.5, 0.25), "translate": (1, 2, 3), "rotate": (0, 20, 0), "units": ("um", "um", "um")}


@pytest.fixture
def show(qtbot):
    def wait(widget):
        widget.targets_button.click()
        qtbot.waitUntil(lambda: not widget.preview.busy, timeout=20_000)
        return [layer for layer in widget.preview._viewer.layers if layer.metadata.get("napari-unetvnet")]

    return wait


@pytest.fixture
def stack(qtbot, viewer):
    """A widget over a stack of 6 planes with background and two classes."""
    painted = np.zeros((6, 20, 24), np.uint8)
    painted[:, 2:8, 2:8], painted[:, 10:14, 10:14], painted[3, 16:, 16:] = 1, 2, 5
    viewer.add_image(np.zeros((6, 20, 24), np.float32), name="cells", **PLACE)
    viewer.add_labels(painted, name="strokes", **PLACE)
    widget = TrainWidget(viewer)
    qtbot.addWidget(widget)
    widget.unpainted.choose({"unlabelled": "ignore", "background": 1})
    return widget


def test_class_indices_and_what_is_not_known(stack, viewer, show):
    (layer,) = show(stack)
    painted = viewer.layers["strokes"].data
    assert isinstance(layer, Labels)
    assert layer.name == "target"
    for value, index in ((0, IGNORE), (1, 0), (2, 1), (5, 2)):
        assert (layer.data[painted == value] == index).all()
    for point in np.random.default_rng(0).random((5, 3)) * 20:
        assert np.allclose(layer.data_to_world(point), viewer.layers["cells"].data_to_world(point))
    assert layer.units == viewer.layers["cells"].units
    assert "label 255" in stack.panel.view.status.text()
    assert stack.targets_button.isEnabled()


def test_showing_them_again_renews_the_layers(stack, viewer, show):
    viewer.layers.selection.active = viewer.layers["strokes"]
    (first,) = show(stack)
    assert viewer.layers.selection.active is viewer.layers["strokes"]  # painting can go on
    viewer.layers["strokes"].data[0, :2, :2] = 2
    (again,) = show(stack)
    assert again is first
    assert (again.data[0, :2, :2] == 1).all()
    stack.unpainted.meaning.setCurrentText("background")
    stack.settings.fields["label_blur"].widget.value = "1"
    later = show(stack)
    assert first not in viewer.layers
    assert len(later) == 4


def test_previews_are_not_offered_as_inputs(stack, viewer, show):
    stack.settings.fields["label_blur"].widget.value = "1"
    show(stack)
    stack.settings.fields["label_blur"].widget.value = "0"
    show(stack)
    assert [stack.image.box.itemText(i) for i in range(stack.image.box.count())] == ["cells"]
    assert [stack.labels.box.itemText(i) for i in range(stack.labels.box.count())] == ["strokes"]


def test_softened_classes_are_images_and_empty_where_nothing_is_known(stack, viewer, show):
    stack.settings.fields["label_blur"].widget.value = "1"
    found = show(stack)
    painted = viewer.layers["strokes"].data
    assert [layer.name for layer in found] == ["target: background", "target: label 2", "target: label 5"]
    assert all(isinstance(layer, Image) for layer in found)
    total = sum(layer.data for layer in found)
    assert np.isnan(total[painted == 0]).all()
    assert np.allclose(total[painted != 0], 1)
    assert [layer.visible for layer in found] == [False, True, False]


def test_regions_are_channels_with_their_names(stack, viewer, show):
    stack.unpainted.meaning.setCurrentText("background")
    stack.settings.fields["regions"].widget.value = "WT=2+5 ET=5"
    found = show(stack)
    painted = viewer.layers["strokes"].data
    assert [layer.name for layer in found] == ["target: WT", "target: ET"]
    assert np.array_equal(found[0].data, np.isin(painted, (2, 5)))
    assert np.array_equal(found[1].data, painted == 5)


def test_the_weight_map_is_shown_if_the_loss_uses_it(stack, viewer, show):
    using = [name for name in LOSSES if "separation" in LOSSES.describe(name).facts.get("needs", ())]
    if not using:
        pytest.skip("no loss uses the weight map")
    stack.loss.setCurrentText(using[0])
    stack.settings.fields["label_values"].widget.value = "objects"
    viewer.layers["strokes"].data[:, 2:8, 9:12] = 7  # a gap of one voxel to object 1
    weights, target = show(stack)
    assert (weights.name, target.name) == ("separation weights", "target")
    assert weights.data[0, 4, 8] > 5 * weights.data[0, 19, 0] > 0


def test_the_mask_counts(stack, viewer, show):
    inside = np.zeros((6, 20, 24), np.uint8)
    inside[:, :, :12] = 1
    mask = viewer.add_labels(inside, name="inside", **PLACE)
    stack.unpainted.meaning.setCurrentText("background")
    stack.mask.choose(mask)
    (layer,) = show(stack)
    assert (layer.data[..., 12:] == IGNORE).all()
    assert (layer.data[..., :12] != IGNORE).all()


def test_of_a_large_stack_the_planes_around_the_present_one_are_shown(stack, viewer, show, monkeypatch):
    monkeypatch.setattr(preview, "MOST_VOXELS", 2 * 20 * 24)
    image = viewer.layers["cells"]
    viewer.dims.point = image.data_to_world((3, 10, 12))
    (layer,) = show(stack)
    assert layer.data.shape == (2, 20, 24)
    assert np.allclose(layer.data_to_world((0, 4, 5)), image.data_to_world((2, 4, 5)))
    assert (layer.data[1, 16:, 16:] == 2).all()  # class 5 is painted in plane 3
    assert "planes 2 to 3" in stack.panel.view.status.text()


def test_targets_of_a_2d_image_are_2d(trainer, painted_viewer, show):
    (layer,) = show(trainer)
    painted = painted_viewer.layers["strokes"].data
    assert layer.data.shape == painted.shape
    assert np.array_equal(layer.data == 1, painted == 2)


def test_a_refusal_is_shown(trainer, painted_viewer, show):
    painted_viewer.layers["strokes"].data[:] = 0
    assert show(trainer) == []
    assert "Nothing is painted on strokes" in trainer.panel.view.error.text()
    painted_viewer.layers["strokes"].data[:9] = 3
    show(trainer)
    assert "Background value 1 is not painted" in trainer.panel.view.error.text()
    trainer.settings.fields["patch"].widget.value = "64"
    show(trainer)
    assert "give 3 numbers" in trainer.panel.view.error.text()
    assert trainer.targets_button.isEnabled()
    assert trainer.targets_button.text() == "Targets"


def test_a_fault_brings_the_button_back(trainer, show, monkeypatch):
    def broken(*_):
        raise RuntimeError("out of cheese")

    monkeypatch.setattr(preview, "targets_of", broken)
    show(trainer)
    assert "out of cheese" in trainer.panel.view.error.text()
    assert trainer.targets_button.isEnabled()


def test_a_closed_widget_hears_no_more(qtbot, painted_viewer, monkeypatch):
    import threading

    go_on = threading.Event()
    monkeypatch.setattr(preview, "targets_of", lambda *_: go_on.wait(10) and [])
    widget = TrainWidget(painted_viewer)
    shown = widget.preview
    widget.targets_button.click()
    assert shown.busy  # the viewer does not wait
    widget.deleteLater()
    qtbot.wait(50)
    go_on.set()
    qtbot.waitUntil(lambda: not shown.busy)  # a signal to a deleted widget would raise
