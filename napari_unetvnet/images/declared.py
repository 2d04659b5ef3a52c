"""What the header of a file declares, compared with the memory that is free before anything is unpacked.

What is memory-mapped, or read chunk by chunk, may be larger than the memory: of it only a chunk counts.
"""

from __future__ import annotations

import math
import os
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.errors import FileProblem
from napari_unetvnet.files import check_regular

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

__all__ = ["check_beside", "check_decoded", "check_shape", "free_memory"]

MOST_BYTES, LONGEST_AXIS = 1 << 62, 1 << 24
"""What no file system holds and numpy cannot count, and voxels along an axis: the largest slides have a million."""


def free_memory() -> int:
    """Give the bytes that this process can take: what is free, and what its own limit (``ulimit -v``) leaves.

    Returns
    -------
    int
    """
    import psutil

    free = int(psutil.virtual_memory().available)
    if sys.platform == "win32":
        return free
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return free
    return max(0, min(free, limit - int(psutil.Process().memory_info().vms)))


def check_shape(path: Path, shape: Sequence[int], dtype: Any) -> None:
    """Refuse an array with an axis of no length, or with more voxels than an image can have.

    Parameters
    ----------
    path : Path
        Of the file, for messages.
    shape : sequence of int
    dtype : dtype

    Raises
    ------
    FileProblem
    """
    problem = ""
    if any(n < 1 for n in shape):
        problem = "an axis is empty"
    elif max(shape, default=1) > LONGEST_AXIS:
        problem = f"an axis is longer than {LONGEST_AXIS}"
    elif math.prod(map(int, shape)) * np.dtype(dtype).itemsize >= MOST_BYTES:
        problem = "no disk holds so many"
    if problem:
        raise FileProblem(
            f"{path.name} declares {_size(shape)} voxels, but {problem}; copy it again, or save it again in the "
            "program that created it."
        )


def check_decoded(path: Path, shape: Sequence[int], dtype: Any, copies: float = 1, *, chunks: bool = False) -> None:
    """Refuse what is unpacked at once and would take more memory than is free.

    Parameters
    ----------
    path : Path
        Of the file, for messages.
    shape : sequence of int
        What is unpacked at once: the whole image, or a chunk.
    dtype : dtype
    copies : float
        How many times its size the unpacking takes.
    chunks : bool
        Whether it is a chunk.

    Raises
    ------
    FileProblem
    """
    needed = math.prod(map(int, shape)) * np.dtype(dtype).itemsize * copies
    if needed > (free := free_memory()):
        what = "chunks of " if chunks else ""
        advice = "save it in smaller chunks" if chunks else "cut it into parts, or save it as OME-Zarr, in small chunks"
        raise FileProblem(
            f"{path.name} declares {what}{_size(shape)} values of {np.dtype(dtype)}, which are unpacked at once and "
            f"take {needed / 2**30:.2f} GiB of memory, but {free / 2**30:.2f} GiB are free; {advice}."
        )


def check_beside(path: Path, files: Iterable[str | Path]) -> None:
    """Refuse other files that a file leads to, if they lie outside its folder or are no files.

    Parameters
    ----------
    path : Path
        Of the file; it may be a link, and they may lie where it points to.
    files : iterable of str or Path
        Relative ones are relative to its folder.

    Raises
    ------
    FileProblem
    """
    folders = {os.path.realpath(path.parent), os.path.dirname(os.path.realpath(path))}  # noqa: PTH120 (resolved text)
    for name in files:
        other = path.parent / name
        real = os.path.realpath(other)
        if os.path.lexists(real) and not any(_is_inside(real, folder) for folder in folders):
            raise FileProblem(
                f"{path.name} leads to {other}, outside its own folder, which is not followed; put both into one "
                "folder, or save the voxels in one file."
            )
        check_regular(other)


def _is_inside(real: str, folder: str) -> bool:
    same_drive = os.path.splitdrive(real)[0] == os.path.splitdrive(folder)[0]
    return same_drive and os.path.commonpath((real, folder)) == folder


def _size(shape: Sequence[int]) -> str:
    """Write a size, long numbers as powers of ten."""
    return " x ".join(str(n) if abs(n) < 10**12 else f"{n:.1e}" for n in map(int, shape))
