"""One reader and one writer a format: a file to an array (C, Z, Y, X) and what the file says of space, and back."""

from __future__ import annotations

import gzip
import logging
import re
import struct
import tokenize
import warnings
import zlib
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_unetvnet.errors import DataProblem, FileProblem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_unetvnet.volume import Volume


Spacing = tuple[float, float, float]
MICRO = "\u00b5m"
METRES = {"nm": 1e-9, "micrometer": 1e-6, "mm": 1e-3, "cm": 1e-2, "m": 1.0, "inch": 0.0254}
NIFTI_UNITS = {1: "m", 2: "mm", 3: "micrometer"}
ALIASES = {"": "pixel", "pixels": "pixel", "in": "inch", "nanometer": "nm", "millimeter": "mm", "centimeter": "cm"}
ALIASES |= {"meter": "m"} | dict.fromkeys(("um", MICRO, "micron", "microns", "micrometers", "micrometre"), "micrometer")
ARRAYS = (".nii.gz", ".nii", ".tif", ".tiff", ".npy")
READABLE = (*ARRAYS, ".png", ".jpg", ".jpeg")
# What the libraries raise on a file that is cut off, damaged or of another kind.
BAD_FILE: tuple[type[Exception], ...] = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
)
BAD_FILE += (AssertionError, SyntaxError, struct.error, zlib.error, tokenize.TokenError)
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
    """Refuse what is not a file."""
    if path.is_dir():
        raise FileProblem(f"{path} is a folder; name a file in it.")
    if not path.is_file():
        raise FileProblem(f"There is no file {path}.")
    return path


def stem_of(path: Path) -> str:
    """Name of a file without its ending."""
    return re.sub(r"(\.nii\.gz|\.ome\.tiff?|\.\w+)$", "", path.name, flags=re.IGNORECASE)


def read_file(path: Path) -> ImageFile:
    """Read one file by its ending."""
    if not path.name.lower().endswith(READABLE):
        raise FileProblem(f"{path.name} is of no kind that can be read; use {', '.join(READABLE)}.")
    image = READERS[path.suffix.lower()](path)
    data = image.data if image.data.dtype.isnative else image.data.astype(image.data.dtype.newbyteorder("="))
    return image._replace(data=data)


