"""Files and folders that hold several arrays, zarr and HDF5: which array is the image, and what its axes are.

Nothing but metadata is read; the array is read when it is sliced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_unetvnet.errors import FileProblem
from napari_unetvnet.images.arrays import View
from napari_unetvnet.images.axes import axis_places
from napari_unetvnet.images.damage import slicing
from napari_unetvnet.images.image_file import ImageFile
from napari_unetvnet.images.units import common_spacing, unit_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["AXES", "Stored", "image_of", "listed_images", "only_image", "with_letters"]

AXES = "TCZYX"
LISTED = 8


class Stored(NamedTuple):
    """An array in a file: read by slicing, a letter for each axis, and length and unit of a voxel for some of them."""

    array: Any
    axes: str
    lengths: dict[str, tuple[float, str]]


class _Checked:
    """An array whose damage, seen only when it is read, becomes one sentence."""

    def __init__(self, array: Any, path: Path) -> None:
        self._array, self._path = array, path
        self.shape, self.dtype, self.chunks = array.shape, array.dtype, array.chunks

    def __getitem__(self, key: Any) -> NDArray[Any]:
        with slicing(self._path):
            return np.asarray(self._array[key])


def image_of(stored: Stored, path: Path) -> ImageFile:
    """Bring an array in a file to (C, Z, Y, X) without reading it.

    Parameters
    ----------
    stored : Stored
    path : Path
        Of the file or folder, for messages.

    Returns
    -------
    ImageFile
    """
    places = axis_places(stored.array.shape, stored.axes, path.name)
    data = View(_Checked(stored.array, path), [places.get(letter) for letter in "CZYX"])
    units = {letter: unit_name(unit) for letter, (_, unit) in stored.lengths.items()}
    spacing, unit = common_spacing({letter: size for letter, (size, _) in stored.lengths.items()}, units)
    return ImageFile(data, spacing, unit)


def only_image(path: Path, images: Mapping[str, Any], prefix: str) -> str:
    """Take the only image, or ask for the name of one.

    Parameters
    ----------
    path : Path
        Of the file or folder.
    images : mapping of str to array or group
        All that it holds.
    prefix : str
        What is written before the name of an image to name it.

    Returns
    -------
    str

    Raises
    ------
    FileProblem
        If there is none, or there are several.
    """
    if len(images) == 1:
        return next(iter(images))
    if not images:
        raise FileProblem(f"{path.name} holds no array with two axes or more; name a file with an image.")
    raise FileProblem(
        f"{path.name} holds {len(images)} images; name one, such as {prefix}{next(iter(images))}: "
        f"{listed_images(images)}."
    )


def listed_images(images: Mapping[str, Any]) -> str:
    """Name the images with their shapes, as many as fit into a sentence."""
    each = [f"{name} ({' x '.join(map(str, getattr(item, 'shape', ())))})" for name, item in images.items()]
    shown = ", ".join(text.removesuffix(" ()") for text in each[:LISTED])
    return f"{shown}{', ...' if len(each) > LISTED else ''}" if each else "none"


def with_letters(names: Sequence[str | None] | None, axes: int) -> str:
    """Give axes their letters; without names they are the last of T, C, Z, Y, X."""
    letters = "".join((name or " ")[0].upper() for name in names or ())
    if len(letters) == axes == len(set(letters)) and {"Y", "X"} <= set(letters):
        return letters
    return AXES[-axes:] if axes <= len(AXES) else "?" * axes
