"""Options are read from source text as Python itself would see them after an import, or refused with the reason."""

from __future__ import annotations

import importlib
import itertools
import sys
from dataclasses import fields
from pathlib import Path
from textwrap import dedent

import pytest

from napari_unetvnet.errors import SettingsProblem
from napari_unetvnet.registry import Registry

COUNT = itertools.count()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Write modules of a new package, "PACKAGE" standing for its name, and give a table of its member."""
    monkeypatch.syspath_prepend(tmp_path)
    name = f"zoo{next(COUNT)}"

    def write(member="Net", **modules):
        (tmp_path / name).mkdir()
        for module, text in {"__init__": "", **modules}.items():
            source = "from __future__ import annotations\n" + dedent(text).replace("PACKAGE", name)
            (tmp_path / name / f"{module}.py").write_text(source)
        return Registry("network", {"net": f"{name}.nets:{member}"})

    yield write
    for loaded in [module for module in sys.modules if module.partition(".")[0] == name]:
        del sys.modules[loaded]


def net(annotation="Kind", default='"a"', before=""):
    """The source of a module whose class has one option, `kind`."""
    return f"""
from typing import Literal, TypeAlias, TYPE_CHECKING
{before}
class Net:
    '''A net.

    Parameters
    ----------
    kind : str
        What it is made of.
    '''

    def __init__(self, dims, *, kind: {annotation} = {default}):
        self.kind = kind
