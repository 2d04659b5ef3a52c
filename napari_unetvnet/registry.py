"""A name table that resolves ``"module:object"``, suggests near names, and reads options without importing.

A member is a class or a function whose keyword-only parameters are its options. `Registry.describe` finds them by
reading the member's source: the form and ``--help`` need names, defaults, choices and their sentences, and importing a
network for that would load torch into the viewer. A test holds every description against the imported signature.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import inspect
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from napari_unetvnet.errors import SettingsProblem

__all__ = ["Description", "Option", "Registry", "near_names"]

Scalar = bool | int | float | str
Value = Scalar | tuple[float, ...]


@dataclass(frozen=True)
class Option:
    """One keyword-only parameter of a member: its type, default, allowed values (or empty) and its sentence."""

    name: str
    kind: str
    default: Value | None
    choices: tuple[Scalar, ...] = ()
    help: str = ""

    def check(self, value: Any) -> Value:
        """Bring a value, perhaps text from a command line, to this option's type.

        Parameters
        ----------
        value : bool, int, float, str or sequence of float

        Returns
        -------
        bool, int, float, str or tuple of float

        Raises
        ------
        SettingsProblem
            If the value is of another type or not among the choices.
        """
        try:
            checked = _CONVERT[self.kind](value)
        except (ValueError, TypeError, KeyError, OverflowError):
            raise SettingsProblem(f"Option {self.name}={value} must be {_WORDS[self.kind]}.") from None
        if self.choices and checked not in self.choices:
            allowed = ", ".join(map(str, self.choices))
            raise SettingsProblem(f"Option {self.name}={value} must be one of: {allowed}.")
        return checked


@dataclass(frozen=True)
class Description:
    """What a member's source says of it.

    ``facts`` holds the class attributes with literal values and, under a decorator's name, the decorator's literal
    arguments.
    """

    name: str
    target: str
    summary: str
    doc: str
    options: tuple[Option, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def defaults(self) -> dict[str, Value | None]:
        """Option names with their defaults."""
        return {option.name: option.default for option in self.options}

    def section(self, title: str) -> str:
        """Give the text of a section of the docstring, such as Notes.

        Parameters
        ----------
        title : str

        Returns
        -------
        str
            Empty if there is no such section.
        """
        match = re.search(rf"^{title}\n-+\n(.*?)(?=^\w[\w ]*\n---|\Z)", self.doc, flags=re.MULTILINE | re.DOTALL)
        return match.group(1).strip() if match else ""


class Registry(Mapping[str, str]):
    """Names with the place where each is defined.

    Parameters
    ----------
    noun : str
        What a member is called in messages, such as "network".
    members : mapping of str to str
        Name to ``"module:object"``.
    """

    def __init__(self, noun: str, members: Mapping[str, str]) -> None:
        self.noun = noun
        self._members = dict(members)

    def __getitem__(self, name: str) -> str:
        return self._members[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def resolve(self, name: str) -> Any:
        """Import a member.

        Parameters
        ----------
        name : str

        Returns
        -------
        class or function

        Raises
        ------
        SettingsProblem
            If the table has no such name.
        """
        module, _, attribute = self.check(name).partition(":")
        return getattr(importlib.import_module(module), attribute)

    def check(self, name: str) -> str:
        """Find a name's place.

        Parameters
        ----------
        name : str

        Returns
        -------
        str
            ``"module:object"``.

        Raises
        ------
        SettingsProblem
            If the table has no such name; near names are suggested.
        """
        if name not in self._members:
            raise SettingsProblem(f"There is no {self.noun} {name!r}{near_names(name, self)}")
        return self._members[name]

    def describe(self, name: str) -> Description:
        """Read a member's options and docstring from its source.

        Parameters
        ----------
        name : str

        Returns
        -------
        Description

        Raises
        ------
        SettingsProblem
            If the table has no such name.
        """
        return _describe(name, self.check(name))

    def check_options(self, name: str, options: Mapping[str, Any]) -> dict[str, Value]:
        """Check options against a member's parameters.

        Parameters
        ----------
        name : str
        options : mapping of str to value

        Returns
        -------
        dict
            The same options, each in its declared type.

        Raises
        ------
        SettingsProblem
            If the member has no such option or the value does not fit, one line for each.
        """
        known = {option.name: option for option in self.describe(name).options}
        checked: dict[str, Value] = {}
        lines: list[str] = []
        for key, value in options.items():
            try:
                if key not in known:
                    hint = near_names(key, known) if known else "; it has no options."
                    raise SettingsProblem(f"{self.noun.capitalize()} {name} has no option {key!r}{hint}")
                checked[key] = known[key].check(value)
            except SettingsProblem as problem:
                lines += problem.lines
        if lines:
            raise SettingsProblem(*lines)
        return checked


def near_names(name: str, known: Mapping[str, Any]) -> str:
    """Say what a mistyped name may have meant.

    Parameters
    ----------
    name : str
    known : mapping
        Its keys are the right names.

    Returns
    -------
    str
        The end of a sentence: the near names if there are any, else all of them.
    """
    near = difflib.get_close_matches(name, list(known), n=3)
    if near:
        return f"; did you mean {' or '.join(near)}?"
    return f"; there are {', '.join(known)}."


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


_CONVERT: dict[str, Callable[[Any], Value]] = {
    "int": _to_int,
    "float": _to_float,
    "bool": _to_bool,
    "str": str,
    "floats": _to_floats,
}
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "floats": "a row of numbers such as 1, 2",
}


@cache
def _describe(name: str, target: str) -> Description:
    module, _, attribute = target.partition(":")
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(module)
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    node = next(
        item for item in tree.body if isinstance(item, ast.ClassDef | ast.FunctionDef) and item.name == attribute
    )
    doc = inspect.cleandoc(ast.get_docstring(node) or "")
    return Description(
        name=name,
        target=target,
        summary=doc.partition("\n")[0],
        doc=doc,
        options=_options(_signature(node), doc),
        facts=_facts(node),
    )


def _signature(node: ast.ClassDef | ast.FunctionDef) -> ast.arguments:
    if isinstance(node, ast.FunctionDef):
        return node.args
    return next(item.args for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__")


def _options(arguments: ast.arguments, doc: str) -> tuple[Option, ...]:
    options = []
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        kind, choices = _type_of(argument.annotation)
        value = None if default is None else ast.literal_eval(default)
        options.append(Option(argument.arg, kind, value, choices, _parameter_help(doc, argument.arg)))
    return tuple(options)


def _type_of(annotation: ast.expr | None) -> tuple[str, tuple[Scalar, ...]]:
    """Understand what a form and a command line can show: int, float, bool, str, tuple[float, ...], Literal[...]."""
    if isinstance(annotation, ast.Name):
        return annotation.id, ()
    if annotation is not None and ast.unparse(annotation) == "tuple[float, ...]":
        return "floats", ()
    if isinstance(annotation, ast.Subscript):
        inside = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
        choices = tuple(ast.literal_eval(item) for item in inside)
        return type(choices[0]).__name__, choices
    found = ast.dump(annotation) if annotation else "none"
    msg = f"an option's type must be int, float, bool, str, tuple[float, ...] or Literal[...], not {found}"
    raise TypeError(msg)


def _parameter_help(doc: str, name: str) -> str:
    """Find the text under ``name : type`` in a numpydoc Parameters section."""
    match = re.search(rf"^(?:\w+, )*{name}(?:, \w+)* : [^\n]*\n((?:    [^\n]*\n?)+)", doc, flags=re.MULTILINE)
    return " ".join(match.group(1).split()) if match else ""


def _facts(node: ast.ClassDef | ast.FunctionDef) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for item in node.decorator_list:
        if isinstance(item, ast.Call) and isinstance(item.func, ast.Name):
            facts[item.func.id] = tuple(ast.literal_eval(argument) for argument in item.args)
    for statement in node.body if isinstance(node, ast.ClassDef) else []:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            try:
                facts[statement.targets[0].id] = ast.literal_eval(statement.value)
            except ValueError:
                continue  # not a literal: nothing to tell without importing
    return facts
