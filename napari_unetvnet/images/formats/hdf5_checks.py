"""An HDF5 file of a stranger: what in it leads to other files, and how much its chunks unpack to.

An external link, a virtual dataset and external storage name other files, which HDF5 opens without a word. They are
followed within the folder of the file only. A link is looked at before it is opened, because to open a pipe never ends.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_unetvnet.errors import FileProblem
from napari_unetvnet.images.damage import reading
from napari_unetvnet.images.declared import check_beside
from napari_unetvnet.images.formats.packed import check_packed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["ChunkedDataset", "check_links", "check_sources", "opened_set"]

MOST_STEPS = 32
"""Links behind each other, and virtual datasets of virtual ones."""
SAME_FILE = "."
CHECK_SUMS = 64
"""Bytes that other filters may add to a chunk before it is zipped."""
LARGEST_CHUNK = 1 << 20
"""Stored bytes of chunks that are not looked at if they are no larger than what they unpack to."""


@contextmanager
def opened_set(path: Path) -> Iterator[Any]:
    """Open a file of which tables are read by name; links among them stay within its folder.

    Yields
    ------
    h5py.File
    """
    import h5py

    with reading(path), h5py.File(path, "r") as file:
        for name in file:
            if not isinstance(file.get(name, getlink=True), h5py.HardLink):
                check_links(path, file, name)
        yield file


def check_links(path: Path, file: Any, inside: str, steps: int = 0) -> None:
    """Refuse the name of a dataset that leads out of the folder of its file by links.

    Parameters
    ----------
    path : Path
        Of the file.
    file : h5py.File
    inside : str
        The name.

    Raises
    ------
    FileProblem
    """
    import h5py

    _check_steps(path, steps)
    group, parts = file, [part for part in inside.split("/") if part]
    for k, part in enumerate(parts):
        link, rest = group.get(part, getlink=True) if isinstance(group, h5py.Group) else None, "/".join(parts[k + 1 :])
        if isinstance(link, h5py.ExternalLink):
            check_beside(path, [link.filename])
            other = path.parent / link.filename
            if other.is_file():
                with h5py.File(other, "r") as linked:
                    check_links(other, linked, f"{link.path}/{rest}", steps + 1)
            return
        if isinstance(link, h5py.SoftLink):
            base = "" if link.path.startswith("/") else group.name
            check_links(path, file, f"{base}/{link.path}/{rest}", steps + 1)
            return
        group = group.get(part) if link is not None else None
    if isinstance(group, h5py.Dataset):
        check_sources(path, group, steps)


def check_sources(path: Path, dataset: Any, steps: int = 0) -> None:
    """Refuse a dataset whose voxels lie in files outside the folder of its own.

    Parameters
    ----------
    path : Path
        Of the file of the dataset.
    dataset : h5py.Dataset

    Raises
    ------
    FileProblem
    """
    import h5py

    _check_steps(path, steps)
    # HDF5 looks for relative names of external storage in the current folder.
    check_beside(path, [Path.cwd() / name for name, *_ in dataset.external or ()])
    sources = dataset.virtual_sources() if dataset.is_virtual else ()
    for name, inside in dict.fromkeys((source.file_name, source.dset_name) for source in sources):
        if name == SAME_FILE:
            check_links(path, dataset.file, inside, steps + 1)
            continue
        check_beside(path, [name])
        other = path.parent / name
        if other.is_file():
            with h5py.File(other, "r") as file:
                check_links(other, file, inside, steps + 1)


def _check_steps(path: Path, steps: int) -> None:
    if steps > MOST_STEPS:
        raise FileProblem(f"{path.name} leads from link to link, more than {MOST_STEPS}; name the dataset itself.")


class ChunkedDataset:
    """A dataset of zipped chunks; one that unpacks to more than is declared is refused before.

    Parameters
    ----------
    dataset : h5py.Dataset
    path : Path
        Of its file.
    """

    def __init__(self, dataset: Any, path: Path) -> None:
        self._dataset, self._path = dataset, path
        self.shape, self.dtype, self.chunks, self.file = dataset.shape, dataset.dtype, dataset.chunks, dataset.file

    def __getitem__(self, key: Any) -> NDArray[Any]:
        size = math.prod(self.chunks) * self.dtype.itemsize
        edges = [k if isinstance(k, slice) else slice(int(k), int(k) + 1) for k in key]
        for box in self._dataset.iter_chunks(tuple(edges)):
            start = tuple(edge.start // n * n for edge, n in zip(box, self.chunks, strict=True))
            info = self._dataset.id.get_chunk_info_by_coord(start)
            if info.byte_offset is not None and info.size > min(size, LARGEST_CHUNK):
                _, packed = self._dataset.id.read_direct_chunk(start)
                check_packed(self._path, "gzip", memoryview(packed), size + CHECK_SUMS)
        return self._dataset[key]  # type: ignore[no-any-return]
