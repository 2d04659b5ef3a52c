"""The schema of a saved state: all but its tensors, as JSON in the header of the file."""

from __future__ import annotations

from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,  # those of typing lack what pydantic needs before Python 3.12
)

from pydantic import Field
from typing_extensions import TypedDict

from napari_unetvnet.events import Count, Seconds  # noqa: TC001 (the schema of the file)
from napari_unetvnet.training.fallback import StepOptions  # noqa: TC001 (the schema of the file)

__all__ = ["BestState", "ParentState", "ScheduleState", "State"]

Finite = Annotated[float, Field(allow_inf_nan=False)]


class ScheduleState(TypedDict):
    """`Schedule`."""

    peak: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    minutes: Seconds | None
    steps: Count | None
    rule: Literal["linear", "poly", "one_cycle", "falling"]
    step: Count
    seconds: Seconds
    first: Count
    fit: Annotated[float, Field(ge=0, lt=1)]
    flat: bool


class BestState(TypedDict):
    """`Best` without its weights."""

    step: Count
    dice: Finite | None
    reached: Count
    scores: dict[str, Finite]


class ParentState(TypedDict):
    """`Parent` without its weights."""

    name: str
    path: str
    steps: Count
    differences: tuple[str, ...]
    fitted: bool
    start: BestState | None


class State(TypedDict):
    """All of a saved state but its tensors."""

    schedule: ScheduleState
    fallback: StepOptions
    scaler: dict[str, Finite]
    best: BestState
    parent: ParentState | None
    card: dict[str, Any]
    settings: dict[str, Any]
    labels: str
    curve: NotRequired[list[float]]
