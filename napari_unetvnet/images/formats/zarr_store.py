"""A zarr folder or zip of a stranger, read through a store that refuses what no image needs.

Before zarr looks at the metadata of an array, the names of all its codecs must be in a list: a codec is code that is
chosen by the file, and one of them (pickle) runs whatever the file holds. A chunk that is a link out of the folder, a
pipe or a device is refused before it is opened, and a packed one that holds more than its array declares before it is
unpacked.
"""

from __future__ import annotations

import json
import math
import os
import stat
import zipfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from zarr.storage import LocalStore, WrapperStore, ZipStore

from napari_unetvnet.errors import FileProblem
from napari_unetvnet.files import check_regular
from napari_unetvnet.images.declared import check_decoded
from napari_unetvnet.images.formats import listed
from napari_unetvnet.images.formats.packed import PACKERS, UNCOUNTED, check_packed
from napari_unetvnet.images.sources import folder_image

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

__all__ = ["CODECS", "CheckedStore"]

CODECS = frozenset({
    "bytes", "endian", "transpose", "sharding_indexed", "crc32c", "blosc", "gzip", "zstd", "zlib", "bz2", "lzma", "lz4",
    "adler32", "crc32", "fletcher32", "jenkins_lookup3", "astype", "bitround", "delta", "fixedscaleoffset", "packbits",
    "quantize", "shuffle", "vlen-utf8", "vlen-bytes",
})  # fmt: skip
"""Codecs that only compute; those of numcodecs may have its name before theirs."""
METADATA = {"zarr.json", ".zarray", ".zmetadata"}
ATTRIBUTES = {"attributes", ".zattrs"}
"""Names of metadata that say nothing of codecs."""
SHARDS, PLACE = "sharding_indexed", 16
"""The codec of shards, and the bytes that say where a chunk of one lies: its first and how many there are."""
WIDEST = 8
"""Times that filters, such as a change of type, may make a chunk larger than its array declares."""


