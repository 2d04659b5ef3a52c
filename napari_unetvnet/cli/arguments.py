"""Command-line arguments derived from settings models, so that each setting is declared once.

A field becomes an option with its description as help; ranges and types are checked by the model, not here. The
settings library's own command line is not used because it cuts list values at commas and brackets, which file names
contain.
"""

from __future__ import annotations

import types
from argparse import SUPPRESS, ArgumentParser, BooleanOptionalAction, HelpFormatter
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, Union, get_args, get_origin

from napari_unetvnet.errors import SettingsProblem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic.fields import FieldInfo

    from napari_unetvnet.settings import Settings

__all__ = ["Parser", "add_fields", "merge", "option_rows"]

BUDGETS = ("minutes", "epochs", "steps")


class Parser(ArgumentParser):
    """An argument parser whose mistakes are sentences for the user instead of an exit."""

    def error(self, message: str) -> NoReturn:
        """Refuse the command line.

        Parameters
        ----------
        message : str

        Raises
        ------
        SettingsProblem
            Always.
        """
        raise SettingsProblem(f"{message[0].upper()}{message[1:]}; see {self.prog} --help.")


class Formatter(HelpFormatter):
    """Help with room for the longest option."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=110)


def add_fields(parser: ArgumentParser, kind: type[Settings], positional: Sequence[str] = ()) -> None:
    """Add an option for each field of a settings model, its own before the inherited ones.

    Parameters
    ----------
    parser : ArgumentParser
    kind : type of Settings
    positional : sequence of str
        Fields that are given without a name; they may still come from a settings file instead.
    """
    for name, field in _ordered(kind):
        described: dict[str, Any] = {"help": _help(kind, name, field), "default": SUPPRESS}
        if name in positional:
            parser.add_argument(name, nargs="?", metavar=name.upper(), **described)
        else:
            parser.add_argument(_flag(name), **described, **_shape(field))


def option_rows(kind: type[Settings]) -> list[tuple[str, str, str]]:
    """Describe the options of a settings model for a reference page.

    Parameters
    ----------
    kind : type of Settings

    Returns
    -------
    list of (option, default, meaning)
    """
    fields = ((name, field, _default(kind, name, field)) for name, field in _ordered(kind))
    return [(_names(name, field), default or "", field.description or "") for name, field, default in fields]


def _names(name: str, field: FieldInfo) -> str:
    """Name an option, and how it is turned off."""
    return f"{_flag(name)} {_flag('no_' + name)}" if field.default is True else _flag(name)


def _ordered(kind: type[Settings]) -> list[tuple[str, FieldInfo]]:
    """Give the fields, a model's own before the inherited ones."""
    own = kind.__annotations__
    return sorted(kind.model_fields.items(), key=lambda item: item[0] not in own)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _default(kind: type[Settings], name: str, field: FieldInfo) -> str | None:
    """Write a default for the help; None where there is none to speak of."""
    if name in getattr(kind, "left_open", ()):
        return "auto"
    if field.is_required() or isinstance(field.default, bool) or not isinstance(field.default, str | int | float):
        return None
    return str(field.default)


def _help(kind: type[Settings], name: str, field: FieldInfo) -> str:
    text = (field.description or "").replace("%", "%%")
    default = _default(kind, name, field)
    return text if default is None else f"{text} Default: {default}."


def _shape(field: FieldInfo) -> dict[str, Any]:
    """Say how many words an option takes and what they are called in the help."""
    from napari_unetvnet.losses import LossTerm  # here, so that help of all commands does not wait for settings

    inner = _without_none(field.annotation)
    origin, inside = get_origin(inner), get_args(inner)
    if origin is Literal:
        return {"metavar": "{" + ",".join(map(str, inside)) + "}"}
    if origin is dict:
        return {"action": "append", "metavar": "KEY=VALUE"}
    if origin is tuple and inside[-1] is not Ellipsis:
        return {"nargs": len(inside), "metavar": tuple("ZYX")[: len(inside)]}
    if origin is tuple and inside[0] is not LossTerm:  # a sum of losses is one text
        return {"nargs": "+", "action": "extend", "metavar": {str: "FILE"}.get(_without_none(inside[0]), "VALUE")}
    if inner is bool:
        return {"action": BooleanOptionalAction if field.default is True else "store_true"}
    names = {int: "N", float: "NUMBER", str: "NAME"}
    return {"metavar": names.get(inner, "FILE" if inner.__class__ is type else "TEXT")}


def _without_none(annotation: Any) -> Any:
    """Look through Annotated and Optional."""
    if get_origin(annotation) is Annotated:
        return _without_none(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        rest = [kind for kind in get_args(annotation) if kind is not type(None)]
        rows = [kind for kind in rest if get_origin(kind) is tuple]  # a row of words may also be a single one
        return _without_none((rows or rest)[0]) if len(rest) == 1 or rows else annotation
    return annotation


def merge(given: dict[str, Any], stored: dict[str, Any]) -> dict[str, Any]:
    """Put what was given on the command line over what a settings file says.

    Parameters
    ----------
    given : dict
        As parsed; ``option`` is a list of ``key=value``.
    stored : dict
        From a settings file.

    Returns
    -------
    dict
        A given budget replaces any other in the file; options are merged key by key.

    Raises
    ------
    SettingsProblem
        If an option is not written ``key=value``.
    """
    merged = dict(stored)
    if any(name in given for name in BUDGETS):
        merged = {name: value for name, value in merged.items() if name not in BUDGETS}
    if {"image", "label"} & set(given):
        merged.pop("pairs", None)
    if "pairs" in given:
        merged = {name: value for name, value in merged.items() if name not in ("image", "label")}
    if "network" in given and given["network"] != merged.get("network"):
        merged.pop("option", None)  # another network's options
    if "option" not in given:
        return merged | given
    options = dict(stored) if isinstance(stored := merged.get("option", {}), dict) else {}
    for text in given["option"]:
        key, sign, value = text.partition("=")
        if not sign:
            raise SettingsProblem(f"Option {text!r} should be written key=value, such as width=16.")
        options[key.strip().replace("-", "_")] = value.strip()
    return merged | given | {"option": options}
