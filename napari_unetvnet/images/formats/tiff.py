"""TIFF images: read from any, written for ImageJ or as OME-TIFF."""

from __future__ import annotations

import html
import re
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.axes import ask_for_axes, given_letters, with_channels
from napari_unetvnet.images.class_names import KEY, channel_names, from_json, to_json
from napari_unetvnet.images.damage import damaged_file, log_of, reading
from napari_unetvnet.images.formats.tiff_series import chosen_series
from napari_unetvnet.images.geometry import UNKNOWN_UNIT, Geometry
from napari_unetvnet.images.image_file import ImageFile
from napari_unetvnet.images.sources import split_dataset
from napari_unetvnet.images.units import METRES, MICRO, common_spacing, edge_length, in_unit_of_x, unit_name

if TYPE_CHECKING:
    from pathlib import Path

    from napari_unetvnet.images.class_names import ClassNames
    from napari_unetvnet.images.volume import Volume

WHITE_IS_ZERO, PALETTE = 0, 3
"""Values of the tag PhotometricInterpretation."""
REFERENCE_FRAME = "reference frame"
"""The unit of a position that is not known as a length; OME's default."""
POSITIONS = "OME positions"
"""Where a geometry keeps the positions of planes that are not lengths."""
ORIGINS = ("zorigin", "yorigin", "xorigin")
IMAGEJ_UNITS = {"Z": "zunit", "Y": "yunit", "X": "unit"}
# What tifffile only logs although pixels or metadata are missing.
INCOMPLETE = re.compile(
    "TiffPages|invalid value offset|corrupt|zeroed|incompletely|missing data|reshape|OME series expected"
)


def read(path: Path, axes: str = "") -> ImageFile:
    """Read the only image, or the one that the path names, mapped where it is not compressed."""
    import tifffile

    path, number = split_dataset(path)
    with log_of("tifffile") as complaints, reading(path), tifffile.TiffFile(path) as tif:
        series = chosen_series(tif, path, number)
        array = _pixels(path, tif, series)
        geometry = _ome_space(tif, series) if tif.is_ome else _imagej_space(tif, series)
        names = _class_names(tif)
        # ImageJ and OME store intensities with the colours in which they are shown.
        is_palette = series.keyframe.photometric == PALETTE and not (tif.is_imagej or tif.is_ome)
        letters = given_letters(axes, array.shape, path.name) or series.axes
        data = with_channels(array, letters, path.name)
    if gaps := [line for line in complaints if INCOMPLETE.search(line)]:
        raise damaged_file(path, gaps[0])
    question = "" if axes or not _has_channels_first(series) else ask_for_axes(series.shape)
    return ImageFile(data, geometry, is_palette, question, names)


def _class_names(tif: Any) -> ClassNames:
    """Find the names of classes in the annotations of OME, or in the text of ImageJ."""
    if not tif.is_ome:
        return from_json(str((tif.imagej_metadata or {}).get("Info", "")))
    annotation = (tif.ome_metadata or "").partition(f'Namespace="{KEY}"')[2].partition("</MapAnnotation>")[0]
    rows = re.findall(r'<M K="(\d+)">([^<]*)</M>', annotation)
    return tuple((int(value), html.unescape(name)) for value, name in rows)


def _pixels(path: Path, tif: Any, series: Any) -> Any:
    """Give the pixels of a series, alpha dropped."""
    if series.dataoffset is None:
        _check_inside(series)
        array = series.asarray()
    else:
        stored = np.dtype(tif.byteorder + series.dtype.char)
        array = np.memmap(path, stored, "c", series.dataoffset, series.shape)
    if series.keyframe.photometric == WHITE_IS_ZERO:
        array = _brighter_is_higher(array, int(series.keyframe.bitspersample))
    alpha = sum(kind in {1, 2} for kind in series.keyframe.extrasamples)
    if not alpha or "S" not in series.axes:
        return array
    samples = series.axes.index("S")
    return array[(slice(None),) * samples + (slice(array.shape[samples] - alpha),)]


