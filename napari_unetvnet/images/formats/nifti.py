"""NIfTI volumes: (x, y, z) or (x, y, z, channel) on the disk, with up to two affines.

A file may state its place twice, as qform and as sform, and programs differ in which one they read. A result on the
grid of a NIfTI image therefore gets both, with their codes, as the image has them.
"""

from __future__ import annotations

import gzip
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.errors import DataProblem, FileProblem
from napari_unetvnet.images import image_file
from napari_unetvnet.images.arrays import Typed, planes
from napari_unetvnet.images.axes import frames_of
from napari_unetvnet.images.class_names import from_json, to_json
from napari_unetvnet.images.damage import log_of, reading
from napari_unetvnet.images.declared import check_beside, check_decoded, check_shape
from napari_unetvnet.images.geometry import Geometry
from napari_unetvnet.images.image_file import ImageFile, series_of
from napari_unetvnet.images.time_axis import seconds
from napari_unetvnet.images.units import METRES, edge_length, stated_length, unit_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from napari_unetvnet.images.class_names import ClassNames
    from napari_unetvnet.images.time_axis import TimeAxis
    from napari_unetvnet.images.volume import Volume

UNITS = {1: "m", 2: "mm", 3: "micrometer"}
"""Our names of the units that NIfTI knows, by its codes."""
NAMES = {"m": "meter", "mm": "mm", "micrometer": "micron"}
"""Nibabel's names of them."""
SPACE = (
    "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z",
    "srow_x", "srow_y", "srow_z", "pixdim", "xyzt_units",
)  # fmt: skip
"""Fields of a header that say where the voxels lie. The first of pixdim is the sign of the third axis of the qform."""
INTENT = ("intent_code", "intent_name", "intent_p1", "intent_p2", "intent_p3")
TEXT = ("descrip", "aux_file")
OTHER_SHAPES = {*range(1004, 1011), *range(2001, 2006)}
"""Codes of intents that say what further axes mean, or that the file is no image: matrices, meshes, time series."""
ALIGNED = 2
"""The code of a position in a space that no file names."""
GZIP = b"\x1f\x8b"
"""What zipped files begin with."""
LONGEST_SIDE = 32767
"""Voxels along an axis that NIfTI-1 can say; larger results are written as NIfTI-2."""
NIFTI2_BYTES = 540
"""What a NIfTI-2 file begins with: the size of its header."""
UNZIPPED_BYTES = 1 << 22
"""What is unzipped at once."""
INTEGERS = ("u1", "i1", "u2", "i2", "u4", "i4", "i8")
COMMENT = 6
"""The code of a header extension with plain text."""


def read(path: Path, axes: str = "") -> ImageFile:
    """Read a volume, mapped where it is not zipped; the fourth axis is channels unless ``axes`` holds t."""
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError, ImageDataError
    from nibabel.wrapstruct import WrapStructError

    with log_of("nibabel.global"), reading(path, ImageFileError, HeaderDataError, ImageDataError, WrapStructError):
        image, array = _opened(path)
        geometry = _geometry(image.header)
        names = _class_names(image.header)
        step, unit = float((*image.header.get_zooms(), 1.0, 1.0, 1.0)[3]), image.header.get_xyzt_units()[1]
    if array.dtype.names:
        array = np.stack([array[name] for name in array.dtype.names if name != "A"], axis=-1)
    frames = frames_of(array, _letters(array, axes, path.name), path.name)
    return series_of(frames, step, unit, geometry=geometry, class_names=names)


def further_files(path: Path) -> list[Path]:
    """Give the file of the voxels beside a header."""
    return [path.with_suffix(ending) for ending in (".img", ".IMG", ".img.gz")]


def _opened(path: Path) -> tuple[Any, Any]:
    """Open a file as what its first bytes say, whether its name ends with .gz or not; give image and voxels."""
    import nibabel

    with path.open("rb") as file:
        is_zipped = file.read(2) == GZIP
    if is_zipped == (path.suffix.lower() == ".gz"):
        image = nibabel.load(path)
        if not isinstance(image, nibabel.Nifti1Pair):
            raise FileProblem(f"{path.name} holds {type(image).__name__}, no voxels; save it as NIfTI volume.")
        voxels = Path(image.file_map["image"].filename)
        check_beside(path, [voxels.name])
        return image, _unzipped(voxels, image) if voxels.suffix.lower() == ".gz" else _voxels(image)
    with gzip.open(path) if is_zipped else path.open("rb") as stream:
        size = int.from_bytes(stream.read(4), "little")
        stream.seek(0)
        is_second = size in {NIFTI2_BYTES, int.from_bytes(NIFTI2_BYTES.to_bytes(4, "big"), "little")}
        image = (nibabel.Nifti2Image if is_second else nibabel.Nifti1Image).from_stream(stream)
        return image, _unzipped(path, image) if is_zipped else _values(image.dataobj, image.dataobj.get_unscaled())


