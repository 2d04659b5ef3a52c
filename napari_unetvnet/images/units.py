"""Units of length: canonical names, and conversion of voxel sizes to a common unit."""

from __future__ import annotations

import math
from html import unescape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_unetvnet.conventions import Spacing

__all__ = ["METRES", "MICRO", "common_spacing", "edge_length", "in_unit_of_x", "stated_length", "unit_name"]

MICRO = "\u00b5m"
METRES = {"nm": 1e-9, "micrometer": 1e-6, "mm": 1e-3, "cm": 1e-2, "m": 1.0, "inch": 0.0254}
LONGEST_UNIT = 40
"""Letters of a unit that are kept."""
ALIASES = {"": "pixel", "pixels": "pixel", "in": "inch", "nanometer": "nm", "millimeter": "mm", "centimeter": "cm"}
ALIASES |= {"meter": "m"} | dict.fromkeys(("um", MICRO, "micron", "microns", "micrometers", "micrometre"), "micrometer")


def unit_name(text: str) -> str:
    """Give the canonical name of a unit."""
    if "\\u" in text:
        text = text.encode("ascii", "ignore").decode("unicode_escape")
    text = unescape(text).strip().replace("\u03bc", "\u00b5")
    text = "".join(letter for letter in text if letter.isprintable())[:LONGEST_UNIT]
    return ALIASES.get(text.lower(), text)


def edge_length(value: Any) -> float:
    """Give the edge length of a voxel from a header; 1 if it is invalid."""
    length = abs(float(value))
    return length if 0 < length < float("inf") else 1.0


def stated_length(value: Any) -> float:
    """Give the edge length of a voxel from a header: 1 for 0, which means that there is none, NaN if it is no number.

    Returns
    -------
    float
    """
    try:
        length = abs(float(value))
    except (TypeError, ValueError):
        return math.nan
    return length or 1.0


def common_spacing(lengths: Mapping[str, Any], units: Mapping[str, str]) -> tuple[Spacing | None, str]:
    """Convert the voxel sizes of the axes to the unit of x.

    Parameters
    ----------
    lengths : mapping of str to number or str
        For some of the letters Z, Y and X.
    units : mapping of str to str
        Names from `unit_name`, for the same letters.

    Returns
    -------
    spacing : tuple of 3 float or None
        z, y, x; None if there is no length.
    unit : str
    """
    if not any(axis in lengths for axis in "ZYX"):
        return None, "pixel"
    z, y, x = in_unit_of_x({axis: stated_length(lengths.get(axis, 1)) for axis in "ZYX"}, units)
    return (z, y, x), units.get("X", "pixel")


def in_unit_of_x(values: Mapping[str, float], units: Mapping[str, str]) -> Spacing:
    """Convert lengths or positions along the axes to the unit of x.

    Parameters
    ----------
    values : mapping of str to float
        For some of the letters Z, Y and X; 0 for others.
    units : mapping of str to str
        Names from `unit_name`; an axis without a unit of length has that of x.

    Returns
    -------
    tuple of 3 float
        z, y, x.
    """
    unit = units.get("X", "pixel")
    base = METRES.get(unit, 1.0)
    z, y, x = (values.get(axis, 0.0) * METRES.get(units.get(axis, unit), base) / base for axis in "ZYX")
    return z, y, x
