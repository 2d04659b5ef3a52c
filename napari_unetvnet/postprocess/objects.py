"""Divide classes into objects: components, components split at necks, or insides and cores grown into what is around.

Each component is processed in the box around it, so besides the ids only the largest component needs memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.errors import DataProblem, SettingsProblem
from napari_unetvnet.postprocess.components import (
    AXES_CROSSED,
    check_classes,
    components,
    neighbourhood,
    number_in_order,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_unetvnet.conventions import Spacing
    from napari_unetvnet.settings.postprocess import Connectivity, ObjectRule

__all__ = ["objects"]

INSIDE, BORDER = 1, 2


def objects(
    classes: NDArray[Any],
    rule: ObjectRule,
    *,
    connectivity: Connectivity = "corners",
    spacing: Spacing = (1.0, 1.0, 1.0),
    split_depth: float | None = None,
) -> NDArray[np.int32]:
    """Label the single objects of a class image.

    Parameters
    ----------
    classes : array of shape (Z, Y, X), integers
        0 is the background. Read as a whole; needs about 10 more bytes per voxel (border, cores: 15), and per voxel of
        the box around the largest component 130 bytes with watershed and cores, 55 with border.
    rule : {"components", "watershed", "border", "cores"}
        Components are the connected components of each class. Watershed splits them at necks. Border takes class 1 as
        the inside and class 2 as the border of objects, and grows each component of inside into the connected border;
        a component of border without inside is an object, too. Cores does the same, and splits components of class 1
        at necks first.
    connectivity : {"faces", "edges", "corners"}
        What voxels must share to be connected.
    spacing : tuple of 3 float
        Voxel edge lengths z, y, x.
    split_depth : float, optional
        A neck is split if the distance to the border is smaller there, by more than this, than in the parts on both
        sides; in the unit of the spacing. The default is the longest voxel edge, which does not split round or long
        objects.

    Returns
    -------
    array of int32, shape (Z, Y, X)
        Ids from 1 in scan order (z, y, x), and 0 for the background.

    Raises
    ------
    DataProblem
        If the classes are of a wrong type or shape, or with rule "border" or "cores" have values other than 0, 1, 2.
    SettingsProblem
        If the rule is unknown.

    Notes
    -----
    The watershed floods the distance to the border, from maxima deeper than ``split_depth`` (h-maxima) [1]_.

    References
    ----------
    .. [1] Soille 2004, Morphological Image Analysis, https://doi.org/10.1007/978-3-662-05088-0
    """
    check_classes(classes)
    if rule == "components":
        return components(classes, connectivity)
    if rule not in ("watershed", "border", "cores"):
        raise SettingsProblem(f"There is no rule {rule!r} for objects; choose components, watershed, border or cores.")
    edges = [edge for edge, n in zip(spacing, classes.shape, strict=True) if n > 1]
    depth = max(edges, default=1.0) if split_depth is None else split_depth
    if rule == "watershed":
        return _split_at_necks(components(classes, connectivity), connectivity, spacing, depth)
    insides = components(_inside(classes, rule), connectivity)
    if rule == "cores":
        insides = _split_at_necks(insides, connectivity, spacing, depth)
    return _grown(insides, classes, connectivity, spacing)


def _inside(classes: NDArray[Any], rule: ObjectRule) -> NDArray[np.bool_]:
    """Find the inside, class 1, and refuse other classes than it and the border."""
    if (highest := int(classes.max())) > BORDER:
        raise DataProblem(
            f"Rule {rule} needs the classes 0, 1 (inside) and 2 (around it), not {highest}; choose another rule."
        )
    inside: NDArray[np.bool_] = classes == INSIDE
    return inside


def _split_at_necks(
    ids: NDArray[np.int32], connectivity: Connectivity, spacing: Spacing, depth: float
) -> NDArray[np.int32]:
    """Split each component; ``ids`` is changed in place."""
    from scipy.ndimage import find_objects

    count = int(ids.max())
    for number, box in enumerate(find_objects(ids), start=1):
        wider = tuple(slice(max(0, part.start - 1), part.stop + 1) for part in box)
        mask = ids[wider] == number
        parts = _parts(mask, connectivity, spacing, depth)
        if parts is not None:  # the first part keeps the number
            np.add(parts, np.int32(count - 1), out=ids[wider], where=parts > 1)
            count += int(parts.max()) - 1
    return number_in_order(ids)


def _parts(
    mask: NDArray[np.bool_], connectivity: Connectivity, spacing: Spacing, depth: float
) -> NDArray[np.int32] | None:
    """Label the parts of a component, or return None if it is not split; the image border is not a border of it."""
    from scipy.ndimage import distance_transform_edt, label
    from skimage.morphology import local_maxima, reconstruction
    from skimage.segmentation import watershed

    if mask.all():
        return None
    distance = distance_transform_edt(mask, sampling=spacing)
    if distance.max() - distance[mask].min() <= depth:
        return None
    near = neighbourhood(connectivity)
    lowered = reconstruction(distance - depth, distance, footprint=near)
    peaks = local_maxima(lowered, connectivity=AXES_CROSSED[connectivity])
    seeds, count = label(peaks & mask, near)
    if count < 2:
        return None
    parts: NDArray[np.int32] = watershed(-distance, seeds, connectivity=near, mask=mask)
    return parts


def _grown(
    ids: NDArray[np.int32], classes: NDArray[Any], connectivity: Connectivity, spacing: Spacing
) -> NDArray[np.int32]:
    """Grow each id into the border around it; ``ids`` is changed in place."""
    from scipy.ndimage import find_objects

    count, pieces = int(ids.max()), components(classes > 0, connectivity)
    for number, box in enumerate(find_objects(pieces), start=1):
        mask = pieces[box] == number
        seeds = np.where(mask, ids[box], 0)
        seed_ids = np.unique(seeds[seeds > 0])
        if len(seed_ids) > 1:
            np.copyto(ids[box], _nearest(seeds, mask, connectivity, spacing), where=mask)
            continue
        count += not len(seed_ids)
        ids[box][mask] = seed_ids[0] if len(seed_ids) else count
    return number_in_order(ids)


def _nearest(
    seeds: NDArray[np.int32], mask: NDArray[np.bool_], connectivity: Connectivity, spacing: Spacing
) -> NDArray[np.int32]:
    """Give each voxel of the mask the nearest seed along paths inside the mask."""
    from scipy.ndimage import distance_transform_edt
    from skimage.segmentation import watershed

    distance = distance_transform_edt(seeds == 0, sampling=spacing)
    nearest: NDArray[np.int32] = watershed(distance, seeds, connectivity=neighbourhood(connectivity), mask=mask)
    return nearest
