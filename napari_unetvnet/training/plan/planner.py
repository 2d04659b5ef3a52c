"""The rules one after the other, and what they made."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

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
    path.write_text(json.dumps([asdict(choice) for choice in made.choices], indent=2), encoding="utf-8")


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
    """
    if not path.exists():
        return None
    choices = tuple(Choice(**row) for row in json.loads(path.read_text(encoding="utf-8")))
    said = settings.model_fields_set | ({"minutes"} if {"epochs", "steps"} & settings.model_fields_set else set())
    choices = tuple(choice for choice in choices if choice.name not in said)
    for choice in choices:
        settings = _with(settings, choice)
    return Plan(settings, choices)


def _with(settings: TrainSettings, choice: Choice) -> TrainSettings:
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    return checked(type(settings), given | {choice.name: choice.value})


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in value.items())
    if isinstance(value, tuple | list):
        return " ".join(map(_shown, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
