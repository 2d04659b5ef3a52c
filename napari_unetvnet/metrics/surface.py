"""Surface scores: distances between the surfaces of each class.

The surface of a class consists of its voxels with a face neighbour of another value; voxels beyond the border of the
image count as another value, ignored voxels do not. Only surface voxels are stored, in a k-d tree, so the cost grows
with the surfaces and not with the volume. Voxels on both surfaces have distance 0 and are not searched.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.errors import DataProblem, SettingsProblem
from napari_unetvnet.metrics.counts import check_images, slabs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    Places = NDArray[np.intp]

__all__ = ["SurfaceScores", "surface_scores", "usual_tolerance"]

SLACK = 1 + 1e-9  # so that 3 * 0.1 is not above 0.3


@dataclass(frozen=True)
class SurfaceScores:
    """Distances between two surfaces, in the unit of the spacing."""

    surface_dice: float | None
    """Fraction of the voxels of both surfaces within the tolerance of the other; 0 if one is missing, None if both."""
    hd95: float | None
    """95 % Hausdorff distance: the larger of the two 95th percentiles; None if a surface is missing."""
    mean_distance: float | None
    """Mean over all voxels of both surfaces; None if a surface is missing."""
    predicted: int
    """Voxels of the predicted surface."""
    true: int
    """Voxels of the true surface."""


def surface_scores(
    prediction: Any,
    truth: Any,
    values: Iterable[int] | None = None,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    tolerance: float | None = None,
    ignore: int | None = None,
) -> dict[int, SurfaceScores]:
    """Measure the distances between the surfaces of each class.

    Parameters
    ----------
    prediction, truth : integer arrays of one shape, (X,), (Y, X) or (Z, Y, X)
        Label images. Read by slicing along the first axis only. Along an axis of length 1 there are no neighbours: a
        volume of one plane is a 2D image.
    values : iterable of int, optional
        The classes to measure (default: all values on a surface of either image, sorted).
    spacing : sequence of float
        Voxel size (z, y, x); of fewer axes, the last ones.
    tolerance : float, optional
        Distance up to which surface voxels agree, in the unit of the spacing (default: the shortest voxel edge).
    ignore : int, optional
        Voxels where the truth has this value are left out: they are on no surface, and no surface runs along them.

    Returns
    -------
    dict of int to SurfaceScores
        By class value.

    Raises
    ------
    DataProblem
        If the shapes differ, the values are not integers, or there are more than three axes.
    SettingsProblem
        If the spacing or the tolerance is not a length.

    Notes
    -----
    The normalised surface Dice is that of [1]_ with surface voxels in place of surface elements weighted by area; the
    Hausdorff distance is that of [2]_ with a percentile, interpolated linearly, in place of the maximum. Both, and the
    mean distance, are MONAI's ``compute_surface_dice``, ``compute_hausdorff_distance`` and
    ``compute_average_surface_distance`` (symmetric). DeepMind's ``surface-distance`` weights by area and puts the
    surface between the voxels, which gives other numbers.

    References
    ----------
    .. [1] Nikolov et al. 2021, Clinically applicable segmentation of head and neck anatomy,
       https://doi.org/10.2196/26151
    .. [2] Huttenlocher, Klanderman, Rucklidge 1993, Comparing images using the Hausdorff distance,
       https://doi.org/10.1109/34.232073
    """
    check_images(prediction, truth)
    edges = _edges(spacing, truth.shape)
    limit = usual_tolerance(spacing, truth.shape) if tolerance is None else tolerance
    if not 0 <= limit < np.inf:
        raise SettingsProblem(f"A tolerance of {limit} was given; give a length of 0 or more.")
    predicted, true = (_surfaces(image, truth, ignore) for image in (prediction, truth))
    measured = sorted(predicted.keys() | true.keys()) if values is None else [int(value) for value in values]
    no_voxels = np.empty(0, dtype=np.intp)
    return {
        value: _compare(predicted.get(value, no_voxels), true.get(value, no_voxels), truth.shape, edges, limit)
        for value in measured
    }


def usual_tolerance(spacing: Sequence[float], shape: tuple[int, ...]) -> float:
    """Give the shortest voxel edge of an image, along axes that are longer than 1.

    Returns
    -------
    float

    Raises
    ------
    DataProblem
        If there are more than three axes.
    SettingsProblem
        If the spacing is not a length.
    """
    edges = _edges(spacing, shape)
    return float(min(edges[axis] for axis in _long_axes(shape)))


def _edges(spacing: Sequence[float], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Give the voxel size of each axis."""
    if len(shape) > 3:
        raise DataProblem(f"Surfaces need one to three axes, the images have shape {tuple(shape)}; give parts.")
    edges = np.asarray(spacing, dtype=np.float64)
    if edges.ndim != 1 or len(edges) < len(shape) or not (np.isfinite(edges) & (edges > 0)).all():
        value = tuple(edges.tolist()) if edges.ndim == 1 else edges.tolist()
        raise SettingsProblem(f"A spacing of {value} was given; give a length above 0 for each axis, z y x.")
    return edges[len(edges) - len(shape) :]


