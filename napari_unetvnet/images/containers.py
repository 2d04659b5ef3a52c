"""Zarr folders and HDF5 files: which array in them is the image, what its axes are, how large a voxel is.

Nothing but metadata is read; the array is read when it is sliced.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_unetvnet.errors import FileProblem, told

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["Stored", "divided", "is_zarr", "open_hdf5", "open_zarr"]

AXES = "TCZYX"
LISTED = 8
DEPTH = 3
"""Groups within groups are looked into so deep."""
DATASET = re.compile(r"(?P<file>.+\.(h5|hdf5)):(?P<inside>.+)", re.IGNORECASE)


class Stored(NamedTuple):
    """An array in a file: read by slicing, a letter for each axis, and length and unit of a voxel for some of them."""

    array: Any
    axes: str
    lengths: dict[str, tuple[float, str]]


class _Told:
    """An array whose damage, seen only when it is read, is told in a sentence."""

    def __init__(self, array: Any, path: Path) -> None:
        self._array, self._path = array, path
        self.shape, self.dtype, self.chunks = array.shape, array.dtype, array.chunks

    def __getitem__(self, key: Any) -> NDArray[Any]:
        with told(self._path):
            return np.asarray(self._array[key])


def is_zarr(path: Path) -> bool:
    """Whether a path is a zarr folder or lies in one.

    Parameters
    ----------
    path : Path

    Returns
    -------
    bool
    """
    return path.is_dir() and any(part.lower().endswith(".zarr") for part in path.parts)


def divided(path: Path) -> tuple[Path, str]:
    """Divide ``file.h5:/path``.

    Parameters
    ----------
    path : Path

    Returns
    -------
    file : Path
    inside : str
        The path of a dataset in it; empty if none is named.
    """
    found = DATASET.fullmatch(str(path))
    return (Path(found["file"]), found["inside"].replace("\\", "/")) if found else (path, "")


def open_zarr(path: Path) -> Stored:
    """Open an array, or the finest level of an OME-Zarr image.

    Parameters
    ----------
    path : Path
        A zarr folder (format 2 or 3), or a group or array in one.

    Returns
    -------
    Stored

    Raises
    ------
    FileProblem
        If there is no array, or several that are not the levels of one image.
    """
    import zarr

    node = zarr.open(str(path), mode="r")
    if isinstance(node, zarr.Group):
        found = dict(_images(node, zarr.Group))
        node = found[_only(path, found, f"{path}/")]
    if isinstance(node, zarr.Group):
        return _multiscale(node, path)
    names = getattr(node.metadata, "dimension_names", None) or node.attrs.get("_ARRAY_DIMENSIONS")
    return Stored(_Told(node, path), _letters(names, len(node.shape)), {})


def open_hdf5(path: Path, inside: str) -> Stored:
    """Open a dataset.

    Parameters
    ----------
    path : Path
    inside : str
        The dataset's path in the file; may be empty if it is the only one.

    Returns
    -------
    Stored

    Raises
    ------
    FileProblem
        If it is not there, or none was named and there are several.
    """
    import h5py

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim > 1:
            found[f"/{name}"] = item

    found: dict[str, Any] = {}
    file = h5py.File(path, "r")
    file.visititems(note)
    dataset = file.get(inside) if inside else found[_only(path, found, f"{path}:")]
    if not isinstance(dataset, h5py.Dataset):
        raise FileProblem(f"{path.name} holds no dataset {inside}; it holds {_listed(found)}.")
    axes = _letters(_axis_names(dataset), dataset.ndim)
    sizes = np.ravel(dataset.attrs.get("element_size_um", ()))  # z, y, x, as Fiji writes it
    lengths = {letter: (float(size), "micrometer") for letter, size in zip("ZYX", sizes, strict=False)}
    return Stored(_Told(dataset, path), axes, lengths if len(sizes) == 3 else {})


def _images(group: Any, kind: type, prefix: str = "", depth: int = DEPTH) -> Iterator[tuple[str, Any]]:
    """Find the images of a zarr group: groups with the levels of one, and arrays."""
    if "multiscales" in _ome(group):
        yield prefix.rstrip("/"), group
        return
    for name, item in sorted(group.members()):
        if isinstance(item, kind) and depth:
            yield from _images(item, kind, f"{prefix}{name}/", depth - 1)
        elif len(getattr(item, "shape", ())) > 1:
            yield f"{prefix}{name}", item


def _only(path: Path, found: Mapping[str, Any], prefix: str) -> str:
    """Take the only image, or ask for the name of one."""
    if len(found) == 1:
        return next(iter(found))
    if not found:
        raise FileProblem(f"{path.name} holds no array with two axes or more; name a file with an image.")
    raise FileProblem(
        f"{path.name} holds {len(found)} images; name one, such as {prefix}{next(iter(found))}: {_listed(found)}."
    )


def _listed(found: Mapping[str, Any]) -> str:
    """Say what there is."""
    each = [f"{name} ({' x '.join(map(str, getattr(item, 'shape', ())))})" for name, item in found.items()]
    shown = ", ".join(text.removesuffix(" ()") for text in each[:LISTED])
    return f"{shown}{', ...' if len(each) > LISTED else ''}" if each else "none"


def _ome(group: Any) -> dict[str, Any]:
    """Give the OME metadata of a group, in the place of format 0.5 or in that of those before."""
    attributes = dict(group.attrs)
    return dict(attributes.get("ome") or attributes)


def _multiscale(group: Any, path: Path) -> Stored:
    """Open the finest level of an image."""
    image = _ome(group)["multiscales"][0]
    level = image["datasets"][0]
    array = group[level["path"]]
    # Before format 0.3 the axes were always these, in 0.3 they were names only.
    axes = [{"name": axis} if isinstance(axis, str) else axis for axis in image.get("axes") or AXES.lower()]
    letters = _letters([axis["name"] for axis in axes], len(array.shape))
    scale = np.ones(len(axes))
    for transform in (*level.get("coordinateTransformations", ()), *image.get("coordinateTransformations", ())):
        scale = scale * np.asarray(transform.get("scale", 1.0), np.float64)
    known = any("unit" in axis for axis in axes) or (scale != 1).any()
    lengths = {
        letter: (float(size), str(axis.get("unit", "")))
        for letter, size, axis in zip(letters, scale, axes, strict=True)
        if letter in "ZYX" and known
    }
    return Stored(_Told(array, path), letters, lengths)


def _axis_names(dataset: Any) -> Sequence[str] | None:
    """Give the axis names of a dataset: those of ilastik, or HDF5's own."""
    if (tags := dataset.attrs.get("axistags")) is not None:
        return [axis["key"] for axis in json.loads(tags)["axes"]]
    return [dimension.label for dimension in dataset.dims]


def _letters(names: Sequence[str | None] | None, axes: int) -> str:
    """Give axes their letters; without names they are the last of T, C, Z, Y, X."""
    letters = "".join((name or " ")[0].upper() for name in names or ())
    if len(letters) == axes == len(set(letters)) and {"Y", "X"} <= set(letters):
        return letters
    return AXES[-axes:] if axes <= len(AXES) else "?" * axes
