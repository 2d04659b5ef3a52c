"""A training that continues from a model keeps the model's settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_unetvnet.images.resample import spacing_in
from napari_unetvnet.model.card import read_card
from napari_unetvnet.settings import CONSTANTS
from napari_unetvnet.settings.labels import OBJECT_CLASSES
from napari_unetvnet.training.plan.choice import Decision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unetvnet.images.pairs import Pair
    from napari_unetvnet.model.card import ModelCard
    from napari_unetvnet.settings import TrainSettings

__all__ = ["as_the_model", "input_of", "objects_as"]

REASON = "as the model to start from"


def as_the_model(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Decision]:
    """Take view, network, patch, loss and normalisation from the card of the model to start from."""
    del device
    if settings.start_from is None:
        return []
    card = read_card(settings.start_from)
    decisions = input_of(card, pairs[0])
    if {"normalise", *CONSTANTS} & settings.model_fields_set:
        decisions = [each for each in decisions if each.name not in ("normalise", *CONSTANTS)]
    values: dict[str, Any] = {"view": card.view}
    values |= {"context": card.context} if card.view == "2.5d" else {}
    if settings.view == card.view or "view" not in settings.model_fields_set:
        values |= {"patch": list(card.patch)}
    if "network" not in settings.model_fields_set or settings.network == card.network:
        values |= {"network": card.network, "option": card.option}
    if card.loss:
        values |= {"loss": card.loss}
    if settings.label_values == "objects" and (kind := objects_as(card)):
        values |= {"objects_as": kind}
    return [*decisions, *(Decision(name, value, REASON) for name, value in values.items())]


def input_of(card: ModelCard, pair: Pair) -> list[Decision]:
    """Give the settings that bring an image to the intensities and, if they are comparable, the voxels of a model.

    Returns
    -------
    list of Decision
    """
    values: dict[str, Any] = {"normalise_in": card.normalise_in}
    values |= {name: getattr(card, name) for name in ("normalise", *CONSTANTS) if getattr(card, name)}
    spacing = spacing_in(card.spacing, card.unit, pair.image.unit) if card.resampled else None
    if spacing is not None:
        values["target_spacing"] = list(spacing)
    return [Decision(name, value, REASON) for name, value in values.items()]


def objects_as(card: ModelCard) -> str:
    """Tell from the classes of a model what it learnt of ids; empty if they are of another kind."""
    kinds = {names: kind for kind, names in OBJECT_CLASSES.items()}  # background and object: separated, the later one
    return kinds.get(card.class_names) or ("separated" if len(card.values) == 2 else "")
