"""Whichever call to the disk fails: a sentence, the old result or the new one, and the same bytes after a resume."""

from __future__ import annotations

import pytest
from faults import KINDS
from loop import WORKS, calls_of, check, check_viewer, write_more_inputs

from napari_unetvnet.widgets import task

pytestmark = pytest.mark.slow

CHECKED = 3
"""Calls of each kind and work, of a sweep one; ``make soak`` checks all."""


@pytest.fixture(scope="session")
def more_files(files):
    write_more_inputs(files)
    return files


def spread(calls, count, offset):
    """Some of the numbers of calls, others for each offset."""
    step = -(-calls // count)
    return range(1 + offset % step, calls + 1, step)


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.name)
@pytest.mark.parametrize("kind", KINDS)
def test_a_call_that_fails(more_files, monkeypatch, tmp_path, work, kind):
    monkeypatch.setenv("NAPARI_UNETVNET_CACHE", str(tmp_path))
    calls, offset = calls_of(work, more_files, kind), 7 * KINDS.index(kind) + 3 * WORKS.index(work)
    for n in spread(calls, 1 if work.name == "sweep" else CHECKED, offset):
        check(work, more_files, kind, n)


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_that_fails_while_the_viewer_writes_its_layers(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(task.runs, "start", lambda _: None)
    n, step = 1, 5 if kind == "kill" else 1
    while check_viewer(tmp_path, kind, n) is not None:
        n += step
    assert n > 10
