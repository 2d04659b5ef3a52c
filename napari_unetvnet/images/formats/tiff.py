"""TIFF images: read from any, written for ImageJ or as OME-TIFF."""

from __future__ import annotations

import html
import re
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.axes import ask_for_axes, frames_of, given_letters, is_unclear
from napari_unetvnet.images.class_names import KEY, channel_names, from_json, to_json
from napari_unetvnet.images.damage import damaged_file, log_of, reading, slicing
from napari_unetvnet.images.declared import check_beside, check_decoded, check_shape
from napari_unetvnet.images.formats.tiff_series import StackedPages, chosen_series, named_files
from napari_unetvnet.images.geometry import UNKNOWN_UNIT, Geometry
from napari_unetvnet.images.image_file import ImageFile, series_of
from napari_unetvnet.images.sources import split_dataset
from napari_unetvnet.images.time_axis import seconds
from napari_unetvnet.images.units import METRES, MICRO, common_spacing, in_unit_of_x, stated_length, unit_name

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_unetvnet.images.class_names import ClassNames
    from napari_unetvnet.images.volume import Volume

WHITE_IS_ZERO, RGB, PALETTE = 0, 2, 3
"""Values of the tag PhotometricInterpretation."""
CENTIMETRES = {2: 2.54, 3: 1.0}
"""The units of the resolution tags, inch and centimetre."""
CENTIMETRE = 1e4
"""In micrometers."""
FINE = 400
"""Pixels a centimetre, about 1000 an inch, from which on the tags tell the size of a pixel."""
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
        check_beside(path, named_files(tif))
        series = chosen_series(tif, path, number)
        letters = given_letters(axes, series.shape, path.name)
        array = _pixels(path, tif, series, letters or series.axes)
        geometry = _ome_space(tif, series) if tif.is_ome else _imagej_space(tif, series)
        names = _class_names(tif)
        # ImageJ and OME store intensities with the colours in which they are shown.
        is_palette = series.keyframe.photometric == PALETTE and not (tif.is_imagej or tif.is_ome)
        frames = frames_of(array, letters or series.axes, path.name)
        step, channels = _time_step(tif), _channel_names(tif, series)
    if gaps := [line for line in complaints if INCOMPLETE.search(line)]:
        raise damaged_file(path, gaps[0])
    question = "" if letters or not _has_channels_first(series) else ask_for_axes(series.shape)
    unclear = tuple(series.shape) if not letters and _says_no_axes(tif, series) else ()
    facts: dict[str, Any] = {"geometry": geometry, "palette": is_palette, "question": question, "class_names": names}
    facts["channel_names"] = channels
    facts["orientation"] = int(series.keyframe.tags.valueof("Orientation", 1) or 1)
    if series.keyframe.photometric == WHITE_IS_ZERO and frames[0].dtype.kind == "u":
        facts["inverted"] = 2 ** int(series.keyframe.bitspersample) - 1
    return series_of(frames, *step, **facts, unclear=unclear)


def _says_no_axes(tif: Any, series: Any) -> bool:
    """Whether the first axis is pages, or samples that are no colours, whose meaning is not written."""
    is_written = tif.is_ome or tif.is_imagej or series.keyframe.photometric == RGB
    return not is_written and series.axes[0] in "IQS" and is_unclear(series.shape)


def _time_step(tif: Any) -> tuple[float, str]:
    """Give the time from one time point to the next, and its unit."""
    if tif.is_ome:
        facts = dict(re.findall(r"TimeIncrement(Unit)?\s*=\s*[\"']([^\"']*)", tif.ome_metadata or ""))
        return float(facts.get("", 1)), facts.get("Unit", "s") if "" in facts else ""
    facts = tif.imagej_metadata or {}
    return float(facts.get("finterval", 1)), str(facts.get("tunit", "sec")) if "finterval" in facts else ""


def further_files(path: Path) -> list[Path]:
    """List the other files of a set of OME-TIFFs."""
    import tifffile

    with reading(path), tifffile.TiffFile(path) as tif:
        return [path.parent / name for name in named_files(tif)]


