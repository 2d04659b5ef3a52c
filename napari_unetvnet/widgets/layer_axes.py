"""Which axes of a layer are time, z, y and x.

Axes of length 1 are left out, and are there again in results. An axis is time if the layer names it so; the names that
napari gives by itself say nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.data.meaning import Answer, Question
from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.axes import is_unclear

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "CHANNEL_AXES",
    "FIRST_AXIS",
    "LayerAxes",
    "axes_of",
    "first_axis_question",
    "name_first_axis",
    "share_names",
    "shown_point",
    "whole",
]

TIME_AXES = ("t", "time", "frame")
CHANNEL_AXES = ("c", "channel", "ch")
UNNAMED = re.compile(r"(axis )?-?\d+", re.IGNORECASE)
"""The names that napari gives."""
FIRST_AXIS = "first_axis"
"""The setting of an answer that names the first axis."""


@dataclass(frozen=True)
class LayerAxes:
    """The axes of a layer.

    Parameters
    ----------
    shape : tuple of int
        At the finest level, without colours; the last two axes are y and x.
    time, z : int or None
        The axes of time and z; z may have a length of 1.
    """

    shape: tuple[int, ...]
    time: int | None
    z: int | None

    @property
    def shown(self) -> tuple[int, ...]:
        """The axes of layers on its grid at one time point: those from z on."""
        n = len(self.shape)
        return tuple(range(n - 2 if self.z is None else self.z, n))

    @property
    def kept(self) -> tuple[int, ...]:
        """The axes of the array that is written: time and z if they are longer than 1, y and x."""
        n = len(self.shape)
        z = () if self.z is None or (self.shape[self.z] == 1 and n != self.z + 3) else (self.z,)
        return (*(() if self.time is None else (self.time,)), *z, n - 2, n - 1)

    def as_shown(self, data: Any) -> Any:
        """Give an array (Z, Y, X) the axes `shown`."""
        plane = data.shape[1:]
        return reshaped(data, plane if self.z is None else (len(data), *(1,) * (len(self.shown) - 3), *plane))


def whole(layer: Any) -> Any:
    """Return the array of a layer, at its finest level."""
    return layer.data[0] if layer.multiscale else layer.data


def reshaped(data: Any, shape: tuple[int, ...]) -> Any:
    """Give an array another shape; one on the disk is read only if its shape differs."""
    if tuple(data.shape) == tuple(shape):
        return data
    return (data if hasattr(data, "reshape") else np.asarray(data)).reshape(shape)


def axes_of(layer: Any, *, series: bool = False) -> LayerAxes:
    """Read the axes of a layer.

    Parameters
    ----------
    series : bool
        Whether a first of four axes without a name is time.

    Returns
    -------
    LayerAxes

    Raises
    ------
    DataProblem
        If it has other axes, or time is not the first.
    """
    shape = tuple(int(n) for n in whole(layer).shape[: layer.ndim])
    names = [str(label).lower() for label in layer.axis_labels]
    longer = [axis for axis in range(layer.ndim - 2) if shape[axis] > 1]
    time = next((axis for axis in longer if names[axis] in TIME_AXES), None)
    if time is None and series and len(longer) == 2 and UNNAMED.fullmatch(names[longer[0]]):
        time = longer[0]
    spatial = [axis for axis in longer if axis != time]
    if len(spatial) > 1 or (spatial and time is not None and spatial[0] < time):
        raise DataProblem(
            f"{layer.name} has {layer.ndim} axes ({', '.join(map(str, layer.axis_labels))}), an image has time, z, y "
            "and x; name its axes (t for time), or slice one channel, for example with Split Stack in the layer's menu."
        )
    short = [axis for axis in range(layer.ndim - 2) if shape[axis] == 1 and axis > (-1 if time is None else time)]
    return LayerAxes(shape, time, next(iter([*spatial, *short[::-1]]), None))


def shown_point(viewer: Any, layer: Any) -> int | None:
    """Give the time point of a layer that a viewer shows; None if the layer has none."""
    axes = axes_of(layer, series=True)
    if axes.time is None:
        return None
    place = float(layer.world_to_data(viewer.dims.point)[axes.time])
    return int(np.clip(round(place), 0, axes.shape[axes.time] - 1))


def first_axis_question(layer: Any) -> Question | None:
    """Ask what the first axis of a layer is, if it has no name and can be more than one thing.

    Returns
    -------
    Question or None
    """
    names, shape = [str(label) for label in layer.axis_labels], whole(layer).shape[: layer.ndim]
    longer = [axis for axis in range(layer.ndim - 2) if shape[axis] > 1]
    if not longer or not UNNAMED.fullmatch(names[longer[0]]) or getattr(layer, "rgb", False):
        return None
    size = " x ".join(map(str, shape))
    text = f"What is the first axis of {layer.name} ({size})?"
    words = {"z": "planes (z)", "t": "time points", "c": "channels"}
    planes, time, channels = (Answer(word, {FIRST_AXIS: name}) for name, word in words.items())
    if len(longer) == 2:
        return Question(text, (time, channels))
    is_asked = len(longer) == 1 and is_unclear([shape[axis] for axis in (longer[0], -2, -1)])
    return Question(text, (planes, time, channels)) if is_asked else None


def name_first_axis(layers: Any, name: str) -> None:
    """Name the first axis that is longer than 1 of some layers, as napari shows and saves it."""
    for layer in layers:
        longer = [axis for axis in range(layer.ndim - 2) if whole(layer).shape[axis] > 1]
        if longer:
            labels = list(layer.axis_labels)
            labels[longer[0]] = name
            layer.axis_labels = tuple(labels)


def share_names(image: Any, others: Iterable[Any]) -> None:
    """Give layers that were added to an image, without names of their own, the names of its axes."""
    for layer in others:
        has_none = all(UNNAMED.fullmatch(str(name)) for name in layer.axis_labels)
        if layer.ndim == image.ndim and has_none:
            layer.axis_labels = image.axis_labels
