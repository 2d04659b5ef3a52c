"""Augmented patches as layers: beside the image, from a child process, or a sentence instead."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from napari_unetvnet.widgets.augmented import COUNT
from napari_unetvnet.widgets.train import TrainWidget

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def show(qtbot):
    def wait(widget):
        widget.augmented_button.click()
        qtbot.waitUntil(lambda: not widget.augmented.busy, timeout=90_000)
        return [layer for layer in widget._viewer.layers if layer.metadata.get("napari-unetvnet")]

    return wait


@pytest.mark.slow
def test_patches_are_shown_beside_the_image_and_shown_again_in_place_of_the_first(trainer, painted_viewer, show):
    active = painted_viewer.layers.selection.active
    torch_was_here = "torch" in sys.modules
    image, labels = show(trainer)
    assert image.data.shape == labels.data.shape == (COUNT, 48, 48)
    assert set(np.unique(labels.data)) <= {0, 1}
    cells = painted_viewer.layers["cells"]
    assert image.extent.world[0][-1] > cells.extent.world[1][-1]
    assert tuple(image.units[-2:]) == tuple(cells.units)
    assert painted_viewer.layers.selection.active is active
    assert ("torch" in sys.modules) is torch_was_here
    assert "16 augmented patches" in trainer.panel.view.status.text()
    assert trainer.augmented_button.isEnabled()
    assert len(show(trainer)) == 2


@pytest.mark.slow
def test_what_the_child_refuses_is_told(trainer, painted_viewer, show):
    painted_viewer.layers["strokes"].data[:] = 0
    assert not show(trainer)
    assert "paint some labels" in trainer.panel.view.error.text()
    assert trainer.augmented_button.text() == "Augmented"


def test_what_can_be_refused_at_once_starts_no_child(qtbot, viewer):
    widget = TrainWidget(viewer)
    qtbot.addWidget(widget)
    widget.augmented_button.click()
    assert not widget.augmented.busy
    assert widget.panel.view.error.text()
