"""Planes in whole chunks of a result, so that none is written more than once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unetvnet.events import Notice

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from napari_unetvnet.inference import Slab

__all__ = ["whole_chunks"]


def whole_chunks(slabs: Iterable[Slab | Notice], planes: int, depth: int) -> Iterator[Slab | Notice]:
    """Split and join slabs so that each ends at a chunk boundary.

    Parameters
    ----------
    slabs : iterable of Slab or Notice
        Slabs in order and without gaps; the first begins at a chunk boundary. Notices are passed on.
    planes : int
        Planes per chunk.
    depth : int
        Total number of planes; the last chunk may be incomplete.

    Yields
    ------
    Slab or Notice
        At most one chunk of planes is buffered.
    """
    rest: Slab | None = None  # planes of an incomplete chunk; a copy, so that the slab they come from can be freed
    for slab in slabs:
        if isinstance(slab, Notice):
            yield slab
            continue
        begin, stop = slab.start, slab.start + slab.labels.shape[-3]
        first = min(-(-begin // planes) * planes, stop)
        last = stop if stop == depth else max(first, stop // planes * planes)
        if begin < first:
            head = slab.cut(0, first - begin)
            rest = head.copied() if rest is None else rest.joined(head)
            if first % planes == 0 or first == depth:
                yield rest
                rest = None
        if first < last:
            yield slab.cut(first - begin, last - begin)
        if last < stop:
            rest = slab.cut(last - begin, stop - begin).copied()
        del slab
