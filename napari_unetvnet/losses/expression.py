"""Weighted sums of losses as text: ``"dice + 10*focal(gamma=3)"``."""

from __future__ import annotations

import math
import re

from pydantic import BaseModel, ConfigDict, Field

from napari_unetvnet.errors import SettingsProblem

__all__ = ["LossTerm", "read_terms", "write_loss"]

NUMBER = r"[0-9.]+(?:[eE][+-]?\d+)?"
TERM = re.compile(rf"\s*(?:({NUMBER})\s*\*\s*)?([A-Za-z_]\w*)\s*(?:\((.*)\)\s*)?", re.DOTALL)
PLUS = re.compile(r"(?<!\d[eE])\+(?![^()]*\))")  # not the one of 1e+3, nor any inside parentheses
COMMA = re.compile(r",(?![^\[]*\])")  # not inside brackets


class LossTerm(BaseModel):
    """One term of a weighted sum of losses."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    weight: float = Field(1.0, gt=0, allow_inf_nan=False)
    option: dict[str, bool | int | float | str | tuple[float, ...]] = {}


def read_terms(text: str) -> tuple[LossTerm, ...]:
    """Parse a weighted sum, without looking up names or options.

    Parameters
    ----------
    text : str
        Names, each with an optional factor before it and options in parentheses after it.

    Returns
    -------
    tuple of LossTerm
        With the values of options as text.

    Raises
    ------
    SettingsProblem
        If a term is not ``name``, ``number*name`` or ``name(option=value)``.
    """
    return tuple(_term(part, text) for part in PLUS.split(text))


def _term(part: str, text: str) -> LossTerm:
    match = TERM.fullmatch(part)
    if match is None:
        raise SettingsProblem(
            f"Loss {text!r}: the term {part.strip()!r} should be a name, number*name or name(option=value)."
        )
    number, name, inside = match.groups()
    return LossTerm(name=name, weight=_factor(number, text), option=_options(inside or "", part))


def _factor(number: str | None, text: str) -> float:
    try:
        factor = float(number or 1)
    except ValueError:
        factor = 0.0
    if not 0 < factor < math.inf:
        raise SettingsProblem(f"Loss {text!r}: {number!r} should be a number above 0.")
    return factor


def _options(inside: str, part: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for piece in COMMA.split(inside) if inside.strip() else []:
        match = re.fullmatch(r"\s*([A-Za-z_]\w*)\s*=\s*(.*?)\s*", piece, re.DOTALL)
        if match is None or match.group(1) in options:
            raise SettingsProblem(f"Loss {part.strip()!r}: {piece.strip()!r} should be option=value, each option once.")
        options[match.group(1)] = match.group(2).strip("'\"")
    return options


def write_loss(terms: tuple[LossTerm, ...]) -> str:
    """Format a sum of losses as `read_terms` reads it."""
    return " + ".join(map(_term_text, terms))


def _term_text(term: LossTerm) -> str:
    factor = "" if term.weight == 1 else f"{term.weight!r}*"
    options = ", ".join(f"{name}={_value_text(value)}" for name, value in term.option.items())
    return f"{factor}{term.name}({options})" if options else f"{factor}{term.name}"


def _value_text(value: object) -> str:
    return f"[{', '.join(map(repr, value))}]" if isinstance(value, tuple) else str(value)
