"""NumPy arrays in .npy files, mapped when they are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.arrays import planes
from napari_unetvnet.images.axes import given_letters, with_channels
from napari_unetvnet.images.damage import reading
from napari_unetvnet.images.image_file import ImageFile

if TYPE_CHECKING:
    from pathlib import Path

    from napari_unetvnet.images.volume import Volume


def read(path: Path, axes: str = "") -> ImageFile:
    """Map an array (Y, X), (Z, Y, X) or (C, Z, Y, X)."""
    with reading(path):
        array = np.lib.format.open_memmap(path, mode="c")
    if array.ndim not in {2, 3, 4}:
        raise DataProblem(f"{path.name} has {array.ndim} axes; expected (Y, X), (Z, Y, X) or (C, Z, Y, X).")
    if letters := given_letters(axes, array.shape, path.name):
        return ImageFile(with_channels(array, letters, path.name))
    return ImageFile(array.reshape((1,) * (4 - array.ndim) + array.shape))


def write(path: Path, array: Any, like: Volume) -> None:
    """Write labels (Z, Y, X) or (Y, X), or probabilities (K, Z, Y, X)."""
    shape = tuple(array.shape)[1:] if array.ndim == 3 and like.shape[0] == 1 else tuple(array.shape)
    dtype = np.lib.format.dtype_to_descr(array.dtype)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
        for plane in planes(array):
            file.write(plane.data)
