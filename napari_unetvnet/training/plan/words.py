"""A plan in plain words, without the names of settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_unetvnet.settings import TrainSettings
    from napari_unetvnet.training.plan.choice import Decision

__all__ = ["in_words", "meaning_in_words"]

OBJECTS = {"separated": "a gap between touching objects", "cores": "objects by their cores"}
SMALL = 16
"""Width up to which a network is called small."""


def in_words(settings: TrainSettings, choices: Sequence[Decision]) -> str:
    """Say in a sentence what was chosen; what is set or chosen as usual is left out.

    Returns
    -------
    str
        Begins with "Planned: "; empty if nothing was chosen.
    """
    chosen = {choice.name: choice.value for choice in choices}
    parts = [*_inputs(settings, chosen), *_network(settings, chosen), *_learning(settings, chosen)]
    return f"Planned: {', '.join(parts)}." if parts else ""


def meaning_in_words(settings: TrainSettings, choices: Sequence[Decision]) -> str:
    """Say what label 0 was taken for, why, and that it can be set.

    Returns
    -------
    str
        Empty if it was set, or if labels of this kind always have a background.
    """
    reasons = {choice.name: choice.reason for choice in choices}
    if not {"unlabelled", "background"} & set(reasons) or settings.multilabel or settings.label_values == "objects":
        return ""
    if settings.unlabelled == "background":
        return (
            f"Label 0 was taken as background: {reasons['unlabelled']}. If it means not painted, set unlabelled to "
            "ignore, and the background to the value painted on it."
        )
    why = f": {reasons['unlabelled']}" if "unlabelled" in reasons else ""
    told = f"Label 0 was taken as not painted, and is ignored{why}."
    if "background" not in reasons:
        return f"{told} If it is background, set unlabelled to background."
    if settings.background is None:
        return f"{told} No value was taken as background: {reasons['background']}. If one is, set background to it."
    return (
        f"{told} Label {settings.background} was taken as background: {reasons['background']}. If another value is, "
        "set background to it; if 0 is, set unlabelled to background."
    )


def _inputs(settings: TrainSettings, chosen: Mapping[str, Any]) -> list[str]:
    """Say what the network sees."""
    parts = []
    if {"view", "patch"} & set(chosen):
        z, y, x = settings.planned_patch
        size = f"{z} x {y} x {x} voxels" if settings.view == "3d" else f"{y} x {x} pixels"
        size = f"{y} voxels" if settings.view == "3d" and z == y == x else size
        kind = {"3d": "3D blocks", "2d": "2D patches", "2.5d": "2.5D patches (planes with their neighbours)"}
        parts.append(f"{kind[settings.view]} of {size}")
    if "batch" in chosen:
        parts.append(f"{settings.batch} at a time")
    if settings.gradient_accumulation > 1 and "gradient_accumulation" in chosen:
        parts.append(f"computed in {settings.gradient_accumulation} parts")
    if "target_spacing" in chosen and settings.target_spacing:
        parts.append(f"images resampled to voxels of {' x '.join(f'{edge:.3g}' for edge in settings.target_spacing)}")
    if chosen.get("normalise", "zscore") != "zscore":
        how = "fixed constants" if settings.normalise == "fixed" else settings.normalise
        parts.append(f"intensities scaled by {how}")
    return parts


def _network(settings: TrainSettings, chosen: Mapping[str, Any]) -> list[str]:
    """Say what is trained."""
    if chosen.get("start_from"):
        keeping = ", to learn your strokes and keep its answers where nothing is painted"
        name = Path(str(settings.start_from)).stem
        return [f"starting from the model {name}, which agrees with your labels{keeping * ('distillation' in chosen)}"]
    if "network" not in chosen and "option" not in chosen:
        return []
    width = settings.option.get("width") if "option" in chosen else None
    size = "small " if isinstance(width, int) and width <= SMALL else ""
    if settings.network == "unet_padding":
        return [f"a {size}U-Net"]
    return [f"the network {settings.network}" + (f" of width {width}" if width else "")]


def _learning(settings: TrainSettings, chosen: Mapping[str, Any]) -> list[str]:
    """Say how it is trained."""
    parts = []
    if "loss" in chosen:
        parts.append(f"loss {' + '.join(term.name for term in settings.loss)}")
    if chosen.get("class_weights", "none") != "none":
        parts.append("rare classes weighted more")
    if words := OBJECTS.get(chosen.get("objects_as", "")):
        parts.append(words)
    if "mirror_axes" in chosen:
        parts.append(f"mirrored along {' '.join(settings.mirror_axes)}" if settings.mirror_axes else "not mirrored")
    if "augment" in chosen:
        parts.append(f"{settings.augment} augmentation")
    if "hold_out" in chosen:
        parts.append(f"{settings.hold_out:.0%} held out".replace("%", " %"))
    if "minutes" in chosen and settings.minutes:
        parts.append(f"{settings.minutes:g} minute{'s' * (settings.minutes != 1)}")
    return parts
