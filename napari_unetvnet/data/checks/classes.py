"""Classes that have too few labels, have them in the wrong images, or have none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unetvnet.data.checks.findings import Finding, name_list
from napari_unetvnet.data.checks.frequency import class_voxels, labelled_count
from napari_unetvnet.data.checks.kinds import has_many, looks_soft
from napari_unetvnet.data.checks.strays import suspects
from napari_unetvnet.data.meaning import lone_planes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_unetvnet.data.checks.facts import PairFacts
    from napari_unetvnet.settings import TrainSettings

__all__ = ["check_empty", "check_hidden", "check_lonely", "check_split", "check_tiny", "check_unpainted"]

TINY_VOXELS = 50


def check_empty(pairs: Sequence[PairFacts], settings: TrainSettings) -> Iterator[Finding]:
    """Find labels in which nothing is painted."""
    empty = [pair.labels for pair in pairs if pair.labels.total and not pair.labels.painted]
    refused = settings.unlabelled == "ignore" or len(empty) == len(pairs)
    for labels in empty:
        yield Finding(
            "error" if refused else "advice", "empty-labels", labels.name, "The labels hold nothing but 0.",
            "" if refused else "That is correct if the image contains only background, and the network learns from it.",
            "Paint some labels, or leave the pair out.",
        )  # fmt: skip


def check_hidden(pair: PairFacts, settings: TrainSettings) -> Iterator[Finding]:
    """Find masks that hide all labels."""
    if pair.mask is None:
        return
    if not pair.labels.total or not labelled_count(pair.labels, settings):
        problem = "The mask hides every labelled voxel."
    elif not pair.labels.painted and any(pair.labels.painted_planes):
        problem = "The mask hides everything that is painted."
    else:
        return
    yield Finding(
        "warning", "mask-hides", pair.mask.name, problem, "Nothing can be learnt from the pair.",
        "Voxels are ignored where the mask is 0; if it has the opposite meaning, invert it.",
    )  # fmt: skip


def check_tiny(pairs: Sequence[PairFacts], settings: TrainSettings) -> Iterator[Finding]:
    """Find classes with too few voxels to learn from."""
    if any(looks_soft(pair.labels) for pair in pairs) or has_many(pairs, settings):
        return
    images = [class_voxels(pair.labels, settings) for pair in pairs]
    odd = {str(value) for value in suspects(pairs, settings)}
    for name in dict.fromkeys(name for counts in images for name in counts if name not in odd):
        voxels = sum(counts.get(name, 0) for counts in images)
        if 0 < voxels < TINY_VOXELS:
            yield Finding(
                "warning", "tiny-class", "", f"Class {name} has only {voxels} voxels.",
                "That is too few to learn it, and to hold some of them out.",
                "Paint more of it, or leave it out.",
            )  # fmt: skip


def check_lonely(pairs: Sequence[PairFacts], settings: TrainSettings) -> Iterator[Finding]:
    """Find classes that only one of three or more images has."""
    if len(pairs) < 3 or any(looks_soft(pair.labels) for pair in pairs) or has_many(pairs, settings):
        return
    odd = {str(value) for value in suspects(pairs, settings)}
    images = [class_voxels(pair.labels, settings) for pair in pairs]
    for name in dict.fromkeys(name for counts in images for name in counts if name not in odd):
        holders = [pair.labels.name for pair, counts in zip(pairs, images, strict=True) if counts.get(name)]
        voxels = sum(counts.get(name, 0) for counts in images)
        if len(holders) == 1 and voxels >= TINY_VOXELS:
            yield Finding(
                "advice", "in-one-image", holders[0], f"Class {name} is in this one of {len(pairs)} images only.",
                "Holding out whole images could remove it from training, so a block of each image is held out.",
                "Paint it in other images, too, if they show it.",
            )  # fmt: skip


def check_split(pairs: Sequence[PairFacts], settings: TrainSettings) -> Iterator[Finding]:
    """Find classes that are missing in the images for training or in those for validation."""
    parts = {part: [pair for pair in pairs if (pair.split == "val") == (part == "val")] for part in ("train", "val")}
    if not all(parts.values()):
        return
    present = {
        part: {name for pair in those for name, n in class_voxels(pair.labels, settings).items() if n}
        for part, those in parts.items()
    }
    if missing := sorted(present["val"] - present["train"]):
        yield Finding(
            "error" if settings.label_values == "classes" and not settings.regions else "warning",
            "not-in-training", "", f"Class {name_list(missing)} is painted in images for validation only.",
            "It cannot be learnt.", "Mark an image that shows it as train.",
        )  # fmt: skip
    if missing := sorted(present["train"] - present["val"]):
        yield Finding(
            "warning", "not-in-validation", "", f"Class {name_list(missing)} is painted in no image for validation.",
            "It will have no validation score.", "Mark an image that shows it as val.",
        )  # fmt: skip


def check_unpainted(pair: PairFacts, settings: TrainSettings) -> Iterator[Finding]:
    """Find single planes that were painted as examples, while 0 would be learnt as background."""
    labels = pair.labels
    if settings.unlabelled == "ignore" or not labels.painted or settings.label_values == "objects":
        return
    if planes := lone_planes(labels.painted_planes):
        problem = f"Only {len(planes)} of {len(labels.painted_planes)} planes are painted, with empty planes between."
        if len(planes) == 1:
            problem = f"Only plane {planes[0]} of {len(labels.painted_planes)} planes is painted."
        yield Finding(
            "warning", "unpainted", labels.name, problem, "All voxels with 0 would be learnt as background.",
            "If they are just not painted yet, paint some background as a class, too, and give --unlabelled ignore.",
        )  # fmt: skip
