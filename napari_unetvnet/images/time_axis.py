"""Time series: how many time points an image holds, how far apart they are, and which of them are read.

A time point of a source is a source of its own, such as ``a.tif@t=3``, an image like any other. Only who reads and
writes a whole series knows that there are others.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from napari_unetvnet.errors import DataProblem

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["TIMES", "TimeAxis", "chosen_points", "listed_points", "seconds"]

TIMES = re.compile(r"\d+|\d*:\d*(:[1-9]\d*)?")
"""A time point, or some of them as begin:end:step, of which each may be left out."""
SECONDS = {"second": 1.0, "millisecond": 1e-3, "microsecond": 1e-6, "nanosecond": 1e-9, "minute": 60.0, "hour": 3600.0}
"""The units of time, by our names, in seconds."""
NAMES = {
    "s": "second", "sec": "second", "seconds": "second", "ms": "millisecond", "msec": "millisecond",
    "us": "microsecond", "ns": "nanosecond", "min": "minute", "h": "hour",
}  # fmt: skip
LISTED = 12


@dataclass(frozen=True)
class TimeAxis:
    """The time points of an image.

    Parameters
    ----------
    points : int
        How many.
    step : float
        Time from one to the next, in ``unit``; 1 if unknown.
    unit : str
        Empty if unknown.
    """

    points: int
    step: float = 1.0
    unit: str = ""

    @classmethod
    def of(cls, points: int, step: float = 1.0, unit: str = "") -> TimeAxis:
        """Make the axis of a file, whose step may be nonsense and whose unit may have any usual name."""
        unit = NAMES.get(unit.replace("\N{MICRO SIGN}", "u"), unit.lower())
        is_known = step > 0 and step < float("inf")
        return cls(points, float(step) if is_known else 1.0, unit if is_known and unit in SECONDS else "")

    def picked(self, points: Sequence[int]) -> TimeAxis:
        """Give the axis of some of the time points, whose step is known if they are equally far apart."""
        steps = {b - a for a, b in pairwise(points)}
        if len(steps) > 1:
            return TimeAxis(len(points))
        return TimeAxis(len(points), self.step * (steps.pop() if steps else 1), self.unit)


def seconds(axis: TimeAxis) -> float | None:
    """Give the step of a series in seconds; None if its unit is unknown."""
    return axis.step * SECONDS[axis.unit] if axis.unit else None


def chosen_points(times: Sequence[str], points: int, name: str) -> list[int]:
    """List the time points that are chosen.

    Parameters
    ----------
    times : sequence of str
        Such as "0", "3" or "0:10:2"; ":" is all.
    points : int
        How many there are.
    name : str
        Name of the image, for messages.

    Returns
    -------
    list of int
        In the order of time.

    Raises
    ------
    DataProblem
        If one of them is not there, or none is chosen.
    """
    chosen: set[int] = set()
    for text in times:
        if ":" in text:
            begin, end, step = (*(int(part) if part else None for part in text.split(":")), None)[:3]
            chosen.update(range(points)[begin:end:step])
        else:
            chosen.add(int(text))
    if absent := [point for point in sorted(chosen) if point >= points]:
        raise DataProblem(
            f"{name} has the time points 0 to {points - 1}, not {listed_points(absent)}; choose others (--time)."
        )
    if not chosen:
        raise DataProblem(f"--time {' '.join(times)} names no time point of {name}, which has 0 to {points - 1}.")
    return sorted(chosen)


def listed_points(points: Sequence[int]) -> str:
    """Name some time points."""
    return ", ".join(map(str, points[:LISTED])) + (", ..." if len(points) > LISTED else "")
