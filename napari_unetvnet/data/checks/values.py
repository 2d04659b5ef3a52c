"""Label values that may be misunderstood: gaps, grey codes, 255."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.data.checks.findings import Finding, name_list
from napari_unetvnet.data.checks.frequency import value_counts
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
    """Report the values of the classes where they are not consecutive from 0 or 1."""
    values = _class_values(pairs, settings)
    if not values or values[-1] <= len(values) or any(looks_soft(pair.labels) for pair in pairs):
        return
    if len(values) == 1:
        why = f"{values[0]} is a class and not ignored, and the model writes {values[0]}, too."
    else:
        why = "That is allowed: the model writes the same values."
    yield Finding(
        "advice",
        "gaps",
        "",
        f"The values of the classes are not consecutive: {name_list(list(map(str, values)), 12)}.",
        why,
    )


def check_codes(pairs: Sequence[PairFacts], settings: TrainSettings) -> Iterator[Finding]:
    """Find grey codes of one class that differ slightly, and a 255 that may mark ignored voxels."""
    values = _class_values(pairs, settings)
    if len(values) < 2 or any(looks_soft(pair.labels) for pair in pairs):
        return
    if values[-1] == IGNORE and values[-2] < SMALL_CODES and settings.ignore_value is None:
        yield Finding(
            "warning", "value-255", "", f"The labels hold {name_list(list(map(str, values)), 12)}.",
            "Together with small values, 255 usually marks ignored voxels; here it would be a class.",
            "If it does, give --ignore-value 255.",
        )  # fmt: skip
    groups = _groups(values)
    close = [group for group in groups if len(group) > 1]
    if len(groups) > 1 and close and values[-1] >= SMALL_CODES and len(values) <= SMALL_CODES:
        codes = name_list(["/".join(map(str, group)) for group in close])
        words = " ".join(f"{chr(97 + i)}={'+'.join(map(str, group))}" for i, group in enumerate(groups))
        yield Finding(
            "warning", "near-codes", "",
            f"Among the values {name_list(list(map(str, values)), 12)}, {codes} are close to each other.",
            "They look like greys of the same class; now each is a separate class.",
            f"Write them as one value, or join them: --regions {words}.",
        )  # fmt: skip


def _class_values(pairs: Sequence[PairFacts], settings: TrainSettings) -> list[int]:
    """Give the values above 0 of all images, if values are classes that the settings do not list."""
    if settings.label_values != "classes" or settings.classes or settings.regions:
        return []
    present = {value for pair in pairs for value in value_counts(pair.labels, settings)}
    values = sorted(present - {0} - suspects(pairs, settings))
    return [] if len(values) > MANY_VALUES or values[:1] < [0] else values


def _groups(values: Sequence[int]) -> list[list[int]]:
    """Group values that differ by at most 2, if the groups are far apart."""
    groups = [[values[0]]]
    for value in values[1:]:
        if value - groups[-1][-1] <= 2:
            groups[-1].append(value)
        else:
            groups.append([value])
    far = all(b[0] - a[-1] >= 20 for a, b in itertools.pairwise(groups))
    return groups if far and groups[0][0] >= 20 else []
