"""The widget that trains a model on what is painted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QHBoxLayout,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_unetvnet.events import CheckpointSaved
from napari_unetvnet.losses import LOSSES
from napari_unetvnet.networks import NETWORKS
from napari_unetvnet.settings import TrainJob, checked
from napari_unetvnet.widgets import layers
from napari_unetvnet.widgets.form import OptionsForm, SettingsForm, form_layout, wrapped
from napari_unetvnet.widgets.pickers import NEWS, ImagePicker, LabelsPicker, narrow
from napari_unetvnet.widgets.run_panel import RunPanel
from napari_unetvnet.widgets.scroll import Scrolling, folded
from napari_unetvnet.widgets.task import unwrapped

if TYPE_CHECKING:
    import threading

    from napari_unetvnet.events import Event, RunFinished
    from napari_unetvnet.widgets.task import Prepare

__all__ = ["TrainWidget"]

WIDTH = 16
"""Channels of the first stage that the form proposes: what a laptop trains in minutes. The papers have 64."""
MAIN = ("view", "context", "device")
ADVANCED = (
    "patch",
    "batch",
    "learning_rate",
    "epoch_steps",
    "seed",
    "hold_out",
    "augment",
    "normalise",
    "precision",
    "label_values",
    "head",
)


class TrainWidget(QWidget):  # type: ignore[misc]
    """Trains a network on the labels of a layer.

    Parameters
    ----------
    napari_viewer : napari Viewer or ViewerModel
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        viewer = unwrapped(napari_viewer)
        self.image, self.labels = ImagePicker(viewer), LabelsPicker(viewer)
        self.network, self.width = narrow(QComboBox()), QSpinBox()
        self.loss = LossBox()
        self.settings = SettingsForm(TrainJob, (*MAIN, *ADVANCED))
        self.budget, self.unpainted = Budget(), Unpainted()
        self.model: Path | None = None
        self.panel = RunPanel("train", viewer, "Train", "Training", curves=True)
        self.resume = QPushButton("Continue")
        self.resume.setToolTip(wrapped("Train the last model on, with the labels and settings as they are now."))
        self.panel.buttons.addWidget(self.resume, 1)
        self._lay_out()
        self.network.addItems(list(NETWORKS))
        self.network.setCurrentText(TrainJob.model_fields["network"].default)
        self.network.currentTextChanged.connect(self._network_chosen)
        self.settings.fields["view"].widget.changed.connect(self._view_chosen)
        self.panel.wanted.connect(self.train)
        self.resume.clicked.connect(self.train_on)
        self.panel.state_changed.connect(self._state_changed)
        self.panel.task.happened.connect(self._happened)
        self.panel.finished.connect(self._finished)
        self._network_chosen(self.network.currentText())
        self._view_chosen(self.settings.fields["view"].read())
        self._state_changed(self.panel.task.state)

    def train(self) -> None:
        """Train a new model."""
        self.panel.attempt(self._start)

    def train_on(self) -> None:
        """Train the last model on."""
        self.panel.attempt(lambda: self._start(self.model))

    def values(self) -> dict[str, Any]:
        """Read the form.

        Returns
        -------
        dict
            Plain values for a TrainJob, without its files.

        Raises
        ------
        SettingsProblem
            If a row cannot be read.
        """
        values = self.settings.values()
        option = self.options.values()
        if self.width.isEnabled():
            option["width"] = self.width.value()
        chosen = {"network": self.network.currentText(), "option": option, "loss": self.loss.currentText()}
        return values | chosen | self.budget.values() | self.unpainted.values()

    def _start(self, start_from: Path | None = None) -> tuple[str, Prepare]:
        """Look at layers and settings; everything that can be refused at once is refused here."""
        values = self.values()
        taken = layers.snapshot(self.image.layers, self.labels.layer, view=values["view"])
        files = {"image": taken.files.image, "label": taken.files.label}
        place = {"spacing": taken.spacing, "unit": taken.unit}
        made = checked(TrainJob, values | files | place | {"start_from": start_from})

        def prepare(folder: Path, cancelled: threading.Event) -> TrainJob:
            layers.write(taken, folder, cancelled)
            return made

        return f"{taken.names[0]}-{made.network}", prepare

    def _lay_out(self) -> None:
        form = form_layout()
        form.addRow("image", self.image)
        form.addRow("labels", self.labels)
        form.addRow("network", self.network)
        form.addRow("width", self.width)
        form.addRow("loss", self.loss)
        self.settings.add_to(form, MAIN[:2])
        form.addRow("train for", self.budget)
        form.addRow("unpainted is", self.unpainted.meaning)
        form.addRow("background is", self.unpainted.background)
        self.settings.add_to(form, MAIN[2:])
        self._form = form
        self.advanced, inside = folded("Advanced")
        rows = form_layout(inside)
        self.settings.add_to(rows, ADVANCED)
        self.options = OptionsForm(NETWORKS, rows, without=("width",))
        whole = QVBoxLayout(self)
        whole.addWidget(Scrolling(form, self.advanced))
        whole.addWidget(self.panel)
        whole.addStretch(1)

    def _network_chosen(self, name: str) -> None:
        described = NETWORKS.describe(name)
        self.network.setToolTip(wrapped(described.summary))
        self.options.choose(name)
        has_width = "width" in described.defaults
        self.width.setEnabled(has_width)
        self.width.setRange(1, 1024)
        self.width.setValue(WIDTH)
        help_text = next((option.help for option in described.options if option.name == "width"), "")
        self.width.setToolTip(
            wrapped(
                f"{help_text} {WIDTH} trains in minutes on a laptop; the published network has "
                f"{described.defaults.get('width')}."
            )
        )

    def _view_chosen(self, view: str) -> None:
        row = self.settings.fields["context"].widget.native
        row.setVisible(view == "2.5d")
        self._form.labelForField(row).setVisible(view == "2.5d")

    def _state_changed(self, state: str) -> None:
        self.resume.setEnabled(state == "idle" and self.model is not None and self.model.is_file())

    def _happened(self, event: Event) -> None:
        if isinstance(event, CheckpointSaved):
            NEWS.model_saved.emit(event.path)

    def _finished(self, event: RunFinished) -> None:
        how = "Done" if event.state == "done" else "Stopped"
        if "model" not in event.results:
            self.panel.view.say(f"{how} before the first step: there is no model.")
            return
        self.model = Path(event.results["model"])
        self.panel.view.say(f"{how} after {event.results['steps']} steps. Model: {self.model}")
        self._state_changed(self.panel.task.state)
        NEWS.model_chosen.emit(str(self.model))


