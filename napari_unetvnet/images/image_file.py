"""The result of reading a file, and the choice of the reader by the ending."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from napari_unetvnet.errors import DataProblem, FileProblem
from napari_unetvnet.images.arrays import View
from napari_unetvnet.images.declared import check_shape
from napari_unetvnet.images.formats import endings, listed
from napari_unetvnet.images.geometry import UNKNOWN, Geometry
from napari_unetvnet.images.sources import source_format, split_time
from napari_unetvnet.images.time_axis import TimeAxis

if TYPE_CHECKING:
    from pathlib import Path

    from napari_unetvnet.images.class_names import ClassNames

__all__ = ["LARGE_BYTES", "ImageFile", "read_file", "series_of"]

HEADERS, VOXELS = (".hdr", ".mhd", ".nhdr"), (".img", ".raw", ".zraw")
"""Endings of images in two files: of the header, which is named, and of the voxels."""
LARGE_BYTES = 1 << 28
"""Values of larger files are converted when they are sliced, not all at once."""


class ImageFile(NamedTuple):
    """The image in a file: data (C, Z, Y, X), where it lies and, of labels, the names of classes.

    ``question`` asks of labels for the axes if the channels may be planes, ``unclear`` is the shape of an image of
    which nothing tells whether its first axis is planes, channels or time points. A time series has a ``time`` axis,
    and in ``frames`` the data of each time point, of which ``data`` is the first. ``orientation`` is the tag of that
    name, of EXIF and TIFF: how viewers turn the picture, which is read as it is stored. Values of a file in which 0 is
    white were subtracted from ``inverted``.
    """

    data: Any
    geometry: Geometry = UNKNOWN
    palette: bool = False
    question: str = ""
    class_names: ClassNames = ()
    unclear: tuple[int, ...] = ()
    frames: tuple[Any, ...] = ()
    time: TimeAxis | None = None
    channel_names: tuple[str, ...] = ()
    orientation: int = 1
    inverted: int = 0

    def at(self, point: int, name: str) -> ImageFile:
        """Give the image of a time point.

        Parameters
        ----------
        name : str
            Name of the file, for messages.

        Returns
        -------
        ImageFile

        Raises
        ------
        DataProblem
            If there is no such time point.
        """
        if point >= len(self.frames) and (point or self.frames):
            there = f"has the time points 0 to {len(self.frames) - 1}" if self.frames else "holds a single time point"
            raise DataProblem(f"{name} {there}, not {point}; choose another (--time).")
        return self._replace(data=self.frames[point] if self.frames else self.data, frames=(), time=None)


def series_of(frames: tuple[Any, ...], step: float = 1.0, unit: str = "", **facts: Any) -> ImageFile:
    """Make the image of a file from its time points, or from the only one.

    Parameters
    ----------
    frames : tuple of array of shape (C, Z, Y, X)
    step : float
        Time from one to the next, in a unit.
    **facts
        Further fields.

    Returns
    -------
    ImageFile
    """
    if len(frames) == 1:
        return ImageFile(frames[0], **facts)
    return ImageFile(frames[0], **facts, frames=frames, time=TimeAxis.of(len(frames), step, unit))


def read_file(path: Path, axes: str = "") -> ImageFile:
    """Read one file by its ending.

    Parameters
    ----------
    path : Path
        A file, a dataset in it, or an array in a folder, or a time point of one.
    axes : str
        Axes of its array, such as "zyx"; only for a format that can hold them in any order.

    Returns
    -------
    ImageFile
        With values in the byte order of this machine.

    Raises
    ------
    FileProblem
        If the format is unknown, or the file is cut off or damaged.
    DataProblem
        If there is no such time point.
    """
    path, point = split_time(path)
    if (kind := source_format(path)) is None:
        headers = (path.with_suffix(ending) for ending in HEADERS if path.suffix.lower() in VOXELS)
        if header := next((each for each in headers if each.is_file()), None):
            raise FileProblem(f"{path.name} holds the voxels of {header.name}; name {header.name} instead.")
        raise FileProblem(f"{path.name} has an unknown ending; use {listed(endings())}.")
    read = kind.function("read")
    image: ImageFile = read(path, axes) if kind.any_axes else read(path)
    check_shape(path, image.data.shape, image.data.dtype)
    if point is not None:
        image = image.at(point, path.name)
    frames = tuple(map(_native, image.frames))
    return image._replace(data=frames[0] if frames else _native(image.data), frames=frames)


def _native(data: Any) -> Any:
    """Give values in the byte order of this machine."""
    if data.dtype.isnative:
        return data
    return View(data) if data.nbytes > LARGE_BYTES else data.astype(data.dtype.newbyteorder("="))
