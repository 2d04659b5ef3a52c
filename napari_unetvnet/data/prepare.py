"""From labelled volumes to training regions and hold-out.

The hold-out is whole volumes if there are at least three, otherwise a block at one end of an axis of each volume.

Of an image no more is read than the look for NaN and for its intensities needs, which for a large one is a small part.
Labels are read part by part. Their target takes a byte for each voxel (where classes overlap, for each class of each
voxel), in memory or, where that would take a quarter of what is free, in a temporary file. A loss that asks for a map
(`data.targets.maps`) needs 4 bytes more for each voxel of it; the map that keeps touching objects apart is computed
from all labels at once, which takes about 30.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_unetvnet.data.counts import labelled_along
from napari_unetvnet.data.folds import divide
from napari_unetvnet.data.hold_out import LEAST_VOXELS, Boxes, boxes_from_numbers, choose_block, margin_of
from napari_unetvnet.data.label_counts import label_counts
from napari_unetvnet.data.patches import Region, TrainingData
from napari_unetvnet.data.targets import Classes, find_classes, label_margin, make_target, needed_maps
from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.arrays import new_array, parts
from napari_unetvnet.images.intensity import intensity
from napari_unetvnet.images.pairs import Pair
from napari_unetvnet.images.refusals import check_pair
from napari_unetvnet.images.resample import at_spacing, grid_at, spacing_in
from napari_unetvnet.model.card import read_card

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.conventions import Triple
    from napari_unetvnet.data.targets import TargetMap
    from napari_unetvnet.images.volume import Volume
    from napari_unetvnet.settings import TrainSettings

__all__ = ["prepare_data", "resample_pairs"]


def resample_pairs(pairs: Sequence[Pair], settings: TrainSettings) -> list[Pair]:
    """Resample the pairs to the target voxel size.

    Returns
    -------
    list of Pair
        Intensities are interpolated when they are read; labels take the nearest voxel. A pair whose unit is not
        comparable with that of the first pair stays as it is.

    Raises
    ------
    DataProblem
        If image and labels of a pair do not have the same grid.
    """
    resampled, target, unit = [], settings.target_spacing, pairs[0].image.unit
    for pair in pairs:
        spacing = None if target is None else spacing_in(target, unit, pair.image.unit)
        shape = grid_at(pair.image, spacing, planar=settings.dims == 2)
        if shape == pair.image.shape:
            resampled.append(pair)
            continue
        check_pair(pair.image, pair.labels, pair.mask, overlapping=settings.label_values == "overlapping")
        labels = at_spacing(pair.labels, shape, "nearest")
        mask = None if pair.mask is None else at_spacing(pair.mask, shape, "nearest")
        resampled.append(Pair(at_spacing(pair.image, shape), labels, pair.split, mask))
    return resampled


def prepare_data(pairs: Sequence[Pair], settings: TrainSettings, patch: Triple) -> TrainingData:
    """Check the pairs, find the classes and choose the hold-out.

    Parameters
    ----------
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
        check_pair(pair.image, pair.labels, pair.mask, overlapping=settings.label_values == "overlapping")
    _check_masks(pairs, settings)
    _check_painted(pairs, settings)
    if len({pair.image.channels for pair in pairs}) > 1:
        counts = ", ".join(f"{pair.image.name}: {pair.image.channels}" for pair in pairs)
        raise DataProblem(f"The images have different numbers of channels ({counts}); give images of one kind.")
    training_labels = [pair.labels for pair in pairs if pair.split != "val"]
    if not training_labels:
        raise DataProblem("All pairs are marked val; mark at least one as train.")
    classes = find_classes(training_labels, settings)
    regions = [_region(i, pair, classes, settings) for i, pair in enumerate(pairs)]
    parts = _divided(pairs, regions, classes, settings, patch)
    return TrainingData(parts.train, parts.hold_out, classes, settings, parts.notices, parts.boxes)


class _Parts(NamedTuple):
    """Training regions and hold-out."""

    train: list[Region]
    hold_out: list[Region]
    notices: list[str]
    boxes: list[Boxes | None] = []  # noqa: RUF012 (never changed)


def _divided(
    pairs: Sequence[Pair], regions: list[Region], classes: Classes, settings: TrainSettings, patch: Triple
) -> _Parts:
    """Hold out what the user marked, else a fold, else whole volumes, else blocks."""
    marked = any(pair.split for pair in pairs)
    if marked and settings.folds > 1:
        raise DataProblem("Pairs are marked train or val, so nothing is left to divide; leave out folds or the marks.")
    if settings.folds > 1:
        return _Parts(*divide(regions, classes, settings, patch))
    if marked:
        return _Parts(*_marked(pairs, regions), _without_validation(pairs))
    if settings.hold_out == 0:
        return _Parts(regions, [], ["Nothing is held out, so the model has no validation score."])
    if len(regions) >= 3 and (held_out := _whole_volumes(regions, settings)):
        names = ", ".join(regions[i].image.name for i in held_out)
        train = [region for i, region in enumerate(regions) if i not in held_out]
        return _Parts(train, [regions[i] for i in held_out], [f"Held out to score the model: {names}."])
    boxes = _boxes_of_model(regions, settings) or [
        choose_block(region.target, settings.hold_out, patch, region.image.spacing) for region in regions
    ]
    return _blocks(regions, boxes)


def _check_painted(pairs: Sequence[Pair], settings: TrainSettings) -> None:
    """Refuse unpainted labels; among painted ones, an image with only background may be valid."""
    empty = [pair.labels.name for pair in pairs if not label_counts(pair.labels).painted]
    if empty and (settings.unlabelled == "ignore" or len(empty) == len(pairs)):
        raise DataProblem(f"Labels {', '.join(empty)} contain only 0; paint some labels first.")


