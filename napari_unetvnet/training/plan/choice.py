"""What a rule gives, and what rules look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_unetvnet.images.volume import Volume

__all__ = ["Choice", "some_planes"]

MOST_PLANES = 64
"""Of a volume, rules look at so many planes at most."""


@dataclass(frozen=True)
class Choice:
    """One setting that was chosen: its name, its value as JSON holds it, and why."""

    name: str
    value: Any
    reason: str


def some_planes(volume: Volume) -> tuple[NDArray[Any], NDArray[np.int_]]:
    """Read planes that are evenly spread over a volume.

    Parameters
    ----------
    volume : Volume, data of shape (C, Z, Y, X)

    Returns
    -------
    planes : array of shape (C, n, Y, X)
    places : array of int, shape (n,)
        Their z.
    """
    depth = volume.shape[0]
    places = np.unique(np.linspace(0, depth - 1, min(depth, MOST_PLANES)).round().astype(int))
    if len(places) == depth:
        return np.asarray(volume.data[:]), places
    return np.stack([np.asarray(volume.data[:, int(z)]) for z in places], axis=1), places
