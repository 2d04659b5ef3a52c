"""Zarr folders: any is read, also in a zip file; OME-Zarr images are created, filled by plane, completed by levels.

Those follow NGFF 0.5, the one for zarr format 3. A chunk is a file. A chunk that is filled in parts would be
written several times, so an image is filled by as many planes at once as a chunk has.

A coarser level of labels holds one voxel of each block of the level before, one of fractions holds their mean. Levels
are computed chunk by chunk, so the size of the image does not matter.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.images.arrays import parts
from napari_unetvnet.images.axes import given_letters
from napari_unetvnet.images.class_names import channel_names
from napari_unetvnet.images.containers import AXES, StoredArray, image_of, named_letters, only_image, with_letters
from napari_unetvnet.images.damage import reading
from napari_unetvnet.images.formats.pyramid import level_factors, shrink
from napari_unetvnet.images.sources import split_dataset
from napari_unetvnet.images.units import unit_name
from napari_unetvnet.temporary import beside, remove

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.images.class_names import ClassNames
    from napari_unetvnet.images.image_file import ImageFile
    from napari_unetvnet.images.volume import Volume

__all__ = ["CHUNK_PLANES", "complete", "completing", "create", "open_image", "read", "write"]

VERSION = "0.5"
METADATA = "zarr.json"
CHUNK_PLANES = 16
CHUNK_VOXELS = 1 << 20
"""Voxels of a chunk per class, which is what is read and written at once."""
GROUP_DEPTH = 3
"""How deep groups within groups are searched."""
ROOTS = {"zarr.json", ".zgroup", ".zarray"}
"""Files at the root of an image."""
UNITS = {"nm": "nanometer", "mm": "millimeter", "cm": "centimeter", "m": "meter"}
"""OME's names of units that we call otherwise."""


def read(path: Path, axes: str = "") -> ImageFile:
    """Open an array, or the finest level of an OME-Zarr image."""
    file, inside = split_dataset(path)
    with reading(file):
        stored, names, channels = _open(file, inside.strip("/"))
        if letters := given_letters(axes, stored.array.shape, file.name):
            stored = stored._replace(axes=letters, guessed=False)
        return image_of(stored, file)._replace(class_names=names, channel_names=channels)


def _open(path: Path, inside: str) -> tuple[StoredArray, ClassNames, tuple[str, ...]]:
    """Find the image of a zarr folder or zip (format 2 or 3), or of a part of it, and names of classes and channels."""
    import zarr

    from napari_unetvnet.images.formats.zarr_store import CheckedStore

    prefix = f"{path}/"
    if zipfile.is_zipfile(path):
        inside, prefix = inside or _only_folder(path), f"{path}:/"
    node = zarr.open(CheckedStore.of(path), mode="r", path=inside)
    if isinstance(node, zarr.Group):
        images = dict(_images(node, zarr.Group))
        node = images[only_image(path, images, prefix)]
    if isinstance(node, zarr.Group):
        return _multiscale(node), _class_names(_ome(node)), _channel_names(_ome(node))
    names = getattr(node.metadata, "dimension_names", None) or node.attrs.get("_ARRAY_DIMENSIONS")
    guessed = not named_letters(names, node.shape)
    return StoredArray(node, with_letters(names, node.shape), {}, guessed=guessed), (), ()


def _only_folder(path: Path) -> str:
    """Name the folder in which all of a zip file lies; empty if the image lies at its root."""
    with zipfile.ZipFile(path) as file:
        tops = {name.partition("/")[0] for name in file.namelist()}
    return tops.pop() if len(tops) == 1 and not tops & ROOTS else ""


def _images(group: Any, kind: type, prefix: str = "", depth: int = GROUP_DEPTH) -> Iterator[tuple[str, Any]]:
    """Find the images of a zarr group: groups with the levels of one, and arrays."""
    if "multiscales" in _ome(group):
        yield prefix.rstrip("/"), group
        return
    for name, item in sorted(group.members()):
        if isinstance(item, kind) and depth:
            yield from _images(item, kind, f"{prefix}{name}/", depth - 1)
        elif len(getattr(item, "shape", ())) > 1:
            yield f"{prefix}{name}", item


def _ome(group: Any) -> dict[str, Any]:
    """Give the OME metadata of a group, in the place of format 0.5 or in that of those before."""
    attributes = dict(group.attrs)
    return dict(attributes.get("ome") or attributes)


def _class_names(metadata: dict[str, Any]) -> ClassNames:
    """Find the names of labels, or those of the channels of masks."""
    if "image-label" not in metadata:
        return ()
    rows = (metadata["image-label"] or {}).get("properties") or ()
    channels = (metadata.get("omero") or {}).get("channels") or ()
    named = [(int(row["label-value"]), str(row["name"])) for row in rows if {"label-value", "name"} <= row.keys()]
    return tuple(named or ((i, str(channel["label"])) for i, channel in enumerate(channels, 1) if "label" in channel))


