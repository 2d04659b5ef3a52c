"""Labels that fill while their run writes the labels file, and become editable when the run is over.

One layer, or one for each class where classes may overlap.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas
from qtpy.QtCore import QObject, Signal

from napari_unetvnet.events import SlabDone
from napari_unetvnet.runs.folder import OBJECTS
from napari_unetvnet.runs.results import labels_in, open_labels
from napari_unetvnet.widgets.layers import add_labels_layer
from napari_unetvnet.widgets.pickers import OURS

if TYPE_CHECKING:
    from collections.abc import Sequence
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
    classes : sequence of str
        Names of classes that may overlap.
    """

    ready = Signal(object)
    """The finished layer, the first of several."""
    _loaded = Signal(object)

    def __init__(
        self, task: Task, image: Any, name: str, metadata: dict[str, Any], classes: Sequence[str] = ()
    ) -> None:
        super().__init__(task)
        self.layers: list[Any] = []
        self._task, self._image, self._metadata = task, image, metadata
        self._names = [f"{name}: {word}" for word in classes] or [name]
        self._folder: Path | None = task.folder
        self._next_refresh = 0.0
        self._loaded.connect(self._take)
        task.happened.connect(self._happened)
        task.finished.connect(self._over)
        task.failed.connect(self._over)

    @property
    def layer(self) -> Any:
        """The layer, the first of several; None before the first planes are there."""
        return self.layers[0] if self.layers else None

    def _happened(self, event: Event) -> None:
        """Add the layers when the first planes are there, then draw them anew now and then."""
        if not isinstance(event, SlabDone) or not event.stop or self._folder is None:
            return
        if not self.layers:
            metadata = {OURS: self._metadata | {"run": str(self._folder)}}
            data_of = _masks(open_labels(labels_in(self._folder)))
            for name, data in zip(self._names, data_of, strict=True):
                layer = add_labels_layer(self._task.viewer, data, self._image, name, metadata)
                layer.editable = False  # until all is there
                self.layers.append(layer)
        elif time.monotonic() >= self._next_refresh:
            begun = time.monotonic()
            for layer in self.layers:
                layer.refresh()
            # A large volume in 3D takes long to draw: never spend more than a twentieth of the time on it.
            self._next_refresh = time.monotonic() + max(REFRESH_SECONDS, 20 * (time.monotonic() - begun))

    def _over(self, _: object) -> None:
        """Replace the file by arrays that can be corrected by hand."""
        self._task.happened.disconnect(self._happened)
        self._task.finished.disconnect(self._over)
        self._task.failed.disconnect(self._over)
        if not self.layers or self._folder is None:
            self.setParent(None)
            return
        _LOADING.add(self)
        self.setParent(None)
        if self._bytes <= AT_ONCE_BYTES:
            self._load()
        else:
            threading.Thread(target=self._load, name="napari-unetvnet-load", daemon=True).start()

    @property
    def _bytes(self) -> int:
        return sum(int(layer.data.nbytes) for layer in self.layers)

    def _load(self) -> None:
        """Read the labels: all of them, or what is looked at, if they are large."""
        if self._folder is None:
            return
        found = open_labels(labels_in(self._folder), writable=True)
        self._loaded.emit(found if self._bytes > IN_MEMORY_BYTES else np.array(found))

    def _take(self, data: Any) -> None:
        _LOADING.discard(self)
        for layer, mask in zip(self.layers, _masks(data), strict=True):
            if layer in self._task.viewer.layers:  # the user may have removed it
                layer.data = mask[0] if layer.ndim == 2 else mask
                layer.editable = isinstance(mask, np.ndarray)  # a large zarr folder is only looked at
                if self._folder is not None and (self._folder / OBJECTS).exists():
                    layer.features = pandas.read_csv(self._folder / OBJECTS)
        self.ready.emit(self.layer)


def _masks(labels: Any) -> list[Any]:
    """Give the label images (Z, Y, X) of a result."""
    return list(labels) if labels.ndim == 4 else [labels]
