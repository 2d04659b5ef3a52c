"""What is compared of layers with the cards of models; measured once for each array."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.model.ranking import ImageFacts, facts_of
from napari_unetvnet.widgets import layers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["layer_facts"]

COPIED_BYTES = 256 * 2**20
"""Channels that lie in several arrays are measured up to this size."""
_MEASURED: WeakKeyDictionary[Any, tuple[tuple[Any, ...], ImageFacts]] = WeakKeyDictionary()


def layer_facts(images: Sequence[Any]) -> ImageFacts | None:
    """Describe the channels of an image for the ranking of models.

    Parameters
    ----------
    images : sequence of napari Image layers

    Returns
    -------
    ImageFacts or None
        None without layers, or if they are no image. Intensities are measured of arrays in memory only, so that the
        viewer never waits for a disk.
    """
    if not images:
        return None
    try:
        inputs = layers.snapshot(images, painted=False)
    except DataProblem:  # told when the job is started
        return None
    if inputs.time_points > 1:
        inputs = inputs.chosen(("0",)).parts[0]
    shape = inputs.channels[0].shape
    planes = shape[0] if len(shape) == 3 else 1
    facts = ImageFacts(inputs.name, len(inputs.channels), planes, inputs.spacing, inputs.unit)
    return _with_intensities(facts, images, inputs)


def _with_intensities(facts: ImageFacts, images: Sequence[Any], inputs: layers.Snapshot) -> ImageFacts:
    arrays = tuple(_identity(channel.data) for channel in inputs.channels)
    if images[0] not in _MEASURED or _MEASURED[images[0]][0] != arrays:
        data = _in_memory(inputs)
        try:
            _MEASURED[images[0]] = arrays, facts if data is None else facts_of(Volume(data))
        except DataProblem:  # NaN, told when the job is started
            _MEASURED[images[0]] = arrays, facts
    measured = _MEASURED[images[0]][1]
    return replace(facts, range=measured.range, brightness=measured.brightness, content=measured.content)


def _identity(data: Any) -> Any:
    """Give what stays the same for the same array, of which a layer may give another view each time."""
    if isinstance(data, np.ndarray):
        return data.__array_interface__["data"][0], data.shape, data.strides
    return id(data)


def _in_memory(inputs: layers.Snapshot) -> NDArray[Any] | None:
    """Give the channels as an array (C, Z, Y, X); None if they are on a disk, or many bytes would be copied."""
    channels = inputs.channels
    if not all(isinstance(channel.data, np.ndarray) and not _on_disk(channel.data) for channel in channels):
        return None
    views = [channel.read((slice(None),) * len(channel.shape)) for channel in channels]
    if len(views) > 1 and sum(view.nbytes for view in views) > COPIED_BYTES:
        return None
    planes = [view if view.ndim == 3 else view[None] for view in views]
    return planes[0][None] if len(planes) == 1 else np.stack(planes)


def _on_disk(data: Any) -> bool:
    return isinstance(data, np.memmap) or isinstance(getattr(data, "base", None), np.memmap)
