"""Measure the intensities of an image, to normalise it and to compare it with others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images import content
from napari_unetvnet.images.arrays import cut
from napari_unetvnet.images.content import chunk_edges, content_box, cut_out_value, holds, is_huge
from napari_unetvnet.images.volume import check_finite

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.conventions import Measure, NormaliseIn
    from napari_unetvnet.images.volume import Volume

__all__ = ["RANGE", "Intensity", "intensity", "joint_brightness", "joint_range", "unchanged"]

SAMPLE_VOXELS = 2_000_000
MOST_CHUNKS = 128
"""Voxels of a channel that are measured, and chunks that are read of a huge array."""
RANGE = (0, 0.5, 99.5, 100)
"""Percentiles that describe the range of a channel."""
FEWEST = 16
"""With fewer voxels left, nothing is left out."""


@dataclass(frozen=True, eq=False)
class Intensity:
    """Normalisation of raw values to network input: ``(value - shift) / scale`` for each channel, perhaps clipped.

    Parameters
    ----------
    shift, scale : array of float32, shape (C,)
    range : array of float64, shape (C, 4), or None
        Percentiles `RANGE` of the raw values of each channel; None if they were not measured.
    left_out : float
        Fraction of the measured voxels that are a frame, a cut-out background, or hidden.
    brightness : array of float64, shape (C,), or None
        Where the median of each channel lies between its percentiles 0.5 and 99.5, from 0 (mostly dark, as in
        fluorescence) to 1 (mostly bright, as in histology); None if it was not measured.
    clipped : bool
        Whether the results are clipped to 0 and 1.
    """

    shift: NDArray[np.float32]
    scale: NDArray[np.float32]
    range: NDArray[np.float64] | None = None
    left_out: float = 0.0
    brightness: NDArray[np.float64] | None = None
    clipped: bool = False

    def apply(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Normalise raw values.

        Parameters
        ----------
        values : array of shape (C, ...)

        Returns
        -------
        array of float32 of the same shape
        """
        columns = (-1, *(1,) * (values.ndim - 1))
        shifted = values.astype(np.float32) - self.shift.reshape(columns)
        scaled = shifted / self.scale.reshape(columns)
        return np.clip(scaled, 0, 1, out=scaled) if self.clipped else scaled


def intensity(volume: Volume, method: Measure, where: NormaliseIn = "all", mask: Any = None) -> Intensity:
    """Measure the intensities of each channel of a volume, from evenly spaced voxels.

    Of a chunked array that is too large to be read completely, some chunks are read, chosen at random with a fixed
    seed.

    Parameters
    ----------
    volume : Volume, data of shape (C, Z, Y, X)
    method : {"zscore", "percentile", "none"}
        * "zscore": mean 0, standard deviation 1.
        * "percentile": the 1st percentile becomes 0, the 99.8th becomes 1.
        * "none": values as they are.
    where : {"all", "content", "nonzero", "mask"}
        The voxels to measure. "content" leaves out border planes of one value, such as padding, and a value that fills
        most of the border of the rest, such as the black around a round field of view; "mask" also leaves out what a
        mask hides.
    mask : array of shape (1, Z, Y, X), optional
        0 where voxels are left out; for "mask" only. Read by slicing.

    Returns
    -------
    Intensity

    Raises
    ------
    DataProblem
        If the sample holds NaN, infinity, or values too large for single precision, or a mask hides all of it.
    """
    sample, shown, left_out = _measured(volume, where, mask if where == "mask" else None)
    channels = [values[inside] for values, inside in zip(sample, shown, strict=True)]
    seen = np.array([np.percentile(values, RANGE) for values in channels])
    brightness = _brightness(seen, [float(np.median(values)) for values in channels])
    if method == "none":
        return replace(unchanged(volume.channels), range=seen, left_out=left_out, brightness=brightness)
    if method == "zscore":
        shift, scale = (np.array([measure(values) for values in channels]) for measure in (np.mean, np.std))
    else:
        shift, high = np.array([np.percentile(values, [1, 99.8]) for values in channels]).T
        scale = high - shift
    # A constant channel has only rounding errors; a scale of 1 keeps it finite.
    scale = np.where(scale > np.maximum(1e-12 * np.abs(shift), np.finfo(np.float32).tiny), scale, 1.0)
    with np.errstate(over="ignore"):
        measured = Intensity(shift.astype(np.float32), scale.astype(np.float32), seen, left_out, brightness)
    if not (np.isfinite(measured.shift).all() and np.isfinite(measured.scale).all()):
        raise DataProblem(
            f"{volume.name}: values reach {np.abs(sample).max():.3g}, too large for single precision; rescale them."
        )
    return measured


def unchanged(channels: int) -> Intensity:
    """Give the normalisation that leaves the values of an image with so many channels as they are."""
    zero = np.zeros(channels, np.float32)
    return Intensity(zero, zero + 1)


def joint_range(measured: Sequence[Intensity]) -> tuple[tuple[float, float, float, float], ...]:
    """Give the range of each channel over several images.

    Returns
    -------
    tuple of tuple of 4 float
        The lowest of the lower two percentiles of `RANGE`, and the highest of the upper two; empty if not measured.
    """
    ranges = [each.range for each in measured if each.range is not None]
    if not ranges:
        return ()
    stacked = np.stack(ranges)
    joint = np.concatenate([stacked[..., :2].min(axis=0), stacked[..., 2:].max(axis=0)], axis=1)
    return tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in joint)


