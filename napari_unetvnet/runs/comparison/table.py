"""Runs in order: ranked where they can be, summed up over folds, written as text or as JSON."""

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
    """A network and a loss over several folds, with mean and spread (standard deviation) of their Dice."""

    name: str
    done: int
    folds: int
    mean: float | None
    spread: float | None


@dataclass(frozen=True)
class Table:
    """Runs from the best to the worst, the same over folds, and what stands against ranking them.

    They are comparable if they were scored on the same voxels.
    """

    rows: tuple[Row, ...]
    configurations: tuple[Configuration, ...]
    remarks: tuple[str, ...]
    comparable: bool = True

    def ranked(self) -> list[tuple[int | None, Row]]:
        """Give the runs with their rank, None where there is no score or none that can be compared.

        Returns
        -------
        list of (int or None, Row)
        """
        known = [self.comparable and row.dice is not None for row in self.rows]
        return [
            (number if has else None, row) for number, (has, row) in enumerate(zip(known, self.rows, strict=True), 1)
        ]

    def as_dict(self) -> dict[str, Any]:
        """Give everything, with the full curves, as JSON holds it.

        Returns
        -------
        dict
        """
        runs = [{"rank": rank, **asdict(row), "seconds_per_step": row.seconds_per_step} for rank, row in self.ranked()]
        configurations = list(map(asdict, self.configurations))
        remarks = {"comparable": self.comparable, "remarks": list(self.remarks)}
        return {"runs": runs, "configurations": configurations, **remarks}


def tabulate(rows: Sequence[Row]) -> Table:
    """Rank runs.

    Parameters
    ----------
    rows : sequence of Row

    Returns
    -------
    Table
    """
    ranked = sorted(_only_differing(rows), key=lambda row: (row.dice is None, -(row.dice or 0.0), row.minutes))
    same = _same_hold_out(ranked)
    return Table(tuple(ranked), _configurations(ranked), tuple(_remarks(ranked, same)), same)


def _only_differing(rows: Sequence[Row]) -> list[Row]:
    """Keep of the other settings those in which the runs differ."""
    names = list(dict.fromkeys(name for row in rows for name in row.other))
    known = [row for row in rows if row.other]
    differing = [name for name in names if any(row.other.get(name) != known[0].other.get(name) for row in known)]
    return [replace(row, other={name: row.other.get(name) for name in differing if row.other}) for row in rows]


def _configurations(rows: Sequence[Row]) -> tuple[Configuration, ...]:
    """Sum up the folds of each configuration, the best first."""
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
    """Whether runs were scored on the same voxels, or with folds on the same for the same fold."""
    groups: dict[tuple[int, int], set[str]] = defaultdict(set)
    for row in rows:
        if row.dice is not None:
            groups[row.folds, row.fold].add(row.scored_on)
    return all(len(group) == 1 for group in groups.values()) and len({folds for folds, _ in groups}) <= 1


def _remarks(rows: Sequence[Row], same: bool) -> list[str]:
    """Say why runs cannot be ranked, as far as they cannot."""
    remarks = []
    if not same:
        remarks.append(
            "These runs were not all scored on the same hold-out, so their order means nothing: images, labels or the "
            "part held out differ. Train with the same inputs, seed, hold-out and patch, or with folds."
        )
    if unscored := len([row for row in rows if row.dice is None]):
        remarks.append(f"{unscored} of {len(rows)} runs have no score on a hold-out.")
    if any(group.done < group.folds for group in _configurations(rows)):
        remarks.append("Not all folds are done: means over different folds are not to be compared.")
    return remarks


def as_text(table: Table, *, as_json: bool = False, plain: bool = False) -> str:
    """Write a table as text.

    Parameters
    ----------
    table : Table
    as_json : bool
        With the full curves.
    plain : bool
        Whether curves may hold no other signs than those of ASCII.

    Returns
    -------
    str
        Without a line break at the end.
    """
    if as_json:
        return json.dumps(table.as_dict(), indent=2, allow_nan=False)
    parts = [_aligned(_cells(table, PLAIN if plain else BLOCKS))]
    said: dict[str, list[str]] = defaultdict(list)
    for name, line in ((row.name, line) for row in table.rows for line in row.lines):
        said[line].append(name)
    parts += [f"{', '.join(names)}: {line}" for line, names in said.items()]
    if table.configurations:
        parts.append(
            _aligned([["Dice over folds", "spread", "folds", "configuration"], *map(_fold_cells, table.configurations)])
        )
    return "\n".join([*parts, *table.remarks])


def _fold_cells(group: Configuration) -> list[str]:
    return [_number(group.mean), _number(group.spread), f"{group.done}/{group.folds}", group.name]


def _cells(table: Table, levels: str) -> list[list[str]]:
    """Give the cells of the table, its head first."""
    columns: dict[str, Callable[[Row], str]] = {
        "run": lambda row: row.name,
        "configuration": lambda row: row.configuration,
        "fold": lambda row: f"{row.fold}/{row.folds}",
        "Dice": lambda row: _number(row.dice),
        "of classes": lambda row: " ".join(f"{name}:{_number(dice)}" for name, dice in row.by_class.items()),
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
        [str(rank or ""), *(give(row) for give in columns.values()), curve]
        for (rank, row), curve in zip(table.ranked(), curves, strict=True)
    ]
    return [["", *columns, "Dice over time"], *body]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _aligned(cells: Sequence[Sequence[str]]) -> str:
    """Write cells in columns of equal width."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    return "\n".join(line.rstrip() for line in lines)


def _sparklines(rows: Sequence[Row], levels: str) -> list[str]:
    """Draw the curves of all runs over the same time and on the same scale."""
    points = [point for row in rows for point in row.curve if point.dice is not None]
    if not points:
        return [""] * len(rows)
    lowest, highest = (pick(point.dice or 0.0 for point in points) for pick in (min, max))
    seconds = max(point.seconds for point in points) or 1.0
    return [_sparkline(row.curve, (lowest, highest), seconds, levels) for row in rows]


def _sparkline(curve: Sequence[Point], scale: tuple[float, float], seconds: float, levels: str) -> str:
    """Draw one curve: in each column the newest Dice, a blank before the first, nothing after the end."""
    signs = ""
    known = [point for point in curve if point.dice is not None]
    for column in range(1, COLUMNS + 1):
        until = seconds * column / COLUMNS
        newest = [point.dice for point in known if point.seconds <= until]
        share = ((newest[-1] or 0.0) - scale[0]) / ((scale[1] - scale[0]) or 1.0) if newest else None
        signs += " " if share is None else levels[min(len(levels) - 1, int(share * len(levels)))]
        if known and until >= known[-1].seconds:
            break
    return signs.rstrip()
