"""Events must read back from their line as they were."""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
import sys

import pytest
from combinations import in_one_case
from hypothesis import given
from hypothesis import strategies as st

from napari_unetvnet.errors import RunProblem
from napari_unetvnet.events import (
    CheckpointSaved,
    EpochDone,
    Notice,
    PreviewReady,
    RunFinished,
    SlabDone,
    SplitMade,
    StepDone,
    from_line,
    to_line,
)

count = st.integers(0, 10**9)
number = st.floats(allow_nan=False)
seconds = st.floats(0, 1e12)
maybe = st.none() | number
boxes = st.lists(st.tuples(*[count] * 6)).map(tuple)
EVENTS = st.one_of(
    st.builds(Notice, st.text()),
    st.builds(StepDone, count, st.none() | count, count, number, seconds, seconds),
    st.builds(EpochDone, count, count, number, maybe, seconds, seconds),
    st.builds(CheckpointSaved, st.text(), count, maybe),
    st.builds(PreviewReady, st.text(), st.tuples(count, count, count), count, seconds),
    st.tuples(count, count, count.filter(bool)).map(lambda planes: SlabDone(*sorted(planes))),
    st.builds(SplitMade, count, st.text(), boxes, boxes),
    st.builds(
        RunFinished,
        st.sampled_from(["done", "stopped", "failed"]),
        st.lists(st.text()).map(tuple),
        st.dictionaries(st.text(), st.text()),
        st.booleans(),
    ),
)


@given(EVENTS)
def test_an_event_survives_its_line(event):
    line = to_line(event)
    assert "\n" not in line
    assert "\r" not in line
    assert len(line.splitlines()) == 1
    assert from_line(line) == event
    assert from_line(line + "\n") == event


def test_a_loss_that_is_no_number_survives_too():
    read = from_line(to_line(StepDone(1, None, 0, float("nan"), 0.0, 0.0)))
    assert read.loss != read.loss


def test_a_file_name_that_is_no_utf_8_survives_too():
    event = RunFinished("done", results={"labels": "/data/\udcff.tif"})
    assert from_line(to_line(event)) == event


@given(EVENTS, st.data())
def test_a_line_in_which_a_character_was_changed_is_refused(event, data):
    line = to_line(event)
    place = data.draw(st.integers(0, len(line) - 1))
    letter = data.draw(st.characters(codec="ascii").filter(lambda each: each != line[place]))
    changed = line[:place] + letter + line[place + 1 :]
    with contextlib.suppress(RunProblem):
        assert from_line(changed) == event  # with another white space between its fields


@given(EVENTS, st.data())
def test_a_line_cut_off_anywhere_is_refused(event, data):
    line = to_line(event)
    cut = line[: data.draw(st.integers(0, len(line) - 1))]
    with pytest.raises(RunProblem, match=r"not an event: .*\.$"):
        from_line(cut)


@in_one_case(
    "line",
    [
        "",
        "null",
        "5",
        "[]",
        "{}",
        "words",
        '{"event": "Party"}',
        '{"event": []}',
        '{"event": "Notice"}',
        '{"event": "Notice", "text": "a", "more": 1}',
        '{"event": "RunFinished", "state": "done", "lines": 5}',
        '{"event": "PreviewReady", "path": "a", "start": 0, "step": 1, "seconds": 1.0}',
        '{"event": "SplitMade", "number": 0, "name": "a", "learnt": 1, "held_out": []}',
        '{"event": "SplitMade", "number": 0, "name": "a", "learnt": [["1"]], "held_out": []}',
        '{"event": "SlabDone", "start": 0, "stop": 7, "depth": 6}',
        '{"event": "SlabDone", "start": -1, "stop": 3, "depth": 6}',
        '{"event": "SlabDone", "start": 0, "stop": 0, "depth": 0}',
        '{"event": "SlabDone", "start": 0, "stop": true, "depth": 6}',
        '{"event": "StepDone", "step": 1e999, "steps": 2, "epoch": 0, "loss": 1, "seconds": 1, "seconds_left": 1}',
        '{"event": "StepDone", "step": 1, "steps": 2, "epoch": 0, "loss": 1, "seconds": 1, "seconds_left": Infinity}',
        '{"event": "StepDone", "step": "1", "steps": 2, "epoch": 0, "loss": 1, "seconds": 1, "seconds_left": 1}',
        '{"event": "RunFinished", "state": "gone"}',
        '{"event": "RunFinished", "state": "done", "results": {"labels": ["a"]}}',
        '{"event": "CheckpointSaved", "path": {}, "step": 1, "dice": null}',
    ],
)
def test_a_line_that_is_no_event_is_refused_with_the_line(line):
    with pytest.raises(RunProblem) as caught:
        from_line(line)
    assert repr(line)[:60] in str(caught.value)


@in_one_case("line", ["[" * 100_000, '{"event":' * 100_000, '{"event": "Notice", "text": ' + "9" * 5000 + "}"])
def test_a_line_that_is_nested_deeply_or_has_a_huge_number_is_refused(line):
    with pytest.raises(RunProblem, match="not an event"):
        from_line(line)


def test_a_long_line_is_shown_in_part():
    with pytest.raises(RunProblem) as caught:
        from_line("x" * 10_000)
    assert len(str(caught.value)) < 200


@given(EVENTS)
def test_events_are_frozen(event):
    name = dataclasses.fields(event)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(event, name, None)


def test_reading_events_loads_no_torch():
    code = "import sys, napari_unetvnet.events; sys.exit('torch' in sys.modules or 'napari' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