def _letters(array: Any, axes: str, name: str) -> str:
    """Give a letter for each axis of (x, y, z, time, channel, ...); many programs use the fourth for channels."""
    if array.ndim < 2:
        raise DataProblem(f"{name} has {array.ndim} axes; save one volume (x, y, z) or (x, y, z, channel).")
    further = [axis for axis in range(3, array.ndim) if array.shape[axis] > 1]
    if len(further) > 1 and further != [3, 4]:
        size = " x ".join(map(str, array.shape))
        raise DataProblem(
            f"{name} has {array.ndim} axes ({size}); save one volume (x, y, z), (x, y, z, channel) or (x, y, z, time)."
        )
    letters = list("XYZ" + "?" * (array.ndim - 3))[: array.ndim]
    if further:
        letters[further[-1]] = "C"
    if len(further) == 2 or ("t" in axes and further == [3]):
        letters[3] = "T"
    return "".join(letters)


def _geometry(header: Any) -> Geometry:
    """Read where the voxels lie; a file without codes does not say."""
    affines = [np.array(form, np.float64) for form in _forms(header) if form is not None and not _is_flat(form)]
    if len(affines) == 2 and np.array_equal(affines[0], affines[1]):
        del affines[1]
    fields = {name: np.array(header[name]) for name in (*SPACE, *INTENT, *TEXT)}
    unit = UNITS.get(int(header["xyzt_units"]) & 7, "mm")
    main, other = (*affines, None, None)[:2]
    x, y, z = header["pixdim"][1:4].tolist()  # also of an axis that is not there, so that it stays as it is in results
    return Geometry((stated_length(z), stated_length(y), stated_length(x)), unit, main, other, fields)


def _forms(header: Any) -> tuple[Any, Any]:
    """Give sform and qform of a header, None without a code."""
    sform, _ = header.get_sform(coded=True)
    try:
        qform, _ = header.get_qform(coded=True)
    except ValueError:  # its numbers are no rotation; the sform is enough
        if sform is None:
            raise
        return sform, None
    return sform, qform


def _is_flat(affine: Any) -> bool:
    """Whether an affine, such as one of zeros, states no place."""
    return bool(np.isfinite(affine).all() and np.linalg.det(affine) == 0)


def _class_names(header: Any) -> ClassNames:
    """Find the names of classes among the comments of a header."""
    comments = [part.get_content() for part in header.extensions if part.get_code() == COMMENT]
    texts = [part.decode("utf-8", errors="replace") if isinstance(part, bytes) else str(part) for part in comments]
    return next((names for text in texts if (names := from_json(text.rstrip("\0 ")))), ())


def _voxels(image: Any) -> Any:
    """Give the voxels (x, y, z, ...): mapped or, where a large file has a scale, read when sliced."""
    stored = image.dataobj
    size = prod(image.shape) * np.dtype(np.float64).itemsize
    if not _is_scaled(stored) or size <= image_file.LARGE_BYTES:
        return _values(stored, stored.get_unscaled())
    limits = np.iinfo(stored.dtype) if stored.dtype.kind in "iu" else None
    return Typed(stored, _scaled_dtype(stored, (limits.min, limits.max) if limits else (0, 0)))


def _unzipped(path: Path, image: Any) -> NDArray[Any]:
    """Unpack voxels to the very end of their file, where the check sum is; memory fills only with what is there."""
    stored = image.dataobj
    check_shape(path, image.shape, stored.dtype)
    check_decoded(path, image.shape, stored.dtype)
    raw = np.empty(image.shape, stored.dtype, order="F")
    left = raw.reshape(-1, order="F").view(np.uint8).data
    with gzip.open(path) as stream:
        stream.seek(stored.offset)
        while left:
            if not (count := stream.readinto(left[:UNZIPPED_BYTES])):
                raise EOFError(f"its header declares {raw.nbytes} bytes of voxels, and {len(left)} of them are missing")
            left = left[count:]
        while stream.read(UNZIPPED_BYTES):
            pass
    if _is_scaled(stored):
        check_decoded(path, image.shape, _scaled_dtype(stored, _ends(raw)))
    return _values(stored, raw)


def _is_scaled(stored: Any) -> bool:
    return bool((stored.slope, stored.inter) != (1, 0))


def _values(stored: Any, raw: NDArray[Any]) -> NDArray[Any]:
    """Scale voxels, in the smallest type that holds them; nibabel would make eight bytes of each."""
    if not _is_scaled(stored) or stored.dtype.kind not in "iuf":
        from nibabel.volumeutils import apply_read_scaling

        return raw if not _is_scaled(stored) else apply_read_scaling(raw, stored.slope, stored.inter)
    dtype = _scaled_dtype(stored, _ends(raw))
    exact = np.int64 if dtype.kind in "iu" else np.float64
    values = np.empty(raw.shape, dtype, order="F")
    for k in range(raw.shape[-1]):  # the type of the sums is wider
        values[..., k] = raw[..., k].astype(exact) * exact(stored.slope) + exact(stored.inter)
    return values


