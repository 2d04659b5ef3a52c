"""From class indices and label values to one channel for each class or region, hard or softened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.data.targets.validation import check_channels, check_known, check_labels, check_lengths
from napari_unetvnet.errors import DataProblem, SettingsProblem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.settings.regions import LabelRegion

__all__ = ["one_hot", "region_channels", "soft"]


def one_hot(target: NDArray[Any], classes: int) -> NDArray[np.uint8]:
    """Give each class a channel.

    Parameters
    ----------
    target : array of shape (Z, Y, X), integers
        Class indices, and IGNORE.
    classes : int
        How many there are, K.

    Returns
    -------
    array of uint8, shape (K, Z, Y, X)
        1 where the voxel is of the class, else 0; IGNORE in every channel where voxels are ignored.

    Raises
    ------
    DataProblem
        If the target is of a wrong type or shape, or holds an index that is no class.
    SettingsProblem
        If the number of classes is not from 1 to 255.
    """
    if not 1 <= classes <= IGNORE:
        raise SettingsProblem(f"There cannot be {classes} classes; give a number from 1 to {IGNORE}.")
    check_labels(target, "Class indices")
    unknown = target == IGNORE
    if (highest := int(np.where(unknown, 0, target).max())) >= classes:
        raise DataProblem(
            f"The target holds the class index {highest}, but there are {classes} classes; give indices below "
            f"{classes}, and {IGNORE} at ignored voxels."
        )
    channels = np.empty((classes, *target.shape), np.uint8)
    for k, channel in enumerate(channels):
        channel[:] = target == k
        channel[unknown] = IGNORE
    return channels


def region_channels(
    labels: NDArray[Any], regions: Sequence[LabelRegion], known: NDArray[np.bool_] | None = None
) -> NDArray[np.uint8]:
    """Give each region a channel; a voxel may be in several.

    Parameters
    ----------
    labels : array of shape (Z, Y, X), integers
        Label values as painted.
    known : array of bool, shape (Z, Y, X), optional
        Which voxels are labelled; by default all.

    Returns
    -------
    array of uint8, shape (R, Z, Y, X)
        1 in the region, else 0; IGNORE in every channel where voxels are ignored.

    Raises
    ------
    DataProblem
        If the labels or the mask are of a wrong type or shape.
    SettingsProblem
        If there is no region.
    """
    if not regions:
        raise SettingsProblem("There is no region; name at least one, such as WT=1+2+4.")
    check_labels(labels, "Labels")
    unknown = ~check_known(known, labels.shape)
    channels = np.empty((len(regions), *labels.shape), np.uint8)
    for channel, region in zip(channels, regions, strict=True):
        channel[:] = np.isin(labels, region.values)
        channel[unknown] = IGNORE
    return channels


def soft(channels: NDArray[Any], sigma_voxels: float | Sequence[float]) -> NDArray[np.float32]:
    """Soften the edges of hard targets by a Gaussian.

    Parameters
    ----------
    channels : array of shape (K, Z, Y, X)
        Values from 0 to 1, and IGNORE.
    sigma_voxels : float or 3 float
        Width of the Gaussian, for all axes or z, y, x; 0 leaves an axis as it is.

    Returns
    -------
    array of float32, shape (K, Z, Y, X)
        Values from 0 to 1, and IGNORE where it was.

    Raises
    ------
    DataProblem
        If the channels are of a wrong type or shape or beyond 0 to 1.
    SettingsProblem
        If ``sigma_voxels`` is negative.

    Notes
    -----
    The value is the Gaussian mean of the known voxels alone (normalised convolution [1]_): unknown voxels, and what
    lies beyond the border, have no share in it. So channels that are 1 in sum are so again.

    References
    ----------
    .. [1] Knutsson and Westin 1993, Normalized and differential convolution, https://doi.org/10.1109/CVPR.1993.341081
    """
    from scipy.ndimage import gaussian_filter

    check_channels(channels)
    sigma = check_lengths(sigma_voxels, "Sigma", 0)
    softened = np.empty(channels.shape, np.float32)
    known: NDArray[np.bool_] | None = None
    for hard, channel in zip(channels, softened, strict=True):
        own = known_values(hard)
        if known is None or not np.array_equal(own, known):
            known = own
            share = gaussian_filter(known.astype(np.float32), sigma, mode="constant")
        gaussian_filter(np.where(known, hard, 0).astype(np.float32), sigma, output=channel, mode="constant")
        np.divide(channel, share, out=channel, where=known)
        np.minimum(channel, 1, out=channel)  # rounding
        channel[~known] = IGNORE
    return softened


def known_values(channel: NDArray[Any]) -> NDArray[np.bool_]:
    """Find the voxels of a channel that are not IGNORE, and refuse values there that are not from 0 to 1.

    Parameters
    ----------
    channel : array of shape (Z, Y, X)

    Returns
    -------
    array of bool, shape (Z, Y, X)

    Raises
    ------
    DataProblem
        If a known value is below 0, above 1 or NaN.
    """
    known: NDArray[np.bool_] = channel != IGNORE
    values = np.where(known, channel, 0)
    if not (values.min() >= 0 and values.max() <= 1):
        raise DataProblem(
            f"A channel holds values from {values.min()} to {values.max()}; give 0 to 1, and {IGNORE} where nothing is "
            "known."
        )
    return known
