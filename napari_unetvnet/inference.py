"""Tiled prediction as a generator of finished slabs, one loop for 2D, 2.5D and 3D.

The volume is cut along z in overlapping slabs of one tile depth. Each is read once, tiled in y and x, and the weighted
logits are summed in float32. When no later tile can touch a plane it is reduced to labels and yielded, so memory holds
one slab whatever the depth. The weights are an outer product of one window an axis; each window is divided by the sum
of all windows on its axis, so that the tiles add up to one without a count map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from napari_unetvnet.checks import check_channels, check_size
from napari_unetvnet.errors import SettingsProblem
from napari_unetvnet.resample import at_spacing, grid_at, spacing_in
from napari_unetvnet.restore import back, plane_before
from napari_unetvnet.volume import check_finite, intensity, read_box

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.card import ModelCard
    from napari_unetvnet.model import Model
    from napari_unetvnet.settings import SegmentSettings
    from napari_unetvnet.volume import Edge, Intensity, Volume

__all__ = ["Slab", "Tiles", "decide", "plan_tiles", "scores", "seen_by", "steps", "written"]

WHOLE_PLANE = 768
"""In 2D, planes up to this edge length (voxels) are one tile."""


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
    """

    start: int
    labels: NDArray[Any]
    probabilities: NDArray[np.float16] | None = None


@dataclass(frozen=True, eq=False)
class Tiles:
    """Where tiles lie and how they weigh.

    Parameters
    ----------
    size : tuple of 3 int
        Tile z, y, x in voxels.
    origins : tuple of 3 tuples of int
        First voxel of each tile on z, y and x.
    windows : tuple of 3 arrays of shape (tiles, size)
        Weights of each tile on its axis; at each voxel they sum to 1.
    """

    size: tuple[int, int, int]
    origins: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    windows: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]


def steps(
    model: Model, volume: Volume, settings: SegmentSettings, *, first_plane: int = 0, probabilities: bool = False
) -> Iterator[Slab]:
    """Label a volume slab by slab.

    Scores are kept for one tile depth only, so memory does not grow with Z.

    Parameters
    ----------
    model : Model
        Its card fixes the view, the patch size and the normalisation.
    volume : Volume, data of shape (C, Z, Y, X)
        C must equal the card's channel count. Read by slicing, once per slab.
    settings : SegmentSettings
    first_plane : int
        Planes before it are left out; the others come out the same as without it.
    probabilities : bool
        Whether to give a probability for each class, too.

    Yields
    ------
    Slab
        Labels of shape (dz, Y, X), or (K, dz, Y, X) if the classes overlap, that will not change any more.

    Raises
    ------
    DataProblem
        If the volume has another number of channels than the model, is smaller than the network's smallest input, or
        holds NaN or infinity.
    SettingsProblem
        If another view than the model's is asked for.
    OutOfMemory
        If one batch of tiles does not fit on the device.

    Notes
    -----
    Tiles are blended with a Gaussian of sigma = tile / 8 [1]_.

    References
    ----------
    .. [1] Isensee et al. 2021, nnU-Net, https://doi.org/10.1038/s41592-020-01008-z
    """
    card = model.card
    if settings.view not in {None, card.view}:
        raise SettingsProblem(f"The model was trained for view {card.view}; it cannot segment in {settings.view}.")
    check_channels(card, volume)
    check_size(volume, model.smallest, card.network)
    model.network.eval()
    dtype = np.min_scalar_type(max(card.values))
    for start, logits in _on_own_grid(model, volume, settings, first_plane):
        labels = written(logits, card).cpu().numpy().astype(dtype)
        yield Slab(start, labels, _probabilities(logits, card) if probabilities else None)


def _on_own_grid(
    model: Model, volume: Volume, settings: SegmentSettings, first_plane: int
) -> Iterator[tuple[int, Tensor]]:
    """Give the blended logits on the volume's grid, of a network that sees it at the voxel size it was trained at."""
    seen, scale = seen_by(model.card, volume, settings), intensity(volume, model.card.normalise)
    if seen is volume:
        yield from scores(model, volume, settings, scale, first_plane)
        return
    begin = plane_before(first_plane, seen.shape[0], volume.shape[0])
    found = scores(model, seen, settings, scale, begin)
    softmax = model.card.head == "multiclass"
    likely = ((start, logits.softmax(0) if softmax else logits.sigmoid()) for start, logits in found)
    for start, values in back(likely, seen.shape, volume.shape, first_plane):
        yield start, values.log() if softmax else values.logit()


