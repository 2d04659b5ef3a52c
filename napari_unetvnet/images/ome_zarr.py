"""OME-Zarr images: made to be filled plane by plane, completed by coarser levels of the whole.

They follow NGFF 0.5, the one for zarr format 3. A chunk is a file. One that is filled in parts would be written several
times, so whoever fills an image does it by as many planes as a chunk has.

A coarser level of labels holds one voxel of each block of the level before, one of fractions holds their mean. Levels
are computed chunk by chunk, so the size of the image does not matter.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.images.arrays import parts
from napari_unetvnet.images.readers import unit_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_unetvnet.images.volume import Volume

__all__ = ["CHUNK_PLANES", "complete", "completing", "create", "open_image"]

VERSION = "0.5"
CHUNK_PLANES = 16
CHUNK_VOXELS = 1 << 20
"""Of each class; so much is read and written at once."""
WHOLE_PLANE = 512
"""The coarsest level has planes of this edge length (voxels) at most."""
UNITS = {"nm": "nanometer", "mm": "millimeter", "cm": "centimeter", "m": "meter"}
"""Our names of units that are called otherwise there."""


def create(path: Path, shape: tuple[int, ...], dtype: Any, like: Volume, planes: int = CHUNK_PLANES) -> Any:
    """Make an image of zeros, to be filled and then completed.

    Parameters
    ----------
    path : Path
        Nothing must be there.
    shape : tuple of 3 or 4 int
        (Z, Y, X), or (K, Z, Y, X).
    dtype : dtype
        Integers are labels.
    like : Volume
        Gives it name, voxel size and unit.
    planes : int
        Of a chunk at most.

    Returns
    -------
    zarr.Array
        Its finest level.
    """
    import zarr

    unit = unit_name(like.unit)
    known = {} if unit == "pixel" else {"unit": UNITS.get(unit, unit)}
    axes = [{"name": "c", "type": "channel"}] * (len(shape) - 3)
    axes += [{"name": name, "type": "space", **known} for name in "zyx"]
    group = zarr.open_group(str(path), mode="w", zarr_format=3)
    image = {"axes": axes, "datasets": [_dataset(0, len(shape), like.spacing)], "name": like.name}
    described: dict[str, Any] = {"version": VERSION, "multiscales": [image]}
    if np.dtype(dtype).kind in "ui":
        described["image-label"] = {}
    group.attrs["ome"] = described
    return _level(group, 0, shape, dtype, planes)


def open_image(path: Path, *, writable: bool = False) -> Any:
    """Open the finest level of an image that was made here.

    Parameters
    ----------
    path : Path
    writable : bool

    Returns
    -------
    zarr.Array

    Raises
    ------
    OSError, ValueError, KeyError
        If there is no such image.
    """
    import zarr

    return zarr.open_group(str(path), mode="r+" if writable else "r")["0"]


def complete(path: Path) -> None:
    """Give an image that is filled its coarser levels, until a plane fits on a screen.

    Parameters
    ----------
    path : Path
        As `create` made it; that it was completed before, or half, does no harm.
    """
    for _ in completing(path):
        pass


def completing(path: Path) -> Iterator[None]:
    """Do what `complete` does, chunk by chunk.

    Parameters
    ----------
    path : Path

    Yields
    ------
    None
        After each chunk.
    """
    import zarr

    for stray in path.rglob("*.partial"):
        stray.unlink()  # what a killed process was just writing
    group = zarr.open_group(str(path), mode="r+")
    described = dict(group.attrs["ome"])
    image = dict(described["multiscales"][0])
    finest, spacing = group["0"], _spacing(image["datasets"][0])
    labels = finest.dtype.kind in "ui"
    datasets, before, last = image["datasets"][:1], finest, (1, 1, 1)
    for number, factors in enumerate(_factors(finest.shape[-3:], spacing), 1):
        shape = tuple(-(-n // factor) for n, factor in zip(finest.shape[-3:], factors, strict=True))
        level = _level(group, number, (*finest.shape[:-3], *shape), finest.dtype, finest.chunks[-3])
        steps = [new // old for new, old in zip(factors, last, strict=True)]
        yield from _shrunk(before, level, steps, labels=labels)
        datasets.append(_dataset(number, finest.ndim, spacing, factors, centred=not labels))
        before, last = level, factors
    group.attrs["ome"] = described | {"multiscales": [image | {"datasets": datasets}]}


def _level(group: Any, number: int, shape: tuple[int, ...], dtype: Any, planes: int) -> Any:
    """Make the array of a level, anew if it is there."""
    planes = min(planes, shape[-3])
    edge = 2 ** int(math.log2(CHUNK_VOXELS / planes) / 2)
    chunks = (*(1,) * (len(shape) - 3), planes, min(edge, shape[-2]), min(edge, shape[-1]))
    names = ("c", "z", "y", "x")[-len(shape) :]
    return group.create_array(
        str(number), shape=shape, dtype=dtype, chunks=chunks, dimension_names=names, overwrite=True
    )


def _dataset(
    number: int, axes: int, spacing: Sequence[float], factors: Sequence[int] = (1, 1, 1), *, centred: bool = False
) -> dict[str, Any]:
    """Describe a level; the first voxel of one that holds means lies in the middle of those that it is the mean of."""
    others = axes - 3
    scale = [1.0] * others + [float(size * factor) for size, factor in zip(spacing, factors, strict=True)]
    transforms: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
    if centred:
        shift = [size * (factor - 1) / 2 for size, factor in zip(spacing, factors, strict=True)]
        transforms.append({"type": "translation", "translation": [0.0] * others + shift})
    return {"path": str(number), "coordinateTransformations": transforms}


def _spacing(dataset: dict[str, Any]) -> list[float]:
    """Give the voxel size z, y, x of a level."""
    return list(dataset["coordinateTransformations"][0]["scale"][-3:])


def _factors(shape: Sequence[int], spacing: Sequence[float]) -> Iterator[tuple[int, int, int]]:
    """Give how many times fewer voxels each coarser level has on z, y, x; z is kept while planes are far apart."""
    z, plane = 1, 1
    while max(shape[1:]) > WHOLE_PLANE * plane:
        plane *= 2
        if spacing[0] * z < plane * min(spacing[1:]) and shape[0] > z:
            z *= 2
        yield z, *(min(plane, 2 ** math.ceil(math.log2(n))) for n in shape[1:])


def _shrunk(source: Any, target: Any, steps: Sequence[int], *, labels: bool) -> Iterator[None]:
    """Fill a level from the one before, chunk by chunk."""
    for k in np.ndindex(target.shape[:-3]):
        for box in parts(target, math.prod(target.chunks)):
            wide = tuple(slice(edge.start * step, edge.stop * step) for edge, step in zip(box, steps, strict=True))
            block = np.asarray(source[(*k, *wide)])
            z, y, x = steps
            target[(*k, *box)] = block[::z, ::y, ::x] if labels else _means(block, steps)
            yield


def _means(block: NDArray[Any], steps: Sequence[int]) -> NDArray[Any]:
    """Give the mean of each few voxels of a block (Z, Y, X); at its end there may be fewer."""
    missing = [(0, -n % step) for n, step in zip(block.shape, steps, strict=True)]
    filled = np.pad(block, missing, mode="edge") if np.any(missing) else block
    sizes = [edge for n, step in zip(filled.shape, steps, strict=True) for edge in (n // step, step)]
    means: NDArray[Any] = filled.reshape(sizes).mean(axis=(1, 3, 5), dtype=np.float32)
    return means.astype(block.dtype)
