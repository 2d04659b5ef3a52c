"""From classes to single objects: components, components cut at their necks, insides grown into borders.

Each piece is treated in the box around it, so beside the numbers themselves only the largest piece needs memory.
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
    """Give each single object of a class image an id.

    Parameters
    ----------
    classes : array of shape (Z, Y, X), integers
        0 is the background. It is read as a whole: beside it about 10 bytes a voxel are needed (border: 15), and for
        each voxel of the box around the largest connected piece 130 bytes with watershed, 55 with border.
    rule : {"components", "watershed", "border"}
        Components are the connected pieces of each class. Watershed cuts them at their necks. Border takes class 1 for
        the inside and class 2 for the border of objects, and lets each piece of inside grow into the border that is
        connected with it; a piece of border without any inside is an object of its own.
    connectivity : {"faces", "edges", "corners"}
        What voxels must share to belong together.
    spacing : tuple of 3 float
        Voxel edge lengths z, y, x.
    split_depth : float, optional
        A neck is cut if the distance to the edge is there by more than this smaller than in the parts on both sides, in
        the unit of the spacing. By default the longest voxel edge, so that a round or a long object stays whole.

    Returns
    -------
    array of int32, shape (Z, Y, X)
        Ids from 1 in the order in which a scan over z, y, x meets the objects, and 0 for the background.

    Raises
    ------
    DataProblem
        If the classes are of a wrong type or shape, or with rule "border" are others than 0, 1 and 2.
    SettingsProblem
        If the rule is unknown.

    Notes
    -----
    The watershed floods the distance to the edge from its maxima that are deeper than ``split_depth`` (h-maxima) [1]_.

    References
    ----------
    .. [1] Soille 2004, Morphological Image Analysis, https://doi.org/10.1007/978-3-662-05088-0
    """
    check_classes(classes)
    if rule == "components":
        return components(classes, connectivity)
    if rule == "watershed":
        edges = [edge for edge, n in zip(spacing, classes.shape, strict=True) if n > 1]
        depth = max(edges, default=1.0) if split_depth is None else split_depth
        return _cut_at_necks(components(classes, connectivity), connectivity, spacing, depth)
    if rule == "border":
        return _grown(classes, connectivity, spacing)
    raise SettingsProblem(f"There is no rule {rule!r} for objects; choose components, watershed or border.")


def _cut_at_necks(
    ids: NDArray[np.int32], connectivity: Connectivity, spacing: Spacing, depth: float
) -> NDArray[np.int32]:
    """Divide each piece; ``ids`` is changed."""
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
    """Give each part of one connected piece a number, or None if it is whole; the image's edge is none of its own."""
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


def _grown(classes: NDArray[Any], connectivity: Connectivity, spacing: Spacing) -> NDArray[np.int32]:
    """Let each piece of inside grow into the border around it."""
    from scipy.ndimage import find_objects

    if (highest := int(classes.max())) > BORDER:
        raise DataProblem(f"Objects by their border need the classes 0, 1 (inside) and 2 (border), not {highest}.")
    ids = components(classes == INSIDE, connectivity)
    count, pieces = int(ids.max()), components(classes > 0, connectivity)
    for number, box in enumerate(find_objects(pieces), start=1):
        mask = pieces[box] == number
        seeds = np.where(mask, ids[box], 0)
        found = np.unique(seeds[seeds > 0])
        if len(found) > 1:
            np.copyto(ids[box], _nearest(seeds, mask, connectivity, spacing), where=mask)
            continue
        count += not len(found)
        ids[box][mask] = found[0] if len(found) else count
    return number_in_order(ids)


def _nearest(
    seeds: NDArray[np.int32], mask: NDArray[np.bool_], connectivity: Connectivity, spacing: Spacing
) -> NDArray[np.int32]:
    """Give each voxel of the mask the seed that is nearest on a way inside the mask."""
    from scipy.ndimage import distance_transform_edt
    from skimage.segmentation import watershed

    distance = distance_transform_edt(seeds == 0, sampling=spacing)
    found: NDArray[np.int32] = watershed(distance, seeds, connectivity=neighbourhood(connectivity), mask=mask)
    return found
