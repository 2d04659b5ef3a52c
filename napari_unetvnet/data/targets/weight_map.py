"""The weight map of the U-Net paper, which makes a network learn the thin gaps between objects."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.data.targets.balance import class_weights
from napari_unetvnet.data.targets.distances import two_nearest
from napari_unetvnet.data.targets.object_ids import objects_in
from napari_unetvnet.data.targets.validation import check_known, check_labels, check_lengths
from napari_unetvnet.errors import SettingsProblem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.settings import TrainSettings

__all__ = ["separation", "separation_weights"]

W0, SIGMA = 10.0, 5.0
"""Height and width of the separation term, as in the paper; the width in voxels."""
NEGLIGIBLE = 1e-6
"""Where the separation term is smaller than this it need not be exact."""
SHORTEST = 1e-12
"""Voxels cannot be shorter, as in the settings."""


def separation(
    labels: NDArray[Any],
    target: NDArray[np.uint8],
    settings: TrainSettings,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
) -> NDArray[np.float32]:
    """Make the weight map that keeps touching objects apart, of the objects and gaps that the target shows.

    Distances are in the shortest voxel edge, so a sigma of 5 is 5 voxels along the finest axis. In views of planes each
    plane is measured by itself.

    Parameters
    ----------
    labels : integer array of shape (C, Z, Y, X)
        As painted.
    target : array of shape (Z, Y, X) or (K, Z, Y, X)
        From `make_target`.
    spacing : 3 float
        Voxel edge lengths z, y, x.

    Returns
    -------
    array of float32, shape (Z, Y, X)
        The balance has the mean 1 over the known voxels of all planes; the separation term comes on top of it.
    """
    known = target != IGNORE if target.ndim == 3 else (target != IGNORE).all(axis=0)
    objects = objects_in(labels, target, settings)
    edges = check_lengths(spacing, "Spacing", SHORTEST)
    planar = settings.view != "3d"
    shortest = min(edges[1:] if planar else edges)
    z, y, x = (edge / shortest for edge in edges)
    weights = _balanced(_classes_of(target, objects), known)
    term = _separation(objects, W0, SIGMA, (math.inf if planar else z, y, x))
    return np.add(weights, term, out=weights, where=known & (objects == 0))


def _classes_of(target: NDArray[np.uint8], objects: NDArray[Any]) -> NDArray[Any]:
    """Give the class of each voxel, or whether it is in an object where classes may overlap."""
    return target if target.ndim == 3 else objects != 0


def separation_weights(
    objects: NDArray[Any],
    *,
    w0: float = W0,
    sigma: float = SIGMA,
    balance: bool = True,
    everywhere: bool = False,
    spacing: Sequence[float] | None = None,
    known: NDArray[np.bool_] | None = None,
) -> NDArray[np.float32]:
    """Weigh each voxel by how narrow the gap between two objects is there.

    Parameters
    ----------
    objects : array of shape (Z, Y, X), integers
        Ids of single objects, 0 for background. Ids need not be consecutive. Labels that are classes become objects by
        `components_of`.
    w0 : float
        Weight that a gap of no width would have.
    sigma : float
        How fast the weight falls with the width of the gap, in the unit of ``spacing``.
    balance : bool
        Begin with a weight that is inverse to the frequency of background and of objects, instead of 1.
    everywhere : bool
        Add the separation term inside objects too, as the paper prints it. By default only background has it, as is
        common. Where objects touch there is no background between them: then use this, or `borders`.
    spacing : 3 float, optional
        Voxel edge lengths z, y, x. By default distances are in voxels.
    known : array of bool, shape (Z, Y, X), optional
        Unknown voxels weigh 0, count for nothing, and what is painted there is no object.

    Returns
    -------
    array of float32, shape (Z, Y, X)
        The balance alone has the mean 1 over the known voxels; the separation term comes on top of it.

    Raises
    ------
    DataProblem
        If the objects or the mask are of a wrong type or shape.
    SettingsProblem
        If ``w0`` is negative, or ``sigma`` or the spacing is not above 0.

    Notes
    -----
    w = w_c + w0 exp(-(d1 + d2)^2 / (2 sigma^2)) [1]_, where d1 and d2 are the distances to the nearest and to the
    second-nearest object, each to that object's nearest voxel: 0 inside it, 1 beside it. A gap of one voxel has
    d1 + d2 = 2, and inside an object, at the contact with another, it is 0 + 1. Distances are those of a transform for
    each object by itself, to single precision, as far as the term reaches 1e-6. With fewer than two objects it is 0.

    References
    ----------
    .. [1] Ronneberger et al. 2015, U-Net, https://doi.org/10.1007/978-3-319-24574-4_28

    Examples
    --------
    >>> import numpy as np
    >>> pair = np.array([[[1, 0, 2]]])
    >>> [f"{weight:.3f}" for weight in separation_weights(pair, balance=False)[0, 0]]
    ['1.000', '10.231', '1.000']
    """
    check_labels(objects, "Objects")
    known = check_known(known, objects.shape)
    if not (math.isfinite(w0) and w0 >= 0):
        raise SettingsProblem(f"w0 is {w0}; give a finite number that is at least 0.")
    if not (math.isfinite(sigma) and sigma > 0):
        raise SettingsProblem(f"sigma is {sigma}; give a finite length above 0.")
    edges = check_lengths(1.0 if spacing is None else spacing, "Spacing", SHORTEST)
    inside = (objects != 0) & known
    weights = _balanced(inside, known) if balance else known.astype(np.float32)
    if w0 > NEGLIGIBLE:
        term = _separation(np.where(known, objects, 0), w0, sigma, edges)
        np.add(weights, term, out=weights, where=known if everywhere else known & ~inside)
    return weights


def _balanced(classes: NDArray[Any], known: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Give each class a weight that is inverse to its frequency, with the mean 1; unknown voxels 0."""
    counts = np.bincount(classes[known], minlength=2)
    table = np.zeros(IGNORE + 1, np.float32)
    table[: len(counts)] = class_weights(counts.tolist(), "inverse_frequency")
    return np.where(known, table[classes.astype(np.uint8)], np.float32(0))


def _separation(
    objects: NDArray[Any], w0: float, sigma: float, spacing: tuple[float, float, float]
) -> NDArray[np.float32]:
    """Compute the second term."""
    # Beyond this sum of distances the term is negligible, so the search for the two nearest objects may stop there.
    reach = sigma * math.sqrt(2 * math.log(w0 / NEGLIGIBLE))
    nearest, second = two_nearest(objects, reach, spacing)
    # In place: each array has the size of the image. Out of reach, distances may be infinite, where exp gives 0.
    total = np.add(nearest, second, out=nearest)
    total /= np.float32(sigma)
    np.square(total, out=total)
    total *= np.float32(-0.5)
    np.exp(total, out=total)
    total *= np.float32(w0)
    return total
