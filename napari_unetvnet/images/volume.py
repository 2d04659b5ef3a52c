"""An image in space, always ``(C, Z, Y, X)``.

Files and layers are converted to this shape when they are read, so that all other code handles 2D, 2.5D and 3D alike.
The array may be numpy, dask, zarr or memory-mapped: it is read by slicing only, and only `read_box` accepts boxes that
reach beyond it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.arrays import cut

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.conventions import Edge, Normalise

__all__ = ["Box", "Intensity", "Volume", "intensity", "read_box"]

SAMPLE_VOXELS = 2_000_000
READ_VOXELS, MOST_CHUNKS = 1 << 27, 128
"""Of a chunked array with more voxels, only some chunks are read to measure intensities."""


@dataclass(frozen=True)
class Box:
    """A box of voxels, ``start`` inclusive to ``stop`` exclusive, in z, y, x order.

    Parameters
    ----------
    start, stop : tuple of 3 int
    """

    start: tuple[int, int, int]
    stop: tuple[int, int, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Edge lengths (z, y, x) in voxels."""
        z, y, x = (b - a for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """To cut the box out of an array (Z, Y, X)."""
        z, y, x = (slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x


@dataclass(frozen=True, eq=False)
class Volume:
    """An image with its position in space.

    Parameters
    ----------
    data : array of shape (C, Z, Y, X)
        Read by slicing only. A 2D image has Z = 1.
    spacing : tuple of 3 float
        Voxel edge lengths (z, y, x) in ``unit``.
    unit : str
        "pixel" if unknown.
    affine : array of shape (4, 4) or None
        Kept and written back unchanged.
    name : str
        For messages and layer names.

    Raises
    ------
    DataProblem
        If the array has not four axes, or is empty, complex or not numeric.
    """

    data: Any
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    unit: str = "pixel"
    affine: NDArray[np.float64] | None = field(default=None)
    name: str = "image"

    def __post_init__(self) -> None:
        if self.data.ndim != 4 or 0 in self.data.shape:
            raise DataProblem(
                f"{self.name}: an array of shape {tuple(self.data.shape)} is not an image; expected (C, Z, Y, X) "
                "with at least one voxel."
            )
        if np.dtype(self.data.dtype).kind not in "biuf":
            raise DataProblem(
                f"{self.name}: values of type {self.data.dtype} are not intensities; give integers or floats."
            )

    @property
    def channels(self) -> int:
        """Number of input modalities, C."""
        return int(self.data.shape[0])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Size (Z, Y, X) in voxels."""
        _, z, y, x = self.data.shape
        return int(z), int(y), int(x)

    def crop(self, box: Box) -> Volume:
        """Crop a box.

        Returns
        -------
        Volume
            With the same spacing; the affine is dropped because its origin would no longer be right. Nothing is read.
        """
        return replace(self, data=cut(self.data, (slice(None), *box.slices)), affine=None)


@dataclass(frozen=True, eq=False)
class Intensity:
    """Normalisation of raw values to network input: ``(value - shift) / scale`` for each channel."""

    shift: NDArray[np.float32]
    scale: NDArray[np.float32]

    def apply(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Normalise raw values.

        Parameters
        ----------
        values : array of shape (C, ...)

        Returns
        -------
        array of float32 of the same shape
        """
        columns = (-1, *(1,) * (values.ndim - 1))
        shifted = values.astype(np.float32) - self.shift.reshape(columns)
        return shifted / self.scale.reshape(columns)


def intensity(volume: Volume, method: Normalise) -> Intensity:
    """Measure the intensities of each channel of a volume, from evenly spaced voxels.

    Of a chunked array that is too large to be read completely, some chunks are read, chosen at random with a fixed
    seed.

    Parameters
    ----------
    volume : Volume, data of shape (C, Z, Y, X)
    method : {"zscore", "percentile", "none"}
        * "zscore": mean 0, standard deviation 1.
        * "percentile": the 1st percentile becomes 0, the 99.8th becomes 1.
        * "none": values as they are.

    Returns
    -------
    Intensity

    Raises
    ------
    DataProblem
        If the sample holds NaN, infinity, or values too large for single precision.
    """
    if method == "none":
        zero = np.zeros(volume.channels, np.float32)
        return Intensity(zero, zero + 1)
    sample = _sample(volume)
    check_finite(sample, volume.name)
    if method == "zscore":
        shift, scale = sample.mean(axis=1), sample.std(axis=1)
    else:
        shift, high = np.percentile(sample, [1, 99.8], axis=1)
        scale = high - shift
    # A constant channel has only rounding errors; a scale of 1 keeps it finite.
    scale = np.where(scale > np.maximum(1e-12 * np.abs(shift), np.finfo(np.float32).tiny), scale, 1.0)
    with np.errstate(over="ignore"):
        measured = Intensity(shift.astype(np.float32), scale.astype(np.float32))
    if not (np.isfinite(measured.shift).all() and np.isfinite(measured.scale).all()):
        raise DataProblem(
            f"{volume.name}: values reach {np.abs(sample).max():.3g}, too large for single precision; rescale them."
        )
    return measured


def _sample(volume: Volume) -> NDArray[np.float64]:
    """Read some voxels, (C, n): every n-th plane, row and column, or some chunks."""
    _, depth, height, width = volume.data.shape
    chunks = getattr(volume.data, "chunks", None)
    if chunks and depth * height * width > READ_VOXELS:
        return _sample_of_chunks(volume, [chunk[0] if isinstance(chunk, tuple) else chunk for chunk in chunks[-3:]])
    pixels = height * width
    planes = max(1, -(-depth * pixels // SAMPLE_VOXELS))
    columns = max(1, int(np.ceil(np.sqrt(pixels / SAMPLE_VOXELS))))
    sample = np.asarray(volume.data[:, ::planes, ::columns, ::columns]).astype(np.float64)
    return sample.reshape(volume.channels, -1)


def _sample_of_chunks(volume: Volume, edges: Sequence[int]) -> NDArray[np.float64]:
    """Read some chunks, (C, n), the same number of voxels of each."""
    grid = [-(-n // edge) for n, edge in zip(volume.shape, edges, strict=True)]
    count = min(prod(grid), max(8, min(MOST_CHUNKS, READ_VOXELS // prod(edges))))
    step = max(1, count * prod(edges) // SAMPLE_VOXELS)
    read = []
    for flat in np.sort(np.random.default_rng(0).choice(prod(grid), count, replace=False)):
        corner = [int(i) * edge for i, edge in zip(np.unravel_index(flat, grid), edges, strict=True)]
        box = tuple(slice(a, min(a + edge, n)) for a, edge, n in zip(corner, edges, volume.shape, strict=True))
        read.append(np.asarray(volume.data[(slice(None), *box)]).reshape(volume.channels, -1)[:, ::step])
    return np.concatenate(read, axis=1).astype(np.float64)


def check_finite(values: NDArray[Any], name: str) -> None:
    """Refuse NaN and infinity.

    Parameters
    ----------
    name : str
        Name of the image, for the message.

    Raises
    ------
    DataProblem
        If any value is NaN or infinite.
    """
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return
    bad = int(values.size - np.isfinite(values).sum())
    raise DataProblem(
        f"{name}: {bad} voxels are NaN or infinite; replace them, for example by 0 (numpy.nan_to_num), and try again."
    )


def read_box(data: Any, start: Sequence[int], stop: Sequence[int], modes: Sequence[Edge]) -> NDArray[Any]:
    """Read a box that may reach beyond the array.

    Parameters
    ----------
    data : array of shape (..., Z, Y, X)
        Sliced repeated; nothing outside the needed voxels is read.
    start, stop : 3 int each
        Voxels (z, y, x), stop exclusive; may be negative or beyond the array.
    modes : 3 of {"reflect", "symmetric", "edge"}
        How each axis is extended: mirrored without repeating the border voxel, mirrored with it, or by the border
        voxel. Repeated as often as needed.

    Returns
    -------
    array of shape (..., stop - start)
    """
    size = data.shape[-3:]
    indices = [_inside(np.arange(a, b), n, mode) for a, b, n, mode in zip(start, stop, size, modes, strict=True)]
    block = np.asarray(data[(..., *(slice(int(i.min()), int(i.max()) + 1) for i in indices))])
    for axis, index in zip((-3, -2, -1), indices, strict=True):
        relative = index - index.min()
        if not np.array_equal(relative, np.arange(block.shape[axis])):
            block = np.take(block, relative, axis=axis)
    return block


def _inside(index: NDArray[np.int_], size: int, mode: str) -> NDArray[np.int_]:
    """Map indices beyond an axis of ``size`` voxels back into it."""
    if mode == "edge" or size == 1:
        return index.clip(0, size - 1)
    repeated = int(mode == "symmetric")  # 1 if the border voxel is repeated
    folded = index % (2 * size - 2 + 2 * repeated)
    mirrored: NDArray[np.int_] = np.minimum(folded, 2 * size - 2 + repeated - folded)
    return mirrored
