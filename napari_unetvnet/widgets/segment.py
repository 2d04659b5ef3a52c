"""The widget that segments an image with a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_unetvnet.errors import DataProblem, ModelProblem
from napari_unetvnet.settings import SegmentJob, checked
from napari_unetvnet.widgets import layers
from napari_unetvnet.widgets.form import SettingsForm, form_layout
from napari_unetvnet.widgets.models import ModelPicker, class_words
from napari_unetvnet.widgets.pickers import ImagePicker
from napari_unetvnet.widgets.result import ResultLayer
from napari_unetvnet.widgets.run_panel import RunPanel
from napari_unetvnet.widgets.scroll import Scrolling, folded
from napari_unetvnet.widgets.task import unwrapped

if TYPE_CHECKING:
    import threading
    from pathlib import Path

    from napari_unetvnet.events import RunFinished
    from napari_unetvnet.model.card import ModelCard
    from napari_unetvnet.widgets.task import Prepare

__all__ = ["SegmentWidget"]

OBJECTS = ("objects", "min_size", "min_size_in", "keep_largest", "fill_holes", "thin", "connectivity", "split_depth")
REGION = ("region_model", "region_class", "region_shape", "region_largest", "region_margin", "region_threshold")
ADVANCED = ("tile", "overlap", "batch", "tta", "precision")


class SegmentWidget(QWidget):  # type: ignore[misc]
    """Segments an image layer and adds the labels as a layer on its grid."""

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        viewer = unwrapped(napari_viewer)
        self.image, self.model = ImagePicker(viewer), ModelPicker()
        self.settings = SettingsForm(SegmentJob, ("device", *OBJECTS, *REGION, *ADVANCED))
        self.panel = RunPanel("segment", viewer, "Segment", "Segmenting", curves=False)
        self.result: ResultLayer | None = None
        form = form_layout()
        form.addRow("image", self.image)
        form.addRow("model", self.model)
        self.settings.add_to(form, ("device",))
        self.objects, within = folded("Objects")
        self.settings.add_to(form_layout(within), OBJECTS)
        self.region, around = folded("Region of another model")
        self.settings.add_to(form_layout(around), REGION)
        self.advanced, inside = folded("Advanced")
        self.settings.add_to(form_layout(inside), ADVANCED)
        whole = QVBoxLayout(self)
        whole.addWidget(Scrolling(form, self.objects, self.region, self.advanced))
        whole.addWidget(self.panel)
        whole.addStretch(1)
        self.panel.start_requested.connect(self.segment)
        self.panel.finished.connect(self._finished)

    def segment(self) -> None:
        """Segment the chosen image with the chosen model."""
        image, card, path = self.image.box.layer, self.model.card, self.model.path
        if self.panel.attempt(self._start) and path is not None and card is not None:
            name = f"{image.name} segmented"
            metadata: dict[str, Any] = {"model": str(path), "network": card.network, "values": list(card.values)}
            metadata["class_names"] = {str(value): name for value, name in card.names_by_value}
            classes = class_words(card) if card.overlapping else ()
            lines = [card.values[index] for index in card.lines]
            self.result = ResultLayer(self.panel.task, image, name, metadata, classes, lines)
            self.result.ready.connect(self._ready)

    def _start(self) -> tuple[str, Prepare]:
        """Validate layers, model and settings before anything is written."""
        path, card = self.model.path, self.model.card
        if path is None:
            raise ModelProblem("There is no model yet; train one, or choose a file.")
        if card is None:
            raise ModelProblem(f"{path} cannot be read; choose another model.")
        inputs = layers.snapshot(self.image.layers, view=card.view, painted=False)
        _check_channels(inputs, card)
        files = {"image": inputs.files.image, "spacing": inputs.spacing, "unit": inputs.unit, "model": str(path)}
        job = checked(SegmentJob, self.settings.values() | files)

        def prepare(folder: Path, cancelled: threading.Event) -> SegmentJob:
            layers.write(inputs, folder, cancelled)
            return job

        return f"{inputs.name}-segment", prepare

    def _finished(self, event: RunFinished) -> None:
        if event.state == "stopped":
            self.panel.view.set_status("Stopped; the finished planes are saved.")
        else:
            self.panel.view.set_status("Done.")

    def _ready(self, layer: Any) -> None:
        if layer is not None and self.result is not None and self.panel.task.state == "idle":
            shown = [*self.result.layers, *filter(None, [self.result.shapes])]
            names = ", ".join(each.name for each in shown)
            self.panel.view.set_status(f"{self.panel.view.status.text()} Labels: {names}")


def _check_channels(inputs: layers.Snapshot, card: ModelCard) -> None:
    """Reject a number of channels that the model does not expect."""
    if len(inputs.channels) != card.channels:
        raise DataProblem(
            f"The model expects images with {card.channels} channel(s), {inputs.name} has {len(inputs.channels)}; "
            "choose other channels or another model."
        )
