"""Transpose arrays with lettered axes to (C, Z, Y, X)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_unetvnet.errors import DataProblem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["ask_for_axes", "axis_places", "given_letters", "with_channels"]

AS_PLANES = ("zyx", "czyx", "zcyx")
"""Axes of a series of planes, with its time points as z."""


def with_channels(array: NDArray[Any], axes: str, name: str) -> NDArray[Any]:
    """Transpose an array with lettered axes to (C, Z, Y, X); colours S are channels, one unknown axis is Z.

    Parameters
    ----------
    axes : str
        A letter for each axis.
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


def given_letters(axes: str, shape: Sequence[int], name: str) -> str:
    """Give the letters of the axes of an array that a user has named.

    Parameters
    ----------
    axes : str
        Such as "czyx"; an array with one axis less, such as labels, has no channels.
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
    if len(letters) == len(shape) + 1:
        letters = letters.replace("C", "")
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
        If there are time points, or axes that are not those of one image.
    """
    axis_letters = [(letter, i) for i, letter in enumerate(axes) if letter in "YX" or shape[i] > 1]
    letters = [letter for letter, _ in axis_letters]
    if "T" in letters:
        flat = axes.lower().replace("t", "z")
        planes = f", or give --axes {flat} to take them as planes, for a model of view 2d" if flat in AS_PLANES else ""
        raise DataProblem(f"{name} holds {shape[axes.index('T')]} time points; save one time point as a file{planes}.")
    unknown = [letter for letter in letters if letter not in "ZCSYX"]
    if len(unknown) + ("Z" in letters) > 1 or not {"Y", "X"} <= set(letters):
        raise DataProblem(
            f"{name} has the axes {''.join(letters)}, which are not those of one image; "
            "save it with at most the axes C, Z, Y, X."
        )
    return {"Z" if letter in unknown else letter: i for letter, i in axis_letters}