def seen_by(card: ModelCard, volume: Volume, settings: SegmentSettings) -> Volume:
    """Give a volume as the network is to see it, at the voxel size of its training.

    Parameters
    ----------
    card : ModelCard
    volume : Volume
    settings : SegmentSettings

    Returns
    -------
    Volume
        The same one where the voxel size is the same to a tenth, or not known on both sides.
    """
    unknown = ("pixel", (1.0, 1.0, 1.0))
    known = unknown not in {(card.unit, card.spacing), (volume.unit, volume.spacing)}
    wanted = spacing_in(card.spacing, card.unit, volume.unit) if known and settings.resample else None
    return at_spacing(volume, grid_at(volume, wanted, planar=card.dims == 2))


def scores(
    model: Model, volume: Volume, settings: SegmentSettings, scale: Intensity, first_plane: int = 0
) -> Iterator[tuple[int, Tensor]]:
    """Give the blended logits of a volume slab by slab.

    Parameters
    ----------
    model : Model
        Its network must be in evaluation mode.
    volume : Volume, data of shape (C, Z, Y, X)
    settings : SegmentSettings
    scale : Intensity
        How to normalise the volume.
    first_plane : int
        Planes before it are left out.

    Yields
    ------
    start : int
        First plane of the slab.
    logits : Tensor of shape (K, dz, Y, X), float32, on the model's device
    """
    depth, height, width = volume.shape
    tiles = plan_tiles(model, volume.shape, settings)
    tile_depth = tiles.size[0]
    sums = torch.zeros(model.card.outputs, tile_depth, height, width, device=model.device)
    ends = [*tiles.origins[0][1:], depth]
    for row, (start, end) in enumerate(zip(tiles.origins[0], ends, strict=True)):
        if start + tile_depth <= first_plane:
            continue
        _add_row(model, volume, settings.batch, scale, tiles, row, sums)
        finished = end - start
        skip = min(max(first_plane - start, 0), finished)
        if skip < finished:
            yield start + skip, sums[:, skip:finished].clone()
        sums = sums.roll(-finished, dims=1)
        sums[:, tile_depth - finished :] = 0


@torch.inference_mode()
def _add_row(model: Model, volume: Volume, batch: int, scale: Intensity, tiles: Tiles, row: int, sums: Tensor) -> None:
    """Run the tiles of one slab and add their weighted logits to ``sums`` (K, tile depth, Y, X)."""
    slab = _read_slab(model, volume, scale, tiles, tiles.origins[0][row])
    margin = [before + after for before, after in model.margin]
    places = [(i, j) for i in range(len(tiles.origins[1])) for j in range(len(tiles.origins[2]))]
    along_z = torch.from_numpy(tiles.windows[0][row]).to(model.device)
    for first in range(0, len(places), batch):
        chosen = places[first : first + batch]
        blocks = torch.stack([_cut(slab, tiles, place, margin) for place in chosen])
        for place, logits in zip(chosen, model.logits(blocks), strict=True):
            _add_tile(sums, logits, tiles, place, along_z)


def _read_slab(model: Model, volume: Volume, scale: Intensity, tiles: Tiles, z: int) -> Tensor:
    """Read and normalise one slab with the margins of its tiles, shape (C, Z', Y', X')."""
    margin = model.margin
    origins = (z, tiles.origins[1][0], tiles.origins[2][0])
    lasts = (z, tiles.origins[1][-1], tiles.origins[2][-1])
    start = [o - before for o, (before, _) in zip(origins, margin, strict=True)]
    stop = [o + n + after for o, n, (_, after) in zip(lasts, tiles.size, margin, strict=True)]
    along_z: Edge = "reflect" if model.card.dims == 3 else "edge"
    raw = read_box(volume.data, start, stop, (along_z, "reflect", "reflect"))
    check_finite(raw, volume.name)
    return torch.from_numpy(scale.apply(raw)).to(model.device)


def _cut(slab: Tensor, tiles: Tiles, place: tuple[int, int], margin: Sequence[int]) -> Tensor:
    """Cut one tile with its margin out of the slab."""
    y = tiles.origins[1][place[0]] - tiles.origins[1][0]
    x = tiles.origins[2][place[1]] - tiles.origins[2][0]
    return slab[:, :, y : y + tiles.size[1] + margin[1], x : x + tiles.size[2] + margin[2]]


def _add_tile(sums: Tensor, logits: Tensor, tiles: Tiles, place: tuple[int, int], along_z: Tensor) -> None:
    """Weigh one tile's logits (K, Z, Y, X) and add the part of them that lies in the image."""
    y, x = tiles.origins[1][place[0]], tiles.origins[2][place[1]]
    height = min(tiles.size[1], sums.shape[2] - y)
    width = min(tiles.size[2], sums.shape[3] - x)
    along_y = torch.from_numpy(tiles.windows[1][place[0]][:height]).to(sums.device)
    along_x = torch.from_numpy(tiles.windows[2][place[1]][:width]).to(sums.device)
    weight = along_z[:, None, None] * along_y[:, None] * along_x
    sums[:, :, y : y + height, x : x + width] += logits[:, :, :height, :width] * weight


