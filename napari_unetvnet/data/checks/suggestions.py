"""Which loss and class weights to try, from how often classes occur and what their shapes are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unetvnet.data.checks.findings import percent
from napari_unetvnet.data.checks.frequency import NOTHING
from napari_unetvnet.data.checks.kinds import has_many, looks_soft
from napari_unetvnet.data.checks.strays import suspects
from napari_unetvnet.losses import LOSSES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_unetvnet.data.checks.facts import PairFacts
    from napari_unetvnet.data.checks.findings import ClassShare
    from napari_unetvnet.settings import TrainSettings

__all__ = ["suggestions"]

VERY_RARE = 0.001
RARE = 0.01
UNEVEN = 30.0
THIN_WIDTH = 12.0
THIN_SHARE = 0.2
WINDING = 60.0
TOUCHING = 0.05
DENSE = 0.8


def suggestions(classes: Sequence[ClassShare], pairs: Sequence[PairFacts], settings: TrainSettings) -> tuple[str, ...]:
    """Say what to try, in words.

    Parameters
    ----------
    classes : sequence of ClassShare
    pairs : sequence of PairFacts
    settings : TrainSettings
        What is already chosen is not suggested.

    Returns
    -------
    tuple of str
        A sentence each; empty if there is nothing to say of these labels.
    """
    odd = {NOTHING} | {str(value) for value in suspects(pairs, settings)}
    odd |= {"background"} if settings.label_values == "objects" else set()
    present = [share for share in classes if share.voxels and share.name not in odd]
    if not present or any(looks_soft(pair.labels) for pair in pairs) or has_many(pairs, settings):
        return ()
    lines = [*_of_rare(present, settings), *_of_thin(present, pairs, settings), *_of_objects(classes, pairs, settings)]
    return tuple(lines) or _of_even(present, settings)


def _of_rare(present: Sequence[ClassShare], settings: TrainSettings) -> Iterator[str]:
    """Suggest for classes that are rare, or far rarer than another."""
    most = max(share.share for share in present)
    rare = [share for share in present if share.share < RARE or share.share * UNEVEN < most]
    if not rare or settings.class_weights != "none":
        return
    least = min(rare, key=lambda share: share.share)
    told = ", ".join(f"{share.name} {percent(share.share)}" for share in sorted(rare, key=lambda s: s.share)[:4])
    what = f"Class {least.name} covers {percent(least.share)} of the labelled voxels"
    if len(rare) > 1:
        what = f"Rare classes ({told} of the labelled voxels)"
    if least.share < VERY_RARE:
        tries = [*_loss("focal_tversky", settings), "--class-weights inverse_frequency"]
        yield f"{what}: try {' or '.join(tries)}."
    elif not _has_overlap(settings):
        yield f"{what}: try --loss dice_ce, which does not drown them, or --class-weights effective_number."
    else:
        yield f"{what}: if too little of it is found, try --class-weights effective_number."


def _of_thin(classes: Sequence[ClassShare], pairs: Sequence[PairFacts], settings: TrainSettings) -> Iterator[str]:
    """Suggest for classes that are lines rather than bodies."""
    if settings.label_values != "classes" or settings.regions or settings.lines:
        return
    for share in classes:
        if 2 * share.images < len(pairs):
            continue
        value = int(share.name.split()[0])
        pictures = [pair.labels.picture for pair in pairs if value in pair.labels.picture.thin]
        if not pictures or value == 0 or share.share > THIN_SHARE or not _loss("clDice", settings):
            continue
        width = 2 * len(pictures) / sum(picture.thin[value] for picture in pictures)
        winding = sum(picture.winding.get(value, 0.0) for picture in pictures) / len(pictures)
        if width < THIN_WIDTH and winding > WINDING:
            yield (
                f"Class {value} lies in lines of about {width:.0f} voxels: if they come out broken, try "
                '--loss "dice_ce + clDice".'
            )


def _of_objects(classes: Sequence[ClassShare], pairs: Sequence[PairFacts], settings: TrainSettings) -> Iterator[str]:
    """Suggest how objects that touch are kept apart."""
    if settings.label_values != "objects" or settings.objects_as not in {"foreground", "separated"}:
        return
    touching = [pair.labels.picture.touching for pair in pairs if pair.labels.painted]
    share = next((share.share for share in classes if share.name == "objects"), 0.0)
    if not touching or sum(touching) / len(touching) < TOUCHING:
        return
    told = f"{percent(sum(touching) / len(touching))} of the objects' borders touch another object"
    if share > DENSE:
        yield f"Objects fill {percent(share)} of the voxels and {told}: learn the lines, --objects-as boundaries."
    else:
        weighted = " or ".join(["--objects-as borders", *_loss("unet_weighted_ce", settings)])
        yield f"{told[0].upper()}{told[1:]}: to keep them apart try {weighted}."


def _of_even(present: Sequence[ClassShare], settings: TrainSettings) -> tuple[str, ...]:
    least = min(present, key=lambda share: share.share)
    return (
        f"No class is rare (the least is {least.name} with {percent(least.share)}): "
        f"{'+'.join(term.name for term in settings.loss)} without class weights is a good start.",
    ) if settings.class_weights == "none" else ()  # fmt: skip


def _has_overlap(settings: TrainSettings) -> bool:
    """Whether a term of the loss measures overlap, which does not depend on how much background there is."""
    return any("dice" in term.name or "tversky" in term.name for term in settings.loss)


def _loss(name: str, settings: TrainSettings) -> list[str]:
    """Give the option for a loss, if there is one that fits the head and is not chosen yet."""
    chosen = {term.name for term in settings.loss}
    if name not in LOSSES or name in chosen or settings.heads[-1] not in LOSSES.describe(name).facts["head_modes"]:
        return []
    return [f"--loss {name}"]