def _check_masks(pairs: Sequence[Pair], settings: TrainSettings) -> None:
    """Refuse to normalise within masks where an image has none."""
    without = [pair.image.name for pair in pairs if pair.mask is None]
    if settings.normalise_in == "mask" and without:
        raise DataProblem(
            f"normalise_in=mask needs a mask for each image, but {', '.join(without[:8])} has none; give --mask, or "
            "choose normalise_in=content."
        )


def _region(number: int, pair: Pair, classes: Classes, settings: TrainSettings) -> Region:
    """Make a region of a whole pair, without loading the image."""
    target = _target(pair, classes, settings)
    maps = {name: _map(row, pair.labels, target, settings) for name, row in needed_maps(settings).items()}
    mask = None if pair.mask is None else pair.mask.data
    scale = intensity(pair.image, settings.normalise, settings.normalise_in, mask)
    return Region(pair.image, target, scale, maps, number)


def _target(pair: Pair, classes: Classes, settings: TrainSettings) -> NDArray[np.uint8]:
    """Make the target box by box, each read with a margin, so that its border is computed like its inside."""
    labels, mask, shape = pair.labels.data, pair.mask, pair.labels.shape
    target = new_array((len(classes), *shape) if classes.multilabel else shape, np.uint8)
    for box, wide, inner in _widened(labels, label_margin(settings)):
        visible = None if mask is None else np.asarray(mask.data[(0, *wide)])
        read = np.asarray(labels[(slice(None), *wide)])
        target[(..., *box)] = make_target(read, classes, settings, pair.labels.name, visible)[(..., *inner)]
    return target


def _map(row: TargetMap, labels: Volume, target: NDArray[np.uint8], settings: TrainSettings) -> NDArray[np.float32]:
    """Compute a map of the whole image, part by part if a margin is enough to know around each."""
    if row.margin is None:
        return row.compute(np.asarray(labels.data), target, settings)
    values = new_array(row.shape(labels.shape), np.float32)
    for box, wide, inner in _widened(labels.data, row.margin):
        read = np.asarray(labels.data[(slice(None), *wide)])
        values[(..., *box)] = row.compute(read, target[(..., *wide)], settings)[(..., *inner)]
    return values


def _widened(labels: Any, margin: int) -> Iterator[tuple[Any, Any, Any]]:
    """Yield parts of labels, each also with its margin, and where it lies in that."""
    for box in parts(labels):
        sides = zip(box, labels.shape[-3:], strict=True)
        wide = tuple(slice(max(0, s.start - margin), min(n, s.stop + margin)) for s, n in sides)
        inner = tuple(slice(s.start - w.start, s.stop - w.start) for s, w in zip(box, wide, strict=True))
        yield box, wide, inner


def _marked(pairs: Sequence[Pair], regions: list[Region]) -> tuple[list[Region], list[Region]]:
    """Split by the marks of the pairs."""
    train, hold_out = (
        [r for p, r in zip(pairs, regions, strict=True) if (p.split == "val") == val] for val in (False, True)
    )
    return train, hold_out


def _without_validation(pairs: Sequence[Pair]) -> list[str]:
    if any(pair.split == "val" for pair in pairs):
        return []
    return ["No pair is marked val, so the model has no validation score."]


NO_HOLD_OUT = "There are too few labels for a hold-out, so the model has no validation score. Paint more."


def _whole_volumes(regions: list[Region], settings: TrainSettings) -> list[int]:
    """Choose volumes to hold out such that the others contain every class; none if impossible."""
    count = max(1, round(settings.hold_out * len(regions)))
    counts = np.stack([region.class_counts for region in regions])
    counts = counts[:, counts.any(axis=0)]
    rng = np.random.default_rng([settings.seed, 0x5B117])
    for _ in range(50):
        held_out = rng.permutation(len(regions))[:count]
        if (np.delete(counts, held_out, axis=0).sum(axis=0) >= LEAST_VOXELS).all() and counts[held_out].any():
            return sorted(int(i) for i in held_out)
    return []


def _boxes_of_model(regions: list[Region], settings: TrainSettings) -> list[Boxes | None]:
    """Give the boxes from the card of the model to start from, if its training images had these sizes."""
    if settings.start_from is None:
        return []
    boxes = [boxes_from_numbers(row) for row in read_card(settings.start_from).split]
    if len(boxes) != len(regions):
        return []
    for region, pair in zip(regions, boxes, strict=True):
        if pair is None or not _inside(pair, region):
            return []
        if not labelled_along(region.target[(..., *pair[0].slices)])[0].any():
            return []  # the training box has no labels
    return boxes


def _inside(boxes: Boxes, region: Region) -> bool:
    """Whether both boxes are inside a region."""
    return all(b <= n for box in boxes for b, n in zip(box.stop, region.image.shape, strict=True))


def _blocks(regions: list[Region], boxes: list[Boxes | None]) -> _Parts:
    """Hold out a block of each volume."""
    train, hold_out, notices = [], [], []
    for region, pair in zip(regions, boxes, strict=True):
        train.append(region.crop(pair[0]) if pair else region)
        if pair:
            hold_out.append(region.crop(pair[1]))
            edges = zip("zyx", pair[1].start, pair[1].stop, strict=True)
            where = ", ".join(f"{axis} {a} to {b}" for axis, a, b in edges if b - a > 1)
            notices.append(
                f"Held out of {region.image.name} to score the model: voxels {where}; {margin_of(pair)} voxels beside "
                "them are not used."
            )
    return _Parts(train, hold_out, notices or [NO_HOLD_OUT], boxes)
