"""Descriptions of settings, read from their declarations.

The command line, the form and the reference page are generated from these descriptions. Unknown types are refused, so
that no setting is shown as another type: a new type needs a row of `KINDS` or a rule in `_read`.
"""

from __future__ import annotations

import types
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from napari_unetvnet.conventions import OptionValue
from napari_unetvnet.losses import LossTerm
from napari_unetvnet.settings.class_names import ClassName
from napari_unetvnet.settings.regions import LabelRegion
from napari_unetvnet.settings.time_points import TimePoint

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic.fields import FieldInfo

    from napari_unetvnet.conventions import Option
    from napari_unetvnet.settings.base import Settings

__all__ = ["Bounds", "Kind", "Setting", "Values", "describe_option", "describe_settings"]

Kind = Literal["bool", "int", "float", "str", "choice", "path", "region", "class_name", "time", "sum", "options"]
"""Type of a single value. A choice is one of some words, a sum the text of a weighted sum of losses, options are
``key=value``."""
KINDS: tuple[tuple[Any, Kind], ...] = (
    (bool, "bool"),
    (int, "int"),
    (float, "float"),
    (str, "str"),
    (Path, "path"),
    (LabelRegion, "region"),
    (ClassName, "class_name"),
    (TimePoint, "time"),
    (tuple[LossTerm, ...], "sum"),
    (dict[str, OptionValue], "options"),
)
OPTION_KINDS: dict[str, tuple[Kind, int | None]] = {
    "bool": ("bool", 1),
    "int": ("int", 1),
    "float": ("float", 1),
    "str": ("str", 1),
    "floats": ("float", None),
}
"""Kind and count of an option of a network or a loss."""


class Bounds(NamedTuple):
    """Limits of a number; integers have only inclusive ones (ge, le)."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None


UNBOUNDED = Bounds()


@dataclass(frozen=True, kw_only=True)
class Values:
    """The values that a setting accepts."""

    kind: Kind
    choices: tuple[Any, ...] = ()
    """The allowed values if the kind is choice."""
    words: tuple[str, ...] = ()
    """Words that are accepted instead of values."""
    bounds: Bounds = UNBOUNDED
    count: int | None = 1
    """Number of values: one, a row of a fixed number, or any number (None)."""
    by_class: bool = False
    """Whether each value may be given for one class, as ``class=value``."""
    optional: bool = False
    """Whether None is a value."""


@dataclass(frozen=True, kw_only=True)
class Setting(Values):
    """A field of a settings model."""

    name: str
    help: str
    default: Any = None
    """Also None without a default."""
    auto: bool = False
    """Whether it is chosen from the data if it is not set."""


def describe_settings(model: type[Settings]) -> dict[str, Setting]:
    """Describe the settings of a model, its own before the inherited ones.

    Returns
    -------
    dict of str to Setting
        By name.

    Raises
    ------
    TypeError
        If a setting has no sentence, or a type that is not known here.
    """
    ordered = sorted(model.model_fields.items(), key=lambda item: item[0] not in model.__annotations__)
    return {name: _setting(model, name, field) for name, field in ordered}


def describe_option(option: Option) -> Setting:
    """Describe an option of a network or a loss as a setting; its numbers are at least 0."""
    kind, count = OPTION_KINDS[option.kind]
    return Setting(
        name=option.name,
        help=option.help,
        default=option.default,
        kind="choice" if option.choices else kind,
        choices=option.choices,
        count=count,
        bounds=Bounds(ge=0),
    )


def _setting(model: type[Settings], name: str, field: FieldInfo) -> Setting:
    if not field.description:
        raise TypeError(f"Setting {model.__name__}.{name} has no sentence; write one below its declaration.")
    try:
        values = _read(field.annotation, field.metadata)
    except TypeError as problem:
        raise TypeError(f"Setting {model.__name__}.{name}: {problem}") from None
    return Setting(
        **vars(values),
        name=name,
        help=" ".join(field.description.split()),
        default=None if field.is_required() else field.get_default(call_default_factory=True),
        auto=name in model.left_open,
    )


def _read(annotation: Any, metadata: Iterable[Any] = ()) -> Values:
    """Describe the values of a type with its metadata."""
    origin, inside = get_origin(annotation), get_args(annotation)
    for supported, kind in KINDS:
        if annotation == supported:
            return Values(kind=kind, bounds=_bounds(kind, metadata))
    if origin is Annotated:
        return _read(inside[0], [item for part in inside[1:] for item in getattr(part, "metadata", (part,))])
    if origin is Literal:
        return Values(kind="choice", choices=inside)
    if origin in (Union, types.UnionType):
        return _read_union(annotation, inside, metadata)
    if origin is tuple and inside:
        return _read_row(inside)
    raise _unknown(annotation)


def _read_union(annotation: Any, inside: tuple[Any, ...], metadata: Iterable[Any]) -> Values:
    """Describe a union: an optional type, a type or some words, or both."""
    words = tuple(word for part in inside if get_origin(part) is Literal for word in get_args(part))
    value_types = [part for part in inside if part is not types.NoneType and get_origin(part) is not Literal]
    if len(value_types) > 1:
        raise _unknown(annotation)
    values = _read(value_types[0], metadata) if value_types else Values(kind="choice", choices=words)
    return replace(values, words=words if value_types else (), optional=types.NoneType in inside)


def _read_row(inside: tuple[Any, ...]) -> Values:
    """Describe a tuple: any number of values, possibly by class, or a row of equal types."""
    if inside[-1] is not Ellipsis:
        values, *following = map(_read_single, inside)
        if any(item != values for item in following):
            raise TypeError("the values of a row have different types; declare a setting for each")
        return replace(values, count=len(inside))
    if get_origin(inside[0]) is tuple and len(get_args(inside[0])) == 2:
        label, value = map(_read_single, get_args(inside[0]))
        if label.kind == "int":
            return replace(value, count=None, by_class=True)
    return replace(_read_single(inside[0]), count=None)


def _read_single(annotation: Any) -> Values:
    """Describe an item of a row, which must not be a row itself."""
    values = _read(annotation)
    if values.count != 1 or values.words or values.optional:
        raise _unknown(annotation)
    return values


def _bounds(kind: Kind, metadata: Iterable[Any]) -> Bounds:
    """Give the limits of a number; exclusive limits of integers become inclusive ones."""
    declared = [(end, getattr(item, end, None)) for item in metadata for end in Bounds._fields]
    ends = {end: limit for end, limit in declared if limit is not None}
    if kind == "int":
        ends |= {to: ends.pop(end) + step for end, to, step in (("gt", "ge", 1), ("lt", "le", -1)) if end in ends}
    return Bounds(**ends)


def _unknown(annotation: Any) -> TypeError:
    supported = "a number, text, path, Literal, a tuple of one of these, one of these or None, or one in KINDS"
    return TypeError(f"the type {annotation} is not known; declare {supported}, or add it to settings/describe.py")
