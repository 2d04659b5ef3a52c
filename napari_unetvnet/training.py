"""The training loop as a generator: whoever runs it asks for one step after the other, and stops by asking no more.

Everything that a step depends on is a pure function of the seed and its number (`Schedule.rate`, the patches, their
augmentation, dropout), so a run can be repeated and resumed.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_unetvnet.augment import augment
from napari_unetvnet.card import ModelCard
from napari_unetvnet.checks import check_size
from napari_unetvnet.data import prepare
from napari_unetvnet.errors import ModelProblem, RunProblem
from napari_unetvnet.events import CheckpointSaved, EpochDone, Event, Notice, StepDone
from napari_unetvnet.hold_out import class_counts, packed
from napari_unetvnet.inference import decide, scores
from napari_unetvnet.losses import build_loss, write_loss
from napari_unetvnet.losses.adapters import DeepSupervision
from napari_unetvnet.model import Model, build_model, load_model, read_state, save_model, save_tensors
from napari_unetvnet.networks import NETWORKS
from napari_unetvnet.patches import Batch
from napari_unetvnet.regions import paint_order
from napari_unetvnet.schedule import Schedule
from napari_unetvnet.settings import IGNORE, SegmentSettings, TrainSettings, Triple
from napari_unetvnet.targets import loss_weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_unetvnet.data import Pair
    from napari_unetvnet.losses.adapters import Loss
    from napari_unetvnet.patches import TrainingData
    from napari_unetvnet.targets import Classes

__all__ = ["BEST", "LAST", "steps"]

BEST = "model.safetensors"
LAST = "last.safetensors"
GRADIENT_NORM = 5.0
WEIGHT_DECAY = 1e-2
DEFAULT_PATCH: dict[str, Triple] = {"2d": (1, 128, 128), "2.5d": (1, 128, 128), "3d": (32, 64, 64)}


@dataclass
class _Best:
    """The best model so far: its weights on the CPU, its step and its Dice on the hold-out (None without one)."""

    weights: dict[str, Tensor] = field(default_factory=dict)
    step: int = 0
    dice: float | None = None
    scores: dict[str, float] = field(default_factory=dict)


@dataclass
class _Run:
    """What a training works with."""

    folder: Path
    settings: TrainSettings
    data: TrainingData
    model: Model
    criterion: DeepSupervision
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    best: _Best = field(default_factory=_Best)
    within_step: bool = False


def steps(pairs: Sequence[Pair], settings: TrainSettings, folder: Path, *, resume: bool = False) -> Iterator[Event]:
    """Train a model, one step each time an event is asked for.

    The best model so far is ``folder/model.safetensors``; ``folder/last.safetensors`` holds what is needed to go on.
    Both are brought up to date when the consumer stops asking.

    Parameters
    ----------
    pairs : sequence of Pair
        Images (C, Z, Y, X) with labels (1, Z, Y, X).
    settings : TrainSettings
    folder : Path
        Must exist.
    resume : bool
        Whether to go on from ``last.safetensors``, if it is there.

    Yields
    ------
    Event
        Notice, StepDone after each step, EpochDone and CheckpointSaved after each epoch.

    Raises
    ------
    DataProblem
        If images or labels cannot be used.
    SettingsProblem
        If the settings do not fit the classes that were found.
    ModelProblem
        If the model to start from is of another kind.
    OutOfMemory
        If one batch does not fit on the device.
    RunProblem
        If the training diverges, or the state to resume from is cut off.
    """
    patch = settings.patch or DEFAULT_PATCH[settings.view]
    data = prepare(pairs, settings, patch)
    for text in data.notices:
        yield Notice(text)
    run = _start(pairs, data, settings, folder, patch)
    if resume and (folder / LAST).exists():
        _load_last(run)
        yield Notice(f"Going on after step {run.schedule.step}.")
    schedule, losses = run.schedule, []
    clock = time.monotonic() - schedule.seconds
    try:
        while not schedule.over:
            losses.append(_step(run))
            schedule.seconds = time.monotonic() - clock
            epoch = -(-schedule.step // settings.epoch_steps)
            ended = schedule.step % settings.epoch_steps == 0 or schedule.over
            # Before anything is told: whoever stops at this step has its score, as a run that was never stopped.
            dice, saved = _validate(run) if ended else (None, False)
            schedule.seconds = time.monotonic() - clock
            yield StepDone(schedule.step, schedule.steps, epoch, losses[-1], schedule.seconds, schedule.seconds_left)
            if not ended:
                continue
            loss, losses = sum(losses) / len(losses), []
            yield EpochDone(epoch, schedule.step, loss, dice, schedule.seconds, schedule.seconds_left)
            if saved:
                yield CheckpointSaved(str(folder / BEST), schedule.step, dice)
            _save_last(run)
    finally:
        _leave(run)


def _start(pairs: Sequence[Pair], data: TrainingData, settings: TrainSettings, folder: Path, patch: Triple) -> _Run:
    """Build model, loss and optimizer from the settings."""
    torch.manual_seed(settings.seed)
    torch.backends.cudnn.deterministic = True
    model = build_model(_card(data, settings, patch), settings)
    model.card = model.card.model_copy(update={"patch": _fitting_patch(model, data, patch)})
    for pair in pairs:
        check_size(pair.image, model.smallest, settings.network)
    if settings.start_from is not None:
        _take_weights(model, settings)
    optimizer = torch.optim.AdamW(model.network.parameters(), lr=settings.learning_rate, weight_decay=WEIGHT_DECAY)
    schedule = Schedule(settings.learning_rate, settings.planned_minutes, settings.planned_steps)
    criterion = DeepSupervision(_loss(data, model.card, settings), settings.level_weights, settings.roi_weight)
    return _Run(folder, settings, data, model, criterion, optimizer, schedule)


def _loss(data: TrainingData, card: ModelCard, settings: TrainSettings) -> Loss:
    """Build the loss, with the weights of the classes in the part that is trained on."""
    classes = data.classes
    counts = np.sum([class_counts(region.target)[: len(classes)] for region in data.train], axis=0)
    axes = (-3, -2, -1)
    known = np.sum([(region.target != IGNORE).sum(axis=axes) for region in data.train], axis=0)
    weights = loss_weights(counts, known, classes, settings)
    return build_loss(settings.loss, head=card.head, class_weights=weights)


def _card(data: TrainingData, settings: TrainSettings, patch: Triple) -> ModelCard:
    """Say what the model will be; scores and steps are filled in when it is saved."""
    from importlib.metadata import version

    image = data.train[0].image
    return ModelCard(
        network=settings.network,
        option=settings.option,
        head=settings.head_for(len(data.classes)),
        view=settings.view,
        context=settings.context if settings.view == "2.5d" else 0,
        channels=data.channels,
        values=data.classes.written,
        class_names=data.classes.names,
        overlapping=settings.label_values == "overlapping",
        paint_order=paint_order(settings.regions),
        lines=data.classes.lines,
        patch=patch,
        spacing=image.spacing,
        unit=image.unit,
        normalise=settings.normalise,
        loss=write_loss(settings.loss),
        seed=settings.seed,
        split=tuple(packed(boxes) for boxes in data.boxes),
        versions={"napari-unetvnet": version("napari-unetvnet"), "torch": str(torch.__version__)},
    )


def _fitting_patch(model: Model, data: TrainingData, patch: Triple) -> Triple:
    """Shorten the patch to the largest region and lengthen it to what the network takes."""
    shapes = [region.image.shape for region in data.train]
    return model.fit([min(p, max(lengths)) for p, lengths in zip(patch, zip(*shapes, strict=True), strict=True)])


def _take_weights(model: Model, settings: TrainSettings) -> None:
    """Start from the weights of a model file of the same kind."""
    source = load_model(str(settings.start_from), settings)
    then, now = _kind(source.card), _kind(model.card)
    if differing := [name for name in now if then[name] != now[name]]:
        pairs = (f"{name} {then[name]} (now {now[name]})" for name in differing)
        raise ModelProblem(
            f"{settings.start_from} cannot be trained on with these settings: it has {', '.join(pairs)}. "
            "Choose the same, or start without it."
        )
    model.network.load_state_dict(source.network.state_dict())


def _kind(card: ModelCard) -> dict[str, object]:
    """Give what two models must share for one to take the other's weights, options with their defaults."""
    described = NETWORKS.describe(card.network)
    options = {**described.defaults, **card.option}
    for name in described.facts.get("training_options", ()):
        del options[name]
    plain = {name: getattr(card, name) for name in ("network", "head", "view", "context", "channels", "values")}
    return plain | {"option": options}


