"""Training patches: drawn where labels are.

Patches lie inside the region they are drawn from and are mirrored at its border, so that no voxel beyond it, neither
label nor image, is ever in one. Batch ``i`` is a pure function of the seed and ``i``: a resumed run draws what the
uninterrupted one would have.

The image is read patch by patch, so it may be larger than the memory. A patch that holds one value a channel, such as
the black around a stitched scan, is mostly drawn again: the network learns nothing more from it, but one in ten stays,
so that it learns what black is, and the fifth is taken whatever it holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_unetvnet.conventions import IGNORE, Triple
from napari_unetvnet.data.counts import class_counts
from napari_unetvnet.data.sampler import Sampler
from napari_unetvnet.data.targets import TARGET_MAPS, Classes, loss_target, target_margin
from napari_unetvnet.images.volume import Box, Intensity, Volume, check_finite, read_box

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.data.hold_out import Boxes
    from napari_unetvnet.settings import TrainSettings

__all__ = ["Batch", "Region", "TrainingData", "read_patch"]

DRAWS = 5
"""A patch of one value is drawn again until so many were drawn."""
BLANK_SHARE = 0.1
"""So many of them are kept all the same."""


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
    maps : mapping of str to array of float32, shape (Z, Y, X) or (C, Z, Y, X)
        What else the loss asks for, by the names of `TARGET_MAPS`.
    number : int
        Which of the images it is a part of.
    start : tuple of 3 int
        Its first voxel z, y, x in that image.
    """

    image: Volume
    target: NDArray[np.uint8]
    scale: Intensity
    maps: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    number: int = 0
    start: Triple = (0, 0, 0)

    @cached_property
    def class_counts(self) -> NDArray[np.int64]:
        """Voxels of each class, as `counts.class_counts` gives them; counted once."""
        return class_counts(self.target)

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
        z, y, x = (a + b for a, b in zip(self.start, box.start, strict=True))
        target = self.target[(..., *box.slices)]
        maps = {name: values[(..., *box.slices)] for name, values in self.maps.items()}
        return Region(self.image.crop(box), target, self.scale, maps, self.number, (z, y, x))


class Batch(NamedTuple):
    """Patches for one step, as arrays or tensors.

    Images (B, C, Z, Y, X) with their margin, target (B, Z, Y, X) or (B, K, Z, Y, X), and by the names of `TARGET_MAPS`
    what else the loss asks for, (B, Z, Y, X) or (B, C', Z, Y, X).
    """

    images: Any
    target: Any
    maps: Mapping[str, Any]


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
        targets = [region.target for region in self.train]
        self._sampler = Sampler(targets, self.classes, self.settings.sampling)

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
        """Draw patches around labelled voxels, as the setting ``sampling`` says.

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
        drawn = [self._draw(rng, self._sampler.kind(rng, i, count), patch, margin) for i in range(count)]
        images, target = np.stack([one.images for one in drawn]), np.stack([one.target for one in drawn])
        return Batch(images, target, {name: np.stack([one.maps[name] for one in drawn]) for name in drawn[0].maps})

    def _draw(self, rng: np.random.Generator, kind: int, patch: Triple, margin: Triple) -> Batch:
        """Draw one patch, without the axis B."""
        for _ in range(DRAWS):
            i, voxel = self._sampler.voxel(rng, kind)
            region = self.train[i]
            shape = region.image.shape
            start = [_start(rng, v, p, n) for v, p, n in zip(voxel, patch, shape, strict=True)]
            image = read_patch(region, start, patch, margin)
            if not _blank(image) or rng.random() < BLANK_SHARE:
                break
        wider = target_margin(self.classes, self.settings)
        target = loss_target(_cut(region.target, start, patch, wider, IGNORE), self.classes, self.settings)
        inner: Any = (..., *(slice(w, w + p) for w, p in zip(wider, patch, strict=True)))
        maps = {
            name: _cut(values, start, patch, (0, 0, 0), TARGET_MAPS[name].outside)
            for name, values in region.maps.items()
        }
        return Batch(image, np.ascontiguousarray(target[inner]), maps)


def _blank(image: NDArray[np.float32]) -> bool:
    """Whether a patch holds one value a channel."""
    return bool((image == image[:, :1, :1, :1]).all())


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
    check_finite(raw, region.image.name)  # of a large image not every voxel was looked at before
    return region.scale.apply(raw)


def _cut(array: NDArray[Any], start: Sequence[int], patch: Triple, margin: Triple, outside: float) -> NDArray[Any]:
    """Cut a patch out of the last three axes, with a value for what lies outside."""
    size = [p + 2 * m for p, m in zip(patch, margin, strict=True)]
    first = [s - m for s, m in zip(start, margin, strict=True)]
    found = np.full((*array.shape[:-3], *size), outside, array.dtype)
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
