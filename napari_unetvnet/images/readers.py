"""One reader a format: a file to an array (C, Z, Y, X) and what the file says of space."""

from __future__ import annotations

import gzip
import logging
import re
import warnings
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_unetvnet.errors import DataProblem, FileProblem, damaged, told
from napari_unetvnet.images.arrays import Scaled, View
from napari_unetvnet.images.containers import divided, is_zarr, open_hdf5, open_zarr

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.images.containers import Stored


Spacing = tuple[float, float, float]
MICRO = "\u00b5m"
METRES = {"nm": 1e-9, "micrometer": 1e-6, "mm": 1e-3, "cm": 1e-2, "m": 1.0, "inch": 0.0254}
NIFTI_UNITS = {1: "m", 2: "mm", 3: "micrometer"}
ALIASES = {"": "pixel", "pixels": "pixel", "in": "inch", "nanometer": "nm", "millimeter": "mm", "centimeter": "cm"}
ALIASES |= {"meter": "m"} | dict.fromkeys(("um", MICRO, "micron", "microns", "micrometers", "micrometre"), "micrometer")
ARRAYS = (".nii.gz", ".nii", ".tif", ".tiff", ".npy")
READABLE = (*ARRAYS, ".png", ".jpg", ".jpeg", ".zarr", ".h5", ".hdf5")
LARGE_BYTES = 1 << 28
"""Values of a larger file are converted where they are read, not all at once."""
# What tifffile only logs although pixels or metadata are missing.
INCOMPLETE = re.compile(
    "TiffPages|invalid value offset|corrupt|zeroed|incompletely|missing data|reshape|OME series expected"
)


class ImageFile(NamedTuple):
    """What a file holds: data (C, Z, Y, X) and its place in space, spacing None where the file says nothing."""

    data: Any
    spacing: Spacing | None = None
    unit: str = "pixel"
    affine: NDArray[np.float64] | None = None
    palette: bool = False


def paths_of(source: str | Path) -> list[Path]:
    """Split a source into its channel files."""
    return [Path(part.strip()).expanduser() for part in str(source).split("|")]


def existing(path: Path) -> Path:
    """Refuse what is not a file, or an image in one."""
    if is_folder(path):
        raise FileProblem(f"{path} is a folder; name a file in it.")
    if not divided(path)[0].exists():
        raise FileProblem(f"There is no file {path}.")
    return path


def is_folder(path: Path) -> bool:
    """Whether a path is a folder of images, and not a zarr folder, which is one image, or a part of one."""
    return path.is_dir() and not is_zarr(path)


def stem_of(path: Path) -> str:
    """Name of a file without its ending; of an image in a zarr folder or an HDF5 file, that of the whole."""
    path = divided(path)[0]
    path = next((part for part in (path, *path.parents) if part.name.lower().endswith(".zarr")), path)
    return re.sub(r"(\.nii\.gz|\.ome\.(tiff?|zarr)|\.\w+)$", "", path.name, flags=re.IGNORECASE)


def read_file(path: Path) -> ImageFile:
    """Read one file by its ending."""
    name = ".zarr" if is_zarr(path) else divided(path)[0].name.lower()
    if not name.endswith(READABLE):
        raise FileProblem(f"{path.name} is of no kind that can be read; use {', '.join(READABLE)}.")
    image = READERS[name[name.rindex(".") :]](path)
    data = image.data
    if not data.dtype.isnative:
        data = View(data) if data.nbytes > LARGE_BYTES else data.astype(data.dtype.newbyteorder("="))
    return image._replace(data=data)


@contextmanager
def _readable(path: Path, *also: type[Exception]) -> Iterator[None]:
    """Turn what a library raises on a bad file into one sentence, and keep it from talking meanwhile."""
    with told(path, *also), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _to_czyx(array: NDArray[Any], axes: str, name: str) -> NDArray[Any]:
    """Bring an array with lettered axes to (C, Z, Y, X); colours S count as channels, one unknown axis as Z."""
    places = _places(array.shape, axes, name)
    order = [places[letter] for letter in "CSZYX" if letter in places]
    ordered = array.transpose(order + [i for i in range(array.ndim) if i not in order])
    y, x = (array.shape[places[letter]] for letter in "YX")
    return ordered.reshape(-1, array.shape[places["Z"]] if "Z" in places else 1, y, x)


def _places(shape: Sequence[int], axes: str, name: str) -> dict[str, int]:
    """Say which axis has which letter, leaving out those of one voxel; one unknown axis is Z."""
    kept = [(letter, i) for i, letter in enumerate(axes) if letter in "YX" or shape[i] > 1]
    letters = [letter for letter, _ in kept]
    if "T" in letters:
        raise DataProblem(f"{name} holds {shape[axes.index('T')]} time points; save one time point as a file.")
    unknown = [letter for letter in letters if letter not in "ZCSYX"]
    if len(unknown) + ("Z" in letters) > 1 or not {"Y", "X"} <= set(letters):
        told_axes = "".join(letters)
        raise DataProblem(
            f"{name} has the axes {told_axes}, not those of one image; save it with axes C, Z, Y, X at most."
        )
    return {"Z" if letter in unknown else letter: i for letter, i in kept}


