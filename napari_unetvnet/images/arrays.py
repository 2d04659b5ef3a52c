"""Arrays that may exceed memory: lazy views and stacks, reading in boxes, arrays on disk."""

from __future__ import annotations

import itertools
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_unetvnet.errors import FileProblem
from napari_unetvnet.files import writing
from napari_unetvnet.images.room import check_room, reserve
from napari_unetvnet.temporary import remove

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

__all__ = [
    "PART_VOXELS", "FileArray", "Picked", "Stack", "Typed", "View", "cut", "expanded", "new_array", "new_file", "parts",
    "planes",
]  # fmt: skip

PART_VOXELS = 1 << 21
"""Largest box to read at once, in voxels per channel; computations on it take a few times 16 MB."""
MEMORY_SHARE = 0.25
"""Maximum fraction of the free memory for a new array."""
ADVICE = "choose another folder for the run"


class View:
    """A box of an array as (C, Z, Y, X), with its axes in any order; only what is sliced is read.

    Parameters
    ----------
    source : array
        Read by slicing only: numpy, memory-mapped, dask, zarr, HDF5, or anything like it.
    order : 4 of int or None
        The axes of the source that are C, Z, Y and X; None for missing ones. Other axes of the source have length 1.
    box : 4 range, optional
        The box, along the axes of the view (default: all).
    """

    ndim = 4

    def __init__(
        self, source: Any, order: Sequence[int | None] = (0, 1, 2, 3), box: Sequence[range] | None = None
    ) -> None:
        self._source, self._order = source, tuple(order)
        self._box = tuple(box or (range(1 if axis is None else int(source.shape[axis])) for axis in order))
        self.dtype = np.dtype(source.dtype).newbyteorder("=")

    @property
    def shape(self) -> tuple[int, ...]:
        """Size (C, Z, Y, X)."""
        return tuple(map(len, self._box))

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """Chunk shape (C, Z, Y, X); None if the source has no chunks."""
        edges = getattr(self._source, "chunks", None)
        return edges and tuple(1 if axis is None else edges[axis] for axis in self._order)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        sliced = [places[k] for places, k in zip(self._box, expanded(key), strict=True)]
        ranges = [range(s, s + 1) if isinstance(s, int) else s for s in sliced]
        # Sources are read forwards, so reversed axes are flipped afterwards.
        flips = tuple(0 if isinstance(s, int) else slice(None, None, -1 if s.step < 0 else 1) for s in sliced)
        return self._read([r[::-1] if r.step < 0 else r for r in ranges])[flips]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[...].astype(dtype or self.dtype, copy=False)

    def crop(self, key: Any) -> View:
        """Crop without reading.

        Parameters
        ----------
        key : 4 slice
            With steps of 1.

        Returns
        -------
        View
        """
        return View(self._source, self._order, [places[k] for places, k in zip(self._box, key, strict=True)])

    def _read(self, ranges: list[range]) -> NDArray[Any]:
        """Read voxels in the order (C, Z, Y, X)."""
        size = [len(r) for r in ranges]
        if 0 in size:
            return np.empty(size, self.dtype)
        key = [slice(0, 1)] * len(self._source.shape)
        for axis, places in zip(self._order, ranges, strict=True):
            if axis is not None:
                key[axis] = slice(places.start, places[-1] + 1, places.step)
        block = np.asarray(self._source[tuple(key)]).astype(self.dtype, copy=False)
        used = [axis for axis in self._order if axis is not None]
        unused = [axis for axis in range(block.ndim) if axis not in used]
        return block.transpose(used + unused).reshape(size)