@contextmanager
def _readable(path: Path, *also: type[Exception]) -> Iterator[None]:
    """Turn what a library raises on a bad file into one sentence, and keep it from talking meanwhile."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except MemoryError as error:
        raise FileProblem(
            f"{path.name} does not fit into memory, or its header is damaged; an uncompressed .npy, .nii or .tif "
            "is read in parts."
        ) from error
    except (*BAD_FILE, *also) as error:
        if "imagecodecs" in str(error):
            raise FileProblem(
                f"{path.name} is compressed in a rare way; pip install imagecodecs to read it."
            ) from error
        raise _damaged(path, str(error) or type(error).__name__) from error


def _damaged(path: Path, detail: str) -> FileProblem:
    """Say that a file is bad."""
    detail = detail.splitlines()[0][:120]
    return FileProblem(
        f"{path.name} cannot be read: it is cut off, damaged or not what its ending says ({detail}); "
        "copy it again, or open it in the program that made it and save it anew."
    )


def _to_czyx(array: NDArray[Any], axes: str, name: str) -> NDArray[Any]:
    """Bring an array with lettered axes to (C, Z, Y, X); colours S count as channels, one unknown axis as Z."""
    kept = [i for i, letter in enumerate(axes) if letter in "YX" or array.shape[i] > 1]
    array, axes = array.reshape([array.shape[i] for i in kept]), "".join(axes[i] for i in kept)
    if "T" in axes:
        raise DataProblem(f"{name} holds {array.shape[axes.index('T')]} time points; save one time point as a file.")
    unknown = [letter for letter in axes if letter not in "ZCSYX"]
    if len(unknown) + ("Z" in axes) > 1 or not {"Y", "X"} <= set(axes):
        raise DataProblem(f"{name} has the axes {axes}, not those of one image; save it with axes C, Z, Y, X at most.")
    axes = axes.replace(unknown[0], "Z") if unknown else axes
    ordered = array.transpose([axes.index(letter) for letter in "CSZYX" if letter in axes])
    depth = array.shape[axes.index("Z")] if "Z" in axes else 1
    return ordered.reshape(-1, depth, *ordered.shape[-2:])


def _read_npy(path: Path) -> ImageFile:
    """Map a NumPy array."""
    with _readable(path):
        array = np.lib.format.open_memmap(path, mode="c")
    if array.ndim not in {2, 3, 4}:
        raise DataProblem(f"{path.name} has {array.ndim} axes; expected (Y, X), (Z, Y, X) or (C, Z, Y, X).")
    return ImageFile(array.reshape((1,) * (4 - array.ndim) + array.shape))


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
        array = _unzipped(path, type(image)) if path.suffix.lower() == ".gz" else np.asanyarray(image.dataobj)
        x, y, z = (*image.header.get_zooms()[:3], 1.0, 1.0)[:3]
        unit = NIFTI_UNITS.get(int(image.header["xyzt_units"]) & 7, "mm")
        affine = np.array(image.affine, np.float64)
    if array.dtype.names:
        array = np.stack([array[name] for name in array.dtype.names if name != "A"], axis=-1)
    if array.ndim not in {2, 3, 4}:
        raise DataProblem(f"{path.name} has {array.ndim} axes; save one volume (x, y, z) or (x, y, z, channel).")
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
            array = array.take(range(array.shape[samples] - alpha), samples)
        data = _to_czyx(array, series.axes, path.name)
    if gaps := [line for line in complaints if INCOMPLETE.search(line)]:
        raise _damaged(path, gaps[0])
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
    if not any(axis in found for axis in "XYZ"):
        return None, "pixel"
    units = {axis: _unit(found.get(f"{axis}Unit", MICRO)) for axis in "ZYX"}
    base = METRES.get(units["X"], 1.0)
    z, y, x = (_size(found.get(axis, 1)) * METRES.get(units[axis], base) / base for axis in "ZYX")
    return (z, y, x), units["X"]


def _imagej_space(tif: Any) -> tuple[Spacing | None, str]:
    """Spacing and unit of an ImageJ TIFF; other TIFFs have dots an inch for printers at best, which are not read."""
    facts = tif.imagej_metadata
    if not facts:
        return None, "pixel"
    pixels = [tif.pages[0].tags.valueof(f"{axis}Resolution", (1, 1)) for axis in "YX"]
    y, x = (_size(size / count if count else 1) for count, size in pixels)
    unit = _unit(str(facts.get("unit", "")))
    spacing = (_size(facts.get("spacing", 1)), y, x)
    return (None if unit == "pixel" and spacing == (1, 1, 1) else spacing), unit


def _unit(text: str) -> str:
    """One name for each unit."""
    if "\\u" in text:
        text = text.encode("ascii", "ignore").decode("unicode_escape")
    text = unescape(text).strip().replace("\u03bc", "\u00b5")
    return ALIASES.get(text.lower(), text)


def _write_npy(path: Path, array: NDArray[Any], like: Volume) -> None:
    """Write labels (Z, Y, X) or (Y, X), or probabilities (K, Z, Y, X)."""
    np.save(path, array[0] if array.ndim == 3 and like.shape[0] == 1 else array, allow_pickle=False)


def _write_png(path: Path, array: NDArray[Any], like: Volume) -> None:
    """Write labels (1, Y, X)."""
    from PIL import Image

    if like.shape[0] > 1 or array.dtype.itemsize > 2:
        limits = f"PNG holds one plane with labels to 65535, not {like.shape[0]} planes with labels to {array.max()}"
        raise DataProblem(f"{limits}; use {', '.join(ARRAYS)}.")
    Image.fromarray(array[0]).save(path)


def _write_nifti(path: Path, array: NDArray[Any], like: Volume) -> None:
    """Write (x, y, z) or (x, y, z, class) with the affine of the image."""
    import nibabel

    unit = _unit(like.unit)
    scale = 1.0 if unit in NIFTI_UNITS.values() else METRES.get(unit, METRES["mm"]) / METRES["mm"]
    z, y, x = (size * scale for size in like.spacing)
    affine = np.diag([x, y, z, 1.0]) if like.affine is None else np.diag([scale] * 3 + [1.0]) @ like.affine
    image = nibabel.Nifti1Image(array.T, affine)
    image.header.set_zooms((x, y, z, 1.0)[: array.ndim])  # the affine's column lengths may differ from these
    names = {"m": "meter", "mm": "mm", "micrometer": "micron"}
    image.header.set_xyzt_units(xyz=names.get(unit, "mm" if unit in METRES else "unknown"))
    nibabel.save(image, path)


def _write_tiff(path: Path, array: NDArray[Any], like: Volume) -> None:
    """Write an ImageJ TIFF, or an OME-TIFF of what ImageJ cannot hold."""
    import tifffile

    array, axes = (array, "ZYX") if array.ndim == 3 else (array.swapaxes(0, 1), "ZCYX")
    if like.shape[0] == 1:
        array, axes = array[0], axes[1:]
    fits_imagej = array.dtype.char in "BHf" and array.nbytes < 2**31 and min(array.shape[-2:]) > 1
    if fits_imagej and not path.name.lower().endswith((".ome.tif", ".ome.tiff")):
        options = _imagej_options(like)
    elif array.dtype.itemsize > 4:
        raise DataProblem(f"TIFF holds labels to {2**32 - 1}, not {array.max()}; use .nii.gz or .npy.")
    else:
        options = _ome_options(like) | {"bigtiff": array.nbytes >= 2**31}
    options["metadata"]["axes"] = axes
    tifffile.imwrite(path, array, photometric="minisblack", **options)


def _imagej_options(like: Volume) -> dict[str, Any]:
    """Spacing and unit as ImageJ keeps them."""
    (z, y, x), unit = like.spacing, _unit(like.unit)
    letters = (letter if letter.isascii() else f"\\u{ord(letter):04X}" for letter in unit)
    facts = {"spacing": z, "unit": "micron" if unit == "micrometer" else "".join(letters)}
    return {"imagej": True, "resolution": (1 / x, 1 / y), "metadata": facts}


def _ome_options(like: Volume) -> dict[str, Any]:
    """Spacing and unit as OME keeps them."""
    unit = _unit(like.unit)
    facts: dict[str, Any] = {f"PhysicalSize{axis}": size for axis, size in zip("ZYX", like.spacing, strict=True)}
    facts |= {f"PhysicalSize{axis}Unit": MICRO if unit == "micrometer" else unit for axis in "ZYX"}
    return {"ome": True, "metadata": facts}


READERS = {".nii": _read_nifti, ".gz": _read_nifti, ".tif": _read_tiff, ".tiff": _read_tiff, ".npy": _read_npy}
READERS |= dict.fromkeys((".png", ".jpg", ".jpeg"), _read_pixels)
WRITERS = {".nii": _write_nifti, ".gz": _write_nifti, ".tif": _write_tiff, ".tiff": _write_tiff, ".npy": _write_npy}
WRITERS |= {".png": _write_png}
