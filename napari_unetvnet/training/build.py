"""Model, loss, optimizer and schedule from the settings and the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from napari_unetvnet.data.counts import labelled_voxels
from napari_unetvnet.data.known import records
from napari_unetvnet.data.targets import loss_classes, loss_weights
from napari_unetvnet.images.intensity import joint_brightness, joint_range
from napari_unetvnet.inference import small_image_notice
from napari_unetvnet.losses import LOSSES, build_loss, loss_needs, write_loss
from napari_unetvnet.losses.total import DeepSupervision
from napari_unetvnet.model.card import ModelCard
from napari_unetvnet.model.model import Model, build_model
from napari_unetvnet.model.provenance import brief
from napari_unetvnet.networks import options_for_training
from napari_unetvnet.settings import CONSTANTS
from napari_unetvnet.settings.regions import paint_order
from napari_unetvnet.training.ema import ema_of
from napari_unetvnet.training.fallback import step_fallback
from napari_unetvnet.training.frozen import frozen_notices
from napari_unetvnet.training.initial import begin_at, initial_logits
from napari_unetvnet.training.objects import objects_learnt
from napari_unetvnet.training.run import Run
from napari_unetvnet.training.schedule import Schedule
from napari_unetvnet.training.start import take_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unetvnet.conventions import Triple
    from napari_unetvnet.data.patches import TrainingData
    from napari_unetvnet.images.pairs import Pair
    from napari_unetvnet.settings import TrainSettings
    from napari_unetvnet.training.files import TrainingFiles
    from napari_unetvnet.training.run import Parent

__all__ = ["build_optimizer", "build_run"]

WEIGHT_DECAY = {"adamw": 1e-2, "sgd": 3e-5}
MOMENTUM = 0.99
NOTHING_TO_FIT = "There is no final fit, because nothing is held out and all labels are learnt anyway."


def build_run(
    pairs: Sequence[Pair], data: TrainingData, settings: TrainSettings, files: TrainingFiles, patch: Triple
) -> tuple[Run, list[str]]:
    """Build everything that training needs.

    Parameters
    ----------
    patch : tuple of 3 int

    Returns
    -------
    run : Run
    notices : list of str
        Notices about the network, about weights copied from another model, and about those that are not trained.
    """
    torch.manual_seed(settings.seed)
    torch.backends.cudnn.deterministic = True
    patch = _within_regions(data, patch)
    model = build_model(_card(pairs, data, settings, patch).model_copy(update=brief(files.provenance)), settings)
    model.card = model.card.model_copy(update={"patch": _fitting_patch(model, patch)})
    counted = _counted(data, settings)
    _begin_at_frequencies(model, counted, data, settings)
    parent, notices = _start(model, settings)
    notices += [text for text in (model.card.one_stage, *_small_images(model, data)) if text]
    first = 0 if parent is None else parent.steps
    budget = settings.planned_minutes, settings.planned_steps
    # Where nothing is held out, all of the budget is for the training.
    fit = settings.final_fit if data.hold_out else 0.0
    schedule = Schedule(settings.peak_rate, *budget, settings.lr_schedule, first=first, fit=fit)
    notices += [NOTHING_TO_FIT] if settings.final_fit and not data.hold_out else []
    known = loss_classes(data.classes, settings)
    loss = build_loss(settings.loss, head=model.card.head, class_weights=counted.weights, classes=known)
    criterion = DeepSupervision(loss, settings.deep_supervision_weights, settings.roi_weight)
    optimizer, ema = build_optimizer(model, settings), ema_of(model.network, settings.ema_decay, first)
    scaler = torch.amp.GradScaler(model.device.type, enabled=model.precision == "fp16")
    fallback = step_fallback(model, optimizer, ema, settings)
    return Run(files, settings, data, model, criterion, optimizer, scaler, schedule, ema, fallback, parent), notices


def _start(model: Model, settings: TrainSettings) -> tuple[Parent | None, list[str]]:
    """Take the weights of the model to start from, if any; notices say what is copied, and what is not trained."""
    if settings.start_from is not None:
        return take_weights(model, settings)
    return None, frozen_notices(model.network, settings, list(model.network.state_dict()))


def build_optimizer(model: Model, settings: TrainSettings) -> torch.optim.Optimizer:
    """Create the optimizer of a model."""
    parameters, rate, decay = model.network.parameters(), settings.peak_rate, WEIGHT_DECAY[settings.optimizer]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=rate, momentum=MOMENTUM, nesterov=True, weight_decay=decay)
    return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)


class _Counted(NamedTuple):
    """Voxels of each class in the training regions, labelled voxels, and class weights of the loss."""

    counts: list[int]
    labelled: list[int]
    weights: tuple[float, ...]


def _counted(data: TrainingData, settings: TrainSettings) -> _Counted:
    classes = data.classes
    counts = np.sum([region.class_counts[: len(classes)] for region in data.train], axis=0)
    labelled = np.sum([labelled_voxels(region.target) for region in data.train], axis=0)
    return _Counted(counts.tolist(), labelled.tolist(), loss_weights(counts, labelled, classes, settings))


def _begin_at_frequencies(model: Model, counted: _Counted, data: TrainingData, settings: TrainSettings) -> None:
    """Let the outputs start at the frequencies of the classes, if all terms of the loss are made for that."""
    if all(LOSSES.describe(term.name).facts.get("begins_at") for term in settings.loss):
        begin_at(model.network, initial_logits(*counted, model.card.head, data.classes.lines))


def _card(pairs: Sequence[Pair], data: TrainingData, settings: TrainSettings, patch: Triple) -> ModelCard:
    """Describe the model; scores and steps are filled in when it is saved."""
    from importlib.metadata import version

    image = data.train[0].image
    return ModelCard(
        network=settings.network,
        option=options_for_training(settings.network, settings.option, patch, loss_needs(settings.loss)),
        head=settings.head_for(len(data.classes)),
        view=settings.view,
        context=settings.planes_beside,
        channels=data.channels,
        channel_names=settings.channel_names,
        channel_dropout=settings.channel_dropout if data.channels > 1 else 0,
        values=data.classes.output_values,
        class_names=data.classes.names,
        overlapping=settings.label_values == "overlapping",
        paint_order=paint_order(settings.regions),
        lines=data.classes.lines,
        patch=patch,
        spacing=image.spacing,
        unit=image.unit,
        resampled=settings.target_spacing is not None,
        **_normalisation(data, settings),
        normalise_in=settings.normalise_in,
        intensity_range=joint_range([region.scale for region in data.train]),
        brightness=joint_brightness([region.scale for region in data.train]),
        loss=write_loss(settings.loss),
        seed=settings.seed,
        objects=objects_learnt(pairs, settings),
        scored=data.scored,
        images=records(data, [pair.image for pair in pairs]),
        versions={"napari-unetvnet": version("napari-unetvnet"), "torch": str(torch.__version__)},
    )


def _normalisation(data: TrainingData, settings: TrainSettings) -> dict[str, Any]:
    """Describe how intensities are brought to scale; what was measured over the dataset is fixed from now on."""
    if settings.normalise != "dataset":
        return {name: getattr(settings, name) for name in ("normalise", *CONSTANTS)}
    joint = data.train[0].scale
    mean, deviation = (tuple(map(float, values)) for values in (joint.shift, joint.scale))
    return {"normalise": "fixed", "normalise_mean": mean, "normalise_std": deviation}


def _within_regions(data: TrainingData, patch: Triple) -> Triple:
    """Crop the patch to the largest region."""
    shapes = [region.image.shape for region in data.train]
    z, y, x = (min(p, max(lengths)) for p, lengths in zip(patch, zip(*shapes, strict=True), strict=True))
    return z, y, x


def _small_images(model: Model, data: TrainingData) -> list[str]:
    """Tell of the first image that is smaller than the network's smallest output, if any is."""
    texts = (small_image_notice(model, region.image) for region in data.train)
    return [text for text in texts if text][:1]


def _fitting_patch(model: Model, patch: Triple) -> Triple:
    """Extend a patch to a size the network accepts, by mirroring beyond the image."""
    fixed = model.network.patch or ()
    return model.fit((*patch[: len(patch) - len(fixed)], *fixed))
