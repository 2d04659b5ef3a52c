"""NIfTI volumes: (x, y, z) or (x, y, z, channel) on the disk, with an affine."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.errors import DataProblem, FileProblem
from napari_unetvnet.images import image_file
from napari_unetvnet.images.arrays import Scaled, Typed, View, planes
from napari_unetvnet.images.class_names import from_json, to_json
from napari_unetvnet.images.damage import log_of, reading
from napari_unetvnet.images.image_file import ImageFile
from napari_unetvnet.images.units import METRES, edge_length, unit_name

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_unetvnet.images.class_names import ClassNames
    from napari_unetvnet.images.volume import Volume

UNITS = {1: "m", 2: "mm", 3: "micrometer"}
"""Our names of the units that NIfTI knows, by its codes."""
NAMES = {"m": "meter", "mm": "mm", "micrometer": "micron"}
"""Nibabel's names of them."""
COMMENT = 6
"""The code of a header extension with plain text."""


def read(path: Path) -> ImageFile:
    """Read a volume, mapped where it is not zipped."""
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError, ImageDataError
    from nibabel.wrapstruct import WrapStructError

    with log_of("nibabel.global"), reading(path, ImageFileError, HeaderDataError, ImageDataError, WrapStructError):
        image = nibabel.load(path)
        if not isinstance(image, nibabel.Nifti1Image):
            raise FileProblem(f"{path.name} holds {type(image).__name__}, no voxels; save it as NIfTI volume.")
        array = _voxels(path, image)
        x, y, z = (*image.header.get_zooms()[:3], 1.0, 1.0)[:3]
        unit = UNITS.get(int(image.header["xyzt_units"]) & 7, "mm")
        affine = np.array(image.affine, np.float64)
        names = _class_names(image.header)
    if array.dtype.names:
        array = np.stack([array[name] for name in array.dtype.names if name != "A"], axis=-1)
    if array.ndim not in {2, 3, 4}:
        raise DataProblem(f"{path.name} has {array.ndim} axes; save one volume (x, y, z) or (x, y, z, channel).")
    if isinstance(array, Scaled):
        data: Any = View(array, [axis if axis < array.ndim else None for axis in (3, 2, 1, 0)])
    else:
        data = array.reshape(array.shape + (1,) * (4 - array.ndim), order="F").T
    return ImageFile(data, (edge_length(z), edge_length(y), edge_length(x)), unit, affine, class_names=names)


def _class_names(header: Any) -> ClassNames:
    """Find the names of classes among the comments of a header."""
    comments = [part.get_content() for part in header.extensions if part.get_code() == COMMENT]
    texts = [part.decode("utf-8", errors="replace") if isinstance(part, bytes) else str(part) for part in comments]
    return next((names for text in texts if (names := from_json(text.rstrip("\0 ")))), ())


def _voxels(path: Path, image: Any) -> Any:
    """Give the voxels (x, y, z, ...): unpacked, mapped, or, where a large file has a scale, read when sliced."""
    if path.suffix.lower() == ".gz":
        return _unzipped(path, type(image))
    scaled = (image.dataobj.slope, image.dataobj.inter) != (1, 0)
    size = np.prod(image.shape, dtype=np.int64) * np.dtype(np.float64).itemsize
    large = scaled and size > image_file.LARGE_BYTES
    return Scaled(image.dataobj) if large else np.asanyarray(image.dataobj)


def _unzipped(path: Path, kind: Any) -> NDArray[Any]:
    """Unpack a .nii.gz to its very end, where the check sum is."""
    with gzip.open(path) as stream:
        array = np.asarray(kind.from_stream(stream).dataobj)
        while stream.read(1 << 20):
            pass
    return array


def write(path: Path, array: Any, like: Volume) -> None:
    """Write (x, y, z) or (x, y, z, class) with the affine of the image; zipped where the ending says so."""
    import nibabel
    from nibabel.openers import ImageOpener
    from nibabel.volumeutils import seek_tell

    array = Typed(array, array.dtype.newbyteorder("="))  # that of the header
    unit = unit_name(like.unit)
    scale = 1.0 if unit in NAMES else METRES.get(unit, METRES["mm"]) / METRES["mm"]
    z, y, x = (size * scale for size in like.spacing)
    affine = np.diag([x, y, z, 1.0]) if like.affine is None else np.diag([scale] * 3 + [1.0]) @ like.affine
    nothing = np.broadcast_to(np.zeros((), array.dtype), array.shape[::-1])  # has a size, and takes no memory
    image = nibabel.Nifti1Image(nothing, affine, dtype=array.dtype)
    image.header.set_zooms((x, y, z, 1.0)[: array.ndim])  # the affine's column lengths may differ from these
    image.header.set_xyzt_units(xyz=NAMES.get(unit, "mm" if unit in METRES else "unknown"))
    image.update_header()
    image.header.set_slope_inter(1, 0)
    if like.class_names:
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension(COMMENT, to_json(like.class_names).encode()))
    with ImageOpener(path, "wb") as file:
        image.header.write_to(file)
        seek_tell(file, image.header.get_data_offset(), write0=True)
        for plane in planes(array):  # x varies first in the file, as in memory
            file.write(plane.data)