def _read_npy(path: Path) -> ImageFile:
    """Map a NumPy array."""
    with _readable(path):
        array = np.lib.format.open_memmap(path, mode="c")
    if array.ndim not in {2, 3, 4}:
        raise DataProblem(f"{path.name} has {array.ndim} axes; expected (Y, X), (Z, Y, X) or (C, Z, Y, X).")
    return ImageFile(array.reshape((1,) * (4 - array.ndim) + array.shape))


def _read_zarr(path: Path) -> ImageFile:
    """Open a zarr array, or the finest level of an OME-Zarr image."""
    with _readable(path):
        return _opened(open_zarr(path), path.name)


def _read_hdf5(path: Path) -> ImageFile:
    """Open a dataset of an HDF5 file."""
    file, inside = divided(path)
    with _readable(file):
        return _opened(open_hdf5(file, inside), file.name)


def _opened(found: Stored, name: str) -> ImageFile:
    """Bring an array in a file to (C, Z, Y, X) without reading it."""
    places = _places(found.array.shape, found.axes, name)
    data = View(found.array, [places.get(letter) for letter in "CZYX"])
    units = {letter: unit_name(unit) for letter, (_, unit) in found.lengths.items()}
    spacing, unit = _common({letter: size for letter, (size, _) in found.lengths.items()}, units)
    return ImageFile(data, spacing, unit)


def _read_pixels(path: Path) -> ImageFile:
    """Read PNG or JPEG, alpha dropped."""
    from PIL import Image

    with _readable(path):
        _check_end_mark(path)
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # the user's own file is no attack
        try:
            with Image.open(path, formats=("PNG", "JPEG")) as image:
                deep_colour = "16B" in str(image.tile) and not image.mode.startswith("I")
                mode, array = image.mode, np.array(image)
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    if deep_colour:
        raise DataProblem(f"{path.name} holds colours of 16 bits, which would be cut to 8; save it as TIFF.")
    if array.ndim == 2:
        return ImageFile(array[None, None], palette=mode == "P")
    colours = array[..., :-1] if mode.endswith("A") else array
    return ImageFile(np.ascontiguousarray(np.moveaxis(colours, -1, 0))[:, None])


