"""The split as a layer: which part of the image scores the model, over the image that is trained on."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from napari.utils.colormaps import CyclicLabelColormap
from napari.utils.colormaps.standardize_color import transform_color

from napari_unetvnet.widgets.layers import place_of, shape_of
from napari_unetvnet.widgets.pickers import OURS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.events import SplitMade

__all__ = ["HELD_OUT", "LEARNT", "SplitLayer", "drawn_parts"]

LEARNT, HELD_OUT = 1, 2
NAMES = {0: "neither", LEARNT: "learnt from", HELD_OUT: "held out to score the model"}
COLOURS = ("transparent", "transparent", "#e8a33d")
"""Of 0, LEARNT and HELD_OUT."""
OPACITY = 0.2
MOST_VOXELS = 2**24
"""Of a larger image, one voxel of the layer is several of the image."""


def drawn_parts(split: SplitMade, shape: Sequence[int], most: int = MOST_VOXELS) -> tuple[NDArray[np.uint8], list[int]]:
    """Draw the parts of a split.

    Parameters
    ----------
    split : SplitMade
    shape : sequence of 3 int
        Of the image, z, y, x.
    most : int
        Voxels that may be drawn.

    Returns
    -------
    labels : array of uint8, shape (Z, Y, X)
        LEARNT, HELD_OUT, and 0 where neither is.
    step : list of 3 int
        So many voxels of the image are one of the labels, z, y, x.
    """
    step = [1, 1, 1]
    while prod(sizes := [-(-n // s) for n, s in zip(shape, step, strict=True)]) > most:
        step[int(np.argmax(sizes))] *= 2
    labels = np.zeros(sizes, np.uint8)
    for value, boxes in ((LEARNT, split.learnt), (HELD_OUT, split.held_out)):
        for box in boxes:
            labels[tuple(slice(a // s, -(-b // s)) for a, b, s in zip(box[:3], box[3:], step, strict=True))] = value
    return labels, step


class SplitLayer:
    """Shows the split of a training under the labels, so faintly that painting can go on.

    The layer stays when the training is over, and goes when the next one begins; whoever hides it finds the next one
    hidden, too.

    Parameters
    ----------
    viewer : napari Viewer or ViewerModel
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._image: Any = None
        self._visible = True
        self.layer: Any = None

    def begin(self, image: Any) -> None:
        """Wait for the split of a new training.

        Parameters
        ----------
        image : napari Image layer
            Gives it its place in the world.
        """
        if self.layer is not None:
            self._visible = bool(self.layer.visible)
            if self.layer in self._viewer.layers:
                self._viewer.layers.remove(self.layer)
        self._image, self.layer = image, None

    def show(self, split: SplitMade) -> None:
        """Show a split; nothing happens if nothing is held out, or the image is gone.

        Parameters
        ----------
        split : SplitMade
        """
        layers = self._viewer.layers
        if self._image is None or self._image not in layers or not split.held_out:
            return
        flat = self._image.ndim == 2
        shape = shape_of(self._image)
        labels, step = drawn_parts(split, (1, *shape) if flat else shape)
        active = layers.selection.active
        self.layer = self._made(labels[0] if flat else labels, step)
        layers.insert(_above_images(layers, self._image), self.layer)
        layers.selection.active = active  # so that painting can go on

    def _made(self, labels: NDArray[np.uint8], step: Sequence[int]) -> Any:
        start = [(edge - 1) / 2 for edge in step]
        layer = Labels(
            labels,
            name=f"{self._image.name} split",
            # A direct colormap would do, but napari compiles it for a second at first use, while the viewer waits.
            colormap=CyclicLabelColormap(colors=transform_color(list(COLOURS))),
            opacity=OPACITY,
            visible=self._visible,
            features={"index": list(NAMES), "part": list(NAMES.values())},
            metadata={OURS: {"preview": True, "split": {value: NAMES[value] for value in (LEARNT, HELD_OUT)}}},
            **place_of(self._image, start, step),
        )
        layer.editable = False
        return layer


def _above_images(layers: Any, image: Any) -> int:
    """Give the place above the image and what lies on it of other images, under labels."""
    place = layers.index(image) + 1
    while place < len(layers) and type(layers[place]) is type(image):
        place += 1
    return int(place)
