"""Kinds of label values: integers or fractions, classes, object ids, or the greys of a soft mask."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.data.checks.findings import Finding, name_list
from napari_unetvnet.data.checks.frequency import value_counts
from napari_unetvnet.data.targets import MANY_VALUES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_unetvnet.data.checks.facts import LabelFacts, PairFacts
    from napari_unetvnet.settings import TrainSettings

__all__ = ["check_ids", "check_soft", "check_types", "has_many", "looks_soft"]

GREYS = 5
GREY_SHARE = 0.3
ISOLATED = 0.4
FEW_IDS = 6
PIECES = 1.25


def looks_soft(labels: LabelFacts) -> bool:
    """Whether labels look like a soft mask: many rare, scattered values between two frequent ones."""
    if labels.channels > 1:
        return False
    ranked = labels.counts[0].most_common()
    others = ranked[2:]
    grey = sum(n for _, n in others)
    scattered = labels.thumbnail.isolated > ISOLATED and labels.thumbnail.pieces > 2
    return len(others) >= GREYS and grey < GREY_SHARE * labels.total and scattered


def has_many(pairs: Sequence[PairFacts], settings: TrainSettings) -> bool:
    """Whether there are more values than training accepts as classes."""
    if settings.label_values != "classes" or settings.classes or settings.regions:
        return False
    return len({value for pair in pairs for value in value_counts(pair.labels, settings)}) > MANY_VALUES


def check_types(pair: PairFacts, settings: TrainSettings) -> Iterator[Finding]:
    """Find labels that are fractions, integers of type float, or negative."""
    labels = pair.labels
    if labels.fraction is not None:
        yield Finding(
            "error",
            "fractions",
            labels.name,
            f"The labels are {labels.dtype} and hold {labels.fraction:g}.",
            "Labels must be integers; a soft mask is not.",
            "Threshold it, for example at 0.5, and save integers.",
        )
    elif labels.dtype.startswith("float"):
        yield Finding(
            "error",
            "float-labels",
            labels.name,
            f"The labels are {labels.dtype}, although all are integers.",
            "Training accepts only integers.",
            "Save them as integers, such as uint8 (numpy: labels.astype('uint8')).",
        )
    if negative := [value for count in labels.counts for value in sorted(count) if value < 0]:
        yield Finding(
            "error",
            "negative",
            labels.name,
            f"The labels hold negative values: {name_list(list(map(str, negative)))}.",
            "Classes and objects are numbered from 1.",
            "If they mark ignored voxels, write 255 there and give --ignore-value 255.",
        )


def check_soft(pair: PairFacts, settings: TrainSettings) -> Iterator[Finding]:
    """Find soft and anti-aliased masks, and masks that went through JPEG."""
    labels = pair.labels
    if settings.label_values == "overlapping" or not looks_soft(labels):
        return
    (value_a, voxels_a), (value_b, voxels_b) = labels.counts[0].most_common(2)
    low, high = sorted((value_a, value_b))
    values = len(labels.counts[0])
    yield Finding(
        "error" if values > MANY_VALUES and settings.label_values == "classes" else "warning",
        "soft-mask",
        labels.name,
        f"{(voxels_a + voxels_b) / labels.total:.1%} of the voxels are {low} or {high}; "
        f"{values - 2} other values are scattered between them.",
        "It looks like a mask that was smoothed, resized or saved as JPEG: each grey would be a separate class.",
        f"Threshold it (for example above {(low + high) // 2}) and save 0 and 1, in PNG or TIFF.",
    )


def check_ids(pairs: Sequence[PairFacts], settings: TrainSettings) -> Iterator[Finding]:
    """Find object ids that would be taken for classes."""
    if settings.label_values != "classes" or settings.classes or settings.regions or settings.lines:
        return
    sets = [frozenset(value_counts(pair.labels, settings)) - {0} for pair in pairs]
    if has_many(pairs, settings):
        return  # refused, with the same advice
    for pair, values in zip(pairs, sets, strict=True):
        elsewhere = sum(values == ids for ids in sets) > max(1, len(sets) // 2)
        if len(values) < FEW_IDS or elsewhere or looks_soft(pair.labels) or not _like_ids(values):
            continue
        if 0 < pair.labels.thumbnail.pieces < PIECES:
            yield Finding(
                "warning", "object-ids", pair.labels.name,
                f"The labels have {len(values)} values, and nearly each is one connected component per plane.",
                "They look like object ids; as classes, each object would be a separate class.",
                "If they are, give --label-values objects.",
            )  # fmt: skip


def _like_ids(values: frozenset[int]) -> bool:
    """Whether values are nearly consecutive, or too large for class indices."""
    return len(values) >= 0.5 * max(values) or max(values) > IGNORE
