"""Axes named by letters, brought to (C, Z, Y, X)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_unetvnet.errors import DataProblem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["axis_places", "with_channels"]


def with_channels(array: NDArray[Any], axes: str, name: str) -> NDArray[Any]:
    """Bring an array with lettered axes to (C, Z, Y, X); colours S count as channels, one unknown axis as Z.

    Parameters
    ----------
    array : array
    axes : str
        A letter for each axis.
    name : str
        Of the file, for messages.

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


def axis_places(shape: Sequence[int], axes: str, name: str) -> dict[str, int]:
    """Say which axis has which letter, leaving out those of one voxel; one unknown axis is Z.

    Parameters
    ----------
    shape : sequence of int
    axes : str
        A letter for each axis.
    name : str
        Of the file, for messages.

    Returns
    -------
    dict of str to int

    Raises
    ------
    DataProblem
        If there are time points, or axes that are not those of one image.
    """
    kept = [(letter, i) for i, letter in enumerate(axes) if letter in "YX" or shape[i] > 1]
    letters = [letter for letter, _ in kept]
    if "T" in letters:
        raise DataProblem(f"{name} holds {shape[axes.index('T')]} time points; save one time point as a file.")
    unknown = [letter for letter in letters if letter not in "ZCSYX"]
    if len(unknown) + ("Z" in letters) > 1 or not {"Y", "X"} <= set(letters):
        raise DataProblem(
            f"{name} has the axes {''.join(letters)}, not those of one image; save it with axes C, Z, Y, X at most."
        )
    return {"Z" if letter in unknown else letter: i for letter, i in kept}
