"""Progress events of a run: small frozen dataclasses that any process can read without torch.

Training and inference yield them, `runs` writes each as one line of ``events.jsonl`` in the run folder, and a terminal,
a viewer or a test reads them back. They are defined apart from their producers because the viewer reads them too and
must not import torch.
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
    "OutputScored",
    "PreviewReady",
    "RunFinished",
    "SlabDone",
    "SplitMade",
    "StartScored",
    "StepDone",
    "from_line",
    "to_line",
]


@dataclass(frozen=True)
class Event:
    """Base class of all events; a plain Event carries no data and marks a point at which the run can be stopped."""


@dataclass(frozen=True)
class Notice(Event):
    """A message for the user."""

    text: str


@dataclass(frozen=True)
class StartScored(Event):
    """The model that a training starts from, after so many steps, was scored on the hold-out of this training."""

    path: str
    step: int
    dice: float


@dataclass(frozen=True)
class OutputScored(Event):
    """The model that is already at the output of the job was scored on the hold-out of the training.

    ``dice`` is None if it could not be, for the ``reason``; ``sha256`` is that of its file.
    """

    path: str
    sha256: str
    dice: float | None
    reason: str = ""


@dataclass(frozen=True)
class StepDone(Event):
    """One optimiser step.

    ``steps`` is the planned total, or None until a time budget has been converted to steps. Both include the ``first``
    steps, those of the model that the training started from. Times are in seconds; ``seconds_left`` is an estimate.
    """

    step: int
    steps: int | None
    epoch: int
    loss: float
    seconds: float
    seconds_left: float
    first: int = 0


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
    """The best model so far was saved and can be used."""

    path: str
    step: int
    dice: float | None


@dataclass(frozen=True)
class PreviewReady(Event):
    """The labels (z, y, x) that the weights predict after ``step`` steps for a region of the first image were saved.

    ``start`` is the first voxel z, y, x of that region; the next preview replaces the file.
    """

    path: str
    start: tuple[int, int, int]
    step: int
    seconds: float


@dataclass(frozen=True)
class SplitMade(Event):
    """Training and hold-out regions of an image; voxels in neither are not used.

    ``number`` counts the images from 0; each region is its first voxel z, y, x and its end (exclusive).
    """

    number: int
    name: str
    learnt: tuple[tuple[int, ...], ...]
    held_out: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class SlabDone(Event):
    """Planes ``start`` to ``stop`` (exclusive) of ``depth`` are labelled and final."""

    start: int
    stop: int
    depth: int


@dataclass(frozen=True)
class RunFinished(Event):
    """The last event of a run: its final state, the error messages if it failed, and the paths of its results."""

    state: Literal["done", "stopped", "failed"]
    lines: tuple[str, ...] = ()
    results: dict[str, str] = field(default_factory=dict)
    fault: bool = False


_KINDS = {
    kind.__name__: kind
    for kind in (
        Notice,
        SplitMade,
        StartScored,
        OutputScored,
        StepDone,
        EpochDone,
        CheckpointSaved,
        PreviewReady,
        SlabDone,
        RunFinished,
    )
}
_TUPLES = {RunFinished: ("lines",), PreviewReady: ("start",), SplitMade: ("learnt", "held_out")}
"""Tuple fields, which JSON returns as lists."""


def to_line(event: Event) -> str:
    """Serialise an event as one line of JSON.

    Returns
    -------
    str
        Without a line break.
    """
    return json.dumps({"event": type(event).__name__, **asdict(event)})


def from_line(line: str) -> Event:
    """Parse an event.

    Parameters
    ----------
    line : str
        Written by `to_line`.

    Returns
    -------
    Event

    Raises
    ------
    RunProblem
        If the line is not an event.
    """
    try:
        fields: dict[str, Any] = json.loads(line)
        kind = _KINDS[fields.pop("event")]
        for name in _TUPLES.get(kind, ()):
            if name in fields:
                fields[name] = _as_tuple(fields[name])
        return kind(**fields)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunProblem(
            f"The events file of the run has a line that is not an event: {line[:80]!r}; expected what a run wrote. "
            "Start a new run."
        ) from error


def _as_tuple(values: Any) -> tuple[Any, ...]:
    return tuple(_as_tuple(value) if isinstance(value, list) else value for value in values)
