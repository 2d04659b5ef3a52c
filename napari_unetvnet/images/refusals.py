"""What cannot be trained on or segmented at all, refused with a sentence before anything is spent on it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.sampling import boxes
from napari_unetvnet.images.volume import check_finite

if TYPE_CHECKING:
    from napari_unetvnet.images.volume import Volume

__all__ = ["check_grids", "check_pair", "check_size", "times"]

READ_VALUES, SOME_VALUES = 1 << 28, 1 << 24
"""An image with more values is not read as a whole before training, but about so many of them."""


def check_pair(image: Volume, labels: Volume, mask: Volume | None = None, *, overlapping: bool = False) -> None:
    """Refuse a pair that cannot be trained on.

    Parameters
    ----------
    image : Volume, data of shape (C, Z, Y, X)
    labels : Volume, data of shape (1, Z, Y, X) or with a mask for each class (K, Z, Y, X), integers
    mask : Volume, data of shape (1, Z, Y, X), or None
    overlapping : bool
        Whether there may be several masks.

    Raises
    ------
    DataProblem
        If the shapes differ, the labels are no integers, there are several but one is expected, or the image holds
        NaN or infinity, as far as it is read: all of it up to a quarter of a billion values, else evenly spread parts.
    """
    check_grids(image, labels, mask, overlapping=overlapping)
    if np.dtype(labels.data.dtype).kind not in "biu":
        raise DataProblem(f"Labels {labels.name} are {labels.data.dtype}; labels must be whole numbers.")
    if np.dtype(image.data.dtype).kind == "f":
        whole = math.prod(image.data.shape) <= READ_VALUES
        for box in boxes(image.shape, (READ_VALUES if whole else SOME_VALUES) // image.channels):
            check_finite(np.asarray(image.data[(slice(None), *box.slices)]), image.name)


def check_grids(image: Volume, labels: Volume, mask: Volume | None = None, *, overlapping: bool = False) -> None:
    """Refuse labels or a mask that do not lie on the voxels of the image.

    Parameters
    ----------
    image : Volume, data of shape (C, Z, Y, X)
    labels : Volume, data of shape (1, Z, Y, X), or (K, Z, Y, X) if overlapping
    mask : Volume, data of shape (1, Z, Y, X), or None
    overlapping : bool
        Whether there may be several masks.

    Raises
    ------
    DataProblem
        If the shapes differ, or there are several masks but one is expected.
    """
    for what, volume in (("Labels", labels), ("Mask", mask)):
        if volume is not None and image.shape != volume.shape:
            raise DataProblem(
                f"{what} {volume.name} have {times(volume.shape)} voxels (z y x), image {image.name} has "
                f"{times(image.shape)}; give {what.lower()} that were painted on this image."
            )
    if labels.channels > 1 and not overlapping:
        raise DataProblem(
            f"Labels {labels.name} have {labels.channels} channels that differ, such as colours; save one channel with "
            "a whole number for each class or object, or choose label_values=overlapping for a mask of each class."
        )


def check_size(image: Volume, smallest: Any, network: str) -> None:
    """Refuse an image that is smaller than the network's smallest input.

    Parameters
    ----------
    image : Volume, data of shape (C, Z, Y, X)
    smallest : 3 int
        Voxels z, y, x.
    network : str
        Name for the message.

    Raises
    ------
    DataProblem
        If any axis is too short.
    """
    if any(n < least for n, least in zip(image.shape, smallest, strict=True)):
        raise DataProblem(
            f"{image.name} has {times(image.shape)} voxels (z y x), but {network} needs at least {times(smallest)}; "
            "choose a network of smaller depth, another view, or a larger image."
        )


def times(size: Any) -> str:
    """Write a size, as in "2 x 4 x 5"."""
    return " x ".join(str(n) for n in size)