"""


def only_option(table):
    (option,) = table.describe("net").options
    return option


AB = 'Literal["a", "b"]'


@pytest.mark.parametrize(
    ("before", "annotation", "choices"),
    [
        (f"Kind = {AB}", "Kind", ("a", "b")),
        (f"Kind: TypeAlias = {AB}", "Kind", ("a", "b")),
        (f"Other = {AB}\nKind = Other", "Kind", ("a", "b")),
        (f"Other = {AB}", 'Literal["c", Other]', ("c", "a", "b")),
        (f'Other = {AB}\nKind = Literal["b", Other, Literal["c"]]', "Kind", ("b", "a", "c")),
        ("import typing", 'typing.Literal["a"]', ("a",)),
        (f"if TYPE_CHECKING:\n    Kind = {AB}", "Kind", ("a", "b")),
    ],
)
def test_an_alias_of_the_module_is_followed(package, before, annotation, choices):
    option = only_option(package(nets=net(annotation, repr(choices[0]), before)))
    assert (option.kind, option.choices, option.default) == ("str", choices, choices[0])
    assert option.help == "What it is made of."


@pytest.mark.parametrize(
    "importing",
    [
        "from PACKAGE.kinds import Kind",
        "from PACKAGE.kinds import Other as Kind",
        "from PACKAGE import Kind",
        "from .kinds import Kind",
        "if TYPE_CHECKING:\n    from PACKAGE.kinds import Kind",
    ],
)
def test_an_alias_is_followed_into_other_modules_of_the_package_without_importing_them(package, importing):
    kinds = f"from typing import Literal\nOther = {AB}\nKind = Other\nraise ImportError"
    table = package(
        nets=net(before=importing),
        kinds=kinds,
        __init__="TYPE_CHECKING = False\nif TYPE_CHECKING:\n    from PACKAGE.kinds import Kind",
    )
    assert only_option(table).choices == ("a", "b")
    with pytest.raises(SettingsProblem, match="must be one of: a, b"):
        table.check_options("net", {"kind": "c"})


def test_a_simple_type_may_have_a_name_and_a_default_may_be_a_constant(package):
    before = "Width: TypeAlias = int\nWIDTH = 64\nSIZES = (1.0, WIDTH)"
    option = only_option(package(nets=net("Width", "WIDTH", before)))
    assert (option.kind, option.default) == ("int", 64)
    assert option.check("8") == 8


@pytest.mark.parametrize(
    ("default", "value"), [("SIZES", (1.0, 64)), ("(0.5, WIDTH)", (0.5, 64)), ("(-1.0, 2.0)", (-1.0, 2.0))]
)
def test_a_row_of_numbers_may_be_made_of_constants(package, default, value):
    option = only_option(package(nets=net("tuple[float, ...]", default, "WIDTH = 64\nSIZES = (1.0, WIDTH)")))
    assert (option.kind, option.default) == ("floats", value)


@pytest.mark.parametrize(
    ("before", "annotation", "default", "reason"),
    [
        ("", "Kind", '"a"', "Kind"),  # a name from nowhere
        ("class Kind: ...", "Kind", '"a"', "Kind"),
        ("from typing import Any", "Any", '"a"', "Any"),  # another package is not read
        ("from enum import *", "Kind", '"a"', "Kind"),
        (f'Kind = {AB}\nKind = Literal["c"]', "Kind", '"a"', "Kind"),  # which of the two?
        (f"if len('a'):\n    Kind = {AB}\nelse:\n    Kind = str", "Kind", '"a"', "Kind"),
        ("", "str | None", "None", "str | None"),
        ("", "list[str]", "[]", "list[str]"),
        ("", '"str"', '"a"', "'str'"),
        ("", 'Literal["a", 1]', '"a"', "Literal['a', 1]"),
        ("", "Literal[None]", "None", "Literal[None]"),
        ('KINDS = ("a", "b")', "Literal[*KINDS]", '"a"', "Literal[*"),
        ("import typing as t", 't.Literal["a"]', '"a"', "t.Literal['a']"),
    ],
)
def test_a_type_that_cannot_be_read_is_refused(package, before, annotation, default, reason):
    table = package(nets=net(annotation, default, before))
    with pytest.raises(TypeError) as caught:
        table.describe("net")
    text = str(caught.value)
    assert all(word in text for word in (table["net"], "kind", reason, "Literal", "tuple[float, ...]"))


@pytest.mark.parametrize("default", ["make()", "2 * WIDTH", "missing", "other.WIDTH"])
def test_a_default_that_cannot_be_read_is_refused(package, default):
    table = package(nets=net("int", default, "WIDTH = 2\nimport os as other"))
    with pytest.raises(TypeError) as caught:
        table.describe("net")
    assert all(word in str(caught.value) for word in (table["net"], "kind", "default", default.replace("WIDTH", "")))


def test_an_option_without_a_type_is_refused(package):
    table = package(nets="class Net:\n    def __init__(self, *, kind=1): ...")
    with pytest.raises(TypeError, match=r"type of its option kind is missing"):
        table.describe("net")


@pytest.mark.parametrize("source", ["", "Net = 3", "class Other: ..."])
def test_a_member_that_its_module_does_not_define_is_refused(package, source):
    table = package(nets=source)
    with pytest.raises(TypeError, match=rf"{table['net']}.*class or function"):
        table.describe("net")


def test_a_class_without_a_constructor_of_its_own_is_refused(package):
    table = package(nets="class Base: ...\nclass Net(Base): ...")
    with pytest.raises(TypeError, match=rf"{table['net']}.*__init__"):
        table.describe("net")


def test_facts_may_be_constants_and_what_a_decorator_declares_must_be_readable(package):
    table = package(nets="DIMS = (3,)\nclass Net:\n    dims = DIMS\n    few: int = 1\n    def __init__(self): ...")
    assert table.describe("net").facts == {"dims": (3,), "few": 1}
    broken = Registry("loss", {"net": table["net"].replace("nets", "losses")})
    source = importlib.util.find_spec(table["net"].partition(":")[0]).origin.replace("nets", "losses")
    Path(source).write_text("@head_modes(*MODES)\ndef Net(prepared): ...")
    with pytest.raises(TypeError, match="head_modes"):
        broken.describe("net")


def test_facts_are_inherited_from_the_sources_of_the_bases(package):
    base = "from abc import ABC\nclass Base(ABC):\n    dims = (3,)\n    gives = ()"
    nets = "from PACKAGE.base import Base\nclass Net(Base):\n    gives = ('a',)\n    def __init__(self): ..."
    assert package(nets=nets, base=base).describe("net").facts == {"dims": (3,), "gives": ("a",)}


OPTIONS = '''
from dataclasses import dataclass
from typing import Literal

Kind = Literal["a", "b"]
WIDTH = 64

@dataclass(frozen=True)
class Options:
    """Of a net.

    Parameters
    ----------
    kind : {"a", "b"}
        What it is made of.
    width : int
        Channels.
    """

    kind: Kind = "a"
    width: int = WIDTH
'''
NETS = '''
from dataclasses import dataclass
from typing import Literal
from PACKAGE.options import Kind, Options

@dataclass(frozen=True)
class NetOptions(Options):
    """Of this net.

    Parameters
    ----------
    width : int
        Channels of the first stage.
    depth : int
        Stages.
    """

    kind: Literal["b", Kind] = "b"
    depth: int = 3

class Net:
    """A net."""

    def __init__(self, dims, options: NetOptions):
        self.dims, self.options = dims, options
'''


def test_the_fields_of_an_options_object_are_options_with_those_of_its_base_first(package):
    table = package(nets=NETS, options=OPTIONS)
    options = table.describe("net").options
    assert [(o.name, o.kind, o.default, o.choices) for o in options] == [
        ("kind", "str", "b", ("b", "a")),
        ("width", "int", 64, ()),
        ("depth", "int", 3, ()),
    ]
    assert [o.help for o in options] == ["What it is made of.", "Channels of the first stage.", "Stages."]
    module = importlib.import_module(table["net"].partition(":")[0])
    assert {f.name: f.default for f in fields(module.NetOptions)} == table.describe("net").defaults


def test_a_member_with_an_options_object_is_built_as_any_other(package):
    table = package(nets=NETS, options=OPTIONS)
    built = table.build("net", 2, options={"width": "8"})
    assert (built.dims, built.options.kind, built.options.width, built.options.depth) == (2, "b", 8, 3)
    with pytest.raises(SettingsProblem, match="no option 'widht'; did you mean width"):
        table.build("net", 2, options={"widht": 8})


def test_a_member_with_keywords_is_built_with_them(package):
    table = package(nets=net("int", "1"))
    assert table.build("net", 2, options={"kind": "8"}).kind == 8


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("@dataclass(frozen=True)\nclass NetOptions", "class NetOptions", "dataclass"),
        ("NetOptions(Options)", "NetOptions(dict)", "dict"),
        ("options: NetOptions", "options: Missing", "Missing"),
        ("options: NetOptions", "options: dict", "dict"),
        ("depth: int = 3", "depth: int = field(default=3)", "field"),
    ],
)
def test_an_options_object_that_cannot_be_read_is_refused(package, old, new, word):
    table = package(nets=NETS.replace(old, new), options=OPTIONS)
    with pytest.raises(TypeError, match=word) as caught:
        table.describe("net")
    assert table["net"] in str(caught.value)
