"""A name table that resolves ``"module:object"``, suggests near names, and reads options without importing.

A member is a class or a function whose options are its keyword-only parameters, or the fields of a dataclass if it has
a parameter ``options`` that is typed by one. `Registry.describe` finds them by reading the member's source: the form
and ``--help`` need names, defaults, choices and their sentences, and importing a network for that would load torch into
the viewer. A test compares every description with the imported signature.

A name in an annotation or a default is replaced by what it stands for, at the top of its module or, where that imports
it, in its own. Only modules of this package and of the member's own are read, because to find others may import their
parents. What cannot be read is refused.
"""

from __future__ import annotations

import ast
import copy
import importlib
import inspect
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec, resolve_name
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

from napari_unetvnet.conventions import Option, OptionValue
from napari_unetvnet.errors import SettingsProblem, near_names

__all__ = ["Description", "Registry"]

Limits = Mapping[str, tuple[int, int]]  # lowest and highest value of an option, whichever member has it
Definition = ast.ClassDef | ast.FunctionDef
KINDS = {"int": "int", "float": "float", "bool": "bool", "str": "str", "tuple[float, ...]": "floats"}
"""The types that an option may have, as they are written, with the kind of `Option` that each is."""
FOLLOWED = "a name for that which is assigned once, at the top of a module of this package"