def _channel_names(metadata: dict[str, Any]) -> tuple[str, ...]:
    """Find the names of the channels of an image."""
    channels = (metadata.get("omero") or {}).get("channels") or ()
    names = tuple(str(channel.get("label") or "") for channel in channels)
    return names if all(names) else ()


def _multiscale(group: Any) -> StoredArray:
    """Open the finest level of an image."""
    image = _ome(group)["multiscales"][0]
    level = image["datasets"][0]
    array = group[level["path"]]
    # Before format 0.3 the axes were always these, in 0.3 they were names only.
    axes = [{"name": axis} if isinstance(axis, str) else axis for axis in image.get("axes") or AXES.lower()]
    letters = with_letters([axis["name"] for axis in axes], array.shape)
    transforms = (*level.get("coordinateTransformations", ()), *image.get("coordinateTransformations", ()))
    scale, shift = _applied(transforms, len(axes))
    is_placed = any("translation" in transform for transform in transforms)
    has_lengths = any("unit" in axis for axis in axes) or (scale != 1).any() or is_placed
    lengths = {
        letter: (float(size), str(axis.get("unit", "")))
        for letter, size, axis in zip(letters, scale, axes, strict=True)
        if letter in "TZYX" and has_lengths
    }
    positions = {letter: float(place) for letter, place in zip(letters, shift, strict=True) if letter in "ZYX"}
    return StoredArray(array, letters, lengths, positions if is_placed else {})


