"""Progress events of a run: small frozen dataclasses that any process can read without torch.

Training and inference yield them, `runs` writes each as one line of ``events.jsonl`` in the run folder, and a terminal,
a viewer or a test reads them back. They are defined apart from their producers because the viewer reads them too and
must not import torch.

Each line has a check sum, because a resumed run goes on where the events say that it was.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter

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


Count = Annotated[int, Field(ge=0, lt=2**63)]
Counts = tuple[Count, ...]
Seconds = Annotated[float, Field(ge=0, le=1e12)]
CHECK = "check"
"""Field of a line that holds the check sum of the others."""


@dataclass(frozen=True)
class Event:
    """Base class of all events; a plain Event carries no data and marks a point at which the run can be stopped."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True)
class Notice(Event):
    """A message for the user."""

    text: str


@dataclass(frozen=True)
class StartScored(Event):
    """The model that a training starts from, after so many steps, was scored on the hold-out of this training."""

    path: str
    step: Count
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

    step: Count
    steps: Count | None
    epoch: Count
    loss: float
    seconds: Seconds
    seconds_left: Seconds
    first: Count = 0


@dataclass(frozen=True)
class EpochDone(Event):
    """One epoch with its mean training loss and the mean Dice of the foreground classes on the hold-out (or None)."""

    epoch: Count
    step: Count
    loss: float
    dice: float | None
    seconds: Seconds
    seconds_left: Seconds


@dataclass(frozen=True)
class CheckpointSaved(Event):
    """The best model so far was saved and can be used."""

    path: str
    step: Count
    dice: float | None


@dataclass(frozen=True)
class PreviewReady(Event):
    """The labels (z, y, x) that the weights predict after ``step`` steps for a region of the first image were saved.

    ``start`` is the first voxel z, y, x of that region; the next preview replaces the file.
    """

    path: str
    start: tuple[Count, Count, Count]
    step: Count
    seconds: Seconds


@dataclass(frozen=True)
class SplitMade(Event):
    """Training and hold-out regions of an image; voxels in neither are not used.

    ``number`` counts the images from 0; each region is its first voxel z, y, x and its end (exclusive).
    """

    number: Count
    name: str
    learnt: tuple[Counts, ...]
    held_out: tuple[Counts, ...]


@dataclass(frozen=True)
class SlabDone(Event):
    """Planes ``start`` to ``stop`` (exclusive) of ``depth`` are labelled and final."""

    start: Count
    stop: Count
    depth: Annotated[int, Field(ge=1, lt=2**63)]

    def __post_init__(self) -> None:
        if not self.start <= self.stop <= self.depth:
            raise ValueError(f"planes {self.start} to {self.stop} of {self.depth}")


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


def to_line(event: Event) -> str:
    """Serialise an event as one line of JSON.

    Returns
    -------
    str
        Without a line break.
    """
    fields = {"event": type(event).__name__, **asdict(event)}
    return json.dumps(fields | {CHECK: _check_sum(fields)})


def from_line(line: str) -> Event:
    """Parse an event.

    Parameters
    ----------
    line : str
        Written by `to_line`; the check sum may be missing.

    Returns
    -------
    Event

    Raises
    ------
    RunProblem
        If the line is not an event, or was changed.
    """
    try:
        fields = _checked(json.loads(line))
        kind: Any = _KINDS[fields.pop("event")]
        # File names that are no UTF-8 have characters that the schema does not take, but that are to stay.
        _schema(kind).validate_json(json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace"))
        event: Event = kind(
            **{key: _as_tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
        )
        return event
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunProblem(
            f"The events file of the run has a line that is not an event: {line[:80]!r}; expected what a run wrote. "
            "Start a new run."
        ) from error


def _checked(fields: dict[str, Any]) -> dict[str, Any]:
    """Remove the check sum, if there is one, and compare it."""
    if fields.pop(CHECK, None) not in (None, _check_sum(fields)):
        raise ValueError("the check sum is of another line")
    return fields


def _check_sum(fields: dict[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(fields).encode()):08x}"


@cache
def _schema(kind: type[Event]) -> TypeAdapter[Event]:
    return TypeAdapter(kind)


def _as_tuple(values: list[Any]) -> tuple[Any, ...]:
    return tuple(_as_tuple(value) if isinstance(value, list) else value for value in values)
