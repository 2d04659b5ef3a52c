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
from napari_unetvnet.images.image_file import ImageFile
from napari_unetvnet.images.units import MICRO, common_spacing, edge_length, unit_name

if TYPE_CHECKING:
    from pathlib import Path

    from napari_unetvnet.conventions import Spacing
    from napari_unetvnet.images.class_names import ClassNames
    from napari_unetvnet.images.volume import Volume

# What tifffile only logs although pixels or metadata are missing.
INCOMPLETE = re.compile(
    "TiffPages|invalid value offset|corrupt|zeroed|incompletely|missing data|reshape|OME series expected"
)


def read(path: Path, axes: str = "") -> ImageFile:
    """Read the first series, mapped where it is not compressed."""
    import tifffile

    with log_of("tifffile") as complaints, reading(path), tifffile.TiffFile(path) as tif:
        series = tif.series[0]
        array = _pixels(path, tif, series)
        spacing, unit = _ome_space(tif) if tif.is_ome else _imagej_space(tif)
        names = _class_names(tif)
        twins = [s for s in tif.series if (s.shape, s.axes) == (series.shape, series.axes)]
        letters = given_letters(axes, array.shape, path.name) or series.axes
        data = with_channels(array, letters, path.name)
    if gaps := [line for line in complaints if INCOMPLETE.search(line)]:
        raise damaged_file(path, gaps[0])
    if len(twins) > 1:
        raise DataProblem(f"{path.name} holds {len(twins)} images; save each as a file.")
    question = "" if axes or not _has_channels_first(series) else ask_for_axes(series.shape)
    return ImageFile(data, spacing, unit, class_names=names, question=question)


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
        _check_inside(path, series)
        array = series.asarray()
    else:
        stored = np.dtype(tif.byteorder + series.dtype.char)
        array = np.memmap(path, stored, "c", series.dataoffset, series.shape)
    alpha = sum(kind in {1, 2} for kind in series.keyframe.extrasamples)
    if not alpha or "S" not in series.axes:
        return array
    samples = series.axes.index("S")
    return array[(slice(None),) * samples + (slice(array.shape[samples] - alpha),)]


def _has_channels_first(series: Any) -> bool:
    """Whether the first axis is channels by the word of the file, or because it is short."""
    return len(series.shape) == 3 and series.axes[0] in "SC"


def _check_inside(path: Path, series: Any) -> None:
    """Refuse a file whose strips or tiles reach beyond its end, which tifffile would leave black."""
    size = path.stat().st_size
    for page in series.pages:
        if page is None or any(a + n > size for a, n in zip(page.dataoffsets, page.databytecounts, strict=True)):
            raise ValueError("pixels are missing")


def _ome_space(tif: Any) -> tuple[Spacing | None, str]:
    """Spacing and unit of an OME-TIFF; every axis may have its own unit."""
    pixels = (tif.ome_metadata or "").partition("<Pixels")[2].partition(">")[0]
    sizes = dict(re.findall(r"PhysicalSize([XYZ](?:Unit)?)\s*=\s*[\"']([^\"']*)", pixels))
    return common_spacing(sizes, {axis: unit_name(sizes.get(f"{axis}Unit", MICRO)) for axis in "ZYX"})


def _imagej_space(tif: Any) -> tuple[Spacing | None, str]:
    """Spacing and unit of an ImageJ TIFF; other TIFFs have dots an inch for printers at best, which are not read."""
    facts = tif.imagej_metadata
    if not facts:
        return None, "pixel"
    pixels = [tif.pages[0].tags.valueof(f"{axis}Resolution", (1, 1)) for axis in "YX"]
    y, x = (edge_length(size / count if count else 1) for count, size in pixels)
    unit = unit_name(str(facts.get("unit", "")))
    spacing = (edge_length(facts.get("spacing", 1)), y, x)
    return (None if unit == "pixel" and spacing == (1, 1, 1) else spacing), unit


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
        options = _ome_options(like) | {"bigtiff": size >= 2**31}
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
