"""Show the labels of a run while it writes them; they become editable when the run has ended.

There is one layer, or one for each class if classes overlap; of a model of lines also a Shapes layer of them.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas
from napari.layers import Shapes
from napari.utils.colormaps import label_colormap
from napari.utils.notifications import show_warning
from qtpy.QtCore import QObject, Signal

from napari_unetvnet.errors import UserError, printable
from napari_unetvnet.events import SlabDone
from napari_unetvnet.postprocess import paths_of
from napari_unetvnet.runs.folder import OBJECTS
from napari_unetvnet.runs.results import labels_in, open_labels
from napari_unetvnet.widgets.layers import add_labels_layer, is_time_series, on_grid, place_of
from napari_unetvnet.widgets.pickers import METADATA_KEY

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_unetvnet.events import Event
    from napari_unetvnet.postprocess import LinePath
    from napari_unetvnet.widgets.task import Task

__all__ = ["ResultLayer"]

IN_MEMORY_BYTES = 2**30
AT_ONCE_BYTES = 32 * 2**20
REFRESH_SECONDS = 0.5
_LOADING: set[ResultLayer] = set()


class ResultLayer(QObject):  # type: ignore[misc]
    """Shows the labels of a segmentation task.

    Parameters
    ----------
    image : napari Image layer
        Defines the grid of the result.
    classes : sequence of str
        Names of overlapping classes.
    lines : sequence of int
        Label values of lines, which are also shown as shapes.
    """

    ready = Signal(object)
    """The finished layer, or the first one of overlapping classes."""
    _loaded = Signal(object)

    def __init__(
        self,
        task: Task,
        image: Any,
        name: str,
        metadata: dict[str, Any],
        classes: Sequence[str] = (),
        lines: Sequence[int] = (),
    ) -> None:
        super().__init__(task)
        self.layers: list[Any] = []
        self._task, self._image, self._metadata = task, image, metadata
        self._names = [f"{name}: {word}" for word in classes] or [name]
        self._folder: Path | None = task.folder
        self._lines = tuple(lines)
        self.shapes: Any = None
        self._next_refresh = 0.0
        self._planes, self._shown = (0, 0), np.zeros(0)
        self._loaded.connect(self._replace_data)
        task.event_received.connect(self._on_event)
        task.finished.connect(self._finish)
        task.failed.connect(self._finish)

    @property
    def folder(self) -> Path | None:
        """Folder of the run."""
        return self._folder

    @property
    def layer(self) -> Any:
        """The layer, or the first one of overlapping classes; None before the first planes are finished."""
        return self.layers[0] if self.layers else None

    def _on_event(self, event: Event) -> None:
        """Add the layers when the first planes are finished, then refresh them periodically."""
        if not isinstance(event, SlabDone) or not event.stop or self._folder is None:
            return
        self._planes = event.stop, event.depth
        if not self.layers:
            metadata = {METADATA_KEY: self._metadata | {"run": str(self._folder)}}
            self._shown = open_labels(labels_in(self._folder))
            data_of = self._masks(self._shown)
            for name, data in zip(self._names, data_of, strict=True):
                layer = add_labels_layer(self._task.viewer, data, self._image, name, metadata)
                self._name_labels(layer)
                layer.editable = False  # until the run has ended
                self.layers.append(layer)
        elif time.monotonic() >= self._next_refresh:
            start = time.monotonic()
            for layer in self.layers:
                layer.refresh()
            # A large volume in 3D takes long to draw: spend at most a twentieth of the time on it.
            self._next_refresh = time.monotonic() + max(REFRESH_SECONDS, 20 * (time.monotonic() - start))

    def _masks(self, labels: Any) -> list[Any]:
        """Return the label images of a result: the labels, or the mask of each overlapping class."""
        axes = 3 + is_time_series(self._image)
        if labels.ndim == axes:
            return [labels]
        masks = range(labels.shape[axes - 3])
        return [labels[:, k] if axes > 3 else labels[k] for k in masks]

    def _name_labels(self, layer: Any) -> None:
        """Give labels the names of their classes, in the table in which napari looks them up by the column index."""
        names = self._class_names
        if names and len(self._names) == 1:
            layer.features = pandas.DataFrame({"index": list(names), "name": list(names.values())})

    @property
    def _class_names(self) -> dict[int, str]:
        """Names of classes by label value."""
        return {int(value): name for value, name in self._metadata.get("class_names", {}).items()}

    def _finish(self, how: object) -> None:
        """Replace the file by arrays that the user can edit; what is not a whole result says so by its name."""
        self._task.event_received.disconnect(self._on_event)
        self._task.finished.disconnect(self._finish)
        self._task.failed.disconnect(self._finish)
        if not self.layers or self._folder is None:
            self.setParent(None)
            return
        if isinstance(how, tuple) or getattr(how, "state", "done") != "done":
            self._name_unfinished()
        _LOADING.add(self)
        self.setParent(None)
        if self._bytes <= AT_ONCE_BYTES and not self._lines:
            self._load()
        else:
            threading.Thread(target=self._load, name="napari-unetvnet-load", daemon=True).start()

    def _name_unfinished(self) -> None:
        """Say in the name, under which a layer is also saved, and in its metadata how far the run came."""
        text = f"unfinished: {self._planes[0]} of {self._planes[1]} planes"
        for layer in self.layers:
            layer.name = f"{layer.name} ({text})"
            layer.metadata[METADATA_KEY] = layer.metadata[METADATA_KEY] | {"unfinished": text}

    @property
    def _bytes(self) -> int:
        return sum(int(layer.data.nbytes) for layer in self.layers)

    def _load(self) -> None:
        """Read the labels into memory, or keep them memory-mapped if they are large."""
        if self._folder is None:
            return
        try:
            labels = open_labels(labels_in(self._folder), writable=True)
        except (OSError, ValueError, UserError):  # the folder was removed; what is shown is all that is left
            data = np.array(self._shown)
        else:
            data = labels if self._bytes > IN_MEMORY_BYTES else np.array(labels)
        self._loaded.emit((data, paths_of(np.asarray(data), self._lines) if self._lines else []))

    def _objects(self) -> pandas.DataFrame | None:
        """Read the table of objects with the names of their classes; None without one."""
        if self._folder is None or not (path := self._folder / OBJECTS).exists():
            return None
        try:
            table = pandas.read_csv(path)
            if names := {1: "object"} if self._metadata.get("objects") else self._class_names:
                table["name"] = table["class"].map(names)
        except (OSError, ValueError, KeyError) as error:
            show_warning(printable(f"{path} cannot be read ({error}), so the labels have no table of objects."))
            return None
        return table

    def _replace_data(self, loaded: tuple[Any, list[LinePath]]) -> None:
        _LOADING.discard(self)
        data, paths = loaded
        for layer, mask in zip(self.layers, self._masks(data), strict=True):
            if layer in self._task.viewer.layers:  # the user may have removed it
                layer.data = on_grid(mask, self._image)
                layer.editable = isinstance(mask, np.ndarray)  # a large zarr folder is read-only
                if (table := self._objects()) is not None:
                    layer.features = table
        if paths:
            self.shapes = _add_lines(self._task.viewer, paths, self._image, f"{self._names[0]}: lines")
        self.ready.emit(self.layer)


def _add_lines(viewer: Any, paths: Sequence[LinePath], like: Any, name: str) -> Any:
    """Add lines as shapes on the grid of their image, in the colours of their labels.

    Parameters
    ----------
    paths : sequence of LinePath
        At least one; the values become the feature "label".
    like : napari Image layer
        Scale, translation, rotation, shear, affine, units and axis labels are copied from it.

    Returns
    -------
    napari Shapes layer
    """
    values = [path.value for path in paths]
    layer = Shapes(
        [path.vertices[:, -like.ndim :] for path in paths],
        shape_type="path",
        edge_color=[label_colormap().map(value) for value in values],
        edge_width=1,
        name=name,
        features={"label": values},
        **place_of(like),
    )
    viewer.add_layer(layer)
    return layer
