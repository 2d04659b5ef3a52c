"""Cross-validation: the labels are divided into equal folds, each of which is held out once.

With enough volumes a fold consists of whole volumes, drawn by the seed; otherwise it is a block of each volume, and
both sides of the block are trained on. Folds do not depend on patch, view or network, so that trainings that differ in
these are scored on the same voxels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from napari_unetvnet.data.counts import class_counts, labelled_along
from napari_unetvnet.data.hold_out import labels_needed, margins
from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.volume import Box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.conventions import Triple
    from napari_unetvnet.data.patches import Region
    from napari_unetvnet.data.targets import Classes
    from napari_unetvnet.settings import TrainSettings

__all__ = ["Fold", "divide"]


class Fold(NamedTuple):
    """Training regions and hold-out of one fold, and notices for the user."""

    train: list[Region]
    hold_out: list[Region]
    notices: list[str]


class _Block(NamedTuple):
    """A held-out block of a volume, the training boxes beside it, and the axis and margin between them."""

    train: list[Box]
    hold_out: Box
    axis: int
    margin: int


def divide(regions: Sequence[Region], classes: Classes, settings: TrainSettings, patch: Triple) -> Fold:
    """Hold out one of the folds.

    Parameters
    ----------
    regions : sequence of Region
        One for each image.
    settings : TrainSettings
        With ``folds`` above 1.
    patch : tuple of 3 int
        Width z, y, x of the margin beside a block.

    Returns
    -------
    Fold

    Raises
    ------
    DataProblem
        If a fold would be empty, or nothing is left to train on.
    """
    by_volume = len(regions) >= settings.folds
    fold = _volumes(regions, settings) if by_volume else _blocks(regions, settings, patch)
    if not _labelled(fold.train):
        raise DataProblem(f"{_called(settings)} leaves no labels to train on; paint more, or choose fewer folds.")
    return fold._replace(notices=[*fold.notices, *_absent(fold, classes, settings)])


def _called(settings: TrainSettings) -> str:
    return f"Fold {settings.fold} of {settings.folds}"


def _labelled(regions: Sequence[Region]) -> bool:
    return any(_has_labels(region.target) for region in regions)


def _volumes(regions: Sequence[Region], settings: TrainSettings) -> Fold:
    """Hold out each volume once, in an order drawn by the seed."""
    order = np.random.default_rng([settings.seed, 0xF01D]).permutation(len(regions))
    held_out = {int(i) for place, i in enumerate(order) if place % settings.folds == settings.fold}
    hold_out = [region for i, region in enumerate(regions) if i in held_out]
    train = [region for i, region in enumerate(regions) if i not in held_out]
    names = ", ".join(region.image.name for region in hold_out)
    return Fold(train, hold_out, [f"Held out to score the model ({_called(settings).lower()}): {names}."])


def _blocks(regions: Sequence[Region], settings: TrainSettings, patch: Triple) -> Fold:
    """Hold out a block of each volume."""
    fold = Fold([], [], [])
    for region in regions:
        block = _block(region, settings, patch)
        fold.train.extend(region.crop(box) for box in block.train)
        fold.hold_out.append(region.crop(block.hold_out))
        axis = block.axis
        fold.notices.append(
            f"Held out of {region.image.name} to score the model ({_called(settings).lower()}): voxels {'zyx'[axis]} "
            f"{block.hold_out.start[axis]} to {block.hold_out.stop[axis]}; {block.margin} voxels "
            "beside them are not used."
        )
    return fold


def _block(region: Region, settings: TrainSettings, patch: Triple) -> _Block:
    """Divide the labelled part of a volume along its longest axis and take one piece."""
    axis, first, stop = _longest(region.target)
    if stop - first < settings.folds:
        name = region.image.name
        raise DataProblem(
            f"The labels of {name} are {stop - first} voxels long, too short for {settings.folds} folds; choose fewer."
        )
    edges = np.linspace(first, stop, settings.folds + 1).round().astype(int)
    start, end = (int(edge) for edge in edges[settings.fold : settings.fold + 2])
    hold_out = _piece(region.target, axis, start, end)
    train, margin = _beside(region, axis, (start, end), patch)
    return _Block(train, hold_out, axis, margin)


def _has_labels(target: NDArray[np.uint8]) -> bool:
    return bool(labelled_along(target)[0].any())


def _longest(target: NDArray[np.uint8]) -> tuple[int, int, int]:
    """Give the axis of the largest extent of labelled voxels, with its start and stop."""
    reach = []
    for axis, along in enumerate(labelled_along(target)):
        places = np.flatnonzero(along)
        reach.append((axis, int(places[0]), int(places[-1]) + 1) if len(places) else (axis, 0, 0))
    return max(reach, key=lambda item: item[2] - item[1])


def _beside(region: Region, axis: int, block: tuple[int, int], patch: Triple) -> tuple[list[Box], int]:
    """Give the labelled boxes on both sides of a block, and the widest margin that leaves enough labels."""
    target, spacing = region.target, region.image.spacing
    required = labels_needed(_counts(target, _sides(target, axis, block, 0)))
    for margin in margins(axis, patch, spacing):
        sides = _sides(target, axis, block, margin)
        if sides and (_counts(target, sides) >= required).all():
            return sides, margin
    return _sides(target, axis, block, 0), 0


def _sides(target: NDArray[np.uint8], axis: int, block: tuple[int, int], margin: int) -> list[Box]:
    """Give the boxes before and after a block that have labels."""
    ends = ((0, block[0] - margin), (block[1] + margin, target.shape[axis - 3]))
    boxes = [_piece(target, axis, start, stop) for start, stop in ends if start < stop]
    return [box for box in boxes if _has_labels(target[(..., *box.slices)])]


def _counts(target: NDArray[np.uint8], boxes: Sequence[Box]) -> NDArray[np.int64]:
    return sum((class_counts(target[(..., *box.slices)]) for box in boxes), np.zeros_like(class_counts(target)))


def _piece(target: NDArray[np.uint8], axis: int, start: int, stop: int) -> Box:
    """Give the box from ``start`` to ``stop`` along one axis, over the full length of the others."""
    z, y, x = ((start, stop) if i == axis else (0, n) for i, n in enumerate(target.shape[-3:]))
    return Box((z[0], y[0], x[0]), (z[1], y[1], x[1]))


def _absent(fold: Fold, classes: Classes, settings: TrainSettings) -> list[str]:
    """Report classes that are on one side only."""
    sides = {"train on": fold.train, "validate on": fold.hold_out}
    counts = {side: _total(regions, len(classes)) for side, regions in sides.items()}
    present = np.sum(list(counts.values()), axis=0) > 0
    notices = []
    for side, count in counts.items():
        if missing := [str(classes.output_values[k]) for k in np.flatnonzero(present & (count == 0))]:
            notices.append(f"{_called(settings)} has no labels of class {', '.join(missing)} to {side}.")
    return notices


def _total(regions: Sequence[Region], classes: int) -> NDArray[np.int64]:
    """Count the voxels of each class in all regions."""
    return sum((region.class_counts[:classes] for region in regions), np.zeros(classes, np.int64))
