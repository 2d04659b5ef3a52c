"""The first overlay: what the running weights say, over the image while the training goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels

from napari_unetvnet.widgets.layers import place_of
from napari_unetvnet.widgets.pickers import OURS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unetvnet.events import PreviewReady

__all__ = ["Overlay", "voxel_in_view"]

OPACITY = 0.5


class Overlay:
    """Shows the previews of a training, one after the other in one layer.

    The layer stays when the training is over, and goes when the next one begins.

    Parameters
    ----------
    viewer : napari Viewer or ViewerModel
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._image: Any = None
        self.layer: Any = None

    def begin(self, image: Any) -> None:
        """Wait for the previews of a new training.

        Parameters
        ----------
        image : napari Image layer
            Gives them their place in the world.
        """
        if self.layer is not None and self.layer in self._viewer.layers:
            self._viewer.layers.remove(self.layer)
        self._image, self.layer = image, None

    def show(self, event: PreviewReady) -> None:
        """Show a preview; nothing happens if the image or the file is gone.

        Parameters
        ----------
        event : PreviewReady
        """
        if self._image is None or self._image not in self._viewer.layers:
            return
        try:
            labels = np.load(event.path)
        except (OSError, ValueError, EOFError):
            return
        data = labels[0] if self._image.ndim == 2 else labels
        if self.layer is not None and self.layer in self._viewer.layers:
            self.layer.data = data
        else:
            self._add(data, event.start)

    def _add(self, data: Any, start: Sequence[int]) -> None:
        """Add the layer and leave the active one active, so that painting can go on."""
        place, metadata = place_of(self._image, start), {OURS: {"preview": True}}
        active = self._viewer.layers.selection.active
        self.layer = Labels(data, name=f"{self._image.name} preview", opacity=OPACITY, metadata=metadata, **place)
        self.layer.editable = False
        self._viewer.add_layer(self.layer)
        self._viewer.layers.selection.active = active


def voxel_in_view(viewer: Any, image: Any, shape: Sequence[int]) -> tuple[int, int, int]:
    """Find the voxel that is looked at.

    Parameters
    ----------
    viewer : napari Viewer or ViewerModel
    image : napari Image layer
    shape : sequence of 2 or 3 int
        Of the image, in voxels.

    Returns
    -------
    tuple of 3 int
        z, y, x; the nearest in the image if the view is beside it.
    """
    found = np.round(np.asarray(image.world_to_data(viewer.dims.point), float))
    inside = [int(place) for place in np.clip(found, 0, np.asarray(shape) - 1)]
    z, y, x = [0] * (3 - len(inside)) + inside
    return z, y, x
