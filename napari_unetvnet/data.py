"""Training patches from labelled volumes: what is held out, and where patches are drawn.

The hold-out is whole volumes where there are several, otherwise a block at one end of an axis. Training patches are
drawn inside the rest and mirrored at its border, so that no voxel of the hold-out, neither label nor image, is ever in
one. Batch ``i`` is a pure function of the seed and ``i``: a resumed run draws what the uninterrupted one would have.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.card import read_card
from napari_unetvnet.checks import check_pair
from napari_unetvnet.errors import DataProblem
from napari_unetvnet.hold_out import LEAST_VOXELS, Boxes, choose_block, class_counts, unpacked
from napari_unetvnet.settings import IGNORE, TrainSettings, Triple
from napari_unetvnet.targets import encode, find_values, written_values
from napari_unetvnet.volume import Box, Intensity, Volume, intensity, read_box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Pair", "Region", "TrainingData", "prepare"]

VOXELS_REMEMBERED = 200_000
"""Per region and class, so many labelled voxels at most are kept as places to draw patches at."""


@dataclass(frozen=True, eq=False)
class Pair:
    """An image with its labels.

    Parameters
    ----------
    image : Volume, data of shape (C, Z, Y, X)
    labels : Volume, data of shape (1, Z, Y, X)
    split : {"", "train", "val"}
        Where the user wants it; "" leaves it to `prepare`.
    """

    image: Volume
    labels: Volume
    split: str = ""


@dataclass(frozen=True, eq=False)
class Region:
    """A part of a volume with its class indices.

    Parameters
    ----------
    image : Volume, data of shape (C, Z, Y, X)
    target : array of uint8, shape (Z, Y, X)
        Class indices and IGNORE.
    scale : Intensity
        Measured on the whole volume.
    """

    image: Volume
    target: NDArray[np.uint8]
    scale: Intensity

    def cut(self, box: Box) -> Region:
        """Give a part of the region.

        Parameters
        ----------
        box : Box

        Returns
        -------
        Region
        """
        return Region(self.image.crop(box), self.target[box.slices], self.scale)


@dataclass(eq=False)
class TrainingData:
    """What is trained on, what scores the model, and how patches are drawn.

    Parameters
    ----------
    train, hold_out : list of Region
    values, written : tuple of int
        Painted and written label value of each class.
    notices : list of str
        What the user should know.
    boxes : list of (Box, Box) or None
        For each image the training part and the block held out of it, where there is one.
    """

    train: list[Region]
    hold_out: list[Region]
    values: tuple[int, ...]
    written: tuple[int, ...]
    notices: list[str] = field(default_factory=list)
    boxes: list[Boxes | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._places = [[_places(region.target, k) for k in range(len(self.values))] for region in self.train]
        self._present = [k for k in range(len(self.values)) if any(len(row[k]) for row in self._places)]

    @property
    def channels(self) -> int:
        """Channels C of the images."""
        return self.train[0].image.channels

    def batch(
        self, rng: np.random.Generator, count: int, patch: Triple, margin: Triple
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
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
        images : array of float32, shape (B, C, Z + 2 mz, Y + 2 my, X + 2 mx)
        target : array of uint8, shape (B, Z, Y, X)
        """
        drawn = [self._draw(rng, patch, margin) for _ in range(count)]
        return np.stack([image for image, _ in drawn]), np.stack([target for _, target in drawn])

    def _draw(
        self, rng: np.random.Generator, patch: Triple, margin: Triple
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        k = self._present[rng.integers(len(self._present))]
        holders = [i for i, row in enumerate(self._places) if len(row[k])]
        i = holders[rng.integers(len(holders))]
        region, places = self.train[i], self._places[i][k]
        voxel = np.unravel_index(places[rng.integers(len(places))], region.target.shape)
        start = [_start(rng, int(v), p, n) for v, p, n in zip(voxel, patch, region.target.shape, strict=True)]
        return read_patch(region, start, patch, margin)


def read_patch(
    region: Region, start: Sequence[int], patch: Triple, margin: Triple
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Read one normalised patch with its target; outside the region the image is mirrored and the target IGNORE.

    Parameters
    ----------
    region : Region
    start : 3 int
        First voxel of the target patch; may be negative.
    patch, margin : tuple of 3 int

    Returns
    -------
    image : array of float32, shape (C, Z + 2 mz, Y + 2 my, X + 2 mx)
    target : array of uint8, shape (Z, Y, X)
    """
    stop = [s + p for s, p in zip(start, patch, strict=True)]
    raw = read_box(
        region.image.data,
        [s - m for s, m in zip(start, margin, strict=True)],
        [s + m for s, m in zip(stop, margin, strict=True)],
        ("edge" if patch[0] == 1 else "reflect", "reflect", "reflect"),
    )
    target = np.full(patch, IGNORE, np.uint8)
    inside = [slice(max(a, 0), min(b, n)) for a, b, n in zip(start, stop, region.target.shape, strict=True)]
    place = tuple(slice(i.start - a, i.stop - a) for i, a in zip(inside, start, strict=True))
    target[place] = region.target[tuple(inside)]
    return region.scale.apply(raw), target


def _start(rng: np.random.Generator, voxel: int, patch: int, length: int) -> int:
    """Place a patch at random so that it holds a voxel and stays in the region, or centre it if it is too long."""
    if patch >= length:
        return -((patch - length) // 2)
    return int(np.clip(voxel - rng.integers(patch), 0, length - patch))


def _places(target: NDArray[np.uint8], k: int) -> NDArray[np.int64]:
    """Give flat indices of a class's voxels, evenly thinned to a number that is cheap to keep."""
    found = np.flatnonzero(target == k)
    if len(found) > VOXELS_REMEMBERED:
        found = found[np.linspace(0, len(found) - 1, VOXELS_REMEMBERED).astype(np.int64)]
    return found


def prepare(pairs: Sequence[Pair], settings: TrainSettings, patch: Triple) -> TrainingData:
    """Check the pairs, find the classes and hold a part out.

    Parameters
    ----------
    pairs : sequence of Pair
    settings : TrainSettings
    patch : tuple of 3 int
        Training patch z, y, x.

    Returns
    -------
    TrainingData

    Raises
    ------
    DataProblem
        If a pair cannot be trained on, the images have different channels, or every pair is for validation.
    """
    for pair in pairs:
        check_pair(pair.image, pair.labels)
    _check_painted(pairs, settings)
    if len({pair.image.channels for pair in pairs}) > 1:
        counts = ", ".join(f"{pair.image.name}: {pair.image.channels}" for pair in pairs)
        raise DataProblem(f"The images have different numbers of channels ({counts}); give images of one kind.")
    learnt = [pair.labels for pair in pairs if pair.split != "val"]
    if not learnt:
        raise DataProblem("All pairs are marked val; mark at least one as train.")
    values = find_values(learnt, settings)
    regions = [_region(pair, values, settings) for pair in pairs]
    written = written_values(values, settings)
    if any(pair.split for pair in pairs):
        return TrainingData(*_marked(pairs, regions), values, written, _nobody_marked(pairs))
    if settings.hold_out == 0:
        return TrainingData(regions, [], values, written, ["Nothing is held out: the score of the model is not known."])
    if len(regions) >= 3 and (chosen := _whole_volumes(regions, settings, len(values))):
        names = ", ".join(regions[i].image.name for i in chosen)
        rest = [region for i, region in enumerate(regions) if i not in chosen]
        held = [regions[i] for i in chosen]
        return TrainingData(rest, held, values, written, [f"Held out to score the model: {names}."])
    boxes = _kept_boxes(regions, settings) or [
        choose_block(region.target, settings.hold_out, len(values), patch) for region in regions
    ]
    return _blocks(regions, boxes, values, written)


def _check_painted(pairs: Sequence[Pair], settings: TrainSettings) -> None:
    """Refuse labels that hold nothing; among others, an image without anything in it may be worth learning from."""
    empty = [pair.labels.name for pair in pairs if not np.asarray(pair.labels.data).any()]
    if empty and (settings.unlabelled == "ignore" or len(empty) == len(pairs)):
        raise DataProblem(f"Labels {', '.join(empty)} hold nothing but 0; paint some labels first.")


def _region(pair: Pair, values: tuple[int, ...], settings: TrainSettings) -> Region:
    labels: NDArray[Any] = np.asarray(pair.labels.data)[0]
    target = encode(labels, values, settings, pair.labels.name)
    return Region(pair.image, target, intensity(pair.image, settings.normalise))


def _marked(pairs: Sequence[Pair], regions: list[Region]) -> tuple[list[Region], list[Region]]:
    """Divide as the user marked the pairs."""
    train, held = (
        [r for p, r in zip(pairs, regions, strict=True) if (p.split == "val") == val] for val in (False, True)
    )
    return train, held


def _nobody_marked(pairs: Sequence[Pair]) -> list[str]:
    if any(pair.split == "val" for pair in pairs):
        return []
    return ["No pair is marked val: the score of the model is not known."]


NO_HOLD_OUT = "There are too few labels to hold a part out: the score of the model is not known. Paint more."


def _whole_volumes(regions: list[Region], settings: TrainSettings, classes: int) -> list[int]:
    """Choose volumes to hold out such that every class is left in the others; none if that cannot be."""
    count = max(1, round(settings.hold_out * len(regions)))
    counts = np.stack([class_counts(region.target, classes) for region in regions])
    rng = np.random.default_rng([settings.seed, 0x5B117])
    for _ in range(50):
        chosen = rng.permutation(len(regions))[:count]
        if (np.delete(counts, chosen, axis=0).sum(axis=0) >= LEAST_VOXELS).all() and counts[chosen].any():
            return sorted(int(i) for i in chosen)
    return []


def _kept_boxes(regions: list[Region], settings: TrainSettings) -> list[Boxes | None]:
    """Give the blocks that the model to start from was scored on, if it was trained on images of these sizes."""
    if settings.start_from is None:
        return []
    boxes = [unpacked(row) for row in read_card(settings.start_from).split]
    if len(boxes) != len(regions):
        return []
    for region, pair in zip(regions, boxes, strict=True):
        if pair is None or not _inside(pair, region):
            return []
        if (region.target[pair[0].slices] == IGNORE).all():
            return []  # nothing is painted in the part to learn from
    return boxes


def _inside(boxes: Boxes, region: Region) -> bool:
    """Whether both boxes lie in a region."""
    return all(b <= n for box in boxes for b, n in zip(box.stop, region.target.shape, strict=True))


def _blocks(
    regions: list[Region], boxes: list[Boxes | None], values: tuple[int, ...], written: tuple[int, ...]
) -> TrainingData:
    """Hold a block of each volume out."""
    train, hold_out, notices = [], [], []
    for region, pair in zip(regions, boxes, strict=True):
        train.append(region.cut(pair[0]) if pair else region)
        if pair:
            hold_out.append(region.cut(pair[1]))
            edges = zip("zyx", pair[1].start, pair[1].stop, strict=True)
            where = ", ".join(f"{axis} {a} to {b}" for axis, a, b in edges if b - a > 1)
            notices.append(f"Held out of {region.image.name} to score the model: voxels {where}.")
    return TrainingData(train, hold_out, values, written, notices or [NO_HOLD_OUT], boxes)
