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

OBJECTS = ("objects", "min_size", "min_size_in", "keep_largest", "fill_holes", "connectivity", "split_depth")
ADVANCED = ("tile", "overlap", "batch", "tta", "precision")


class SegmentWidget(QWidget):  # type: ignore[misc]
    """Segments an image layer; the labels come back as a layer on its grid.

    Parameters
    ----------
    napari_viewer : napari Viewer or ViewerModel
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        viewer = unwrapped(napari_viewer)
        self.image, self.model = ImagePicker(viewer), ModelPicker()
        self.settings = SettingsForm(SegmentJob, ("device", *OBJECTS, *ADVANCED))
        self.panel = RunPanel("segment", viewer, "Segment", "Segmenting", curves=False)
        self.result: ResultLayer | None = None
        form = form_layout()
        form.addRow("image", self.image)
        form.addRow("model", self.model)
        self.settings.add_to(form, ("device",))
        self.objects, within = folded("Objects")
        self.settings.add_to(form_layout(within), OBJECTS)
        self.advanced, inside = folded("Advanced")
        self.settings.add_to(form_layout(inside), ADVANCED)
        whole = QVBoxLayout(self)
        whole.addWidget(Scrolling(form, self.objects, self.advanced))
        whole.addWidget(self.panel)
        whole.addStretch(1)
        self.panel.wanted.connect(self.segment)
        self.panel.finished.connect(self._finished)

    def segment(self) -> None:
        """Segment the chosen image with the chosen model."""
        image, card, path = self.image.box.layer, self.model.card, self.model.path
        if self.panel.attempt(self._start) and path is not None and card is not None:
            name = f"{image.name} segmented"
            metadata = {"model": str(path), "network": card.network, "values": list(card.values)}
            classes = class_words(card) if card.overlapping else ()
            self.result = ResultLayer(self.panel.task, image, name, metadata, classes)
            self.result.ready.connect(self._ready)

    def _start(self) -> tuple[str, Prepare]:
        """Look at layers, model and settings; everything that can be refused at once is refused here."""
        path, card = self.model.path, self.model.card
        if path is None:
            raise ModelProblem("There is no model yet; train one, or choose a file.")
        if card is None:
            raise ModelProblem(f"{path} cannot be read; choose another model.")
        taken = layers.snapshot(self.image.layers, view=card.view, painted=False)
        _check_channels(taken, card)
        files = {"image": taken.files.image, "spacing": taken.spacing, "unit": taken.unit, "model": str(path)}
        made = checked(SegmentJob, self.settings.values() | files)

        def prepare(folder: Path, cancelled: threading.Event) -> SegmentJob:
            layers.write(taken, folder, cancelled)
            return made

        return f"{taken.name}-segment", prepare

    def _finished(self, event: RunFinished) -> None:
        if event.state == "stopped":
            self.panel.view.say("Stopped; the planes that were finished are kept.")
        else:
            self.panel.view.say("Done.")

    def _ready(self, layer: Any) -> None:
        if layer is not None and self.result is not None and self.panel.task.state == "idle":
            names = ", ".join(each.name for each in self.result.layers)
            self.panel.view.say(f"{self.panel.view.status.text()} Labels: {names}")


def _check_channels(taken: layers.Snapshot, card: ModelCard) -> None:
    """Refuse channels that the model does not expect, before anything is written."""
    if len(taken.channels) != card.channels:
        raise DataProblem(
            f"The model takes images of {card.channels} channel(s), {taken.name} has {len(taken.channels)}; "
            "choose other channels or another model."
        )
