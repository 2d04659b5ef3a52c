"""The widget that trains a model on painted labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_unetvnet.errors import UserError
from napari_unetvnet.events import CheckpointSaved, Notice, PreviewReady, SplitMade
from napari_unetvnet.images.channels import distinct_names
from napari_unetvnet.runs.folder import MODEL, PLAN
from napari_unetvnet.runs.models import earlier_events
from napari_unetvnet.settings import TrainJob, checked
from napari_unetvnet.widgets import layers
from napari_unetvnet.widgets.augmented import Augmented
from napari_unetvnet.widgets.auto import planned_in, show_planned
from napari_unetvnet.widgets.budget import Budget
from napari_unetvnet.widgets.busy_button import BusyButton
from napari_unetvnet.widgets.class_names import ClassNameTable
from napari_unetvnet.widgets.form import SettingsForm, form_layout, show_row
from napari_unetvnet.widgets.labels_form import LabelRows, Unpainted
from napari_unetvnet.widgets.layer_axes import FIRST_AXIS, name_first_axis
from napari_unetvnet.widgets.layer_questions import layer_question
from napari_unetvnet.widgets.losses import LOSS_RELEVANT, LossBox, LossOptions
from napari_unetvnet.widgets.model_inputs import layer_names
from napari_unetvnet.widgets.models import MODEL_SIGNALS, StartPicker
from napari_unetvnet.widgets.network import NetworkBox
from napari_unetvnet.widgets.overlay import Overlay, voxel_in_view
from napari_unetvnet.widgets.pickers import ImagePicker, LabelsPicker, MaskPicker
from napari_unetvnet.widgets.preview import Preview
from napari_unetvnet.widgets.question import Asking, question_about
from napari_unetvnet.widgets.run_panel import RunPanel
from napari_unetvnet.widgets.scroll import Scrolling, folded, wrapped
from napari_unetvnet.widgets.split import SplitLayer
from napari_unetvnet.widgets.task import unwrapped

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

    from napari_unetvnet.data.meaning import Answer, Question
    from napari_unetvnet.events import Event, RunFinished
    from napari_unetvnet.widgets.auto import Planned
    from napari_unetvnet.widgets.task import Prepare

__all__ = ["TrainWidget"]

PLANNED = "Planned: "
LOSS_ROWS = tuple(name for name in LOSS_RELEVANT if name != "class_names")
OF_LABELS = ("label_values", "objects_as", "class_weights")
MAIN = (*OF_LABELS, "view", "context", "device")
LABELS_ADVANCED = ("time", "regions", "lines", "boundary_width", "label_blur", "ignore_value", "head")
TRAINING = (
    "patch",
    "batch",
    "sampling",
    "target_spacing",
    "optimizer",
    "learning_rate",
    "lr_schedule",
    "ema_decay",
    "patience",
    "steps_per_epoch",
    "seed",
    "hold_out",
    "final_fit",
    "distillation",
    "augment",
    "channel_dropout",
    "mirror_axes",
    "normalise",
    "normalise_in",
    "normalise_mean",
    "normalise_std",
    "normalise_window",
    "precision",
    "deep_supervision_weights",
    "roi_weight",
)
ADVANCED = (*LABELS_ADVANCED, *TRAINING)


class TrainWidget(QWidget):  # type: ignore[misc]
    """Trains a network on the labels of a layer."""

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        viewer = unwrapped(napari_viewer)
        self._viewer, self.overlay, self.split = viewer, Overlay(viewer), SplitLayer(viewer)
        self.image, self.labels = ImagePicker(viewer), LabelsPicker(viewer)
        self.mask, self.start = MaskPicker(viewer, "everywhere"), StartPicker(self.image)
        self.mask.setToolTip(wrapped("A labels layer as mask: voxels where it is 0 are ignored in training."))
        self._sections = {title: form_layout() for title in ("Labels", "Training", "Network", "Loss")}
        self.network, self.loss = NetworkBox(self._sections["Network"]), LossBox()
        self.settings = SettingsForm(TrainJob, (*MAIN, *ADVANCED))
        self.budget, self.unpainted, self.class_names = Budget(), Unpainted(), ClassNameTable(self.labels)
        self.model: Path | None = None
        self.panel = RunPanel("train", viewer, "Train", "Training", curves=True)
        self.resume = QPushButton("Continue")
        self.resume.setToolTip(wrapped("Continue training the last model with the current labels and settings."))
        self.panel.buttons.addWidget(self.resume, 1)
        self.asking, self._label_checks = Asking(), "refuse"
        self._question: Question | None = None
        self._asked_for: Callable[[], object] = self.train
        self.preview, self.augmented = Preview(viewer), Augmented(viewer)
        text = "Show the training targets as layers: classes, blurred labels, weights."
        self.targets_button = BusyButton("Targets", "Computing ...", text, self.preview)
        text = "Show augmented patches as layers: rotated, scaled, blurred or brightened as in training."
        self.augmented_button = BusyButton("Augmented", "Drawing ...", text, self.augmented)
        self._lay_out()
        self._connect()
        self._refresh_losses()
        self._show_titles()
        self._view_chosen()
        self._state_changed(self.panel.task.state)

    def _connect(self) -> None:
        self.network.changed.connect(self._refresh_losses)
        self.network.changed.connect(self._show_titles)
        self.loss.currentTextChanged.connect(self._show_titles)
        self.settings.fields["view"].widget.changed.connect(self._view_chosen)
        for name in LOSS_ROWS:
            if name in self.settings.fields:
                self.settings.fields[name].widget.changed.connect(self._labels_changed)
        self.labels.box.currentIndexChanged.connect(self._labels_changed)
        self.image.box.currentIndexChanged.connect(lambda _: self.labels.follow(self.image.layer))
        self.labels.list.itemChanged.connect(lambda _: self.class_names.refresh())
        self.class_names.changed.connect(self._refresh_losses)
        for picker in (self.image, self.labels):
            picker.box.currentIndexChanged.connect(lambda _: self._show_planned())
        self.panel.start_requested.connect(self.train)
        self.resume.clicked.connect(self.continue_training)
        self.targets_button.clicked.connect(self.show_targets)
        self.augmented_button.clicked.connect(self.show_augmented)
        for worker in (self.preview, self.augmented):
            worker.finished.connect(self._shown)
            worker.failed.connect(self.panel.view.show_error)
        self.panel.state_changed.connect(self._state_changed)
        self.panel.task.event_received.connect(self._on_event)
        self.panel.finished.connect(self._finished)
        self.panel.failed.connect(self._failed)
        self.asking.answered.connect(self._answered)

    def train(self) -> None:
        """Train a new model."""
        self._asked_for = self.train
        self.panel.attempt(self._start)

    def continue_training(self) -> None:
        """Continue training the last model."""
        model, self._asked_for = self.model, self.continue_training
        if model is not None and self.panel.attempt(lambda: self._start(model)):
            self.panel.view.show_earlier(earlier_events(model))

    def show_targets(self) -> None:
        """Show the training targets as layers."""
        self._asked_for = self.show_targets
        self._start_worker(self.targets_button, self.preview.start)

    def show_augmented(self) -> None:
        """Show augmented patches as layers."""
        self._asked_for = self.show_augmented
        self._start_worker(self.augmented_button, self.augmented.start)

    def _start_worker(self, button: BusyButton, start: Callable[[Any, layers.Snapshot, TrainJob], None]) -> None:
        """Start a worker that computes layers."""
        self.panel.view.show_error(())
        try:
            inputs, job = self._read_job()
        except UserError as problem:
            self.panel.view.show_error(problem.lines)
            self._ask(problem.lines)
            return
        self.asking.ask(None)
        button.wait()
        start(self.image.layer, inputs, job)

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
        values = self.settings.values() | self.network.values() | self.loss.values() | self.class_names.values()
        values |= self.budget.values() | self.label_rows.values() | self.start.values()
        return values | {"label_checks": self._label_checks}

    def _read_job(self, start_from: Path | None = None) -> tuple[layers.Snapshot, TrainJob]:
        """Read and validate layers and settings before anything is written."""
        values = self.values()
        self._question = layer_question(self._viewer, self.image.layers, self.labels.layers, values.get("time", ()))
        if self._question is not None:
            raise UserError(self._question.text)
        inputs = layers.snapshot(self.image.layers, self.labels.layers, mask=self.mask.layer, view=values.get("view"))
        if (times := values.pop("time", None)) is not None and inputs.time_points > 1:
            inputs = inputs.chosen(checked(TrainJob, values | inputs.training_files | {"time": times}).time)
        files = inputs.training_files
        grid: dict[str, Any] = {"spacing": inputs.spacing, "unit": inputs.unit, "axes": inputs.parts[0].axes}
        grid["preview"] = voxel_in_view(self._viewer, self.image.layer, layers.shape_of(self.image.layer))
        if names := distinct_names(layer_names(inputs)):
            grid["channel_names"] = names
        start = {} if start_from is None else {"start_from": start_from}
        return inputs, checked(TrainJob, values | files | grid | start)

    def _start(self, start_from: Path | None = None) -> tuple[str, Prepare]:
        inputs, job = self._read_job(start_from)
        if start_from is None:
            self._show_planned()
        point = inputs.points[0] if inputs.points else None  # previews and the hold-out are of the first one
        self.overlay.reset(self.image.layer, point)
        self.split.reset(self.image.layer, point)

        self.asking.ask(None)

        def prepare(folder: Path, cancelled: threading.Event) -> TrainJob:
            self._question = question_about(inputs, job)
            if self._question is not None:
                raise UserError(self._question.text)
            layers.write(inputs, folder, cancelled)
            return job

        return f"{inputs.name}-{job.network}", prepare

    def _failed(self, lines: Sequence[str]) -> None:
        """Ask what the labels left open; what a run that was killed has learnt can be continued."""
        folder = self.panel.task.folder
        if folder is not None and (folder / MODEL).is_file():
            self.model = folder / MODEL
            self._state_changed(self.panel.task.state)
        self._ask(lines)

    def _ask(self, _lines: Sequence[str]) -> None:
        """Ask what the labels left open, instead of an error."""
        if self._question is not None:
            self.panel.view.show_error(())
            self.asking.ask(self._question)

    def _answered(self, answer: Answer) -> None:
        """Set the rows to an answer, and start the training that waits for it."""
        self.asking.ask(None)
        self._question = None
        if FIRST_AXIS in answer.settings:
            name_first_axis([*self.image.layers, *self.labels.layers], answer.settings[FIRST_AXIS])
        elif "time" in answer.settings:
            self.settings.fields["time"].widget.value = answer.settings["time"]
        else:
            self.unpainted.choose(answer.settings)
        if answer.ready:
            self._label_checks = answer.settings.get("label_checks", "refuse")
            self._asked_for()
            self._label_checks = "refuse"

    def _lay_out(self) -> None:
        self._form = form = form_layout()
        form.addRow("image", self.image)
        form.addRow("labels", self.labels)
        self.settings.add_to(form, OF_LABELS[:2])
        form.addRow("unlabelled is", self.unpainted.meaning)
        form.addRow("background is", self.unpainted.background)
        form.addRow("class names", self.class_names)
        self.settings.add_to(form, OF_LABELS[2:])
        buttons = QHBoxLayout()
        for button in (self.targets_button, self.augmented_button):
            buttons.addWidget(button)
        form.addRow("show", buttons)
        form.addRow("start from", self.start)
        form.addRow("network", self.network)
        form.addRow("width", self.network.width_box)
        form.addRow("loss", self.loss)
        form.addRow(self.loss.hint)
        self.settings.add_to(form, ("view", "context"))
        form.addRow("train for", self.budget)
        self.settings.add_to(form, ("device",))
        self.advanced, inside = folded("Advanced")
        self._lay_out_advanced(inside)
        self.label_rows = LabelRows(form, self.settings, self.labels, self.unpainted)
        self._show_class_names()
        whole = QVBoxLayout(self)
        whole.addWidget(Scrolling(form, self.advanced))
        whole.addWidget(self.asking)
        whole.addWidget(self.panel)
        whole.addStretch(1)

    def _lay_out_advanced(self, inside: QWidget) -> None:
        column = QVBoxLayout(inside)
        column.setContentsMargins(0, 0, 0, 0)
        sections = self._sections
        self._titles = {title: QLabel(f"<b>{title}</b>") for title in sections}
        for title, rows in sections.items():
            column.addWidget(self._titles[title])
            column.addLayout(rows)
        self.settings.add_to(sections["Labels"], LABELS_ADVANCED)
        sections["Labels"].addRow("mask", self.mask)
        self.settings.add_to(sections["Training"], TRAINING)
        self.loss_options = LossOptions(self.loss, sections["Loss"])

    def _view_chosen(self, _text: str = "") -> None:
        self.settings.show("context", visible=self.settings.fields["view"].read() == "2.5d")

    def _show_titles(self, _text: str = "") -> None:
        """Hide the titles of sections without options."""
        for title, options in (("Network", self.network.options), ("Loss", self.loss_options.form)):
            self._titles[title].setVisible(bool(options.fields))

    def _labels_changed(self, _value: Any = None) -> None:
        self.label_rows.refresh()
        self._show_class_names()
        self._refresh_losses()

    def _show_class_names(self) -> None:
        """Show the table of names where labels are classes or masks."""
        kind = self.label_rows.kind
        show_row(self._form, self.class_names, visible=kind in {"classes", "overlapping"})
        self.class_names.refresh(kind)

    def _refresh_losses(self) -> None:
        """Grey out the losses that are in conflict with other settings."""
        labels = self.label_rows.values() | self.class_names.values()
        self.loss.refresh(self.settings.values(LOSS_ROWS) | self.network.values() | labels)

    def _shown(self, text: str) -> None:
        if self.panel.task.state == "idle":
            self.panel.view.set_status(text)

    def _state_changed(self, state: str) -> None:
        self.resume.setEnabled(state == "idle" and self.model is not None and self.model.is_file())

    def _on_event(self, event: Event) -> None:
        if isinstance(event, CheckpointSaved):
            MODEL_SIGNALS.model_saved.emit(event.path)
        elif isinstance(event, PreviewReady):
            self.overlay.show(event)
        elif isinstance(event, SplitMade) and event.number == 0:
            self.split.show(event)
        elif isinstance(event, Notice) and event.text.startswith(PLANNED) and self.panel.task.folder is not None:
            planned = planned_in(self.panel.task.folder / PLAN)
            self._show_planned(planned)
            self.panel.view.show_plan(event.text, planned)

    def _show_planned(self, planned: Sequence[Planned] = ()) -> None:
        """Show the chosen value in each row that is auto; without a plan, remove it."""
        rows = {name: self.settings.fields[name].widget.native for name in self.settings.auto_fields}
        rows |= {"network": self.network, "width": self.network.width_box, "loss": self.loss}
        rows |= {"minutes": self.budget.amount, "start_from": self.start.box}
        rows |= {"unlabelled": self.unpainted.meaning, "background": self.unpainted.background}
        items = {item.name: item for item in planned}
        for name, row in rows.items():
            show_planned(row, *items[name][1:]) if name in items else show_planned(row)

    def _finished(self, event: RunFinished) -> None:
        how = "Done" if event.state == "done" else "Stopped"
        if "model" not in event.results:
            self.panel.view.set_status(f"{how} before the first step; there is no model.")
            return
        self.model = Path(event.results["model"])
        self.panel.view.set_status(f"{how} after {event.results['steps']} steps. Model: {self.model}")
        self._state_changed(self.panel.task.state)
        MODEL_SIGNALS.model_chosen.emit(str(self.model))
