"""Look at evenly spread planes of the labels: in pieces, in thin lines, along the edges of the image or not."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.data.checks.facts import Thumbnail
from napari_unetvnet.images.sampling import spread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.images.volume import Volume
    from napari_unetvnet.settings import TrainSettings

__all__ = ["TURNS", "thumbnail"]

PICTURE_VOXELS = 1 << 21
LEAST_SIDE = 4
LEAST_EDGE = 200
"""So many voxels at borders are needed to say where labels lie."""

TURNS: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "": lambda a: a,
    "mirrored in x": lambda a: a[:, :, ::-1],
    "mirrored in y": lambda a: a[:, ::-1],
    "turned by 180 degrees": lambda a: a[:, ::-1, ::-1],
    "with y and x swapped": lambda a: a.transpose(0, 2, 1),
    "turned by 90 degrees to the left": lambda a: a.transpose(0, 2, 1)[:, ::-1],
    "turned by 90 degrees to the right": lambda a: a.transpose(0, 2, 1)[:, :, ::-1],
    "with y and x swapped and turned by 180 degrees": lambda a: a.transpose(0, 2, 1)[:, ::-1, ::-1],
    "in reversed order of planes": lambda a: a[::-1],
}
"""What may have happened to labels that were saved by another program."""


def thumbnail(image: Volume, labels: Volume, painted: Sequence[bool], settings: TrainSettings) -> Thumbnail:
    """Look at some planes of labels and their image.

    Parameters
    ----------
    image : Volume, data of shape (C, Z, Y, X)
    labels : Volume, data of shape (1, Z, Y, X) or (K, Z, Y, X)
    painted : sequence of bool
        Whether a plane holds anything; empty if that is not known.
    settings : TrainSettings

    Returns
    -------
    Thumbnail
    """
    planes, step = _chosen(labels, painted)
    if not len(planes):
        return Thumbnail()
    raw = _planes(labels, planes, step)
    values, codes = _codes(raw)
    seen = _planes(image, planes, step)
    edge, inner = _edges(codes, settings)
    counts = np.bincount(codes.ravel(), minlength=len(values))
    at_edge = np.bincount(codes[edge], minlength=len(values))
    drawn = codes != 0
    present, winding = _pieces(codes, edge, len(values))
    whole = len(planes) == labels.shape[0] >= LEAST_SIDE
    return Thumbnail(
        lone=_lone(codes, counts),
        pieces=float(present.sum() / max(1, sum(len(np.unique(plane[plane != 0])) for plane in codes))),
        thin={int(v): float(e / n) for v, e, n in zip(values, at_edge, counts, strict=True) if v and n},
        winding={int(v): float(w) for v, w in zip(values, winding, strict=True) if v and w},
        touching=float((inner & drawn).sum() / max(1, (edge & drawn).sum())),
        agreement=_agreement(seen, inner if settings.unlabelled == "ignore" else edge, whole=whole),
        is_image=bool(codes.any()) and any(np.array_equal(raw[0], channel) for channel in seen),
    )


def _chosen(labels: Volume, painted: Sequence[bool]) -> tuple[NDArray[np.int64], int]:
    """Choose planes that hold something, and how finely to look at them."""
    held = np.flatnonzero(painted) if len(painted) else np.arange(labels.shape[0])
    pixels = labels.shape[1] * labels.shape[2]
    step = math.ceil(math.sqrt(pixels / PICTURE_VOXELS))
    count = max(1, PICTURE_VOXELS * step**2 // pixels)
    return held[spread(len(held), count)], step


def _planes(volume: Volume, planes: NDArray[np.int64], step: int) -> NDArray[Any]:
    """Read planes, (C, n, Y, X)."""
    return np.stack([np.asarray(volume.data[:, int(z)])[:, ::step, ::step] for z in planes], axis=1)


def _codes(raw: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Give each value a number, 0 staying 0; of overlapping masks, each set of masks."""
    if len(raw) > 1:
        weights = (1 << np.arange(len(raw)) % 62).reshape(-1, 1, 1, 1)
        raw = ((raw != 0) * weights).sum(axis=0)[None]
    values, codes = np.unique(raw[0], return_inverse=True)
    codes = codes.reshape(raw.shape[1:])
    if len(values) and values[0] == 0:
        return values, codes
    return np.concatenate([[0], values]), codes + 1


def _edges(codes: NDArray[np.int64], settings: TrainSettings) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Mark the voxels on both sides of a border in the plane: of any, and of one between two painted values."""
    edge, inner = np.zeros((2, *codes.shape), bool)
    for one, other in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[:, :, 1:], np.s_[:, :, :-1])):
        differ = codes[one] != codes[other]
        both = differ & (codes[one] != 0) & (codes[other] != 0)
        for side in (one, other):
            edge[side] |= differ
            inner[side] |= both
    return edge, inner


def _lone(codes: NDArray[np.int64], counts: NDArray[np.int64]) -> float:
    """Of the voxels with a rarer value than the two most frequent, the share that no neighbour in the plane equals."""
    rare = np.ones(len(counts), bool)
    rare[np.argsort(counts)[-2:]] = False
    rare[0] = False
    looked = rare[codes]
    if not looked.any():
        return 0.0
    joined = np.zeros(codes.shape, bool)
    for one, other in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[:, :, 1:], np.s_[:, :, :-1])):
        same = codes[one] == codes[other]
        joined[one] |= same
        joined[other] |= same
    return float((~joined[looked]).mean())


def _pieces(
    codes: NDArray[np.int64], edge: NDArray[np.bool_], count: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Count the pieces of each value on all planes, and measure how long their borders are for their area."""
    from skimage.measure import label

    pieces, winding, area = np.zeros(count, np.int64), np.zeros(count), np.zeros(count)
    for plane, border in zip(codes, edge, strict=True):
        found, last = label(plane, background=0, connectivity=2, return_num=True)
        value = np.zeros(last + 1, np.int64)
        value[found.ravel()] = plane.ravel()
        long = np.bincount(found[border], minlength=last + 1).astype(np.float64)
        value[0] = 0
        pieces += np.bincount(value[1:], minlength=count)
        # The mean of border^2 / area with the area as weight is a sum of border^2 over a sum of areas.
        winding += np.bincount(value[1:], long[1:] ** 2, minlength=count)
        area += np.bincount(plane.ravel(), minlength=count)
    return pieces, winding / np.maximum(area, 1)


def _agreement(seen: NDArray[Any], edge: NDArray[np.bool_], *, whole: bool) -> dict[str, float]:
    """Compare how steep the image is at borders of the labels, as they are and turned, with how steep it is at all."""
    if edge.sum() < LEAST_EDGE or min(seen.shape[-2:]) < LEAST_SIDE:
        return {}
    grey = np.nan_to_num(seen.astype(np.float32), posinf=0, neginf=0).mean(axis=0)
    steep = np.zeros_like(grey)
    steep[:, 1:-1] += np.abs(grey[:, 2:] - grey[:, :-2])
    steep[:, :, 1:-1] += np.abs(grey[:, :, 2:] - grey[:, :, :-2])
    spread_of = float(steep.std())
    if not 0 < spread_of < math.inf:
        return {}
    steep = (steep - steep.mean()) / spread_of
    turned = {name: turn(edge) for name, turn in TURNS.items() if whole or "planes" not in name}
    return {name: float(steep[other].mean()) for name, other in turned.items() if other.shape == steep.shape}
