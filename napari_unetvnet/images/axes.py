"""Say which axes an array has, ask where nothing tells it, and transpose to (C, Z, Y, X), also each time point."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.arrays import Picked, View

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["UnclearAxes", "ask_for_axes", "axis_places", "frames_of", "given_letters", "is_unclear", "with_channels"]

MOST_CHANNELS = 4
"""A first axis that has no name and is longer is that of planes."""
MOST_POINTS = 1 << 18
"""Each time point is an array of its own."""
READINGS = {"zyx": "planes", "cyx": "channels", "tyx": "time points"}
"""What the first of three axes can be, by the axes that say so."""


class UnclearAxes(DataProblem):
    """An image whose first axis may be planes, channels or time points.

    Parameters
    ----------
    name : str
        Of its file.
    shape : sequence of 3 int
        Of the array in the file.
    files : int
        How many channel files the image has.
    """

    def __init__(self, name: str, shape: Sequence[int], files: int = 1) -> None:
        self.name, self.first, self._files = name, int(shape[0]), files
        ways = [f"--axes {axes} for {self.first} {noun}" for axes, noun in READINGS.items()]
        super().__init__(
            f"{name} has the shape ({', '.join(map(str, shape))}) and does not say what its first axis is; give "
            f"{', '.join(ways[:-1])} or {ways[-1]}."
        )

    def axes_for(self, channels: int) -> str:
        """Give the axes of the only reading with a number of channels, planes or channels; empty if there is none."""
        return {self._files: "zyx", self._files * self.first: "cyx"}.get(channels, "")

    def axes_beside(self, planes: int) -> str:
        """Give the axes that labels of so many planes say, planes or channels; empty if they say none."""
        return {1: "cyx", self.first: "zyx"}.get(planes, "")

    def reading_as(self, axes: str, reason: str) -> str:
        """Tell as what the first axis was read, and why."""
        return (
            f"{self.name} does not say what its axes are; its first axis was read as {self.first} {READINGS[axes]}, "
            f"because {reason}. To say otherwise, give --axes."
        )


def is_unclear(shape: Sequence[int]) -> bool:
    """Whether an array whose axes have no names may be planes or channels."""
    return len(shape) == 3 and 1 < shape[0] <= MOST_CHANNELS


def with_channels(array: NDArray[Any], axes: str, name: str) -> NDArray[Any]:
    """Transpose an array with lettered axes to (C, Z, Y, X); colours S are channels, one unknown axis is Z.

    Parameters
    ----------
    axes : str
        A letter for each axis, without time points.
    name : str
        Name of the file, for messages.

    Returns
    -------
    array of shape (C, Z, Y, X)

    Raises
    ------
    DataProblem
        If the axes are not those of one image.
    """
    places = axis_places(array.shape, axes, name)
    order = [places[letter] for letter in "CSZYX" if letter in places]
    ordered = array.transpose(order + [i for i in range(array.ndim) if i not in order])
    y, x = (array.shape[places[letter]] for letter in "YX")
    return ordered.reshape(-1, array.shape[places["Z"]] if "Z" in places else 1, y, x)


def frames_of(array: Any, axes: str, name: str) -> tuple[Any, ...]:
    """Give each time point of an array with lettered axes as (C, Z, Y, X), and a single image as a row of one.

    Parameters
    ----------
    array : array
        Numpy, or read by slicing only: then so are the frames.
    axes : str
        A letter for each axis.
    name : str
        Name of the file, for messages.

    Returns
    -------
    tuple of array of shape (C, Z, Y, X)

    Raises
    ------
    DataProblem
        If the axes are not those of one image or series.
    """
    places = axis_places(array.shape, axes, name)
    time = places.get("T")
    if isinstance(array, np.ndarray):
        if time is None:
            return (with_channels(array, axes, name),)
        others = axes[:time] + axes[time + 1 :]
        return tuple(with_channels(frame, others, name) for frame in np.moveaxis(array, time, 0))
    if {"C", "S"} <= places.keys():
        raise DataProblem(f"{name} has channels of colours; save them as channels.")
    order = [places.get("C", places.get("S")), *(places.get(letter) for letter in "ZYX")]
    points = [None] if time is None else range(int(array.shape[time]))
    if len(points) > MOST_POINTS:
        raise DataProblem(f"{name} declares {len(points)} time points; at most {MOST_POINTS} are read, so cut it.")
    return tuple(View(array if i is None else Picked(array, int(time or 0), i), order) for i in points)


def given_letters(axes: str, shape: Sequence[int], name: str) -> str:
    """Give the letters of the axes of an array that a user has named.

    Parameters
    ----------
    axes : str
        Such as "czyx"; an array with fewer axes, such as labels, has no channels or no time points.
    shape : sequence of int
        Of the array.
    name : str
        Name of the file, for messages.

    Returns
    -------
    str
        A letter for each axis; empty if none were named.

    Raises
    ------
    DataProblem
        If the array has another number of axes.
    """
    letters = axes.upper()
    shorter = (letters.translate(dict.fromkeys(map(ord, left_out))) for left_out in ("", "C", "T", "CT"))
    letters = next((each for each in shorter if len(each) == len(shape)), letters)
    if letters and len(letters) != len(shape):
        size = ", ".join(map(str, shape))
        raise DataProblem(f"{name} has the shape ({size}), which does not fit --axes {axes}; name each of its axes.")
    return letters


def ask_for_axes(shape: Sequence[int]) -> str:
    """Ask what the first axis of a file is that was read as channels.

    Parameters
    ----------
    shape : sequence of 3 int
        Of the array in the file.

    Returns
    -------
    str
        The end of a message.
    """
    size = ", ".join(map(str, shape))
    return f"({size}): give --axes zyx for planes or --axes cyx for channels"


def axis_places(shape: Sequence[int], axes: str, name: str) -> dict[str, int]:
    """Map letters to axes, without axes of length 1; one unknown axis is Z.

    Parameters
    ----------
    axes : str
        A letter for each axis.
    name : str
        Name of the file, for messages.

    Returns
    -------
    dict of str to int

    Raises
    ------
    DataProblem
        If the axes are not those of one image or series, or one is empty.
    """
    if 0 in shape:
        raise DataProblem(f"{name} has an axis of length 0, and so no voxels; save it again.")
    axis_letters = [(letter, i) for i, letter in enumerate(axes) if letter in "YX" or shape[i] > 1]
    letters = [letter for letter, _ in axis_letters]
    unknown = [letter for letter in letters if letter not in "TZCSYX"]
    if len(unknown) + ("Z" in letters) > 1 or not {"Y", "X"} <= set(letters):
        raise DataProblem(
            f"{name} has the axes {''.join(letters)}, which are not those of one image; "
            "save it with at most the axes T, C, Z, Y, X."
        )
    return {"Z" if letter in unknown else letter: i for letter, i in axis_letters}