def plan_tiles(model: Model, shape: tuple[int, int, int], settings: SegmentSettings) -> Tiles:
    """Lay tiles over a volume.

    Parameters
    ----------
    model : Model
    shape : tuple of 3 int
        Voxels z, y, x.
    settings : SegmentSettings

    Returns
    -------
    Tiles
        Evenly spread; in 2D and 2.5D planes do not overlap along z.
    """
    planar = model.card.dims == 2
    wanted = settings.tile or ((settings.batch, WHOLE_PLANE, WHOLE_PLANE) if planar else model.card.patch)
    size = model.fit([min(a, b) for a, b in zip(wanted, shape, strict=True)])
    overlaps = (0.0 if planar else settings.overlap, settings.overlap, settings.overlap)
    axes = [
        _origins(n, tile, overlap, grid)
        for n, tile, overlap, grid in zip(shape, size, overlaps, model.alignment, strict=True)
    ]
    windows = [_windows(n, tile, origins) for n, tile, origins in zip(shape, size, axes, strict=True)]
    return Tiles(size, (axes[0], axes[1], axes[2]), (windows[0], windows[1], windows[2]))


def _origins(length: int, tile: int, overlap: float, grid: int) -> tuple[int, ...]:
    """Spread tiles evenly over an axis, at multiples of ``grid``; with a grid the last may reach beyond the end."""
    if tile >= length:
        return (0,)
    step = max(1, int(tile * (1 - overlap)))
    if grid > 1 or overlap == 0:
        step = max(grid, step // grid * grid)
        return tuple(range(0, length - tile + step, step))
    count = -(-(length - tile) // step) + 1
    return tuple(round(i * (length - tile) / (count - 1)) for i in range(count))


def _windows(length: int, tile: int, origins: tuple[int, ...]) -> NDArray[np.float32]:
    """Give each tile's Gaussian window on an axis, normalised so that all windows sum to 1 at each voxel."""
    centred = np.arange(tile) - (tile - 1) / 2
    window = np.exp(-0.5 * (centred / (tile / 8)) ** 2).clip(1e-4)
    total = np.zeros(max(length, origins[-1] + tile))
    for origin in origins:
        total[origin : origin + tile] += window
    return np.stack([window / total[origin : origin + tile] for origin in origins]).astype(np.float32)


def decide(logits: Tensor, head: str) -> Tensor:
    """Choose a class for each voxel.

    Parameters
    ----------
    logits : Tensor of shape (K, Z, Y, X)
    head : {"binary", "multiclass", "multilabel"}

    Returns
    -------
    Tensor of uint8, shape (Z, Y, X), or (K, Z, Y, X) of a multilabel head
        Class indices; sigmoid at least one half is class 1 of a binary head. Of a multilabel head 1 where a class is.
    """
    if head == "multilabel":
        return (logits >= 0).to(torch.uint8)
    if head == "binary":
        return (logits[0] >= 0).to(torch.uint8)
    return logits.max(dim=0).indices.to(torch.uint8)


def written(logits: Tensor, card: ModelCard) -> Tensor:
    """Turn logits into label values.

    Parameters
    ----------
    logits : Tensor of shape (K, Z, Y, X)
    card : ModelCard

    Returns
    -------
    Tensor of int64, shape (Z, Y, X), or (K, Z, Y, X) if the classes overlap
        In one label image of a multilabel head, classes that lie in each other are written inner over outer; of others
        the likeliest one is, and 0 where none but the background reaches one half.
    """
    values = torch.tensor(card.values, device=logits.device)
    if card.head != "multilabel":
        return values[decide(logits, card.head).long()]
    logits = logits[list(card.class_outputs)]
    there = decide(logits, card.head).bool()
    if card.overlapping:
        return there * values[:, None, None, None]
    if not card.paint_order:
        front = [k for k, value in enumerate(card.values) if value]  # a background of its own does not cover the others
        return values[front][logits[front].max(dim=0).indices] * there[front].any(dim=0)
    labels = torch.zeros_like(logits[0], dtype=torch.int64)
    for k in card.paint_order:
        labels[there[k]] = values[k]
    return labels


def _probabilities(logits: Tensor, card: ModelCard) -> NDArray[np.float16]:
    """Give (K, Z, Y, X) probabilities; two classes for a binary head."""
    if card.head == "binary":
        one = logits.sigmoid()
        both = torch.cat([1 - one, one])
    elif card.head == "multilabel":
        both = logits[list(card.class_outputs)].sigmoid()
    else:
        both = logits.softmax(0)
    array: NDArray[np.float16] = both.half().cpu().numpy()
    return array
