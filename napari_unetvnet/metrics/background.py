"""Bring two label images to one convention: the background is 0, as in results of `segment`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.errors import SettingsProblem
from napari_unetvnet.metrics.counts import check_images

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_unetvnet.metrics.options import EvaluateSettings

__all__ = ["background_as_zero"]


def background_as_zero(
    prediction: Any, truth: Any, settings: EvaluateSettings
) -> tuple[Any, Any, EvaluateSettings, tuple[str, ...]]:
    """Write the painted background as 0 in both images, since `segment` writes it as 0.

    Parameters
    ----------
    prediction, truth : integer arrays of one shape

    Returns
    -------
    prediction, truth : integer arrays
        The same arrays if the background is 0 already.
    settings : EvaluateSettings
        With background 0; where 0 is ignored, with the free value of the background as the ignored value.
    notices : tuple of str
        One sentence each.

    Raises
    ------
    DataProblem
        If the shapes differ, or the values are not integers.
    SettingsProblem
        If the background is also the ignored value, or a value of a region.
    """
    value = settings.background
    if value == 0:
        return prediction, truth, settings, ()
    check_images(prediction, truth)
    lines = [f"Region {region} contains the background value {value}; leave one of them out."
             for region in settings.regions if value in region.values]  # fmt: skip
    if settings.ignore == value:
        lines.append(f"Value {value} cannot be both background and ignored.")
    if lines:
        raise SettingsProblem(*lines)
    predicted, true = (_holding(np.asarray(image), value) for image in (prediction, truth))
    background, zero = true == value, true == 0
    true = np.where(background, true.dtype.type(0), true)
    if settings.ignore == 0:
        true[zero] = value
    settings = settings.model_copy(
        update={"background": 0, "ignore": value if settings.ignore == 0 else settings.ignore}
    )
    predicted = np.where(predicted == value, predicted.dtype.type(0), predicted)
    return predicted, true, settings, _notices(value, bool(background.any()), int(zero.sum()), settings)


def _holding(image: NDArray[Any], value: int) -> NDArray[Any]:
    """Widen an image whose type cannot hold a value."""
    return image.astype(np.promote_types(image.dtype, np.min_scalar_type(value)), copy=False)


def _notices(value: int, painted: bool, zeros: int, settings: EvaluateSettings) -> tuple[str, ...]:
    lines = [] if painted else [f"The truth has no voxel of the background value {value}; correct --background."]
    if zeros and settings.ignore != value:
        lines.append(
            f"The truth has {zeros} voxels of 0 beside the background {value}; they count as background, too. If they "
            "are not painted, add --ignore 0."
        )
    return tuple(lines)
