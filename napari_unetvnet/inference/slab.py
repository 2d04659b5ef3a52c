"""Finished planes of a segmentation, or of maps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MapSlab", "Slab"]


@dataclass(frozen=True, eq=False)
class Slab:
    """Finished planes from ``start`` on.

    Parameters
    ----------
    start : int
        First plane.
    labels : array of shape (dz, Y, X), or (K, dz, Y, X) if the classes overlap
        Label values.
    probabilities : array of shape (K, dz, Y, X), float16, or None
    uncertainty : array of shape (dz, Y, X), float16, or None
    """

    start: int
    labels: NDArray[Any]
    probabilities: NDArray[np.float16] | None = None
    uncertainty: NDArray[np.float16] | None = None

    @property
    def stop(self) -> int:
        """The plane after the last one."""
        return self.start + int(self.labels.shape[-3])

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays that the slab has, by name."""
        arrays = {"labels": self.labels, "probabilities": self.probabilities, "uncertainty": self.uncertainty}
        return {name: array for name, array in arrays.items() if array is not None}

    def cut(self, start: int, stop: int) -> Slab:
        """Cut some planes out.

        Parameters
        ----------
        start, stop : int
            Relative to the first plane of the slab.

        Returns
        -------
        Slab
        """
        arrays: dict[str, Any] = {name: array[..., start:stop, :, :] for name, array in self.arrays.items()}
        return replace(self, start=self.start + start, **arrays)

    def copied(self) -> Slab:
        """Copy all arrays."""
        arrays: dict[str, Any] = {name: array.copy() for name, array in self.arrays.items()}
        return replace(self, **arrays)

    def joined(self, following: Slab) -> Slab:
        """Append the following planes, with the same arrays."""
        added = following.arrays
        arrays: dict[str, Any] = {name: np.concatenate([array, added[name]], -3) for name, array in self.arrays.items()}
        return replace(self, **arrays)


@dataclass(frozen=True, eq=False)
class MapSlab:
    """Finished planes of the maps from ``start`` on.

    Parameters
    ----------
    maps : dict of str to array of shape (N, dz, Y, X), float32
        By the name of the part.
    """

    start: int
    maps: dict[str, NDArray[np.float32]]

    @property
    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """The maps, under the name that slabs of labels use."""
        return self.maps

    @property
    def stop(self) -> int:
        """The plane after the last one."""
        return self.start + int(next(iter(self.maps.values())).shape[1])
