"""Measure shapes on evenly spaced planes of the labels: components, thin lines, agreement with image edges."""

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

__all__ = ["TURNS", "make_thumbnail"]

PLANE_VOXELS = 1 << 21
LEAST_SIDE = 4
LEAST_EDGE = 200
"""Minimum number of border voxels to compare orientations of the labels."""

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
"""Orientations in which another program may have saved labels."""


def make_thumbnail(image: Volume, labels: Volume, painted: Sequence[bool], settings: TrainSettings) -> Thumbnail:
    """Measure some planes of labels and their image.

    Parameters
    ----------
    image : Volume, data of shape (C, Z, Y, X)
    labels : Volume, data of shape (1, Z, Y, X) or (K, Z, Y, X)
    painted : sequence of bool
        Whether a plane has labels; empty if unknown.

    Returns
    -------
    Thumbnail
    """
    planes, step = _choose_planes(labels, painted)
    if not len(planes):
        return Thumbnail()
    raw = _planes(labels, planes, step)
    values, codes = _codes(raw)
    image_planes = _planes(image, planes, step)
    edge, inner = _edges(codes, settings)
    counts = np.bincount(codes.ravel(), minlength=len(values))
    at_edge = np.bincount(codes[edge], minlength=len(values))
    labelled = codes != 0
    present, winding = _pieces(codes, edge, len(values))
    all_planes = len(planes) == labels.shape[0] >= LEAST_SIDE
    return Thumbnail(
        isolated=_isolated(codes, counts),
        pieces=float(present.sum() / max(1, sum(len(np.unique(plane[plane != 0])) for plane in codes))),
        thin={int(v): float(e / n) for v, e, n in zip(values, at_edge, counts, strict=True) if v and n},
        winding={int(v): float(w) for v, w in zip(values, winding, strict=True) if v and w},
        touching=float((inner & labelled).sum() / max(1, (edge & labelled).sum())),
        agreement=_agreement(image_planes, inner if settings.unlabelled == "ignore" else edge, all_planes=all_planes),
        is_image=bool(codes.any()) and any(np.array_equal(raw[0], channel) for channel in image_planes),
    )


def _choose_planes(labels: Volume, painted: Sequence[bool]) -> tuple[NDArray[np.int64], int]:
    """Choose planes with labels, and the step of the voxels within them."""
    candidates = np.flatnonzero(painted) if len(painted) else np.arange(labels.shape[0])
    pixels = labels.shape[1] * labels.shape[2]
    step = math.ceil(math.sqrt(pixels / PLANE_VOXELS))
    count = max(1, PLANE_VOXELS * step**2 // pixels)
    return candidates[spread(len(candidates), count)], step


def _planes(volume: Volume, planes: NDArray[np.int64], step: int) -> NDArray[Any]:
    """Read planes, (C, n, Y, X)."""
    return np.stack([np.asarray(volume.data[:, int(z)])[:, ::step, ::step] for z in planes], axis=1)


def _codes(raw: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Encode each value as its index, 0 as 0; for overlapping masks, encode each set of masks."""
    if len(raw) > 1:
        weights = (1 << np.arange(len(raw)) % 62).reshape(-1, 1, 1, 1)
        raw = ((raw != 0) * weights).sum(axis=0)[None]
    values, codes = np.unique(raw[0], return_inverse=True)
    codes = codes.reshape(raw.shape[1:])
    if len(values) and values[0] == 0:
        return values, codes
    return np.concatenate([[0], values]), codes + 1


def _edges(codes: NDArray[np.int64], settings: TrainSettings) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Mark the voxels on both sides of borders in the plane: of all, and of those between painted values."""
    edge, inner = np.zeros((2, *codes.shape), bool)
    for a, b in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[:, :, 1:], np.s_[:, :, :-1])):
        differ = codes[a] != codes[b]
        painted = differ & (codes[a] != 0) & (codes[b] != 0)
        for side in (a, b):
            edge[side] |= differ
            inner[side] |= painted
    return edge, inner


def _isolated(codes: NDArray[np.int64], counts: NDArray[np.int64]) -> float:
    """Give the fraction of the voxels with neither of the two most frequent values that have no equal neighbour."""
    rare = np.ones(len(counts), bool)
    rare[np.argsort(counts)[-2:]] = False
    rare[0] = False
    candidates = rare[codes]
    if not candidates.any():
        return 0.0
    joined = np.zeros(codes.shape, bool)
    for a, b in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[:, :, 1:], np.s_[:, :, :-1])):
        equal = codes[a] == codes[b]
        joined[a] |= equal
        joined[b] |= equal
    return float((~joined[candidates]).mean())


def _pieces(
    codes: NDArray[np.int64], edge: NDArray[np.bool_], count: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Count the components of each value over all planes, and give the mean of border^2 / area."""
    from skimage.measure import label

    pieces, winding, area = np.zeros(count, np.int64), np.zeros(count), np.zeros(count)
    for plane, border in zip(codes, edge, strict=True):
        components, count_on_plane = label(plane, background=0, connectivity=2, return_num=True)
        value = np.zeros(count_on_plane + 1, np.int64)
        value[components.ravel()] = plane.ravel()
        lengths = np.bincount(components[border], minlength=count_on_plane + 1).astype(np.float64)
        value[0] = 0
        pieces += np.bincount(value[1:], minlength=count)
        # The mean of border^2 / area, weighted by the area, is the sum of border^2 over the sum of areas.
        winding += np.bincount(value[1:], lengths[1:] ** 2, minlength=count)
        area += np.bincount(plane.ravel(), minlength=count)
    return pieces, winding / np.maximum(area, 1)


def _agreement(image: NDArray[Any], edge: NDArray[np.bool_], *, all_planes: bool) -> dict[str, float]:
    """Compare the image gradient at borders of the labels, in each orientation, with the mean gradient."""
    if edge.sum() < LEAST_EDGE or min(image.shape[-2:]) < LEAST_SIDE:
        return {}
    grey = np.nan_to_num(image.astype(np.float32), posinf=0, neginf=0).mean(axis=0)
    gradient = np.zeros_like(grey)
    gradient[:, 1:-1] += np.abs(grey[:, 2:] - grey[:, :-2])
    gradient[:, :, 1:-1] += np.abs(grey[:, :, 2:] - grey[:, :, :-2])
    deviation = float(gradient.std())
    if not 0 < deviation < math.inf:
        return {}
    gradient = (gradient - gradient.mean()) / deviation
    turned = {name: turn(edge) for name, turn in TURNS.items() if all_planes or "planes" not in name}
    return {name: float(gradient[mask].mean()) for name, mask in turned.items() if mask.shape == gradient.shape}