def _channel_names(tif: Any, series: Any) -> tuple[str, ...]:
    """Find the names of channels in OME metadata, or in the labels of the slices of ImageJ."""
    count = dict(zip(series.axes, series.shape, strict=True)).get("C", 1)
    if tif.is_ome:
        described = (tif.ome_metadata or "").split("<Pixels")[1:]
        number = list(tif.series).index(series)
        text = described[number].partition("</Pixels>")[0] if number < len(described) else ""
        names = [re.search(r"\bName\s*=\s*[\"']([^\"']+)", tag) for tag in re.findall(r"<Channel\b([^>]*)", text)]
        return tuple(html.unescape(name[1]) for name in names if name) if all(names) else ()
    labels = (tif.imagej_metadata or {}).get("Labels") or []
    if not isinstance(labels, list) or len(labels) < count or count < 2:
        return ()
    is_by_channel = all(label == labels[i % count] for i, label in enumerate(labels))
    return tuple(map(str, labels[:count])) if is_by_channel else ()


def _class_names(tif: Any) -> ClassNames:
    """Find the names of classes in the annotations of OME, or in the text of ImageJ."""
    if not tif.is_ome:
        return from_json(str((tif.imagej_metadata or {}).get("Info", "")))
    annotation = (tif.ome_metadata or "").partition(f'Namespace="{KEY}"')[2].partition("</MapAnnotation>")[0]
    rows = re.findall(r'<M K="(\d+)">([^<]*)</M>', annotation)
    return tuple((int(value), html.unescape(name)) for value, name in rows)


def _pixels(path: Path, tif: Any, series: Any, letters: str) -> Any:
    """Give the pixels of a series, alpha dropped; of a compressed time series they are read when sliced."""
    if series.dataoffset is None:
        _check_inside(series)
        is_read_by_page = _is_read_by_page(series, letters)
        _check_memory(path, series, by_page=is_read_by_page)
        if is_read_by_page:
            return _Pages(path, list(tif.series).index(series), series)
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


def _check_memory(path: Path, series: Any, *, by_page: bool) -> None:
    """Refuse pixels, or tiles, that are unpacked at once and do not fit into the free memory."""
    check_shape(path, series.shape, series.dtype)
    page = series.keyframe
    check_decoded(path, page.chunks, series.dtype, chunks=True)
    is_changed = page.photometric == WHITE_IS_ZERO or isinstance(series, StackedPages)
    check_decoded(path, page.shape if by_page else series.shape, series.dtype, 2 if is_changed else 1)


def _is_read_by_page(series: Any, letters: str) -> bool:
    """Whether a compressed series has time points, and pixels that need no change."""
    is_plain = series.keyframe.photometric != WHITE_IS_ZERO and not series.keyframe.extrasamples
    points = dict(zip(letters, series.shape, strict=True)).get("T", 1)
    return points > 1 and is_plain and "S" not in letters and hasattr(series, "aszarr")


class _Pages:
    """The pixels of a compressed series; pages are unpacked when they are sliced, and the file is open only then."""

    def __init__(self, path: Path, number: int, series: Any) -> None:
        self._path, self._number = path, number
        self.shape, self.dtype = tuple(series.shape), series.dtype
        self.chunks = (*(1 for _ in self.shape[:-2]), *self.shape[-2:])

    def __getitem__(self, key: Any) -> NDArray[Any]:
        import tifffile
        import zarr

        with (
            slicing(self._path),
            tifffile.TiffFile(self._path) as tif,
            tif.series[self._number].aszarr(level=0) as store,
        ):
            return np.asarray(zarr.open(store, mode="r")[key])


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
    """Give voxel size and position of an ImageJ TIFF; of others the size of a pixel, unless it is for printers."""
    facts = tif.imagej_metadata
    if not facts:
        return _resolution(series)
    pixels = [series.keyframe.tags.valueof(f"{axis}Resolution", (1, 1)) for axis in "YX"]
    y, x = (stated_length(size / count if count else 1) for count, size in pixels)
    units = {axis: unit_name(str(facts[name])) for axis, name in IMAGEJ_UNITS.items() if name in facts}
    lengths = {"Z": stated_length(facts.get("spacing", 1)), "Y": y, "X": x}
    spacing, unit = in_unit_of_x(lengths, units), units.get("X", UNKNOWN_UNIT)
    if not any(name in facts for name in ORIGINS):
        return Geometry(spacing, unit)
    # ImageJ says which voxel, with fractions, is at position 0.
    origin = [-float(facts.get(name, 0)) * size for name, size in zip(ORIGINS, spacing, strict=True)]
    return Geometry.upright(spacing, unit, origin)


