"""The widget that segments an image with a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtWidgets import QCheckBox, QVBoxLayout, QWidget

from napari_unetvnet import runs
from napari_unetvnet.errors import UserError
from napari_unetvnet.model.card import read_card
from napari_unetvnet.runs.models import find_model
from napari_unetvnet.settings import SegmentJob, checked
from napari_unetvnet.widgets import layers
from napari_unetvnet.widgets.form import SettingsForm, form_layout
from napari_unetvnet.widgets.inspect import Inspection
from napari_unetvnet.widgets.maps import Map, MapLayers
from napari_unetvnet.widgets.model_inputs import read_inputs
from napari_unetvnet.widgets.models import ModelPicker, class_words
from napari_unetvnet.widgets.pickers import ImagePicker, MaskPicker
from napari_unetvnet.widgets.result import ResultLayer
from napari_unetvnet.widgets.run_panel import RunPanel
from napari_unetvnet.widgets.scroll import Scrolling, folded, wrapped
from napari_unetvnet.widgets.taken_up import image_of_run
from napari_unetvnet.widgets.task import unwrapped

if TYPE_CHECKING:
    import threading
    from pathlib import Path

    from napari_unetvnet.events import RunFinished
    from napari_unetvnet.model.card import ModelCard
    from napari_unetvnet.widgets.task import Prepare

__all__ = ["SegmentWidget"]

CLEANING = ("min_size", "min_size_in", "keep_largest", "fill_holes", "thin", "connectivity", "split_depth", "nested")
OBJECTS = ("objects", *CLEANING)
REGION = ("region_model", "region_class", "region_shape", "region_largest", "region_margin", "region_threshold")
TILES = ("tile", "tile_memory", "overlap", "blending", "mirror_edge", "batch", "precision", "compile")
ADVANCED = ("view", "tta", "cascade", "box_start", "box_stop", "skip_constant", "resample", "uncertainty_kind", *TILES)
SHOWN = {"probabilities": "results/probabilities.npy", "uncertainty": "results/uncertainty.npy"}
"""Results that are shown as layers, and their files in the run folder."""


class SegmentWidget(QWidget):  # type: ignore[misc]
    """Segments an image layer and adds the labels as a layer on its grid."""

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        viewer = unwrapped(napari_viewer)
        self._viewer, self.image = viewer, ImagePicker(viewer)
        self.model = ModelPicker(self.image)
        self.settings = SettingsForm(SegmentJob, ("device", *OBJECTS, *REGION, *ADVANCED))
        self.mask, self.probabilities = MaskPicker(viewer, "everywhere"), QCheckBox()
        self.mask.setToolTip(wrapped(str(SegmentJob.model_fields["mask"].description)))
        self.probabilities.setToolTip(wrapped("Show the probability of each class as a layer, too."))
        self.panel = RunPanel("segment", viewer, "Segment", "Segmenting", curves=False)
        self.maps = MapLayers(self, viewer)
        self.result: ResultLayer | None = None
        self._started: tuple[Any, list[str]] = (None, [])
        form = form_layout()
        form.addRow("image", self.image)
        form.addRow("model", self.model)
        self.settings.add_to(form, ("device",))
        self.objects, within = folded("Objects")
        self.settings.add_to(form_layout(within), OBJECTS)
        self.region, around = folded("Region of another model")
        self.settings.add_to(form_layout(around), REGION)
        self.advanced, inside = folded("Advanced")
        rows = form_layout(inside)
        rows.addRow("mask", self.mask)
        rows.addRow("probabilities", self.probabilities)
        self.settings.add_to(rows, ADVANCED)
        self.inspecting, part = folded("Inspect")
        self.inspection = Inspection(viewer, self.image, self.model, self.settings)
        column = QVBoxLayout(part)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.inspection)
        whole = QVBoxLayout(self)
        whole.addWidget(Scrolling(form, self.objects, self.region, self.advanced, self.inspecting))
        whole.addWidget(self.panel)
        whole.addStretch(1)
        self.settings.fields["resample"].widget.changed.connect(self._resample_chosen)
        self.panel.start_requested.connect(self.segment)
        self.panel.finished.connect(self._finished)
        self.panel.followed.connect(self._followed)

    def _resample_chosen(self, _value: Any = None) -> None:
        self.model.resample = bool(self.settings.values().get("resample", True))
        self.model.refresh()

    def segment(self) -> None:
        """Segment the chosen image with the chosen model."""
        image, card, path = self.image.box.layer, self.model.card, self.model.path
        if self.panel.attempt(self._start) and path is not None and card is not None:
            self._show(image, card, path)

    def _show(self, image: Any, card: ModelCard, path: Path) -> None:
        """Show the labels of the run that is under way on the grid of an image."""
        metadata: dict[str, Any] = {"model": str(path), "network": card.network, "values": list(card.values)}
        metadata["objects"] = card.objects is not None
        metadata["class_names"] = {str(value): name for value, name in card.names_by_value}
        self._started = image, class_words(card)
        classes = class_words(card) if card.overlapping else ()
        lines = [card.values[index] for index in card.lines]
        self.result = ResultLayer(self.panel.task, image, f"{image.name} segmented", metadata, classes, lines)
        self.result.ready.connect(self._ready)

    def _followed(self, folder: Path) -> None:
        """Show the labels of a run that was taken up: on its image, or the chosen one if that has its shape."""
        try:
            job = runs.read(folder)
            path = find_model(job.model) if isinstance(job, SegmentJob) else folder
            card = read_card(path)
        except UserError as problem:
            self.panel.view.show_error(problem.lines)
            return
        image = self._started[0]
        if self.result is None or self.result.folder != folder or image not in self._viewer.layers:
            image = image_of_run(folder, self._viewer, self.image.box.layer)
        if image is None:
            text = "The run was started on a file: open its result when it is done."
            self.panel.view.set_status(text)
            return
        self._show(image, card, path)

    def _start(self) -> tuple[str, Prepare]:
        """Validate layers, model and settings before anything is written."""
        inputs = read_inputs(self.image, self.model, self.mask.layer)
        values = self.settings.values()
        chosen = {"probabilities": self.probabilities.isChecked(), "uncertainty": "uncertainty_kind" in values}
        outputs = {name: SHOWN[name] for name, is_chosen in chosen.items() if is_chosen}
        job = checked(SegmentJob, values | inputs.files | outputs)

        def prepare(folder: Path, cancelled: threading.Event) -> SegmentJob:
            layers.write(inputs.layers, folder, cancelled)
            (folder / "results").mkdir(exist_ok=True)
            return job

        return f"{inputs.layers.name}-segment", prepare

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
            self._show_maps()

    def _show_maps(self) -> None:
        """Show probabilities and uncertainty, if the run was asked for them, as layers below the labels."""
        folder, (image, words) = self.panel.task.folder, self._started
        first = int(layers.is_time_series(image))  # the axis of classes
        if folder is None:
            return
        maps: list[Map] = []
        if (path := folder / SHOWN["probabilities"]).exists():
            named = zip(words, np.moveaxis(np.load(path, mmap_mode="r"), first, 0), strict=True)
            maps = [Map(f"{image.name} probability of {name}", data, "magma") for name, data in named]
        if (path := folder / SHOWN["uncertainty"]).exists():
            data = np.load(path, mmap_mode="r")
            data = data if data.ndim == 3 + first else data[None]
            maps.append(Map(f"{image.name} uncertainty", data, limits=(0.0, max(float(data.max()), 1e-3))))
        self.maps.show(image, maps)