class Picked:
    """An array at one place of an axis, which it keeps with a length of 1.

    Parameters
    ----------
    source : array
        Read by slicing only.
    axis, place : int
    """

    def __init__(self, source: Any, axis: int, place: int) -> None:
        self._source, self._axis, self._place = source, axis, place
        self.dtype, self.ndim = np.dtype(source.dtype), len(source.shape)
        self.shape = tuple(1 if i == axis else int(n) for i, n in enumerate(source.shape))
        edges = getattr(source, "chunks", None)
        self.chunks = edges and tuple(1 if i == axis else edge for i, edge in enumerate(edges))

    def __getitem__(self, key: Any) -> NDArray[Any]:
        indices = list(key)
        indices[self._axis] = slice(self._place, self._place + 1)
        return np.asarray(self._source[tuple(indices)])


class Typed:
    """An array that is converted to another type when it is read.

    Parameters
    ----------
    source : array
        Read by slicing only.
    """

    def __init__(self, source: Any, dtype: Any) -> None:
        self._source, self.dtype = source, np.dtype(dtype)
        self.shape, self.ndim = tuple(map(int, source.shape)), len(source.shape)
        self.nbytes = math.prod(self.shape) * self.dtype.itemsize

    def __getitem__(self, key: Any) -> NDArray[Any]:
        return np.asarray(self._source[key]).astype(self.dtype, copy=False)


