"""A time series of layers on the whole way: questions, targets, training on some time points, segmentation of all."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unetvnet.widgets.segment import SegmentWidget
from napari_unetvnet.widgets.train import TrainWidget

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def movie(painted_viewer):
    """Nuclei that move, with strokes at time points 1 and 3, and time point 2 shown."""
    cells, strokes = painted_viewer.layers
    place = {"scale": (3, 0.5, 0.5), "units": ("s", "um", "um"), "axis_labels": ("t", "y", "x")}
    frames = np.stack([np.roll(cells.data, 5 * t, 1) for t in range(4)])
    painted = np.stack([np.roll(strokes.data, 5 * t, 1) * (t % 2) for t in range(4)])
    painted_viewer.layers.clear()
    painted_viewer.add_image(frames, name="movie", **place)
    painted_viewer.add_labels(painted, name="strokes", **place)
    painted_viewer.dims.set_point(0, 6)
    return painted_viewer


def test_a_series_of_layers_is_trained_on_and_segmented(qtbot, movie, make_small, finish):
    train = make_small(TrainWidget(movie))
    qtbot.addWidget(train)
    train.targets_button.click()  # asks first, and shows targets once that is answered
    texts = [button.text().replace("\n", " ") for button in train.asking.buttons]
    assert texts[:2] == ["The time points that have labels: 1, 3", "The time point that is shown, 2"]
    train.asking.buttons[0].click()
    qtbot.waitUntil(lambda: "target" in movie.layers, timeout=30_000)
    assert train.panel.view.status.text().startswith("1 target layer shown at time point 1.")
    image, target = movie.layers["movie"], movie.layers["target"]
    assert (target.data.shape, target.axis_labels) == ((1, *image.data.shape[1:]), ("t", "y", "x"))
    assert np.allclose(target.data_to_world((0, 2, 3)), image.data_to_world((1, 2, 3)))
    train.panel.button.click()
    finish(train.panel)
    assert movie.layers["movie split"].data_to_world((0, 0, 0))[0] == image.data_to_world((1, 0, 0))[0]
    assert train.panel.view.error.text() == ""
    segment = SegmentWidget(movie)
    qtbot.addWidget(segment)
    segment.model.choose(train.model)
    segment.probabilities.setChecked(True)
    segment.settings.fields["device"].widget.value = "cpu"
    segment.settings.fields["uncertainty_kind"].widget.value = "entropy"
    segment.panel.button.click()
    finish(segment.panel)
    assert segment.panel.view.error.text() == ""
    names = ["movie segmented", "movie probability of 0", "movie probability of 2", "movie uncertainty"]
    qtbot.waitUntil(lambda: all(name in movie.layers for name in names), timeout=30_000)
    image, result, first, second, unsure = (movie.layers[name] for name in ["movie", *names])
    for layer in (result, first, second, unsure):
        assert (layer.data.shape, layer.axis_labels) == (image.data.shape, ("t", "y", "x"))
        assert np.array_equal(layer.scale, image.scale)
    np.testing.assert_allclose(np.asarray(first.data) + second.data, 1, atol=2e-3)
    assert np.array_equal(result.data == 2, np.asarray(second.data) > first.data)
