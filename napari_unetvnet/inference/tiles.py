"""Where tiles lie and with which weights they are blended.

The weights of a tile are the outer product of one window per axis. Each window is divided by the sum of all windows on
its axis, so the weights sum to one at each voxel without a count map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_unetvnet.images.refusals import times
from napari_unetvnet.inference.tile_size import largest_tile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_unetvnet.images.volume import Volume
    from napari_unetvnet.model.model import Model
    from napari_unetvnet.settings import SegmentSettings
    from napari_unetvnet.settings.tiling import Blending

    Place = tuple[int, int]

__all__ = ["Tiles", "plan_tiles", "small_image_notice", "smallest_image"]


FEW_CHANNELS = 4


@dataclass(frozen=True, eq=False)
class Tiles:
    """Positions and blending weights of tiles.

    Parameters
    ----------
    size : tuple of 3 int
        Voxels z, y, x of a tile.
    origins : tuple of 3 tuples of int
        First voxel of each tile on z, y and x.
    windows : tuple of 3 arrays of shape (tiles, size)
        Weights of each tile along its axis; they sum to 1 at each voxel.
    """

    size: tuple[int, int, int]
    origins: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    windows: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]

    @property
    def places(self) -> list[Place]:
        """The tiles of a slab, as indices on y and x."""
        return [(i, j) for i in range(len(self.origins[1])) for j in range(len(self.origins[2]))]


def plan_tiles(model: Model, shape: tuple[int, int, int], settings: SegmentSettings) -> Tiles:
    """Cover a volume with tiles.

    Parameters
    ----------
    shape : tuple of 3 int
        Voxels z, y, x.

    Returns
    -------
    Tiles
        Evenly spread; in 2D and 2.5D tiles do not overlap along z. Without a size in the settings, as large as the
        memory budget allows.
    """
    planar, rotations = model.card.dims == 2, settings.tta == "rotations"
    edges = settings.tile or (model.card.patch if rotations else largest_tile(model, shape, settings))
    inside = [min(a, b) for a, b in zip(edges, shape, strict=True)]
    if rotations and len(set(edges)) == 1:
        inside = [max(inside)] * 3  # rotations need a cube, also in a flat image, which is mirrored beyond its border
    size = model.fit(inside)
    overlaps = (0.0 if planar else settings.overlap, settings.overlap, settings.overlap)
    axes = [
        _origins(n, tile, overlap, grid)
        for n, tile, overlap, grid in zip(shape, size, overlaps, model.alignment, strict=True)
    ]
    windows = [
        _windows(n, tile, origins, settings.blending) for n, tile, origins in zip(shape, size, axes, strict=True)
    ]
    return Tiles(size, (axes[0], axes[1], axes[2]), (windows[0], windows[1], windows[2]))


def small_image_notice(model: Model, volume: Volume, view: str | None = None) -> str:
    """Tell that an image is smaller than the network's smallest output; empty if it is not.

    Parameters
    ----------
    volume : Volume, data of shape (C, Z, Y, X)
        As the network sees it, at the voxel size of the training.
    view : str, optional
        By which it is segmented, if not by the one of the model.

    Returns
    -------
    str
    """
    least = smallest_image(model, view)
    if all(n >= wanted for n, wanted in zip(volume.shape, least, strict=True)):
        return ""
    return (
        f"{volume.name} has {times(volume.shape)} voxels (z y x), fewer than the {times(least)} that "
        f"{model.card.network} needs: it is mirrored at its borders up to them, so the network sees little of its own; "
        f"a network of smaller depth or another view fits better{_or_channels(volume)}."
    )


def _or_channels(volume: Volume) -> str:
    """Ask whether a short last axis is channels."""
    z, y, x = volume.shape
    return ", or --axes yxc if its last axis is channels" if x <= FEW_CHANNELS < min(z, y) else ""


def smallest_image(model: Model, view: str | None = None) -> tuple[int, int, int]:
    """Give the smallest image of which nothing but the margin of the network has to be mirrored.

    Parameters
    ----------
    view : str, optional
        By which it is segmented, if not by the one of the model.

    Returns
    -------
    tuple of 3 int
        Voxels z, y, x.
    """
    z, y, x = (max(1, least - sum(sides)) for least, sides in zip(model.smallest, model.margin, strict=True))
    if view == "multi-view":  # each axis is once an axis of the planes
        z = y = x = max(y, x)
    return z, y, x


def _origins(length: int, tile: int, overlap: float, grid: int) -> tuple[int, ...]:
    """Spread tiles evenly over an axis, at multiples of ``grid``; with a grid the last may reach beyond the end."""
    if tile >= length:
        return (0,)
    step = max(1, int(tile * (1 - overlap)))
    if grid > 1 or overlap == 0:
        # A network with strides gives the same labels in all tiles only if they start at multiples of its grid.
        step = max(grid, step // grid * grid)
        return tuple(range(0, length - tile + step, step))
    # As few tiles as the overlap allows, spread so that the last one ends with the axis.
    count = -(-(length - tile) // step) + 1
    return tuple(round(i * (length - tile) / (count - 1)) for i in range(count))


def _windows(length: int, tile: int, origins: tuple[int, ...], kind: Blending) -> NDArray[np.float32]:
    """Give each tile's window on an axis, normalised so that all windows sum to 1 at each voxel."""
    if kind == "centre":
        return _nearest(tile, origins)
    centred = np.arange(tile) - (tile - 1) / 2
    # Clipped, so that a voxel that is only in the corner of one tile is not divided by almost 0.
    window = np.exp(-0.5 * (centred / (tile / 8)) ** 2).clip(1e-4) if kind == "gaussian" else np.ones(tile)
    total = np.zeros(max(length, origins[-1] + tile))
    for origin in origins:
        total[origin : origin + tile] += window
    return np.stack([window / total[origin : origin + tile] for origin in origins]).astype(np.float32)


def _nearest(tile: int, origins: tuple[int, ...]) -> NDArray[np.float32]:
    """Give 1 where the centre of a tile is the nearest one on an axis (the first of two), and 0 elsewhere."""
    twice = 2 * np.arange(tile) - (tile - 1)  # signed distance from the centre in half voxels, an exact integer
    windows = np.zeros((len(origins), tile), np.float32)
    for i, origin in enumerate(origins):
        # Distances to the centres of the tiles before and after; "<" and "<=" give a tie to the first tile.
        before = twice + 2 * (origin - origins[i - 1]) if i else np.full(tile, np.inf)
        after = twice - 2 * (origins[i + 1] - origin) if i + 1 < len(origins) else np.full(tile, np.inf)
        windows[i] = (np.abs(twice) < np.abs(before)) & (np.abs(twice) <= np.abs(after))
    return windows
