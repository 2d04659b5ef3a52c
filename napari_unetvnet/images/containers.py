"""Containers of several arrays, zarr and HDF5: which array is the image, and which axes it has.

Only metadata is read; the array is read when it is sliced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_unetvnet.errors import FileProblem
from napari_unetvnet.images.axes import frames_of, is_unclear
from napari_unetvnet.images.damage import slicing
from napari_unetvnet.images.declared import check_decoded, check_shape
from napari_unetvnet.images.geometry import Geometry
from napari_unetvnet.images.image_file import series_of
from napari_unetvnet.images.units import common_spacing, in_unit_of_x, unit_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_unetvnet.images.image_file import ImageFile

__all__ = [
    "AXES",
    "StoredArray",
    "has_last_channel",
    "image_of",
    "listed_images",
    "named_letters",
    "only_image",
    "with_letters",
]

AXES = "TCZYX"
LISTED = 8


class StoredArray(NamedTuple):
    """An array in a container, a letter for each axis, and voxel length and unit for some of the letters.

    ``positions`` is where the first voxel lies, in the same units; empty if that is not known. ``guessed`` says that
    the axes have no names, and the letters are those that are usual.
    """

    array: Any
    axes: str
    lengths: dict[str, tuple[float, str]]
    positions: dict[str, float] = {}  # noqa: RUF012 - a default that is never changed
    guessed: bool = False


class _Checked:
    """An array that raises FileProblem if reading finds damage."""

    def __init__(self, array: Any, path: Path) -> None:
        self._array, self._path = array, path
        self.shape, self.dtype, self.chunks = array.shape, array.dtype, array.chunks

    def __getitem__(self, key: Any) -> NDArray[Any]:
        with slicing(self._path):
            return np.asarray(self._array[key])


def image_of(array: StoredArray, path: Path) -> ImageFile:
    """Transpose an array in a container to (C, Z, Y, X) without reading it.

    Parameters
    ----------
    path : Path
        File or folder, for messages.

    Returns
    -------
    ImageFile
    """
    check_shape(path, array.array.shape, array.array.dtype)
    if (chunks := array.array.chunks) is not None:
        check_decoded(path, chunks, array.array.dtype, chunks=True)
    frames = frames_of(_Checked(array.array, path), array.axes, path.name)
    unclear = tuple(array.array.shape) if array.guessed and is_unclear(array.array.shape) else ()
    lengths = {letter: length for letter, length in array.lengths.items() if letter != "T"}
    step, time_unit = array.lengths.get("T", (1.0, ""))
    units = {letter: unit_name(unit) for letter, (_, unit) in lengths.items()}
    spacing, unit = common_spacing({letter: size for letter, (size, _) in lengths.items()}, units)
    geometry = Geometry(spacing or (1.0, 1.0, 1.0), unit)
    if array.positions and spacing is not None:
        geometry = Geometry.upright(spacing, unit, in_unit_of_x(array.positions, units))
    return series_of(frames, step, time_unit, geometry=geometry, unclear=unclear)


def only_image(path: Path, images: Mapping[str, Any], prefix: str) -> str:
    """Give the name of the only image, or raise with the names of all.

    Parameters
    ----------
    path : Path
        File or folder.
    images : mapping of str to array or group
        All images in it.
    prefix : str
        Prefix of image names in sources.

    Returns
    -------
    str

    Raises
    ------
    FileProblem
        Unless there is exactly one.
    """
    if len(images) == 1:
        return next(iter(images))
    if not images:
        raise FileProblem(f"{path.name} holds no array with at least two axes; choose a file with an image.")
    raise FileProblem(
        f"{path.name} holds {len(images)} images; name one, such as {prefix}{next(iter(images))}: "
        f"{listed_images(images)}."
    )


def listed_images(images: Mapping[str, Any]) -> str:
    """List the first images with their shapes."""
    entries = [f"{name} ({' x '.join(map(str, getattr(item, 'shape', ())))})" for name, item in images.items()]
    text = ", ".join(entry.removesuffix(" ()") for entry in entries[:LISTED])
    return f"{text}{', ...' if len(entries) > LISTED else ''}" if entries else "none"


def with_letters(names: Sequence[str | None] | None, shape: Sequence[int]) -> str:
    """Give the letters of axes; without names, the last of T, C, Z, Y, X, before a last axis of one channel."""
    axes = len(shape)
    if letters := named_letters(names, shape):
        return letters
    if has_last_channel(shape):
        return AXES[1 - axes :] + "S" if axes <= len(AXES) + 1 else "?" * axes
    return AXES[-axes:] if axes <= len(AXES) else "?" * axes


def has_last_channel(shape: Sequence[int]) -> bool:
    """Whether a last axis is that of one channel, as learning libraries store it."""
    return len(shape) > 3 and shape[-1] == 1 < min(shape[-3:-1])


def named_letters(names: Sequence[str | None] | None, shape: Sequence[int]) -> str:
    """Give the letters of axes that have names; empty if they have none, or none of an image."""
    letters = "".join((name or " ")[0].upper() for name in names or ())
    is_named = len(letters) == len(shape) == len(set(letters)) and {"Y", "X"} <= set(letters)
    return letters if is_named else ""
