"""A training that continues from a model keeps the model's settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_unetvnet.model.card import read_card
from napari_unetvnet.training.plan.choice import Choice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unetvnet.images.pairs import Pair
    from napari_unetvnet.settings import TrainSettings

__all__ = ["as_the_model"]

REASON = "as the model to start from"


def as_the_model(pairs: Sequence[Pair], settings: TrainSettings, device: str) -> list[Choice]:
    """Take view, network, patch, loss and normalisation from the card of the model to start from."""
    del pairs, device
    if settings.start_from is None:
        return []
    card = read_card(settings.start_from)
    kept: dict[str, Any] = {"view": card.view, "normalise": card.normalise}
    kept |= {"context": card.context} if card.view == "2.5d" else {}
    if settings.view == card.view or "view" not in settings.model_fields_set:
        kept |= {"patch": list(card.patch)}
    if "network" not in settings.model_fields_set or settings.network == card.network:
        kept |= {"network": card.network, "option": card.option}
    if card.loss:
        kept |= {"loss": card.loss}
    if card.resampled:
        kept |= {"target_spacing": list(card.spacing)}
    return [Choice(name, value, REASON) for name, value in kept.items()]
