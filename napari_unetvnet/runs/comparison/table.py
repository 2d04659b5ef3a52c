"""Rank runs, average them over folds, and format them as text or as JSON."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_unetvnet.runs.comparison.runs import Point, Row

__all__ = ["Configuration", "Table", "as_text", "tabulate"]

COLUMNS = 16
BLOCKS, PLAIN = "▁▂▃▄▅▆▇█", "_.:-=+*#"


@dataclass(frozen=True)
class Configuration:
    """One configuration over its folds, with the mean and the spread (standard deviation) of Dice."""

    name: str
    done: int
    folds: int
    mean: float | None
    spread: float | None


@dataclass(frozen=True)
class Table:
    """Runs and configurations from the best to the worst, with remarks on their comparability.

    Runs are comparable if they were scored on the same voxels.
    """

    rows: tuple[Row, ...]
    configurations: tuple[Configuration, ...]
    remarks: tuple[str, ...]
    comparable: bool = True

    def ranked(self) -> list[tuple[int | None, Row]]:
        """Return the runs with their rank, which is None without a comparable score.

        Returns
        -------
        list of (int or None, Row)
        """
        return [
            (rank if self.comparable and row.dice is not None else None, row) for rank, row in enumerate(self.rows, 1)
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return the whole table, with the full curves, as values that JSON can hold."""
        runs = [{"rank": rank, **asdict(row), "seconds_per_step": row.seconds_per_step} for rank, row in self.ranked()]
        configurations = list(map(asdict, self.configurations))
        comparability = {"comparable": self.comparable, "remarks": list(self.remarks)}
        return {"runs": runs, "configurations": configurations, **comparability}


def tabulate(rows: Sequence[Row]) -> Table:
    """Rank runs."""
    ranked = sorted(_only_differing(rows), key=lambda row: (row.dice is None, -(row.dice or 0.0), row.minutes))
    same = _same_hold_out(ranked)
    return Table(tuple(ranked), _configurations(ranked), tuple(_remarks(ranked, same)), same)


def _only_differing(rows: Sequence[Row]) -> list[Row]:
    """Reduce ``other`` to the settings in which the runs differ."""
    names = list(dict.fromkeys(name for row in rows for name in row.other))
    readable = [row for row in rows if row.other]
    differing = [name for name in names if any(row.other.get(name) != readable[0].other.get(name) for row in readable)]
    return [replace(row, other={name: row.other.get(name) for name in differing if row.other}) for row in rows]


def _configurations(rows: Sequence[Row]) -> tuple[Configuration, ...]:
    """Average each configuration over its folds, the best first."""
    groups: dict[tuple[str, int], list[Row]] = defaultdict(list)
    for row in rows:
        if row.folds > 1:
            groups[row.configuration, row.folds].append(row)
    configurations = []
    for (name, folds), group in groups.items():
        scores = [row.dice for row in group if row.dice is not None]
        spread = stdev(scores) if len(scores) > 1 else None
        configurations.append(Configuration(name, len(scores), folds, mean(scores) if scores else None, spread))
    return tuple(sorted(configurations, key=lambda item: (item.mean is None, -(item.mean or 0.0))))


def _same_hold_out(rows: Sequence[Row]) -> bool:
    """Whether runs were scored on the same voxels; with folds, on the same voxels for the same fold."""
    groups: dict[tuple[int, int], set[str]] = defaultdict(set)
    for row in rows:
        if row.dice is not None:
            groups[row.folds, row.fold].add(row.scored_on)
    return all(len(group) == 1 for group in groups.values()) and len({folds for folds, _ in groups}) <= 1


def _remarks(rows: Sequence[Row], same: bool) -> list[str]:
    """Explain what limits the ranking."""
    remarks = []
    if not same:
        remarks.append(
            "These runs were not all scored on the same hold-out and cannot be ranked: images, labels or the voxels "
            "held out differ. Train with the same inputs, seed, hold-out and patch, or with folds."
        )
    if unscored := len([row for row in rows if row.dice is None]):
        remarks.append(f"{unscored} of {len(rows)} runs have no validation score.")
    if any(group.done < group.folds for group in _configurations(rows)):
        remarks.append("Some folds are missing; means over different folds cannot be compared.")
    return remarks


