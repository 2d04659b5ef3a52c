"""Amounts of disk and of time, as people write them."""

from __future__ import annotations

import re

from napari_unetvnet.errors import SettingsProblem

__all__ = ["age_text", "read_age", "read_size"]

SIZES = {"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
SECONDS = {"minute": 60, "hour": 3600, "day": 86400, "week": 7 * 86400}
AMOUNT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]+)\s*")


def age_text(seconds: float) -> str:
    """Write how long ago something was, in the largest unit of which it is at least two."""
    for unit in ("week", "day", "hour"):
        if seconds >= 2 * SECONDS[unit]:
            return f"{int(seconds // SECONDS[unit])} {unit}s"
    minutes = max(0, int(seconds // 60))
    return f"{minutes} minute{'s' if minutes != 1 else ''}"


def read_size(text: str) -> int:
    """Read a size with its unit.

    Parameters
    ----------
    text : str
        Such as 500MB or 20 GiB.

    Returns
    -------
    int
        Bytes.

    Raises
    ------
    SettingsProblem
    """
    found = AMOUNT.fullmatch(text)
    if found is None or found[2].upper() not in SIZES:
        raise SettingsProblem(f"{text!r} is no size; write a number with a unit, such as 500MB or 20GB.")
    return int(float(found[1]) * SIZES[found[2].upper()])


def read_age(text: str) -> float:
    """Read an age with its unit.

    Parameters
    ----------
    text : str
        Such as 30d, 12 hours or 2 weeks.

    Returns
    -------
    float
        Seconds.

    Raises
    ------
    SettingsProblem
    """
    found = AMOUNT.fullmatch(text)
    unit = found[2].lower().removesuffix("s") if found else ""
    unit = {unit[:1]: unit for unit in SECONDS}.get(unit, unit)
    if found is None or unit not in SECONDS:
        raise SettingsProblem(f"{text!r} is no age; write a number with a unit, such as 30days, 12hours or 2weeks.")
    return float(found[1]) * SECONDS[unit]
