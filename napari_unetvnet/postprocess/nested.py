"""The clean-up of nested tumour regions that a BraTS 2018 source does after its network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.postprocess.components import check_classes, components, neighbourhood
from napari_unetvnet.postprocess.table import values_in
from napari_unetvnet.settings.regions import PRESETS, region_values

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["clean_brats"]

SMALL_PIECE, SMALL_ENHANCING, TUMOUR = 2000, 100, 100
"""Voxels: smaller pieces of whole tumour and core go, less enhancing tumour goes in more whole tumour than that."""


def clean_brats(classes: NDArray[Any]) -> NDArray[Any]:
    """Put enhancing tumour into the core, and the core into the whole tumour, and remove what is small.

    The whole tumour is closed over face and edge neighbours; if it has several pieces, those of at most 2000 voxels
    become background, even all of them. The core, as far as it lies in the whole tumour, is treated alike, and what
    is removed of it stays whole tumour. Less than 100 voxels of enhancing tumour become core where there are more than
    100 voxels of whole tumour.

    Parameters
    ----------
    classes : array of shape (Z, Y, X), integers
        2 is whole tumour outside the core, 1 core that does not enhance, 4 enhancing tumour.

    Returns
    -------
    array of shape (Z, Y, X), of the same type

    Raises
    ------
    DataProblem
        If the classes are of a wrong type or shape, or others than 0, 1, 2 and 4.

    Notes
    -----
    Other than in the source [1]_, closing neither takes voxels away at the edge of the image, nor lets the core grow
    beyond the whole tumour.

    References
    ----------
    .. [1] https://github.com/tkuanlun350/3DUnet-Tensorflow-Brats18, eval.py
    """
    check_classes(classes)
    regions = PRESETS["brats"]
    known = {0, *regions[0].values}
    if other := sorted(set(values_in(classes)) - known):
        raise DataProblem(f"Tumour regions have the labels 1, 2 and 4; {other[0]} was found.")
    whole, core, enhancing = (np.isin(classes, region.values) for region in regions)
    whole = _without_small_pieces(whole)
    core = _without_small_pieces(core & whole) & whole
    enhancing &= core
    if np.count_nonzero(whole) > TUMOUR and np.count_nonzero(enhancing) < SMALL_ENHANCING:
        enhancing[...] = False
    result = np.zeros_like(classes)
    for region, value in zip((whole, core, enhancing), region_values(regions), strict=True):
        result[region] = value
    return result


def _without_small_pieces(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from scipy.ndimage import binary_dilation, binary_erosion

    near = neighbourhood("edges")
    closed: NDArray[np.bool_] = binary_erosion(binary_dilation(region, near), near, border_value=1)
    pieces = components(closed, "edges")
    sizes = np.bincount(pieces.ravel())
    large = sizes > SMALL_PIECE
    large[0] = False
    return large[pieces] if len(sizes) > 2 else closed
