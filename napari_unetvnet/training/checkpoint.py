"""Checkpoints of a training: the best model, and the state to resume from."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from napari_unetvnet.errors import RunProblem
from napari_unetvnet.model.model import read_state, save_model, save_tensors
from napari_unetvnet.networks import lasting_options
from napari_unetvnet.training.fallback import StepOptions
from napari_unetvnet.training.run import Best

if TYPE_CHECKING:
    from torch import Tensor

    from napari_unetvnet.training.run import Run

__all__ = ["load_last", "save_best", "save_last"]


def save_best(run: Run, best: Best) -> None:
    """Write the model file, in rank 0 only."""
    if not run.group.is_first:
        return
    scores = {"hold_out_dice": best.dice} if best.dice is not None else {}
    scores |= {f"hold_out_dice_{value}": dice for value, dice in best.scores.items()}
    # Options for the start, such as a file of pretrained weights, are dropped: the weights contain them now.
    option = lasting_options(run.settings.network, run.settings.option)
    card = run.model.card.model_copy(update={"steps": run.schedule.step, "scores": scores, "option": option})
    save_model(run.files.model, best.weights, card)


def save_last(run: Run) -> None:
    """Write weights, optimizer and progress, in rank 0 only; tensors in the file, the rest in its header."""
    if not run.group.is_first:
        return
    tensors = {f"network.{name}": tensor for name, tensor in run.model.network.state_dict().items()}
    for index, moments in run.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in moments.items() if tensor is not None}
    best = {name: getattr(run.best, name) for name in ("step", "dice", "reached", "scores")}
    tensors |= {f"best.{name}": tensor for name, tensor in run.best.weights.items()}
    if run.ema is not None:
        tensors |= {f"ema.{name}": tensor for name, tensor in run.ema.state_dict().items()}
    scaler = run.scaler.state_dict()
    state = {"schedule": asdict(run.schedule), "best": best, "fallback": asdict(run.fallback.options), "scaler": scaler}
    save_tensors(run.files.state, tensors, {"state": json.dumps(state)})


def load_last(run: Run) -> None:
    """Restore the state that `save_last` wrote.

    Raises
    ------
    RunProblem
        If the file is cut off or of another run.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = run.files.state
    try:
        state, tensors = read_state(path), load_file(path)
        run.model.network.load_state_dict(_with_prefix("network.", tensors))
        if run.ema is not None:
            run.ema.load_state_dict(_with_prefix("ema.", tensors))
        options = StepOptions.from_json(state["fallback"])
    except (SafetensorError, OSError, RuntimeError, KeyError, ValueError) as error:
        raise RunProblem(f"{path} is cut off or of another run ({error}); start a new run.") from None
    optimizer = run.optimizer.state_dict()
    for name, tensor in _with_prefix("optimizer.", tensors).items():
        index, _, moment = name.partition(".")
        optimizer["state"].setdefault(int(index), {})[moment] = tensor
    run.optimizer.load_state_dict(optimizer)
    if state["scaler"]:
        run.scaler.load_state_dict(state["scaler"])
    budget = {"minutes": run.schedule.minutes, "steps": run.schedule.steps}
    if run.schedule.steps is None and run.schedule.minutes == state["schedule"]["minutes"]:
        budget["steps"] = state["schedule"]["steps"]  # the time budget has fixed it already
    run.schedule.__dict__.update(state["schedule"] | budget)
    run.fallback.use(options)
    run.best = Best(_with_prefix("best.", tensors), **state["best"])


def _with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give the tensors whose names start with a prefix, with it removed."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
