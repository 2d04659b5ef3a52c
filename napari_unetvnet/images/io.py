"""Files to volumes and labels to files, geometry intact.

The reader of a format (see `images.formats`) turns one file into `ImageFile`: the array as (C, Z, Y, X)
and what the file says of space. All else is the same for every format: channel files are stacked, labels are checked,
results replace a file whole or not at all. What a library raises on a bad file becomes one sentence, and a file that is
cut off is refused even where the library would fill the gap with zeros.

Spacing comes from the zooms and unit of NIfTI ("mm" where the file names none), from ImageJ or OME metadata of TIFF,
from OME-Zarr, and from the attribute element_size_um of HDF5; it is unknown in PNG, JPEG and npy files. What NIfTI and
TIFF cannot say is converted (nm to mm) or left out.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.files import replacing, writing
from napari_unetvnet.images.arrays import Stack, Typed, View, cut, parts
from napari_unetvnet.images.formats import endings_for, format_of, listed
from napari_unetvnet.images.image_file import LARGE_BYTES, ImageFile, read_file
from napari_unetvnet.images.label_values import highest_label, whole_numbers
from napari_unetvnet.images.outputs import check_fits, check_writable
from napari_unetvnet.images.pairs import PairFiles, find_pairs, read_pairs_csv, resolve
from napari_unetvnet.images.sources import existing, paths_of, stem_of
from napari_unetvnet.images.volume import Volume

if TYPE_CHECKING:
    from napari_unetvnet.conventions import Spacing
    from napari_unetvnet.images.formats import Format, Kind

__all__ = [
    "PairFiles",
    "check_writable",
    "find_pairs",
    "read_labels",
    "read_pairs_csv",
    "read_volume",
    "resolve",
    "write_labels",
    "write_probabilities",
    "write_uncertainty",
]


def read_volume(source: str | Path, spacing: Spacing | None = None) -> Volume:
    """Read an image.

    Parameters
    ----------
    source : str or Path
        One file, or the channel files of one image separated by ``|``. Colours become channels, alpha is dropped;
        the fourth axis of NIfTI is channels; npy, and zarr and HDF5 that do not name their axes, are (Y, X), (Z, Y, X)
        or (C, Z, Y, X). A .zarr folder is one image, the finest level of an OME-Zarr one; ``file.h5:/path`` names a
        dataset.
    spacing : tuple of 3 float, optional
        Voxel size (z, y, x) for files that carry none; their unit stays "pixel".

    Returns
    -------
    Volume, data of shape (C, Z, Y, X)
        Memory-mapped, copy on write, where the file allows; zarr, HDF5 and large files whose values must be converted
        are a View, which reads what is sliced. Named after the first file, without its ending.

    Raises
    ------
    FileProblem
        If a file is missing, cut off, damaged or of another kind.
    DataProblem
        If the channels differ in grid, or the axes are not those of one 2D or 3D image.
    """
    return _load(source, spacing, palette=False)


def read_labels(source: str | Path, spacing: Spacing | None = None, *, overlapping: bool = False) -> Volume:
    """Read labels: one whole number of 0 or more for each voxel.

    Parameters
    ----------
    source : str or Path
        One file. Floats are taken if all are whole numbers (to 0.01, the noise of scaled NIfTI), colours if all
        channels are equal, the numbers behind the colours of a palette.
    spacing : tuple of 3 float, optional
        Voxel size (z, y, x) for a file that carries none.
    overlapping : bool
        Whether each channel, or each of several files separated by ``|``, is a mask of its own.

    Returns
    -------
    Volume, data of integers of shape (1, Z, Y, X), or (K, Z, Y, X) if overlapping
        Checked part by part, and not loaded where `read_volume` would not.

    Raises
    ------
    FileProblem
        If the file is missing, cut off, damaged or of another kind.
    DataProblem
        If values are fractional, negative, NaN or colours, or the file is a JPEG.
    """
    _check_lossless(source)
    volume = _load(source, spacing, palette=True)
    if overlapping:
        return replace(volume, data=whole_numbers(volume.data, volume.name))
    if volume.channels > 1 and not _channels_equal(volume.data):
        raise DataProblem(
            f"{volume.name}: labels have {volume.channels} channels that differ, such as colours; "
            "save one channel with a whole number for each class or object, or say that they are masks of classes that "
            "overlap (--label-values overlapping)."
        )
    first = cut(volume.data, (slice(1), slice(None), slice(None), slice(None)))
    return replace(volume, data=whole_numbers(first, volume.name))


def write_labels(path: str | Path, labels: Any, like: Volume) -> None:
    """Write labels, whole or not at all, in the smallest unsigned type that holds them.

    Parameters
    ----------
    path : str or Path
        The ending decides the format, and that, what is kept of the place in space: see `images.formats`.
        npy and TIFF are (Y, X) where Z is 1.
    labels : integer array of shape (Z, Y, X), or (K, Z, Y, X) with a mask for each class
        Read by slicing only, plane by plane.
    like : Volume
        The image that the labels belong to.

    Raises
    ------
    FileProblem
        If the file cannot be written.
    DataProblem
        If the labels are not on the grid of ``like``, not integers of 0 or more, or do not fit the format.
    """
    path = Path(path)
    check_writable(path, "labels")
    _check_grid(labels, 4 if labels.ndim == 4 else 3, like)
    if labels.dtype.kind not in "bui":
        raise DataProblem(f"Labels of type {labels.dtype} cannot be written; give whole numbers.")
    highest = highest_label(labels, like.name)
    chosen = check_fits(path, "labels", labels.shape, highest)
    _write(path, chosen, Typed(labels, chosen.label_dtype(highest)), like)


def write_probabilities(path: str | Path, probabilities: Any, like: Volume) -> None:
    """Write class probabilities, whole or not at all.

    Parameters
    ----------
    path : str or Path
        With the ending of a format for floats. Classes are channels.
    probabilities : array of float16 or float32 of shape (K, Z, Y, X)
        Read by slicing only, plane by plane.
    like : Volume
        The image that they belong to.

    Raises
    ------
    FileProblem
        If the file cannot be written.
    DataProblem
        If they are not on the grid of ``like``, or no floats.
    """
    check_writable(path, "probabilities")
    _check_grid(probabilities, 4, like)
    _write_fractions(Path(path), "probabilities", probabilities, like)


def write_uncertainty(path: str | Path, uncertainty: Any, like: Volume) -> None:
    """Write the uncertainty of each voxel, whole or not at all.

    Parameters
    ----------
    path : str or Path
        With an ending as for `write_probabilities`.
    uncertainty : array of float16 or float32 of shape (Z, Y, X)
        Read by slicing only, plane by plane.
    like : Volume
        The image that it belongs to.

    Raises
    ------
    FileProblem
        If the file cannot be written.
    DataProblem
        If it is not on the grid of ``like``, or no floats.
    """
    check_writable(path, "uncertainty")
    _check_grid(uncertainty, 3, like)
    _write_fractions(Path(path), "uncertainty", uncertainty, like)


def _write_fractions(path: Path, kind: Kind, array: Any, like: Volume) -> None:
    """Write floats: as they are where the format holds their type."""
    if array.dtype.kind != "f":
        raise DataProblem(f"Values of type {array.dtype} are no fractions; give float16 or float32.")
    chosen = check_fits(path, kind, array.shape)
    dtype = chosen.fraction_dtype(array.dtype.name)
    _write(path, chosen, array if dtype == array.dtype.name else Typed(array, dtype), like)


def _check_lossless(source: str | Path) -> None:
    """Refuse files of a format that changes values when it is written."""
    for path in paths_of(source):
        if (kind := format_of(path)) and kind.lossy:
            raise DataProblem(
                f"{source}: {kind.name} changes values, so labels cannot be read from it; save them as one of "
                f"{listed(endings_for('labels'))}."
            )


def _load(source: str | Path, spacing: Spacing | None, palette: bool) -> Volume:
    """Read the channel files of one image and stack them."""
    paths = paths_of(source)
    images = [read_file(existing(path)) for path in paths]
    first = images[0]
    for path, image in zip(paths, images, strict=True):
        if image.palette and not palette:
            raise DataProblem(f"{path.name} holds palette colours, no intensities; save it as grey values or RGB.")
        if difference := _difference(first, image):
            raise DataProblem(
                f"{path.name} has another {difference} than {paths[0].name}; the channels of one image "
                "must share one grid, so resample one to the other first."
            )
    arrays = [image.data for image in images]
    data = arrays[0] if len(arrays) == 1 else _stacked(arrays)
    return Volume(data, first.spacing or spacing or (1.0, 1.0, 1.0), first.unit, first.affine, stem_of(paths[0]))


def _stacked(arrays: list[Any]) -> Any:
    """Make channel files one array: in memory if they are small, else a view that reads what is sliced."""
    stack = Stack(arrays)
    small = math.prod(stack.shape) * stack.dtype.itemsize <= LARGE_BYTES
    return np.asarray(stack) if small else View(stack)


def _channels_equal(data: Any) -> bool:
    """Whether all channels hold the same values."""
    read = (np.asarray(data[(slice(None), *box)]) for box in parts(data))
    return all(np.array_equal(part[0], other) for part in read for other in part[1:])


def _difference(one: ImageFile, other: ImageFile) -> str:
    """Say in which way the grids of two channel files differ; empty if they do not."""
    if one.data.shape[1:] != other.data.shape[1:]:
        return f"shape {other.data.shape[1:]} {one.data.shape[1:]}".replace(") (", ") instead of (")
    sizes = one.spacing or (1.0, 1.0, 1.0), other.spacing or (1.0, 1.0, 1.0)
    if one.unit != other.unit or not np.allclose(*sizes, rtol=1e-3, atol=0):
        return "spacing"
    if (one.affine is None) != (other.affine is None):
        return "affine"
    same = one.affine is None or np.allclose(one.affine, cast("Any", other.affine), rtol=1e-3, atol=1e-3)
    return "" if same else "affine"


def _check_grid(array: Any, axes: int, like: Volume) -> None:
    """Refuse results that are not on the grid of their image."""
    if array.ndim != axes or array.shape[-3:] != like.shape:
        raise DataProblem(f"A result of shape {array.shape} is not on the grid {like.shape} of {like.name}.")


def _write(path: Path, kind: Format, array: Any, like: Volume) -> None:
    """Write a result, whole or not at all."""
    with writing(path), replacing(path) as part:
        kind.function("write")(part, array, like)