class _Packing(NamedTuple):
    """How the chunks of an array are packed, and how many bytes one of them may hold.

    ``index_size`` is how many bytes of a shard say where its chunks lie (0: no shards), ``numbers`` the type of them.
    """

    packer: str
    size: int
    index_size: int = 0
    numbers: str = "<u8"
    at_start: bool = False

    def chunks(self, stored: NDArray[np.uint8], *, is_whole: bool) -> Iterator[memoryview]:
        """Give the packed chunks in what was read: the whole of an entry, or the index or a chunk of a shard."""
        if not self.index_size or not is_whole:
            yield stored[:0].data if self.index_size and len(stored) == self.index_size else stored.data
            return
        index = stored[: self.index_size] if self.at_start else stored[-self.index_size :]
        numbers = np.frombuffer(index.tobytes()[: self.index_size // PLACE * PLACE], self.numbers).reshape(-1, 2)
        for start, count in numbers[numbers[:, 0] < len(stored)].tolist():
            yield stored[start : start + count].data


class CheckedStore(WrapperStore[LocalStore | ZipStore]):  # type: ignore[misc] # zarr has no types for mypy
    """A zarr folder or zip, only read.

    Parameters
    ----------
    store : LocalStore or ZipStore
    """

    def __init__(self, store: LocalStore | ZipStore) -> None:
        super().__init__(store)
        self._path = Path(store.root if isinstance(store, LocalStore) else store.path)
        self._outermost = os.path.realpath(folder_image(self._path) or self._path)
        self._packings: dict[PurePosixPath, _Packing] = {}
        self._inside: set[Path] = set()

    @classmethod
    def of(cls, path: Path) -> CheckedStore:
        """Open a folder or a zip file.

        Returns
        -------
        CheckedStore

        Raises
        ------
        FileProblem
            If an entry of a zip file does not fit into memory.
        """
        if not zipfile.is_zipfile(path):
            return cls(LocalStore(path, read_only=True))
        with zipfile.ZipFile(path) as file:
            largest = max((entry.file_size for entry in file.infolist()), default=1)
        check_decoded(path, (largest,), np.uint8, chunks=True)
        return cls(ZipStore(path, mode="r"))

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Read an entry after its place was checked, and check what it holds.

        Returns
        -------
        Buffer or None

        Raises
        ------
        FileProblem
        """
        self._check_place(key, is_whole=byte_range is None)
        content = await super().get(key, prototype, byte_range)
        if content is not None:
            self._check_content(PurePosixPath(key), content, is_whole=byte_range is None)
        return content

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Read parts of entries after their places were checked.

        Returns
        -------
        list of Buffer or None

        Raises
        ------
        FileProblem
        """
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    def _check_place(self, key: str, *, is_whole: bool) -> None:
        """Refuse a link that leaves the folder, a pipe and a device, and an entry that does not fit into memory."""
        if isinstance(self._store, ZipStore):
            return
        place = self._path / key
        if place.parent not in self._inside:
            self._check_inside(place.parent, key)
            self._inside.add(place.parent)
        try:
            status = place.lstat()
        except OSError:  # there is none, which is a chunk of zeros
            return
        if not stat.S_ISREG(status.st_mode):  # quick for all that is nothing but a file
            self._check_inside(place, key)
            check_regular(place)
            status = place.stat()
        if is_whole and status.st_size > UNCOUNTED:
            check_decoded(self._path, (status.st_size,), np.uint8, chunks=True)

    def _check_inside(self, place: Path, key: str) -> None:
        real = os.path.realpath(place)
        if os.path.lexists(real) and os.path.commonpath((real, self._outermost)) != self._outermost:
            raise FileProblem(
                f"{self._path.name}: {key} is a link to {real}, outside the folder, which is not followed; copy the "
                "folder with what its links point to (cp -rL)."
            )

    def _check_content(self, key: PurePosixPath, content: Buffer, *, is_whole: bool) -> None:
        if key.name in METADATA:
            stored = json.loads(content.to_bytes())
            _check_codecs(self._path, stored)
            for name, array in _arrays(stored):
                if packing := _packing(array):
                    self._packings[key.parent / name] = packing
        elif not key.name.startswith(".z") and (
            packing := next((self._packings[each] for each in key.parents if each in self._packings), None)
        ):
            for chunk in packing.chunks(content.as_numpy_array(), is_whole=is_whole):
                check_packed(self._path, packing.packer, chunk, packing.size)


def _check_codecs(path: Path, stored: Any) -> None:
    """Refuse metadata with a codec that is not in the list, or one that packs twice."""
    for codecs in _chains(stored):
        names = [_name(codec) for codec in codecs]
        if unknown := [name for name in names if name not in CODECS]:
            raise FileProblem(
                f"{path.name} is stored with the codec {listed(unknown)}, which is not used because a file may run "
                f"code by it; save it with one of {listed(sorted(CODECS & PACKERS.keys()))}, or unpacked."
            )
        if len(packers := [name for name in names if name in PACKERS]) > 1:
            raise FileProblem(f"{path.name} is packed more than once ({listed(packers)}); save it with one codec.")
        if SHARDS in names and any(SHARDS in map(_name, chain) for codec in codecs for chain in _chains(codec)):
            raise FileProblem(f"{path.name} has shards within shards, which are not read; save it without.")


def _arrays(stored: Any) -> Iterator[tuple[str, Any]]:
    """Give metadata with the place of its array below, also those that the metadata of a group repeat."""
    yield "", stored
    consolidated = stored.get("consolidated_metadata") or stored
    for name, each in (consolidated.get("metadata") or {}).items():
        yield name.removesuffix(".zarray"), each


def _chains(stored: Any) -> Iterator[list[Any]]:
    """Give the codecs of each array, and of the chunks in shards, in the order in which they are listed."""
    if isinstance(stored, list):
        for each in stored:
            yield from _chains(each)
    if not isinstance(stored, dict):
        return
    filters, compressor = stored.get("filters"), stored.get("compressor")
    for chain in (stored.get("codecs"), stored.get("index_codecs"), [*_list(filters), *_list(compressor)]):
        if chain:
            yield _list(chain)
    for name, each in stored.items():
        if PurePosixPath(name).name not in ATTRIBUTES:
            yield from _chains(each)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _name(codec: Any) -> str:
    """Give the name of a codec, as zarr 2 or 3 stores it."""
    name = codec.get("name", codec.get("id")) if isinstance(codec, dict) else codec
    return str(name).removeprefix("numcodecs.")


def _packing(stored: Any) -> _Packing | None:
    """Find out how chunks are packed; None of groups, and where they are not."""
    if not isinstance(stored, dict):
        return None
    packers = [name for chain in _chains(stored) for codec in chain if (name := _name(codec)) in PACKERS]
    chunk = stored.get("chunks") or stored.get("chunk_grid", {}).get("configuration", {}).get("chunk_shape")
    if len(packers) != 1 or not chunk:
        return None
    try:
        itemsize = np.dtype(stored.get("dtype") or stored.get("data_type")).itemsize
    except TypeError:  # text, or what else is no image
        return None
    shards = next((codec["configuration"] for codec in _list(stored.get("codecs")) if _name(codec) == SHARDS), None)
    inner = chunk if shards is None else shards["chunk_shape"]
    packing = _Packing(packers[0], math.prod(map(int, inner)) * max(1, itemsize) * WIDEST)
    return packing if shards is None else packing._replace(**_index_of(shards, chunk))


def _index_of(shards: dict[str, Any], shape: list[int]) -> dict[str, Any]:
    """Find out where the index of a shard of a shape lies, and how large it is."""
    count = math.prod(-(-n // edge) for n, edge in zip(shape, shards["chunk_shape"], strict=True))
    codecs = shards["index_codecs"]
    is_big = any((codec.get("configuration") or {}).get("endian") == "big" for codec in codecs)
    check_sums = sum(_name(codec) == "crc32c" for codec in codecs)
    at_start = shards.get("index_location") == "start"
    return {"index_size": PLACE * count + 4 * check_sums, "numbers": ">u8" if is_big else "<u8", "at_start": at_start}
