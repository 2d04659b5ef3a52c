"""The model that a training starts from: its weights, and whether the result can be compared with it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from napari_unetvnet.errors import ModelProblem
from napari_unetvnet.model.differences import model_differences
from napari_unetvnet.model.model import load_model
from napari_unetvnet.training.frozen import frozen_notices
from napari_unetvnet.training.run import Parent

if TYPE_CHECKING:
    from napari_unetvnet.model.card import ModelCard
    from napari_unetvnet.model.model import Model
    from napari_unetvnet.settings import TrainSettings

__all__ = ["take_weights"]


def take_weights(model: Model, settings: TrainSettings) -> tuple[Parent, list[str]]:
    """Copy the weights of the model file to start from: all tensors whose name and shape match.

    Returns
    -------
    parent : Parent
    notices : list of str

    Raises
    ------
    FileProblem
        If there is no such file.
    ModelProblem
        If it is no model, or no weight matches.
    SettingsProblem
        If tensors that it has not would never be trained.
    """
    path = Path(str(settings.start_from))
    other = load_model(path, settings, before_fit=True)
    source, target = other.network.state_dict(), model.network.state_dict()
    copied = {name: tensor for name, tensor in source.items() if name in target and target[name].shape == tensor.shape}
    if not any(tensor.ndim > 1 for tensor in copied.values()):
        raise ModelProblem(
            f"{path} is {other.card.network} {other.card.option} and shares no weights with "
            f"{settings.network} {settings.option}: choose its network and options, or start without it."
        )
    model.network.load_state_dict(target | copied)
    card, notices = _in_order(other.card, model.card, path)
    differences = model_differences(model.card, card)
    initialised = [name for name in target if name not in copied]
    if initialised:
        named = ", ".join(initialised[:6]) + (", ..." if len(initialised) > 6 else "")
        share = f"{len(copied)} of {len(target)} tensors"
        notices.append(f"{share} are copied from {path}; newly initialised: {named}.")
        differences = differences or [f"{len(initialised)} of its tensors are new"]
    notices += frozen_notices(model.network, settings, initialised)
    if differences:
        notices.append(
            f"{path} cannot be compared with the new model ({'; '.join(differences)}), so the best model of this "
            "training is kept even if it is worse."
        )
    fit = other.card.final_fit_steps
    if fit:
        notices.append(
            f"{path} goes on from its weights before the final fit, so that what was held out still scores the model."
        )
    notices += _keep_licence(model, other.card, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    name, steps = f"{path.name}, sha256 {digest}", other.card.steps - fit
    return Parent(name, str(path), steps, tuple(differences), fitted=fit > 0), notices


def _keep_licence(model: Model, old: ModelCard, path: Path) -> list[str]:
    """Give the new model the licence and the attribution of the old one, which it is derived from."""
    model.card = model.card.model_copy(update={"licence": old.licence, "attribution": old.attribution})
    asked = f", and name {old.attribution}" if old.attribution else ""
    stated = f"{path.name}, which it starts from, has the licence {old.licence}"
    return [f"{stated}: where you pass the new model on, keep to it{asked}."] if old.licence else []


def _in_order(old: ModelCard, new: ModelCard, path: Path) -> tuple[ModelCard, list[str]]:
    """Take as many classes with other label values for those of the new model, in their order; scores then judge."""
    if old.values == new.values or len(old.values) != len(new.values):
        return old, []
    pairs = ", ".join(f"{a} as {b}" for a, b in zip(old.values, new.values, strict=True) if a != b)
    text = f"The classes of {path.name} are taken in order, label {pairs}."
    return old.model_copy(update={"values": new.values}), [text]
