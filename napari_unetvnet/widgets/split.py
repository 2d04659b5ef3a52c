"""Show the training and hold-out regions of an image as a layer."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from napari.utils.colormaps import CyclicLabelColormap
from napari.utils.colormaps.standardize_color import transform_color

from napari_unetvnet.widgets.layers import as_shown, place_of, shape_of
from napari_unetvnet.widgets.pickers import METADATA_KEY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.events import SplitMade

__all__ = ["HELD_OUT", "TRAINING", "SplitLayer", "draw_split"]

TRAINING, HELD_OUT = 1, 2
NAMES = {0: "unused", TRAINING: "training", HELD_OUT: "hold-out"}
COLOURS = ("transparent", "transparent", "#e8a33d")
"""Colours of the values 0, TRAINING and HELD_OUT."""
OPACITY = 0.2
MOST_VOXELS = 2**24
"""The layer of a larger image has a coarser grid."""


def draw_split(split: SplitMade, shape: Sequence[int], most: int = MOST_VOXELS) -> tuple[NDArray[np.uint8], list[int]]:
    """Draw the regions of a split as labels.

    Parameters
    ----------
    shape : sequence of 3 int
        Shape of the image z, y, x.
    most : int
        Largest number of voxels of the labels.

    Returns
    -------
    labels : array of uint8, shape (Z, Y, X)
        TRAINING, HELD_OUT, or 0 in neither region.
    step : list of 3 int
        Voxel size of the labels in voxels of the image, z, y, x.
    """
    step = [1, 1, 1]
    while prod(sizes := [-(-n // s) for n, s in zip(shape, step, strict=True)]) > most:
        step[int(np.argmax(sizes))] *= 2
    labels = np.zeros(sizes, np.uint8)
    for value, boxes in ((TRAINING, split.learnt), (HELD_OUT, split.held_out)):
        for box in boxes:
            labels[tuple(slice(a // s, -(-b // s)) for a, b, s in zip(box[:3], box[3:], step, strict=True))] = value
    return labels, step


class SplitLayer:
    """Shows the split of a training in a faint layer under the labels.

    The layer remains after the training and is removed when the next one starts. If the user hides it, the next one is
    hidden too.
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._image: Any = None
        self._point: int | None = None
        self._visible = True
        self.layer: Any = None

    def reset(self, image: Any, point: int | None = None) -> None:
        """Remove the layer of the last training and prepare for a new one.

        Parameters
        ----------
        image : napari Image layer
            Defines the grid of the split.
        point : int, optional
            The time point of a series that they belong to.
        """
        if self.layer is not None:
            self._visible = bool(self.layer.visible)
            if self.layer in self._viewer.layers:
                self._viewer.layers.remove(self.layer)
        self._image, self._point, self.layer = image, point, None

    def show(self, split: SplitMade) -> None:
        """Show a split unless nothing is held out or the image was removed."""
        layers = self._viewer.layers
        if self._image is None or self._image not in layers or not split.held_out:
            return
        shape = shape_of(self._image)
        labels, step = draw_split(split, (1, *shape) if len(shape) == 2 else shape)
        active = layers.selection.active
        self.layer = self._new_layer(as_shown(labels, self._image, self._point), step)
        layers.insert(_above_images(layers, self._image), self.layer)
        layers.selection.active = active  # so that the user can continue painting

    def _new_layer(self, labels: NDArray[np.uint8], step: Sequence[int]) -> Any:
        start = [(edge - 1) / 2 for edge in step]
        layer = Labels(
            labels,
            name=f"{self._image.name} split",
            # Not a direct colormap, which napari compiles at first use, blocking the viewer for a second.
            colormap=CyclicLabelColormap(colors=transform_color(list(COLOURS))),
            opacity=OPACITY,
            visible=self._visible,
            features={"index": list(NAMES), "part": list(NAMES.values())},
            metadata={
                METADATA_KEY: {"preview": True, "split": {value: NAMES[value] for value in (TRAINING, HELD_OUT)}}
            },
            **place_of(self._image, start, step, self._point),
        )
        layer.editable = False
        return layer


def _above_images(layers: Any, image: Any) -> int:
    """Return the index above the image and the Image layers directly on top of it, below labels."""
    index = layers.index(image) + 1
    while index < len(layers) and type(layers[index]) is type(image):
        index += 1
    return int(index)