def _ends(raw: NDArray[Any]) -> tuple[Any, Any]:
    """Give the lowest and the highest of the voxels as they are stored, where they are whole numbers."""
    return (raw.min(), raw.max()) if raw.size and raw.dtype.kind in "iu" else (0, 0)


def _scaled_dtype(stored: Any, ends: tuple[Any, Any]) -> np.dtype[Any]:
    """Choose the type of scaled voxels, which lie between two values before they are scaled."""
    slope, inter = float(stored.slope), float(stored.inter)
    if stored.dtype.kind in "iu" and slope.is_integer() and inter.is_integer():
        low, high = sorted(int(end) * int(slope) + int(inter) for end in ends)
        held = (np.iinfo(dtype) for dtype in INTEGERS)
        if fitting := next((each for each in held if each.min <= low and high <= each.max), None):
            return fitting.dtype
    single = np.result_type(stored.dtype, np.float16).itemsize <= np.dtype(np.float32).itemsize
    return np.dtype(np.float32 if single else np.float64)


def write(path: Path, array: Any, like: Volume) -> None:
    """Write (x, y, z), (x, y, z, class) or (x, y, z, time, class) where the image lies; zipped if its name says so."""
    import nibabel
    from nibabel.openers import ImageOpener
    from nibabel.volumeutils import seek_tell

    array = Typed(array, array.dtype.newbyteorder("="))  # that of the header
    fields = like.geometry.header if "qform_code" in like.geometry.header else {}
    is_second = bool(fields) and fields["srow_x"].dtype.itemsize == np.dtype(np.float64).itemsize
    is_large = max(array.shape) > LONGEST_SIDE
    header = nibabel.Nifti2Header() if is_second or is_large else nibabel.Nifti1Header()
    header.set_data_dtype(array.dtype)
    classes = array.shape[1:-3] if like.time is not None else ()
    header.set_data_shape((*array.shape[:-4:-1], *array.shape[:1], *classes) if classes else array.shape[::-1])
    if fields:
        _carry(header, fields)
    else:
        _place(header, like.geometry, array.ndim)
    if like.time is not None:
        _set_time(header, like.time)
    header.set_slope_inter(1, 0)
    if like.class_names:
        header.extensions.append(nibabel.nifti1.Nifti1Extension(COMMENT, to_json(like.class_names).encode()))
    with ImageOpener(path, "wb") as file:
        header.write_to(file)
        seek_tell(file, header.get_data_offset(), write0=True)
        if classes:  # time varies before the class
            for k, t, z in np.ndindex(*classes, array.shape[0], array.shape[2]):
                file.write(np.ascontiguousarray(array[t, k, z]).data)
            return
        for plane in planes(array):  # x varies first in the file, as in memory
            file.write(plane.data)


def _set_time(header: Any, time: TimeAxis) -> None:
    """Write the time from one time point to the next."""
    step = seconds(time)
    header["pixdim"][4] = time.step if step is None else step
    header.set_xyzt_units(xyz=header.get_xyzt_units()[0], t="unknown" if step is None else "sec")


def _carry(header: Any, fields: Mapping[str, Any]) -> None:
    """Write where the voxels lie, and the texts, as the file of the image has them."""
    is_carried = int(fields["intent_code"]) not in OTHER_SHAPES
    for name in (*SPACE, *TEXT, *(INTENT if is_carried else ())):
        header[name] = fields[name]
    header["pixdim"][1:4] = [edge_length(size) for size in header["pixdim"][1:4]]  # 0 for an axis that is not there
    header["pixdim"][4:] = 1


def _place(header: Any, geometry: Geometry, axes: int) -> None:
    """Write the place of voxels that are not from a NIfTI file, in both forms if the qform can hold it."""
    unit = unit_name(geometry.unit)
    scale = 1.0 if unit in NAMES else METRES.get(unit, METRES["mm"]) / METRES["mm"]
    z, y, x = (size * scale for size in geometry.spacing)
    upright = np.diag([x, y, z, 1.0])
    affine = upright if geometry.affine is None else np.diag([scale] * 3 + [1.0]) @ geometry.affine
    header.set_sform(affine, ALIGNED)
    header.set_qform(affine, ALIGNED, strip_shears=True)
    header.set_zooms((x, y, z, 1.0, 1.0)[:axes])  # the column lengths of the affine may differ from these
    if not np.allclose((header.get_qform() - affine)[:3, :3] / (x, y, z), 0, atol=1e-4):
        header["qform_code"] = 0
    header.set_xyzt_units(xyz=NAMES.get(unit, "mm" if unit in METRES else "unknown"))
