"""Post-processing of nested tumour regions, as in a published BraTS 2018 pipeline."""

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
"""Voxels: minimum component of tumour and core, minimum enhancing tumour, and the tumour size for which that holds."""


def clean_brats(classes: NDArray[Any], preset: str = "brats") -> NDArray[Any]:
    """Restrict enhancing tumour to the core and the core to the whole tumour, and remove small components.

    The whole tumour is closed over face and edge neighbours; if it has more than one component, those of at most 2000
    voxels become background, even if these are all. The core within the whole tumour is treated likewise, and voxels
    removed from it stay whole tumour. Fewer than 100 voxels of enhancing tumour become core if the whole tumour has
    more than 100 voxels.

    Parameters
    ----------
    classes : array of shape (Z, Y, X), integers
        2 is whole tumour outside the core, 1 non-enhancing core, 4 enhancing tumour, or 3 with the preset brats2023.
    preset : {"brats", "brats2023"}

    Returns
    -------
    array of shape (Z, Y, X), of the same type

    Raises
    ------
    DataProblem
        If the classes are of a wrong type or shape, or have values that the preset does not have.

    Notes
    -----
    Unlike in the source [1]_, closing does not remove voxels at the border of the image, and does not extend the core
    beyond the whole tumour.

    References
    ----------
    .. [1] https://github.com/tkuanlun350/3DUnet-Tensorflow-Brats18, eval.py
    """
    check_classes(classes)
    regions = PRESETS[preset]
    expected = {0, *regions[0].values}
    if unexpected := sorted(set(values_in(classes)) - expected):
        known = ", ".join(map(str, sorted(expected - {0})))
        raise DataProblem(
            f"Nested tumour regions ({preset}) have the labels {known}, but there is {unexpected[0]}; choose another "
            "preset, or leave out nested."
        )
    whole, core, enhancing = (np.isin(classes, region.values) for region in regions)
    whole = _without_small_components(whole)
    core = _without_small_components(core & whole) & whole
    enhancing &= core
    if np.count_nonzero(whole) > TUMOUR and np.count_nonzero(enhancing) < SMALL_ENHANCING:
        enhancing[...] = False
    result = np.zeros_like(classes)
    for region, value in zip((whole, core, enhancing), region_values(regions), strict=True):
        result[region] = value
    return result


def _without_small_components(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from scipy.ndimage import binary_dilation, binary_erosion

    near = neighbourhood("edges")
    closed: NDArray[np.bool_] = binary_erosion(binary_dilation(region, near), near, border_value=1)
    pieces = components(closed, "edges")
    sizes = np.bincount(pieces.ravel())
    large = sizes > SMALL_PIECE
    large[0] = False
    return large[pieces] if len(sizes) > 2 else closed
