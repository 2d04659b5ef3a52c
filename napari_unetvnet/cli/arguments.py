"""Command-line arguments derived from settings models, so that each setting is declared once.

A field becomes an option with its description as help; ranges and types are checked by the model, not here. The
command line of the settings library is not used because it splits list values at commas and brackets, which file names
may contain.
"""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser, BooleanOptionalAction, HelpFormatter
from typing import TYPE_CHECKING, Any, NoReturn

from napari_unetvnet.errors import SettingsProblem

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Sequence

    from napari_unetvnet.settings import Settings
    from napari_unetvnet.settings.describe import Setting

    Add = Callable[[str, Callable[[Namespace], int | None], str], "Parser"]

__all__ = ["Parser", "add_fields", "merge", "option_rows"]

FILES = ("image", "label", "mask")
BUDGETS = ("minutes", "epochs", "steps")
WORDS = {
    "int": "N",
    "float": "NUMBER",
    "str": "NAME",
    "path": "FILE",
    "region": "VALUE",
    "class_name": "VALUE=NAME",
    "time": "T",
    "sum": "TEXT",
    "options": "KEY=VALUE",
}
"""Metavariable of each kind of value in the help; a choice lists its values."""


class Parser(ArgumentParser):
    """An argument parser that raises errors instead of exiting."""

    def error(self, message: str) -> NoReturn:
        """Raise the error of the command line.

        Raises
        ------
        SettingsProblem
            Always.
        """
        raise SettingsProblem(f"{message[0].upper()}{message[1:]}; see {self.prog} --help.")


class Formatter(HelpFormatter):
    """Help formatter wide enough for the longest option."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=110)


def add_fields(parser: ArgumentParser, kind: type[Settings], positional: Sequence[str] = ()) -> None:
    """Add an option for each field of a settings model.

    Parameters
    ----------
    positional : sequence of str
        Fields that become positional arguments; they are optional, because a settings file may contain them.
    """
    for setting in _described(kind):
        described: dict[str, Any] = {"help": _help(setting), "default": SUPPRESS}
        if setting.name in positional:
            parser.add_argument(setting.name, nargs="?", metavar=setting.name.upper(), **described)
        else:
            parser.add_argument(_flag(setting.name), **described, **_shape(setting))


def option_rows(kind: type[Settings]) -> list[tuple[str, str, str]]:
    """Describe the options of a settings model for a reference page.

    Returns
    -------
    list of (option, default, meaning)
    """
    return [(_names(setting), _default(setting) or "", setting.help) for setting in _described(kind)]


def _described(kind: type[Settings]) -> list[Setting]:
    from napari_unetvnet.settings.describe import describe_settings  # slow to import, and --help does not need it

    return list(describe_settings(kind).values())


def _names(setting: Setting) -> str:
    """Return the flag of an option, and its --no- form if the default is True."""
    flag = _flag(setting.name)
    return f"{flag} {_flag('no_' + setting.name)}" if setting.default is True else flag


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _default(setting: Setting) -> str | None:
    """Format a default for the help; None if there is nothing to show."""
    if setting.auto:
        return "auto"
    if isinstance(setting.default, bool) or not isinstance(setting.default, str | int | float):
        return None
    return str(setting.default)


def _help(setting: Setting) -> str:
    text, default = setting.help.replace("%", "%%"), _default(setting)
    return text if default is None else f"{text} Default: {default}."


def _shape(setting: Setting) -> dict[str, Any]:
    """Return the arguments of ``add_argument`` that define the number of values and their metavariables."""
    if setting.kind == "bool":
        return {"action": BooleanOptionalAction if setting.default is True else "store_true"}
    if setting.kind == "options":
        return {"action": "append", "metavar": WORDS["options"]}
    if setting.count is None:
        metavar = {"str": "NAME", "class_name": WORDS["class_name"]}.get(setting.kind, "VALUE")
        metavar = "FILE" if setting.name in FILES else metavar
        return {"nargs": "+", "action": "extend", "metavar": metavar}
    if setting.count > 1:
        return {"nargs": setting.count, "metavar": tuple("ZYX")[: setting.count]}
    return {"metavar": WORDS.get(setting.kind) or "{" + ",".join(map(str, setting.choices)) + "}"}


def merge(parsed: dict[str, Any], stored: dict[str, Any]) -> dict[str, Any]:
    """Override the settings of a file with those of the command line.

    Parameters
    ----------
    parsed : dict
        From the command line; ``option`` is a list of ``key=value``.
    stored : dict
        From a settings file.

    Returns
    -------
    dict
        A budget on the command line replaces any in the file; options are merged key by key.

    Raises
    ------
    SettingsProblem
        If an option is not written ``key=value``.
    """
    merged = dict(stored)
    if any(name in parsed for name in BUDGETS):
        merged = {name: value for name, value in merged.items() if name not in BUDGETS}
    if {"image", "label"} & set(parsed):
        merged.pop("pairs", None)
    if "pairs" in parsed:
        merged = {name: value for name, value in merged.items() if name not in ("image", "label")}
    if "network" in parsed and parsed["network"] != merged.get("network"):
        merged.pop("option", None)  # these are options of another network
    if "option" not in parsed:
        return merged | parsed
    options = dict(stored) if isinstance(stored := merged.get("option", {}), dict) else {}
    for text in parsed["option"]:
        key, sign, value = text.partition("=")
        if not sign:
            raise SettingsProblem(f"Option {text!r} should be written key=value, such as width=16.")
        options[key.strip().replace("-", "_")] = value.strip()
    return merged | parsed | {"option": options}