def _resolution(series: Any) -> Geometry:
    """Give the size of a pixel that the tags say; few dots an inch are of a printer, a screen or a camera."""
    unit = CENTIMETRES.get(int(series.keyframe.tags.valueof("ResolutionUnit", 1)))
    pixels = [series.keyframe.tags.valueof(f"{axis}Resolution", (0, 1)) for axis in "YX"]
    if unit is None or any(not count or not size or count / size / unit < FINE for count, size in pixels):
        return Geometry()
    y, x = (unit * CENTIMETRE * size / count for count, size in pixels)
    return Geometry((x, y, x), "micrometer")


def write(path: Path, array: Any, like: Volume) -> None:
    """Write an ImageJ TIFF, or an OME-TIFF of what ImageJ cannot hold."""
    import tifffile

    points = () if like.time is None else array.shape[:1]
    classes = array.shape[len(points) : -3]
    planes, letters = array.shape[-3:-2] if like.shape[0] > 1 else (), "T" if points else ""
    shape = (*points, *planes, *classes, *array.shape[-2:])
    axes = letters + ("Z" if planes else "") + ("C" if classes else "") + "YX"
    size = prod(shape) * array.dtype.itemsize
    fits_imagej = array.dtype.char in "BHf" and size < 2**31 and min(shape[-2:]) > 1
    if fits_imagej and not path.name.lower().endswith((".ome.tif", ".ome.tiff")):
        options = _imagej_options(like)
    else:
        options = _ome_options(like, prod(classes)) | {"bigtiff": size >= 2**31}
    options["metadata"] |= {"axes": axes, **_named(array, like, imagej="imagej" in options)}
    pages = (
        np.ascontiguousarray(array[(*t, *k, z)])
        for t in np.ndindex(points)
        for z in range(array.shape[-3])
        for k in np.ndindex(classes)
    )
    tifffile.imwrite(path, pages, shape=shape, dtype=array.dtype, photometric="minisblack", **options)


def _named(array: Any, like: Volume, *, imagej: bool) -> dict[str, Any]:
    """Give the names of classes as metadata, of masks and probabilities those of the channels."""
    one = array.shape if like.time is None else array.shape[1:]
    channels, facts = channel_names(like.class_names, one), dict[str, Any]()
    if channels:
        times = prod(array.shape[:-2]) // len(channels)
        facts |= {"Labels": channels * times} if imagej else {"Channel": {"Name": channels}}
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
    if like.time is not None and (step := seconds(like.time)) is not None:
        facts |= {"finterval": step, "tunit": "sec"}
    return {"imagej": True, "resolution": (1 / x, 1 / y), "metadata": facts}


def _ome_options(like: Volume, channels: int) -> dict[str, Any]:
    """Give voxel size, unit and position as OME keeps them."""
    unit = unit_name(like.unit)
    name = MICRO if unit == "micrometer" else unit
    facts: dict[str, Any] = {f"PhysicalSize{axis}": size for axis, size in zip("ZYX", like.spacing, strict=True)}
    facts |= {f"PhysicalSize{axis}Unit": name for axis in "ZYX"}
    points = 1 if like.time is None else like.time.points
    if like.time is not None and (step := seconds(like.time)) is not None:
        facts |= {"TimeIncrement": step, "TimeIncrementUnit": "s"}
    planes: dict[int, Any] = like.geometry.header.get(POSITIONS, {})
    if (origin := like.geometry.origin) is not None:
        (z, y, x), units = origin, {f"{axis}Unit": name for axis in "ZYX"}
        planes = {k: {"Z": z + k * like.spacing[0], "Y": y, "X": x} | units for k in range(like.shape[0])}
    if all(planes.get(k, {}).keys() == planes.get(0, {}).keys() for k in range(like.shape[0])):
        per_page = [planes.get(k, {}) for k in range(like.shape[0]) for _ in range(channels)] * points
        facts["Plane"] = {f"Position{key}": [place[key] for place in per_page] for key in per_page[0]}
    return {"ome": True, "metadata": facts}