def _step(run: _Run) -> float:
    """Take one optimiser step and give its loss."""
    run.within_step = True
    for group in run.optimizer.param_groups:
        group["lr"] = run.schedule.rate()
    images, target, weight = _batch(run)
    run.model.network.train()
    torch.manual_seed(run.settings.seed * 1_000_003 + run.schedule.step)  # dropout, a function of the step
    run.model.network.freeze_for(run.schedule.step // run.settings.epoch_steps)
    outputs, seen = run.model.supervised(images)
    loss = run.criterion(outputs, target, weight, seen)
    if not torch.isfinite(loss):
        kept = "the best model so far is kept" if run.schedule.step else "there is no model yet"
        raise RunProblem(
            f"The loss is no longer a number at step {run.schedule.step + 1}: the training diverged. Choose a learning "
            f"rate below {run.settings.learning_rate:g}; {kept}."
        )
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(run.model.network.parameters(), GRADIENT_NORM)
    run.optimizer.step()
    run.schedule.step += 1
    run.within_step = False
    return loss.item()


def _batch(run: _Run) -> Batch:
    """Draw the next patches, with the margin that the network wants around them."""
    settings, margin = run.settings, run.model.margin
    rng = np.random.default_rng([settings.seed, run.schedule.step])
    # Flips would swap unequal margins, so patches come with the larger one on both sides.
    z, y, x = (max(sides) for sides in margin)
    drawn = run.data.batch(rng, settings.batch, run.model.card.patch, (z, y, x))
    images, target = (torch.from_numpy(array).to(run.model.device) for array in drawn[:2])
    weight = None if drawn.weight is None else torch.from_numpy(drawn.weight).to(run.model.device)
    if settings.augment == "light":
        images, target, weight = augment(images, target, weight, rng)
    for axis, (widest, (before, after)) in enumerate(zip((z, y, x), margin, strict=True), start=2):
        images = images.narrow(axis, widest - before, images.shape[axis] - 2 * widest + before + after)
    return Batch(images, target, weight)


def _validate(run: _Run) -> tuple[float | None, bool]:
    """Score the model on the hold-out and save it if it is the best so far (without a hold-out, the newest is)."""
    newest = _snapshot(run)
    if newest.dice is not None and run.best.dice is not None and newest.dice < run.best.dice:
        return newest.dice, False
    run.best = newest
    _save_best(run, newest)
    return newest.dice, True


def _snapshot(run: _Run) -> _Best:
    """Score the present weights and copy them."""
    dice, by_class = _hold_out_dice(run)
    weights = {name: tensor.detach().cpu().clone() for name, tensor in run.model.network.state_dict().items()}
    return _Best(weights, run.schedule.step, dice, by_class)


def _hold_out_dice(run: _Run) -> tuple[float | None, dict[str, float]]:
    """Give the mean Dice of the foreground classes over the whole hold-out, and that of each class."""
    card, classes = run.model.card, run.data.classes
    overlap, total = np.zeros(len(classes)), np.zeros(len(classes))
    run.model.network.eval()
    for region in run.data.hold_out:
        for start, logits in scores(run.model, region.image, SegmentSettings(), region.scale):
            shown = logits[list(card.class_outputs)] if classes.several else logits
            predicted = decide(shown, card.head).cpu().numpy()
            common, both = _overlaps(predicted, region.target[..., start : start + predicted.shape[-3], :, :], classes)
            overlap += common
            total += both
    dice = {k: float(2 * overlap[k] / total[k]) for k in classes.foreground if total[k]}
    mean = sum(dice.values()) / len(dice) if dice else None
    names = classes.names if classes.several and classes.names else tuple(map(str, classes.written))
    return mean, {names[k]: value for k, value in dice.items()}


def _overlaps(
    predicted: NDArray[np.uint8], target: NDArray[np.uint8], classes: Classes
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count for each class the known voxels where both have it, and those of the one plus those of the other."""
    predicted = np.where(target == IGNORE, IGNORE, predicted)
    if classes.several:
        there, true = predicted == 1, target == 1
        sums = tuple(mask.sum(axis=(1, 2, 3)) for mask in (there & true, there, true))
    else:
        parts = (predicted[predicted == target], predicted.ravel(), target.ravel())
        sums = tuple(np.bincount(part, minlength=IGNORE + 1)[: len(classes)] for part in parts)
    return sums[0], sums[1] + sums[2]


def _save_best(run: _Run, best: _Best) -> None:
    found = {"hold_out_dice": best.dice} if best.dice is not None else {}
    found |= {f"hold_out_dice_{value}": dice for value, dice in best.scores.items()}
    # What served to start the training, such as a file of pretrained weights, is in the weights by now.
    passing = NETWORKS.describe(run.settings.network).facts.get("training_options", ())
    option = {name: value for name, value in run.settings.option.items() if name not in passing}
    card = run.model.card.model_copy(update={"steps": run.schedule.step, "scores": found, "option": option})
    save_model(run.folder / BEST, best.weights, card)


def _leave(run: _Run) -> None:
    """Bring both files up to date, whatever ended the run."""
    if run.schedule.step == 0:
        return
    # Stopped within the first epoch, what there is is the best; but it is no part of the state, because a run that
    # goes on must end like one that was never stopped.
    _save_best(run, run.best if run.best.weights else _snapshot(run))
    if not run.within_step:  # half a step cannot be resumed from; the state before it is on disk
        _save_last(run)


def _save_last(run: _Run) -> None:
    """Write weights, optimizer and progress; tensors in the file, the rest in its header."""
    tensors = {f"network.{name}": tensor for name, tensor in run.model.network.state_dict().items()}
    for index, moments in run.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in moments.items()}
    best = {"step": run.best.step, "dice": run.best.dice, "scores": run.best.scores}
    tensors |= {f"best.{name}": tensor for name, tensor in run.best.weights.items()}
    state = {"schedule": asdict(run.schedule), "best": best}
    save_tensors(run.folder / LAST, tensors, {"state": json.dumps(state)})


def _load_last(run: _Run) -> None:
    """Go back to where `_save_last` was."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = run.folder / LAST
    try:
        state, tensors = read_state(path), load_file(path)
        run.model.network.load_state_dict(_under("network.", tensors))
    except (SafetensorError, OSError, RuntimeError, KeyError, ValueError) as error:
        raise RunProblem(f"{path} is cut off or of another run ({error}); start a new run.") from None
    optimizer = run.optimizer.state_dict()
    for name, tensor in _under("optimizer.", tensors).items():
        index, _, moment = name.partition(".")
        optimizer["state"].setdefault(int(index), {})[moment] = tensor
    run.optimizer.load_state_dict(optimizer)
    budget = {"minutes": run.schedule.minutes, "steps": state["schedule"]["steps"] or run.schedule.steps}
    run.schedule.__dict__.update(state["schedule"] | budget)
    run.best = _Best(_under("best.", tensors), **state["best"])


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give the tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
