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
from napari_unetvnet.images.channels import stacked
from napari_unetvnet.images.class_names import write_tables
from napari_unetvnet.images.formats import endings_for, format_of, listed
from napari_unetvnet.images.geometry import Grid
from napari_unetvnet.images.image_file import ImageFile, read_file
from napari_unetvnet.images.label_values import highest_label, whole_numbers
from napari_unetvnet.images.onto_grid import onto_grid
from napari_unetvnet.images.outputs import check_fits, check_writable
from napari_unetvnet.images.pair_table import read_pairs_csv, resolve
from napari_unetvnet.images.pairs import PairFiles, find_pairs
from napari_unetvnet.images.same_grid import difference
from napari_unetvnet.images.sources import existing, paths_of, stem_of
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.images.written import delivering

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
        dataset.
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
        If the channels differ in grid, or the axes are not those of one 2D or 3D image.
    """
    return _load(source, spacing, axes, palette=False, notices=notices)[0]


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
    _check_lossless(source)
    volume, question = _load(source, spacing, axes, palette=True)
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
        Read by slicing only, plane by plane.
    like : Volume
        The image that the labels belong to, with names of classes if there are some. For a format without room for
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
    _check_grid(labels, 4 if labels.ndim == 4 else 3, like)
    if labels.dtype.kind not in "bui":
        raise DataProblem(f"Labels of type {labels.dtype} cannot be written; give integers.")
    highest = highest_label(labels, like.name)
    file_format = check_fits(path, "labels", labels.shape, highest)
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
    _check_grid(probabilities, 4, like)
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
    _check_grid(uncertainty, 3, like)
    _write_fractions(Path(path), "uncertainty", uncertainty, like)


def _write_fractions(path: Path, kind: Kind, array: Any, like: Volume) -> None:
    """Write floats, in their type if the format holds it."""
    if array.dtype.kind != "f":
        raise DataProblem(f"Values of type {array.dtype} are not floats; give float16 or float32.")
    file_format = check_fits(path, kind, array.shape)
    dtype = file_format.fraction_dtype(array.dtype.name)
    _write(path, file_format, array if dtype == array.dtype.name else Typed(array, dtype), like)


def _check_lossless(source: str | Path) -> None:
    """Refuse files of a lossy format."""
    for path in paths_of(source):
        if (kind := format_of(path)) and kind.lossy:
            raise DataProblem(
                f"{source}: {kind.name} changes values, so labels cannot be read from it; save them as one of "
                f"{listed(endings_for('labels'))}."
            )


def _load(
    source: str | Path, spacing: Spacing | None, axes: str, *, palette: bool, notices: list[str] | None = None
) -> tuple[Volume, str]:
    """Read the channel files of one image and stack them; also ask what its axes are if they may be others."""
    paths = paths_of(source)
    images = [read_file(existing(path), axes) for path in paths]
    first = images[0]
    for path, image in zip(paths, images, strict=True):
        if image.palette and not palette:
            raise DataProblem(f"{path.name} has palette colours, not intensities; save it as grey values or RGB.")
    arrays = [first.data]
    arrays += [_on_grid_of(first, paths[0], *each, notices) for each in zip(images[1:], paths[1:], strict=True)]
    data = arrays[0] if len(arrays) == 1 else stacked(arrays)
    placed = next((each.geometry for each in images if each.geometry.is_known), first.geometry)
    volume = Volume(data, placed.completed(spacing), stem_of(paths[0]), first.class_names)
    return volume, first.question


def _channels_equal(data: Any) -> bool:
    """Whether all channels are equal."""
    read = (np.asarray(data[(slice(None), *box)]) for box in parts(data))
    return all(np.array_equal(part[0], channel) for part in read for channel in part[1:])


def _on_grid_of(first: ImageFile, name: Path, image: ImageFile, path: Path, notices: list[str] | None) -> Any:
    """Give the array of a channel file on the grid of the first, or refuse it where no one can be told."""
    if notices is None and (found := difference(_grid(first), _grid(image), name.name)):
        raise DataProblem(
            f"{path.name} {found.text}; the channels of one image must have the same grid, so resample one to the "
            "other first."
        )
    placed, sentence = onto_grid(Volume(image.data, image.geometry, path.name), _grid(first), name.name)
    if notices is not None and sentence:
        notices.append(sentence)
    return placed.data


def _grid(image: ImageFile) -> Grid:
    z, y, x = image.data.shape[1:]
    return Grid((z, y, x), image.geometry)


def _check_grid(array: Any, axes: int, like: Volume) -> None:
    """Refuse results that are not on the grid of their image."""
    if array.ndim != axes or array.shape[-3:] != like.shape:
        raise DataProblem(f"A result of shape {array.shape} is not on the grid {like.shape} of {like.name}.")


def _write(path: Path, kind: Format, array: Any, like: Volume) -> None:
    """Write a result atomically."""
    with writing(path), delivering(path) as (part,):
        kind.function("write")(part, array, like)
