"""From labelled volumes to training regions and hold-out.

Of an image no more is read than the look for NaN and for its intensities needs, which for a large one is a small part.
Labels are read part by part. Their target takes a byte for each voxel (where classes overlap, for each class of each
voxel), in memory or, where that would take a quarter of what is free, in a temporary file. A loss that asks for a map
(`data.targets.maps`) needs 4 bytes more for each voxel of it; the map that keeps touching objects apart is computed
from all labels at once, which takes about 30.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.conventions import WHITE
from napari_unetvnet.data.joint_constants import at_joint_constants
from napari_unetvnet.data.known import KnownImages, known_images
from napari_unetvnet.data.label_counts import label_counts
from napari_unetvnet.data.patches import Region, TrainingData
from napari_unetvnet.data.scored import scored_on
from napari_unetvnet.data.split import split_images
from napari_unetvnet.data.targets import (
    Classes,
    find_classes,
    is_black_and_white,
    label_margin,
    make_target,
    needed_maps,
)
from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.arrays import new_array, parts
from napari_unetvnet.images.pairs import Pair
from napari_unetvnet.images.refusals import check_pair
from napari_unetvnet.images.resample import at_spacing, grid_at, spacing_in
from napari_unetvnet.model.normalisation import measured_normalisation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.conventions import Triple
    from napari_unetvnet.data.targets import TargetMap
    from napari_unetvnet.settings import TrainSettings

__all__ = ["prepare_data", "resample_pairs", "undivided"]


AS_ONE = f"The labels hold 0 and {WHITE}, as a mask saved as a picture does; results have 1 where they have {WHITE}."


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


def prepare_data(
    pairs: Sequence[Pair], settings: TrainSettings, patch: Triple, known: KnownImages | None = None
) -> TrainingData:
    """Check the pairs, find the classes and choose the hold-out.

    Parameters
    ----------
    patch : tuple of 3 int
        Training patch z, y, x.
    known : KnownImages, optional
        What earlier models did with the images (default: from the card of the model to start from).

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
    known = known_images(settings.start_from) if known is None else known
    train, hold_out, notices = split_images(pairs, regions, classes, settings, patch, known)
    if settings.normalise == "dataset":
        train, hold_out, text = at_joint_constants(train, hold_out, known)
        notices = [*notices, text]
    scored = scored_on(hold_out, classes, classes.foreground[:1] if settings.label_values == "objects" else None)
    if scored is not None:
        notices = [*notices, f"The score stands on {scored}."]
    if is_black_and_white(classes.values, settings):
        notices = [*notices, AS_ONE]
    return TrainingData(train, hold_out, classes, settings, notices, scored, known.images)


def undivided(pairs: Sequence[Pair], data: TrainingData) -> TrainingData:
    """Prepare the same pairs again with nothing held out and no margins, those marked val included.

    Parameters
    ----------
    pairs : sequence of Pair
        Those of the data, at its voxel size.
    data : TrainingData
        Its classes and settings are kept.

    Returns
    -------
    TrainingData
    """
    regions = [_region(i, pair, data.classes, data.settings) for i, pair in enumerate(pairs)]
    return TrainingData(regions, [], data.classes, data.settings)


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
    maps = {name: _map(row, pair, target, settings) for name, row in needed_maps(settings).items()}
    mask = None if pair.mask is None else pair.mask.data
    scale = measured_normalisation(pair.image, settings, mask)
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


def _map(row: TargetMap, pair: Pair, target: NDArray[np.uint8], settings: TrainSettings) -> NDArray[np.float32]:
    """Compute a map of the whole image, part by part if a margin is enough to know around each."""
    labels, spacing = pair.labels.data, pair.image.spacing
    if row.margin is None:
        return row.compute(np.asarray(labels), target, settings, spacing)
    values = new_array(row.shape(pair.labels.shape), np.float32)
    for box, wide, inner in _widened(labels, row.margin):
        read = np.asarray(labels[(slice(None), *wide)])
        values[(..., *box)] = row.compute(read, target[(..., *wide)], settings, spacing)[(..., *inner)]
    return values


def _widened(labels: Any, margin: int) -> Iterator[tuple[Any, Any, Any]]:
    """Yield parts of labels, each also with its margin, and where it lies in that."""
    for box in parts(labels):
        sides = zip(box, labels.shape[-3:], strict=True)
        wide = tuple(slice(max(0, s.start - margin), min(n, s.stop + margin)) for s, n in sides)
        inner = tuple(slice(s.start - w.start, s.stop - w.start) for s, w in zip(box, wide, strict=True))
        yield box, wide, inner
