"""Fewer cases than a full product: what goes wrong nearly always needs one value, or two together, not three."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections import Counter

import pytest


def pairs(*parameters):
    """Give rows in which every value of each parameter meets every value of each other one at least once.

    Nothing is drawn, so the rows are the same in every run. Of two parameters they are the full product, of one its
    values.
    """
    parameters = [list(values) for values in parameters]
    if len(parameters) == 1:
        return parameters[0]
    chosen = [[(i, k) for k in range(len(values))] for i, values in enumerate(parameters)]
    meetings = (itertools.product(*two) for two in itertools.combinations(chosen, 2))
    unmet, used, rows = dict.fromkeys(map(frozenset, itertools.chain(*meetings))), Counter(), []
    while unmet:
        row = dict(next(iter(unmet)))
        for i, values in enumerate(chosen):
            if i not in row:
                # The value that meets the most of this row for the first time; of equals the one that came least often.
                row[i] = max(values, key=lambda v: (sum(frozenset((v, w)) in unmet for w in row.items()), -used[v]))[1]
        for two in itertools.combinations(row.items(), 2):
            unmet.pop(frozenset(two), None)
        used.update(row.items())
        rows.append(tuple(values[row[i]] for i, values in enumerate(parameters)))
    return rows


def in_turn(members, *partners):
    """Give each member, which may be a tuple, once, beside the next row of ``pairs`` of its partners."""
    rows = pairs(*partners) if len(partners) > 1 else [(value,) for value in partners[0]]
    members = [member if isinstance(member, tuple) else (member,) for member in members]
    return [(*member, *row) for member, row in zip(members, itertools.cycle(rows), strict=False)]


def in_one_case(names, rows):
    """Let a test go through all rows itself, where each takes less time than a case of its own; what fails is named.

    ``names`` and ``rows`` are those of ``pytest.mark.parametrize``; ``rows`` may be a function of the other arguments.
    """
    names = [name.strip() for name in names.split(",")]

    def decorate(test):
        @functools.wraps(test)
        def through_all(**arguments):
            failures = []
            for row in rows(**arguments) if callable(rows) else rows:
                values = dict(zip(names, row if len(names) > 1 else [row], strict=True))
                try:
                    test(**arguments, **values)
                except (Exception, pytest.fail.Exception) as failure:  # noqa: BLE001 (raised below)
                    failure.add_note(f"with {values}")
                    failures.append(failure)
            if len(failures) > 1:
                raise BaseExceptionGroup("more than one row fails", failures)
            if failures:
                raise failures[0]

        signature = inspect.signature(test)
        others = [parameter for name, parameter in signature.parameters.items() if name not in names]
        through_all.__signature__ = signature.replace(parameters=others)
        return through_all

    return decorate
