"""What napari sees of the plugin: manifest, samples, light imports."""

from __future__ import annotations

import subprocess
import sys
from importlib import resources

import numpy as np
import pytest
from npe2 import PluginManifest

from napari_unetvnet.widgets import sample_data

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def manifest():
    found = PluginManifest.from_file(resources.files("napari_unetvnet") / "napari.yaml")
    found.validate_imports()  # every command resolves
    return found


def test_the_manifest_fits_the_package(manifest):
    assert manifest.name == "napari-unetvnet"
    assert [widget.display_name for widget in manifest.contributions.widgets] == ["Train", "Segment"]
    assert len(manifest.contributions.sample_data) == 3


def test_menus_are_those_that_plugins_may_add_to(manifest):
    from napari._app_model.constants._menus import is_menu_contributable

    assert manifest.contributions.menus
    assert all(is_menu_contributable(name) for name in manifest.contributions.menus)


@pytest.mark.parametrize("make", [sample_data.nuclei, sample_data.nuclei_with_scribbles, sample_data.blobs])
def test_samples_can_be_opened_and_trained_on(viewer, make):
    from napari_unetvnet.widgets.layers import snapshot

    layers = [getattr(viewer, f"add_{kind}")(data, **how) for data, how, kind in make()]
    assert len(snapshot(layers[:1], layers[1:]).labels) == 1
    assert set(np.unique(layers[1].data)) - {0} == {sample_data.BACKGROUND, sample_data.OBJECT}
    again = make()
    assert all(np.array_equal(layer.data, data) for layer, (data, *_) in zip(layers, again, strict=True))


def test_scribbles_are_few_and_right(nuclei_objects):
    (_, _, _), (strokes, _, _) = sample_data.nuclei_with_scribbles()
    assert 0.002 < (strokes > 0).mean() < 0.01
    assert (nuclei_objects[strokes == sample_data.OBJECT] > 0).all()
    assert (nuclei_objects[strokes == sample_data.BACKGROUND] == 0).all()


def test_blobs_have_their_size_in_the_world(viewer):
    (image, how, _), _ = sample_data.blobs()
    layer = viewer.add_image(image, **how)
    assert tuple(layer.scale) == (2, 1, 1)
    assert {str(unit) for unit in layer.units} == {"micrometer"}


LIGHT = """
import sys, time
from napari.components import ViewerModel
from qtpy.QtWidgets import QApplication
import numpy as np
app = QApplication([])
viewer = ViewerModel()
viewer.add_image(np.zeros((8, 8)))
begun = time.perf_counter()
from napari_unetvnet.widgets.train import TrainWidget
from napari_unetvnet.widgets.segment import SegmentWidget
train, segment = TrainWidget(viewer), SegmentWidget(viewer)
seconds = time.perf_counter() - begun
loaded = {"torch", "monai", "nibabel"} & set(sys.modules)
print(loaded or "nothing heavy", f"{seconds:.2f}")
train.panel.button.click()
print({"torch", "monai"} & set(sys.modules) or "nothing heavy", train.panel.view.error.text())
"""


@pytest.mark.alone
def test_both_widgets_open_within_a_second_without_torch():
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, timeout=100, check=True)
    first, second = done.stdout.splitlines()[:2]
    assert first.startswith("nothing heavy")
    assert float(first.split()[-1]) < 2.0  # a second each
    assert second == "nothing heavy There is no labels layer; add one (new labels layer button) and paint on it."
