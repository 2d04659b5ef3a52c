"""The few combinations that stand for all."""

from __future__ import annotations

import inspect
import itertools

import pytest
from combinations import in_one_case, in_turn, pairs
from hypothesis import given
from hypothesis import strategies as st


@given(st.lists(st.integers(1, 5), min_size=2, max_size=5))
def test_any_two_values_of_two_parameters_meet(counts):
    parameters = [[(i, k) for k in range(count)] for i, count in enumerate(counts)]
    rows = pairs(*parameters)
    met = {two for row in rows for two in itertools.combinations(row, 2)}
    assert met == {two for ps in itertools.combinations(parameters, 2) for two in itertools.product(*ps)}
    assert all([value[0] for value in row] == list(range(len(counts))) for row in rows)


def test_the_rows_of_pairs_are_few_and_always_the_same():
    rows = pairs("abc", "de", "fg", "hi")
    assert len(rows) == 6  # of 24
    assert rows == pairs("abc", "de", "fg", "hi")
    assert pairs("ab", [1, 2]) == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]


def test_each_member_comes_once_and_its_partners_in_turn():
    assert in_turn("abc", [1, 2]) == [("a", 1), ("b", 2), ("c", 1)]
    rows = in_turn([("a", 2), ("b", 3), ("c", 2), ("d", 3)], [False, True], [5, 6])
    assert [row[:2] for row in rows] == [("a", 2), ("b", 3), ("c", 2), ("d", 3)]
    assert {row[2:] for row in rows} == {(False, 5), (False, 6), (True, 5), (True, 6)}


def test_all_rows_of_a_case_are_gone_through_and_one_that_fails_is_named():
    seen = []

    def check(name, size, weighted):
        seen.append((name, size, weighted))
        assert size != 3

    case = in_one_case("size, weighted", lambda name: [(2, name), (3, name), (4, name)])(check)
    assert list(inspect.signature(case).parameters) == ["name"]
    with pytest.raises(AssertionError) as caught:
        case(name="dice")
    assert seen == [("dice", 2, "dice"), ("dice", 3, "dice"), ("dice", 4, "dice")]
    assert caught.value.__notes__ == ["with {'size': 3, 'weighted': 'dice'}"]


def test_all_rows_that_fail_are_named():
    def refuses(size):
        with pytest.raises(ValueError, match="size"):
            if size == 2:
                raise ValueError("size")

    with pytest.raises(BaseExceptionGroup) as caught:
        in_one_case("size", [1, 2, 3])(refuses)()
    assert [failure.__notes__ for failure in caught.value.exceptions] == [["with {'size': 1}"], ["with {'size': 3}"]]


def test_a_case_of_one_argument_takes_its_values():
    seen = []
    in_one_case("size", [(5, 6), (3, 4)])(lambda size: seen.append(size))()
    assert seen == [(5, 6), (3, 4)]
