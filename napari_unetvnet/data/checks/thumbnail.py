"""Measure shapes on evenly spaced planes of the labels: components, thin lines, fit to image edges."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.data.checks.facts import Fit, Thumbnail
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

RADII = (3, 4, 6, 9, 14, 20)
DIRECTIONS = [(1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0), (0.7, 0.7), (0.7, -0.7), (-0.7, 0.7), (-0.7, -0.7)]
EDGE_VOXELS = 4000
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
        fits=_fits(image_planes, inner if settings.unlabelled == "ignore" else edge, all_planes=all_planes),
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


def _fits(image: NDArray[Any], edge: NDArray[np.bool_], *, all_planes: bool) -> dict[str, Fit]:
    """Compare the image gradient at borders of the labels, in each orientation, with that around the borders."""
    if edge.sum() < LEAST_EDGE or min(image.shape[-2:]) < LEAST_SIDE:
        return {}
    gradient = _gradient(image)
    if gradient is None:
        return {}
    turned = {name: turn(edge) for name, turn in TURNS.items() if all_planes or "planes" not in name}
    fits = {name: _fit(gradient, mask) for name, mask in turned.items() if mask.shape == gradient.shape}
    return {name: fit for name, fit in fits.items() if fit is not None}


def _gradient(image: NDArray[Any]) -> NDArray[np.float32] | None:
    """Sum the gradients of the channels, in standard deviations; None if there is none."""
    grey = np.nan_to_num(image.astype(np.float32), posinf=0, neginf=0)
    flat = grey.reshape(len(grey), -1)
    low, high = (bound.reshape(-1, 1, 1, 1) for bound in np.percentile(flat, [0.5, 99.5], axis=1))
    grey = np.clip((grey - low) / np.maximum(high - low, np.finfo(np.float32).tiny), 0, 1)
    gradient: NDArray[np.float32] = np.zeros(grey.shape[1:], np.float32)
    gradient[:, 1:-1] += np.abs(grey[:, :, 2:] - grey[:, :, :-2]).sum(axis=0)
    gradient[:, :, 1:-1] += np.abs(grey[..., 2:] - grey[..., :-2]).sum(axis=0)
    deviation = float(gradient.std())
    return gradient / deviation if deviation > 0 else None


def _fit(gradient: NDArray[np.float32], edge: NDArray[np.bool_]) -> Fit | None:
    """Compare the mean gradient at borders with that at the borders moved in all directions."""
    places = np.argwhere(edge)
    if len(places) > EDGE_VOXELS:
        places = places[np.random.default_rng(0).permutation(len(places))[:EDGE_VOXELS]]
    moved = [_mean_at(gradient, places + np.array([0, *shift])) for shift in _shifts(min(edge.shape[1:]))]
    around = np.array([value for value in moved if value is not None])
    here = _mean_at(gradient, places)
    if here is None or len(around) < len(DIRECTIONS):
        return None
    gain = here - float(around.mean())
    return Fit(gain / (float(around.std()) + 1e-6), gain)


def _mean_at(gradient: NDArray[np.float32], places: NDArray[np.int64]) -> float | None:
    inside = places[((places >= 0) & (places < gradient.shape)).all(axis=1)]
    return float(gradient[tuple(inside.T)].mean()) if 2 * len(inside) > len(places) else None


def _shifts(side: int) -> set[tuple[int, int]]:
    """Give the shifts y, x by which borders are moved, within a part of the image."""
    radii = [radius for radius in RADII if radius <= max(RADII[0], side // 8)]
    return {(round(r * y), round(r * x)) for r in radii for y, x in DIRECTIONS}
