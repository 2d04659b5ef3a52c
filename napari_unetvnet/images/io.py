"""Read volumes and labels from files, and write results, with their position in space.

The reader of a format (see `images.formats`) turns one file into `ImageFile`: the array as (C, Z, Y, X)
and its position in space. The rest is common to all formats: channel files are stacked, labels are checked, and results
are written atomically. Exceptions of libraries on bad files become one sentence, and a file that is cut off is refused
even where the library would fill the gap with zeros.

Voxel size, unit and position come from NIfTI ("mm" if the file has no unit), from ImageJ or OME metadata of TIFF, and
from OME-Zarr, the voxel size also from the attribute element_size_um of HDF5; they are unknown in PNG, JPEG and npy
files. Units that NIfTI does not have are converted (nm to mm) or left out.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.files import writing
from napari_unetvnet.images.arrays import Typed, cut, parts
from napari_unetvnet.images.class_names import write_tables
from napari_unetvnet.images.damage import ending_by_content
from napari_unetvnet.images.formats import endings_for, format_of, listed
from napari_unetvnet.images.label_values import highest_label, whole_numbers
from napari_unetvnet.images.outputs import check_fits, check_writable
from napari_unetvnet.images.pair_table import read_pairs_csv, resolve
from napari_unetvnet.images.pairs import PairFiles, find_pairs
from napari_unetvnet.images.series import Opened, opened
from napari_unetvnet.images.sources import paths_of
from napari_unetvnet.images.written import delivering

if TYPE_CHECKING:
    from napari_unetvnet.conventions import Spacing
    from napari_unetvnet.images.formats import Format, Kind
    from napari_unetvnet.images.volume import Volume

__all__ = [
    "PairFiles",
    "check_writable",
    "find_pairs",
    "labels_of",
    "opened_labels",
    "read_labels",
    "read_pairs_csv",
    "read_volume",
    "resolve",
    "write_labels",
    "write_probabilities",
    "write_uncertainty",
]


def read_volume(
    source: str | Path, spacing: Spacing | None = None, axes: str = "", *, notices: list[str] | None = None
) -> Volume:
    """Read an image.

    Parameters
    ----------
    source : str or Path
        One file, or the channel files of one image separated by ``|``. Colours become channels, alpha is dropped;
        the fourth axis of NIfTI is channels; npy, and zarr and HDF5 without axis names, are (Y, X), (Z, Y, X) or
        (C, Z, Y, X). A .zarr folder is one image, the finest level of an OME-Zarr one; ``file.h5:/path`` names a
        dataset, ``file.tif@t=3`` a time point of a series.
    spacing : tuple of 3 float, optional
        Voxel size (z, y, x) for files without one; their unit stays "pixel".
    axes : str
        Axes of the array in each file, such as "zyx" or "cyx", for formats that do not have a fixed order.
    notices : list of str, optional
        Channel files on other grids than the first are brought to it, and what was done is appended here. Without it
        they are refused.

    Returns
    -------
    Volume, data of shape (C, Z, Y, X)
        Memory-mapped, copy on write, if the format allows; a View, which reads what is sliced, for zarr, HDF5 and large
        files that must be converted. Named after the first file, without its ending.

    Raises
    ------
    FileProblem
        If a file is missing, cut off, damaged or of another kind.
    DataProblem
        If the channels differ in grid, or the axes are not those of one 2D or 3D image. `UnclearAxes` if the first of
        three axes has no name and is short, so that it can be planes, channels or time points.
    """
    image = opened(source, axes)
    image.check_axes()
    return image.volume(spacing=spacing, notices=notices)


def read_labels(
    source: str | Path, spacing: Spacing | None = None, axes: str = "", *, overlapping: bool = False
) -> Volume:
    """Read labels: one non-negative integer for each voxel.

    Parameters
    ----------
    source : str or Path
        One file. Floats are accepted if all are integers (to 0.01, the noise of scaled NIfTI), colours if all channels
        are equal; of a palette, the indices.
    spacing : tuple of 3 float, optional
        Voxel size (z, y, x) for a file without one.
    axes : str
        As for `read_volume`.
    overlapping : bool
        Whether each channel, or each file separated by ``|``, is a mask.

    Returns
    -------
    Volume, data of integers of shape (1, Z, Y, X), or (K, Z, Y, X) if overlapping
        Checked box by box, and not loaded if `read_volume` would not load it.

    Raises
    ------
    FileProblem
        If the file is missing, cut off, damaged or of another kind.
    DataProblem
        If values are fractional, negative, NaN or colours, or the file is a JPEG.
    """
    return labels_of(opened_labels(source, axes), spacing, overlapping=overlapping)


def opened_labels(source: str | Path, axes: str = "") -> Opened:
    """Open the files of labels, as `series.opened` does, and refuse those of a lossy format.

    Returns
    -------
    Opened

    Raises
    ------
    FileProblem
        If a file is missing, cut off, damaged or of another kind.
    DataProblem
        If a file is a JPEG, or its axes are not those of one image or series.
    """
    _check_lossless(source)
    return opened(source, axes)


def labels_of(
    labels: Opened, spacing: Spacing | None = None, *, point: int | None = None, overlapping: bool = False
) -> Volume:
    """Give the labels in open files, as `read_labels` does.

    Parameters
    ----------
    spacing : tuple of 3 float, optional
        Voxel size (z, y, x) for a file without one.
    point : int, optional
        The time point of a series.
    overlapping : bool
        Whether each channel, or each file separated by ``|``, is a mask.

    Returns
    -------
    Volume, data of integers of shape (1, Z, Y, X), or (K, Z, Y, X) if overlapping

    Raises
    ------
    DataProblem
        If values are fractional, negative, NaN or colours, or no time point of a series is named.
    """
    volume, question = labels.volume(point, spacing=spacing, palette=True), labels.images[0].question
    if overlapping:
        return replace(volume, data=whole_numbers(volume.data, volume.name))
    if volume.channels > 1 and not _channels_equal(volume.data):
        if question:
            raise DataProblem(
                f"{volume.name}: labels have one channel, but the first axis was read as channels {question}."
            )
        raise DataProblem(
            f"{volume.name}: labels have {volume.channels} channels that differ, such as colours; "
            "save one channel with an integer for each class or object, or choose masks of overlapping classes "
            "(--label-values overlapping)."
        )
    first_channel = cut(volume.data, (slice(1), slice(None), slice(None), slice(None)))
    return replace(volume, data=whole_numbers(first_channel, volume.name))


def write_labels(path: str | Path, labels: Any, like: Volume) -> None:
    """Write labels atomically, in the smallest unsigned type that holds them.

    Parameters
    ----------
    path : str or Path
        The ending decides the format, and so what is stored of the position in space: see `images.formats`.
        npy and TIFF are (Y, X) where Z is 1.
    labels : integer array of shape (Z, Y, X), or (K, Z, Y, X) with a mask for each class
        Read by slicing only, plane by plane. Of a time series with T before these axes, and then one by one.
    like : Volume
        The image that the labels belong to, with names of classes if there are some; of a series, its first time point
        with its ``time``. For a format without room for
        them that viewers read, they are also written beside the file.

    Raises
    ------
    FileProblem
        If the file cannot be written.
    DataProblem
        If the labels are not on the grid of ``like``, not integers of 0 or more, or do not fit the format.
    """
    path = Path(path)
    check_writable(path, "labels")
    _check_grid(labels, {3, 4}, like)
    if labels.dtype.kind not in "bui":
        raise DataProblem(f"Labels of type {labels.dtype} cannot be written; give integers.")
    series = [labels] if like.time is None else (labels[i] for i in range(like.time.points))
    highest = max(highest_label(each, like.name) for each in series)
    file_format = check_fits(path, "labels", _shape(labels, like), highest, points=_points(like))
    _write(path, file_format, Typed(labels, file_format.label_dtype(highest)), like)
    if file_format.tables:
        write_tables(path, like.class_names)


def write_probabilities(path: str | Path, probabilities: Any, like: Volume) -> None:
    """Write class probabilities atomically.

    Parameters
    ----------
    path : str or Path
        With the ending of a format that holds floats. Classes are channels.
    probabilities : array of float16 or float32 of shape (K, Z, Y, X)
        Read by slicing only, plane by plane.
    like : Volume
        The image that they belong to.

    Raises
    ------
    FileProblem
        If the file cannot be written.
    DataProblem
        If they are not on the grid of ``like``, or not floats.
    """
    check_writable(path, "probabilities")
    _check_grid(probabilities, {4}, like)
    _write_fractions(Path(path), "probabilities", probabilities, like)


def write_uncertainty(path: str | Path, uncertainty: Any, like: Volume) -> None:
    """Write the uncertainty of each voxel atomically.

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
        If it is not on the grid of ``like``, or not floats.
    """
    check_writable(path, "uncertainty")
    _check_grid(uncertainty, {3}, like)
    _write_fractions(Path(path), "uncertainty", uncertainty, like)


def _write_fractions(path: Path, kind: Kind, array: Any, like: Volume) -> None:
    """Write floats, in their type if the format holds it."""
    if array.dtype.kind != "f":
        raise DataProblem(f"Values of type {array.dtype} are not floats; give float16 or float32.")
    file_format = check_fits(path, kind, _shape(array, like), points=_points(like))
    dtype = file_format.fraction_dtype(array.dtype.name)
    _write(path, file_format, array if dtype == array.dtype.name else Typed(array, dtype), like)


def _check_lossless(source: str | Path) -> None:
    """Refuse files of a lossy format."""
    for path in paths_of(source):
        kind = format_of(ending) if (ending := ending_by_content(path)) else format_of(path)
        if kind and kind.lossy:
            raise DataProblem(
                f"{source}: {kind.name} changes values, so labels cannot be read from it; save them as one of "
                f"{listed(endings_for('labels'))}."
            )


def _channels_equal(data: Any) -> bool:
    """Whether all channels are equal."""
    read = (np.asarray(data[(slice(None), *box)]) for box in parts(data))
    return all(np.array_equal(part[0], channel) for part in read for channel in part[1:])


def _check_grid(array: Any, axes: set[int], like: Volume) -> None:
    """Refuse results that are not on the grid of their image, or not of its time points."""
    shape = _shape(array, like)
    if len(shape) not in axes or shape[-3:] != like.shape or array.shape[: -len(shape)] not in {(), (_points(like),)}:
        raise DataProblem(f"A result of shape {array.shape} is not on the grid {like.shape} of {like.name}.")


def _shape(array: Any, like: Volume) -> tuple[int, ...]:
    """Give the shape of a result without its time points."""
    shape = tuple(map(int, array.shape))
    return shape if like.time is None else shape[1:]


def _points(like: Volume) -> int:
    return 1 if like.time is None else like.time.points


def _write(path: Path, kind: Format, array: Any, like: Volume) -> None:
    """Write a result atomically."""
    with writing(path), delivering(path) as (part,):
        kind.function("write")(part, array, like)
