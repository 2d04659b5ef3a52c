"""Checkpoints of a training: the best model, and the state to resume from."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from napari_unetvnet.errors import RunProblem
from napari_unetvnet.model.saved import read_state, read_tensors, save_model, save_state
from napari_unetvnet.networks import lasting_options
from napari_unetvnet.training.resume import described, labels_hash
from napari_unetvnet.training.run import Best, Parent
from napari_unetvnet.training.state import ParentState, State

if TYPE_CHECKING:
    import torch
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
    option = lasting_options(run.settings.network, run.model.card.option)
    values: dict[str, Any] = {"steps": run.schedule.taken, "scores": scores, "option": option}
    if run.parent is not None:
        parent = run.parent
        dice = parent.whole if parent.whole is not None or parent.start is None else parent.start.dice
        values |= {"parent": parent.name, "parent_steps": parent.steps, "parent_dice": dice}
        values |= {"unchanged": not best.step and not parent.fitted}
    before, weights = None, best.weights
    if run.fitted is not None:
        before, weights, steps = weights, run.fitted.weights, run.fitted.steps
        values |= {"steps": run.schedule.taken + steps, "final_fit_steps": steps, "images": run.fitted.images}
        values |= {"unchanged": False}
    save_model(run.files.model, weights, run.model.card.model_copy(update=values), before_fit=before)


def save_last(run: Run) -> None:
    """Write weights, optimizer and progress, in rank 0 only; tensors in the file, the rest in its header."""
    if not run.group.is_first:
        return
    tensors = {f"network.{name}": tensor for name, tensor in run.model.network.state_dict().items()}
    for index, moments in run.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in moments.items() if tensor is not None}
    tensors |= {f"best.{name}": tensor for name, tensor in run.best.weights.items()}
    if run.parent is not None and run.parent.start is not None and run.best.step:
        tensors |= {f"parent.{name}": tensor for name, tensor in run.parent.start.weights.items()}
    if run.ema is not None:
        tensors |= {f"ema.{name}": tensor for name, tensor in run.ema.state_dict().items()}
    scaler = run.scaler.state_dict()
    state: dict[str, Any] = {
        "schedule": asdict(run.schedule),
        "fallback": asdict(run.fallback.options),
        "scaler": scaler,
    }
    state |= {"best": _numbers(run.best), "parent": _parent_state(run.parent)}
    state |= {"card": run.model.card.model_dump(mode="json"), "settings": described(run.settings)}
    state |= {"labels": labels_hash(run.scored), "curve": run.curve}
    save_state(run.files.state, tensors, state)


def load_last(run: Run) -> None:
    """Restore the state that `save_last` wrote.

    Raises
    ------
    RunProblem
        If the file is cut off or of another run.
    FileProblem
        If its header is damaged.
    """
    from safetensors import SafetensorError

    path = run.files.state
    try:
        state, tensors = read_state(path, State), read_tensors(path)
        run.model.network.load_state_dict(_with_prefix("network.", tensors))
        if run.ema is not None:
            run.ema.load_state_dict(_with_prefix("ema.", tensors))
        run.optimizer.load_state_dict(_optimizer_state(run.optimizer, _with_prefix("optimizer.", tensors)))
    except (SafetensorError, OSError, RuntimeError, LookupError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunProblem(f"{path} is cut off or of another run ({reason}); start a new run.") from None
    if state["scaler"]:
        run.scaler.load_state_dict(state["scaler"])
    budget = {"minutes": run.schedule.minutes, "steps": run.schedule.steps, "fit": run.schedule.fit}
    if run.schedule.minutes == state["schedule"]["minutes"]:
        run.curve = state.get("curve", [])
        budget["steps"] = budget["steps"] or state["schedule"]["steps"]  # the time budget may have fixed it already
    else:
        budget["flat"] = False  # whoever gives a new budget wants it to be used
    run.schedule.__dict__.update(state["schedule"] | budget)
    run.fallback.use(state["fallback"])
    run.best = Best(_with_prefix("best.", tensors), **state["best"])
    run.parent = _parent(state.get("parent"), run.best, _with_prefix("parent.", tensors))


def _optimizer_state(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Give the state of an optimizer with saved moments, each of the shape of its weights or a number."""
    state, weights = optimizer.state_dict(), [each for group in optimizer.param_groups for each in group["params"]]
    for name, tensor in tensors.items():
        index, _, moment = name.partition(".")
        if tensor.ndim and tensor.shape != weights[int(index)].shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}")
        state["state"].setdefault(int(index), {})[moment] = tensor
    return state


def _numbers(best: Best) -> dict[str, Any]:
    """Give all of a model but its weights."""
    return {name: getattr(best, name) for name in ("step", "dice", "reached", "scores")}


def _parent_state(parent: Parent | None) -> dict[str, Any] | None:
    """Describe the model that training started from."""
    if parent is None:
        return None
    start = None if parent.start is None else _numbers(parent.start)
    return {name: getattr(parent, name) for name in ("name", "path", "steps", "differences", "fitted")} | {
        "start": start
    }


def _parent(state: ParentState | None, best: Best, weights: dict[str, Tensor]) -> Parent | None:
    """Restore the model that training started from; it has no weights of its own while it is the best one."""
    if state is None:
        return None
    start = None if state["start"] is None else Best(weights or best.weights, **state["start"])
    return Parent(state["name"], state["path"], state["steps"], state["differences"], start, fitted=state["fitted"])


def _with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give the tensors whose names start with a prefix, with it removed."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
