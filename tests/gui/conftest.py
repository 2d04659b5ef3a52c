"""A viewer without a window, small layers on it, and no run left behind."""

from __future__ import annotations

import time

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_unetvnet.runs.folder import training_files
from napari_unetvnet.widgets import task
from napari_unetvnet.widgets.sample_data import scribble


@pytest.fixture(autouse=True)
def no_run_left(qapp):
    yield
    left = list(task._ACTIVE)
    for item in left:
        item.stop()
    end = time.monotonic() + 30
    while task._ACTIVE and time.monotonic() < end:
        qapp.processEvents()
        time.sleep(0.02)
    for item in list(task._ACTIVE):
        item.kill()


@pytest.fixture
def viewer():
    return ViewerModel()


@pytest.fixture
def painted_viewer(viewer, nuclei, nuclei_objects):
    """Real nuclei, 160 x 192, with scribbles."""
    place = slice(0, 160), slice(0, 192)
    viewer.add_image(np.array(nuclei.data[0, 0][place]), name="cells")
    viewer.add_labels(scribble(nuclei_objects[place]), name="strokes")
    return viewer


@pytest.fixture
def trainer(qtbot, painted_viewer):
    """A widget with settings that train a tiny network in a second."""
    from napari_unetvnet.widgets.train import TrainWidget

    widget = TrainWidget(painted_viewer)
    qtbot.addWidget(widget)
    return small(widget)


def small(widget):
    widget.network.setCurrentText("unet_padding")
    widget.network.width_box.setValue(4)
    widget.network.options.fields["depth"].widget.value = 3
    widget.settings.fields["patch"].widget.value = "1 48 48"
    widget.settings.fields["batch"].widget.value = "2"
    widget.settings.fields["steps_per_epoch"].widget.value = 5
    widget.settings.fields["device"].widget.value = "cpu"
    widget.budget.choose(10, "steps")
    widget.unpainted.choose({"unlabelled": "ignore", "background": 1})
    return widget


@pytest.fixture
def make_small():
    return small


@pytest.fixture
def finish(qtbot):
    """Wait until a panel's run is over."""

    def wait(panel, seconds=90):
        qtbot.waitUntil(lambda: panel.task.state == "idle", timeout=seconds * 1000)

    return wait


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory, nuclei, painted_half):
    """A model file of width 4 for 2D images with one channel, trained for two steps; writes 0 and 2."""
    from napari_unetvnet.images.pairs import Pair
    from napari_unetvnet.settings import TrainSettings
    from napari_unetvnet.training import loop

    folder = tmp_path_factory.mktemp("tiny")
    chosen = {"option": {"width": 4, "depth": 3}, "patch": (1, 48, 48), "batch": 2, "device": "cpu", "steps": 2}
    settings = TrainSettings(unlabelled="ignore", background=1, **chosen)
    for _ in loop.steps([Pair(nuclei, painted_half)], settings, training_files(folder)):
        pass
    return folder / "model.safetensors"