def as_text(table: Table, *, as_json: bool = False, plain: bool = False) -> str:
    """Format a table as text.

    Parameters
    ----------
    as_json : bool
        As JSON, with the full curves.
    plain : bool
        Whether to draw curves with ASCII characters only.

    Returns
    -------
    str
        Without a line break at the end.
    """
    if as_json:
        return json.dumps(table.as_dict(), indent=2, allow_nan=False)
    parts = [_aligned(_cells(table, PLAIN if plain else BLOCKS))]
    names_by_line: dict[str, list[str]] = defaultdict(list)
    for name, line in ((row.name, line) for row in table.rows for line in row.lines):
        names_by_line[line].append(name)
    parts += [f"{', '.join(names)}: {line}" for line, names in names_by_line.items()]
    if table.configurations:
        parts.append(
            _aligned([["Dice over folds", "spread", "folds", "configuration"], *map(_fold_cells, table.configurations)])
        )
    return "\n".join([*parts, *table.remarks])


def _fold_cells(group: Configuration) -> list[str]:
    return [_number(group.mean), _number(group.spread), f"{group.done}/{group.folds}", group.name]


def _cells(table: Table, levels: str) -> list[list[str]]:
    """Return the cells of the table, starting with the header."""
    columns: dict[str, Callable[[Row], str]] = {
        "run": lambda row: row.name,
        "configuration": lambda row: row.configuration,
        "fold": lambda row: f"{row.fold}/{row.folds}",
        "Dice": lambda row: _number(row.dice),
        "Dice by class": lambda row: " ".join(f"{name}:{_number(dice)}" for name, dice in row.by_class.items()),
        "steps": lambda row: str(row.steps),
        "min": lambda row: f"{row.minutes:.1f}",
        "s/step": lambda row: _number(row.seconds_per_step),
        "parameters": lambda row: "" if row.parameters is None else f"{row.parameters:,}",
        "ended": lambda row: row.state,
    }
    if all(row.folds == 1 for row in table.rows):
        del columns["fold"]
    curves = _sparklines(table.rows, levels)
    body = [
        [str(rank or ""), *(cell(row) for cell in columns.values()), curve]
        for (rank, row), curve in zip(table.ranked(), curves, strict=True)
    ]
    return [["", *columns, "Dice over time"], *body]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _aligned(cells: Sequence[Sequence[str]]) -> str:
    """Pad cells to columns of equal width."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    return "\n".join(line.rstrip() for line in lines)


def _sparklines(rows: Sequence[Row], levels: str) -> list[str]:
    """Draw the curves of all runs over the same time and on the same scale."""
    scored = [point for row in rows for point in row.curve if point.dice is not None]
    if not scored:
        return [""] * len(rows)
    lowest, highest = (extreme(point.dice or 0.0 for point in scored) for extreme in (min, max))
    seconds = max(point.seconds for point in scored) or 1.0
    return [_sparkline(row.curve, (lowest, highest), seconds, levels) for row in rows]


def _sparkline(curve: Sequence[Point], scale: tuple[float, float], seconds: float, levels: str) -> str:
    """Draw one curve: each column shows the latest Dice, blank before the first one; it ends with the run."""
    characters = ""
    scored = [point for point in curve if point.dice is not None]
    for column in range(1, COLUMNS + 1):
        until = seconds * column / COLUMNS
        past = [point.dice for point in scored if point.seconds <= until]
        fraction = ((past[-1] or 0.0) - scale[0]) / ((scale[1] - scale[0]) or 1.0) if past else None
        characters += " " if fraction is None else levels[min(len(levels) - 1, int(fraction * len(levels)))]
        if scored and until >= scored[-1].seconds:
            break
    return characters.rstrip()
