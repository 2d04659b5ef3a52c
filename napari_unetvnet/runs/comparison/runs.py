"""Read a training from its run folder: settings, final state, validation curve and hold-out."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isfinite, prod
from typing import TYPE_CHECKING, Any

from napari_unetvnet.errors import FileProblem, RunProblem, UserError
from napari_unetvnet.events import EpochDone, SplitMade, StepDone
from napari_unetvnet.json_files import read_json
from napari_unetvnet.losses import LossTerm, write_loss
from napari_unetvnet.model.card import BEFORE_FIT, ModelCard, read_card
from napari_unetvnet.runs.folder import JOB, MODEL, PLAN, follow
from napari_unetvnet.runs.state import state_of
from napari_unetvnet.settings import LabelSettings, TrainJob, checked
from napari_unetvnet.settings.decision import read_decisions
from napari_unetvnet.settings.describe import describe_settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from napari_unetvnet.events import Event
    from napari_unetvnet.settings.decision import Decision

__all__ = ["Point", "Row", "read_run", "runs_in"]

LABEL_FIELDS = tuple(name for name in LabelSettings.model_fields if name not in ("class_weights", "label_blur"))
"""Settings that define the meaning of labels; the two excluded ones affect the loss only."""
INPUTS = ("image", "label", "mask", "pairs")
SHOWN = ("command", "network", "option", "loss", "folds", "fold", "output", *INPUTS)
"""Settings that have their own field in `Row`, or do not change a result."""
AGAIN = "train again"
NOT_TRAINED = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Point:
    """One validation."""

    step: int
    seconds: float
    loss: float | None
    dice: float | None


@dataclass(frozen=True)
class Row:
    """One training in the table.

    ``state`` is done, stopped or failed as the run itself reported, running or interrupted without a final event,
    waiting before the first event, and refused if the settings are invalid or unreadable. ``other`` holds the settings
    without a field here, after `tabulate` only those in which the runs differ. ``scored_on`` identifies the hold-out:
    equal for runs that were scored on the same voxels, empty if unknown.
    """

    name: str
    network: str = ""
    option: dict[str, Any] = field(default_factory=dict)
    loss: str = ""
    other: dict[str, Any] = field(default_factory=dict)
    folds: int = 1
    fold: int = 0
    dice: float | None = None
    by_class: dict[str, float] = field(default_factory=dict)
    steps: int = 0
    minutes: float = 0.0
    parameters: int | None = None
    state: str = "waiting"
    lines: tuple[str, ...] = ()
    model: str = ""
    scored_on: str = ""
    curve: tuple[Point, ...] = ()

    @property
    def seconds_per_step(self) -> float | None:
        """Mean time of a step, validation included."""
        return 60 * self.minutes / self.steps if self.steps else None

    @property
    def configuration(self) -> str:
        """The network with its options, the loss, and the other settings in which the runs differ."""
        options = ", ".join(f"{name}={value}" for name, value in sorted(self.option.items()))
        network = f"{self.network}({options})" if options else self.network
        others = (f"{name}={value}" for name, value in self.other.items() if value is not None)
        return " ".join(filter(None, (network, self.loss, *others)))


def runs_in(folder: Path) -> list[Path]:
    """List the trainings of a folder: the folder itself if it is a run, otherwise the trainings in it.

    Returns
    -------
    list of Path

    Raises
    ------
    RunProblem
        If it neither is a run nor holds trainings.
    """
    if (folder / JOB).is_file():
        return [folder]
    trainings = sorted(job.parent for job in folder.glob(f"*/{JOB}") if _is_training(job))
    if not trainings:
        raise RunProblem(f"{folder} has no {JOB}, nor has any folder in it; give run folders, or a folder of them.")
    return trainings


def _is_training(job: Path) -> bool:
    """Whether the command of a job is train; an unreadable job counts as one and gets a row with the error."""
    try:
        return bool(read_json(job, dict, AGAIN).get("command") == "train")
    except FileProblem:
        return True


def _settings(folder: Path, decisions: Sequence[Decision]) -> dict[str, Any]:
    """Read the settings of a run as its files have them, with those that were chosen, if they are valid."""
    values = read_json(folder / JOB, dict, AGAIN) | {each.name: each.value for each in decisions}
    checked(TrainJob, {name: value for name, value in values.items() if name != "command"})
    return values


@contextmanager
def _collecting(problems: list[str]) -> Iterator[None]:
    try:
        yield
    except UserError as problem:
        problems += problem.lines


def read_run(folder: Path) -> Row:
    """Read the job, the events and the model of a training.

    Returns
    -------
    Row

    Raises
    ------
    RunProblem
        If it is not a training, or its events cannot be read.
    """
    if not (folder / JOB).exists() or not _is_training(folder / JOB):
        raise RunProblem(f"{folder} is not a training; give run folders of trainings, or a folder of them.")
    try:
        values = _settings(folder, ())
    except UserError as problem:
        return Row(folder.absolute().name, state="refused", lines=problem.lines)
    events, problems = follow(folder)[0], list[str]()
    card: ModelCard | None = None
    with _collecting(problems):
        values = _settings(folder, read_decisions(folder / PLAN, AGAIN))
    with _collecting(problems):
        card = read_card(folder / MODEL) if (folder / MODEL).exists() else None
    state, lines, _ = state_of(folder, events)
    curve = _curve(events)
    steps = [event for event in events if isinstance(event, StepDone | EpochDone)]
    first = max((event.first for event in events if isinstance(event, StepDone)), default=0)
    return Row(
        name=folder.absolute().name,
        **_choices(values, card),
        other={name: value for name, value in values.items() if name not in SHOWN},
        **_scores(card, curve),
        steps=max(card.steps if card else 0, steps[-1].step if steps else 0) - first,
        minutes=steps[-1].seconds / 60 if steps else 0.0,
        parameters=_parameters(folder / MODEL) if card else None,
        state=state,
        lines=(*lines, *problems),
        model=str(folder.absolute() / MODEL) if card else "",
        scored_on=_scored_on(values, card, events),
        curve=curve,
    )


def _choices(values: dict[str, Any], card: ModelCard | None) -> dict[str, Any]:
    """Return network, options, loss and fold: from the card if there is a model, otherwise from the settings."""
    folds = {name: int(values.get(name) or default) for name, default in (("folds", 1), ("fold", 0))}
    if card is not None:
        return {"network": card.network, "option": dict(card.option), "loss": card.loss, **folds}
    loss = values.get("loss") or ""
    if not isinstance(loss, str):
        loss = write_loss(tuple(LossTerm.model_validate(term) for term in loss))
    network, option = values.get("network") or "", dict(values.get("option") or {})
    return {"network": network, "option": option, "loss": loss, **folds}


def _scores(card: ModelCard | None, curve: Sequence[Point]) -> dict[str, Any]:
    """Return the best mean Dice, and the Dice of each class."""
    best = max((point.dice for point in curve if point.dice is not None), default=None)
    if card is None:
        return {"dice": best}
    prefix = "hold_out_dice_"
    by_class = {name.removeprefix(prefix): dice for name, dice in card.scores.items() if name.startswith(prefix)}
    return {"dice": card.scores.get("hold_out_dice", best), "by_class": by_class}


def _curve(events: Iterable[Event]) -> tuple[Point, ...]:
    """Return the validation curve; the steps that a resumed run repeated replace the earlier ones."""
    points: list[Point] = []
    for event in events:
        if isinstance(event, EpochDone):
            points = [point for point in points if point.step < event.step]
            points.append(Point(event.step, event.seconds, _finite(event.loss), _finite(event.dice)))
    return tuple(points)


def _finite(value: float | None) -> float | None:
    return value if value is not None and isfinite(value) else None


def _parameters(path: Path) -> int | None:
    """Count the weights in a model file from the shapes in its header."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            names = [name for name in file.keys() if not (name.endswith(NOT_TRAINED) or name.startswith(BEFORE_FIT))]  # noqa: SIM118 (no mapping)
            return sum(prod(map(int, file.get_slice(name).get_shape())) for name in names)
    except (SafetensorError, OSError):
        return None


def _scored_on(values: dict[str, Any], card: ModelCard | None, events: Iterable[Event]) -> str:
    """Serialise everything that determines the voxels on which a run was scored."""
    if card is None:
        return ""
    splits = {event.number: event.held_out for event in events if isinstance(event, SplitMade)}
    held_out = [splits[number] for number in sorted(splits)]
    described = describe_settings(LabelSettings)
    labels = {name: values.get(name, described[name].default) for name in LABEL_FIELDS}
    inputs = {name: values.get(name) or None for name in INPUTS}
    scored = {"inputs": inputs, "labels": labels, "held_out": held_out}
    return json.dumps(scored, sort_keys=True, default=str)
