"""A Labels layer that fills while its run writes the labels file, and becomes editable when the run is over."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Signal

from napari_unetvnet import work
from napari_unetvnet.events import SlabDone
from napari_unetvnet.widgets.layers import add_labels_layer

if TYPE_CHECKING:
    from pathlib import Path

    from napari_unetvnet.events import Event
    from napari_unetvnet.widgets.task import Task

__all__ = ["ResultLayer"]

IN_MEMORY_BYTES = 2**30
AT_ONCE_BYTES = 32 * 2**20
REFRESH_SECONDS = 0.5
_LOADING: set[ResultLayer] = set()


class ResultLayer(QObject):  # type: ignore[misc]
    """Shows the labels of a task that segments.

    Parameters
    ----------
    task : Task
    image : napari Image layer
        Gives the result its place in the world.
    name : str
    metadata : dict
    """

    ready = Signal(object)
    """The finished layer."""
    _loaded = Signal(object)

    def __init__(self, task: Task, image: Any, name: str, metadata: dict[str, Any]) -> None:
        super().__init__(task)
        self.layer: Any = None
        self._task, self._image, self._name, self._metadata = task, image, name, metadata
        self._folder: Path | None = task.folder
        self._next_refresh = 0.0
        self._loaded.connect(self._take)
        task.happened.connect(self._happened)
        task.finished.connect(self._over)
        task.failed.connect(self._over)

    def _happened(self, event: Event) -> None:
        """Add the layer when the first planes are there, then draw it anew now and then."""
        if not isinstance(event, SlabDone) or self._folder is None:
            return
        if self.layer is None:
            data = np.load(self._folder / work.LABELS, mmap_mode="r")
            metadata = {"napari-unetvnet": self._metadata | {"run": str(self._folder)}}
            self.layer = add_labels_layer(self._task.viewer, data, self._image, self._name, metadata)
            self.layer.editable = False  # until all is there
        elif time.monotonic() >= self._next_refresh:
            begun = time.monotonic()
            self.layer.refresh()
            # A large volume in 3D takes long to draw: never spend more than a twentieth of the time on it.
            self._next_refresh = time.monotonic() + max(REFRESH_SECONDS, 20 * (time.monotonic() - begun))

    def _over(self, _: object) -> None:
        """Replace the file by an array that can be corrected by hand."""
        self._task.happened.disconnect(self._happened)
        self._task.finished.disconnect(self._over)
        self._task.failed.disconnect(self._over)
        if self.layer is None or self._folder is None:
            self.setParent(None)
            return
        _LOADING.add(self)
        self.setParent(None)
        if self.layer.data.nbytes <= AT_ONCE_BYTES:
            self._load()
        else:
            threading.Thread(target=self._load, name="napari-unetvnet-load", daemon=True).start()

    def _load(self) -> None:
        """Read the labels: all of them, or what is looked at, if they are large."""
        if self._folder is None:
            return
        large = self.layer.data.nbytes > IN_MEMORY_BYTES
        self._loaded.emit(np.load(self._folder / work.LABELS, mmap_mode="c" if large else None))

    def _take(self, data: Any) -> None:
        _LOADING.discard(self)
        if self.layer in self._task.viewer.layers:  # the user may have removed it
            self.layer.data = data[0] if self.layer.ndim == 2 else data
            self.layer.editable = True
        self.ready.emit(self.layer)
