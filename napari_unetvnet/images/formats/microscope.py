"""Files of microscopes, read by bioio and the reader that it has for each kind. They are only read.

A file may hold several scenes (positions, series, tiles), of which a source names one by its number or name:
``file.czi:2``, ``file.lif:Position 3``. Axes, voxel size, time step and names of channels are those of the reader.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.errors import FileProblem
from napari_unetvnet.images.axes import frames_of
from napari_unetvnet.images.damage import BAD_FILE, damaged_file, reading, slicing
from napari_unetvnet.images.formats import format_of
from napari_unetvnet.images.geometry import Geometry
from napari_unetvnet.images.image_file import ImageFile, series_of
from napari_unetvnet.images.sources import split_dataset

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

READERS = {
    ".czi": "bioio-czi", ".nd2": "bioio-nd2", ".lif": "bioio-lif", ".oib": "bioio-bioformats",
    ".oif": "bioio-bioformats", ".vsi": "bioio-bioformats", ".dv": "bioio-dv", ".ims": "bioio-imaris",
}  # fmt: skip
"""The package that bioio needs besides itself for each kind of file."""
LISTED = 12


def read(path: Path) -> ImageFile:
    """Open the only scene, or the one that the path names; what is sliced is read."""
    file, scene = split_dataset(path)
    image = _opened(file)
    image.set_scene(_chosen(list(image.scenes), scene, file))
    with reading(file):
        data, axes = image.xarray_dask_data, "".join(map(str, image.xarray_dask_data.dims)).upper()
        frames = frames_of(_Lazy(data.data, file), axes, file.name)
        geometry, step = _geometry(image), _seconds(image)
        names = _channel_names(image) if "C" in axes else ()
    return series_of(frames, step or 1.0, "second" if step else "", geometry=geometry, channel_names=names)


def _opened(path: Path) -> Any:
    """Open a file with the reader that is installed for it."""
    kind = format_of(path)
    if kind is not None and kind.missing:
        raise FileProblem(f"{path.name} is read by {kind.missing}")
    from bioio import BioImage
    from bioio_base.exceptions import UnsupportedFileFormatError

    try:
        return BioImage(path)
    except (UnsupportedFileFormatError, ImportError) as error:
        package = READERS.get(path.suffix.lower(), "bioio-bioformats")
        raise FileProblem(f"bioio has no reader for {path.name}; install it: pip install {package}.") from error
    except BAD_FILE as error:
        raise damaged_file(path, str(error)) from error


def _chosen(scenes: Sequence[str], scene: str, path: Path) -> int:
    """Give the index of the scene to read."""
    if not scene and len(scenes) == 1:
        return 0
    if scene in scenes:
        return scenes.index(scene)
    if scene.isdecimal() and 1 <= int(scene) <= len(scenes):
        return int(scene) - 1
    listed = ", ".join(f"{i} ({name})" for i, name in enumerate(scenes[:LISTED], 1))
    what = f"has no scene {scene}; it holds" if scene else "holds"
    raise FileProblem(
        f"{path.name} {what} {len(scenes)} scenes; name one by its number or name, such as {path.name}:1: "
        f"{listed}{', ...' if len(scenes) > LISTED else ''}."
    )


class _Lazy:
    """A dask array of a file, which is read when it is sliced."""

    def __init__(self, array: Any, path: Path) -> None:
        self._array, self._path = array, path
        self.shape, self.dtype = tuple(map(int, array.shape)), np.dtype(array.dtype)
        self.chunks = tuple(max(edges) for edges in array.chunks)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        with slicing(self._path):
            return np.asarray(self._array[key])


def _geometry(image: Any) -> Geometry:
    """Give the voxel size; bioio states micrometers."""
    sizes = image.physical_pixel_sizes
    if not sizes.Y or not sizes.X:
        return Geometry()
    return Geometry((float(sizes.Z or sizes.X), float(sizes.Y), float(sizes.X)), "micrometer")


def _seconds(image: Any) -> float | None:
    """Give the time from one time point to the next; None if it is unknown."""
    step = getattr(image, "time_interval", None)
    if isinstance(step, timedelta):
        return step.total_seconds()
    return None if step is None else float(step)


def _channel_names(image: Any) -> tuple[str, ...]:
    """Give the names of the channels; those that bioio makes up say nothing."""
    names = tuple(map(str, image.channel_names or ()))
    return () if any(name.startswith("Channel:") for name in names) else names
