"""What a saved state belongs to: a resumed training goes on with the same network and classes, or is refused."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_unetvnet.data.known import KnownImages
from napari_unetvnet.errors import RunProblem
from napari_unetvnet.losses import write_loss
from napari_unetvnet.model.card import ModelCard
from napari_unetvnet.model.differences import change, class_differences, model_differences, network_options
from napari_unetvnet.model.saved import read_state
from napari_unetvnet.settings import CONSTANTS, TrainSettings
from napari_unetvnet.training.score import score_weights
from napari_unetvnet.training.state import State

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_unetvnet.data.patches import Region, TrainingData
    from napari_unetvnet.training.files import TrainingFiles
    from napari_unetvnet.training.run import Run

__all__ = [
    "SavedState",
    "check_card",
    "check_data",
    "check_settings",
    "described",
    "labels_hash",
    "read_saved",
    "rescore",
]

FIXED = (
    "network", "view", "context", "optimizer", "normalise", "normalise_in", *CONSTANTS, "target_spacing", "folds",
    "fold",
)  # fmt: skip
"""Settings that a resumed training cannot change."""
BUDGET = ("minutes", "epochs", "steps")
KEPT = ("hold_out", "seed", "start_from")
"""Settings that no longer choose what they chose at the start."""


@dataclass(frozen=True)
class SavedState:
    """What a saved state belongs to.

    Parameters
    ----------
    files : TrainingFiles
        Those of the training.
    step : int
        Steps taken in all.
    card : ModelCard
    settings : dict
        From `described`.
    labels : str
        From `labels_hash`.
    """

    files: TrainingFiles
    step: int
    card: ModelCard
    settings: dict[str, Any]
    labels: str

    @property
    def known(self) -> KnownImages:
        """What was trained on and held out, which a resumed training keeps."""
        return KnownImages(self.files.model.name, list(self.card.images), self.card.split, True, self.card)


def read_saved(files: TrainingFiles) -> SavedState:
    """Read what the saved state of a training belongs to, without its weights.

    Returns
    -------
    SavedState

    Raises
    ------
    RunProblem
        If the file is cut off.
    FileProblem
        If its header is damaged.
    """
    from safetensors import SafetensorError

    path = files.state
    try:
        state = read_state(path, State)
        step = state["schedule"]["first"] + state["schedule"]["step"]
        card = ModelCard.model_validate(state["card"])
        return SavedState(files, step, card, state["settings"], state["labels"])
    except (SafetensorError, OSError, ValueError) as error:
        raise RunProblem(f"{path} is cut off or of another run ({error}); start a new run.") from None


def described(settings: TrainSettings) -> dict[str, Any]:
    """Give the settings of a training as JSON, with all options of the network."""
    values = settings.model_dump(mode="json", include=set(TrainSettings.model_fields))
    return values | {
        "loss": write_loss(settings.loss),
        "option": network_options(settings.network, settings.option),
        "context": settings.planes_beside,
    }


def labels_hash(regions: Sequence[Region]) -> str:
    """Hash the labels of what is scored after each epoch, and where they are."""
    digest = hashlib.sha256()
    for region in regions:
        digest.update(repr((region.number, region.start, region.target.shape)).encode())
        digest.update(region.target.tobytes())
    return digest.hexdigest()


def check_settings(saved: SavedState, settings: TrainSettings) -> Iterator[str]:
    """Compare the settings with those of the saved state.

    Yields
    ------
    str
        A notice on those that differ.

    Raises
    ------
    RunProblem
        If one differs that a resumed training cannot change.
    """
    new, old = described(settings), saved.settings
    fixed = [change(name, new[name], old.get(name)) for name in FIXED if new[name] != old.get(name)]
    if new["network"] == old.get("network"):
        fixed += _option_changes(new["option"], old.get("option", {}))
    if bool(new["ema_decay"]) != bool(old.get("ema_decay")):
        fixed.append(change("ema_decay", new["ema_decay"], old.get("ema_decay")))
    if fixed:
        raise RunProblem(_refusal(saved, fixed))
    names = [name for name in new if name not in (*FIXED, "option") and new[name] != old.get(name)]
    names = [name for name in names if not (name in BUDGET and new[name] is None)]
    if names:
        changes = "; ".join(change(name, new[name], old.get(name)) for name in names)
        kept = " The hold-out and the weights to start from stay as they were." if set(KEPT) & set(names) else ""
        yield f"Changed after step {saved.step}: {changes}.{kept}"


def _option_changes(new: dict[str, Any], old: dict[str, Any]) -> list[str]:
    names = sorted(new.keys() | old.keys())
    values = {name: (_plain(new.get(name)), _plain(old.get(name))) for name in names}
    return [change(f"option {name}", *pair) for name, pair in values.items() if pair[0] != pair[1]]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def check_data(saved: SavedState, data: TrainingData) -> None:
    """Refuse labels of other classes, and images of other channels, than the saved state has.

    Raises
    ------
    RunProblem
        With what differs.
    """
    if differences := class_differences(data.classes.output_values, data.channels, saved.card):
        raise RunProblem(_refusal(saved, differences))


def check_card(saved: SavedState, card: ModelCard) -> None:
    """Refuse a model of another kind than the saved one.

    Raises
    ------
    RunProblem
        With what differs.
    """
    if differences := model_differences(card, saved.card):
        raise RunProblem(_refusal(saved, differences))


def _refusal(saved: SavedState, differences: Sequence[str]) -> str:
    return (
        f"The run in {saved.files.state.parent} cannot be resumed, because a resumed run keeps its network and its "
        f"classes: {'; '.join(differences)}. Set that back, or start a new training with --start-from "
        f"{saved.files.model}."
    )


def rescore(run: Run, saved: SavedState) -> Iterator[str]:
    """Score the best model again if the labels of the hold-out have changed, so that scores compare like with like.

    Yields
    ------
    str
        A notice.
    """
    if labels_hash(run.scored) == saved.labels or not run.best.weights:
        return
    before, run.best = run.best.dice, score_weights(run, run.best, run.scored)
    if run.parent is not None and run.parent.start is not None:
        run.parent.start = score_weights(run, run.parent.start, run.scored)
    yield (
        f"The hold-out has other labels than at step {saved.step}; the best model so far was scored on it again: Dice "
        f"{_number(run.best.dice)}, before {_number(before)}."
    )


def _number(dice: float | None) -> str:
    return "none" if dice is None else f"{dice:.3f}"