def _brightness(seen: NDArray[np.float64], medians: Sequence[float]) -> NDArray[np.float64]:
    """Place the median of each channel between its percentiles; in the middle if they are equal."""
    low, width = seen[:, 1], seen[:, 2] - seen[:, 1]
    flat = width <= 0
    return np.where(flat, 0.5, (np.asarray(medians) - low) / np.where(flat, 1, width))


def joint_brightness(measured: Sequence[Intensity]) -> tuple[tuple[float, float], ...]:
    """Give the brightness of each channel over several images.

    Returns
    -------
    tuple of tuple of 2 float
        Percentiles 10 and 90 over the images; empty if not measured.
    """
    measures = [each.brightness for each in measured if each.brightness is not None]
    if not measures:
        return ()
    low, high = np.percentile(np.stack(measures), [10, 90], axis=0)
    return tuple((round(float(a), 4), round(float(b), 4)) for a, b in zip(low, high, strict=True))


def _measured(volume: Volume, where: NormaliseIn, mask: Any) -> tuple[NDArray[np.float64], NDArray[np.bool_], float]:
    """Sample the voxels to measure.

    Returns
    -------
    sample : array of float64, shape (C, n)
    shown : array of bool, shape (C, n)
        False for voxels that are left out.
    left_out : float
        Fraction of the voxels that are left out.

    Raises
    ------
    DataProblem
        If the sample holds NaN or infinity, or the mask hides all of it.
    """
    data, framed = volume.data, where in ("content", "mask")
    if framed:
        box = content_box(data)
        if box.shape != volume.shape:
            key = (slice(None), *box.slices)
            data, mask = cut(data, key), None if mask is None else cut(mask, key)
    sample, visible = _sample(data, mask)
    check_finite(sample, volume.name)
    if visible is not None and not visible.any():
        raise DataProblem(f"{volume.name}: the mask hides all of it, so intensities cannot be measured; give another.")
    shown = np.ones(sample.shape, bool) if visible is None else np.broadcast_to(visible, sample.shape)
    if where == "nonzero":
        shown = _unless_flat(sample, shown, sample != 0)
    elif framed and (value := cut_out_value(data)) is not None:
        shown = _unless_flat(sample, shown, np.broadcast_to(~holds(sample, value), sample.shape))
    inside = prod(data.shape) / prod(volume.data.shape) * float(shown.mean())
    return sample, shown, 1 - inside


def _unless_flat(sample: NDArray[np.float64], shown: NDArray[np.bool_], kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Leave out voxels, but of no channel of which hardly anything, or a single value, would remain."""
    rows = []
    for values, before, after in zip(sample, shown, shown & kept, strict=True):
        remains = after.sum() >= min(FEWEST, before.sum()) and np.ptp(values[after]) > 0
        rows.append(after if remains else before)
    return np.stack(rows)


def _sample(data: Any, mask: Any) -> tuple[NDArray[np.float64], NDArray[np.bool_] | None]:
    """Read some voxels, (C, n), and whether a mask shows them: every n-th plane, row and column, or some chunks."""
    huge = is_huge(data)
    keys = _some_chunks(data) if huge else _evenly_spaced(data.shape)
    step = max(1, len(keys) * prod(chunk_edges(data)) // SAMPLE_VOXELS) if huge else 1
    read = [np.asarray(data[(slice(None), *key)]).reshape(data.shape[0], -1)[:, ::step] for key in keys]
    sample = (read[0] if len(read) == 1 else np.concatenate(read, axis=1)).astype(np.float64)
    if mask is None:
        return sample, None
    return sample, np.concatenate([(np.asarray(mask[(slice(1), *key)]) != 0).ravel()[::step] for key in keys])


def _evenly_spaced(shape: Sequence[int]) -> list[tuple[slice, slice, slice]]:
    """Give the key of every n-th plane, row and column."""
    pixels = shape[2] * shape[3]
    planes = max(1, -(-shape[1] * pixels // SAMPLE_VOXELS))
    columns = max(1, int(np.ceil(np.sqrt(pixels / SAMPLE_VOXELS))))
    return [(slice(None, None, planes), slice(None, None, columns), slice(None, None, columns))]


def _some_chunks(data: Any) -> list[tuple[slice, ...]]:
    """Give the keys of some chunks."""
    edges, size = chunk_edges(data), data.shape[1:]
    grid = [-(-n // edge) for n, edge in zip(size, edges, strict=True)]
    count = min(prod(grid), max(8, min(MOST_CHUNKS, content.READ_VOXELS // prod(edges))))
    chosen = np.sort(np.random.default_rng(0).choice(prod(grid), count, replace=False))
    corners = [[int(i) * edge for i, edge in zip(np.unravel_index(k, grid), edges, strict=True)] for k in chosen]
    return [
        tuple(slice(a, min(a + edge, n)) for a, edge, n in zip(corner, edges, size, strict=True)) for corner in corners
    ]
