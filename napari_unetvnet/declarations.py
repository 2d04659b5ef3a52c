"""Classes and functions as their source declares them: parameters, docstring, constants, without importing anything.

A name in an annotation or a default is replaced by what it stands for. It is looked up among the statements at the top
of its module and, where one of these imports it, in the source of the module that it comes from. Only modules of this
package and of the member's own are read: others would be found by importing their parents, which may be slow.
"""

from __future__ import annotations

import ast
import copy
import inspect
import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["Declaration", "Parameter", "read_declaration"]

Definition = ast.ClassDef | ast.FunctionDef


@dataclass(frozen=True)
class Parameter:
    """A parameter or a field, with names replaced by what they stand for; ``help`` is its text in the docstring."""

    name: str
    annotation: ast.expr | None
    default: ast.expr | None
    help: str


@dataclass(frozen=True)
class Declaration:
    """What the source says of a class or function.

    Parameters
    ----------
    parameters : tuple of Parameter
        Those that are keyword-only, or the fields of the options object if it takes one.
    options_class : str or None
        ``"module:class"`` of that object.
    facts : mapping of str to literal value
        Class attributes, inherited ones too, and, under a decorator's name, the decorator's arguments.
    """

    doc: str
    parameters: tuple[Parameter, ...]
    options_class: str | None
    facts: Mapping[str, Any]


def read_declaration(target: str) -> Declaration:
    """Read a class or function.

    Parameters
    ----------
    target : str
        ``"module:object"``.

    Returns
    -------
    Declaration

    Raises
    ------
    TypeError
        If the module does not define it, or its options object is no dataclass that can be read.
    """
    module, _, name = target.partition(":")
    home, node = _find(module, name) or (module, None)
    if not isinstance(node, Definition):
        msg = f"{module} defines no class or function {name}, or more than one"
        raise TypeError(msg)
    doc, arguments = _doc(node), _arguments(node)
    options = next((a.annotation for a in (*arguments.args, *arguments.kwonlyargs) if a.arg == "options"), None)
    options_class, parameters = None, _keyword_only(home, arguments, doc)
    if options is not None:
        place, options_node = _dataclass(home, options)
        options_class, parameters = f"{place}:{options_node.name}", tuple(_fields(place, options_node).values())
    return Declaration(doc, parameters, options_class, _facts(home, node))


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


def _find(module: str, name: str) -> tuple[str, ast.stmt] | None:
    """Find the statement that defines a name, and the module it is in; None if no source that is read has one."""
    statement = _bindings(module).get(name)
    if statement is None or not isinstance(statement, ast.ImportFrom):
        return None if statement is None else (module, statement)
    spec = find_spec(module)
    origin = resolve_name("." * statement.level + (statement.module or ""), spec.parent if spec else None)
    if origin.partition(".")[0] not in (module.partition(".")[0], __name__.partition(".")[0]):
        return None
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


def _parameter(module: str, argument: ast.arg, default: ast.expr | None, text: str) -> Parameter:
    annotation = argument.annotation and _expanded(module, argument.annotation)
    return Parameter(argument.arg, annotation, default and _expanded(module, default), text)


def _keyword_only(module: str, arguments: ast.arguments, doc: str) -> tuple[Parameter, ...]:
    pairs = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return tuple(_parameter(module, argument, default, _help(doc, argument.arg)) for argument, default in pairs)


def _dataclass(module: str, expression: ast.expr) -> tuple[str, ast.ClassDef]:
    """Find the dataclass that an expression names, and the module it is in."""
    home, node = _find(module, ast.unparse(expression)) or (module, None)
    if isinstance(node, ast.ClassDef) and any(ast.unparse(d).startswith("dataclass") for d in node.decorator_list):
        return home, node
    msg = f"{ast.unparse(expression)} in {module} must be a dataclass that is defined in this package"
    raise TypeError(msg)


def _fields(module: str, node: ast.ClassDef) -> dict[str, Parameter]:
    """Give the fields of a dataclass in their order, which is that of its bases and then its own."""
    fields: dict[str, Parameter] = {}
    for base in reversed(node.bases):
        fields |= _fields(*_dataclass(module, base))
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            argument = ast.arg(item.target.id, item.annotation)
            text = fields[argument.arg].help if argument.arg in fields else ""
            fields[argument.arg] = _parameter(module, argument, item.value, text)
    doc = _doc(node)
    # The class's own docstring comes first; what it does not say again is inherited.
    return {name: replace(field, help=_help(doc, name) or field.help) for name, field in fields.items()}


def _arguments(node: Definition) -> ast.arguments:
    if isinstance(node, ast.FunctionDef):
        return node.args
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return item.args
    msg = f"class {node.name} needs an __init__ of its own, whose parameters are its options"
    raise TypeError(msg)


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
            facts[item.func.id] = tuple(_argument(module, item, argument) for argument in item.args)
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


def _argument(module: str, decorator: ast.Call, argument: ast.expr) -> Any:
    try:
        return ast.literal_eval(_expanded(module, argument))
    except ValueError:
        msg = f"the arguments of a decorator must be literals or constants, not {ast.unparse(decorator)}"
        raise TypeError(msg) from None
