"""HDF5 files that are open: a few at a time, so that many images do not use up the handles of the process."""

from __future__ import annotations

import threading
import weakref
from collections import Counter, OrderedDict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["StoredDataset", "opened"]

MOST_OPEN = 16
Key = tuple[str, tuple[tuple[str, int], ...]]
_lock = threading.RLock()  # HDF5 itself works for one thread at a time
_open: OrderedDict[Key, Any] = OrderedDict()
_arrays: Counter[Key] = Counter()


@contextmanager
def opened(path: Path, **cache: int) -> Iterator[Any]:
    """Open a file for reading, or take it if it is open; no other thread reads HDF5 files until the block ends.

    Parameters
    ----------
    **cache : int
        Sizes of the cache of chunks, as `h5py.File` takes them.

    Yields
    ------
    h5py.File
        It may be closed after the block; `StoredDataset` opens it again.
    """
    with _opened(_key(path, cache)) as file:
        yield file


def _key(path: Path, cache: dict[str, int]) -> Key:
    return str(path.absolute()), tuple(sorted(cache.items()))


@contextmanager
def _opened(key: Key) -> Iterator[Any]:
    import h5py

    with _lock:
        file = _open.pop(key, None) or h5py.File(key[0], "r", **dict(key[1]))
        _open[key] = file
        try:
            while len(_open) > MOST_OPEN:
                _open.popitem(last=False)[1].close()
            yield file
        finally:
            if not _arrays[key]:
                _close(key)


def _close(key: Key) -> None:
    if (file := _open.pop(key, None)) is not None:
        file.close()


def _release(key: Key) -> None:
    """Close a file when the last array in it is gone, so that it can be written to."""
    with _lock:
        _arrays[key] -= 1
        if not _arrays[key]:
            del _arrays[key]
            _close(key)


class StoredDataset:
    """A dataset of a file that is opened when it is sliced.

    Parameters
    ----------
    dataset : h5py.Dataset
        Of a file from `opened`.
    name : str
        In that file; the dataset may lie in another one to which a link leads.
    wrap : callable, optional
        What slices the dataset instead of itself.
    """

    def __init__(
        self, dataset: Any, path: Path, name: str, wrap: Callable[[Any], Any] | None = None, **cache: int
    ) -> None:
        self._key, self._name, self._wrap = _key(path, cache), name, wrap
        self.shape, self.dtype, self.chunks = dataset.shape, dataset.dtype, dataset.chunks
        with _lock:
            _arrays[self._key] += 1
        weakref.finalize(self, _release, self._key)

    def __getitem__(self, key: Any) -> Any:
        with _opened(self._key) as file:
            dataset = file[self._name]
            return (self._wrap(dataset) if self._wrap else dataset)[key]