def _brighter_is_higher(array: Any, bits: int) -> Any:
    """Invert an image in which 0 is white, as other readers of grey values do."""
    if array.dtype.kind == "b":
        return ~array
    if array.dtype.kind != "u":
        raise DataProblem(f"0 is white in this file of {array.dtype}; save it with 0 as black.")
    return array.dtype.type(2**bits - 1) - array


def _has_channels_first(series: Any) -> bool:
    """Whether the first axis is channels by the word of the file, or because it is short."""
    return len(series.shape) == 3 and series.axes[0] in "SC"


def _check_inside(series: Any) -> None:
    """Refuse an image whose strips or tiles reach beyond the end of their file, which tifffile would leave black."""
    for page in series.pages:
        size = 0 if page is None else page.parent.filehandle.size
        if page is None or any(a + n > size for a, n in zip(page.dataoffsets, page.databytecounts, strict=True)):
            raise ValueError("pixels are missing")


def _ome_space(tif: Any, series: Any) -> Geometry:
    """Give voxel size and position of an image of an OME-TIFF; every axis may have its own unit."""
    described = (tif.ome_metadata or "").split("<Pixels")[1:]
    number = list(tif.series).index(series)
    text = described[number] if number < len(described) else ""
    sizes = dict(re.findall(r"PhysicalSize([XYZ](?:Unit)?)\s*=\s*[\"']([^\"']*)", text.partition(">")[0]))
    units = {axis: unit_name(sizes.get(f"{axis}Unit", MICRO)) for axis in "ZYX"}
    spacing, unit = common_spacing(sizes, units)
    planes = _positions(text.partition("</Pixels>")[0])
    if 0 not in planes:
        return Geometry(spacing or (1.0, 1.0, 1.0), unit)
    first = planes[0]
    place_units = {axis: unit_name(first.get(f"{axis}Unit", REFERENCE_FRAME)) for axis in "ZYX" if axis in first}
    if not {unit, *place_units.values()} <= METRES.keys():
        return Geometry(spacing or (1.0, 1.0, 1.0), unit, header={POSITIONS: planes})
    z, y, x = (float(first.get(axis, 0)) * METRES[place_units.get(axis, unit)] / METRES[unit] for axis in "ZYX")
    return Geometry.upright(spacing or (1.0, 1.0, 1.0), unit, (z, y, x))


def _positions(text: str) -> dict[int, dict[str, str]]:
    """Give positions X, Y, Z, and their units, of each plane of the first channel."""
    planes = {}
    for plane in re.findall(r"<Plane\b([^>]*)", text):
        facts = dict(re.findall(r"(\w+)\s*=\s*[\"']([^\"']*)", plane))
        places = {name.removeprefix("Position"): fact for name, fact in facts.items() if name.startswith("Position")}
        if places and {facts.get("TheC", "0"), facts.get("TheT", "0")} == {"0"}:
            planes[int(facts.get("TheZ", 0))] = places
    return planes


def _imagej_space(tif: Any, series: Any) -> Geometry:
    """Give voxel size and position of an ImageJ TIFF; others have dots an inch for printers at best."""
    facts = tif.imagej_metadata
    if not facts:
        return Geometry()
    pixels = [series.keyframe.tags.valueof(f"{axis}Resolution", (1, 1)) for axis in "YX"]
    y, x = (edge_length(size / count if count else 1) for count, size in pixels)
    units = {axis: unit_name(str(facts[name])) for axis, name in IMAGEJ_UNITS.items() if name in facts}
    lengths = {"Z": edge_length(facts.get("spacing", 1)), "Y": y, "X": x}
    spacing, unit = in_unit_of_x(lengths, units), units.get("X", UNKNOWN_UNIT)
    if not any(name in facts for name in ORIGINS):
        return Geometry(spacing, unit)
    # ImageJ says which voxel, with fractions, is at position 0.
    origin = [-float(facts.get(name, 0)) * size for name, size in zip(ORIGINS, spacing, strict=True)]
    return Geometry.upright(spacing, unit, origin)


