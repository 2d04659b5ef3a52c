"""Which of the images in a TIFF file is read: the only one, or the one that the source names, such as ``a.tif:2``.

Tifffile divides the pages of a file into series. Coarser copies of an image (overviews, thumbnails that say so) are no
images of their own. Pages of one size are one stack, even if they are stored in different ways.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.errors import DataProblem, FileProblem

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["StackedPages", "chosen_series"]

REDUCED, MASK = 1, 4
"""Bits of the tag NewSubfileType."""
LISTED = 8
OF_SET = re.compile(r"<(?:\w+:)?UUID\b[^>]*?\bFileName\s*=\s*[\"']([^\"']+)")
"""The name of a file that holds pages of a set, and not one that a microscope has noted."""


class StackedPages:
    """Series of pages of the same size and type, as one stack in the order of the pages.

    Parameters
    ----------
    parts : sequence of tifffile.TiffPageSeries
    """

    dataoffset = None

    def __init__(self, parts: Sequence[Any]) -> None:
        self._parts = parts
        self.keyframe = parts[0].keyframe
        self.pages = sorted((page for part in parts for page in part.pages), key=lambda page: int(page.index))
        self.shape = (len(self.pages), *self.keyframe.shape)
        self.axes, self.dtype = f"I{self.keyframe.axes}", self.keyframe.dtype

    def asarray(self) -> NDArray[Any]:
        """Read all pages."""
        stack = np.empty(self.shape, self.dtype)
        place = {page.index: i for i, page in enumerate(self.pages)}
        for part in self._parts:
            planes = part.asarray().reshape(len(part.pages), *self.keyframe.shape)
            stack[[place[page.index] for page in part.pages]] = planes
        return stack


def chosen_series(tif: Any, path: Path, number: str) -> Any:
    """Choose the image to read.

    Parameters
    ----------
    tif : tifffile.TiffFile
    path : Path
        Of the file, for messages.
    number : str
        Which of its images, from 1; empty if there should be only one.

    Returns
    -------
    tifffile.TiffPageSeries or StackedPages

    Raises
    ------
    DataProblem
        If there are several images and none was chosen, or there is no such number; the images are listed.
    FileProblem
        If parts of the image are in files that are missing.
    """
    series = _images(tif)
    if not number and len(series) == 1:
        chosen = series[0]
    elif number.isdecimal() and 1 <= int(number) <= len(series):
        chosen = series[int(number) - 1]
    else:
        problem = f"holds {len(series)} images" if not number else f"has no image {number}"
        listed = [f"{i} ({' x '.join(map(str, each.shape))})" for i, each in enumerate(series[:LISTED], 1)]
        raise DataProblem(
            f"{path.name} {problem}; name one by its number, such as {path.name}:{len(series)}, or save each as a "
            f"file: {', '.join(listed)}{', ...' if len(series) > LISTED else ''}."
        )
    if any(page is None for page in chosen.pages) and (missing := _missing_files(tif, path)):
        raise FileProblem(f"{path.name} is one of a set of files; put the others beside it: {', '.join(missing)}.")
    return chosen


def _images(tif: Any) -> list[Any]:
    """List the images of a file, without copies of less resolution and masks."""
    whole = [each for each in tif.series if not int(each.keyframe.subfiletype) & (REDUCED | MASK)]
    series = whole or list(tif.series)
    # "Generic" series are mere groups of pages: by size, type and compression.
    kinds = {(each.kind, each.keyframe.shape, each.keyframe.axes, str(each.keyframe.dtype)) for each in series}
    if len(series) > 1 and len(kinds) == 1 and series[0].kind == "generic":
        return [StackedPages(series)]
    return series


def named_files(tif: Any) -> list[str]:
    """List the files of a set of OME-TIFFs, by the names that one of them states."""
    return list(dict.fromkeys(OF_SET.findall(tif.ome_metadata or "")))


def _missing_files(tif: Any, path: Path) -> list[str]:
    """List the files of a set of OME-TIFFs that are not there."""
    return [name for name in named_files(tif) if not (path.parent / name).exists()]
