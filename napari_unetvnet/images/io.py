"""Files to volumes and labels to files, geometry intact.

A reader a format turns one file into `ImageFile`: the array as (C, Z, Y, X) and what the file says of space. All else
is the same for every format: channel files are stacked, labels are checked, results are written beside their place and
moved there when they are complete. A library's complaint about a bad file becomes one sentence, and a file that is cut
off is refused even where the library would fill the gap with zeros.

Spacing comes from the zooms and unit of NIfTI ("mm" where the file names none), from ImageJ or OME metadata of TIFF,
from OME-Zarr, and from the attribute element_size_um of HDF5; it is unknown in PNG, JPEG and npy files. What NIfTI and
TIFF cannot say is converted (nm to mm) or left out.
"""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from napari_unetvnet.errors import DataProblem, FileProblem
from napari_unetvnet.files import replacing, writing
from napari_unetvnet.images.arrays import Stack, Typed, View, cut, new_array, parts
from napari_unetvnet.images.pairs import PairFiles, find_pairs, read_pairs_csv, resolve
from napari_unetvnet.images.readers import ARRAYS, LARGE_BYTES, ImageFile, existing, paths_of, read_file, stem_of
from napari_unetvnet.images.volume import Volume, check_finite
from napari_unetvnet.images.writers import WRITERS, replaceable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_unetvnet.conventions import Spacing

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

Kind = Literal["labels", "probabilities", "uncertainty", "model"]
WHOLE = 0.01  # how far from a whole number a label may be: NIfTI with a scale factor stores 1 as 1.004
WRITABLE: dict[Kind, tuple[str, ...]] = {
    "labels": (*ARRAYS, ".zarr", ".png"),
    "probabilities": (*ARRAYS, ".zarr"),
    "uncertainty": (*ARRAYS, ".zarr"),
    "model": (".safetensors",),
}


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
        Looked at part by part, and not loaded where `read_volume` would not.

    Raises
    ------
    FileProblem
        If the file is missing, cut off, damaged or of another kind.
    DataProblem
        If values are fractional, negative, NaN or colours, or the file is a JPEG.
    """
    if str(source).lower().endswith((".jpg", ".jpeg")):
        raise DataProblem(f"{source}: JPEG changes values, so labels cannot be read from it; save them as PNG or TIFF.")
    volume = _load(source, spacing, palette=True)
    if overlapping:
        return replace(volume, data=_whole_numbers(volume.data, volume.name))
    if volume.channels > 1 and not _channels_equal(volume.data):
        raise DataProblem(
            f"{volume.name}: labels have {volume.channels} channels that differ, such as colours; "
            "save one channel with a whole number for each class or object, or say that they are masks of classes that "
            "overlap (--label-values overlapping)."
        )
    first = cut(volume.data, (slice(1), slice(None), slice(None), slice(None)))
    return replace(volume, data=_whole_numbers(first, volume.name))


def write_labels(path: str | Path, labels: Any, like: Volume) -> None:
    """Write labels, complete or not at all, in the smallest unsigned type that holds them.

    Parameters
    ----------
    path : str or Path
        The ending decides the format: .nii.gz, .nii, .tif, .tiff, .npy, .zarr, .png. NIfTI keeps affine, spacing and
        unit, TIFF and zarr spacing and unit. npy and TIFF are (Y, X) where Z is 1.
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
    check_writable(path, "labels")
    _check_grid(labels, 4 if labels.ndim == 4 else 3, like)
    if labels.dtype.kind not in "bui":
        raise DataProblem(f"Labels of type {labels.dtype} cannot be written; give whole numbers.")
    highest = max(_highest(np.asarray(labels[(..., *box)]), like.name) for box in parts(labels))
    _write(Path(path), Typed(labels, np.min_scalar_type(highest)), like)


def write_probabilities(path: str | Path, probabilities: Any, like: Volume) -> None:
    """Write a probability for each class and voxel, complete or not at all.

    Parameters
    ----------
    path : str or Path
        Ending .nii.gz, .nii, .tif, .tiff (float32 all, classes as channels), .npy or .zarr (K, Z, Y, X).
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
    _write_fractions(Path(path), probabilities, like)


def write_uncertainty(path: str | Path, uncertainty: Any, like: Volume) -> None:
    """Write how unsure the network is of each voxel, complete or not at all.

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
    _write_fractions(Path(path), uncertainty, like)


