"""Training patches, drawn around labelled voxels.

Patches are mirrored at the border of their region and of the boxes that are barred in it, so no voxel beyond, neither
label nor image, is ever in one.
Batch ``i`` is a pure function of the seed and ``i``: a resumed run draws the same patches as an uninterrupted one.

The image is read patch by patch, so it may exceed memory. A blank patch (one value per channel), such as the black
around a stitched scan, is usually redrawn, because little is learnt from it. One in ten is kept, so that the network
learns black, too, and so is the fifth draw.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_unetvnet.conventions import IGNORE, Triple
from napari_unetvnet.data.boxes import free_around, shifted, subtract
from napari_unetvnet.data.counts import class_counts
from napari_unetvnet.data.sampler import Sampler
from napari_unetvnet.data.targets import TARGET_MAPS, Classes, loss_target, target_margin
from napari_unetvnet.images.volume import Box, Volume, check_finite, read_box

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.images.intensity import Intensity
    from napari_unetvnet.model.card import ImageRecord, ScoredOn
    from napari_unetvnet.settings import TrainSettings

__all__ = ["Batch", "Region", "TrainingData", "read_patch"]

DRAWS = 5
"""Maximum draws of a patch, while they are blank."""
BLANK_SHARE = 0.1
"""Probability to keep a blank patch."""


@dataclass(frozen=True, eq=False)
class Region:
    """A part of a volume with its target.

    Parameters
    ----------
    image : Volume, data of shape (C, Z, Y, X)
    target : array of uint8, shape (Z, Y, X) or (K, Z, Y, X)
        Class indices, or a channel for each class where they may overlap; and IGNORE.
    scale : Intensity
        Measured on the whole volume, or the same for all.
    maps : mapping of str to array of float32, shape (Z, Y, X) or (C, Z, Y, X)
        What else the loss asks for, by the names of `TARGET_MAPS`.
    number : int
        Index of its image.
    start : tuple of 3 int
        Its first voxel z, y, x in the image.
    barred : tuple of Box
        In voxels of the region: no patch touches them, and their labels are IGNORE. In what is trained on these are
        held-out blocks with their margins, in the hold-out the surroundings of a block.
    """

    image: Volume
    target: NDArray[np.uint8]
    scale: Intensity
    maps: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    number: int = 0
    start: Triple = (0, 0, 0)
    barred: tuple[Box, ...] = ()

    @cached_property
    def class_counts(self) -> NDArray[np.int64]:
        """Voxels of each class, as `counts.class_counts` gives them; counted once."""
        return class_counts(self.target)

    @property
    def boxes(self) -> list[Box]:
        """What is not barred, as boxes in the image that do not overlap."""
        free = subtract([Box((0, 0, 0), self.image.shape)], self.barred)
        return [shifted(box, self.start) for box in free]

    def crop(self, box: Box) -> Region:
        """Crop the region; what was barred is not barred in the crop."""
        z, y, x = (a + b for a, b in zip(self.start, box.start, strict=True))
        target = self.target[(..., *box.slices)]
        maps = {name: values[(..., *box.slices)] for name, values in self.maps.items()}
        return Region(self.image.crop(box), target, self.scale, maps, self.number, (z, y, x))

    def block(self, box: Box, least: Triple) -> Region:
        """Copy a block with its labels, to score a model on them.

        Parameters
        ----------
        box : Box
        least : tuple of 3 int
            Where the block is smaller, what is around it belongs to the new region, but barred.

        Returns
        -------
        Region
        """
        shape = self.image.shape
        start = [
            max(0, min(a - (wide - (b - a)) // 2, n - wide)) if wide > b - a else a
            for a, b, n, wide in zip(box.start, box.stop, shape, least, strict=True)
        ]
        stop = [max(b, min(n, a + wide)) for a, b, n, wide in zip(start, box.stop, shape, least, strict=True)]
        whole = Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
        part = self.crop(whole)
        around = subtract([whole], [box])
        z, y, x = (-a for a in start)
        return replace(part, target=part.target.copy(), maps={}).without([shifted(each, (z, y, x)) for each in around])

    def without(self, barred: Sequence[Box]) -> Region:
        """Bar boxes: their labels are erased in place, so copy them first with `block`."""
        for box in barred:
            self.target[(..., *box.slices)] = IGNORE
        return replace(self, barred=(*self.barred, *barred))

    def free_part(self, voxel: Triple, patch: Triple) -> tuple[Region, Triple]:
        """Crop a part around a voxel in which nothing is barred.

        Parameters
        ----------
        voxel : tuple of 3 int
            z, y, x, not barred.
        patch : tuple of 3 int
            The part has room for as much of it as possible.

        Returns
        -------
        part : Region
        voxel : tuple of 3 int
            The voxel in the part.
        """
        if not self.barred:
            return self, voxel
        box = free_around(voxel, self.image.shape, self.barred, patch)
        z, y, x = (v - a for v, a in zip(voxel, box.start, strict=True))
        return self.crop(box), (z, y, x)


class Batch(NamedTuple):
    """Patches for one step, as arrays or tensors.

    Images (B, C, Z, Y, X) with their margin, target (B, Z, Y, X) or (B, K, Z, Y, X), and by the names of `TARGET_MAPS`
    the maps that the loss needs, (B, Z, Y, X) or (B, C', Z, Y, X).
    """

    images: Any
    target: Any
    maps: Mapping[str, Any]


@dataclass(eq=False)
class TrainingData:
    """Training regions and hold-out, and the drawing of patches.

    Parameters
    ----------
    notices : list of str
        For the user.
    scored : ScoredOn or None
        What the hold-out holds; None without one.
    known : list of ImageRecord
        What the models that this training starts from did with their images.
    """

    train: list[Region]
    hold_out: list[Region]
    classes: Classes
    settings: TrainSettings
    notices: list[str] = field(default_factory=list)
    scored: ScoredOn | None = None
    known: list[ImageRecord] = field(default_factory=list)

    def __post_init__(self) -> None:
        targets = [region.target for region in self.train]
        self._sampler = Sampler(targets, self.classes, self.settings.sampling)

    @property
    def channels(self) -> int:
        """Channels C of the images."""
        return self.train[0].image.channels

    def parts(self, number: int) -> tuple[list[Box], list[Box]]:
        """Give the boxes of an image for training, and those held out.

        Parameters
        ----------
        number : int
            Index of the image.

        Returns
        -------
        train, hold_out : list of Box
        """
        train, hold_out = (
            [box for region in regions if region.number == number for box in region.boxes]
            for regions in (self.train, self.hold_out)
        )
        return train, hold_out

    def batch(self, rng: np.random.Generator, count: int, patch: Triple, margin: Triple) -> Batch:
        """Draw patches around labelled voxels, by the setting ``sampling``.

        Parameters
        ----------
        count : int
            Patches, B.
        patch, margin : tuple of 3 int
            Size of the target, and of the margin of the image on each side, voxels z, y, x.

        Returns
        -------
        Batch
            Of arrays; images (B, C, Z + 2 mz, Y + 2 my, X + 2 mx).
        """
        patches = [self._draw(rng, self._sampler.kind(rng, i, count), patch, margin) for i in range(count)]
        images, target = np.stack([patch.images for patch in patches]), np.stack([patch.target for patch in patches])
        maps = {name: np.stack([patch.maps[name] for patch in patches]) for name in patches[0].maps}
        return Batch(images, target, maps)

    def _draw(self, rng: np.random.Generator, kind: int, patch: Triple, margin: Triple) -> Batch:
        """Draw one patch, without the axis B."""
        for _ in range(DRAWS):
            i, voxel = self._sampler.voxel(rng, kind)
            region, voxel = self.train[i].free_part(voxel, patch)
            shape = region.image.shape
            start = [_start(rng, v, p, n) for v, p, n in zip(voxel, patch, shape, strict=True)]
            image = read_patch(region, start, patch, margin)
            if not _blank(image) or rng.random() < BLANK_SHARE:
                break
        wider = target_margin(self.classes, self.settings)
        target = loss_target(_crop(region.target, start, patch, wider, IGNORE), self.classes, self.settings)
        inner: Any = (..., *(slice(w, w + p) for w, p in zip(wider, patch, strict=True)))
        maps = {
            name: _crop(values, start, patch, (0, 0, 0), TARGET_MAPS[name].outside)
            for name, values in region.maps.items()
        }
        return Batch(image, np.ascontiguousarray(target[inner]), maps)


def _blank(image: NDArray[np.float32]) -> bool:
    """Whether a patch has a single value per channel."""
    return bool((image == image[:, :1, :1, :1]).all())


def read_patch(region: Region, start: Sequence[int], patch: Triple, margin: Triple) -> NDArray[np.float32]:
    """Read one normalised patch of the image; outside the region it is mirrored.

    Parameters
    ----------
    start : 3 int
        First voxel of the target patch; may be negative.
    patch, margin : tuple of 3 int

    Returns
    -------
    array of float32, shape (C, Z + 2 mz, Y + 2 my, X + 2 mx)

    Raises
    ------
    DataProblem
        If it holds NaN or infinity.
    """
    raw = read_box(
        region.image.data,
        [s - m for s, m in zip(start, margin, strict=True)],
        [s + p + m for s, p, m in zip(start, patch, margin, strict=True)],
        ("edge" if patch[0] == 1 else "reflect", "reflect", "reflect"),
    )
    check_finite(raw, region.image.name)  # large images were only sampled before
    return region.scale.apply(raw)


def _crop(array: NDArray[Any], start: Sequence[int], patch: Triple, margin: Triple, outside: float) -> NDArray[Any]:
    """Crop a patch from the last three axes, filled with a value outside the array."""
    size = [p + 2 * m for p, m in zip(patch, margin, strict=True)]
    first = [s - m for s, m in zip(start, margin, strict=True)]
    patch_values = np.full((*array.shape[:-3], *size), outside, array.dtype)
    inside = [slice(max(a, 0), min(a + n, end)) for a, n, end in zip(first, size, array.shape[-3:], strict=True)]
    target_slices: Any = (..., *(slice(i.start - a, i.stop - a) for i, a in zip(inside, first, strict=True)))
    source_slices: Any = (..., *inside)
    patch_values[target_slices] = array[source_slices]
    return patch_values


def _start(rng: np.random.Generator, voxel: int, patch: int, length: int) -> int:
    """Place a patch at random such that it contains a voxel and is inside the region, or contains the region."""
    if patch >= length:  # if it were always in the middle, the network would learn positions in the patch
        return -int(rng.integers(patch - length + 1))
    return int(np.clip(voxel - rng.integers(patch), 0, length - patch))