class FileArray:
    """An array in a .npy file that is memory-mapped only while it is read or written.

    The pages of a map that stays open count as memory of the process.

    Parameters
    ----------
    path : Path
        An existing file.

    Raises
    ------
    ValueError
        If the file is cut off or not a .npy file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        mapped = self._mapped("r")
        self.shape, self.dtype, self.ndim = mapped.shape, mapped.dtype, mapped.ndim

    @classmethod
    def create(cls, path: Path, shape: tuple[int, ...], dtype: Any) -> FileArray:
        """Create a file of zeros as `new_file` does."""
        new_file(path, shape, dtype)
        return cls(path)

    @classmethod
    def to_fill(cls, path: Path) -> FileArray:
        """Open a file that was filled in part, whose room may be no longer set aside, as after it was copied."""
        with writing(path, ADVICE, path.stat().st_size), path.open("r+b") as file:
            reserve(file, path.stat().st_size)
        return cls(path)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        return np.array(self._mapped("r")[key])

    def __setitem__(self, key: Any, values: Any) -> None:
        mapped = self._mapped("r+")
        mapped[key] = values
        mapped.flush()

    def _mapped(self, mode: Literal["r", "r+"]) -> np.memmap[Any, Any]:
        return np.lib.format.open_memmap(self.path, mode)


def new_file(path: Path, shape: tuple[int, ...], dtype: Any, advice: str = ADVICE) -> np.memmap[Any, Any]:
    """Create a .npy file of zeros, for which the disk has room, and map it to memory; an existing one is replaced.

    Parameters
    ----------
    advice : str
        What to do other than making room: the end of a sentence.

    Returns
    -------
    writable memory map of the shape

    Raises
    ------
    FileProblem
        If it cannot be written; then none is left.
    """
    try:
        with writing(path, advice, math.prod(shape) * np.dtype(dtype).itemsize):
            array = np.lib.format.open_memmap(path, "w+", dtype, shape)
            with path.open("r+b") as file:
                reserve(file, path.stat().st_size)
    except FileProblem:
        remove(path)
        raise
    return array


class Stack:
    """The channels of several arrays (C, Z, Y, X) of equal size, as one array.

    Parameters
    ----------
    arrays : sequence of array
        Read by slicing only.
    """

    ndim = 4

    def __init__(self, arrays: Sequence[Any]) -> None:
        self._channels = [(array, c) for array in arrays for c in range(array.shape[0])]
        self.shape = (len(self._channels), *arrays[0].shape[1:])
        self.dtype = np.result_type(*(array.dtype for array in arrays))

    def __getitem__(self, key: Any) -> NDArray[Any]:
        channel_key, *spatial = expanded(key)
        channels = self._channels[channel_key]
        listed = channels if isinstance(channels, list) else [channels]
        read = [np.asarray(array[(c, *spatial)]).astype(self.dtype, copy=False) for array, c in listed]
        return np.stack(read) if isinstance(channels, list) else read[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[...].astype(dtype or self.dtype, copy=False)


def expanded(key: Any) -> tuple[Any, ...]:
    """Expand a key to an index for each of four axes.

    Returns
    -------
    tuple of 4 slice or int
    """
    indices = key if isinstance(key, tuple) else (key,)
    position = next((i for i, k in enumerate(indices) if k is Ellipsis), len(indices))
    trailing = indices[position + 1 :]
    full: tuple[Any, ...] = (*indices[:position], *[slice(None)] * (4 - position - len(trailing)), *trailing)
    return tuple(k if isinstance(k, slice) else int(k) for k in full)


def cut(data: Any, key: tuple[slice, slice, slice, slice]) -> Any:
    """Crop an array without reading it.

    Parameters
    ----------
    data : array of shape (C, Z, Y, X)
    key : 4 slice
        With steps of 1.

    Returns
    -------
    array of shape (C, Z, Y, X)
        Of the same type if slicing does not read, else a View.
    """
    if isinstance(data, np.ndarray) or hasattr(data, "dask"):
        return data[key]
    return (data if isinstance(data, View) else View(data)).crop(key)


def parts(array: Any, voxels: int | None = None) -> Iterator[tuple[slice, slice, slice]]:
    """Divide an array into boxes to read one by one: whole chunks if they are not too large.

    Parameters
    ----------
    array : array of shape (..., Z, Y, X)
        Not read.
    voxels : int, optional
        Maximum size of a box (default: PART_VOXELS).

    Yields
    ------
    3 slice
        For the last three axes. Without chunks, boxes are in the order of the voxels.
    """
    size = [int(n) for n in array.shape[-3:]]
    if 0 in size:
        return
    edges = _edges(size, getattr(array, "chunks", None), voxels or PART_VOXELS)
    for corner in itertools.product(*(range(0, n, edge) for n, edge in zip(size, edges, strict=True))):
        z, y, x = (slice(a, min(a + edge, n)) for a, edge, n in zip(corner, edges, size, strict=True))
        yield z, y, x


def planes(array: Any) -> Iterator[NDArray[Any]]:
    """Read an array (..., Z, Y, X) plane by plane, in the order of its voxels."""
    for place in np.ndindex(array.shape[:-2]):
        yield np.ascontiguousarray(array[place])


def _edges(size: Sequence[int], chunks: Sequence[Any] | None, voxels: int) -> list[int]:
    """Choose the edges of the boxes: as many whole chunks as fit, x first, unless a chunk is too large."""
    chunk_edges = (chunk[0] if isinstance(chunk, tuple) else chunk for chunk in (chunks or (1, 1, 1))[-3:])
    edges = [max(1, min(int(chunk), n)) for chunk, n in zip(chunk_edges, size, strict=True)]
    if math.prod(edges) > voxels:
        edges = [1, 1, 1]
    for axis in (2, 1, 0):
        count = voxels // math.prod(edges)
        edges[axis] = min(size[axis], count * edges[axis])
    return edges


def new_array(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Create an uninitialised array: in memory, or in a temporary file if it would take too much memory.

    Returns
    -------
    array of the shape
        The file is in the temporary folder (TMPDIR) and is removed with the array.

    Raises
    ------
    FileProblem
        If that folder has no room for it.
    """
    import psutil

    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size <= MEMORY_SHARE * psutil.virtual_memory().available:
        return np.empty(shape, dtype)
    folder, advice = Path(tempfile.gettempdir()), "choose another folder for temporary files (TMPDIR)"
    check_room({folder: size}, advice)
    with writing(folder, advice, size), tempfile.TemporaryFile() as file:  # the map keeps it open
        reserve(file, size)
        return np.memmap(file, dtype, "r+", shape=shape)
