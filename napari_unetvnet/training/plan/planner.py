"""The rules one after the other, and what they made."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from napari_unetvnet.errors import FileProblem
from napari_unetvnet.files import read_json, write_json
from napari_unetvnet.settings import TrainSettings, checked
from napari_unetvnet.training.plan.choice import Choice
from napari_unetvnet.training.plan.from_model import as_the_model
from napari_unetvnet.training.plan.inputs import batch, network, patch, target_spacing, view
from napari_unetvnet.training.plan.learning import (
    augmentation,
    budget,
    class_weights,
    ema_decay,
    hold_out,
    loss,
    mirroring,
    normalisation,
    objects,
)
from napari_unetvnet.training.plan.memory import memory

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_unetvnet.images.pairs import Pair

__all__ = ["Plan", "load_plan", "plan", "save_plan"]

RULES = (
    as_the_model, objects, view, network, target_spacing, normalisation, loss, class_weights, patch, batch, memory,
    mirroring, augmentation, hold_out, ema_decay, budget,
)  # fmt: skip
"""Each sees what those before it have chosen."""
ALWAYS = ("view", "network", "normalise", "loss", "patch", "batch", "ema_decay")
"""What some rule chooses in every plan, unless it is set."""
ADVICE = "start a new run, since another plan would make another model"


@dataclass(frozen=True)
class Plan:
    """Settings without anything left open, and what was chosen for them.

    Parameters
    ----------
    settings : TrainSettings
        Of the kind that was given.
    choices : tuple of Choice
    """

    settings: TrainSettings
    choices: tuple[Choice, ...]

    @property
    def text(self) -> str:
        """The plan in a sentence."""
        parts = [f"{choice.name.replace('_', ' ')} {_shown(choice.value)} ({choice.reason})" for choice in self.choices]
        return f"Planned: {'; '.join(parts)}." if parts else ""


def plan(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> Plan:
    """Choose what is left open.

    Parameters
    ----------
    pairs : sequence of Pair
    settings : TrainSettings
        Fields that were not set are open, those of `TrainJob.left_open`.
    device : {"cpu", "cuda"}

    Returns
    -------
    Plan
    """
    choices: list[Choice] = []
    for rule in RULES:
        for choice in rule(pairs, settings, device):
            if choice.name not in settings.model_fields_set:
                settings = _with(settings, choice)
                choices.append(choice)
    return Plan(settings, tuple(choices))


def save_plan(made: Plan, path: Path) -> None:
    """Write a plan to a file.

    Parameters
    ----------
    made : Plan
    path : Path
    """
    write_json(path, [asdict(choice) for choice in made.choices])


def load_plan(settings: TrainSettings, path: Path) -> Plan | None:
    """Read the plan of an interrupted run.

    Parameters
    ----------
    settings : TrainSettings
        What is set here stays, although the plan says otherwise.
    path : Path

    Returns
    -------
    Plan or None
        None if there is none.

    Raises
    ------
    FileProblem
        If it is damaged, or leaves open what every plan decides.
    """
    if not path.exists():
        return None
    choices = _read_choices(path)
    decided = settings.model_fields_set | {choice.name for choice in choices}
    if missing := [name for name in ALWAYS if name not in decided]:
        raise FileProblem(f"{path} does not choose {', '.join(missing)}; {ADVICE}.")
    said = settings.model_fields_set | ({"minutes"} if {"epochs", "steps"} & settings.model_fields_set else set())
    choices = tuple(choice for choice in choices if choice.name not in said)
    for choice in choices:
        settings = _with(settings, choice)
    return Plan(settings, choices)


def _read_choices(path: Path) -> tuple[Choice, ...]:
    try:
        return tuple(Choice(**row) for row in read_json(path, list, ADVICE))
    except TypeError as error:
        raise FileProblem(f"{path} holds what is no choice ({error}); {ADVICE}.") from error


def _with(settings: TrainSettings, choice: Choice) -> TrainSettings:
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    return checked(type(settings), given | {choice.name: choice.value})


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in value.items())
    if isinstance(value, tuple | list):
        return " ".join(map(_shown, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
