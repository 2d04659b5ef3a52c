"""Take the screenshots of the docs: open a sample, train on its scribbles, segment it.

Needs a display; ``make screenshots`` provides a virtual one. Takes about a minute.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGES = Path(__file__).parent.parent / "docs" / "images"
SIZE = (1400, 900)
PLUGIN = "napari-unetvnet"


def main() -> None:
    """Take all screenshots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=IMAGES, help="Folder for the screenshots.")
    parser.add_argument("--minutes", type=float, default=0.5, help="Training time.")
    parsed = parser.parse_args()
    parsed.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as runs:
        os.environ["NAPARI_UNETVNET_RUNS"] = runs
        take_screenshots(parsed.output, parsed.minutes)


def take_screenshots(output: Path, minutes: float) -> None:
    """Open a viewer and operate the widgets.

    Parameters
    ----------
    output : Path
    minutes : float
    """
    import napari

    viewer = napari.Viewer(title="napari")
    viewer.window.resize(*SIZE)
    viewer.open_sample(PLUGIN, "nuclei_with_scribbles")
    train_dock, train = viewer.window.add_plugin_dock_widget(PLUGIN, "Train")
    segment_dock, segment = viewer.window.add_plugin_dock_widget(PLUGIN, "Segment", tabify=True)
    settle(0.5)
    train_dock.raise_()
    train.budget.choose(minutes, "minutes")
    settle(0.5)
    train.panel.button.click()
    settle(600, until=lambda: train.panel.view.bar.value() > 700)
    viewer.screenshot(str(output / "train.png"), canvas_only=False, flash=False)
    settle(600, until=lambda: train.panel.task.state == "idle")
    segment_dock.raise_()
    settle(0.5)
    segment.panel.button.click()
    settle(600, until=lambda: segment.panel.task.state == "idle" and segment.result.layer is not None)
    for layer in viewer.layers:
        layer.visible = layer in {viewer.layers["nuclei"], segment.result.layer}
    segment.result.layer.opacity = 0.5
    settle(0.5)
    viewer.screenshot(str(output / "segment.png"), canvas_only=False, flash=False)
    viewer.close()


def settle(seconds: float, until: Callable[[], Any] = lambda: False) -> None:
    """Process events of the viewer.

    Parameters
    ----------
    seconds : float
        Longest time.
    until : callable
        Condition to stop earlier.

    Raises
    ------
    TimeoutError
        If the condition is still false after a minute or more.
    """
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        QApplication.processEvents()
        if until():
            return
        time.sleep(0.01)
    if seconds > 60:
        msg = f"the condition is still false after {seconds:g} s"
        raise TimeoutError(msg)


if __name__ == "__main__":
    main()
