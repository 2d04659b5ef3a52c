"""Augmented patches as layers. The viewer does not load torch: a child process draws and changes them."""

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
from napari_unetvnet.widgets.pickers import OURS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_unetvnet.settings import TrainJob

__all__ = ["Augmented"]

COUNT, GAP = 16, 0.05
_WORKING: set[Augmented] = set()


class Augmented(QObject):  # type: ignore[misc]
    """Shows patches of what is painted as a training would change them, one behind the other along a new axis.

    Parameters
    ----------
    viewer : napari Viewer or ViewerModel
    """

    finished = Signal(str)
    """What is shown, a sentence."""
    failed = Signal(object)
    """Sentences that say why there is nothing to show."""
    _made = Signal(object)

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self._viewer = viewer
        self._image: Any = None
        self._made.connect(self._take)

    @property
    def busy(self) -> bool:
        """Whether patches are being made."""
        return self in _WORKING

    def begin(self, image: Any, taken: layers.Snapshot, job: TrainJob) -> None:
        """Make patches in a child process and show them.

        Parameters
        ----------
        image : napari Image layer
            Beside which they are shown.
        taken : Snapshot
        job : TrainJob
        """
        if self.busy:
            return
        _WORKING.add(self)
        self._image = image
        name = "napari-unetvnet-augmented"
        threading.Thread(target=self._make, args=(taken, job), name=name, daemon=True).start()

    def _make(self, taken: layers.Snapshot, job: TrainJob) -> None:
        """Make them, in the thread, and send what came of it: arrays, or sentences."""
        try:
            with tempfile.TemporaryDirectory() as scratch:
                self._made.emit(_drawn(Path(scratch), taken, job))
        except UserError as problem:
            self._made.emit(problem.lines)
        except Exception as error:  # noqa: BLE001 (whatever it is, the button must come back)
            self._made.emit((f"The patches could not be made: {type(error).__name__}: {error}",))

    def _take(self, result: list[NDArray[Any]] | tuple[str, ...]) -> None:
        _WORKING.discard(self)
        if isinstance(result, tuple):
            self.failed.emit(result)
            return
        active = self._viewer.layers.selection.active
        for layer in [layer for layer in self._viewer.layers if "augmented" in layer.metadata.get(OURS, {})]:
            self._viewer.layers.remove(layer)
        for layer in _layers(self._image, *result):
            self._viewer.add_layer(layer)
        self._viewer.layers.selection.active = active  # so that painting can go on
        self.finished.emit(f"{COUNT} augmented patches; the slider shows each.")


def _drawn(folder: Path, taken: layers.Snapshot, job: TrainJob) -> list[NDArray[Any]]:
    """Write what is painted to a folder, have patches made of it, and read them."""
    layers.write(taken, folder, threading.Event())
    create(folder, job)
    out = folder / "patches.npy"
    command = [sys.executable, "-m", "napari_unetvnet", "augment", "--settings", str(folder / JOB)]
    command += ["--patches", str(out), "--count", str(COUNT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (a list, no shell)
    if done.returncode:
        raise UserError(*(done.stderr.strip().splitlines() or ["The patches could not be made."]))
    return [np.load(out), np.load(labels_beside(out))]


def _layers(image: Any, images: NDArray[np.float32], target: NDArray[Any]) -> list[Any]:
    """Make a layer of each channel and one of the labels, beside the image; a plane has no axis z."""
    planar = images.shape[2] == 1
    options = _place(image, 2 if planar else 3) | {"metadata": {OURS: {"preview": True, "augmented": True}}}
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
    """Give voxels as large as those of the image, to the right of it, behind an axis of patches."""
    corner = np.asarray(image.extent.world, float)
    start = [*corner[0][-axes:-1], corner[1][-1] + GAP * (corner[1][-1] - corner[0][-1])]
    return {
        "scale": (1.0, *image.scale[-axes:]),
        "translate": (0.0, *start),
        "units": ("pixel", *image.units[-axes:]),
        "axis_labels": ("patch", *image.axis_labels[-axes:]),
    }
