"""A channel of an image, or labels, as a layer holds them: an array that is read by slicing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

__all__ = ["Channel"]


@dataclass(frozen=True, eq=False)
class Channel:
    """An array that is read by slicing.

    Parameters
    ----------
    name : str
        Of its layer.
    picks : tuple of int or None
        For each axis of the array the place that is read, such as that of a colour, or None for the axes of `shape`.
        Empty for all axes.
    is_series : bool
        Whether the first axis of `shape` is time.
    """

    data: Any
    name: str = ""
    picks: tuple[int | None, ...] = ()
    is_series: bool = False

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes of the array that are read."""
        return tuple(axis for axis in range(len(self.data.shape)) if not self.picks or self.picks[axis] is None)

    @property
    def shape(self) -> tuple[int, ...]:
        """Size (Y, X) or (Z, Y, X), of a time series with T before them."""
        return tuple(int(self.data.shape[axis]) for axis in self.axes)

    def read(self, block: tuple[slice, ...]) -> Any:
        """Read a block.

        Parameters
        ----------
        block : tuple of slice
            One for each axis of `shape`.

        Returns
        -------
        array
        """
        key: list[Any] = list(self.picks or (None,) * len(self.data.shape))
        for axis, part in zip(self.axes, block, strict=True):
            key[axis] = part
        return np.asarray(self.data[tuple(key)])

    def at(self, point: int) -> Channel:
        """Give a time point of a series."""
        picks = list(self.picks or (None,) * len(self.data.shape))
        picks[self.axes[0]] = point
        return replace(self, picks=tuple(picks), is_series=False)
