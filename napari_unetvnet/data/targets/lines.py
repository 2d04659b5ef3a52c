"""Targets for thin lines: blurred copies that also reward what is found beside the line, and lines drawn as paths."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.data.targets.channels import known_values
from napari_unetvnet.data.targets.validation import check_channels, check_known
from napari_unetvnet.errors import DataProblem, SettingsProblem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["draw_paths", "gaussian_masks", "with_line_channels"]

SIZES = (3, 7, 15)
FIXED_KERNELS = {
    1: (1.0,),
    3: (0.25, 0.5, 0.25),
    5: (0.0625, 0.25, 0.375, 0.25, 0.0625),
    7: (0.03125, 0.109375, 0.21875, 0.28125, 0.21875, 0.109375, 0.03125),
}
"""OpenCV's Gaussian kernels up to 7 voxels."""
FARTHEST = 1e7
"""No vertex of a path may lie farther away, in voxels."""


def gaussian_masks(
    mask: NDArray[Any], sizes: Sequence[int] = SIZES, *, known: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """Give a line mask and blurred copies of it, the wider the fainter.

    Parameters
    ----------
    mask : array of shape (Z, Y, X)
        Truth values, or numbers from 0 to 1.
    sizes : sequence of S int
        Edge lengths of the blurring kernels in voxels, odd.
    known : array of bool, shape (Z, Y, X), optional
        Which voxels are labelled; by default all.

    Returns
    -------
    array of float32, shape (1 + S, Z, Y, X)
        The mask, then a copy for each size; IGNORE in all of them where voxels are ignored.

    Raises
    ------
    DataProblem
        If the mask is of a wrong type or shape or beyond 0 to 1.
    SettingsProblem
        If a size is even or below 1.

    Notes
    -----
    Each plane (y, x) is blurred as by OpenCV's GaussianBlur with automatic sigma = 0.3 ((k - 1) / 2 - 1) + 0.8, that is
    0.8, 1.4 and 2.6 for the sizes 3, 7 and 15, with OpenCV's fixed kernels up to 7 and its border: mirrored without
    repeating the last voxel. The value is the mean over the known voxels under the kernel (normalised convolution). So
    what is painted in unknown voxels has no influence, and a line that runs into them keeps its profile to the end,
    which it would not if they counted as voxels without a line.

    Examples
    --------
    >>> import numpy as np
    >>> gaussian_masks(np.array([[[0, 0, 1, 0, 0]]]), (3,))[1].tolist()
    [[[0.0, 0.25, 0.5, 0.25, 0.0]]]
    """
    if mask.ndim != 3 or 0 in mask.shape or mask.dtype.kind not in "buif":
        raise DataProblem(f"A line mask is {mask.dtype} of shape {mask.shape}; give numbers of shape (Z, Y, X).")
    kernels = [_kernel(size) for size in sizes]
    known = check_known(known, mask.shape)
    if not known_values(np.where(known, mask, 0)).all():
        raise DataProblem(f"The line mask holds the value {IGNORE}; give 1 for lines, and the mask of known voxels.")
    masks = np.empty((1 + len(kernels), *mask.shape), np.float32)
    masks[0] = np.where(known, mask, 0)
    share = None if known.all() else known.astype(np.float32)
    for copy, kernel in zip(masks[1:], kernels, strict=True):
        _blur(masks[0], kernel, copy)
        if share is not None:
            np.divide(copy, _blur(share, kernel, np.empty_like(share)), out=copy, where=known)
    masks[:, ~known] = IGNORE
    return masks


def with_line_channels(
    channels: NDArray[Any], lines: Sequence[int], sizes: Sequence[int] = SIZES
) -> NDArray[np.float32]:
    """Put blurred copies behind each channel that holds lines.

    Parameters
    ----------
    channels : array of shape (K, Z, Y, X)
        Values from 0 to 1, and IGNORE.
    lines : sequence of L int
        Indices of the channels that hold lines.
    sizes : sequence of S int
        As for `gaussian_masks`.

    Returns
    -------
    array of float32, shape (K + S L, Z, Y, X)
        Channels in their order, a line's copies right behind it. 4 channels with 2 lines become 10.

    Raises
    ------
    DataProblem
        If the channels are of a wrong type or shape or beyond 0 to 1.
    SettingsProblem
        If an index is no channel or comes twice, or a size is even or below 1.
    """
    check_channels(channels)
    if len(set(lines)) < len(lines) or not set(lines) <= set(range(len(channels))):
        raise SettingsProblem(
            f"The line channels {list(lines)} are not among the channels 0 to {len(channels) - 1}, each once."
        )
    extended = np.empty((len(channels) + len(sizes) * len(lines), *channels.shape[1:]), np.float32)
    place = 0
    for k, channel in enumerate(channels):
        count = 1 + len(sizes) if k in lines else 1
        known = known_values(channel)
        if k in lines:
            extended[place : place + count] = gaussian_masks(np.where(known, channel, 0), sizes, known=known)
        else:
            extended[place] = channel
        place += count
    return extended


def _kernel(size: int) -> NDArray[np.float64]:
    if size < 1 or size % 2 == 0:
        raise SettingsProblem(f"A kernel cannot have the size {size}; give an odd number such as 3, 7 or 15.")
    if size in FIXED_KERNELS:
        return np.array(FIXED_KERNELS[size])
    sigma = 0.3 * ((size - 1) / 2 - 1) + 0.8
    weights = np.exp(-((np.arange(size) - size // 2) ** 2) / (2 * sigma**2))
    return np.asarray(weights / weights.sum())


def _blur(values: NDArray[np.float32], kernel: NDArray[np.float64], out: NDArray[np.float32]) -> NDArray[np.float32]:
    """Blur each plane into ``out`` and give it back."""
    from scipy.ndimage import correlate1d

    for plane, into in zip(values, out, strict=True):
        correlate1d(correlate1d(plane, kernel, axis=0, mode="mirror"), kernel, axis=1, mode="mirror", output=into)
    return out


def draw_paths(paths: Iterable[NDArray[Any]], shape: tuple[int, int, int], *, width: int = 1) -> NDArray[np.bool_]:
    """Draw paths as lines without gaps.

    Parameters
    ----------
    paths : iterable of arrays of shape (N, 2) or (N, 3)
        Vertices (y, x) or (z, y, x) in voxels, joined by straight lines; a voxel's centre has whole coordinates. A
        napari Shapes layer of lines or paths holds them so. Two coordinates are for a shape with one plane.
    shape : tuple of 3 int
        Z, Y, X. What lies beyond is left out.
    width : int
        Thickness of the lines in voxels. A path whose vertices have one z is thick in its plane only.

    Returns
    -------
    array of bool, shape (Z, Y, X)
        Successive voxels of a line of width 1 touch at least at a corner.

    Raises
    ------
    DataProblem
        If a path has another shape, or a coordinate is not finite or far beyond any image.
    SettingsProblem
        If ``width`` is below 1.

    Examples
    --------
    >>> import numpy as np
    >>> draw_paths([np.array([[0, 0], [1, 3]])], (1, 2, 4))[0].astype(int)
    array([[1, 1, 0, 0],
           [0, 0, 1, 1]])
    """
    if width < 1 or width != int(width):
        raise SettingsProblem(f"The width is {width}; give a whole number of voxels, at least 1.")
    drawn = np.zeros(shape, bool)
    for path in paths:
        vertices = _vertices(path, shape)
        pieces = [_line(a, b) for a, b in itertools.pairwise(vertices)]
        voxels = np.concatenate([vertices, *pieces])
        for offset in _brush(int(width), planar=len(np.unique(vertices[:, 0])) < 2):
            places = voxels + offset
            inside = ((places >= 0) & (places < shape)).all(axis=1)
            drawn[tuple(places[inside].T)] = True
    return drawn


def _vertices(path: NDArray[Any], shape: tuple[int, int, int]) -> NDArray[np.int64]:
    """Give the voxels (N, 3) that hold the vertices."""
    vertices = np.asarray(path, np.float64)
    if vertices.ndim == 2 and vertices.shape[1] == 2 and shape[0] == 1:
        vertices = np.pad(vertices, ((0, 0), (1, 0)))
    if vertices.ndim != 2 or vertices.shape[1] != 3:
        expected = "(z, y, x) or (y, x)" if shape[0] == 1 else "(z, y, x)"
        raise DataProblem(
            f"A path of shape {np.shape(path)} cannot be drawn into an image of shape {shape}; give {expected} for "
            "each vertex."
        )
    if not (np.abs(vertices) < FARTHEST).all():  # not a number is not smaller either
        raise DataProblem(f"A path has a vertex that is not finite or beyond {FARTHEST:.0e} voxels; draw it anew.")
    return np.floor(vertices + 0.5).astype(np.int64)


def _line(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give the voxels (N, 3) from one to another, with one step along the longest axis and at most one along others."""
    steps = max(1, int(np.abs(b - a).max()))
    # Whole numbers round half up exactly; with floats a step of 2, a gap, could come from rounding.
    done = np.arange(steps + 1)[:, None] * (b - a)
    line: NDArray[np.int64] = a + (2 * done + steps) // (2 * steps)
    return line


def _brush(width: int, *, planar: bool) -> Iterator[tuple[int, ...]]:
    """Give the offsets of a disc or ball that is so many voxels across; of an even width it reaches further up."""
    reach = [i - (width - 1) // 2 for i in range(width)]
    middle = (width - 1) % 2 / 2
    for offset in itertools.product(reach, repeat=2 if planar else 3):
        if sum((i - middle) ** 2 for i in offset) <= (width / 2) ** 2:
            yield (0, *offset) if planar else offset
