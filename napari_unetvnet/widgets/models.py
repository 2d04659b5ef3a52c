"""The choice of a model: lists the available models and is updated when another widget trains one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Qt, Signal
from qtpy.QtWidgets import QComboBox, QFileDialog, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_unetvnet.errors import UserError
from napari_unetvnet.model.card import read_card
from napari_unetvnet.runs.models import list_models
from napari_unetvnet.widgets.scroll import narrow

if TYPE_CHECKING:
    from napari_unetvnet.model.card import ModelCard

__all__ = ["MODEL_SIGNALS", "ModelPicker", "class_words"]


class _ModelSignals(QObject):  # type: ignore[misc]
    """Signals between widgets."""

    model_saved = Signal(str)
    """Path of a model that was created or improved."""
    model_chosen = Signal(str)
    """Path of a model that all widgets should choose."""


MODEL_SIGNALS = _ModelSignals()


class ModelPicker(QWidget):  # type: ignore[misc]
    """Chooses a trained model, a shipped model or a file, and describes it."""

    described = Signal()
    """The list or the choice was updated."""

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
        MODEL_SIGNALS.model_saved.connect(self._saved)
        MODEL_SIGNALS.model_chosen.connect(self.choose)
        self.refresh()

    @property
    def path(self) -> Path | None:
        """Path of the chosen model, None if there is none."""
        index = self.box.currentIndex()
        return self._paths[index] if 0 <= index < len(self._paths) else None

    @property
    def card(self) -> ModelCard | None:
        """Card of the chosen model, None if it cannot be read."""
        try:
            return read_card(self.path) if self.path else None
        except UserError:
            return None

    def choose(self, path: str | Path) -> None:
        """Choose a model file and add it to the list if necessary."""
        path = Path(path)
        self.refresh()
        if path not in self._paths:
            self._files[path.name if path.name not in self._files else str(path)] = path
            self.refresh()
        self.box.setCurrentIndex(self._paths.index(path))

    def refresh(self) -> None:
        """Update the list of models and keep the choice."""
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
        """Update the list of models whenever the widget becomes visible."""
        self.refresh()
        super().showEvent(event)

    def _saved(self, _path: str) -> None:
        self.refresh()

    def _browse(self) -> None:
        name, _ = QFileDialog.getOpenFileName(self, "Choose a model", "", "Models (*.safetensors)")
        if name:
            self.choose(name)

    def _describe(self, _index: int = 0) -> None:
        self.box.setToolTip(str(self.path or ""))
        self.about.setText(self._text())
        self.described.emit()

    def _text(self) -> str:
        if self.path is None:
            return "There is no model yet; train one, or choose a file."
        try:
            return _about(read_card(self.path))
        except UserError as problem:
            return str(problem)


def _about(card: ModelCard) -> str:
    """Describe a model in one line."""
    view = (
        f"2.5d with {card.context} plane{'s' if card.context > 1 else ''} each side"
        if card.view == "2.5d"
        else card.view
    )
    width = f" of width {card.option['width']}" if "width" in card.option else ""
    channels = f"{card.channels} channel{'s' if card.channels > 1 else ''}"
    output = "overlapping masks" if card.overlapping else "labels"
    score = card.score or "no validation score"
    return f"{card.network}{width}, view {view}, {channels}, {output} {', '.join(class_words(card))}; {score}"


def class_words(card: ModelCard) -> list[str]:
    """Return the name of each class of a model, or its label value if classes have no names."""
    names = card.class_names if len(card.class_names) == len(card.values) else card.values
    return [str(name) for name in names]
