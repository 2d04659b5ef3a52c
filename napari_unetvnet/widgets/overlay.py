"""Show the predictions of the current weights over the image during training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels

from napari_unetvnet.widgets.layer_axes import axes_of
from napari_unetvnet.widgets.layers import as_shown, place_of
from napari_unetvnet.widgets.pickers import METADATA_KEY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unetvnet.events import PreviewReady

__all__ = ["Overlay", "voxel_in_view"]

OPACITY = 0.5


class Overlay:
    """Shows the latest preview of a training in a layer.

    The layer remains after the training and is removed when the next one starts.
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._image: Any = None
        self._point: int | None = None
        self.layer: Any = None

    def reset(self, image: Any, point: int | None = None) -> None:
        """Remove the layer of the last training and prepare for a new one.

        Parameters
        ----------
        image : napari Image layer
            Defines the grid of the previews.
        point : int, optional
            The time point of a series that they belong to.
        """
        if self.layer is not None and self.layer in self._viewer.layers:
            self._viewer.layers.remove(self.layer)
        self._image, self._point, self.layer = image, point, None

    def show(self, event: PreviewReady) -> None:
        """Show a preview unless the image or the file was removed."""
        if self._image is None or self._image not in self._viewer.layers:
            return
        try:
            labels = np.load(event.path)
        except (OSError, ValueError, EOFError):
            return
        data = as_shown(labels, self._image, self._point)
        if self.layer is not None and self.layer in self._viewer.layers:
            self.layer.data = data
        else:
            self._add(data, event.start)

    def _add(self, data: Any, start: Sequence[int]) -> None:
        """Add the layer and keep the active layer, so that the user can continue painting."""
        grid, metadata = place_of(self._image, start, point=self._point), {METADATA_KEY: {"preview": True}}
        active = self._viewer.layers.selection.active
        self.layer = Labels(data, name=f"{self._image.name} preview", opacity=OPACITY, metadata=metadata, **grid)
        self.layer.editable = False
        self._viewer.add_layer(self.layer)
        self._viewer.layers.selection.active = active


def voxel_in_view(viewer: Any, image: Any, shape: Sequence[int]) -> tuple[int, int, int]:
    """Return the voxel at the current position of the viewer.

    Parameters
    ----------
    shape : sequence of 2 or 3 int
        Shape of the image in voxels.

    Returns
    -------
    tuple of 3 int
        z, y, x, clipped to the image.
    """
    shown = axes_of(image, series=True).shown
    position = np.round(np.asarray(image.world_to_data(viewer.dims.point), float))
    position = position[[*shown[: len(shape) - 2], *shown[-2:]]]
    clipped = [int(index) for index in np.clip(position, 0, np.asarray(shape) - 1)]
    z, y, x = [0] * (3 - len(clipped)) + clipped
    return z, y, x
