"""Label values that may mean something else than they seem to: gaps, grey codes, a 255."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.data.checks.findings import Finding, named
from napari_unetvnet.data.checks.frequency import known_values
from napari_unetvnet.data.checks.kinds import looks_soft
from napari_unetvnet.data.checks.strays import suspects
from napari_unetvnet.data.targets import MANY_VALUES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_unetvnet.data.checks.facts import PairFacts
    from napari_unetvnet.settings import TrainSettings

__all__ = ["check_codes", "check_gaps"]

SMALL_CODES = 64


def check_gaps(pairs: Sequence[PairFacts], settings: TrainSettings) -> Iterator[Finding]:
    """Tell which values the classes have where they are not counted up from 0 or 1."""
    values = _class_values(pairs, settings)
    if not values or values[-1] <= len(values) or any(looks_soft(pair.labels) for pair in pairs):
        return
    if len(values) == 1:
        why = f"{values[0]} is then a class and not 'unknown', and the model writes {values[0]} as well."
    else:
        why = "That is allowed: the model writes the same values again."
    yield Finding(
        "advice", "gaps", "", f"The values of the classes are not counted up: {named(list(map(str, values)), 12)}.", why
    )


def check_codes(pairs: Sequence[PairFacts], settings: TrainSettings) -> Iterator[Finding]:
    """Find grey codes of one class that differ by little, and a 255 that may mean unknown."""
    values = _class_values(pairs, settings)
    if len(values) < 2 or any(looks_soft(pair.labels) for pair in pairs):
        return
    if values[-1] == IGNORE and values[-2] < SMALL_CODES and settings.ignore_value is None:
        yield Finding(
            "warning", "value-255", "", f"The labels hold {named(list(map(str, values)), 12)}.",
            "Beside small numbers, 255 usually marks ignored voxels; here it would be a class.",
            "If it does, give --ignore-value 255.",
        )  # fmt: skip
    groups = _groups(values)
    close = [group for group in groups if len(group) > 1]
    if len(groups) > 1 and close and values[-1] >= SMALL_CODES and len(values) <= SMALL_CODES:
        pairs_told = named(["/".join(map(str, group)) for group in close])
        words = " ".join(f"{chr(97 + i)}={'+'.join(map(str, group))}" for i, group in enumerate(groups))
        yield Finding(
            "warning", "near-codes", "", f"Among the values {named(list(map(str, values)), 12)}, {pairs_told} are next "
            "to each other.",
            "They look like one grey for the same class; now they are classes of their own.",
            f"Write them as one value, or join them: --regions {words}.",
        )  # fmt: skip


def _class_values(pairs: Sequence[PairFacts], settings: TrainSettings) -> list[int]:
    """Give the values above 0 of all images, where values are classes that the user did not name."""
    if settings.label_values != "classes" or settings.classes or settings.regions:
        return []
    every = {value for pair in pairs for value in known_values(pair.labels, settings)}
    values = sorted(every - {0} - suspects(pairs, settings))
    return [] if len(values) > MANY_VALUES or values[:1] < [0] else values


def _groups(values: Sequence[int]) -> list[list[int]]:
    """Put values together that are at most 2 apart, if the groups lie far from each other."""
    groups = [[values[0]]]
    for value in values[1:]:
        if value - groups[-1][-1] <= 2:
            groups[-1].append(value)
        else:
            groups.append([value])
    far = all(b[0] - a[-1] >= 20 for a, b in itertools.pairwise(groups))
    return groups if far and groups[0][0] >= 20 else []
