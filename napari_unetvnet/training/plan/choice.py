"""What planning rules share: their result, and a sample of planes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.settings.decision import Decision

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_unetvnet.images.volume import Volume

__all__ = ["Decision", "some_planes"]

MOST_PLANES = 64
"""Maximum number of planes of a volume that rules read."""


def some_planes(volume: Volume) -> tuple[NDArray[Any], NDArray[np.int_]]:
    """Read evenly spaced planes of a volume.

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
