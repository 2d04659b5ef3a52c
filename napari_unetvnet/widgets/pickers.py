"""Choices among the layers of a viewer, updated when layers change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.layers import Image, Labels, Shapes
from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QListWidget, QListWidgetItem, QToolButton, QVBoxLayout, QWidget

from napari_unetvnet.images.pairs import same_name
from napari_unetvnet.widgets.scroll import narrow

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["METADATA_KEY", "ImagePicker", "LabelsPicker", "MaskPicker", "is_preview"]

LIST_ROWS = 3
METADATA_KEY = "napari-unetvnet"
"""Key of our entry in the metadata of a layer."""


class _LayerWatch:
    """Calls back when layers are added, removed, reordered or renamed."""

    def __init__(self, viewer: Any, callback: Callable[[], None]) -> None:
        self._viewer, self._callback = viewer, callback
        self._named: list[Any] = []
        for emitter in self._emitters():
            emitter.connect(self._changed)
        self._follow_names()

    def _emitters(self) -> list[Any]:
        events = self._viewer.layers.events
        return [events.inserted, events.removed, events.reordered]

    def _follow_names(self) -> None:
        layers = list(self._viewer.layers)
        for layer in self._named:
            if layer not in layers:
                layer.events.name.disconnect(self._changed)
        for layer in layers:
            if layer not in self._named:
                layer.events.name.connect(self._changed)
        self._named = layers

    def _changed(self, event: Any = None) -> None:
        self._follow_names()
        self._callback()

    def stop(self, *_: Any) -> None:
        """Disconnect all signals; called when the widget is destroyed."""
        for emitter in self._emitters():
            emitter.disconnect(self._changed)
        for layer in self._named:
            layer.events.name.disconnect(self._changed)
        self._named = []


def is_preview(layer: Any) -> bool:
    """Return whether a layer is one of our previews, which are not offered as inputs."""
    return bool(layer.metadata.get(METADATA_KEY, {}).get("preview"))


class _LayerBox(QComboBox):  # type: ignore[misc]
    """Chooses a layer of the given kinds, listed in their order; ``none`` is the text for no layer, if allowed."""

    def __init__(self, viewer: Any, kinds: tuple[type, ...], none: str = "") -> None:
        super().__init__()
        self._viewer, self._kinds, self._none = viewer, kinds, none
        self.layers: list[Any] = []
        narrow(self)
        self.refresh()

    @property
    def layer(self) -> Any:
        """The chosen layer, None if there is none."""
        index = self.currentIndex()
        return self.layers[index] if 0 <= index < len(self.layers) else None

    def choose(self, layer: Any) -> None:
        """Choose a layer."""
        if layer in self.layers:
            self.setCurrentIndex(self.layers.index(layer))

    def refresh(self) -> None:
        """Update the list of layers and keep the choice."""
        chosen = self.layer
        inputs = [layer for layer in self._viewer.layers if not is_preview(layer)]
        layers: list[Any] = [layer for kind in self._kinds for layer in inputs if isinstance(layer, kind)]
        self.layers = [None, *layers] if self._none else layers
        names = ([self._none] if self._none else []) + [str(layer.name) for layer in layers]
        if names == [self.itemText(i) for i in range(self.count())] and (chosen is None or chosen is self.layer):
            return
        self.blockSignals(True)
        self.clear()
        self.addItems(names)
        self.choose(chosen)
        self.blockSignals(False)
        if self.layer is not chosen:
            self.currentIndexChanged.emit(self.currentIndex())


class MaskPicker(_LayerBox):
    """Chooses a Labels layer, or none.

    Parameters
    ----------
    none : str
        Text for no layer.
    """

    def __init__(self, viewer: Any, none: str) -> None:
        super().__init__(viewer, (Labels,), none)
        self._watch = _LayerWatch(viewer, self.refresh)
        self.destroyed.connect(self._watch.stop)


class _MultiLayerPicker(QWidget):  # type: ignore[misc]
    """Chooses a layer, and further ones of its kind in a list that a button opens."""

    def __init__(self, viewer: Any, kinds: tuple[type, ...], further: str, nothing: str) -> None:
        super().__init__()
        self.box = _LayerBox(viewer, kinds)
        self._nothing = nothing
        self.more = QToolButton(text="+")
        self.more.setCheckable(True)
        self.more.setToolTip(f"Add layers as {further}")
        self.list = QListWidget()
        self.list.setVisible(False)
        self.list.setToolTip(f"Checked layers are {further}")
        self.list.setMaximumHeight(LIST_ROWS * 24)
        row = QHBoxLayout()
        row.addWidget(self.box, 1)
        row.addWidget(self.more)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        column.addLayout(row)
        column.addWidget(self.list)
        self.more.toggled.connect(self.list.setVisible)
        self.box.currentIndexChanged.connect(self._refresh_list)
        self._listed: list[Any] = []
        self._refresh_list()
        self._watch = _LayerWatch(viewer, self._refresh)
        self.destroyed.connect(self._watch.stop)

    @property
    def layer(self) -> Any:
        """The chosen layer, None if there is none."""
        return self.box.layer

    @property
    def layers(self) -> list[Any]:
        """The chosen layer and the further ones, empty if there is none."""
        first = self.box.layer
        return [] if first is None else [first, *self._ticked()]

    def tick(self, layer: Any) -> None:
        """Add a layer to the chosen one."""
        self.more.setChecked(True)
        self.list.item(self._listed.index(layer)).setCheckState(Qt.CheckState.Checked)

    def _ticked(self) -> list[Any]:
        if not self.more.isChecked():
            return []
        rows = enumerate(self._listed)
        return [layer for i, layer in rows if self.list.item(i).checkState() == Qt.CheckState.Checked]

    def _refresh(self) -> None:
        self.box.refresh()
        self._refresh_list()

    def _refresh_list(self, _index: int = 0) -> None:
        ticked, first = self._ticked(), self.box.layer
        blocked = QSignalBlocker(self.list)  # listeners ask for the layers, which are not all listed yet
        self._listed = [layer for layer in self.box.layers if layer is not first and type(layer) is type(first)]
        self.list.clear()
        if not self._listed:
            QListWidgetItem(self._nothing, self.list).setFlags(Qt.ItemFlag.NoItemFlags)
        for layer in self._listed:
            item = QListWidgetItem(layer.name, self.list)
            item.setFlags(Qt.ItemFlag.ItemIsUserCheckable | Qt.ItemFlag.ItemIsEnabled)
            item.setCheckState(Qt.CheckState.Checked if layer in ticked else Qt.CheckState.Unchecked)
        blocked.unblock()


class ImagePicker(_MultiLayerPicker):
    """Chooses an Image layer, and further Image layers as its channels."""

    def __init__(self, viewer: Any) -> None:
        super().__init__(viewer, (Image,), "further channels of the same image", "no further image layer")


class LabelsPicker(_MultiLayerPicker):
    """Chooses a Labels layer or a Shapes layer of lines; for overlapping classes, also further masks."""

    def __init__(self, viewer: Any) -> None:
        super().__init__(viewer, (Labels, Shapes), "masks of further classes", "no further labels layer")
        self.allow_further(allowed=False)

    def follow(self, image: Any) -> None:
        """Choose the labels of an image: the only layer whose name is of it, unless that of the chosen one is, too.

        Parameters
        ----------
        image : napari Image layer or None
        """
        if image is None or self.layer is None or same_name(image.name, self.layer.name):
            return
        own = [layer for layer in self.box.layers if same_name(image.name, layer.name)]
        if len(own) == 1:
            self.box.choose(own[0])

    @property
    def drawn(self) -> bool:
        """Whether the labels are lines of a Shapes layer."""
        return isinstance(self.layer, Shapes)

    def allow_further(self, *, allowed: bool) -> None:
        """Show or hide the choice of further layers."""
        self.more.setVisible(allowed)
        self.more.setChecked(allowed)