def write(path: Path, array: Any, like: Volume) -> None:
    """Write an ImageJ TIFF, or an OME-TIFF of what ImageJ cannot hold."""
    import tifffile

    shape, axes = (array.shape[-3], *array.shape[:-3], *array.shape[-2:]), "ZCYX" if array.ndim == 4 else "ZYX"
    if like.shape[0] == 1:
        shape, axes = shape[1:], axes[1:]
    size = prod(shape) * array.dtype.itemsize
    fits_imagej = array.dtype.char in "BHf" and size < 2**31 and min(shape[-2:]) > 1
    if fits_imagej and not path.name.lower().endswith((".ome.tif", ".ome.tiff")):
        options = _imagej_options(like)
    else:
        options = _ome_options(like, prod(array.shape[:-3])) | {"bigtiff": size >= 2**31}
    options["metadata"] |= {"axes": axes, **_named(array, like, imagej="imagej" in options)}
    pages = (np.ascontiguousarray(array[(*k, z)]) for z in range(array.shape[-3]) for k in np.ndindex(array.shape[:-3]))
    tifffile.imwrite(path, pages, shape=shape, dtype=array.dtype, photometric="minisblack", **options)


def _named(array: Any, like: Volume, *, imagej: bool) -> dict[str, Any]:
    """Give the names of classes as metadata, of masks and probabilities those of the channels."""
    channels, facts = channel_names(like.class_names, array.shape), dict[str, Any]()
    if channels:
        facts |= {"Labels": channels * array.shape[-3]} if imagej else {"Channel": {"Name": channels}}
    if like.class_names and array.dtype.kind in "ui":
        rows = {str(value): name for value, name in like.class_names}
        note = {"Namespace": KEY, **rows}
        facts |= {"Info": to_json(like.class_names)} if imagej else {"MapAnnotation": note}
    return facts


def _imagej_options(like: Volume) -> dict[str, Any]:
    """Give voxel size, unit and position as ImageJ keeps them."""
    (z, y, x), unit = like.spacing, unit_name(like.unit)
    letters = (letter if letter.isascii() else f"\\u{ord(letter):04X}" for letter in unit)
    facts = {"spacing": z, "unit": "micron" if unit == "micrometer" else "".join(letters)}
    if (origin := like.geometry.origin) is not None:
        facts |= {name: -place / size for name, place, size in zip(ORIGINS, origin, (z, y, x), strict=True)}
    return {"imagej": True, "resolution": (1 / x, 1 / y), "metadata": facts}


def _ome_options(like: Volume, channels: int) -> dict[str, Any]:
    """Give voxel size, unit and position as OME keeps them."""
    unit = unit_name(like.unit)
    name = MICRO if unit == "micrometer" else unit
    facts: dict[str, Any] = {f"PhysicalSize{axis}": size for axis, size in zip("ZYX", like.spacing, strict=True)}
    facts |= {f"PhysicalSize{axis}Unit": name for axis in "ZYX"}
    planes: dict[int, Any] = like.geometry.header.get(POSITIONS, {})
    if (origin := like.geometry.origin) is not None:
        (z, y, x), units = origin, {f"{axis}Unit": name for axis in "ZYX"}
        planes = {k: {"Z": z + k * like.spacing[0], "Y": y, "X": x} | units for k in range(like.shape[0])}
    if all(planes.get(k, {}).keys() == planes.get(0, {}).keys() for k in range(like.shape[0])):
        per_page = [planes.get(k, {}) for k in range(like.shape[0]) for _ in range(channels)]
        facts["Plane"] = {f"Position{key}": [place[key] for place in per_page] for key in per_page[0]}
    return {"ome": True, "metadata": facts}
