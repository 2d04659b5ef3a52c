"""The result of reading a file, and the choice of the reader by the ending."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from napari_unetvnet.errors import FileProblem
from napari_unetvnet.images.arrays import View
from napari_unetvnet.images.formats import endings, listed
from napari_unetvnet.images.geometry import UNKNOWN, Geometry
from napari_unetvnet.images.sources import source_format

if TYPE_CHECKING:
    from pathlib import Path

    from napari_unetvnet.images.class_names import ClassNames

__all__ = ["LARGE_BYTES", "ImageFile", "read_file"]

HEADERS, VOXELS = (".hdr", ".mhd", ".nhdr"), (".img", ".raw", ".zraw")
"""Endings of images in two files: of the header, which is named, and of the voxels."""
LARGE_BYTES = 1 << 28
"""Values of larger files are converted when they are sliced, not all at once."""


class ImageFile(NamedTuple):
    """The image in a file: data (C, Z, Y, X), where it lies and, of labels, the names of classes.

    ``question`` asks for the axes if the channels may be planes.
    """

    data: Any
    geometry: Geometry = UNKNOWN
    palette: bool = False
    question: str = ""
    class_names: ClassNames = ()


def read_file(path: Path, axes: str = "") -> ImageFile:
    """Read one file by its ending.

    Parameters
    ----------
    path : Path
        A file, a dataset in it, or an array in a folder.
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
    """
    if (kind := source_format(path)) is None:
        headers = (path.with_suffix(ending) for ending in HEADERS if path.suffix.lower() in VOXELS)
        if header := next((each for each in headers if each.is_file()), None):
            raise FileProblem(f"{path.name} holds the voxels of {header.name}; name {header.name} instead.")
        raise FileProblem(f"{path.name} has an unknown ending; use {listed(endings())}.")
    read = kind.function("read")
    image: ImageFile = read(path, axes) if kind.any_axes else read(path)
    data = image.data
    if not data.dtype.isnative:
        data = View(data) if data.nbytes > LARGE_BYTES else data.astype(data.dtype.newbyteorder("="))
    return image._replace(data=data)
