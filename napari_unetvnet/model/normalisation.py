"""The normalisation of an image by the settings of a training or the card of a model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.intensity import Intensity, intensity, unchanged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unetvnet.conventions import Measure
    from napari_unetvnet.images.volume import Volume
    from napari_unetvnet.settings import Normalisation

__all__ = ["joint_constants", "measured_normalisation", "normalisation"]


def normalisation(volume: Volume, how: Normalisation, mask: Any = None) -> Intensity:
    """Give the normalisation of a volume; its intensities are only read if they matter.

    Parameters
    ----------
    volume : Volume, data of shape (C, Z, Y, X)
    how : Normalisation
        Settings or a card.
    mask : array of shape (1, Z, Y, X), optional
        As for `intensity`.

    Returns
    -------
    Intensity

    Raises
    ------
    DataProblem
        If the intensities cannot be measured, or there are constants for another number of channels.
    """
    if how.normalise == "none":
        return unchanged(volume.channels)
    if how.normalise == "fixed":
        return _constants(how, volume)
    return intensity(volume, _method(how), how.normalise_in, mask)


def measured_normalisation(volume: Volume, how: Normalisation, mask: Any = None) -> Intensity:
    """Give the normalisation of a volume with the range of its intensities, which is measured in any case.

    Parameters
    ----------
    volume, how, mask
        As for `normalisation`.

    Returns
    -------
    Intensity

    Raises
    ------
    DataProblem
        As for `normalisation`.
    """
    measured = intensity(volume, _method(how), how.normalise_in, mask)
    if how.normalise != "fixed":
        return measured
    constants = _constants(how, volume)
    return replace(measured, shift=constants.shift, scale=constants.scale, clipped=constants.clipped)


def joint_constants(measured: Sequence[Intensity]) -> Intensity:
    """Give the constants of several images: the mean of their means, and that of their standard deviations.

    Parameters
    ----------
    measured : sequence of Intensity
        With mean and standard deviation as shift and scale.

    Returns
    -------
    Intensity
        Without a range.
    """
    shift, scale = (np.mean([getattr(each, name) for each in measured], axis=0) for name in ("shift", "scale"))
    return Intensity(shift.astype(np.float32), scale.astype(np.float32))


def _method(how: Normalisation) -> Measure:
    """Give what is measured of each image; constants of a dataset are made of its means and deviations."""
    return "none" if how.normalise == "fixed" else "zscore" if how.normalise == "dataset" else how.normalise


def _constants(how: Normalisation, volume: Volume) -> Intensity:
    """Give the constants of each channel of a volume."""
    window = np.array(how.normalise_window, np.float32).reshape(-1, 2)
    low, high = window.T
    rows = (low, high - low) if len(window) else (how.normalise_mean, how.normalise_std)
    if len(rows[0]) not in (1, volume.channels):
        raise DataProblem(
            f"normalise=fixed has constants for {len(rows[0])} channels, but {volume.name} has {volume.channels}; give "
            "them for each channel, or one for all."
        )
    shift, scale = (np.broadcast_to(np.array(row, np.float32), volume.channels).copy() for row in rows)
    return Intensity(shift, scale, clipped=bool(len(window)))
