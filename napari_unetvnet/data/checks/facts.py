"""What was measured of a pair: the numbers that all checks look at, so that arrays are read once and none is kept."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_unetvnet.conventions import Spacing, Triple

__all__ = ["Grid", "ImageFacts", "LabelFacts", "MaskFacts", "PairFacts", "Thumbnail"]


@dataclass(frozen=True, eq=False)
class Grid:
    """Where a volume lies.

    Parameters
    ----------
    shape : tuple of 3 int
    spacing : tuple of 3 float
    unit : str
    affine : array of shape (4, 4) or None
    """

    shape: Triple
    spacing: Spacing = (1.0, 1.0, 1.0)
    unit: str = "pixel"
    affine: NDArray[np.float64] | None = None

    @property
    def known(self) -> bool:
        """Whether anything is known of the size of a voxel."""
        return self.unit != "pixel" or self.spacing != (1.0, 1.0, 1.0)


@dataclass(frozen=True, eq=False)
class ImageFacts:
    """What was measured of an image.

    Parameters
    ----------
    name : str
    grid : Grid
    channels : int
    dtype : str
    low, high : tuple of float
        Extremes of each channel, NaN and infinity left out.
    dark, bright : tuple of float
        Percentiles 1 and 99 of each channel.
    at_low, at_high : float
        Largest share of a channel that has its very lowest or highest value.
    levels : int
        Different values in the sample.
    broken : int
        Voxels that are NaN or infinite.
    flat_planes : tuple of int
        Planes in which every voxel is the same.
    twins : tuple of int
        Channels, from 1, that repeat the first one.
    digest : str
        The same for the same voxels.
    read : float
        Share of the voxels that was looked at.
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
    twins: tuple[int, ...] = ()
    digest: str = ""
    read: float = 1.0

    @property
    def constant(self) -> tuple[int, ...]:
        """Channels, from 0, that hold one value only."""
        return tuple(c for c, (low, high) in enumerate(zip(self.low, self.high, strict=True)) if low == high)


@dataclass(frozen=True)
class Thumbnail:
    """What was seen on some evenly spread planes of the labels.

    Parameters
    ----------
    lone : float
        Of the voxels that have neither of the two most frequent values, the share without an equal neighbour.
    pieces : float
        In how many pieces a value lies on a plane, on average.
    thin : dict of int to float
        Share of the voxels of a value that lie at its border.
    winding : dict of int to float
        Border squared by area of the pieces of a value on a plane, on average: about 10 for discs, far more for lines.
    touching : float
        Share of the borders of what is painted that lie between two painted values.
    agreement : dict of str to float
        How much steeper the image is at the borders of the labels than elsewhere, in standard deviations: for the
        labels as they are ("") and turned in several ways.
    is_image : bool
        Whether the labels are the image itself.
    """

    lone: float = 0.0
    pieces: float = 0.0
    thin: dict[int, float] = field(default_factory=dict)
    winding: dict[int, float] = field(default_factory=dict)
    touching: float = 0.0
    agreement: dict[str, float] = field(default_factory=dict)
    is_image: bool = False


@dataclass(frozen=True, eq=False)
class LabelFacts:
    """What was measured of labels.

    Parameters
    ----------
    name : str
    grid : Grid
    channels : int
    dtype : str
    counts : tuple of Counter
        For each channel, the voxels of each value; those that a mask hides are left out.
    fraction : float or None
        A value that is no whole number.
    painted_planes : tuple of bool
        Whether a plane holds anything but 0; empty if not all were read.
    bare : int
        Counted voxels that are 0 in every channel.
    digest : str
    picture : Thumbnail
    read : float
        Share of the voxels that was looked at.
    """

    name: str
    grid: Grid
    channels: int
    dtype: str
    counts: tuple[Counter[int], ...] = (Counter(),)
    fraction: float | None = None
    painted_planes: tuple[bool, ...] = ()
    bare: int = 0
    digest: str = ""
    picture: Thumbnail = field(default_factory=Thumbnail)
    read: float = 1.0

    @property
    def total(self) -> int:
        """Voxels that were counted."""
        return self.counts[0].total()

    @property
    def painted(self) -> int:
        """Counted voxels that are not 0 in any channel."""
        return self.total - self.bare


@dataclass(frozen=True)
class MaskFacts:
    """What was measured of a mask.

    Parameters
    ----------
    name : str
    hidden : float
        Share of the voxels that it hides.
    """

    name: str
    hidden: float


@dataclass(frozen=True, eq=False)
class PairFacts:
    """What was measured of an image and its labels.

    Parameters
    ----------
    image : ImageFacts
    labels : LabelFacts
    mask : MaskFacts or None
    split : {"", "train", "val"}
    refused : tuple of str
        Why they cannot be laid on each other.
    """

    image: ImageFacts
    labels: LabelFacts
    mask: MaskFacts | None = None
    split: str = ""
    refused: tuple[str, ...] = ()
