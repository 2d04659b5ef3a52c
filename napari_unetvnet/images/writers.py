"""One writer a format: an array (..., Z, Y, X) to a file, plane by plane, so that it need not fit into memory."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images import ome_zarr
from napari_unetvnet.images.arrays import parts
from napari_unetvnet.images.readers import ARRAYS, METRES, MICRO, NIFTI_UNITS, unit_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_unetvnet.images.volume import Volume

__all__ = ["WRITERS", "replaceable"]

ZARR_FILES = ("zarr.json", ".zgroup", ".zarray")
"""A zarr folder has one of them."""


def replaceable(path: Path) -> bool:
    """Whether a zarr folder may be put in a place: where nothing is, or an empty folder, or another zarr folder.

    Parameters
    ----------
    path : Path

    Returns
    -------
    bool
    """
    if not path.is_dir():
        return not path.exists()
    return any((path / name).exists() for name in ZARR_FILES) or not any(path.iterdir())


def _planes(array: Any) -> Iterator[NDArray[Any]]:
    """Read an array (..., Z, Y, X) plane by plane, in the order of its voxels."""
    for place in np.ndindex(array.shape[:-2]):
        yield np.ascontiguousarray(array[place])


def _highest(array: Any) -> int:
    return max(int(plane.max()) for plane in _planes(array))


def _write_npy(path: Path, array: Any, like: Volume) -> None:
    """Write labels (Z, Y, X) or (Y, X), or probabilities (K, Z, Y, X)."""
    shape = tuple(array.shape)[1:] if array.ndim == 3 and like.shape[0] == 1 else tuple(array.shape)
    kind = np.lib.format.dtype_to_descr(array.dtype)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})
        for plane in _planes(array):
            file.write(plane.data)


def _write_png(path: Path, array: Any, like: Volume) -> None:
    """Write labels (1, Y, X)."""
    from PIL import Image

    if like.shape[0] > 1 or array.dtype.itemsize > 2:
        limits = (
            f"PNG holds one plane with labels to 65535, not {like.shape[0]} planes with labels to {_highest(array)}"
        )
        raise DataProblem(f"{limits}; use {', '.join(ARRAYS)}.")
    Image.fromarray(np.asarray(array[0])).save(path)


def _write_nifti(path: Path, array: Any, like: Volume) -> None:
    """Write (x, y, z) or (x, y, z, class) with the affine of the image; zipped where the ending says so."""
    import nibabel
    from nibabel.openers import ImageOpener
    from nibabel.volumeutils import seek_tell

    unit = unit_name(like.unit)
    scale = 1.0 if unit in NIFTI_UNITS.values() else METRES.get(unit, METRES["mm"]) / METRES["mm"]
    z, y, x = (size * scale for size in like.spacing)
    affine = np.diag([x, y, z, 1.0]) if like.affine is None else np.diag([scale] * 3 + [1.0]) @ like.affine
    nothing = np.broadcast_to(np.zeros((), array.dtype), array.shape[::-1])  # has a size, and takes no memory
    image = nibabel.Nifti1Image(nothing, affine)
    image.header.set_zooms((x, y, z, 1.0)[: array.ndim])  # the affine's column lengths may differ from these
    names = {"m": "meter", "mm": "mm", "micrometer": "micron"}
    image.header.set_xyzt_units(xyz=names.get(unit, "mm" if unit in METRES else "unknown"))
    image.update_header()
    image.header.set_slope_inter(1, 0)
    with ImageOpener(path, "wb") as file:
        image.header.write_to(file)
        seek_tell(file, image.header.get_data_offset(), write0=True)
        for plane in _planes(array):  # x varies first in the file, as in memory
            file.write(plane.data)


def _write_tiff(path: Path, array: Any, like: Volume) -> None:
    """Write an ImageJ TIFF, or an OME-TIFF of what ImageJ cannot hold."""
    import tifffile

    shape, axes = (array.shape[-3], *array.shape[:-3], *array.shape[-2:]), "ZCYX" if array.ndim == 4 else "ZYX"
    if like.shape[0] == 1:
        shape, axes = shape[1:], axes[1:]
    size = prod(shape) * array.dtype.itemsize
    fits_imagej = array.dtype.char in "BHf" and size < 2**31 and min(shape[-2:]) > 1
    if fits_imagej and not path.name.lower().endswith((".ome.tif", ".ome.tiff")):
        options = _imagej_options(like)
    elif array.dtype.itemsize > 4:
        raise DataProblem(f"TIFF holds labels to {2**32 - 1}, not {_highest(array)}; use .nii.gz or .npy.")
    else:
        options = _ome_options(like) | {"bigtiff": size >= 2**31}
    options["metadata"]["axes"] = axes
    pages = (np.ascontiguousarray(array[(*k, z)]) for z in range(array.shape[-3]) for k in np.ndindex(array.shape[:-3]))
    tifffile.imwrite(path, pages, shape=shape, dtype=array.dtype, photometric="minisblack", **options)


def _imagej_options(like: Volume) -> dict[str, Any]:
    """Spacing and unit as ImageJ keeps them."""
    (z, y, x), unit = like.spacing, unit_name(like.unit)
    letters = (letter if letter.isascii() else f"\\u{ord(letter):04X}" for letter in unit)
    facts = {"spacing": z, "unit": "micron" if unit == "micrometer" else "".join(letters)}
    return {"imagej": True, "resolution": (1 / x, 1 / y), "metadata": facts}


def _ome_options(like: Volume) -> dict[str, Any]:
    """Spacing and unit as OME keeps them."""
    unit = unit_name(like.unit)
    facts: dict[str, Any] = {f"PhysicalSize{axis}": size for axis, size in zip("ZYX", like.spacing, strict=True)}
    facts |= {f"PhysicalSize{axis}Unit": MICRO if unit == "micrometer" else unit for axis in "ZYX"}
    return {"ome": True, "metadata": facts}


def _write_zarr(path: Path, array: Any, like: Volume) -> None:
    """Write an OME-Zarr image, chunk by chunk."""
    made = ome_zarr.create(path, tuple(array.shape), array.dtype, like)
    for k in np.ndindex(made.shape[:-3]):
        for box in parts(made, prod(made.chunks)):
            made[(*k, *box)] = np.asarray(array[(*k, *box)])
    ome_zarr.complete(path)


WRITERS = {".nii": _write_nifti, ".gz": _write_nifti, ".tif": _write_tiff, ".tiff": _write_tiff, ".npy": _write_npy}
WRITERS |= {".png": _write_png, ".zarr": _write_zarr}
