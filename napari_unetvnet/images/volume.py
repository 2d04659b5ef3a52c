"""An image in space, always ``(C, Z, Y, X)``.

Files and layers are converted to this shape when they are read, so that all other code handles 2D, 2.5D and 3D alike.
The array may be numpy, dask, zarr or memory-mapped: it is read by slicing only, and only `read_box` accepts boxes that
reach beyond it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.arrays import cut
from napari_unetvnet.images.geometry import UNKNOWN, Geometry, Grid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.conventions import Edge, Spacing
    from napari_unetvnet.images.class_names import ClassNames
    from napari_unetvnet.images.time_axis import TimeAxis

__all__ = ["Box", "Volume", "check_finite", "read_box"]


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
    geometry : Geometry
        Written back with results.
    name : str
        For messages and layer names.
    class_names : tuple of (int, str)
        Of labels: values with the name of each.
    channel_names : tuple of str
        Of an image whose file names its channels.
    orientation : int
        How viewers turn the picture of the file, as EXIF says it; 1 is as it is stored.
    time : TimeAxis or None
        Of the first time point of a series: what its results have as their first axis.

    Raises
    ------
    DataProblem
        If the array has not four axes, or is empty, complex or not numeric.
    """

    data: Any
    geometry: Geometry = UNKNOWN
    name: str = "image"
    class_names: ClassNames = ()
    channel_names: tuple[str, ...] = ()
    orientation: int = 1
    time: TimeAxis | None = None

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

    @property
    def spacing(self) -> Spacing:
        """Voxel edge lengths (z, y, x) in `unit`."""
        return self.geometry.spacing

    @property
    def unit(self) -> str:
        """Unit of lengths; "pixel" if unknown."""
        return self.geometry.unit

    @property
    def affine(self) -> NDArray[np.float64] | None:
        """From voxels to positions, x, y, z, (4, 4); None if no position is known."""
        return self.geometry.affine

    @property
    def grid(self) -> Grid:
        """Its voxels: how many there are, and where they lie."""
        return Grid(self.shape, self.geometry)

    def crop(self, box: Box) -> Volume:
        """Crop a box.

        Returns
        -------
        Volume
            With the geometry of its own voxels. Nothing is read.
        """
        return replace(self, data=cut(self.data, (slice(None), *box.slices)), geometry=self.geometry.cropped(box.start))


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
