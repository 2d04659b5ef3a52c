"""The whole way in a real window: open a sample, train, segment, close over a run."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest

from napari_unetvnet import runs
from napari_unetvnet.model.card import read_card
from napari_unetvnet.runs.folder import MODEL
from napari_unetvnet.widgets.scroll import Scrolling

NO_SCREEN = sys.platform.startswith("linux") and (
    not os.environ.get("DISPLAY") or os.environ.get("QT_QPA_PLATFORM") == "offscreen"
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.window,
    pytest.mark.timeout(180),
    pytest.mark.skipif(NO_SCREEN, reason="a window needs a display with OpenGL; run it under xvfb-run"),
]
PLUGIN = "napari-unetvnet"


@pytest.fixture
def window_viewer(make_napari_viewer_proxy):
    return make_napari_viewer_proxy(show=True)


def test_sample_train_segment(qtbot, window_viewer, make_small, finish):
    window_viewer.open_sample(PLUGIN, "nuclei_with_scribbles")
    _, train = window_viewer.window.add_plugin_dock_widget(PLUGIN, "Train")
    _, segment = window_viewer.window.add_plugin_dock_widget(PLUGIN, "Segment")
    make_small(train)
    train.budget.choose(60, "steps")
    train.panel.button.click()
    finish(train.panel)
    assert train.panel.view.error.text() == ""
    assert segment.model.path == train.model
    segment.panel.button.click()
    finish(segment.panel)
    assert segment.panel.view.error.text() == ""
    image, labels = window_viewer.layers["nuclei"], window_viewer.layers["nuclei segmented"]
    assert labels.data.shape == image.data.shape
    assert set(np.unique(labels.data)) == {0, 2}
    assert np.allclose(labels.data_to_world((3, 4)), image.data_to_world((3, 4)))


def test_closing_the_window_stops_the_run_and_keeps_its_model(qtbot, window_viewer, make_small):
    window_viewer.open_sample(PLUGIN, "nuclei_with_scribbles")
    _, train = window_viewer.window.add_plugin_dock_widget(PLUGIN, "Train")
    make_small(train)
    train.budget.choose(100_000, "steps")
    train.panel.button.click()
    qtbot.waitUntil(lambda: train.panel.view.curves.points[1] >= 1, timeout=60_000)
    running, folder = train.panel.task, train.panel.task.folder
    window_viewer.close()
    assert (folder / runs.STOP).exists()
    qtbot.waitUntil(lambda: running.state == "idle", timeout=30_000)
    assert read_card(folder / MODEL).steps < 100_000


def test_napari_asks_before_it_closes_over_a_run(qtbot, make_napari_viewer, make_small, finish, monkeypatch):
    """Napari's own dialog names the run; whoever answers Cancel keeps window and run."""
    from napari._qt import qt_main_window

    asked = []

    class Dialog:
        def __init__(self, *_, extra_info="", **__):
            asked.append(extra_info)

        def exec_(self):
            return 0

    class Event:
        ignored = False

        def spontaneous(self):
            return True

        def ignore(self):
            self.ignored = True

    viewer = make_napari_viewer(show=True)
    viewer.open_sample(PLUGIN, "nuclei_with_scribbles")
    _, train = viewer.window.add_plugin_dock_widget(PLUGIN, "Train")
    make_small(train).budget.choose(100_000, "steps")
    train.panel.button.click()
    monkeypatch.setattr(qt_main_window, "ConfirmCloseDialog", Dialog)
    event = Event()
    viewer.window._qt_window.closeEvent(event)
    assert event.ignored
    assert "napari-unetvnet: nuclei-unet_padding" in asked[0]
    assert train.panel.task.state in {"preparing", "running"}
    train.panel.button.click()
    finish(train.panel, 30)


def test_a_closed_dock_can_be_opened_again_over_a_run(qtbot, window_viewer, make_small, finish):
    window_viewer.open_sample(PLUGIN, "nuclei_with_scribbles")
    dock, train = window_viewer.window.add_plugin_dock_widget(PLUGIN, "Train")
    make_small(train)
    train.budget.choose(100_000, "steps")
    train.panel.button.click()
    qtbot.waitUntil(lambda: train.panel.view.curves.points[0] >= 1, timeout=60_000)
    window_viewer.window.remove_dock_widget(dock)
    _, again = window_viewer.window.add_plugin_dock_widget(PLUGIN, "Train")
    assert again is not train
    assert again.panel.button.text() == "Stop"
    again.panel.button.click()
    finish(again.panel, 30)
    assert again.model.is_file()


def test_nothing_in_the_docks_is_cut_off(qtbot, window_viewer):
    window_viewer.window.resize(1400, 900)
    _, train = window_viewer.window.add_plugin_dock_widget(PLUGIN, "Train")
    _, segment = window_viewer.window.add_plugin_dock_widget(PLUGIN, "Segment", tabify=True)
    qtbot.wait(200)
    for widget in (train, segment):
        assert widget.minimumSizeHint().width() <= 360
        widget.advanced.expand()
    qtbot.wait(100)
    train.panel.view.show_error(["a sentence " * 20])
    for widget in (train, segment):
        area = widget.findChild(Scrolling)
        assert area.viewport().width() >= area.widget().minimumSizeHint().width()
        for label in widget.findChildren(type(widget.panel.view.status)):
            assert label.wordWrap() or label.width() >= label.sizeHint().width() or not label.isVisible()
