"""Weighted sums of losses as text: ``"dice + 10*focal(gamma=3)"``, or by class: ``"cell: dice; rest: dice + bce"``."""

from __future__ import annotations

import math
import re
from itertools import groupby
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from napari_unetvnet.errors import SettingsProblem

if TYPE_CHECKING:
    from collections.abc import Container

__all__ = ["REST", "LossTerm", "class_words", "read_terms", "write_loss"]

NUMBER = r"[0-9.]+(?:[eE][+-]?\d+)?"
TERM = re.compile(rf"\s*(?:({NUMBER})\s*\*\s*)?([A-Za-z_]\w*)\s*(?:\((.*)\)\s*)?", re.DOTALL)
PLUS = re.compile(r"(?<!\d[eE])\+(?![^()]*\))")  # not the one of 1e+3, nor any inside parentheses
COMMA = re.compile(r",(?![^\[]*\])")  # not inside brackets
PART = re.compile(r";(?![^()]*\))")
REST = "rest"
"""Stands for all classes that have no loss of their own."""


class LossTerm(BaseModel):
    """One term of a weighted sum of losses."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    weight: float = Field(1.0, gt=0, allow_inf_nan=False)
    option: dict[str, bool | int | float | str | tuple[float, ...]] = {}
    classes: tuple[str, ...] = ()
    """Names or values of the classes, for each of which alone it is computed; empty for all classes together."""


def read_terms(text: str) -> tuple[LossTerm, ...]:
    """Parse a weighted sum, without looking up names or options.

    Parameters
    ----------
    text : str
        Names, each with an optional factor before it and options in parentheses after it. Parts that are separated by
        ``;`` may begin with the classes that they are for: ``cell, 2: dice; rest: bce``.

    Returns
    -------
    tuple of LossTerm
        With the values of options as text.

    Raises
    ------
    SettingsProblem
        If a term is not ``name``, ``number*name`` or ``name(option=value)``, or a part names no class before its colon.
    """
    return tuple(term for part in PART.split(text) for term in _part(part, text))


def _part(part: str, text: str) -> list[LossTerm]:
    """Parse a sum with the classes before it."""
    head, colon, terms = part.partition(":") if ":" in part.partition("(")[0] else ("", "", part)
    classes = tuple(word.strip() for word in head.split(",")) if colon else ()
    if "" in classes or len(set(classes)) < len(classes):
        raise SettingsProblem(f"Loss {text!r}: {head.strip()!r} should be class names, each once, such as cell, line.")
    return [_term(each, text).model_copy(update={"classes": classes}) for each in PLUS.split(terms)]


def class_words(text: str, names: Container[str] = ()) -> tuple[str, ...]:
    """Read the value of an option that names classes.

    Parameters
    ----------
    text : str
        ``cell``, or ``[left line, right line]``; without a comma, spaces separate names, too.
    names : container of str
        Names that are not divided.

    Returns
    -------
    tuple of str
    """
    inside = text.strip().strip("[]").strip()
    if inside in names:
        return (inside,)
    return tuple(word.strip() for word in (inside.split(",") if "," in inside else inside.split()) if word.strip())


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
    parts = []
    for classes, group in groupby(terms, key=lambda term: term.classes):
        parts.append((f"{', '.join(classes)}: " if classes else "") + " + ".join(map(_term_text, group)))
    return "; ".join(parts)


def _term_text(term: LossTerm) -> str:
    factor = "" if term.weight == 1 else f"{term.weight!r}*"
    options = ", ".join(f"{name}={_value_text(value)}" for name, value in term.option.items())
    return f"{factor}{term.name}({options})" if options else f"{factor}{term.name}"


def _value_text(value: object) -> str:
    return f"[{', '.join(map(repr, value))}]" if isinstance(value, tuple) else str(value)
