"""Multi-view prediction: the mean probability of a 2D network over the planes along z, y and x.

The planes along y and x come first, and the sum of their probabilities is kept. Then the planes along z are predicted
slab by slab, as with one view.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

from napari_unetvnet.images.arrays import View, new_array
from napari_unetvnet.images.volume import Box
from napari_unetvnet.inference.labels import activated, as_logits
from napari_unetvnet.inference.selection import Selection
from napari_unetvnet.inference.slabs import scores

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_unetvnet.conventions import Triple
    from napari_unetvnet.images.intensity import Intensity
    from napari_unetvnet.images.volume import Volume
    from napari_unetvnet.model.model import Model
    from napari_unetvnet.settings import SegmentSettings

__all__ = ["multi_view_scores"]

Number = TypeVar("Number", int, float)

AXES = ("z", "y", "x")
ALONG_Y, ALONG_X = (1, 0, 2), (2, 0, 1)
"""Orders of the axes that turn planes along y, and along x, into planes along z."""


def multi_view_scores(
    model: Model,
    volume: Volume,
    settings: SegmentSettings,
    scale: Intensity,
    first_plane: int = 0,
    selection: Selection | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Give the logits of the mean probability over the planes along z, y and x, slab by slab.

    Needs 2 K bytes per voxel more than one view: in memory, or in a temporary file if that is more than a quarter of
    the free memory. The first slab is yielded after two of the three views.

    Parameters
    ----------
    model : Model
        With view 2d or 2.5d; its network in evaluation mode.
    volume : Volume, data of shape (C, Z, Y, X)
        With about isotropic voxels.
    scale : Intensity
        How to normalise the volume.
    first_plane : int
        Planes before it are left out.
    selection : Selection, optional
        The part to segment (default: all); logits outside it are meaningless.

    Yields
    ------
    start : int
        First plane of the slab.
    logits : Tensor of shape (K, dz, Y, X), float32, on the model's device
    """
    turned_volumes = [_turned(volume, order) for order in (ALONG_Y, ALONG_X)]
    head = model.card.head
    total = new_array((model.card.outputs, *volume.shape), np.float16)
    total[:] = 0
    for order, turned in zip((ALONG_Y, ALONG_X), turned_volumes, strict=True):
        turned_total = total.transpose(0, *(1 + axis for axis in order))
        part = None if selection is None else _turned_part(selection, order)
        for start, logits in scores(model, turned, _turned_settings(settings, order), scale, selection=part):
            turned_total[:, start : start + logits.shape[1]] += activated(logits, head).half().cpu().numpy()
    for start, logits in scores(model, volume, settings, scale, first_plane, selection):
        others = _single(total[:, start : start + logits.shape[1]]).to(logits.device)
        yield start, as_logits((activated(logits, head) + others) / 3, head)


def _single(values: NDArray[np.float16]) -> Tensor:
    return torch.from_numpy(np.asarray(values).astype(np.float32))


def _turned(volume: Volume, order: Triple) -> Volume:
    """Give a volume with its axes in another order, without reading it."""
    data = View(volume.data, (0, *(1 + axis for axis in order)))
    name = f"{volume.name}, planes along {AXES[order[0]]},"
    return replace(volume, data=data, geometry=volume.geometry.ordered(order), name=name)


def _turned_settings(settings: SegmentSettings, order: Triple) -> SegmentSettings:
    """Rename the axes to mirror for the turned volume."""
    mirrored = tuple(AXES[place] for place, axis in enumerate(order) if AXES[axis] in settings.tta)
    return settings.model_copy(update={"tta": mirrored})


def _turned_part(selection: Selection, order: Triple) -> Selection:
    """Give a selection with its axes in another order."""
    mask = None if selection.mask is None else View(selection.mask, (0, *(1 + axis for axis in order)))
    box = Box(_ordered(selection.box.start, order), _ordered(selection.box.stop, order))
    return Selection(box, mask, _ordered(selection.original, order), _ordered(selection.resampled, order))


def _ordered(values: Sequence[Number], order: Triple) -> tuple[Number, Number, Number]:
    return values[order[0]], values[order[1]], values[order[2]]
