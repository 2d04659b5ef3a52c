"""Train by a plan, and where that does not learn, by another one."""

from __future__ import annotations

import shutil
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from napari_unetvnet.errors import RunProblem
from napari_unetvnet.events import EpochDone, Event, Notice, StepDone
from napari_unetvnet.files import replacing
from napari_unetvnet.json_files import write_json
from napari_unetvnet.model.card import read_card
from napari_unetvnet.runs.folder import ATTEMPTS, FIRST_MODEL, PLAN, Attempts, follow, read_attempts
from napari_unetvnet.temporary import remove

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from napari_unetvnet.images.pairs import Pair
    from napari_unetvnet.settings import TrainJob, TrainSettings
    from napari_unetvnet.training.files import TrainingFiles
    from napari_unetvnet.training.plan import Plan
    from napari_unetvnet.training.plan.stall import Watch

__all__ = ["train_until_it_learns"]

LEAST_MINUTES = 0.01
NOTHING_LEFT = (
    "This training does not learn: {}. There is nothing left that could be planned otherwise; check that labels and "
    "images lie on each other (napari-unetvnet check), or set another view, patch, network or learning rate."
)


def train_until_it_learns(
    folder: Path, pairs: Sequence[Pair], job: TrainJob, planned: Plan, files: TrainingFiles, *, resume: bool
) -> Generator[Event]:
    """Train; if the loss does not fall, change what was planned and begin again in the time that is left.

    Parameters
    ----------
    folder : Path
        The run folder, where plans and attempts are saved, so that a resumed run goes on with the last one.

    Yields
    ------
    Event
        Those of the trainings, and a Notice of each new plan.
    """
    from napari_unetvnet.model.device import choose_device
    from napari_unetvnet.training.loop import steps
    from napari_unetvnet.training.plan import another_plan, save_plan

    attempts, device = read_attempts(folder), choose_device(job)[0].type
    try:
        while True:
            settings, watch = _in_time_left(planned.settings, attempts), _watch(folder, attempts, resume=resume)
            with closing(steps(pairs, settings, files, resume=resume)) as events:
                for event in events:
                    yield event
                    if not watch.add(event):
                        continue
                    found = another_plan(pairs, job, device, planned, attempts.changed)
                    if found is not None:
                        break
                    yield Notice(NOTHING_LEFT.format(watch.reason))
                    watch.ends()
                else:
                    yield from map(Notice, _keep_better(folder, files))
                    return
            planned, changed = found
            attempts, resume = _begin_again(folder, files, attempts, changed, event), False
            save_plan(planned, folder / PLAN)
            yield Notice(f"This training does not learn: {watch.reason}. It begins again otherwise. {planned.text}")
    finally:
        _keep_better(folder, files)


def _watch(folder: Path, attempts: Attempts, *, resume: bool) -> Watch:
    """Watch a training that begins, or one whose earlier epochs are known."""
    from napari_unetvnet.training.plan.stall import Watch

    watch = Watch()
    if resume:
        steps = [event for event in _events(folder) if isinstance(event, StepDone)]
        for event in [*steps, *_epochs(folder)[attempts.epochs :]]:
            watch.add(event)
    return watch


def _epochs(folder: Path) -> list[EpochDone]:
    return [event for event in _events(folder) if isinstance(event, EpochDone)]


def _events(folder: Path) -> list[Event]:
    """Read the events so far; a damaged file tells of none, and a training does not need them."""
    try:
        return follow(folder)[0]
    except RunProblem:
        return []


def _in_time_left(settings: TrainSettings, attempts: Attempts) -> TrainSettings:
    """Leave to a later attempt what is left of a time budget; a number of steps it takes in full."""
    if not attempts.seconds or settings.planned_minutes is None:
        return settings
    left = max(LEAST_MINUTES, settings.planned_minutes - attempts.seconds / 60)
    return settings.model_copy(update={"minutes": left})


def _begin_again(
    folder: Path, files: TrainingFiles, attempts: Attempts, changed: dict[str, Any], last: Event
) -> Attempts:
    """Set the first model aside, and remove the state, which belongs to the plan that did not learn."""
    remove(files.state)
    if files.model.exists() and not (folder / FIRST_MODEL).exists():
        files.model.rename(folder / FIRST_MODEL)
    seconds = attempts.seconds + getattr(last, "seconds", 0.0)
    attempts = Attempts(changed, seconds, len(_epochs(folder)))
    write_json(folder / ATTEMPTS, asdict(attempts))
    return attempts


def _keep_better(folder: Path, files: TrainingFiles) -> list[str]:
    """Let the model of the first plan be the result if the last one is worse, and say so."""
    first = folder / FIRST_MODEL
    if not first.exists() or (files.model.exists() and _dice(files.model) >= _dice(first)):
        return []
    with replacing(files.model) as temporary:
        shutil.copyfile(first, temporary)
    return [f"The model of the first plan is kept, because it is the better one (Dice {_dice(first):.3f})."]


def _dice(path: Path) -> float:
    return read_card(path).scores.get("hold_out_dice", 0.0)
