"""Show augmented patches as layers. The viewer does not import torch: a child process draws and augments them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels
from qtpy.QtCore import QObject, Signal

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.errors import UserError
from napari_unetvnet.runs import JOB, create
from napari_unetvnet.runs.augment import labels_beside
from napari_unetvnet.widgets import layers
from napari_unetvnet.widgets.pickers import METADATA_KEY

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_unetvnet.settings import TrainJob

__all__ = ["Augmented"]

COUNT, GAP = 16, 0.05
_BUSY: set[Augmented] = set()


class Augmented(QObject):  # type: ignore[misc]
    """Shows augmented patches of the painted layers, stacked along a new axis."""

    finished = Signal(str)
    """Status text."""
    failed = Signal(object)
    """Error messages, tuple of str."""
    _drawn = Signal(object)

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self._viewer = viewer
        self._image: Any = None
        self._drawn.connect(self._show)

    @property
    def busy(self) -> bool:
        """Whether patches are being drawn."""
        return self in _BUSY

    def start(self, image: Any, inputs: layers.Snapshot, job: TrainJob) -> None:
        """Draw patches in a child process and show them.

        Parameters
        ----------
        image : napari Image layer
            The patches are shown beside it.
        """
        if self.busy:
            return
        _BUSY.add(self)
        self._image = image
        name = "napari-unetvnet-augmented"
        threading.Thread(target=self._draw, args=(inputs, job), name=name, daemon=True).start()

    def _draw(self, inputs: layers.Snapshot, job: TrainJob) -> None:
        """Draw patches in the worker thread and emit the arrays, or error messages."""
        try:
            with tempfile.TemporaryDirectory() as scratch:
                self._drawn.emit(_draw_patches(Path(scratch), inputs, job))
        except UserError as problem:
            self._drawn.emit(problem.lines)
        except Exception as error:  # noqa: BLE001 (on any error the button must be enabled again)
            self._drawn.emit((f"The patches could not be drawn: {type(error).__name__}: {error}",))

    def _show(self, result: list[NDArray[Any]] | tuple[str, ...]) -> None:
        _BUSY.discard(self)
        if isinstance(result, tuple):
            self.failed.emit(result)
            return
        active = self._viewer.layers.selection.active
        for layer in [layer for layer in self._viewer.layers if "augmented" in layer.metadata.get(METADATA_KEY, {})]:
            self._viewer.layers.remove(layer)
        for layer in _layers(self._image, *result):
            self._viewer.add_layer(layer)
        self._viewer.layers.selection.active = active  # so that the user can continue painting
        self.finished.emit(f"{COUNT} augmented patches; move the slider to see each.")


def _draw_patches(folder: Path, inputs: layers.Snapshot, job: TrainJob) -> list[NDArray[Any]]:
    """Write the layers to a folder, draw patches in a child process, and read them."""
    layers.write(inputs, folder, threading.Event())
    create(folder, job)
    out = folder / "patches.npy"
    command = [sys.executable, "-m", "napari_unetvnet", "augment", "--settings", str(folder / JOB)]
    command += ["--patches", str(out), "--count", str(COUNT)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (a list, no shell)
    if process.returncode:
        raise UserError(*(process.stderr.strip().splitlines() or ["The patches could not be drawn."]))
    return [np.load(out), np.load(labels_beside(out))]


def _layers(image: Any, images: NDArray[np.float32], target: NDArray[Any]) -> list[Any]:
    """Create a layer for each channel and one for the labels, beside the image; 2D patches have no z axis."""
    planar = images.shape[2] == 1
    options = _place(image, 2 if planar else 3) | {"metadata": {METADATA_KEY: {"preview": True, "augmented": True}}}
    added = []
    for c in range(images.shape[1]):
        channel = images[:, c, 0] if planar else images[:, c]
        name = f"augmented {c}" if images.shape[1] > 1 else "augmented"
        added.append(Image(channel, name=name, colormap="gray", blending="additive", **options))
    if target.dtype == np.uint8 and target.ndim == 4:
        shown = np.where(target == IGNORE, 0, target)
        added.append(Labels(shown[:, 0] if planar else shown, name="augmented labels", opacity=0.4, **options))
    return added


def _place(image: Any, axes: int) -> dict[str, Any]:
    """Return the transform that puts patches to the right of the image, with its voxel size and a leading axis."""
    corner = np.asarray(image.extent.world, float)
    start = [*corner[0][-axes:-1], corner[1][-1] + GAP * (corner[1][-1] - corner[0][-1])]
    return {
        "scale": (1.0, *image.scale[-axes:]),
        "translate": (0.0, *start),
        "units": ("pixel", *image.units[-axes:]),
        "axis_labels": ("patch", *image.axis_labels[-axes:]),
    }
