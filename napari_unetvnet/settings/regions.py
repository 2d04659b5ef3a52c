"""Regions: named unions of label values, possibly nested, such as whole tumour = 1 + 2 + 4.

Each region is a class, and a voxel may be in several. Nested regions fit into one label image: each region is written
with a value that none of the regions inside it has.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from napari_unetvnet.errors import SettingsProblem

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "PRESETS", "LabelRegion", "Regions", "outside_preset", "paint_order", "parse_regions", "region_values",
]  # fmt: skip


class LabelRegion(BaseModel):
    """The voxels with any of a set of label values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    values: Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(tuple)] = Field(min_length=1)

    def __str__(self) -> str:
        return f"{self.name}={'+'.join(map(str, self.values))}"


PRESETS = {
    "brats": (
        LabelRegion(name="WT", values=(1, 2, 4)),
        LabelRegion(name="TC", values=(1, 4)),
        LabelRegion(name="ET", values=(4,)),
    ),
    "brats2023": (
        LabelRegion(name="WT", values=(1, 2, 3)),
        LabelRegion(name="TC", values=(1, 3)),
        LabelRegion(name="ET", values=(3,)),
    ),
}
"""Regions that have a name in the field: whole tumour, tumour core and enhancing tumour, which is 4 until 2022 and 3
since."""


def parse_regions(words: str | Iterable[str]) -> tuple[LabelRegion, ...]:
    """Read regions from text.

    Parameters
    ----------
    words : str or iterable of str
        The name of a preset, or ``name=value+value`` for each region, separated by spaces or commas if in one text.

    Returns
    -------
    tuple of LabelRegion

    Raises
    ------
    SettingsProblem
        If a word is not a region, or two regions have the same name or values; one line for each.
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
            presets = ", ".join(PRESETS)
            lines.append(f"Region {word!r} should be name=value+value with values above 0, or one of: {presets}.")
        else:
            regions.append(LabelRegion(name=match.group(1), values=tuple(values)))
    for attribute in ("name", "values"):
        if len({getattr(region, attribute) for region in regions}) < len(regions):
            lines.append(f"Regions {' '.join(map(str, regions))}: two have the same {attribute}; make them unique.")
    if lines:
        raise SettingsProblem(*lines)
    return tuple(regions)


def outside_preset(regions: Sequence[LabelRegion], values: Iterable[int]) -> str:
    """Say which label values the regions of a preset do not know, so that they mean something else.

    Parameters
    ----------
    values : iterable of int
        Label values that occur.

    Returns
    -------
    str
        A sentence; empty if there is none, or the regions are no preset.
    """
    name = next((name for name, known in PRESETS.items() if tuple(regions) == known), "")
    known = {0, *(value for region in regions for value in region.values)}
    strays = sorted(set(values) - known)
    if not name or not strays:
        return ""
    others = [f"{other} ({' '.join(map(str, PRESETS[other]))})" for other in PRESETS if other != name]
    return (
        f"There is the label {', '.join(map(str, strays))}, which the regions {name} ({' '.join(map(str, regions))}) "
        f"do not have. Look up what the labels mean, and choose {' or '.join(others)}, or write the regions."
    )


def _from_text(value: Any) -> Any:
    """Accept regions as text, or as a list of texts."""
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
        return value
    try:
        return parse_regions(words)
    except SettingsProblem as problem:
        raise ValueError(str(problem)) from None


Regions = Annotated[tuple[LabelRegion, ...], BeforeValidator(_from_text)]
"""The type of a setting that takes regions."""


def region_values(regions: Iterable[LabelRegion]) -> tuple[int, ...]:
    """Give the label value of each region: its smallest that no region inside it has.

    Returns
    -------
    tuple of int
        For a region that is just the union of the regions inside it, its smallest value.
    """
    sets = [frozenset(region.values) for region in regions]
    label_values = []
    for values in sets:
        inside = frozenset[int]().union(*(subset for subset in sets if subset < values))
        label_values.append(min(values - inside or values))
    return tuple(label_values)


def paint_order(regions: Iterable[LabelRegion]) -> tuple[int, ...]:
    """Give the order in which regions are written into one label image, so that inner ones are not covered.

    Returns
    -------
    tuple of int
        Indices of the regions, those of the most values first.
    """
    listed = list(regions)
    return tuple(sorted(range(len(listed)), key=lambda i: -len(listed[i].values)))
