"""From data to settings: what the user left open is chosen from the images, the labels and the device, with a reason.

A choice is left open by not setting it. Everything here is a rule with a sentence, and the same data and device give
the same plan. It is written to the run folder, so that a resumed run has it, too.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unetvnet.networks import NETWORKS
from napari_unetvnet.settings import TrainSettings, Triple, checked

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_unetvnet.data import Pair

__all__ = ["Choice", "Plan", "load_plan", "plan", "save_plan"]


COARSE = 3.0
"""Planes so many times as far apart as voxels within them are not for 3D convolutions."""
FEW_PLANES = 8
STEP_VOXELS = {"cpu": 2**17, "cuda": 2**20}
"""What a step looks at, so that it takes about a tenth of a second."""
PLANE_PATCH, BLOCK_VOXELS = 128, 2**16
STEP = 16
"""Most networks halve their input four times."""
WIDTH = {"cpu": 16, "cuda": 32}
LIKELY_SIDED = 3
ASYMMETRY = 2.0
"""Classes lie on different sides if their distance is so many times its own spread over the images."""


@dataclass(frozen=True)
class Choice:
    """One setting that was chosen: its name, its value as JSON holds it, and why."""

    name: str
    value: Any
    reason: str


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
        Fields that were not set are open: view, network, option, patch, batch, mirror, augment and loss.
    device : {"cpu", "cuda"}

    Returns
    -------
    Plan
    """
    choices: list[Choice] = []
    for choose in (_view, _network, _loss, _patch, _batch, _mirror, _augment):
        found = choose(pairs, settings, device)
        for choice in found:
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
    path : Path

    Returns
    -------
    Plan or None
        None if there is none.
    """
    if not path.exists():
        return None
    choices = tuple(Choice(**row) for row in json.loads(path.read_text(encoding="utf-8")))
    for choice in choices:
        settings = _with(settings, choice)
    return Plan(settings, choices)


def _with(settings: TrainSettings, choice: Choice) -> TrainSettings:
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    return checked(type(settings), given | {choice.name: choice.value})


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in value.items())
    return " ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def _view(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Choice]:
    depth = max(pair.image.shape[0] for pair in pairs)
    z, y, x = pairs[0].image.spacing
    coarse = z / min(y, x)
    painted = sum(bool(np.asarray(plane).any()) for pair in pairs for plane in _planes(pair))
    planes = sum(pair.image.shape[0] for pair in pairs)
    if depth == 1:
        return [Choice("view", "2d", "the images are planes")]
    if not _has_form(settings, 3):
        return [Choice("view", "2d", f"{settings.network} has no 3D form")]
    if depth < FEW_PLANES:
        return [Choice("view", "2.5d", f"there are only {depth} planes")]
    if coarse >= COARSE:
        return [Choice("view", "2.5d", f"planes are {coarse:.1f} times as far apart as pixels")]
    if settings.unlabelled == "ignore" and painted < max(3, planes // 10):
        return [Choice("view", "2.5d", f"only {painted} of {planes} planes carry labels")]
    return [Choice("view", "3d", "the images are volumes with labels in most planes")]


def _planes(pair: Pair) -> Any:
    return (pair.labels.data[:, z] for z in range(pair.labels.shape[0]))


def _has_form(settings: TrainSettings, dims: int) -> bool:
    if "network" not in settings.model_fields_set:
        return True
    return dims in NETWORKS.describe(settings.network).facts.get("supported_dims", (2, 3))


def _network(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Choice]:
    del pairs
    if "network" in settings.model_fields_set:
        return []
    name = settings.network
    chosen = [Choice("network", name, "a plain U-Net that learns fast")]
    if "option" not in settings.model_fields_set:
        chosen.append(Choice("option", {"width": WIDTH[device]}, f"what a {device.upper()} trains in minutes"))
    return chosen


def _loss(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Choice]:
    del pairs, device
    if settings.lines:
        return [Choice("loss", "ten_channel", "made for thin lines beside blocks")]
    if settings.several_labels:
        return [Choice("loss", "bce_dice", "classes may overlap")]
    return [Choice("loss", "dice_ce", "right for most images")]


def _patch(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Choice]:
    del device
    shape = [int(np.median([pair.image.shape[axis] for pair in pairs])) for axis in range(3)]
    if settings.view != "3d":
        patch = (1, min(PLANE_PATCH, _whole(shape[1])), min(PLANE_PATCH, _whole(shape[2])))
        return [Choice("patch", list(patch), "a part of a plane that fits the images")]
    return [
        Choice("patch", list(_block(shape, pairs[0].image.spacing)), "a block as wide on each side, within the images")
    ]


def _block(shape: Sequence[int], spacing: Sequence[float]) -> Triple:
    """Give a block of about BLOCK_VOXELS voxels, equally long on each axis, no longer than the images."""
    fine = [s / min(spacing) for s in spacing]
    for edge in range(256, STEP - 1, -8):
        patch = [min(_whole(n), max(STEP, STEP * round(edge / f / STEP))) for n, f in zip(shape, fine, strict=True)]
        if prod(patch) <= BLOCK_VOXELS * 1.25:
            return patch[0], patch[1], patch[2]
    return STEP, STEP, STEP


def _whole(length: int) -> int:
    """Shorten an axis to what networks take without padding."""
    return max(length // STEP * STEP, min(length, STEP))


def _batch(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Choice]:
    del pairs
    count = max(2, round(STEP_VOXELS[device] / prod(settings.planned_patch)))
    return [Choice("batch", min(32, count), "steps of about a tenth of a second")]


def _mirror(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Choice]:
    del device
    sided = _sided_axes(pairs, settings)
    axes = [axis for axis in "zyx" if axis not in sided]
    if sided:
        return [Choice("mirror", axes, f"classes lie on different sides along {', '.join(sided)}")]
    return [Choice("mirror", axes, "no class is always on one side of another")]


def _sided_axes(pairs: Sequence[Pair], settings: TrainSettings) -> list[str]:
    """Find axes along which one class is always before another, so that mirroring would exchange them."""
    if len(pairs) < LIKELY_SIDED or settings.label_values != "classes":
        return []
    centres = [_centres(np.asarray(pair.labels.data[0])) for pair in pairs]
    values = sorted(set().union(*centres) - {0})
    found = []
    for i, axis in enumerate("zyx"):
        for a, b in ((a, b) for a in values for b in values if a < b):
            apart = np.array([c[a][i] - c[b][i] for c in centres if a in c and b in c])
            if len(apart) >= LIKELY_SIDED and abs(apart.mean()) > ASYMMETRY * apart.std() + 0.02:
                found.append(axis)
                break
    return found


def _centres(labels: Any) -> dict[int, Any]:
    """Give the centre of each value, in shares of the image's edges."""
    found = {}
    for value in np.unique(labels).tolist():
        places = np.nonzero(labels == value)
        found[int(value)] = np.array([p.mean() / n for p, n in zip(places, labels.shape, strict=True)])
    return found


def _augment(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Choice]:
    del pairs, settings, device
    return [Choice("augment", "standard", "it sets in after the first minute")]
