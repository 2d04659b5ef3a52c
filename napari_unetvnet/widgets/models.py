"""The choice of a model: lists the available models and is updated when another widget trains one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from qtpy.QtCore import QObject, Qt, Signal
from qtpy.QtWidgets import QComboBox, QFileDialog, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_unetvnet.errors import UserError
from napari_unetvnet.model.card import read_card
from napari_unetvnet.model.ranking import rank
from napari_unetvnet.runs.models import list_models
from napari_unetvnet.widgets.auto import AUTO
from napari_unetvnet.widgets.image_facts import layer_facts
from napari_unetvnet.widgets.scroll import WrappedLabel, narrow, wrapped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unetvnet.model.card import ModelCard
    from napari_unetvnet.model.ranking import Fit
    from napari_unetvnet.widgets.pickers import ImagePicker

__all__ = ["MODEL_SIGNALS", "ModelPicker", "StartPicker", "class_words"]

NOTHING = "nothing"
OF_ITSELF = "A model that comes with the program, if its labels agree with yours."
TRAINED_ON_IT = "It was trained on this image."


class _ModelSignals(QObject):  # type: ignore[misc]
    """Signals between widgets."""

    model_saved = Signal(str)
    """Path of a model that was created or improved."""
    model_chosen = Signal(str)
    """Path of a model that all widgets should choose."""


MODEL_SIGNALS = _ModelSignals()


class ModelPicker(QWidget):  # type: ignore[misc]
    """Chooses a trained model, a shipped model or a file, and describes it; those that fit the image come first.

    Parameters
    ----------
    image : ImagePicker, optional
        The image that models are ranked for.
    """

    described = Signal()
    """The list or the choice was updated."""
    SPECIAL: ClassVar[tuple[str, ...]] = ()
    """Entries before the models, which are no models."""
    FITTING_ONLY: ClassVar[bool] = False
    """Whether models that do not fit are left out."""

    def __init__(self, image: ImagePicker | None = None) -> None:
        super().__init__()
        self.box = narrow(QComboBox())
        self.button = QPushButton("File...")
        self.button.setToolTip("Use a model from any .safetensors file")
        self.about = WrappedLabel()
        row = QHBoxLayout()
        row.addWidget(self.box, 1)
        row.addWidget(self.button)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        column.addLayout(row)
        column.addWidget(self.about)
        self.resample = True
        self._image, self._by_hand = image, False
        self._files: dict[str, Path] = {}
        self._paths: list[Path | None] = []
        self._fits: dict[Path, Fit] = {}
        self._connect()
        self.refresh()

    def _connect(self) -> None:
        self.box.currentIndexChanged.connect(self._describe)
        self.box.activated.connect(self._activated)
        self.button.clicked.connect(self._browse)
        MODEL_SIGNALS.model_saved.connect(self._saved)
        if not self.SPECIAL:
            MODEL_SIGNALS.model_chosen.connect(self.choose)
        if self._image is not None:
            for signal in (self._image.box.currentIndexChanged, self._image.list.itemChanged, self._image.more.toggled):
                signal.connect(self._image_changed)

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

    @property
    def fit(self) -> Fit | None:
        """How the chosen model fits the image; None without a readable model."""
        return self._fits.get(self.path) if self.path else None

    def choose(self, path: str | Path) -> None:
        """Choose a model file and add it to the list if necessary."""
        path = Path(path)
        self._by_hand = True
        self._files.setdefault(path.name if self._files.get(path.name, path) == path else str(path), path)
        self.refresh()
        self.box.setCurrentIndex(self._paths.index(path))

    def refresh(self) -> None:
        """Update the list of models; keep the choice if it was made by hand, else choose what fits best."""
        chosen = self.path if self._by_hand else None
        models = list_models()
        models = {name: path for name, path in self._files.items() if path not in models.values()} | models
        facts = None if self._image is None else layer_facts(self._image.layers)
        fits = rank(models, facts, resample=self.resample)
        self._fits = {fit.path: fit for fit in fits}
        shown = [(fit.name, fit.path) for fit in fits if fit.fits or not self.FITTING_ONLY or fit.path == chosen]
        if not self.FITTING_ONLY:
            shown += [(name, path) for name, path in models.items() if path not in self._fits]
        self._show(shown)
        if chosen is not None and chosen in self._paths:
            self.box.setCurrentIndex(self._paths.index(chosen))
        self.box.blockSignals(False)
        self._describe()

    def _show(self, models: Sequence[tuple[str, Path]]) -> None:
        """List the models; signals stay blocked."""
        kept = self.box.currentIndex() if self._by_hand else 0
        self.box.blockSignals(True)
        self.box.clear()
        self._paths = [*(None for _ in self.SPECIAL), *(path for _, path in models)]
        self.box.addItems(list(self.SPECIAL))
        for name, path in models:
            fit = self._fits.get(path)
            self.box.addItem(name if fit is None or fit.fits else f"{name} (does not fit)")
            if fit is not None:
                text = wrapped("\n".join([fit.about, *fit.misfits, *fit.remarks]))
                self.box.setItemData(self.box.count() - 1, text, Qt.ItemDataRole.ToolTipRole)
        self.box.setCurrentIndex(kept if kept < len(self.SPECIAL) else 0)

    def showEvent(self, event: Any) -> None:  # noqa: N802 (Qt's name)
        """Update the list of models whenever the widget becomes visible."""
        self.refresh()
        super().showEvent(event)

    def _saved(self, _path: str) -> None:
        self.refresh()

    def _image_changed(self, _value: Any = None) -> None:
        self.refresh()

    def _activated(self, _index: int) -> None:
        self._by_hand = True

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
            card = read_card(self.path)
        except UserError as problem:
            return str(problem)
        return "\n".join([*self._said(), *filter(None, [card.task]), _about(card)])

    def _said(self) -> list[str]:
        """Say what does not fit the image, or differs from the images of the training."""
        fit = self.fit
        if fit is None:
            return []
        advice = ["Choose another model, or train one."] if fit.misfits else []
        return [*fit.misfits, *advice, *fit.remarks, *([TRAINED_ON_IT] if fit.trained_on_it else [])]


class StartPicker(ModelPicker):
    """Chooses what a training starts from: auto, nothing, or a model that fits the image."""

    SPECIAL = (AUTO, NOTHING)
    FITTING_ONLY = True

    def values(self) -> dict[str, Any]:
        """Read the choice.

        Returns
        -------
        dict
            Empty for auto; ``start_from`` is None for random weights.
        """
        return {} if self.path is None and self.box.currentIndex() == 0 else {"start_from": self.path}

    def _text(self) -> str:
        if self.path is not None:
            return super()._text()
        return "" if self.box.currentIndex() == 1 else OF_ITSELF


def _about(card: ModelCard) -> str:
    """Describe a model in one line."""
    view = (
        f"2.5d with {card.context} plane{'s' if card.context > 1 else ''} each side"
        if card.view == "2.5d"
        else card.view
    )
    width = f" of width {card.option['width']}" if "width" in card.option else ""
    channels = f"{card.channels} channel{'s' if card.channels > 1 else ''}"
    channels += f" ({', '.join(card.channel_names)})" if card.channel_names else ""
    output = "overlapping masks" if card.overlapping else "labels"
    score = card.score or "no validation score"
    return f"{card.network}{width}, view {view}, {channels}, {output} {', '.join(class_words(card))}; {score}"


def class_words(card: ModelCard) -> list[str]:
    """Return the name of each class of a model, or its label value if classes have no names."""
    names = card.class_names if len(card.class_names) == len(card.values) else card.values
    return [str(name) for name in names]
