"""Choose a shipped model to start from, if its labels agree with those of the training.

That channels and dimensions fit says nothing on what is to be found. So the models that fit are applied to a part of
the first image, and their labels are compared with what is painted there.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np

from napari_unetvnet.data.label_counts import label_counts
from napari_unetvnet.data.prepare import prepare_data, resample_pairs
from napari_unetvnet.images.pairs import Pair
from napari_unetvnet.images.volume import Box
from napari_unetvnet.model.card import shipped_models
from napari_unetvnet.model.differences import network_options
from napari_unetvnet.model.model import load_model
from napari_unetvnet.model.normalisation import normalisation
from napari_unetvnet.model.ranking import facts_of, rank
from napari_unetvnet.settings import CONSTANTS, checked
from napari_unetvnet.training.plan.choice import Decision
from napari_unetvnet.training.plan.from_model import input_of, objects_as
from napari_unetvnet.training.plan.learning import are_strokes
from napari_unetvnet.training.score import dice_on

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unetvnet.data.patches import TrainingData
    from napari_unetvnet.model.card import ModelCard
    from napari_unetvnet.model.ranking import Fit
    from napari_unetvnet.settings import TrainSettings

__all__ = ["start_from"]

AGREES, BETTER = 0.7, 0.1
"""Dice with the labels that a model needs, and by how much it must beat the answer that all is foreground."""
FOLLOWED = 10.0
"""Weight of the answers of the model where few strokes are all. One that a user corrects has less, so that it changes
more (`learning.fine_tuning`)."""
PART = {2: (2, 512, 512), 3: (32, 96, 96)}
"""Voxels z, y, x of the part of the image that a model of planes, or of volumes, is applied to, at most."""
MOST_MODELS, MOST_VOXELS = 3, 1 << 27
"""Models that are applied, and voxels of an image from which on none is."""


def start_from(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Decision]:
    """Choose the shipped model whose labels agree best with those of the training, if one does."""
    del device
    image = pairs[0].image
    if not _is_open(settings) or prod(image.shape) > MOST_VOXELS or pairs[0].labels.shape != image.shape:
        return []
    fits = [each for each in rank(shipped_models(), facts_of(image)) if each.alike and _allowed(each.card, settings)]
    if not fits:
        return []
    agreed = ((_agreement(each, pairs[0], settings), each) for each in fits[:MOST_MODELS])
    scored = [(dice, each) for dice, each in agreed if dice is not None]
    if not scored:
        return []
    dice, best = max(scored, key=itemgetter(0))
    reason = f"{best.name} ({best.about}) agrees with your labels, Dice {dice:.2f} before any training"
    reason += ", but these are images of its own training" if best.trained_on_it else ""
    chosen = Decision("start_from", str(best.path), reason)
    if not are_strokes(pairs, settings):
        return [chosen]
    kept = "a few strokes do not show borders, so unpainted voxels are learnt from that model (start_from.md)"
    return [chosen, Decision("distillation", FOLLOWED, kept)]


def _is_open(settings: TrainSettings) -> bool:
    """Whether a model may be chosen, and shipped models answer labels of this kind."""
    special = settings.lines or settings.multilabel or settings.regions or settings.class_names
    return "start_from" in set(settings.left_open) - settings.model_fields_set and not special


def _allowed(card: ModelCard, settings: TrainSettings) -> bool:
    """Whether what is set leaves room for the network and the input of a model."""
    is_set = settings.model_fields_set
    if is_set & {*CONSTANTS, "target_spacing", "context"} or card.lines or card.overlapping:
        return False
    names = is_set & {"view", "network", "normalise", "normalise_in", "head"}
    if any(getattr(settings, name) not in (getattr(card, name), "auto") for name in names):
        return False
    chosen, own = (network_options(card.network, option) for option in (settings.option, card.option))
    return "option" not in is_set or chosen == own


def _part(pair: Pair, dims: int) -> Pair:
    """Crop a pair to where most is painted."""
    counted = label_counts(pair.labels)
    painted, ranges = counted.thinned != 0, []
    for axis, (n, most) in enumerate(zip(pair.labels.shape, PART[dims], strict=True)):
        size, others = min(n, most), tuple(other for other in range(3) if other != axis)
        window = -(-size // counted.step)
        before = np.concatenate([[0], np.cumsum(painted.sum(axis=others))])
        first = min(n - size, counted.step * int(np.argmax(before[window:] - before[: len(before) - window])))
        ranges.append((first, first + size))
    (z, z_end), (y, y_end), (x, x_end) = ranges
    box = Box((z, y, x), (z_end, y_end, x_end))
    return Pair(pair.image.crop(box), pair.labels.crop(box), "", None if pair.mask is None else pair.mask.crop(box))


def _agreement(fit: Fit, pair: Pair, settings: TrainSettings) -> float | None:
    """Give the Dice of a model with the labels; None for another question, or an answer hardly above a constant."""
    # Labels are read as the training will, and the image is brought to the voxel size and the scale of the model.
    card = fit.card
    values = {name: getattr(settings, name) for name in settings.model_fields_set}
    values |= {"view": card.view, "hold_out": 0, "folds": 1, "fold": 0, "start_from": None}
    values |= {decision.name: decision.value for decision in input_of(card, pair)}
    if settings.label_values == "objects" and (kind := objects_as(card)):
        values |= {"objects_as": kind}
    seen = checked(type(settings), values)
    data = prepare_data(resample_pairs([_part(pair, card.dims)], seen), seen, card.patch)
    same = len(data.classes) == len(card.values) and seen.head_for(len(data.classes)) == card.head
    if not same:
        return None
    scale = normalisation(pair.image, card, None if pair.mask is None else pair.mask.data)
    regions = [replace(region, scale=scale) for region in data.train]
    dice = dice_on(regions, load_model(fit.path, settings), data.classes)[0]
    return dice if dice is not None and dice >= max(AGREES, _constant(data) + BETTER) else None


def _constant(data: TrainingData) -> float:
    """Give the mean Dice of the answers that all voxels are of a class."""
    counts = data.train[0].class_counts[: len(data.classes)]
    shares = counts[data.classes.foreground] / max(1, counts.sum())
    return float(np.mean(2 * shares / (1 + shares)))
