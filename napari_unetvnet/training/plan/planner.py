"""Apply the planning rules in order, and save and load the plan."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from napari_unetvnet.errors import FileProblem, SettingsProblem
from napari_unetvnet.json_files import write_json
from napari_unetvnet.settings import TrainSettings, checked
from napari_unetvnet.settings.decision import Decision, read_decisions
from napari_unetvnet.training.plan.from_model import as_the_model
from napari_unetvnet.training.plan.inputs import batch, context, network, patch, target_spacing, view
from napari_unetvnet.training.plan.intensities import normalise_in
from napari_unetvnet.training.plan.learning import (
    augmentation,
    budget,
    class_weights,
    ema_decay,
    fine_tuning,
    hold_out,
    loss,
    mirroring,
    normalisation,
    objects,
)
from napari_unetvnet.training.plan.meaning import meaning
from napari_unetvnet.training.plan.memory import memory
from napari_unetvnet.training.plan.pace import width
from napari_unetvnet.training.plan.start import start_from
from napari_unetvnet.training.plan.words import in_words, meaning_in_words

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_unetvnet.images.pairs import Pair

__all__ = ["Plan", "load_plan", "plan", "save_plan"]

RULES = (
    meaning, start_from, as_the_model, fine_tuning, objects, view, context, network, target_spacing, normalisation,
    normalise_in, loss, class_weights, patch, batch, budget, width, memory, mirroring, augmentation, hold_out,
    ema_decay,
)  # fmt: skip
"""Each rule sees the decisions of those before it."""
ALWAYS = ("view", "network", "normalise", "loss", "patch", "batch", "ema_decay")
"""Settings that every plan chooses, unless they are set."""
ADVICE = "start a new run, because another plan would give another model"


@dataclass(frozen=True)
class Plan:
    """Complete settings, and the decisions by which they were completed.

    Parameters
    ----------
    settings : TrainSettings
        Of the same class as those of the user.
    """

    settings: TrainSettings
    choices: tuple[Decision, ...]

    @property
    def text(self) -> str:
        """The plan in a sentence."""
        return in_words(self.settings, self.choices)

    @property
    def understood(self) -> str:
        """What label 0 was taken for, and how to say otherwise; empty if that was set."""
        return meaning_in_words(self.settings, self.choices)


def plan(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> Plan:
    """Choose the settings that are not set.

    Parameters
    ----------
    settings : TrainSettings
        Fields that are not set are chosen, those of `TrainJob.left_open`.
    device : {"cpu", "cuda"}

    Returns
    -------
    Plan
    """
    choices: list[Decision] = []
    for rule in RULES:
        made = [each for each in rule(pairs, settings, device) if each.name not in settings.model_fields_set]
        settings = _with(settings, made)
        choices += made
    return Plan(settings, tuple(choices))


def save_plan(plan: Plan, path: Path) -> None:
    """Write a plan to a file."""
    write_json(path, [asdict(choice) for choice in plan.choices])


def load_plan(settings: TrainSettings, path: Path) -> Plan | None:
    """Read the plan of an interrupted run.

    Parameters
    ----------
    settings : TrainSettings
        Settings that are set override the plan.

    Returns
    -------
    Plan or None
        None if there is no plan.

    Raises
    ------
    FileProblem
        If it is damaged or incomplete.
    """
    if not path.exists():
        return None
    choices = read_decisions(path, ADVICE)
    decided = settings.model_fields_set | {choice.name for choice in choices}
    if missing := [name for name in ALWAYS if name not in decided]:
        raise FileProblem(f"{path} does not choose {', '.join(missing)}; {ADVICE}.")
    fixed = settings.model_fields_set | ({"minutes"} if {"epochs", "steps"} & settings.model_fields_set else set())
    choices = tuple(choice for choice in choices if choice.name not in fixed)
    try:
        return Plan(_with(settings, choices), choices)
    except SettingsProblem as problem:
        raise FileProblem(f"{path} has an invalid choice ({problem}); {ADVICE}.") from problem


def _with(settings: TrainSettings, choices: Sequence[Decision]) -> TrainSettings:
    """Add choices together, since one may only be valid with another."""
    values = {name: getattr(settings, name) for name in settings.model_fields_set}
    return checked(type(settings), values | {choice.name: choice.value for choice in choices}) if choices else settings
