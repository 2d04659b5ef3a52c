"""In what two models differ: what keeps their scores from being compared, or their weights from being exchanged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_unetvnet.networks import NETWORKS, lasting_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_unetvnet.model.card import ModelCard

__all__ = ["answer_differences", "change", "class_differences", "model_differences", "network_options"]

ANSWER = {
    "values": "the label values of the classes",
    "overlapping": "whether classes overlap",
    "lines": "which classes are thin lines",
    "channels": "the number of image channels",
    "normalise": "the intensity normalisation",
    "normalise_in": "the voxels that intensities are measured in",
    "normalise_mean": "the mean that is subtracted",
    "normalise_std": "the standard deviation that intensities are divided by",
    "normalise_window": "the window of intensities",
}
"""Fields of a card that say what is asked of a model."""
PLURAL = ("the label values", "the voxels that")
NETWORK = {"network": "the network", "head": "the head", "view": "the view", "context": "the context"}
"""Fields of a card that say how it computes the answer."""


def answer_differences(new: ModelCard, old: ModelCard) -> list[str]:
    """Name what keeps two models from being scored on the same voxels.

    Returns
    -------
    list of str
        Such as "the label values of the classes are 0 1 2 instead of 0 1"; empty if they can be compared.
    """
    names = _differing(new, old, ANSWER)
    if new.resampled or old.resampled:
        sizes = [card.spacing if card.resampled else "that of the images" for card in (new, old)]
        names += [] if sizes[0] == sizes[1] else [change("the voxel size", *sizes)]
    return names


def model_differences(new: ModelCard, old: ModelCard) -> list[str]:
    """Name what keeps the weights of a model from being those of another.

    Returns
    -------
    list of str
        As of `answer_differences`, which are included.
    """
    names = _differing(new, old, NETWORK)
    if new.network == old.network:
        options = [network_options(card.network, card.option) for card in (new, old)]
        for name in sorted(options[0].keys() | options[1].keys()):
            values = [option.get(name) for option in options]
            names += [] if values[0] == values[1] else [change(f"option {name}", *values)]
    return names + answer_differences(new, old)


def _differing(new: ModelCard, old: ModelCard, fields: dict[str, str]) -> list[str]:
    values = {words: (getattr(new, name), getattr(old, name)) for name, words in fields.items()}
    return [change(words, *pair) for words, pair in values.items() if pair[0] != pair[1]]


def class_differences(values: tuple[int, ...], channels: int, old: ModelCard) -> list[str]:
    """Name in what labels and images differ from those of a model, as of `answer_differences`."""
    new = {"values": values, "channels": channels}
    return [change(ANSWER[name], new[name], getattr(old, name)) for name in new if new[name] != getattr(old, name)]


def network_options(network: str, option: Mapping[str, Any]) -> dict[str, Any]:
    """Give all options of a network that its weights depend on, those left at their defaults included."""
    return lasting_options(network, {**NETWORKS.describe(network).defaults, **option})


def change(words: str, new: Any, old: Any) -> str:
    """Say what something is instead of what it was."""
    return f"{words} {'are' if words.startswith(PLURAL) else 'is'} {_shown(new)} instead of {_shown(old)}"


def _shown(value: Any) -> str:
    if isinstance(value, tuple | list):
        return " ".join(_shown(item) for item in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value)
