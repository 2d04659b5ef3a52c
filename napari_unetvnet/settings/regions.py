"""Regions: named unions of label values, which may lie in each other, such as whole tumour = 1 + 2 + 4.

A region is a class of its own, and a voxel may belong to several. Where regions lie in each other, a label image still
says everything: each region is written with the value that none of the regions inside it has.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from napari_unetvnet.errors import SettingsProblem

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["PRESETS", "Region", "Regions", "paint_order", "parse_regions", "region_values"]


class Region(BaseModel):
    """The voxels with any of some label values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    values: Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(tuple)] = Field(min_length=1)

    def __str__(self) -> str:
        return f"{self.name}={'+'.join(map(str, self.values))}"


PRESETS = {
    "brats": (
        Region(name="WT", values=(1, 2, 4)),
        Region(name="TC", values=(1, 4)),
        Region(name="ET", values=(4,)),
    ),
}
"""Regions that have a name in the field: whole tumour, tumour core and enhancing tumour."""


def parse_regions(words: str | Iterable[str]) -> tuple[Region, ...]:
    """Read regions from text.

    Parameters
    ----------
    words : str or iterable of str
        The name of a preset, or ``name=value+value`` for each region, separated by spaces or commas if in one text.

    Returns
    -------
    tuple of Region

    Raises
    ------
    SettingsProblem
        If a word is no region, or two regions share a name or their values; one line for each.
    """
    split = [word for text in ([words] if isinstance(words, str) else words) for word in re.split(r"[\s,;]+", text)]
    split = [word for word in split if word]
    if len(split) == 1 and split[0].lower() in PRESETS:
        return PRESETS[split[0].lower()]
    regions, lines = [], []
    for word in split:
        match = re.fullmatch(r"([^\W\d]\w*)=(\d+(?:\+\d+)*)", word)
        values = sorted({int(number) for number in match.group(2).split("+")}) if match else []
        if match is None or values[0] == 0:
            known = ", ".join(PRESETS)
            lines.append(f"Region {word!r} should be name=value+value with values above 0, or one of: {known}.")
        else:
            regions.append(Region(name=match.group(1), values=tuple(values)))
    for what in ("name", "values"):
        if len({getattr(region, what) for region in regions}) < len(regions):
            lines.append(f"Regions {' '.join(map(str, regions))}: two have the same {what}; give each its own.")
    if lines:
        raise SettingsProblem(*lines)
    return tuple(regions)


def _from_text(value: Any) -> Any:
    """Accept regions as text, or as a list of texts."""
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
        return value
    try:
        return parse_regions(words)
    except SettingsProblem as problem:
        raise ValueError(str(problem)) from None


Regions = Annotated[tuple[Region, ...], BeforeValidator(_from_text)]
"""The type of a setting that takes regions."""


def region_values(regions: Iterable[Region]) -> tuple[int, ...]:
    """Give the label value with which each region is written: its least that no region inside it has.

    Parameters
    ----------
    regions : iterable of Region

    Returns
    -------
    tuple of int
        Of a region that is no more than the regions inside it together, its least value.
    """
    sets = [frozenset(region.values) for region in regions]
    written = []
    for values in sets:
        inside = frozenset[int]().union(*(other for other in sets if other < values))
        written.append(min(values - inside or values))
    return tuple(written)


def paint_order(regions: Iterable[Region]) -> tuple[int, ...]:
    """Say in which order regions are written into one label image, so that inner ones are not covered.

    Parameters
    ----------
    regions : iterable of Region

    Returns
    -------
    tuple of int
        Indices of the regions, those of the most values first.
    """
    listed = list(regions)
    return tuple(sorted(range(len(listed)), key=lambda i: -len(listed[i].values)))
