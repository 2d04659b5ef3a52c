"""In what two models differ: what keeps their scores from being compared, or their weights from being exchanged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_unetvnet.networks import NETWORKS, lasting_options

if TYPE_CHECKING:
    from napari_unetvnet.model.card import ModelCard

__all__ = ["answer_differences", "model_differences"]

ANSWER = {
    "values": "the label values of the classes",
    "overlapping": "whether classes overlap",
    "lines": "which classes are thin lines",
    "channels": "the number of image channels",
    "normalise": "the intensity normalisation",
}
"""Fields of a card that say what is asked of a model."""
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
        names += [] if sizes[0] == sizes[1] else [_change("the voxel size", *sizes)]
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
        options = [_options(card) for card in (new, old)]
        for name in sorted(options[0].keys() | options[1].keys()):
            values = [option.get(name) for option in options]
            names += [] if values[0] == values[1] else [_change(f"option {name}", *values)]
    return names + answer_differences(new, old)


def _differing(new: ModelCard, old: ModelCard, fields: dict[str, str]) -> list[str]:
    values = {words: (getattr(new, name), getattr(old, name)) for name, words in fields.items()}
    return [_change(words, *pair) for words, pair in values.items() if pair[0] != pair[1]]


def _options(card: ModelCard) -> dict[str, Any]:
    """Give all options that the weights depend on."""
    return lasting_options(card.network, {**NETWORKS.describe(card.network).defaults, **card.option})


def _change(words: str, new: Any, old: Any) -> str:
    return f"{words} {'are' if words.endswith('classes') else 'is'} {_shown(new)} instead of {_shown(old)}"


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(_shown(item) for item in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
