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
import zipfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from zarr.storage import LocalStore, WrapperStore, ZipStore

from napari_unetvnet.errors import FileProblem
from napari_unetvnet.files import check_regular
from napari_unetvnet.images.declared import check_decoded
from napari_unetvnet.images.formats import listed
from napari_unetvnet.images.formats.packed import PACKERS, check_packed
from napari_unetvnet.images.sources import folder_image

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

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
WIDEST = 8
"""Times that filters, such as a change of type, may make a chunk larger than its array declares."""


class _Packing(NamedTuple):
    """How the chunks of an array are packed, and how many bytes one of them may hold."""

    packer: str
    size: int


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
        self._check_place(key)
        content = await super().get(key, prototype, byte_range)
        if content is not None and byte_range is None:
            self._check_content(PurePosixPath(key), content)
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

    def _check_place(self, key: str) -> None:
        """Refuse a link that leaves the folder, a pipe and a device."""
        if isinstance(self._store, ZipStore):
            return
        place = self._path / key
        real = os.path.realpath(place)
        if not os.path.lexists(real):
            return
        if os.path.commonpath((real, self._outermost)) != self._outermost:
            raise FileProblem(
                f"{self._path.name}: {key} is a link to {real}, outside the folder, which is not followed; copy the "
                "folder with what its links point to (cp -rL)."
            )
        check_regular(place)

    def _check_content(self, key: PurePosixPath, content: Buffer) -> None:
        if key.name in METADATA:
            stored = json.loads(content.to_bytes())
            _check_codecs(self._path, stored)
            for name, array in _arrays(stored):
                if packing := _packing(array):
                    self._packings[key.parent / name] = packing
        elif not key.name.startswith(".z") and (
            packing := next((self._packings[each] for each in key.parents if each in self._packings), None)
        ):
            check_packed(self._path, packing.packer, content.to_bytes(), packing.size)


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
    """Find out how chunks are packed; None of groups, and where chunks are in shards or not packed."""
    if not isinstance(stored, dict):
        return None
    packers = [name for chain in _chains(stored) for codec in chain if (name := _name(codec)) in PACKERS]
    names = {_name(codec) for chain in _chains(stored) for codec in chain}
    chunk = stored.get("chunks") or stored.get("chunk_grid", {}).get("configuration", {}).get("chunk_shape")
    if len(packers) != 1 or "sharding_indexed" in names or not chunk:
        return None
    try:
        itemsize = np.dtype(stored.get("dtype") or stored.get("data_type")).itemsize
    except TypeError:  # text, or what else is no image
        return None
    return _Packing(packers[0], math.prod(map(int, chunk)) * max(1, itemsize) * WIDEST)
