"""One mean and one standard deviation for all images, measured over those that are trained on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from napari_unetvnet.model.normalisation import joint_constants, normalisation

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from napari_unetvnet.data.known import KnownImages
    from napari_unetvnet.data.patches import Region
    from napari_unetvnet.images.intensity import Intensity

__all__ = ["at_joint_constants"]


def at_joint_constants(
    train: Sequence[Region], hold_out: Sequence[Region], known: KnownImages
) -> tuple[list[Region], list[Region], str]:
    """Bring all regions to one scale, that of the images that are trained on.

    Parameters
    ----------
    train, hold_out : sequence of Region
        With mean and standard deviation of their own image. Images of which nothing is trained on are not counted.
    known : KnownImages
        A resumed training keeps the constants that it began with.

    Returns
    -------
    train, hold_out : list of Region
    text : str
        The constants, for the user.
    """
    own = {region.number: region.scale for region in train}
    if known.normalisation is not None and known.normalisation.normalise == "fixed":
        joint, source = normalisation(train[0].image, known.normalisation), "as at the start of the training"
    else:
        joint = joint_constants(list(own.values()))
        source = f"measured on {len(own)} training image{'s' * (len(own) > 1)}"
    text = (
        f"Intensities of all images are normalised by mean {_row(joint.shift)} and standard deviation "
        f"{_row(joint.scale)}, {source}. The model keeps them."
    )
    return [_at(region, joint) for region in train], [_at(region, joint) for region in hold_out], text


def _at(region: Region, joint: Intensity) -> Region:
    return replace(region, scale=replace(region.scale, shift=joint.shift, scale=joint.scale))


def _row(values: NDArray[np.float32]) -> str:
    return " ".join(f"{value:.4g}" for value in values)
