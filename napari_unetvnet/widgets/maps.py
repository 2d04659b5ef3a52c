"""Maps of a run as image layers: above their image, below the labels, on its grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari.layers import Image
from qtpy.QtCore import QObject, QTimer

from napari_unetvnet.widgets.layers import as_shown, on_grid, place_of, whole_place
from napari_unetvnet.widgets.pickers import METADATA_KEY

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Map", "MapLayers"]

OPACITY = 0.7


@dataclass(frozen=True, eq=False)
class Map:
    """A map to show.

    Parameters
    ----------
    data : array of shape (Z, Y, X)
        Z is 1 for a 2D image.
    limits : tuple of 2 float, optional
        Values of the darkest and the brightest colour (default: those of the image).
    about : str
        A sentence, kept in the metadata of the layer.
    """

    name: str
    data: Any
    colours: str = "inferno"
    limits: tuple[float, float] | None = (0.0, 1.0)
    about: str = ""


class MapLayers(QObject):  # type: ignore[misc]
    """Adds maps as layers, one after the other, because adding many at once would freeze the viewer."""

    def __init__(self, parent: QObject, viewer: Any) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._image: Any = None
        self._waiting: list[Map] = []
        self.layers: list[Any] = []
        self._timer = QTimer(self)
        self._timer.setInterval(0)
        self._timer.timeout.connect(self._add_next)

    def show(self, image: Any, maps: Sequence[Map]) -> None:
        """Replace the layers that are shown; only the first is visible.

        Parameters
        ----------
        image : napari Image layer
            Defines their grid.
        """
        for layer in self.layers:
            if layer in self._viewer.layers:  # the user may have removed it
                self._viewer.layers.remove(layer)
        self._image, self._waiting, self.layers = image, list(maps), []
        self._timer.start()

    def _add_next(self) -> None:
        if not self._waiting or self._image not in self._viewer.layers:
            self._timer.stop()
            return
        shown = self._waiting.pop(0)
        is_series = shown.data.ndim > 3
        data = on_grid(shown.data, self._image) if is_series else as_shown(shown.data, self._image)
        layer = Image(
            data,
            name=shown.name,
            colormap=shown.colours,
            contrast_limits=shown.limits or self._image.contrast_limits,
            opacity=OPACITY,
            visible=not self.layers,
            metadata={METADATA_KEY: {"preview": True, "about": shown.about}},
            **(whole_place(self._image) if is_series else place_of(self._image)),
        )
        active = self._viewer.layers.selection.active
        place = self._viewer.layers.index(self.layers[-1] if self.layers else self._image)
        self._viewer.layers.insert(place + 1, layer)
        self._viewer.layers.selection.active = active
        self.layers.append(layer)
