"""The part of the Segment panel that shows what a model computes besides labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtWidgets import QComboBox, QVBoxLayout, QWidget

from napari_unetvnet.errors import FileProblem, ModelProblem
from napari_unetvnet.networks import available_outputs
from napari_unetvnet.runs.folder import INDEX
from napari_unetvnet.runs.maps import read_maps
from napari_unetvnet.settings import InspectJob, checked
from napari_unetvnet.widgets import layers
from napari_unetvnet.widgets.form import form_layout
from napari_unetvnet.widgets.layer_axes import shown_point
from napari_unetvnet.widgets.maps import Map, MapLayers
from napari_unetvnet.widgets.model_inputs import read_inputs
from napari_unetvnet.widgets.run_panel import RunPanel
from napari_unetvnet.widgets.scroll import narrow, wrapped

if TYPE_CHECKING:
    import threading

    from napari_unetvnet.events import RunFinished
    from napari_unetvnet.widgets.form import SettingsForm
    from napari_unetvnet.widgets.models import ModelPicker
    from napari_unetvnet.widgets.pickers import ImagePicker
    from napari_unetvnet.widgets.task import Prepare

__all__ = ["Inspection"]

ALL = "all"
TILING = ("device", "tile", "tile_memory", "overlap", "blending", "mirror_edge", "batch", "resample")
"""Settings of the Segment panel that also apply here."""
COLOURS = {"heatmaps": "inferno", "attention": "viridis", "levels": "magma", "reconstruction": "gray"}


class Inspection(QWidget):  # type: ignore[misc]
    """Computes the outputs of the chosen model besides labels, and adds them as layers.

    Parameters
    ----------
    image, model : picker
        The choices of the panel.
    settings : SettingsForm
        The rows of the panel.
    """

    def __init__(self, viewer: Any, image: ImagePicker, model: ModelPicker, settings: SettingsForm) -> None:
        super().__init__()
        self._image, self._model, self._settings = image, model, settings
        self._layer: Any = None
        self.what = narrow(QComboBox())
        self.what.setToolTip(wrapped(str(InspectJob.model_fields["what"].description)))
        self._viewer = viewer
        self._point: int | None = None
        self.panel = RunPanel("inspect", viewer, "Inspect", "Computing", curves=False)
        self.maps = MapLayers(self, viewer)
        form = form_layout()
        form.addRow("show", self.what)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addLayout(form)
        column.addWidget(self.panel)
        self.panel.start_requested.connect(self.inspect)
        self.panel.finished.connect(self._finished)
        model.described.connect(self._refresh)
        self._refresh()

    def inspect(self) -> None:
        """Compute the chosen outputs of the chosen model."""
        self._layer = self._image.box.layer
        self.panel.attempt(self._start)

    def _refresh(self) -> None:
        """Offer what the chosen model has."""
        card = self._model.card
        available = available_outputs(card.network, card.option) if card is not None else ()
        words = [ALL, *available] if available else ["nothing besides labels"]
        if words != [self.what.itemText(i) for i in range(self.what.count())]:
            self.what.clear()
            self.what.addItems(words)
        self.what.setEnabled(bool(available))

    def _start(self) -> tuple[str, Prepare]:
        self._point = None if self._layer is None else shown_point(self._viewer, self._layer)
        inputs = read_inputs(self._image, self._model, point=self._point)
        if not self.what.isEnabled():
            raise ModelProblem(f"The model ({inputs.card.network}) computes nothing but its labels; choose another.")
        word = self.what.currentText()
        values = self._settings.values([name for name in TILING if name in self._settings.fields])
        job = checked(InspectJob, values | inputs.files | {"what": () if word == ALL else (word,)})

        def prepare(folder: Path, cancelled: threading.Event) -> InspectJob:
            layers.write(inputs.layers, folder, cancelled)
            return job

        return f"{inputs.layers.name}-inspect", prepare

    def _finished(self, event: RunFinished) -> None:
        if self._layer is None or "maps" not in event.results:
            self.panel.view.set_status("Stopped; there are no maps.")
            return
        at_point = "" if self._point is None else f" at time point {self._point}"
        maps = maps_in(Path(event.results["maps"]), f"{self._layer.name}{at_point}")
        self.panel.view.set_status(f"Done. Maps{at_point}: {len(maps)}")
        self.maps.show(self._layer, maps)


def maps_in(folder: Path, image: str) -> list[Map]:
    """Open the maps of a run; the background class of levels is left out.

    Parameters
    ----------
    image : str
        Name of the image, for the names of layers.

    Returns
    -------
    list of Map

    Raises
    ------
    FileProblem
        If their index or a file is damaged.
    """
    maps: list[Map] = []
    for row in read_maps(folder):
        array = _opened(folder / row.file)
        limits = None if row.what == "reconstruction" else (0.0, 1.0)
        parts = array if array.ndim == 4 else [array]
        if len(parts) != len(row.channels or [""]):
            raise FileProblem(f"{folder / row.file} has other channels than {folder / INDEX} says; inspect again.")
        channels = dict(zip(row.channels or [""], parts, strict=True))
        if row.what == "levels" and len(channels) > 1:
            channels.pop("class 0", None)
        title = f"{image} {row.what}" + (f" {row.name}" if row.name != "image" else "")
        maps += [
            Map(f"{title} {word}".strip(), data, COLOURS[row.what], limits, row.meaning)
            for word, data in channels.items()
        ]
    return maps


def _opened(path: Path) -> Any:
    try:
        return np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise FileProblem(f"{path} cannot be read ({error}); inspect again.") from error
