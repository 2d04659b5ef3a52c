"""What label values are: whole numbers or not, classes, ids of objects, or the greys of a soft mask."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.data.checks.findings import Finding, named
from napari_unetvnet.data.checks.frequency import known_values
from napari_unetvnet.data.targets import MANY_VALUES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_unetvnet.data.checks.facts import LabelFacts, PairFacts
    from napari_unetvnet.settings import TrainSettings

__all__ = ["check_ids", "check_soft", "check_types", "has_many", "looks_soft"]

GREYS = 5
GREY_SHARE = 0.3
LONE = 0.4
FEW_IDS = 6
PIECES = 1.25


def looks_soft(labels: LabelFacts) -> bool:
    """Whether labels seem to be a mask with grey borders: many rare values that lie scattered between two frequent.

    Parameters
    ----------
    labels : LabelFacts

    Returns
    -------
    bool
    """
    if labels.channels > 1:
        return False
    ranked = labels.counts[0].most_common()
    rest = ranked[2:]
    grey = sum(n for _, n in rest)
    scattered = labels.picture.lone > LONE and labels.picture.pieces > 2
    return len(rest) >= GREYS and grey < GREY_SHARE * labels.total and scattered


def has_many(pairs: Sequence[PairFacts], settings: TrainSettings) -> bool:
    """Whether there are more values than training takes for classes.

    Parameters
    ----------
    pairs : sequence of PairFacts
    settings : TrainSettings

    Returns
    -------
    bool
    """
    if settings.label_values != "classes" or settings.classes or settings.regions:
        return False
    return len({value for pair in pairs for value in known_values(pair.labels, settings)}) > MANY_VALUES


def check_types(pair: PairFacts, settings: TrainSettings) -> Iterator[Finding]:
    """Find labels that are fractions, whole numbers in a type of fractions, or negative."""
    labels = pair.labels
    if labels.fraction is not None:
        yield Finding(
            "error",
            "fractions",
            labels.name,
            f"The labels are {labels.dtype} and hold {labels.fraction:g}.",
            "A label is a whole number; a soft mask has none.",
            "Threshold it, for example at 0.5, and save whole numbers.",
        )
    elif labels.dtype.startswith("float"):
        yield Finding(
            "error",
            "float-labels",
            labels.name,
            f"The labels are {labels.dtype}, although all are whole numbers.",
            "Training takes integers only.",
            "Save them as integers, such as uint8 (numpy: labels.astype('uint8')).",
        )
    if negative := [value for count in labels.counts for value in sorted(count) if value < 0]:
        yield Finding(
            "error",
            "negative",
            labels.name,
            f"The labels hold negative values: {named(list(map(str, negative)))}.",
            "Classes and objects are numbered from 1.",
            "If they mark what is not known, write 255 there and give --ignore-value 255.",
        )


def check_soft(pair: PairFacts, settings: TrainSettings) -> Iterator[Finding]:
    """Find soft and anti-aliased masks, and masks that went through JPEG."""
    labels = pair.labels
    if settings.label_values == "overlapping" or not looks_soft(labels):
        return
    (first, a), (second, b) = labels.counts[0].most_common(2)
    values = len(labels.counts[0])
    yield Finding(
        "error" if values > MANY_VALUES and settings.label_values == "classes" else "warning",
        "soft-mask",
        labels.name,
        f"{(a + b) / labels.total:.1%} of the voxels are {min(first, second)} or {max(first, second)}; "
        f"{values - 2} other values lie scattered between.",
        "It looks like a mask that was smoothed, resized or saved as JPEG: each grey would be a class of its own.",
        f"Threshold it (for example above {(first + second) // 2}) and save 0 and 1, in PNG or TIFF.",
    )


def check_ids(pairs: Sequence[PairFacts], settings: TrainSettings) -> Iterator[Finding]:
    """Find ids of single objects that would be taken for classes."""
    if settings.label_values != "classes" or settings.classes or settings.regions or settings.lines:
        return
    sets = [frozenset(known_values(pair.labels, settings)) - {0} for pair in pairs]
    if has_many(pairs, settings):
        return  # refused, with the same advice
    for pair, values in zip(pairs, sets, strict=True):
        elsewhere = sum(values == other for other in sets) > max(1, len(sets) // 2)
        if len(values) < FEW_IDS or elsewhere or looks_soft(pair.labels) or not _like_ids(values):
            continue
        if 0 < pair.labels.picture.pieces < PIECES:
            yield Finding(
                "warning", "object-ids", pair.labels.name,
                f"The labels hold {len(values)} values, and nearly each lies in one piece on a plane.",
                "They look like ids of single objects; as classes, each object would be learnt as another kind.",
                "If they are ids, give --label-values objects.",
            )  # fmt: skip


def _like_ids(values: frozenset[int]) -> bool:
    """Whether values are counted up, or are too large for class numbers."""
    return len(values) >= 0.5 * max(values) or max(values) > IGNORE
