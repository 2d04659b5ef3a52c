"""The options that make a training give the same model again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_unetvnet.runs.folder import PLAN, read_attempts
from napari_unetvnet.settings.decision import read_decisions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from napari_unetvnet.settings import TrainJob

__all__ = ["options_to_repeat"]

ADVICE = "start a new run"
MEASURED = "option"
"""The planned setting that follows from the speed of the machine."""


def options_to_repeat(folder: Path, job: TrainJob, steps: int) -> str:
    """Give the options that are added to those of a training, so that it does not depend on the time it took.

    Parameters
    ----------
    folder : Path
        Its run folder.
    steps : int
        Steps that it took.

    Returns
    -------
    str
        The number of steps, and what was planned by the speed of the machine or because another plan did not learn.
    """
    if job.planned_minutes is None:
        return f"--steps {steps}"
    planned, changed = read_decisions(folder / PLAN, ADVICE), read_attempts(folder).changed
    values = {each.name: each.value for each in planned if each.name in {MEASURED, *changed}}
    return " ".join([f"--steps {steps}", *(word for name, value in values.items() for word in _words(name, value))])


def _words(name: str, value: Any) -> Iterator[str]:
    values = [f"{key}={each}" for key, each in value.items()] if isinstance(value, dict) else [str(value)]
    for each in values:
        yield f"--{name.replace('_', '-')} {each}"
