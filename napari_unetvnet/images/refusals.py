"""Refuse images and labels that cannot be used, with a sentence, before any work is done."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.sampling import boxes
from napari_unetvnet.images.volume import check_finite

if TYPE_CHECKING:
    from napari_unetvnet.images.volume import Volume

__all__ = ["check_grids", "check_pair", "times"]

READ_VALUES, SAMPLED_VALUES = 1 << 28, 1 << 24
"""Values up to which an image is read completely before training, and about how many are read of a larger one."""


def check_pair(image: Volume, labels: Volume, mask: Volume | None = None, *, overlapping: bool = False) -> None:
    """Refuse a pair that cannot be trained on.

    Parameters
    ----------
    image : Volume, data of shape (C, Z, Y, X)
    labels : Volume, data of shape (1, Z, Y, X) or with a mask for each class (K, Z, Y, X), integers
    mask : Volume, data of shape (1, Z, Y, X), or None
    overlapping : bool
        Whether there may be more than one mask.

    Raises
    ------
    DataProblem
        If the shapes differ, the labels are not integers, there is more than one mask but one is expected, or the image
        has NaN or infinity, as far as it is read: completely up to 2^28 values, else in evenly spaced boxes.
    """
    check_grids(image, labels, mask, overlapping=overlapping)
    if np.dtype(labels.data.dtype).kind not in "biu":
        raise DataProblem(f"Labels {labels.name} are {labels.data.dtype}; labels must be integers.")
    if np.dtype(image.data.dtype).kind == "f":
        complete = math.prod(image.data.shape) <= READ_VALUES
        for box in boxes(image.shape, (READ_VALUES if complete else SAMPLED_VALUES) // image.channels):
            check_finite(np.asarray(image.data[(slice(None), *box.slices)]), image.name)


def check_grids(image: Volume, labels: Volume, mask: Volume | None = None, *, overlapping: bool = False) -> None:
    """Refuse labels or a mask with another shape than the image.

    Parameters
    ----------
    image : Volume, data of shape (C, Z, Y, X)
    labels : Volume, data of shape (1, Z, Y, X), or (K, Z, Y, X) if overlapping
    mask : Volume, data of shape (1, Z, Y, X), or None
    overlapping : bool
        Whether there may be more than one mask.

    Raises
    ------
    DataProblem
        If the shapes differ, or there is more than one mask but one is expected.
    """
    for kind, volume in (("Labels", labels), ("Mask", mask)):
        if volume is not None and image.shape != volume.shape:
            raise DataProblem(
                f"{kind} {volume.name} have {times(volume.shape)} voxels (z y x), image {image.name} has "
                f"{times(image.shape)}; give {kind.lower()} that were painted on this image."
            )
    if labels.channels > 1 and not overlapping:
        raise DataProblem(
            f"Labels {labels.name} have {labels.channels} channels that differ, such as colours; save one channel with "
            "an integer for each class or object, or choose label_values=overlapping for a mask of each class."
        )


def times(size: Any) -> str:
    """Format a size, as in "2 x 4 x 5"."""
    return " x ".join(str(n) for n in size)
