"""Whether a run is under way, and how it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from napari_unetvnet.errors import UserError
from napari_unetvnet.events import RunFinished, from_line
from napari_unetvnet.runs.folder import EVENTS, LOCK

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_unetvnet.events import Event

__all__ = ["RUNNING", "UNFINISHED", "RunState", "is_held", "last_events", "state_of", "whole_size"]

RUNNING = "running"
UNFINISHED = ("stopped", "interrupted", "failed", "waiting", RUNNING)
"""States from which a run can be continued, or is."""
TAIL_BYTES = 2**18
"""Of an events file, so much as holds the last events of each kind."""


class RunState(NamedTuple):
    """How a run ended, or that it has not: done, stopped, failed, running, interrupted or waiting.

    The first three are what the run itself reported. A run is running while its folder is locked, interrupted without a
    last event, and waiting before the first one. ``lines`` are its error messages, ``results`` the places of what it
    made.
    """

    name: str
    lines: tuple[str, ...] = ()
    results: dict[str, str] = {}  # noqa: RUF012 (never changed)


def state_of(folder: Path, events: Sequence[Event] | None = None) -> RunState:
    """Give the state of a run folder.

    Parameters
    ----------
    events : sequence of Event, optional
        Its last events, if they were read already.

    Returns
    -------
    RunState
    """
    if is_held(folder):
        return RunState(RUNNING)
    events = last_events(folder) if events is None else events
    if events and isinstance(events[-1], RunFinished):
        return RunState(events[-1].state, events[-1].lines, events[-1].results)
    return RunState("interrupted" if (folder / EVENTS).exists() else "waiting")


def is_held(folder: Path) -> bool:
    """Whether a process holds the lock of a run folder."""
    from filelock import FileLock, Timeout

    if (folder / LOCK).is_symlink() or not (folder / LOCK).is_file():  # no run made it
        return False
    try:
        with FileLock(folder / LOCK, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # of another user: what is done with the folder is refused then
        return False


def last_events(folder: Path) -> list[Event]:
    """Read the last events of a run; lines that are none are left out.

    Returns
    -------
    list of Event
    """
    try:
        with (folder / EVENTS).open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            lines = file.read().rpartition(b"\n")[0].decode("utf-8", errors="replace").split("\n")
    except OSError:
        return []
    events = []
    for line in lines[size > TAIL_BYTES :]:
        try:
            events.append(from_line(line))
        except UserError:
            continue
    return events


def whole_size(folder: Path) -> int:
    """Return the size of the events file up to its last whole line, from which `follow` goes on, in bytes."""
    try:
        with (folder / EVENTS).open("rb") as file:
            size = file.seek(0, 2)
            begin = file.seek(max(0, size - TAIL_BYTES))
            return begin + len(b"".join(file.read().rpartition(b"\n")[:2]))
    except OSError:
        return 0