def _check_end_mark(path: Path) -> None:
    """Refuse PNG and JPEG files whose end is missing, which a lenient decoder fills with grey."""
    content = path.read_bytes()
    is_jpeg = content.startswith(b"\xff\xd8")
    if content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda") if is_jpeg else b"IEND\xaeB`\x82" not in content:
        raise ValueError("its end is missing")


def _read_nifti(path: Path) -> ImageFile:
    """Read NIfTI, (x, y, z) or (x, y, z, channel) on disk."""
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError, ImageDataError
    from nibabel.wrapstruct import WrapStructError

    with _quiet("nibabel.global"), _readable(path, ImageFileError, HeaderDataError, ImageDataError, WrapStructError):
        image = nibabel.load(path)
        if not isinstance(image, nibabel.Nifti1Image):
            raise FileProblem(f"{path.name} holds {type(image).__name__}, no voxels; save it as NIfTI volume.")
        zipped = path.suffix.lower() == ".gz"
        scaled = not zipped and (image.dataobj.slope, image.dataobj.inter) != (1, 0)
        large = scaled and np.prod(image.shape, dtype=np.int64) * np.dtype(np.float64).itemsize > LARGE_BYTES
        array: Any = _unzipped(path, type(image)) if zipped else image.dataobj
        array = Scaled(array) if large else np.asanyarray(array)
        x, y, z = (*image.header.get_zooms()[:3], 1.0, 1.0)[:3]
        unit = NIFTI_UNITS.get(int(image.header["xyzt_units"]) & 7, "mm")
        affine = np.array(image.affine, np.float64)
    if array.dtype.names:
        array = np.stack([array[name] for name in array.dtype.names if name != "A"], axis=-1)
    if array.ndim not in {2, 3, 4}:
        raise DataProblem(f"{path.name} has {array.ndim} axes; save one volume (x, y, z) or (x, y, z, channel).")
    if large:
        data = View(array, [axis if axis < array.ndim else None for axis in (3, 2, 1, 0)])
    else:
        data = array.reshape(array.shape + (1,) * (4 - array.ndim), order="F").T
    return ImageFile(data, (_size(z), _size(y), _size(x)), unit, affine)


def _unzipped(path: Path, kind: Any) -> NDArray[Any]:
    """Unpack a .nii.gz to its very end, where the check sum is."""
    with gzip.open(path) as stream:
        array = np.asarray(kind.from_stream(stream).dataobj)
        while stream.read(1 << 20):
            pass
    return array


def _size(value: Any) -> float:
    """Voxel edge length from a header; 1 where it makes no sense."""
    length = abs(float(value))
    return length if 0 < length < float("inf") else 1.0


def _read_tiff(path: Path) -> ImageFile:
    """Read the first series of a TIFF, mapped where it is not compressed."""
    import tifffile

    with _quiet("tifffile") as complaints, _readable(path), tifffile.TiffFile(path) as tif:
        series = tif.series[0]
        if series.dataoffset is None:
            _check_inside(path, series)
            array = series.asarray()
        else:
            stored = np.dtype(tif.byteorder + series.dtype.char)
            array = np.memmap(path, stored, "c", series.dataoffset, series.shape)
        alpha = sum(kind in {1, 2} for kind in series.keyframe.extrasamples)
        spacing, unit = _ome_space(tif) if tif.is_ome else _imagej_space(tif)
        twins = [s for s in tif.series if (s.shape, s.axes) == (series.shape, series.axes)]
        if alpha and "S" in series.axes:
            samples = series.axes.index("S")
            array = array[(slice(None),) * samples + (slice(array.shape[samples] - alpha),)]
        data = _to_czyx(array, series.axes, path.name)
    if gaps := [line for line in complaints if INCOMPLETE.search(line)]:
        raise damaged(path, gaps[0])
    if len(twins) > 1:
        raise DataProblem(f"{path.name} holds {len(twins)} images; save each as a file.")
    return ImageFile(data, spacing, unit)


def _check_inside(path: Path, series: Any) -> None:
    """Refuse a TIFF whose strips or tiles reach beyond its end, which tifffile would leave black."""
    size = path.stat().st_size
    for page in series.pages:
        if page is None or any(a + n > size for a, n in zip(page.dataoffsets, page.databytecounts, strict=True)):
            raise ValueError("pixels are missing")


@contextmanager
def _quiet(logger_name: str) -> Iterator[list[str]]:
    """Collect what a library logs instead of printing it."""
    lines: list[str] = []

    def keep(record: logging.LogRecord) -> bool:
        lines.append(record.getMessage())
        return False

    logger = logging.getLogger(logger_name)
    logger.addFilter(keep)
    try:
        yield lines
    finally:
        logger.removeFilter(keep)


def _ome_space(tif: Any) -> tuple[Spacing | None, str]:
    """Spacing and unit of an OME-TIFF; every axis may have its own unit."""
    pixels = (tif.ome_metadata or "").partition("<Pixels")[2].partition(">")[0]
    found = dict(re.findall(r"PhysicalSize([XYZ](?:Unit)?)\s*=\s*[\"']([^\"']*)", pixels))
    units = {axis: unit_name(found.get(f"{axis}Unit", MICRO)) for axis in "ZYX"}
    return _common(found, units)


def _common(lengths: Mapping[str, Any], units: Mapping[str, str]) -> tuple[Spacing | None, str]:
    """Give the voxel size z, y, x in the unit of x; None if there is none."""
    if not any(axis in lengths for axis in "ZYX"):
        return None, "pixel"
    unit = units.get("X", "pixel")
    base = METRES.get(unit, 1.0)
    z, y, x = (_size(lengths.get(axis, 1)) * METRES.get(units.get(axis, unit), base) / base for axis in "ZYX")
    return (z, y, x), unit


def _imagej_space(tif: Any) -> tuple[Spacing | None, str]:
    """Spacing and unit of an ImageJ TIFF; other TIFFs have dots an inch for printers at best, which are not read."""
    facts = tif.imagej_metadata
    if not facts:
        return None, "pixel"
    pixels = [tif.pages[0].tags.valueof(f"{axis}Resolution", (1, 1)) for axis in "YX"]
    y, x = (_size(size / count if count else 1) for count, size in pixels)
    unit = unit_name(str(facts.get("unit", "")))
    spacing = (_size(facts.get("spacing", 1)), y, x)
    return (None if unit == "pixel" and spacing == (1, 1, 1) else spacing), unit


def unit_name(text: str) -> str:
    """Give the one name that a unit has here."""
    if "\\u" in text:
        text = text.encode("ascii", "ignore").decode("unicode_escape")
    text = unescape(text).strip().replace("\u03bc", "\u00b5")
    return ALIASES.get(text.lower(), text)


READERS = {".nii": _read_nifti, ".gz": _read_nifti, ".tif": _read_tiff, ".tiff": _read_tiff, ".npy": _read_npy}
READERS |= {".zarr": _read_zarr, ".h5": _read_hdf5, ".hdf5": _read_hdf5}
READERS |= dict.fromkeys((".png", ".jpg", ".jpeg"), _read_pixels)
