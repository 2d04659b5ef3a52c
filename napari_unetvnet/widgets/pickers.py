"""Choices among the layers of a viewer and among the models of this machine, which follow what is there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Image, Labels
from qtpy.QtCore import QObject, Qt, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_unetvnet.card import list_models, read_card
from napari_unetvnet.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_unetvnet.card import ModelCard

__all__ = ["NEWS", "ImagePicker", "LabelsPicker", "ModelPicker", "narrow"]

LIST_ROWS = 3


class _News(QObject):  # type: ignore[misc]
    """What one widget tells the others: the path of a model that is new or better than before."""

    model_saved = Signal(str)
    model_chosen = Signal(str)


NEWS = _News()


def narrow(combo: Any) -> Any:
    """Let a combo box be narrower than its longest entry, so that long names do not widen the dock.

    Parameters
    ----------
    combo : QComboBox

    Returns
    -------
    QComboBox
        The same.
    """
    combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    combo.setMinimumContentsLength(6)
    combo.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    return combo


class _LayerWatch:
    """Calls back when layers come, go, move or are renamed."""

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
        """Call back no more; for when the widget is gone."""
        for emitter in self._emitters():
            emitter.disconnect(self._changed)
        for layer in self._named:
            layer.events.name.disconnect(self._changed)
        self._named = []


class _LayerBox(QComboBox):  # type: ignore[misc]
    """One layer of a kind."""

    def __init__(self, viewer: Any, kind: type) -> None:
        super().__init__()
        self._viewer, self._kind = viewer, kind
        self.layers: list[Any] = []
        narrow(self)
        self.refresh()

    @property
    def layer(self) -> Any:
        """The chosen layer, None if there is none."""
        index = self.currentIndex()
        return self.layers[index] if 0 <= index < len(self.layers) else None

    def choose(self, layer: Any) -> None:
        """Choose a layer.

        Parameters
        ----------
        layer : napari layer
        """
        if layer in self.layers:
            self.setCurrentIndex(self.layers.index(layer))

    def refresh(self) -> None:
        """List the layers anew and keep the choice."""
        chosen = self.layer
        self.layers = [layer for layer in self._viewer.layers if isinstance(layer, self._kind)]
        names = [layer.name for layer in self.layers]
        if names == [self.itemText(i) for i in range(self.count())] and (chosen is None or chosen is self.layer):
            return
        self.blockSignals(True)
        self.clear()
        self.addItems(names)
        self.choose(chosen)
        self.blockSignals(False)
        if self.layer is not chosen:
            self.currentIndexChanged.emit(self.currentIndex())


class LabelsPicker(_LayerBox):
    """Chooses a Labels layer.

    Parameters
    ----------
    viewer : napari Viewer or ViewerModel
    """

    def __init__(self, viewer: Any) -> None:
        super().__init__(viewer, Labels)
        self._watch = _LayerWatch(viewer, self.refresh)
        self.destroyed.connect(self._watch.stop)


class ImagePicker(QWidget):  # type: ignore[misc]
    """Chooses an Image layer, and behind a button further ones as its channels.

    Parameters
    ----------
    viewer : napari Viewer or ViewerModel
    """

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self.box = _LayerBox(viewer, Image)
        self.more = QToolButton(text="+")
        self.more.setCheckable(True)
        self.more.setToolTip("Further layers as channels of the same image")
        self.list = QListWidget()
        self.list.setVisible(False)
        self.list.setToolTip("Ticked layers are further channels")
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
    def layers(self) -> list[Any]:
        """The chosen layer and its further channels, empty if there is no image."""
        first = self.box.layer
        return [] if first is None else [first, *self._ticked()]

    def tick(self, layer: Any) -> None:
        """Add a layer as a further channel.

        Parameters
        ----------
        layer : napari Image layer
        """
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
        ticked = self._ticked()
        self._listed = [layer for layer in self.box.layers if layer is not self.box.layer]
        self.list.clear()
        if not self._listed:
            QListWidgetItem("no further image layer", self.list).setFlags(Qt.ItemFlag.NoItemFlags)
        for layer in self._listed:
            item = QListWidgetItem(layer.name, self.list)
            item.setFlags(Qt.ItemFlag.ItemIsUserCheckable | Qt.ItemFlag.ItemIsEnabled)
            item.setCheckState(Qt.CheckState.Checked if layer in ticked else Qt.CheckState.Unchecked)


class ModelPicker(QWidget):  # type: ignore[misc]
    """Chooses a model and says what it is; lists shipped and trained ones, and takes any file."""

    def __init__(self) -> None:
        super().__init__()
        self.box = narrow(QComboBox())
        self.button = QPushButton("File...")
        self.button.setToolTip("Use a model from any .safetensors file")
        self.about = QLabel()
        self.about.setWordWrap(True)
        self.about.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        row = QHBoxLayout()
        row.addWidget(self.box, 1)
        row.addWidget(self.button)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        column.addLayout(row)
        column.addWidget(self.about)
        self._files: dict[str, Path] = {}
        self._paths: list[Path] = []
        self.box.currentIndexChanged.connect(self._describe)
        self.button.clicked.connect(self._browse)
        NEWS.model_saved.connect(self._saved)
        NEWS.model_chosen.connect(self.choose)
        self.refresh()

    @property
    def path(self) -> Path | None:
        """File of the chosen model, None if there is none."""
        index = self.box.currentIndex()
        return self._paths[index] if 0 <= index < len(self._paths) else None

    @property
    def card(self) -> ModelCard | None:
        """What the chosen model says of itself, None if it cannot be read."""
        try:
            return read_card(self.path) if self.path else None
        except UserError:
            return None

    def choose(self, path: str | Path) -> None:
        """Choose a model file, which is added to the list if it is not there.

        Parameters
        ----------
        path : str or Path
        """
        path = Path(path)
        self.refresh()
        if path not in self._paths:
            self._files[path.name if path.name not in self._files else str(path)] = path
            self.refresh()
        self.box.setCurrentIndex(self._paths.index(path))

    def refresh(self) -> None:
        """List the models anew and keep the choice."""
        chosen = self.path
        models = self._files | list_models()
        self._paths = list(models.values())
        self.box.blockSignals(True)
        self.box.clear()
        self.box.addItems(list(models))
        if chosen in self._paths:
            self.box.setCurrentIndex(self._paths.index(chosen))
        self.box.blockSignals(False)
        self._describe()

    def showEvent(self, event: Any) -> None:  # noqa: N802 (Qt's name)
        """List the models anew whenever the widget comes into view.

        Parameters
        ----------
        event : QShowEvent
        """
        self.refresh()
        super().showEvent(event)

    def _saved(self, _path: str) -> None:
        self.refresh()

    def _browse(self) -> None:
        name, _ = QFileDialog.getOpenFileName(self, "Choose a model", "", "Models (*.safetensors)")
        if name:
            self.choose(name)

    def _describe(self, _index: int = 0) -> None:
        if self.path is None:
            self.about.setText("There is no model yet; train one, or choose a file.")
            return
        self.box.setToolTip(str(self.path))
        try:
            self.about.setText(_about(read_card(self.path)))
        except UserError as problem:
            self.about.setText(str(problem))


def _about(card: ModelCard) -> str:
    """Say in a few words what a model is."""
    view = (
        f"2.5d with {card.context} plane{'s' if card.context > 1 else ''} each side"
        if card.view == "2.5d"
        else card.view
    )
    names = dict(zip(card.values, card.class_names, strict=False))
    classes = ", ".join(names.get(value, str(value)) for value in card.values)
    width = f" of width {card.option['width']}" if "width" in card.option else ""
    channels = f"{card.channels} channel{'s' if card.channels > 1 else ''}"
    score = card.scores.get("hold_out_dice")
    told = f"Dice {score:.3f} on its hold-out" if score is not None else "not scored on a hold-out"
    return f"{card.network}{width}, view {view}, {channels}, labels {classes}; {told}"