def _write_fractions(path: Path, array: Any, like: Volume) -> None:
    """Write floats: as they are where the format has half ones, too."""
    if array.dtype.kind != "f":
        raise DataProblem(f"Values of type {array.dtype} are no fractions; give float16 or float32.")
    halves = path.suffix.lower() in {".npy", ".zarr"}
    _write(path, array if halves else Typed(array, np.float32), like)


def check_writable(path: str | Path, kind: Kind) -> None:
    """Refuse a place or ending that cannot be written, before any work is done.

    Parameters
    ----------
    path : str or Path
    kind : {"labels", "probabilities", "uncertainty", "model"}

    Raises
    ------
    FileProblem
        If the ending is not one for this kind, the folder is missing or not writable, or the path is a folder and not
        an earlier result.
    """
    path = Path(path)
    if not path.name.lower().endswith(WRITABLE[kind]):
        reasons = {".jpg": "JPEG changes values", ".jpeg": "JPEG changes values", ".png": "PNG holds no fractions"}
        reason = reasons.get(path.suffix.lower(), "the ending decides the format")
        raise FileProblem(f"Cannot write {kind} to {path.name}: {reason}; use {', '.join(WRITABLE[kind])}.")
    if path.suffix.lower() == ".zarr":
        if not replaceable(path):
            raise FileProblem(f"{path} is there and no zarr folder, so it is not replaced; choose another place.")
    elif path.is_dir():
        raise FileProblem(f"{path} is a folder; name a file in it.")
    if not path.parent.is_dir():
        raise FileProblem(f"There is no folder {path.parent} to write {path.name} to; create it or choose another.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise FileProblem(f"Folder {path.parent} is write-protected; choose another for {path.name}.")


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
    """Make channel files one array: in memory if they are small, else by reading each when it is asked for."""
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


def _whole_numbers(values: Any, name: str) -> Any:
    """Check part by part that labels are whole numbers of 0 or more, and make them integers."""
    highest = max(_highest(np.asarray(values[(..., *box)]), name) for box in parts(values))
    kind = np.dtype(values.dtype).kind
    if kind not in "bf":
        return values
    whole = new_array(values.shape, np.uint8 if kind == "b" else np.min_scalar_type(highest))
    for box in parts(values):
        part = np.asarray(values[(..., *box)])
        whole[(..., *box)] = np.rint(part) if kind == "f" else part
    return whole


def _highest(values: NDArray[Any], name: str) -> int:
    """Give the highest label, and refuse what are no labels."""
    check_finite(values, name)
    lowest = values.min()
    if lowest < (0 if values.dtype.kind != "f" else -0.5):
        raise DataProblem(
            f"{name}: labels hold negative values such as {lowest:g}; number classes and objects from 1; 0 is "
            "background or unpainted."
        )
    if values.dtype.kind != "f":
        return int(values.max())
    if float(values.max()) >= 2**53:
        raise DataProblem(f"{name}: labels hold values such as {values.max():g}; number classes and objects from 1.")
    rounded: NDArray[Any] = np.rint(values)
    if (fractional := np.abs(values - rounded) > WHOLE).any():
        raise DataProblem(
            f"{name}: labels hold fractional values such as {values[fractional][0]:.6g}, but a label is a whole "
            "number; soft or anti-aliased masks must be thresholded (for example at 0.5) and saved as integers."
        )
    return int(rounded.max())


def _check_grid(array: Any, axes: int, like: Volume) -> None:
    """Refuse results that are not on the grid of their image."""
    if array.ndim != axes or array.shape[-3:] != like.shape:
        raise DataProblem(f"A result of shape {array.shape} is not on the grid {like.shape} of {like.name}.")


def _write(path: Path, array: Any, like: Volume) -> None:
    """Write a result, whole or not at all."""
    with writing(path), replacing(path) as part:
        WRITERS[path.suffix.lower()](part, array, like)
