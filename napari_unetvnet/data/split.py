"""Divide the images into what is trained on and what scores the model.

In this order: as the user marked them; a fold; as for the model that the training starts from; otherwise whole images
if there are at least three, and blocks of the images that alone hold a class, or of all images if there are fewer.
Whatever the way, what an earlier model was trained on does not score.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from napari_unetvnet.data.boxes import intersection, numbers, shifted, volume_of
from napari_unetvnet.data.counts import class_counts
from napari_unetvnet.data.folds import divide
from napari_unetvnet.data.hold_out import choose_blocks, with_margins
from napari_unetvnet.data.scored import class_word
from napari_unetvnet.data.whole_images import choose_images
from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.identity import content_hash
from napari_unetvnet.images.volume import Box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_unetvnet.conventions import Triple
    from napari_unetvnet.data.known import KnownImages, Role
    from napari_unetvnet.data.patches import Region
    from napari_unetvnet.data.targets import Classes
    from napari_unetvnet.images.pairs import Pair
    from napari_unetvnet.settings import TrainSettings

__all__ = ["Split", "split_images"]


class Split(NamedTuple):
    """Training regions, hold-out, and notices for the user."""

    train: list[Region]
    hold_out: list[Region]
    notices: list[str]


class _Task(NamedTuple):
    """What the ways to divide have in common."""

    classes: Classes
    settings: TrainSettings
    patch: Triple
    known: KnownImages


NOT_DIVISIBLE = (
    "Each class is in one place only, so nothing can be held out and the model has no validation score. It is trained "
    "on all labels."
)
NOTHING_LEFT = "Nothing is left to score the model on; add an image that it was not trained on."
ONE_PLACE = "in one place only"
PART_ONLY = "a part goes on scoring, and the rest is trained on."
SHOWN_BLOCKS = 3
"""In a notice."""


def split_images(
    pairs: Sequence[Pair],
    regions: list[Region],
    classes: Classes,
    settings: TrainSettings,
    patch: Triple,
    known: KnownImages,
) -> Split:
    """Divide the images into training regions and hold-out.

    Parameters
    ----------
    pairs : sequence of Pair
    regions : list of Region
        One for each pair, whole.
    patch : tuple of 3 int
    known : KnownImages
        What earlier models did with the images.

    Returns
    -------
    Split

    Raises
    ------
    DataProblem
        If marks and folds are combined, a fold cannot be held out, or nothing is left to train on.
    """
    marked = any(pair.split for pair in pairs)
    if marked and settings.folds > 1:
        raise DataProblem("Pairs are marked train or val, so nothing is left to divide; leave out folds or the marks.")
    task = _Task(classes, settings, patch, known)
    if settings.folds > 1:
        split = Split(*divide(regions, classes, settings, patch))
    elif marked:
        split = _marked(pairs, regions, task)
    elif settings.hold_out == 0:
        split = Split(regions, [], ["Nothing is held out, so the model has no validation score."])
    elif (roles := _roles(regions, known)) and _all_held_out(regions, roles):
        split = _chosen(regions, task)
        names = ", ".join(dict.fromkeys(region.image.name for region in regions))
        split = split._replace(notices=[f"{known.model} was scored on all of {names}; {PART_ONLY}", *split.notices])
    elif roles:
        split = _as_before(regions, roles, task)
    else:
        split = _chosen(regions, task)
    if not any(region.class_counts.any() for region in split.train):
        raise DataProblem("All labels are held out, so nothing is left to train on; label more, or start a new model.")
    return _without_trained(split, regions, known)


def _marked(pairs: Sequence[Pair], regions: list[Region], task: _Task) -> Split:
    """Divide by the marks of the pairs."""
    train, hold_out = (
        [r for p, r in zip(pairs, regions, strict=True) if (p.split == "val") == val] for val in (False, True)
    )
    if not hold_out:
        return Split(train, [], ["No pair is marked val, so the model has no validation score."])
    return Split(train, hold_out, _one_sided(train, hold_out, task.classes, "not in the images marked val"))


def _chosen(regions: list[Region], task: _Task) -> Split:
    """Choose the hold-out."""
    held_out = _choice(regions, task)
    if not any(_foreground(regions[i].target, boxes, task.classes) for i, boxes in held_out.items()):
        return Split(regions, [], [NOT_DIVISIBLE])
    split = _divided(regions, held_out, task)
    return split._replace(notices=[*split.notices, *_one_sided(split.train, split.hold_out, task.classes, ONE_PLACE)])


def _choice(regions: Sequence[Region], task: _Task) -> dict[int, list[Box]]:
    """Choose what to hold out of which region: whole images, then blocks for the classes that these do not hold."""
    classes, settings = task.classes, task.settings
    counts = np.stack([region.class_counts[: len(classes)] for region in regions])
    whole: list[int] = []
    if len(regions) >= 3:
        contents = [content_hash(region.image) for region in regions]
        whole = choose_images(counts, settings.hold_out, settings.seed, [contents.index(each) for each in contents])
    held_out = {i: [Box((0, 0, 0), regions[i].image.shape)] for i in whole}
    missing = [k for k in classes.foreground if not counts[whole, k].any()] if whole else None
    for i, region in enumerate(regions):
        if i in held_out or (missing is not None and not counts[i, missing].any()):
            continue
        held_out[i] = choose_blocks(region.target, settings.hold_out, task.patch, region.image.spacing, missing)
    return held_out


def _divided(regions: Sequence[Region], held_out: dict[int, list[Box]], task: _Task) -> Split:
    """Hold out some boxes of each region, and say so."""
    split, whole = Split([], [], []), []
    for i, region in enumerate(regions):
        boxes = held_out.get(i, [])
        if not boxes:
            split.train.append(region)
        elif sum(map(volume_of, boxes)) == math.prod(region.image.shape):
            split.hold_out.append(region)
            whole.append(region.image.name)
        else:
            barred = with_margins(region.target, boxes, task.patch, region.image.spacing)
            split.hold_out.extend(region.block(box, _surroundings(box, task)) for box in boxes)
            split.train.append(region.without(barred))
            split.notices.append(_told(region, boxes, barred))
    if whole:
        split.notices.insert(0, f"Held out to score the model: {', '.join(whole)}.")
    return split


def _surroundings(box: Box, task: _Task) -> Triple:
    """Give how much of the image is read to score a block: what a network answers depends on what it sees around it."""
    z, y, x = (n if p == 1 else max(n + p, 2 * p) for n, p in zip(box.shape, task.patch, strict=True))
    return z + 2 * task.settings.planes_beside, y, x


def _told(region: Region, boxes: Sequence[Box], barred: Sequence[Box]) -> str:
    """Say where blocks lie."""
    axes = [i for i, n in enumerate(region.image.shape) if n > 1]
    places = [", ".join(f"{'zyx'[i]} {box.start[i]} to {box.stop[i]}" for i in axes) for box in boxes]
    more = f"; and {len(places) - SHOWN_BLOCKS} more blocks" if len(places) > SHOWN_BLOCKS else ""
    margin = max(
        abs(a - b)
        for box, wide in zip(boxes, barred, strict=True)
        for a, b in zip(numbers(box), numbers(wide), strict=True)
    )
    beside = f"; up to {margin} voxels beside them are not used" if margin else ""
    where = "; ".join(places[:SHOWN_BLOCKS])
    return f"Held out of {region.image.name} to score the model: voxels {where}{more}{beside}."


def _foreground(target: NDArray[np.uint8], boxes: Sequence[Box], classes: Classes) -> bool:
    return any(class_counts(target[(..., *box.slices)])[classes.foreground].any() for box in boxes)


def _one_sided(train: Sequence[Region], hold_out: Sequence[Region], classes: Classes, where: str) -> list[str]:
    """Name the classes that are on one side only; ``where`` says why a class is not in the hold-out."""
    if not hold_out:
        return []
    trained, scored = (
        np.sum([region.class_counts[: len(classes)] for region in side], axis=0) > 0 for side in (train, hold_out)
    )
    notices = []
    if names := [class_word(classes, k) for k in classes.foreground if trained[k] and not scored[k]]:
        notices.append(f"{_classes(names)} {where}, so {_it(names)} trained on and not scored.")
    if names := [class_word(classes, k) for k in classes.foreground if scored[k] and not trained[k]]:
        notices.append(f"{_classes(names)} only in the hold-out, so {_it(names)} not trained on.")
    return notices


def _classes(names: Sequence[str]) -> str:
    return f"Class {names[0]} is" if len(names) == 1 else f"Classes {', '.join(names)} are"


def _it(names: Sequence[str]) -> str:
    return "it is" if len(names) == 1 else "they are"


def _roles(regions: Sequence[Region], known: KnownImages) -> dict[int, Role]:
    """Give the roles of the images that an earlier model was trained on or scored on."""
    images = [region.image for region in regions]
    roles = [known.role(image) for image in images]
    if not known.images:
        roles = [known.role_at(images, i) for i in range(len(images))]
        roles = roles if all(roles) else []
    return {i: role for i, role in enumerate(roles) if role is not None}


def _all_held_out(regions: Sequence[Region], roles: dict[int, Role]) -> bool:
    """Whether keeping what was held out would leave nothing to train on."""
    whole = [sum(map(volume_of, role.held_out)) == math.prod(regions[i].image.shape) for i, role in roles.items()]
    return len(roles) == len(regions) and all(whole)


def _as_before(regions: list[Region], roles: dict[int, Role], task: _Task) -> Split:
    """Keep what was held out of known images, and choose for new ones."""
    new = [i for i in range(len(regions)) if i not in roles]
    held_out = {i: role.held_out for i, role in roles.items() if role.held_out}
    kept = list(held_out)
    if new:
        chosen = _choice([regions[i] for i in new], task)
        held_out |= {new[i]: boxes for i, boxes in chosen.items()}
    split = _divided(regions, held_out, task)
    notices = list(split.notices)
    if not split.hold_out:
        notices.append(f"{task.known.model} was trained on all of these images. {NOTHING_LEFT}")
    elif not task.known.resumed and kept:
        names = ", ".join(regions[i].image.name for i in kept)
        notices.insert(0, f"Held out as for {task.known.model}, whatever hold-out and seed say: {names}.")
    if kept and not any(region.class_counts[task.classes.foreground].any() for region in split.hold_out):
        notices.append(
            "What is held out holds no labels of a class now, so the model has no validation score; label there, or "
            "start a new model."
        )
    return split._replace(notices=[*notices, *_one_sided(split.train, split.hold_out, task.classes, "not held out")])


def _without_trained(split: Split, regions: Sequence[Region], known: KnownImages) -> Split:
    """Leave out of the hold-out what an earlier model was trained on."""
    if not known.model or not split.hold_out:
        return split
    notices, hold_out, names = list(split.notices), [], []
    for region in split.hold_out:
        role = known.role(regions[region.number].image)
        left = region if role is None else _never_trained(region, role)
        if left is not region:
            names.append(region.image.name)
        if left is region or left.class_counts.any():
            hold_out.append(left)
    if names:
        notices.append(f"{known.model} was trained on {', '.join(dict.fromkeys(names))}, so that does not score.")
    if not hold_out:
        notices.append(NOTHING_LEFT)
    if not known.images and not known.resumed:
        notices.append(
            f"The card of {known.model} does not say which images it was trained on. If these are among them, the "
            "score is too high."
        )
    return split._replace(hold_out=hold_out, notices=notices)


def _never_trained(region: Region, role: Role) -> Region:
    """Bar what was trained on; give the region itself if nothing in it was."""
    seen = [common for box in role.trained for free in region.boxes if (common := intersection(box, free))]
    if not seen:
        return region
    back = [-n for n in region.start]
    return replace(region, target=region.target.copy()).without([shifted(box, back) for box in seen])
