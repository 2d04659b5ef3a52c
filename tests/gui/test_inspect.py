"""What a model computes besides labels as layers, and the results that the Segment panel shows beside the labels."""

from __future__ import annotations

import json

import numpy as np
import pytest

from napari_unetvnet import runs
from napari_unetvnet.settings import InspectJob, SegmentJob
from napari_unetvnet.widgets.segment import SegmentWidget

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def segmenter(qtbot, painted_viewer, tiny_model):
    painted_viewer.layers["cells"].scale = (2, 3)
    painted_viewer.layers["cells"].translate = (5, 7)
    widget = SegmentWidget(painted_viewer)
    qtbot.addWidget(widget)
    widget.model.choose(tiny_model)
    widget.settings.fields["device"].widget.value = "cpu"
    return widget


def test_maps_are_layers_between_the_image_and_the_labels(qtbot, segmenter, painted_viewer, finish):
    viewer, inspection = painted_viewer, segmenter.inspection
    assert [inspection.what.itemText(i) for i in range(inspection.what.count())] == ["all", "heatmaps"]
    viewer.layers.selection.active = strokes = viewer.layers["strokes"]
    segmenter.settings.fields["overlap"].widget.value = 0.5
    for _ in range(2):  # the layers of the first time are replaced
        inspection.panel.button.click()
        finish(inspection.panel)
        assert not inspection.panel.view.error.text()
        qtbot.waitUntil(lambda: len(inspection.maps.layers) == 2)
    job = runs.read(inspection.panel.task.folder)
    assert isinstance(job, InspectJob)
    assert (job.what, job.overlap, job.device, job.precision) == ((), 0.5, "cpu", "fp32")
    names = ["cells", "cells heatmaps decoder0", "cells heatmaps decoder1", "strokes"]
    assert [layer.name for layer in viewer.layers] == names
    assert viewer.layers.selection.active is strokes
    for layer in inspection.maps.layers:
        assert layer.data.shape == (160, 192)
        np.testing.assert_array_equal(layer.extent.world, viewer.layers["cells"].extent.world)
        assert (layer.data.min(), layer.data.max(), layer.contrast_limits) == (0, 1, [0, 1])
    assert [layer.visible for layer in inspection.maps.layers] == [True, False]
    assert segmenter.image.box.layers == [viewer.layers["cells"]]  # maps are not offered as images


def test_probabilities_and_uncertainty_are_layers(qtbot, segmenter, painted_viewer, finish):
    mask = painted_viewer.add_labels(np.zeros((160, 192), np.uint8), name="left", scale=(2, 3), translate=(5, 7))
    mask.data[:, :96] = 1
    fields = segmenter.settings.fields
    segmenter.probabilities.setChecked(True)
    segmenter.mask.choose(mask)
    fields["uncertainty_kind"].widget.value = "entropy"
    segmenter.panel.button.click()
    finish(segmenter.panel)
    qtbot.waitUntil(lambda: len(segmenter.maps.layers) == 3)
    names = ["cells probability of 0", "cells probability of 2", "cells uncertainty"]
    assert [layer.name for layer in segmenter.maps.layers] == names
    background, nucleus, uncertainty = (np.asarray(layer.data) for layer in segmenter.maps.layers)
    np.testing.assert_allclose(background + nucleus, 1, atol=2e-3)
    assert (background[:, 96:] == 1).all()  # outside the mask
    assert not uncertainty[:, 96:].any()
    assert uncertainty[:, :96].all()


def test_every_option_of_a_segmentation_is_in_the_form(segmenter, monkeypatch):
    chosen = {
        "view": "multi-view", "tta": "y x", "cascade": False, "box_start": "0 1 2", "box_stop": "1 90 90",
        "mirror_edge": "symmetric", "skip_constant": True, "nested": "brats", "blending": "centre",
    }  # fmt: skip
    for name, value in chosen.items():
        segmenter.settings.fields[name].widget.value = value
    started = []
    monkeypatch.setattr(segmenter.panel, "attempt", lambda start: bool(started.append(start)))
    segmenter.segment()
    _, prepare = started[0]()
    job = prepare.__closure__ and next(c.cell_contents for c in prepare.__closure__ if hasattr(c.cell_contents, "tta"))
    expected = {"tta": ("y", "x"), "box_start": (0, 1, 2), "box_stop": (1, 90, 90)}
    assert {name: getattr(job, name) for name in chosen} == chosen | expected
    elsewhere = {
        "image",
        "channel_names",
        "model",
        "spacing",
        "unit",
        "axes",
        "time",
        "mask",
        "output",
        "probabilities",
        "uncertainty",
        "overwrite",
        "option",
    }
    assert set(SegmentJob.model_fields) == set(segmenter.settings.fields) | elsewhere
    assert json.loads(job.model_dump_json())["view"] == "multi-view"
