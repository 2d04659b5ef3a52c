"""Training patches: drawn where labels are, each class as often as the others.

Patches lie inside the region they are drawn from and are mirrored at its border, so that no voxel beyond it, neither
label nor image, is ever in one. Batch ``i`` is a pure function of the seed and ``i``: a resumed run draws what the
uninterrupted one would have.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_unetvnet.settings import IGNORE, TrainSettings, Triple
from napari_unetvnet.targets import Classes, loss_target, target_margin
from napari_unetvnet.volume import Box, Intensity, Volume, read_box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.hold_out import Boxes

__all__ = ["Batch", "Region", "TrainingData", "read_patch"]

VOXELS_REMEMBERED = 200_000
"""Per region and class, so many labelled voxels at most are kept as places to draw patches at."""


@dataclass(frozen=True, eq=False)
class Region:
    """A part of a volume with its target.

    Parameters
    ----------
    image : Volume, data of shape (C, Z, Y, X)
    target : array of uint8, shape (Z, Y, X) or (K, Z, Y, X)
        Class indices, or a channel for each class where they may overlap; and IGNORE.
    scale : Intensity
        Measured on the whole volume.
    weight : array of float32, shape (Z, Y, X), or None
        Importance of each voxel.
    number : int
        Which of the images it is a part of.
    start : tuple of 3 int
        Its first voxel z, y, x in that image.
    """

    image: Volume
    target: NDArray[np.uint8]
    scale: Intensity
    weight: NDArray[np.float32] | None = None
    number: int = 0
    start: Triple = (0, 0, 0)

    @property
    def box(self) -> Box:
        """Where it lies in its image."""
        z, y, x = (a + n for a, n in zip(self.start, self.image.shape, strict=True))
        return Box(self.start, (z, y, x))

    def cut(self, box: Box) -> Region:
        """Give a part of the region.

        Parameters
        ----------
        box : Box

        Returns
        -------
        Region
        """
        weight = None if self.weight is None else self.weight[box.slices]
        z, y, x = (a + b for a, b in zip(self.start, box.start, strict=True))
        target = self.target[(..., *box.slices)]
        return Region(self.image.crop(box), target, self.scale, weight, self.number, (z, y, x))


class Batch(NamedTuple):
    """Patches for one step, as arrays or tensors.

    Images (B, C, Z, Y, X) with their margin, target (B, Z, Y, X) or (B, K, Z, Y, X), weight (B, Z, Y, X) or None.
    """

    images: Any
    target: Any
    weight: Any = None


@dataclass(eq=False)
class TrainingData:
    """What is trained on, what scores the model, and how patches are drawn.

    Parameters
    ----------
    train, hold_out : list of Region
    classes : Classes
    settings : TrainSettings
    notices : list of str
        What the user should know.
    boxes : list of (Box, Box) or None
        For each image the training part and the block held out of it, where there is one.
    """

    train: list[Region]
    hold_out: list[Region]
    classes: Classes
    settings: TrainSettings
    notices: list[str] = field(default_factory=list)
    boxes: list[Boxes | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        # Where classes overlap, the voxels that have none are drawn as if they were one class more.
        count = len(self.classes) + self.classes.several
        self._places = [[_places(region.target, k) for k in range(count)] for region in self.train]
        self._present = [k for k in range(count) if any(len(row[k]) for row in self._places)]

    @property
    def channels(self) -> int:
        """Channels C of the images."""
        return self.train[0].image.channels

    def parts(self, number: int) -> tuple[list[Box], list[Box]]:
        """Give the parts of an image that are learnt from, and those that score the model.

        Parameters
        ----------
        number : int
            Which of the images.

        Returns
        -------
        learnt, held_out : list of Box
        """
        learnt, held_out = ([r.box for r in regions if r.number == number] for regions in (self.train, self.hold_out))
        return learnt, held_out

    def batch(self, rng: np.random.Generator, count: int, patch: Triple, margin: Triple) -> Batch:
        """Draw patches around labelled voxels, each class as often as the others.

        Parameters
        ----------
        rng : numpy Generator
        count : int
            Patches, B.
        patch, margin : tuple of 3 int
            Size of the target and what the image has more on both sides, voxels z, y, x.

        Returns
        -------
        Batch
            Of arrays; images (B, C, Z + 2 mz, Y + 2 my, X + 2 mx).
        """
        drawn = [self._draw(rng, patch, margin) for _ in range(count)]
        weights = [weight for _, _, weight in drawn if weight is not None]
        images, target = np.stack([image for image, _, _ in drawn]), np.stack([target for _, target, _ in drawn])
        return Batch(images, target, np.stack(weights) if weights else None)

    def _draw(
        self, rng: np.random.Generator, patch: Triple, margin: Triple
    ) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[np.float32] | None]:
        k = self._present[rng.integers(len(self._present))]
        holders = [i for i, row in enumerate(self._places) if len(row[k])]
        i = holders[rng.integers(len(holders))]
        region, places = self.train[i], self._places[i][k]
        shape = region.image.shape
        voxel = np.unravel_index(places[rng.integers(len(places))], shape)
        start = [_start(rng, int(v), p, n) for v, p, n in zip(voxel, patch, shape, strict=True)]
        wider = target_margin(self.classes, self.settings)
        target = loss_target(_cut(region.target, start, patch, wider), self.classes, self.settings)
        inner: Any = (..., *(slice(w, w + p) for w, p in zip(wider, patch, strict=True)))
        weight = None if region.weight is None else _cut(region.weight, start, patch, (0, 0, 0))
        return read_patch(region, start, patch, margin), np.ascontiguousarray(target[inner]), weight


def read_patch(region: Region, start: Sequence[int], patch: Triple, margin: Triple) -> NDArray[np.float32]:
    """Read one normalised patch of the image; outside the region it is mirrored.

    Parameters
    ----------
    region : Region
    start : 3 int
        First voxel of the target patch; may be negative.
    patch, margin : tuple of 3 int

    Returns
    -------
    array of float32, shape (C, Z + 2 mz, Y + 2 my, X + 2 mx)
    """
    raw = read_box(
        region.image.data,
        [s - m for s, m in zip(start, margin, strict=True)],
        [s + p + m for s, p, m in zip(start, patch, margin, strict=True)],
        ("edge" if patch[0] == 1 else "reflect", "reflect", "reflect"),
    )
    return region.scale.apply(raw)


def _cut(array: NDArray[Any], start: Sequence[int], patch: Triple, margin: Triple) -> NDArray[Any]:
    """Cut a patch out of the last three axes; outside there is nothing known: IGNORE, or a weight of 0."""
    size = [p + 2 * m for p, m in zip(patch, margin, strict=True)]
    first = [s - m for s, m in zip(start, margin, strict=True)]
    found = np.full((*array.shape[:-3], *size), IGNORE if array.dtype == np.uint8 else 0, array.dtype)
    inside = [slice(max(a, 0), min(a + n, end)) for a, n, end in zip(first, size, array.shape[-3:], strict=True)]
    here: Any = (..., *(slice(i.start - a, i.stop - a) for i, a in zip(inside, first, strict=True)))
    there: Any = (..., *inside)
    found[here] = array[there]
    return found


def _start(rng: np.random.Generator, voxel: int, patch: int, length: int) -> int:
    """Place a patch at random so that it holds a voxel and stays in the region, or so that the region lies in it."""
    if patch >= length:  # always in the middle, a network would learn where in a patch things are, not what they are
        return -int(rng.integers(patch - length + 1))
    return int(np.clip(voxel - rng.integers(patch), 0, length - patch))


def _places(target: NDArray[np.uint8], k: int) -> NDArray[np.int64]:
    """Give flat indices of a class's voxels, evenly thinned to a number that is cheap to keep."""
    if target.ndim == 3:
        found = np.flatnonzero(target == k)
    else:
        found = np.flatnonzero(target[k] == 1 if k < len(target) else (target == 0).all(axis=0))
    if len(found) > VOXELS_REMEMBERED:
        found = found[np.linspace(0, len(found) - 1, VOXELS_REMEMBERED).astype(np.int64)]
    return found
