"""The square around the largest foreground object: find it, cut it out at full size, put it back.

A square is clipped to the image before anything is cut, so the same rectangle is cut and filled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from napari_unetvnet.networks.decoder_blocks import resize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Square", "crop", "foreground_square", "paste", "whole"]

MARGIN_VOXELS = 20


@dataclass(frozen=True)
class Square:
    """A square (a cube in 3D) that may reach beyond the image.

    Parameters
    ----------
    half : int
        Half its side, in voxels.
    """

    centre: tuple[int, ...]
    half: int

    def within(self, size: Sequence[int]) -> tuple[slice, ...]:
        """Clip to an image."""
        return tuple(
            slice(max(0, c - self.half), min(n, c + self.half)) for c, n in zip(self.centre, size, strict=True)
        )


def foreground_square(mask: Tensor | NDArray[np.bool_], margin: int = MARGIN_VOXELS) -> Square | None:
    """Find the square around the largest object.

    Objects are joined by edges and corners, and count with their holes filled, as contours do.

    Parameters
    ----------
    mask : Tensor or ndarray of shape (*S)
        What is not zero is foreground; of several channels, as the source has in training, pass the union.
    margin : int
        Voxels added to half the longest side of the object's box.

    Returns
    -------
    Square or None
        None if there is no foreground.
    """
    from scipy import ndimage

    array = mask.detach().cpu().numpy() if isinstance(mask, Tensor) else np.asarray(mask)
    everywhere = np.ones((3,) * array.ndim, dtype=bool)
    labels, count = ndimage.label(ndimage.binary_fill_holes(array != 0), structure=everywhere)
    if count == 0:
        return None
    largest = int(np.bincount(labels.ravel())[1:].argmax())
    box = ndimage.find_objects(labels)[largest]
    sides = [axis.stop - axis.start for axis in box]
    centre = tuple(int(axis.start + side // 2) for axis, side in zip(box, sides, strict=True))
    return Square(centre, max(max(sides) // 2, 1) + margin)


def crop(x: Tensor, place: tuple[slice, ...], foreground: Tensor | None = None) -> Tensor:
    """Cut a place out and enlarge it to the size of the whole.

    Parameters
    ----------
    x : Tensor of shape (B, C, *S)
    place : tuple of slice
        From `Square.within`.
    foreground : Tensor of shape (B, 1, *S) or None
        What is outside it is set to 0; None for nothing.

    Returns
    -------
    Tensor of shape (B, C, *S)
    """
    masked = x if foreground is None else x * (foreground > 0).to(x.dtype)
    return resize(masked[(slice(None), slice(None), *place)], x.shape[2:])


def paste(patch: Tensor, place: tuple[slice, ...], onto: Tensor) -> Tensor:
    """Shrink an enlarged cut-out to its place and put it there.

    Parameters
    ----------
    patch : Tensor of shape (B, K, *S)
    onto : Tensor of shape (B, K, *S)
        Kept outside the place, and not changed itself.

    Returns
    -------
    Tensor of shape (B, K, *S)
    """
    sizes = [axis.stop - axis.start for axis in place]
    out = onto.clone()
    out[(slice(None), slice(None), *place)] = resize(patch, sizes).to(onto.dtype)
    return out


def whole(size: Sequence[int]) -> tuple[slice, ...]:
    """Give the place that is all of an image."""
    return tuple(slice(0, n) for n in size)
