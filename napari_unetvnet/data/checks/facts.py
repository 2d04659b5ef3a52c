"""Measurements of a pair, on which all checks are based, so that arrays are read once and none is kept."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from napari_unetvnet.data.meaning import Evidence
    from napari_unetvnet.images.geometry import Grid

__all__ = ["Fit", "ImageFacts", "LabelFacts", "MaskFacts", "PairFacts", "Thumbnail"]


@dataclass(frozen=True, eq=False)
class ImageFacts:
    """Measurements of an image.

    Parameters
    ----------
    low, high : tuple of float
        Extremes of each channel, NaN and infinity left out.
    dark, bright : tuple of float
        Percentiles 1 and 99 of each channel.
    at_low, at_high : float
        Fraction of voxels with the lowest or highest value of their channel, the largest over the channels.
    levels : int
        Number of distinct values in the sample.
    broken : int
        Voxels that are NaN or infinite.
    flat_planes : tuple of int
        Planes in which every voxel is the same.
    repeated_channels : tuple of int
        Channels, from 1, that repeat the first one.
    digest : str
        The same for the same voxels.
    read : float
        Fraction of the voxels that was read.
    """

    name: str
    grid: Grid
    channels: int
    dtype: str
    low: tuple[float, ...]
    high: tuple[float, ...]
    dark: tuple[float, ...]
    bright: tuple[float, ...]
    at_low: float = 0.0
    at_high: float = 0.0
    levels: int = 0
    broken: int = 0
    flat_planes: tuple[int, ...] = ()
    repeated_channels: tuple[int, ...] = ()
    digest: str = ""
    read: float = 1.0

    @property
    def constant(self) -> tuple[int, ...]:
        """Channels, from 0, that hold one value only."""
        return tuple(c for c, (low, high) in enumerate(zip(self.low, self.high, strict=True)) if low == high)


class Fit(NamedTuple):
    """How much higher the image gradient is at the borders of labels than at the same borders, moved a little."""

    sharpness: float
    """In standard deviations over the moved borders: chance gives about 0, and hardly ever more than 3."""
    gain: float
    """In standard deviations of the gradient."""


@dataclass(frozen=True)
class Thumbnail:
    """Shapes of the labels on some evenly spaced planes.

    Parameters
    ----------
    isolated : float
        Fraction of the voxels with neither of the two most frequent values that have no equal neighbour.
    pieces : float
        Mean number of connected components per value and plane.
    thin : dict of int to float
        Fraction of the voxels of a value that are at its border.
    winding : dict of int to float
        Mean of border^2 / area of the components of a value: about 10 for discs, far more for lines.
    touching : float
        Fraction of the borders of painted voxels that are between two painted values.
    fits : dict of str to Fit
        How well the borders of the labels fit the image: as they are ("") and for each of `TURNS`.
    is_image : bool
        Whether the labels are the image itself.
    """

    isolated: float = 0.0
    pieces: float = 0.0
    thin: dict[int, float] = field(default_factory=dict)
    winding: dict[int, float] = field(default_factory=dict)
    touching: float = 0.0
    fits: dict[str, Fit] = field(default_factory=dict)
    is_image: bool = False


@dataclass(frozen=True, eq=False)
class LabelFacts:
    """Measurements of labels.

    Parameters
    ----------
    counts : tuple of Counter
        For each channel, the voxels of each value, without those that a mask hides.
    fraction : float or None
        A value that is not an integer.
    painted_planes : tuple of bool
        Whether a plane holds anything but 0; empty if not all were read.
    unpainted : int
        Counted voxels that are 0 in every channel.
    read : float
        Fraction of the voxels that was read.
    """

    name: str
    grid: Grid
    channels: int
    dtype: str
    counts: tuple[Counter[int], ...] = (Counter(),)
    fraction: float | None = None
    painted_planes: tuple[bool, ...] = ()
    unpainted: int = 0
    digest: str = ""
    thumbnail: Thumbnail = field(default_factory=Thumbnail)
    read: float = 1.0

    @property
    def total(self) -> int:
        """Number of counted voxels."""
        return self.counts[0].total()

    @property
    def painted(self) -> int:
        """Counted voxels that are not 0 in any channel."""
        return self.total - self.unpainted


@dataclass(frozen=True)
class MaskFacts:
    """Measurements of a mask.

    Parameters
    ----------
    hidden : float
        Fraction of the voxels that it hides.
    """

    name: str
    hidden: float
    grid: Grid


@dataclass(frozen=True, eq=False)
class PairFacts:
    """Measurements of an image and its labels.

    Parameters
    ----------
    split : {"", "train", "val"}
    refused : tuple of str
        Why image and labels do not fit together.
    turned : bool
        Whether labels or mask were brought to the axes of the image.
    evidence : Evidence or None
        What label 0 looks like; None if it was not measured.
    """

    image: ImageFacts
    labels: LabelFacts
    mask: MaskFacts | None = None
    split: str = ""
    refused: tuple[str, ...] = ()
    evidence: Evidence | None = None
    turned: bool = False
