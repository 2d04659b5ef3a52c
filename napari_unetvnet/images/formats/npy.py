"""NumPy arrays in .npy files, mapped when they are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.arrays import planes
from napari_unetvnet.images.axes import frames_of, given_letters, is_unclear
from napari_unetvnet.images.containers import has_last_channel, with_letters
from napari_unetvnet.images.damage import reading
from napari_unetvnet.images.image_file import ImageFile, series_of

if TYPE_CHECKING:
    from pathlib import Path

    from napari_unetvnet.images.volume import Volume


def read(path: Path, axes: str = "") -> ImageFile:
    """Map an array (Y, X), (Z, Y, X) or (C, Z, Y, X)."""
    with reading(path):
        array = np.lib.format.open_memmap(path, mode="c")
    letters = given_letters(axes, array.shape, path.name)
    if letters or has_last_channel(array.shape):
        letters = letters or with_letters(None, array.shape)
        return series_of(frames_of(array, letters, path.name))
    if array.ndim not in {2, 3, 4}:
        raise DataProblem(
            f"{path.name} has {array.ndim} axes; expected (Y, X), (Z, Y, X) or (C, Z, Y, X), or say which (--axes)."
        )
    unclear = array.shape if is_unclear(array.shape) else ()
    return ImageFile(array.reshape((1,) * (4 - array.ndim) + array.shape), unclear=unclear)


def write(path: Path, array: Any, like: Volume) -> None:
    """Write labels (Z, Y, X) or (Y, X), or probabilities (K, Z, Y, X); of a series with T before these axes."""
    points, axes = (() if like.time is None else (like.time.points,)), 3 if like.time is None else 4
    shape = tuple(array.shape)
    if array.ndim == axes and like.shape[0] == 1:
        shape = (*points, *shape[-2:])
    dtype = np.lib.format.dtype_to_descr(array.dtype)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
        for plane in planes(array):
            file.write(plane.data)
