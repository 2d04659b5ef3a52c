"""Suggest losses and class weights, by the frequencies and shapes of the classes."""

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
    """Suggest settings to try.

    Parameters
    ----------
    settings : TrainSettings
        Settings that are already chosen are not suggested.

    Returns
    -------
    tuple of str
        One sentence each; empty if there is none.
    """
    odd = {NOTHING} | {str(value) for value in suspects(pairs, settings)}
    odd |= {"background"} if settings.label_values == "objects" else set()
    present = [share for share in classes if share.voxels and share.name not in odd]
    if not present or any(looks_soft(pair.labels) for pair in pairs) or has_many(pairs, settings):
        return ()
    lines = [
        *_for_rare(present, settings),
        *_for_lines(present, pairs, settings),
        *_for_objects(classes, pairs, settings),
    ]
    return tuple(lines) or _for_even(present, settings)


def _for_rare(present: Sequence[ClassShare], settings: TrainSettings) -> Iterator[str]:
    """Suggest for classes that are rare, or far rarer than another one."""
    highest = max(share.share for share in present)
    rare = [share for share in present if share.share < RARE or share.share * UNEVEN < highest]
    if not rare or settings.class_weights != "none":
        return
    rarest = min(rare, key=lambda share: share.share)
    listed = ", ".join(f"{share.name} {percent(share.share)}" for share in sorted(rare, key=lambda s: s.share)[:4])
    problem = f"Class {rarest.name} covers {percent(rarest.share)} of the labelled voxels"
    if len(rare) > 1:
        problem = f"Rare classes ({listed} of the labelled voxels)"
    if rarest.share < VERY_RARE:
        options = [*_loss("focal_tversky", settings), "--class-weights inverse_frequency"]
        yield f"{problem}: try {' or '.join(options)}."
    elif not _has_overlap(settings):
        yield f"{problem}: try --loss dice_ce, which weights all classes equally, or --class-weights effective_number."
    else:
        yield f"{problem}: if it is under-segmented, try --class-weights effective_number."


def _for_lines(classes: Sequence[ClassShare], pairs: Sequence[PairFacts], settings: TrainSettings) -> Iterator[str]:
    """Suggest for classes that are lines."""
    if settings.label_values != "classes" or settings.regions or settings.lines:
        return
    for share in classes:
        if 2 * share.images < len(pairs):
            continue
        value = int(share.name.split()[0])
        thumbnails = [pair.labels.thumbnail for pair in pairs if value in pair.labels.thumbnail.thin]
        if not thumbnails or value == 0 or share.share > THIN_SHARE or not _loss("clDice", settings):
            continue
        width = 2 * len(thumbnails) / sum(thumbnail.thin[value] for thumbnail in thumbnails)
        winding = sum(thumbnail.winding.get(value, 0.0) for thumbnail in thumbnails) / len(thumbnails)
        if width < THIN_WIDTH and winding > WINDING:
            yield (
                f"Class {value} consists of lines about {width:.0f} voxels wide: if the result has gaps, try "
                '--loss "dice_ce + clDice".'
            )


def _for_objects(classes: Sequence[ClassShare], pairs: Sequence[PairFacts], settings: TrainSettings) -> Iterator[str]:
    """Suggest how to separate touching objects."""
    if settings.label_values != "objects" or settings.objects_as in {"boundaries", "borders"}:
        return
    touching = [pair.labels.thumbnail.touching for pair in pairs if pair.labels.painted]
    share = next((share.share for share in classes if share.name == "objects"), 0.0)
    if not touching or sum(touching) / len(touching) < TOUCHING:
        return
    contact = f"{percent(sum(touching) / len(touching))} of the objects' borders touch another object"
    if share > DENSE:
        yield f"Objects fill {percent(share)} of the voxels and {contact}: try --objects-as boundaries."
    elif settings.objects_as != "cores":
        weighted = " or ".join(["--objects-as cores", *_loss("unet_weighted_ce", settings)])
        yield f"{contact[0].upper()}{contact[1:]}: to separate them try {weighted}."


def _for_even(present: Sequence[ClassShare], settings: TrainSettings) -> tuple[str, ...]:
    least = min(present, key=lambda share: share.share)
    return (
        f"No class is rare (the rarest is {least.name} with {percent(least.share)}): "
        f"{'+'.join(term.name for term in settings.loss)} without class weights is a good start.",
    ) if settings.class_weights == "none" else ()  # fmt: skip


def _has_overlap(settings: TrainSettings) -> bool:
    """Whether a term of the loss measures overlap, which does not depend on the amount of background."""
    return any("dice" in term.name or "tversky" in term.name for term in settings.loss)


def _loss(name: str, settings: TrainSettings) -> list[str]:
    """Give the option for a loss, if it fits the head and is not chosen yet."""
    present = {term.name for term in settings.loss}
    if name not in LOSSES or name in present or settings.heads[-1] not in LOSSES.describe(name).facts["head_modes"]:
        return []
    return [f"--loss {name}"]
