"""Values of options are brought to the declared type, or refused with a sentence."""

from __future__ import annotations

import re

import pytest
from combinations import in_one_case
from hypothesis import example, given
from hypothesis import strategies as st

from napari_unetvnet.conventions import Option
from napari_unetvnet.errors import SettingsProblem


@in_one_case(
    "kind, value, expected",
    [
        ("int", "16", 16),
        ("int", 16.0, 16),
        ("int", "16.0", 16),
        ("float", "1e-3", 1e-3),
        ("float", 2, 2.0),
        ("bool", "True", True),
        ("bool", "no", False),
        ("bool", 1, True),
        ("bool", False, False),
        ("str", 5, "5"),
    ],
)
def test_values_are_brought_to_the_type_of_the_option(kind, value, expected):
    got = Option("width", kind, None).check(value)
    assert got == expected
    assert type(got) is type(expected)


@in_one_case(
    "kind, value, wanted",
    [
        ("int", "many", "a whole number"),
        ("int", 16.5, "a whole number"),
        ("int", True, "a whole number"),
        ("int", None, "a whole number"),
        ("int", "nan", "a whole number"),
        ("int", "inf", "a whole number"),
        ("int", float("inf"), "a whole number"),
        ("float", "wide", "a number"),
        ("float", False, "a number"),
        ("float", "nan", "a number"),
        ("float", "inf", "a number"),
        ("bool", "maybe", "true or false"),
        ("bool", 2, "true or false"),
    ],
)
def test_a_value_of_another_type_is_refused_with_a_sentence(kind, value, wanted):
    with pytest.raises(SettingsProblem, match=rf"^Option width={re.escape(str(value))} must be {wanted}\.$"):
        Option("width", kind, None).check(value)


def test_a_value_that_is_no_choice_is_refused_with_the_choices():
    option = Option("up", "str", "nearest", ("nearest", "transposed"))
    assert option.check("transposed") == "transposed"
    with pytest.raises(SettingsProblem, match=r"^Option up=linear must be one of: nearest, transposed\.$"):
        option.check("linear")


@example("int", float("inf"))
@example("int", "-1e999")
@given(
    st.sampled_from(["int", "float", "bool", "str"]), st.one_of(st.text(), st.floats(), st.integers(), st.booleans())
)
def test_any_value_is_converted_or_refused(kind, value):
    option = Option("width", kind, None)
    try:
        got = option.check(value)
    except SettingsProblem:
        return
    assert type(got).__name__ == kind
    assert option.check(got) == got or got != got