def _long_axes(shape: tuple[int, ...]) -> list[int]:
    """List the axes along which there are neighbours; all axes of a single voxel, so that it has a surface."""
    return [axis for axis, length in enumerate(shape) if length > 1] or list(range(len(shape)))


def _surfaces(image: Any, truth: Any, ignore: int | None) -> dict[int, Places]:
    """Find the surface voxels of each value, as sorted flat indices (N,)."""
    parts: dict[int, list[Places]] = {}
    shape = truth.shape
    for slab in slabs(shape):
        wide = slice(max(0, slab.start - 1), slab.stop + 1)  # a neighbour plane on each side where there is one
        values = np.asarray(image[wide])
        hidden = None if ignore is None else np.asarray(truth[wide]) == ignore
        inner = slice(slab.start - wide.start, slab.stop - wide.start)
        places = np.flatnonzero(_borders(values, hidden, _long_axes(shape))[inner])
        on_surface = values[inner].ravel()[places]
        order = np.argsort(on_surface, kind="stable")
        distinct, starts = np.unique(on_surface[order], return_index=True)
        groups = np.split(places[order] + slab.start * prod(shape[1:]), starts[1:])
        for value, group in zip(distinct.tolist(), groups, strict=False):
            parts.setdefault(int(value), []).append(group)
    return {value: np.concatenate(groups) for value, groups in parts.items()}


def _borders(values: NDArray[Any], hidden: NDArray[np.bool_] | None, axes: list[int]) -> NDArray[np.bool_]:
    """Mark the voxels with a face neighbour of another value, and those at the ends of the axes."""
    marked = np.zeros(values.shape, dtype=bool)
    for axis in axes:
        along, mark = np.moveaxis(values, axis, 0), np.moveaxis(marked, axis, 0)
        differ = along[1:] != along[:-1]
        if hidden is not None:
            out = np.moveaxis(hidden, axis, 0)
            differ &= ~(out[1:] | out[:-1])
        mark[1:] |= differ
        mark[:-1] |= differ
        mark[:1] = mark[-1:] = True
    return marked if hidden is None else marked & ~hidden


def _compare(
    predicted: Places, true: Places, shape: tuple[int, ...], edges: NDArray[np.float64], tolerance: float
) -> SurfaceScores:
    """Compare two surfaces, given as flat indices."""
    counts = {"predicted": len(predicted), "true": len(true)}
    if not len(predicted) or not len(true):
        return SurfaceScores(0.0 if len(predicted) + len(true) else None, None, None, **counts)
    to_true, to_predicted = _distances(predicted, true, shape, edges), _distances(true, predicted, shape, edges)
    total = len(to_true) + len(to_predicted)
    near = sum(int(np.count_nonzero(distances <= tolerance * SLACK)) for distances in (to_true, to_predicted))
    return SurfaceScores(
        surface_dice=near / total,
        hd95=max(float(np.quantile(distances, 0.95)) for distances in (to_true, to_predicted)),
        mean_distance=float(to_true.sum() + to_predicted.sum()) / total,
        **counts,
    )


def _distances(
    places: Places, targets: Places, shape: tuple[int, ...], edges: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Give the distance of each place to the nearest target."""
    from scipy.spatial import KDTree

    distances = np.zeros(len(places))
    off_target = ~np.isin(places, targets, assume_unique=True)
    if off_target.any():
        # For voxels on a grid, splitting boxes in the middle builds the tree faster, and the search is not slower.
        tree = KDTree(_coordinates(targets, shape, edges), leafsize=32, balanced_tree=False, compact_nodes=False)
        distances[off_target] = tree.query(_coordinates(places[off_target], shape, edges))[0]
    return distances


def _coordinates(places: Places, shape: tuple[int, ...], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert flat indices to physical coordinates (N, axes)."""
    return np.stack(np.unravel_index(places, shape), axis=1) * edges
