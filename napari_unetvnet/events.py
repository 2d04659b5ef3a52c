"""What a run tells while it works: small frozen events that any process can read without torch.

Training and inference yield them, `job` writes each as one line of ``events.jsonl`` in the run folder, and a terminal,
a viewer or a test reads them back. They are apart from their producers because the viewer, which must not import
torch, reads them too.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from napari_unetvnet.errors import RunProblem

__all__ = [
    "CheckpointSaved",
    "EpochDone",
    "Event",
    "Notice",
    "PreviewReady",
    "RunFinished",
    "SlabDone",
    "SplitMade",
    "StepDone",
    "from_line",
    "to_line",
]


@dataclass(frozen=True)
class Event:
    """Anything that a run says; one of no kind says nothing, and is a moment at which the run can be stopped."""


@dataclass(frozen=True)
class Notice(Event):
    """A sentence that the user should see."""

    text: str


@dataclass(frozen=True)
class StepDone(Event):
    """One optimiser step.

    ``steps`` is the planned total, None while a time budget has not fixed it. Times are in seconds; ``seconds_left``
    is an estimate.
    """

    step: int
    steps: int | None
    epoch: int
    loss: float
    seconds: float
    seconds_left: float


@dataclass(frozen=True)
class EpochDone(Event):
    """One epoch with its mean training loss and the mean Dice of the foreground classes on the hold-out (or None)."""

    epoch: int
    step: int
    loss: float
    dice: float | None
    seconds: float
    seconds_left: float


@dataclass(frozen=True)
class CheckpointSaved(Event):
    """The best model so far is on disk and can be used."""

    path: str
    step: int
    dice: float | None


@dataclass(frozen=True)
class PreviewReady(Event):
    """What the weights say after ``step`` steps about a part of the first image is on disk, as labels (z, y, x).

    ``start`` is the first voxel z, y, x of that part; the next preview replaces the file.
    """

    path: str
    start: tuple[int, int, int]
    step: int
    seconds: float


@dataclass(frozen=True)
class SplitMade(Event):
    """Which parts of an image are learnt from and which score the model; what is in neither does not count.

    ``number`` counts the images from 0; each part is the first voxel z, y, x and the first one behind it.
    """

    number: int
    name: str
    learnt: tuple[tuple[int, ...], ...]
    held_out: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class SlabDone(Event):
    """Planes ``start`` to ``stop`` (exclusive) of ``depth`` are labelled and will not change any more."""

    start: int
    stop: int
    depth: int


@dataclass(frozen=True)
class RunFinished(Event):
    """The last event of a run: how it ended, the user's sentences if it failed, and where its results are."""

    state: Literal["done", "stopped", "failed"]
    lines: tuple[str, ...] = ()
    results: dict[str, str] = field(default_factory=dict)
    fault: bool = False


_KINDS = {
    kind.__name__: kind
    for kind in (Notice, SplitMade, StepDone, EpochDone, CheckpointSaved, PreviewReady, SlabDone, RunFinished)
}
_TUPLES = {RunFinished: ("lines",), PreviewReady: ("start",), SplitMade: ("learnt", "held_out")}
"""Fields that JSON gives back as lists."""


def to_line(event: Event) -> str:
    """Write an event as one line of JSON.

    Parameters
    ----------
    event : Event

    Returns
    -------
    str
        Without a line break.
    """
    return json.dumps({"event": type(event).__name__, **asdict(event)})


def from_line(line: str) -> Event:
    """Read an event back.

    Parameters
    ----------
    line : str
        As `to_line` wrote it.

    Returns
    -------
    Event

    Raises
    ------
    RunProblem
        If the line is no event.
    """
    try:
        fields: dict[str, Any] = json.loads(line)
        kind = _KINDS[fields.pop("event")]
        for name in _TUPLES.get(kind, ()):
            if name in fields:
                fields[name] = _as_tuple(fields[name])
        return kind(**fields)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunProblem(f"The run's events hold a line that is no event: {line[:80]!r}.") from error


def _as_tuple(values: Any) -> tuple[Any, ...]:
    return tuple(_as_tuple(value) if isinstance(value, list) else value for value in values)
