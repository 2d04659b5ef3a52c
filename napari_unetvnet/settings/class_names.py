"""Names of classes, by label value: ``1=cell 2=nucleus``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from napari_unetvnet.errors import SettingsProblem
from napari_unetvnet.losses import REST

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["ClassName", "ClassNames", "parse_class_names", "with_values"]

NEXT = re.compile(r"[\s,;]+(?=\d+\s*=)")
"""What separates names in one text: a name may have spaces, but a number and = begin the next."""
FORBIDDEN = ",;:=()[]+*\"'"


class ClassName(BaseModel):
    """The name of the class with a label value."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: int = Field(ge=0)
    name: str = Field(min_length=1)

    def __str__(self) -> str:
        return f"{self.value}={self.name}"


def parse_class_names(words: str | Iterable[str]) -> tuple[ClassName, ...]:
    """Read names from text.

    Parameters
    ----------
    words : str or iterable of str
        ``value=name`` for each class, separated by spaces, commas or lines if in one text. A name may have spaces.

    Returns
    -------
    tuple of ClassName

    Raises
    ------
    SettingsProblem
        If a word is not value=name, a name cannot be used in a loss, or a value or a name comes twice; one line each.
    """
    texts = [words] if isinstance(words, str) else words
    split = [word.strip() for text in texts for word in NEXT.split(text.strip()) if word.strip()]
    names, lines = [], []
    for word in split:
        value, sign, name = (part.strip() for part in word.partition("="))
        if not sign or not value.isdecimal() or not name:
            lines.append(f"Class name {word!r} should be value=name, such as 1=cell.")
        elif name.isdecimal() or name == REST or any(letter in FORBIDDEN for letter in name):
            lines.append(f"Class name {name!r} cannot be used: give no number, not {REST!r}, and none of {FORBIDDEN}")
        else:
            names.append(ClassName(value=int(value), name=name))
    for attribute in ("value", "name"):
        if len({getattr(item, attribute) for item in names}) < len(names):
            lines.append(f"Class names {' '.join(map(str, names))}: two have the same {attribute}; make them unique.")
    if lines:
        raise SettingsProblem(*lines)
    return tuple(names)


def _from_text(value: Any) -> Any:
    """Accept names as text, as a list of texts, or as a mapping of values to names."""
    words = [value] if isinstance(value, str) else value
    if isinstance(words, dict):
        words = [f"{key}={name}" for key, name in words.items()]
    if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
        return value
    try:
        return parse_class_names(words)
    except SettingsProblem as problem:
        raise ValueError(str(problem)) from None


ClassNames = Annotated[tuple[ClassName, ...], BeforeValidator(_from_text)]
"""The type of a setting that takes names of classes."""


def with_values(values: Mapping[str, Any], fields: Iterable[str]) -> dict[str, Any]:
    """Put the label value for each class that is given by its name.

    Parameters
    ----------
    values : mapping of str to value
        Settings before they are validated, ``class_names`` among them.
    fields : iterable of str
        Settings that take label values.

    Returns
    -------
    dict
    """
    try:
        names = parse_class_names(_texts(values.get("class_names", ())))
    except SettingsProblem:
        return dict(values)  # said by the setting's own validator
    numbers = {item.name: item.value for item in names}
    replaced = dict(values)
    for field in fields:
        given = values.get(field)
        if isinstance(given, str):
            words = [given] if given.strip() in numbers else re.split(r"[\s,;]+", given.strip())
            replaced[field] = " ".join(str(numbers.get(word.strip(), word)) for word in words)
        elif isinstance(given, list | tuple):
            replaced[field] = [numbers.get(word, word) if isinstance(word, str) else word for word in given]
    return replaced


def _texts(given: Any) -> list[str]:
    """Give names as texts, also those of a job file."""
    if isinstance(given, str):
        return [given]
    if isinstance(given, dict):
        return [f"{key}={name}" for key, name in given.items()]
    rows = given if isinstance(given, list | tuple) else ()
    return [
        f"{row['value']}={row['name']}" if isinstance(row, dict) and {"value", "name"} <= row.keys() else str(row)
        for row in rows
    ]
