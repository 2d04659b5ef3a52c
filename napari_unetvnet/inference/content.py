"""The part of an image that is segmented as if it were the whole: its content, without a frame of one value."""

from __future__ import annotations

from contextlib import closing, nullcontext
from math import prod
from typing import TYPE_CHECKING, TypeVar

from napari_unetvnet.images.content import content_box
from napari_unetvnet.images.volume import Box
from napari_unetvnet.inference.tiles import smallest_image

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from napari_unetvnet.conventions import Triple
    from napari_unetvnet.images.volume import Volume
    from napari_unetvnet.inference.slab import MapSlab, Slab
    from napari_unetvnet.model.model import Model
    from napari_unetvnet.settings import SegmentSettings

    Planes = TypeVar("Planes", Slab, MapSlab)

__all__ = ["framed", "part_to_segment", "within"]

SLAB_VOXELS = 1 << 24
"""About how many voxels of a frame are given at a time."""


def part_to_segment(model: Model, volume: Volume, settings: SegmentSettings) -> Box:
    """Give the part of a volume to segment.

    Returns
    -------
    Box
        The content, but not less than the network needs; all of it for a model that was trained with frames.
    """
    if model.card.normalise_in == "all":
        return Box((0, 0, 0), volume.shape)
    box = content_box(volume.data)
    least = smallest_image(model, settings.view)
    ends = [_grown(*axis) for axis in zip(box.start, box.stop, least, volume.shape, strict=True)]
    (z, y, x), (z_stop, y_stop, x_stop) = zip(*ends, strict=True)
    return Box((z, y, x), (z_stop, y_stop, x_stop))


def _grown(start: int, stop: int, least: int, length: int) -> tuple[int, int]:
    """Lengthen a range to ``least``, as far as the axis allows."""
    missing = max(0, least - (stop - start))
    start = max(0, min(start - missing // 2, length - least))
    return start, min(length, max(stop, start + least))


def within(settings: SegmentSettings, box: Box, shape: Triple) -> SegmentSettings | None:
    """Give the settings for a part of a volume, with the region of interest in its voxels.

    Returns
    -------
    SegmentSettings or None
        None if the region lies outside the part.
    """
    if settings.box_start is None and settings.box_stop is None:
        return settings
    start = [max(0, a - b) for a, b in zip(settings.box_start or (0, 0, 0), box.start, strict=True)]
    ends = zip(settings.box_stop or shape, box.start, box.stop, strict=True)
    stop = [min(a, last) - first for a, first, last in ends]
    if any(a >= b for a, b in zip(start, stop, strict=True)):
        return None
    return settings.model_copy(update={"box_start": tuple(start), "box_stop": tuple(stop)})


def framed(
    slabs: Generator[Planes] | None, box: Box, shape: Triple, first_plane: int, background: Callable[[int, int], Planes]
) -> Iterator[Planes]:
    """Put the slabs of a part into the whole volume.

    Parameters
    ----------
    slabs : generator of Slab or MapSlab, or None
        Of the part; it is closed at the end. None if nothing of it is left.
    box : Box
        The part.
    first_plane : int
        Planes of the whole before it are left out.
    background : callable
        Makes a slab of background, of the whole width, from its first plane and its number of planes.

    Yields
    ------
    Slab or MapSlab
    """
    step = max(1, SLAB_VOXELS // prod(shape[1:]))

    def frame(start: int, stop: int) -> Iterator[Planes]:
        for plane in range(start, stop, step):
            yield background(plane, min(step, stop - plane))

    done = first_plane
    with nullcontext(()) if slabs is None else closing(slabs) as rest:
        for slab in rest:
            start, depth = slab.start + box.start[0], slab.stop - slab.start
            yield from frame(done, start)
            whole = background(start, depth)
            for name, array in slab.arrays.items():
                whole.arrays[name][(..., *box.slices[1:])] = array
            yield whole
            done = start + depth
    yield from frame(done, shape[0])
