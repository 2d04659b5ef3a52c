"""What the whole package agrees on: the ignored class index, the order of axes, types that settings share, options.

An image is an array ``(C, Z, Y, X)``, labels are ``(Z, Y, X)``, or ``(K, Z, Y, X)`` where classes may overlap; a 2D
image has ``Z = 1``. Sizes, spacings and positions are always in the order z, y, x.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from napari_unetvnet.errors import SettingsProblem

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "IGNORE", "WHITE", "Axes", "Device", "Edge", "Head", "Length", "Measure", "Normalise", "NormaliseIn", "Option",
    "OptionValue", "Precision", "Size", "Spacing", "Triple", "View",
]  # fmt: skip

IGNORE = 255
"""The class index of voxels that no loss, metric or sampler may look at."""

WHITE = 255
"""Foreground of a mask that was saved as a black and white picture."""

LONGEST = 80
"""Letters of a value in a message."""

View = Literal["2d", "2.5d", "3d"]
Head = Literal["binary", "multiclass", "multilabel"]
Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Measure = Literal["zscore", "percentile", "none"]
"""What is measured of the intensities of an image."""
Normalise = Literal["zscore", "percentile", "none", "fixed", "dataset"]
NormaliseIn = Literal["content", "all", "nonzero", "mask"]
Axes = Literal[
    "zyx", "cyx", "czyx", "zcyx", "yx", "yxc", "yxz", "zyxc", "xyz",
    "tyx", "tzyx", "tcyx", "tczyx", "tzcyx", "ctyx", "ctzyx", "tyxc", "tzyxc", "yxt", "zyxt", "xyzt",
]  # fmt: skip
"""The axes of the array in a file; c is channels, t time points."""
Edge = Literal["reflect", "symmetric", "edge"]
"""How an image continues beyond its border."""
OptionValue = bool | int | float | str | tuple[float, ...]
Length = Annotated[int, Field(ge=1)]
Size = Annotated[float, Field(gt=1e-12, lt=1e12)]
Triple = tuple[Length, Length, Length]
"""Voxels z, y, x."""
Spacing = tuple[Size, Size, Size]
"""Edge lengths z, y, x of a voxel, in the unit of the image."""


@dataclass(frozen=True)
class Option:
    """An option of a network or loss: its type, default, allowed values (or empty) and its sentence."""

    name: str
    kind: str
    default: OptionValue | None
    choices: tuple[OptionValue, ...] = ()
    help: str = ""

    def check(self, value: Any, limits: tuple[int, int] | None = None) -> OptionValue:
        """Bring a value, perhaps text from a command line, to this option's type.

        Parameters
        ----------
        limits : tuple of 2 int, optional
            Lowest and highest value.

        Returns
        -------
        bool, int, float, str or tuple of float

        Raises
        ------
        SettingsProblem
            If the value is of another type, beyond the limits or not among the choices.
        """
        convert, words = _KINDS[self.kind]
        try:
            checked = convert(value)
        except (ValueError, TypeError, KeyError, OverflowError):
            raise SettingsProblem(f"Option {self.name}={str(value)[:LONGEST]} must be {words}.") from None
        if limits and isinstance(checked, int | float) and not limits[0] <= checked <= limits[1]:
            raise SettingsProblem(f"Option {self.name}={str(value)[:LONGEST]} must be {limits[0]} to {limits[1]}.")
        if self.choices and checked not in self.choices:
            allowed = ", ".join(map(str, self.choices))
            raise SettingsProblem(f"Option {self.name}={value} must be one of: {allowed}.")
        return checked


def _to_int(value: Any) -> int:
    """Take 16, "16" or 16.0, not True and not 16.5."""
    if isinstance(value, bool) or float(value) != int(float(value)):
        raise ValueError
    return int(float(value))


def _to_float(value: Any) -> float:
    if isinstance(value, bool) or not math.isfinite(float(value)):
        raise ValueError
    return float(value)


def _to_bool(value: Any) -> bool:
    return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[str(value).lower()]


def _to_floats(value: Any) -> tuple[float, ...]:
    """Take (1, 2), [1, 2] or "1, 2"."""
    words = re.split(r"[\s,;]+", value.strip("()[] ")) if isinstance(value, str) else value
    return tuple(_to_float(word) for word in words if word != "")


_KINDS: dict[str, tuple[Callable[[Any], OptionValue], str]] = {
    "int": (_to_int, "a whole number"),
    "float": (_to_float, "a number"),
    "bool": (_to_bool, "true or false"),
    "str": (str, "text"),
    "floats": (_to_floats, "a row of numbers such as 1, 2"),
}
"""How each kind of option is converted, and its name in messages."""