@dataclass(frozen=True)
class Description:
    """What a member's source says of it.

    ``facts`` holds the class attributes with literal values, inherited ones too, and, under a decorator's name, the
    decorator's literal arguments. ``options_class`` is the ``"module:class"`` of a member's options object, if it takes
    its options so.
    """

    name: str
    target: str
    doc: str
    options: tuple[Option, ...]
    options_class: str | None
    facts: Mapping[str, Any]

    @property
    def summary(self) -> str:
        """First line of the docstring."""
        return self.doc.partition("\n")[0]

    @property
    def defaults(self) -> dict[str, OptionValue | None]:
        """Option names with their defaults."""
        return {option.name: option.default for option in self.options}

    def section(self, title: str) -> str:
        """Give the text of a section of the docstring, such as Notes, or no text if there is no such section."""
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

    def __init__(self, noun: str, members: Mapping[str, str], limits: Limits = MappingProxyType({})) -> None:
        self.noun = noun
        self._members, self._limits = dict(members), dict(limits)

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
        TypeError
            If its source cannot be read.
        """
        place = self.check(name)
        try:
            return _read(name, place)
        except TypeError as problem:
            raise TypeError(f"{name} ({place}) cannot be described: {problem}.") from None

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
        checked, lines = dict[str, OptionValue](), list[str]()
        for key, value in options.items():
            try:
                checked[key] = known[key].check(value, self._limits.get(key))
            except KeyError:
                hint = near_names(key, known) if known else "; it has no options."
                lines.append(f"{self.noun.capitalize()} {name} has no option {key!r}{hint}")
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


@cache
def _read(name: str, target: str) -> Description:
    module, _, attribute = target.partition(":")
    home, node = _find(module, attribute)
    if not isinstance(node, Definition):
        raise TypeError(f"{module} defines no class or function {attribute}, or more than one")
    doc, arguments = _doc(node), _arguments(node)
    options = next((a.annotation for a in (*arguments.args, *arguments.kwonlyargs) if a.arg == "options"), None)
    if options is None:
        return Description(name, target, doc, _keyword_only(home, arguments, doc), None, _facts(home, node))
    place, fields = _dataclass(home, options)
    return Description(name, target, doc, _fields(place, fields), f"{place}:{fields.name}", _facts(home, node))


def _arguments(node: Definition) -> ast.arguments:
    if isinstance(node, ast.FunctionDef):
        return node.args
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return item.args
    raise TypeError(f"class {node.name} needs an __init__ of its own, whose parameters are its options")


def _keyword_only(module: str, arguments: ast.arguments, doc: str) -> tuple[Option, ...]:
    pairs = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return tuple(_option(module, doc, a.arg, a.annotation, default) for a, default in pairs)


def _fields(module: str, node: ast.ClassDef) -> tuple[Option, ...]:
    """Give the fields of a dataclass in their order, which is that of its bases and then its own."""
    classes = list(_with_bases(module, node))
    fields = {
        item.target.id: (home, item.annotation, item.value)
        for home, each in classes
        for item in each.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }
    # The class's own docstring comes first; what it does not say again is inherited.
    doc = "\n\n".join(_doc(each) for _, each in reversed(classes))
    return tuple(_option(home, doc, name, *declared) for name, (home, *declared) in fields.items())


def _with_bases(module: str, node: ast.ClassDef) -> Iterator[tuple[str, ast.ClassDef]]:
    """Go through the bases of a dataclass and then itself, each with the module it is in."""
    for base in reversed(node.bases):
        yield from _with_bases(*_dataclass(module, base))
    yield module, node


def _dataclass(module: str, expression: ast.expr) -> tuple[str, ast.ClassDef]:
    """Find the dataclass that an expression names, and the module it is in."""
    home, node = _find(module, ast.unparse(expression))
    if isinstance(node, ast.ClassDef) and any(ast.unparse(d).startswith("dataclass") for d in node.decorator_list):
        return home, node
    raise TypeError(f"{ast.unparse(expression)} in {module} must be a dataclass that is defined in this package")


def _option(module: str, doc: str, name: str, annotation: ast.expr | None, default: ast.expr | None) -> Option:
    (kind, choices), text = _type_of(name, annotation and _expanded(module, annotation)), _help(doc, name)
    if default is None:
        return Option(name, kind, None, choices, text)
    value = _expanded(module, default)
    refusal = f"the default of its option {name} is {ast.unparse(value)}, but must be a literal or {FOLLOWED}"
    return Option(name, kind, _literal(value, refusal), choices, text)


def _type_of(name: str, annotation: ast.expr | None) -> tuple[str, tuple[OptionValue, ...]]:
    """Give the kind and the choices of an option."""
    text = ast.unparse(annotation) if annotation else "missing"
    if text in KINDS:
        return KINDS[text], ()
    choices: tuple[OptionValue, ...] = ()
    with suppress(ValueError, TypeError):
        choices = _choices(annotation)
    kinds = {type(choice).__name__ for choice in choices}
    if len(kinds) != 1 or not kinds <= KINDS.keys():
        allowed = f"{', '.join(KINDS)}, Literal[...] of values of one type, or {FOLLOWED}"
        raise TypeError(f"the type of its option {name} is {text}, but must be {allowed}")
    return kinds.pop(), choices


def _choices(annotation: ast.expr | None) -> tuple[OptionValue, ...]:
    """Give the values of a Literal, those of a Literal inside it in its place and each once, as Python does."""
    if not isinstance(annotation, ast.Subscript) or ast.unparse(annotation.value) not in ("Literal", "typing.Literal"):
        raise ValueError
    inside = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
    nested = ((ast.literal_eval(item),) if not isinstance(item, ast.Subscript) else _choices(item) for item in inside)
    return tuple(dict.fromkeys(chain.from_iterable(nested)))


def _doc(node: Definition) -> str:
    return inspect.cleandoc(ast.get_docstring(node) or "")


def _help(doc: str, name: str) -> str:
    """Give the text under ``name : type`` in a numpydoc Parameters section."""
    match = re.search(rf"^(?:\w+, )*{name}(?:, \w+)* : [^\n]*\n((?:    [^\n]*\n?)+)", doc, flags=re.MULTILINE)
    return " ".join(match.group(1).split()) if match else ""


def _facts(module: str, node: Definition) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for base in reversed(node.bases) if isinstance(node, ast.ClassDef) else ():
        match _find(module, ast.unparse(base)):
            case (home, ast.ClassDef() as parent):
                facts |= _facts(home, parent)
    for item in node.decorator_list:
        if isinstance(item, ast.Call) and isinstance(item.func, ast.Name):
            refusal = f"the arguments of a decorator must be literals or constants, not {ast.unparse(item)}"
            facts[item.func.id] = tuple(_literal(_expanded(module, argument), refusal) for argument in item.args)
    for statement in node.body if isinstance(node, ast.ClassDef) else []:
        match statement:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ):
                # What is no literal is left out: nothing can be said of it without importing.
                with suppress(ValueError):
                    facts[name] = ast.literal_eval(_expanded(module, value))
    return facts


def _literal(expression: ast.expr, refusal: str) -> Any:
    try:
        return ast.literal_eval(expression)
    except ValueError:
        raise TypeError(refusal) from None


@cache
def _bindings(module: str) -> Mapping[str, ast.stmt]:
    """Give the statement that binds each name at the top of a module; a name bound twice may mean either, so none."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(module)
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    pairs = [(name, statement) for statement in _statements(tree.body) for name in _names(statement)]
    times = Counter(name for name, _ in pairs)
    return {name: statement for name, statement in pairs if times[name] == 1}


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Go through statements and the branches of each ``if``, such as ``if TYPE_CHECKING``."""
    for statement in body:
        if isinstance(statement, ast.If):
            yield from _statements((*statement.body, *statement.orelse))
        else:
            yield statement


def _names(statement: ast.stmt) -> list[str]:
    match statement:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
            return [name]
        case ast.ImportFrom(names=names):
            return [alias.asname or alias.name for alias in names]
        case ast.Assign(targets=targets):
            return [target.id for target in targets if isinstance(target, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr()):
            return [name]
    return []


def _find(module: str, name: str) -> tuple[str, ast.stmt | None]:
    """Find the statement that defines a name, None if no source that is read has it, and the module it is in."""
    statement = _bindings(module).get(name)
    if not isinstance(statement, ast.ImportFrom):
        return module, statement
    spec = find_spec(module)
    origin = resolve_name("." * statement.level + (statement.module or ""), spec.parent if spec else None)
    if origin.partition(".")[0] not in (module.partition(".")[0], __name__.partition(".")[0]):
        return module, None
    return _find(origin, next(alias.name for alias in statement.names if (alias.asname or alias.name) == name))


class _NamesReplaced(ast.NodeTransformer):
    def __init__(self, module: str) -> None:
        self.module = module

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """Give the value assigned to the name, or the name itself if it is none of an assignment."""
        match _find(self.module, node.id):
            case (home, ast.Assign(value=value) | ast.AnnAssign(value=ast.expr() as value)):
                return _expanded(home, value)
        return node


def _expanded(module: str, expression: ast.expr) -> ast.expr:
    """Replace the names in an expression by what they stand for."""
    # The trees are cached, and a NodeTransformer changes what it visits.
    expanded: ast.expr = _NamesReplaced(module).visit(copy.deepcopy(expression))
    return expanded
