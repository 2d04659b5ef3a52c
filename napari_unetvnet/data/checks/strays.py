"""Label values that are probably not classes: slips of the brush, noise, traces along borders."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from napari_unetvnet.data.checks.findings import Finding, name_list
from napari_unetvnet.data.checks.frequency import value_counts
from napari_unetvnet.data.checks.kinds import looks_soft

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_unetvnet.data.checks.facts import PairFacts
    from napari_unetvnet.settings import TrainSettings

__all__ = ["check_edge_values", "check_strays", "edge_values", "stray_values", "suspects"]

STRAY_SHARE = 1e-4
STRAY_VOXELS = 20
EDGE_SHARE = 5e-3
EDGE_ONLY = 0.98
EDGE_VOXELS = 20


def stray_values(pairs: Sequence[PairFacts], settings: TrainSettings) -> dict[str, dict[int, int]]:
    """Find values with few voxels that only one image has.

    Returns
    -------
    dict of str to dict of int to int
        Name of the labels to voxels of each value.
    """
    if settings.label_values != "classes" or settings.classes or settings.regions:
        return {}
    counts = [value_counts(pair.labels, settings) for pair in pairs]
    holders = Counter(value for values in counts for value in values)
    by_name = {}
    for pair, values in zip(pairs, counts, strict=True):
        limit = STRAY_SHARE * sum(values.values())
        limit = limit if len(pairs) > 1 else min(limit, STRAY_VOXELS)
        strays = {value: n for value, n in values.items() if value and n <= limit and holders[value] == 1}
        if strays and not looks_soft(pair.labels):
            by_name[pair.labels.name] = strays
    return by_name


def edge_values(pairs: Sequence[PairFacts], settings: TrainSettings) -> list[int]:
    """Find values in traces one voxel wide, if there are two or more."""
    if settings.label_values != "classes" or settings.classes or settings.regions or settings.lines:
        return []
    total: Counter[int] = Counter()
    for pair in pairs:
        total.update(value_counts(pair.labels, settings))
    thin: dict[int, list[float]] = {}
    for pair in pairs:
        for value, share in pair.labels.thumbnail.thin.items():
            thin.setdefault(value, []).append(share)
    rare = [value for value, shares in thin.items() if total[value] < EDGE_SHARE * total.total()]
    traces = [value for value in rare if min(thin[value]) > EDGE_ONLY and total[value] >= EDGE_VOXELS]
    return sorted(traces) if len(traces) > 1 else []


def suspects(pairs: Sequence[PairFacts], settings: TrainSettings) -> set[int]:
    """Give the values that are probably not classes."""
    strays = stray_values(pairs, settings).values()
    return {value for values in strays for value in values} | set(edge_values(pairs, settings))


def check_strays(pairs: Sequence[PairFacts], settings: TrainSettings) -> Iterator[Finding]:
    """Find slips of the brush, or noise."""
    by_name = stray_values(pairs, settings)
    for name, strays in by_name.items():
        plural = len(strays) > 1
        values = name_list([f"{value} ({n} voxel{'s' * (n > 1)})" for value, n in strays.items()], 5)
        ignore = f", or leave it out: --ignore-value {next(iter(strays))}" if not plural and len(by_name) == 1 else ""
        yield Finding(
            "warning", "stray-values", name,
            f"There are very few voxels of the value{'s' * plural} {values}"
            + (", and none in other images." if len(pairs) > 1 else "."),
            f"{'Each' if plural else 'It'} would be a separate class.",
            f"If {'they are slips' if plural else 'it is a slip'}, paint over {'them' if plural else 'it'}"
            f"{ignore * (settings.ignore_value is None)}.",
        )  # fmt: skip


def check_edge_values(pairs: Sequence[PairFacts], settings: TrainSettings) -> Iterator[Finding]:
    """Find values that only trace the borders of others."""
    values = edge_values(pairs, settings)
    if values and not any(looks_soft(pair.labels) for pair in pairs):
        yield Finding(
            "warning", "edge-values", "",
            f"The values {name_list(list(map(str, values)), 8)} are hardly wider than one voxel.",
            "They look like traces of resizing or of colours; each would be a separate class.",
            "Replace them by the nearest other value. If they are lines, give --lines.",
        )  # fmt: skip
