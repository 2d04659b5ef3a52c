"""How much a packed chunk holds, before it is unpacked: a small one may hold gigabytes, whatever its array declares.

Zstd, Blosc and LZ4 state the size that they are about to take; what does not is unpacked in parts, which are counted
and forgotten. Where even the strongest packing cannot exceed a small share of the free memory, nothing is counted.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from typing import TYPE_CHECKING, Any

from napari_unetvnet.errors import FileProblem
from napari_unetvnet.images.declared import free_memory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["PACKERS", "UNCOUNTED", "check_packed"]

STRONGEST_DEFLATE = 1032
"""Bytes that a byte of zlib and gzip unpacks to at most."""
UNCOUNTED_SHARE = 1 / 16
"""Of the free memory: chunks that cannot take more are not counted; several are unpacked at once."""
UNCOUNTED = 1 << 25
"""Bytes that a chunk may take in any case: to ask for the free memory takes longer than to unpack a small chunk."""
PART = 1 << 20
ZSTD = b"\x28\xb5\x2f\xfd"
"""What zstd frames begin with."""


def check_packed(path: Path, packer: str, packed: memoryview, size: int) -> None:
    """Refuse a packed chunk that holds more than its array declares.

    Parameters
    ----------
    path : Path
        Of the file, for messages.
    packer : str
        One of `PACKERS`; others are not checked.
    packed : memoryview
    size : int
        Bytes that it may hold.

    Raises
    ------
    FileProblem
    """
    holds = PACKERS.get(packer, _nothing)(packed, size)
    if holds > size:
        raise FileProblem(
            f"{path.name} has a chunk of {len(packed)} bytes that unpacks to more than the {size} bytes that its array "
            "declares, so it is damaged or made to fill the memory; get it from another source."
        )


def _nothing(packed: memoryview, size: int) -> int:
    return 0


def _deflated(packed: memoryview, size: int) -> int:
    most = len(packed) * STRONGEST_DEFLATE
    if most <= max(size, UNCOUNTED) or most <= free_memory() * UNCOUNTED_SHARE:
        return 0
    return _counted(zlib.decompressobj(zlib.MAX_WBITS | 32), packed, size)  # zlib or gzip, as the stream says


def _bz2(packed: memoryview, size: int) -> int:
    return _counted(bz2.BZ2Decompressor(), packed, size)


def _lzma(packed: memoryview, size: int) -> int:
    return _counted(lzma.LZMADecompressor(), packed, size)


def _counted(unpacker: Any, packed: memoryview, size: int) -> int:
    """Unpack in parts until the end, or until there are more bytes than there may be."""
    count, rest = 0, packed
    while not unpacker.eof and count <= size:
        part = unpacker.decompress(rest, PART)
        rest = memoryview(getattr(unpacker, "unconsumed_tail", b""))  # the others keep what is left
        count += len(part)
        if not part and not rest:
            break
    return count


def _zstd(packed: memoryview, size: int) -> int:
    """Read the size in the first frame header; where it is left out, try with room for so many bytes."""
    if packed[:4] != ZSTD or len(packed) < 6:
        return 0
    flags = packed[4]
    is_single = flags >> 5 & 1
    width = (1 if is_single else 0, 2, 4, 8)[flags >> 6]
    start = 6 - is_single + (0, 1, 2, 4)[flags & 3]
    if width:
        return int.from_bytes(packed[start : start + width], "little") + (256 if width == 2 else 0)
    import imagecodecs

    try:
        imagecodecs.zstd_decode(bytes(packed), out=size)
    except imagecodecs.ZstdError:
        return size + 1
    return 0


def _blosc(packed: memoryview, size: int) -> int:
    return int.from_bytes(packed[4:8], "little")


def _lz4(packed: memoryview, size: int) -> int:
    return int.from_bytes(packed[:4], "little")


PACKERS: dict[str, Callable[[memoryview, int], int]] = {
    "gzip": _deflated, "zlib": _deflated, "bz2": _bz2, "lzma": _lzma, "zstd": _zstd, "blosc": _blosc, "lz4": _lz4,
}  # fmt: skip
"""What gives the bytes that a packed chunk holds; 0 where they do no harm. They are called as zarr names them."""
