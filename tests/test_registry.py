"""Descriptions read from source must say what the imported members say."""

from __future__ import annotations

import dataclasses
import inspect
import re
import subprocess
import sys
import typing

import pytest
from combinations import in_one_case

from napari_unetvnet.errors import SettingsProblem
from napari_unetvnet.losses import LOSSES
from napari_unetvnet.networks import NETWORKS
from napari_unetvnet.registry import Registry

every_member = in_one_case("table, name", [(table, name) for table in (NETWORKS, LOSSES) for name in table])


def imported_options(member):
    """Give the options with their defaults and types, as Python sees them after import."""
    parameters = inspect.signature(member).parameters
    chosen = {p.name: p for p in parameters.values() if p.kind is p.KEYWORD_ONLY or p.name == "options"}

    def stub():
        """Carry the annotations; the others need names that only a type checker imports."""

    stub.__annotations__ = {name: p.annotation for name, p in chosen.items()}
    types = typing.get_type_hints(stub, globalns=(member.__init__ if inspect.isclass(member) else member).__globals__)
    if "options" in types:
        fields = dataclasses.fields(types["options"])
        return {field.name: field.default for field in fields}, typing.get_type_hints(types["options"])
    return {name: p.default for name, p in chosen.items()}, types


@every_member
def test_a_description_equals_the_imported_signature(table, name):
    defaults, types = imported_options(table.resolve(name))
    described = {option.name: option for option in table.describe(name).options}
    assert list(described) == list(defaults)
    for key, option in described.items():
        assert option.default == defaults[key]
        assert type(option.default) is type(defaults[key])
        choices = typing.get_args(types[key]) if typing.get_origin(types[key]) is typing.Literal else ()
        assert option.choices == choices
        if types[key] == tuple[float, ...]:
            assert option.kind == "floats"
            continue
        assert option.kind == (type(choices[0]) if choices else types[key]).__name__


@every_member
def test_a_description_holds_the_docstring_of_the_member(table, name):
    description = table.describe(name)
    assert description.name == name
    assert description.target == table[name]
    assert description.doc == inspect.getdoc(table.resolve(name))
    assert description.summary == description.doc.splitlines()[0]


@every_member
def test_facts_equal_the_attributes_of_the_member(table, name):
    member = table.resolve(name)
    for key, value in table.describe(name).facts.items():
        assert getattr(member, key) == value


@every_member
def test_every_member_says_what_it_is_and_where_it_comes_from(table, name):
    description = table.describe(name)
    assert description.summary.endswith(".")
    has_formula = re.search(r" = |sum|mean|\w \+ ", description.summary)
    assert "References\n---" in description.doc or has_formula


@every_member
def test_every_option_has_a_sentence_and_a_default_that_it_accepts(table, name):
    for option in table.describe(name).options:
        assert option.help.endswith("."), f"{name}: {option.name} has no sentence in the docstring"
        assert option.default is not None
        assert option.check(option.default) == option.default
        assert option.check(str(option.default)) == option.default


@every_member
def test_defaults_pass_their_own_check(table, name):
    defaults = table.describe(name).defaults
    assert table.check_options(name, defaults) == defaults


@in_one_case("name", NETWORKS)
def test_a_network_is_built_from_dimensions_channels_and_classes(name):
    first = list(inspect.signature(NETWORKS.resolve(name)).parameters)[:3]
    assert first == ["dims", "in_channels", "classes"]


@in_one_case("name", LOSSES)
def test_a_loss_declares_which_heads_it_fits(name):
    assert set(LOSSES.describe(name).facts["head_modes"]) <= {"binary", "multiclass", "multilabel"}
    assert LOSSES.describe(name).facts["head_modes"]


def test_describing_every_member_loads_no_torch():
    code = (
        "import sys\n"
        "from napari_unetvnet.losses import LOSSES\n"
        "from napari_unetvnet.networks import NETWORKS\n"
        "[table.describe(name) for table in (NETWORKS, LOSSES) for name in table]\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_table_is_a_mapping_of_names_to_places():
    assert dict(NETWORKS) == {name: NETWORKS[name] for name in NETWORKS}
    assert len(LOSSES) == len(list(LOSSES))
    assert "nothing" not in NETWORKS
    assert all(re.fullmatch(r"[\w.]+:\w+", place) for table in (NETWORKS, LOSSES) for place in table.values())


@pytest.mark.parametrize("ask", [NETWORKS.check, NETWORKS.describe, NETWORKS.resolve])
@in_one_case("name, near", [("unet_paddin", "unet_padding"), ("Unet3d", "unet3d"), ("zzz", "unet_original")])
def test_an_unknown_name_is_answered_with_near_ones(ask, name, near):
    with pytest.raises(SettingsProblem, match=rf"^There is no network '{name}'; .*{near}.*[.?]$"):
        ask(name)


def test_every_wrong_option_has_its_own_line():
    with pytest.raises(SettingsProblem) as caught:
        NETWORKS.check_options("unet_padding", {"widht": 3, "depth": "deep", "up": "sideways", "width": "8"})
    assert [line.rstrip(".?") for line in caught.value.lines] == [
        "Network unet_padding has no option 'widht'; did you mean width",
        "Option depth=deep must be a whole number",
        "Option up=sideways must be one of: nearest, transposed",
    ]


def test_a_member_without_options_says_so():
    with pytest.raises(SettingsProblem, match=r"^Loss ce has no option 'smooth'; it has no options\.$"):
        LOSSES.check_options("ce", {"smooth": 1})


def test_a_place_that_does_not_exist_is_a_fault_of_the_program():
    table = Registry("thing", {"gone": "napari_unetvnet.not_there:Thing"})
    with pytest.raises(ModuleNotFoundError):
        table.describe("gone")