class LossBox(QComboBox):  # type: ignore[misc]
    """Chooses a loss, or takes a weighted sum that is typed."""

    def __init__(self) -> None:
        super().__init__()
        narrow(self)
        self.setEditable(True)
        self.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        for index, name in enumerate(LOSSES):
            self.addItem(name)
            self.setItemData(index, wrapped(LOSSES.describe(name).summary), Qt.ItemDataRole.ToolTipRole)
        self.setCurrentText("dice_ce")
        self.setToolTip(wrapped("What is minimised. A weighted sum can be typed, such as dice + 10*bce."))


class Budget(QWidget):  # type: ignore[misc]
    """How long to train: minutes, epochs or steps."""

    STARTS = {"minutes": 2.0, "epochs": 20.0, "steps": 500.0}  # noqa: RUF012 (never changed)

    def __init__(self) -> None:
        super().__init__()
        self.amount, self.unit = QDoubleSpinBox(), QComboBox()
        self.unit.addItems(list(self.STARTS))
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.amount, 1)
        layout.addWidget(self.unit)
        self.setToolTip(wrapped("Time budget, or a number of epochs or steps. Stop ends earlier and keeps the best."))
        self.unit.currentTextChanged.connect(self._unit_chosen)
        self._unit_chosen(self.unit.currentText())

    def choose(self, amount: float, unit: str) -> None:
        """Set the budget.

        Parameters
        ----------
        amount : float
        unit : {"minutes", "epochs", "steps"}
        """
        self.unit.setCurrentText(unit)
        self.amount.setValue(amount)

    def values(self) -> dict[str, Any]:
        """Read the budget.

        Returns
        -------
        dict
            One of minutes, epochs, steps.
        """
        unit, amount = self.unit.currentText(), self.amount.value()
        return {unit: amount if unit == "minutes" else int(amount)}

    def _unit_chosen(self, unit: str) -> None:
        whole = unit != "minutes"
        self.amount.setDecimals(0 if whole else 1)
        self.amount.setRange(1 if whole else 0.1, 1e6)
        self.amount.setValue(self.STARTS[unit])


class Unpainted:
    """What unpainted voxels mean, and which painted value means background."""

    MEANINGS = {"ignored": "ignore", "background": "background"}  # noqa: RUF012 (never changed)

    def __init__(self) -> None:
        self.meaning, self.background = narrow(QComboBox()), QSpinBox()
        self.meaning.addItems(list(self.MEANINGS))
        self.meaning.setToolTip(
            wrapped(
                "Ignored: paint strokes of every class, the background among them; nothing is learnt from the rest. "
                "Background: everything that is not painted is background, so paint all of what you look for."
            )
        )
        self.background.setRange(0, 255)
        self.background.setValue(1)
        self.background.setPrefix("label ")
        self.background.setSpecialValueText("no label")
        self.background.setToolTip(
            wrapped("The painted value that means background; results carry 0 there. Paint the others with 2, 3, ...")
        )
        self.meaning.currentTextChanged.connect(self._meaning_chosen)

    def values(self) -> dict[str, Any]:
        """Read both.

        Returns
        -------
        dict
        """
        meaning = self.MEANINGS[self.meaning.currentText()]
        return {"unlabelled": meaning, "background": (self.background.value() or None) if meaning == "ignore" else None}

    def _meaning_chosen(self, meaning: str) -> None:
        self.background.setEnabled(meaning == "ignored")