def _applied(transforms: Iterable[dict[str, Any]], axes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Apply transforms one after another, and give the scale and the translation of all together."""
    scale, shift = np.ones(axes), np.zeros(axes)
    for transform in transforms:
        factor = np.asarray(transform.get("scale", 1.0), np.float64)
        scale, shift = scale * factor, shift * factor + np.asarray(transform.get("translation", 0.0), np.float64)
    return scale, shift


def write(path: Path, array: Any, like: Volume) -> None:
    """Write an OME-Zarr image, chunk by chunk."""
    image = create(path, tuple(array.shape), array.dtype, like)
    for k in np.ndindex(image.shape[:-3]):
        for box in parts(image, math.prod(image.chunks)):
            image[(*k, *box)] = np.asarray(array[(*k, *box)])
    complete(path)


def create(path: Path, shape: tuple[int, ...], dtype: Any, like: Volume, planes: int = CHUNK_PLANES) -> Any:
    """Make an image of zeros, to be filled and then completed.

    Parameters
    ----------
    path : Path
        Nothing must be there.
    shape : tuple of 3 or 4 int
        (Z, Y, X), or (K, Z, Y, X), of a series with T before these axes.
    dtype : dtype
        Integers are labels.
    like : Volume
        Gives it name, voxel size, unit, position and time step.
    planes : int
        Of a chunk at most.

    Returns
    -------
    zarr.Array
        Its finest level.
    """
    import zarr

    unit = unit_name(like.unit)
    unit_entry = {} if unit == "pixel" else {"unit": UNITS.get(unit, unit)}
    points, step = shape[: like.time is not None], 1.0 if like.time is None else like.time.step
    axes: list[dict[str, str]] = [{"name": "t", "type": "time"}] * len(points)
    if like.time is not None and like.time.unit:
        axes = [axes[0] | {"unit": like.time.unit}]
    axes += [{"name": "c", "type": "channel"}] * (len(shape) - 3 - len(points))
    axes += [{"name": name, "type": "space", **unit_entry} for name in "zyx"]
    group = zarr.open_group(str(path), mode="w", zarr_format=3)
    others = [*(step for _ in points), *(1.0 for _ in shape[len(points) : -3])]
    image = {"axes": axes, "datasets": [_dataset(0, others, like.spacing, like.geometry.origin)], "name": like.name}
    metadata: dict[str, Any] = {"version": VERSION, "multiscales": [image]}
    channels, is_label = channel_names(like.class_names, shape[len(points) :]), np.dtype(dtype).kind in "ui"
    if is_label:
        rows = () if len(shape) - len(points) > 3 else like.class_names
        properties = [{"label-value": value, "name": name} for value, name in rows]
        metadata["image-label"] = {"properties": properties} if properties else {}
    if channels:
        window = {"min": 0, "max": 1, "start": 0, "end": 1}
        shown = {"active": True, "color": "FFFFFF", "window": window}
        metadata["omero"] = {"channels": [{"label": name, **shown} for name in channels]}
    group.attrs["ome"] = metadata
    return _level(group, 0, shape, dtype, planes, "".join(axis["name"] for axis in axes))


def open_image(path: Path, *, writable: bool = False) -> Any:
    """Open the finest level of an image that was made here.

    Returns
    -------
    zarr.Array

    Raises
    ------
    OSError, ValueError, KeyError
        If there is no such image.
    """
    import zarr

    return zarr.open_group(str(path), mode="r+" if writable else "r")["0"]


def restore(path: Path, shape: tuple[int, ...], dtype: Any, like: Volume, planes: int = CHUNK_PLANES) -> bool:
    """Write the metadata of an image anew that was made before, and may be damaged since.

    Parameters
    ----------
    path : Path
        That of the image.
    shape, dtype, like, planes
        As for `create`.

    Returns
    -------
    bool
        False if its voxels are of another type, shape or chunks, or cannot be read.
    """
    fresh = beside(path)
    try:
        create(fresh, shape, dtype, like, planes)
        level = Path("0", METADATA)
        if not (path / level).is_file() or (path / level).read_bytes() != (fresh / level).read_bytes():
            return False
        (fresh / METADATA).replace(path / METADATA)
    finally:
        remove(fresh)
    return True


def complete(path: Path) -> None:
    """Give an image that is filled its coarser levels, until a plane fits on a screen.

    Parameters
    ----------
    path : Path
        As `create` made it; that it was completed before, or half, does no harm.
    """
    for _ in completing(path):
        pass


def completing(path: Path) -> Iterator[None]:
    """Do what `complete` does, chunk by chunk.

    Yields
    ------
    None
        After each chunk.
    """
    import zarr

    for stray in path.rglob("*.partial"):
        stray.unlink()  # what a killed process was just writing
    group = zarr.open_group(str(path), mode="r+")
    metadata = dict(group.attrs["ome"])
    image = dict(metadata["multiscales"][0])
    finest, (others, spacing, origin) = group["0"], _place(image["datasets"][0])
    names = "".join(axis["name"] for axis in image["axes"])
    labels = finest.dtype.kind in "ui"
    datasets, before, last = image["datasets"][:1], finest, (1, 1, 1)
    for number, factors in enumerate(level_factors(finest.shape[-3:], spacing), 1):
        shape = tuple(-(-n // factor) for n, factor in zip(finest.shape[-3:], factors, strict=True))
        level = _level(group, number, (*finest.shape[:-3], *shape), finest.dtype, finest.chunks[-3], names)
        steps = [new // old for new, old in zip(factors, last, strict=True)]
        yield from shrink(before, level, steps, labels=labels)
        datasets.append(_dataset(number, others, spacing, origin, factors, centred=not labels))
        before, last = level, factors
    group.attrs["ome"] = metadata | {"multiscales": [image | {"datasets": datasets}]}


def _level(group: Any, number: int, shape: tuple[int, ...], dtype: Any, planes: int, names: str) -> Any:
    """Make the array of a level, anew if it is there."""
    from zarr.codecs import ZstdCodec

    planes = min(planes, shape[-3])
    edge = 2 ** int(math.log2(CHUNK_VOXELS / planes) / 2)
    chunks = (*(1,) * (len(shape) - 3), planes, min(edge, shape[-2]), min(edge, shape[-1]))
    # With the check sum that is part of zstd, which zarr leaves out, a flipped bit is noticed by every reader.
    return group.create_array(
        str(number), shape=shape, dtype=dtype, chunks=chunks, dimension_names=tuple(names), overwrite=True,
        compressors=ZstdCodec(checksum=True),
    )  # fmt: skip


def _dataset(
    number: int,
    others: Sequence[float],
    spacing: Sequence[float],
    origin: Sequence[float] | None,
    factors: Sequence[int] = (1, 1, 1),
    *,
    centred: bool = False,
) -> dict[str, Any]:
    """Describe a level; the first voxel of one that holds means lies in the middle of those that it is the mean of."""
    scale = [*others] + [float(size * factor) for size, factor in zip(spacing, factors, strict=True)]
    transforms: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
    shift = [size * (factor - 1) / 2 if centred else 0.0 for size, factor in zip(spacing, factors, strict=True)]
    if centred or origin is not None:
        shift = np.add(shift, origin or 0.0).tolist()
        transforms.append({"type": "translation", "translation": [0.0] * len(others) + shift})
    return {"path": str(number), "coordinateTransformations": transforms}


def _place(dataset: dict[str, Any]) -> tuple[list[float], list[float], list[float] | None]:
    """Give the steps of the other axes, voxel size z, y, x and position (None: unknown) that `_dataset` described."""
    scale, *translations = dataset["coordinateTransformations"]
    origin = list(translations[0]["translation"][-3:]) if translations else None
    return list(scale["scale"][:-3]), list(scale["scale"][-3:]), origin
