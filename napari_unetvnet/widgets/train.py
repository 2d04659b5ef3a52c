"""The widget that trains a model on what is painted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QComboBox, QDoubleSpinBox, QHBoxLayout, QLabel, QPushButton, QSpinBox, QVBoxLayout, QWidget

from napari_unetvnet.errors import UserError
from napari_unetvnet.events import CheckpointSaved, PreviewReady
from napari_unetvnet.networks import NETWORKS
from napari_unetvnet.settings import TrainJob, checked
from napari_unetvnet.widgets import layers
from napari_unetvnet.widgets.form import OptionsForm, SettingsForm, form_layout, wrapped
from napari_unetvnet.widgets.labels_form import LabelRows, Unpainted
from napari_unetvnet.widgets.losses import MATTERING, LossBox, LossOptions
from napari_unetvnet.widgets.models import NEWS
from napari_unetvnet.widgets.overlay import Overlay, voxel_in_view
from napari_unetvnet.widgets.pickers import ImagePicker, LabelsPicker, MaskPicker
from napari_unetvnet.widgets.preview import Preview
from napari_unetvnet.widgets.run_panel import RunPanel
from napari_unetvnet.widgets.scroll import Scrolling, folded, narrow
from napari_unetvnet.widgets.task import unwrapped

if TYPE_CHECKING:
    import threading

    from napari_unetvnet.events import Event, RunFinished
    from napari_unetvnet.widgets.task import Prepare

__all__ = ["TrainWidget"]

WIDTH = 16
"""Channels of the first stage that the form proposes: what a laptop trains in minutes. The papers have 64."""
SHOW_TARGETS = "Show targets"
OF_LABELS = ("label_values", "objects_as", "class_weights")
MAIN = (*OF_LABELS, "view", "context", "device")
LABELS_ADVANCED = ("regions", "lines", "soften", "ignore_value", "head")
TRAINING = (
    "patch",
    "batch",
    "sampling",
    "learning_rate",
    "epoch_steps",
    "seed",
    "hold_out",
    "augment",
    "normalise",
    "precision",
    "level_weights",
    "roi_weight",
)
ADVANCED = (*LABELS_ADVANCED, *TRAINING)


class TrainWidget(QWidget):  # type: ignore[misc]
    """Trains a network on the labels of a layer.

    Parameters
    ----------
    napari_viewer : napari Viewer or ViewerModel
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        viewer = unwrapped(napari_viewer)
        self._viewer, self.overlay = viewer, Overlay(viewer)
        self.image, self.labels = ImagePicker(viewer), LabelsPicker(viewer)
        self.mask = MaskPicker(viewer, "everywhere")
        self.mask.setToolTip(wrapped("A labels layer that says where to learn: nothing is learnt where it is 0."))
        self.network, self.width = narrow(QComboBox()), QSpinBox()
        self.loss = LossBox()
        self.settings = SettingsForm(TrainJob, (*MAIN, *ADVANCED))
        self.budget, self.unpainted = Budget(), Unpainted()
        self.model: Path | None = None
        self.panel = RunPanel("train", viewer, "Train", "Training", curves=True)
        self.resume = QPushButton("Continue")
        self.resume.setToolTip(wrapped("Train the last model on, with the labels and settings as they are now."))
        self.panel.buttons.addWidget(self.resume, 1)
        self.targets, self.preview = QPushButton(SHOW_TARGETS), Preview(viewer)
        self.targets.setToolTip(wrapped("See as layers what the loss will see: classes, softened channels, weights."))
        self._lay_out()
        self.network.addItems(list(NETWORKS))
        self.network.setCurrentText(TrainJob.model_fields["network"].default)
        self._connect()
        self._network_chosen(self.network.currentText())
        self._view_chosen(self.settings.fields["view"].read())
        self._state_changed(self.panel.task.state)

    def _connect(self) -> None:
        self.network.currentTextChanged.connect(self._network_chosen)
        self.settings.fields["view"].widget.changed.connect(self._view_chosen)
        for name in MATTERING:
            if name in self.settings.fields:
                self.settings.fields[name].widget.changed.connect(self._labels_changed)
        self.labels.box.currentIndexChanged.connect(self._labels_changed)
        self.panel.wanted.connect(self.train)
        self.resume.clicked.connect(self.train_on)
        self.targets.clicked.connect(self.show_targets)
        self.preview.finished.connect(self._targets_shown)
        self.preview.failed.connect(self._targets_failed)
        self.panel.state_changed.connect(self._state_changed)
        self.panel.task.happened.connect(self._happened)
        self.panel.finished.connect(self._finished)

    def train(self) -> None:
        """Train a new model."""
        self.panel.attempt(self._start)

    def train_on(self) -> None:
        """Train the last model on."""
        self.panel.attempt(lambda: self._start(self.model))

    def show_targets(self) -> None:
        """Show what the loss will see, as layers."""
        self.panel.view.complain(())
        try:
            taken, made = self._looked_at()
        except UserError as problem:
            self.panel.view.complain(problem.lines)
            return
        self.targets.setEnabled(False)
        self.targets.setText("Computing targets ...")
        self.preview.begin(self.image.layer, taken, made)

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
        values = self.settings.values() | self._chosen() | {"loss": self.loss.currentText()}
        return values | self.budget.values() | self.label_rows.values()

    def _chosen(self) -> dict[str, Any]:
        option = self.options.values()
        if self.width.isEnabled():
            option["width"] = self.width.value()
        return {"network": self.network.currentText(), "option": option}

    def _looked_at(self, start_from: Path | None = None) -> tuple[layers.Snapshot, TrainJob]:
        """Look at layers and settings; everything that can be refused at once is refused here."""
        values = self.values()
        taken = layers.snapshot(self.image.layers, self.labels.layers, mask=self.mask.layer, view=values["view"])
        files = {"image": taken.files.image, "label": taken.files.label, "mask": taken.files.mask or ()}
        place: dict[str, Any] = {"spacing": taken.spacing, "unit": taken.unit}
        place["preview"] = voxel_in_view(self._viewer, self.image.layer, taken.channels[0].shape)
        return taken, checked(TrainJob, values | files | place | {"start_from": start_from})

    def _start(self, start_from: Path | None = None) -> tuple[str, Prepare]:
        taken, made = self._looked_at(start_from)
        self.overlay.begin(self.image.layer)

        def prepare(folder: Path, cancelled: threading.Event) -> TrainJob:
            layers.write(taken, folder, cancelled)
            return made

        return f"{taken.name}-{made.network}", prepare

    def _lay_out(self) -> None:
        self._form = form = form_layout()
        form.addRow("image", self.image)
        form.addRow("labels", self.labels)
        self.settings.add_to(form, OF_LABELS[:2])
        form.addRow("unpainted is", self.unpainted.meaning)
        form.addRow("background is", self.unpainted.background)
        self.settings.add_to(form, OF_LABELS[2:])
        form.addRow("", self.targets)
        form.addRow("network", self.network)
        form.addRow("width", self.width)
        form.addRow("loss", self.loss)
        form.addRow(self.loss.hint)
        self.settings.add_to(form, ("view", "context"))
        form.addRow("train for", self.budget)
        self.settings.add_to(form, ("device",))
        self.advanced, inside = folded("Advanced")
        self._lay_out_advanced(inside)
        self.label_rows = LabelRows(form, self.settings, self.labels, self.unpainted)
        whole = QVBoxLayout(self)
        whole.addWidget(Scrolling(form, self.advanced))
        whole.addWidget(self.panel)
        whole.addStretch(1)

    def _lay_out_advanced(self, inside: QWidget) -> None:
        column = QVBoxLayout(inside)
        column.setContentsMargins(0, 0, 0, 0)
        parts = [form_layout() for _ in range(4)]
        for title, rows in zip(("Labels", "Training", "Network", "Loss"), parts, strict=True):
            column.addWidget(QLabel(f"<b>{title}</b>"))
            column.addLayout(rows)
        self.settings.add_to(parts[0], LABELS_ADVANCED)
        parts[0].addRow("only inside", self.mask)
        self.settings.add_to(parts[1], TRAINING)
        self.options = OptionsForm(NETWORKS, parts[2], without=("width",), changed=self._losses_may_fit)
        self.loss_options = LossOptions(self.loss, parts[3])

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
        self._losses_may_fit()

    def _view_chosen(self, view: str) -> None:
        self.settings.show("context", visible=view == "2.5d")

    def _labels_changed(self, _value: Any = None) -> None:
        self.label_rows.refresh()
        self._losses_may_fit()

    def _losses_may_fit(self) -> None:
        """Grey out the losses that do not fit."""
        self.loss.refresh(self.settings.values(MATTERING) | self._chosen() | self.label_rows.values())

    def _targets_shown(self, sentence: str) -> None:
        self._targets_over()
        if self.panel.task.state == "idle":
            self.panel.view.say(sentence)

    def _targets_failed(self, lines: tuple[str, ...]) -> None:
        self._targets_over()
        self.panel.view.complain(lines)

    def _targets_over(self) -> None:
        self.targets.setEnabled(True)
        self.targets.setText(SHOW_TARGETS)

    def _state_changed(self, state: str) -> None:
        self.resume.setEnabled(state == "idle" and self.model is not None and self.model.is_file())

    def _happened(self, event: Event) -> None:
        if isinstance(event, CheckpointSaved):
            NEWS.model_saved.emit(event.path)
        elif isinstance(event, PreviewReady):
            self.overlay.show(event)

    def _finished(self, event: RunFinished) -> None:
        how = "Done" if event.state == "done" else "Stopped"
        if "model" not in event.results:
            self.panel.view.say(f"{how} before the first step: there is no model.")
            return
        self.model = Path(event.results["model"])
        self.panel.view.say(f"{how} after {event.results['steps']} steps. Model: {self.model}")
        self._state_changed(self.panel.task.state)
        NEWS.model_chosen.emit(str(self.model))


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
