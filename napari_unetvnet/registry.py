"""A name table that resolves ``"module:object"``, suggests near names, and reads options without importing.

A member is a class or a function whose options are its keyword-only parameters, or the fields of a dataclass if it has
a parameter ``options`` that is typed by one. `Registry.describe` finds them by reading the member's source: the form
and ``--help`` need names, defaults, choices and their sentences, and importing a network for that would load torch into
the viewer. What cannot be read is refused. A test holds every description against the imported signature.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from typing import Any

from napari_unetvnet.conventions import Option, OptionValue
from napari_unetvnet.declarations import Parameter, read_declaration
from napari_unetvnet.errors import SettingsProblem, near_names

__all__ = ["Description", "Registry"]


@dataclass(frozen=True)
class Description:
    """What a member's source says of it.

    ``facts`` holds the class attributes with literal values and, under a decorator's name, the decorator's literal
    arguments. ``options_class`` is the ``"module:class"`` of a member's options object, if it takes its options so.
    """

    name: str
    target: str
    summary: str
    doc: str
    options: tuple[Option, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)
    options_class: str | None = None

    @property
    def defaults(self) -> dict[str, OptionValue | None]:
        """Option names with their defaults."""
        return {option.name: option.default for option in self.options}

    def section(self, title: str) -> str:
        """Give the text of a section of the docstring, such as Notes.

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

        Returns
        -------
        class or function

        Raises
        ------
        SettingsProblem
            If the table has no such name.
        """
        return _imported(self.check(name))

    def check(self, name: str) -> str:
        """Give the place where a name is defined.

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

        Returns
        -------
        Description

        Raises
        ------
        SettingsProblem
            If the table has no such name.
        """
        return _describe(name, self.check(name))

    def check_options(self, name: str, options: Mapping[str, Any]) -> dict[str, OptionValue]:
        """Check options against a member's parameters.

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
        checked: dict[str, OptionValue] = {}
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

    def build(self, name: str, *inputs: Any, options: Mapping[str, Any]) -> Any:
        """Call a member with options, as keywords or as an object, whichever it takes.

        Parameters
        ----------
        *inputs
            Its positional arguments.
        options : mapping of str to value
            Those that are not its defaults.

        Returns
        -------
        object
            What the member returns.

        Raises
        ------
        SettingsProblem
            If the table has no such name, or an option does not fit.
        """
        checked = self.check_options(name, options)
        options_class = self.describe(name).options_class
        if options_class is None:
            return self.resolve(name)(*inputs, **checked)
        return self.resolve(name)(*inputs, options=_imported(options_class)(**checked))


def _imported(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


_KINDS = {"int": "int", "float": "float", "bool": "bool", "str": "str", "tuple[float, ...]": "floats"}
"""The types that an option may have, as they are written, with what they are called here."""
FOLLOWED = "a name for that which is assigned once, at the top of a module of this package"


@cache
def _describe(name: str, target: str) -> Description:
    try:
        declared = read_declaration(target)
        options = tuple(_option(parameter) for parameter in declared.parameters)
    except TypeError as problem:
        msg = f"{name} ({target}) cannot be described: {problem}."
        raise TypeError(msg) from None
    summary = declared.doc.partition("\n")[0]
    return Description(name, target, summary, declared.doc, options, declared.facts, declared.options_class)


def _option(parameter: Parameter) -> Option:
    kind, choices = _type_of(parameter)
    return Option(parameter.name, kind, _default(parameter), choices, parameter.help)


def _default(parameter: Parameter) -> OptionValue | None:
    if parameter.default is None:
        return None
    try:
        default: OptionValue = ast.literal_eval(parameter.default)
    except ValueError:
        text = ast.unparse(parameter.default)
        msg = f"the default of its option {parameter.name} is {text}, but must be a literal or {FOLLOWED}"
        raise TypeError(msg) from None
    return default


def _type_of(parameter: Parameter) -> tuple[str, tuple[OptionValue, ...]]:
    """Give the kind and the choices of an option."""
    text = ast.unparse(parameter.annotation) if parameter.annotation else "missing"
    if text in _KINDS:
        return _KINDS[text], ()
    try:
        choices = _choices(parameter.annotation)
    except (ValueError, TypeError):
        choices = ()
    kinds = {type(choice).__name__ for choice in choices}
    if len(kinds) != 1 or not kinds <= _KINDS.keys():
        allowed = f"{', '.join(_KINDS)}, Literal[...] of values of one type, or {FOLLOWED}"
        msg = f"the type of its option {parameter.name} is {text}, but must be {allowed}"
        raise TypeError(msg)
    return kinds.pop(), choices


def _choices(annotation: ast.expr | None) -> tuple[OptionValue, ...]:
    """Give the values of a Literal, those of a Literal inside it in its place and each once, as Python does."""
    if not isinstance(annotation, ast.Subscript) or ast.unparse(annotation.value) not in ("Literal", "typing.Literal"):
        raise ValueError
    inside = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
    nested = ((ast.literal_eval(item),) if not isinstance(item, ast.Subscript) else _choices(item) for item in inside)
    return tuple(dict.fromkeys(chain.from_iterable(nested)))
