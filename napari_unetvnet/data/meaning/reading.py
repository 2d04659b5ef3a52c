"""Read from the evidence what the label 0 means, and which painted value is the background.

The bounds were chosen on twelve sets of real images: finished labels, strokes of four widths on all classes and on one,
and fully painted parts.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from napari_unetvnet.data.meaning.evidence import evidence

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari_unetvnet.data.meaning.evidence import Evidence
    from napari_unetvnet.images.pairs import Pair
    from napari_unetvnet.settings import TrainSettings

__all__ = ["MOST_IMAGES", "Opinion", "Reading", "measured", "read_evidence"]

Opinion = Literal["finished", "strokes", "full", "unclear", "contradictory", "unmeasured"]
"""Everything is annotated; only examples are; no voxel is 0; it cannot be told; it differs; too little to measure."""
MOST_IMAGES = 8
"""So many evenly spaced images are measured."""
DIFFERENT, ALIKE = 0.74, 0.68
"""Contrast from which on painted and unpainted voxels look different, and up to which they look the same."""
PURE = 0.4
FLAT, STEEP = 0.4, 1.0
BLOB, LONG = 2.6, 3.0
"""Elongation up to which parts look like objects, and from which on like strokes."""
CONTINUED = 0.4
COVERED = 0.5
MINORITY = 0.25
MOSTLY, TWICE, ENCLOSED, OPEN = 0.5, 2.0, 0.3, 0.1
"""A value looks like the background if most of the image looks like it, and twice as much as like any other value, or
if it encloses the others and they do not enclose it."""


@dataclass(frozen=True)
class Reading:
    """What the labels of all images look like.

    Parameters
    ----------
    example : str
        Name of labels for which the opinion is true.
    other : str
        Name of labels that contradict it.
    values : tuple of int
        Painted values.
    alike : int or None
        The value that the unpainted voxels beside it look like most often.
    background : int or None
        The painted value that looks like the background.
    enclosing : bool
        Whether that value also encloses the others.
    backgrounds : dict of str to int
        The value that looks like the background, by the name of the labels, where there is one.
    """

    opinion: Opinion
    example: str = ""
    other: str = ""
    values: tuple[int, ...] = ()
    alike: int | None = None
    background: int | None = None
    enclosing: bool = False
    backgrounds: dict[str, int] = field(default_factory=dict)


def measured(pairs: Sequence[Pair], settings: TrainSettings) -> list[Evidence]:
    """Measure some evenly spaced pairs."""
    step = max(1, -(-len(pairs) // MOST_IMAGES))
    return [evidence(pair, settings) for pair in pairs[::step]]


def read_evidence(found: Sequence[Evidence]) -> Reading:
    """Read labels whose values are classes.

    Parameters
    ----------
    found : sequence of Evidence
        Of some images; those in which nothing is painted are left out.

    Returns
    -------
    Reading
    """
    painted = [each for each in found if each.counts]
    opinion, example, other = _joined([(_opinion(each), each.name) for each in painted])
    alike = [value for each in painted if (value := _most_alike(each)) is not None]
    backgrounds = {each.name: value for each in painted if (value := _background(each)) is not None}
    winner = _most_common(backgrounds.values())
    return Reading(
        opinion,
        example,
        other,
        values=tuple(sorted({value for each in painted for value in each.counts})),
        alike=_most_common(alike),
        background=winner,
        enclosing=winner is not None
        and all(_encloses(each, winner) for each in painted if backgrounds.get(each.name) == winner),
        backgrounds=backgrounds,
    )


def _most_common(values: Iterable[int]) -> int | None:
    return next((value for value, _ in Counter(values).most_common(1)), None)


def _joined(opinions: Sequence[tuple[Opinion, str]]) -> tuple[Opinion, str, str]:
    """Join the opinions on all images, with the names of labels that support and contradict the result."""
    count = Counter(opinion for opinion, _ in opinions)
    first = dict(reversed(opinions))
    decided = count["finished"] + count["strokes"]
    if decided and min(count["finished"], count["strokes"]) >= MINORITY * decided:
        return "contradictory", first["finished"], first["strokes"]
    if count["unclear"] > decided:
        return "unclear", first["unclear"], ""
    if not decided:
        return ("full", first["full"], "") if count["full"] else ("unmeasured", "", "")
    return (
        ("finished", first["finished"], "")
        if count["finished"] > count["strokes"]
        else ("strokes", first["strokes"], "")
    )


def _opinion(found: Evidence) -> Opinion:
    """Say what the labels of one image look like."""
    if found.filled:
        return "full" if found.coverage == 1 else "strokes" if len(found.counts) > 1 else "unclear"
    if len(found.counts) == 1:
        return _of_one_value(found)
    if not found.contrast:
        return "unmeasured"
    contrast, pure = min(found.contrast.values()), _is_pure(found)
    continued = (found.continuity or 0) >= CONTINUED
    if contrast >= DIFFERENT or (contrast > ALIKE and pure):
        if not continued and min(found.step.values(), default=0) < FLAT:
            return "unclear"
        whole = pure or continued or found.elongation < BLOB or found.coverage >= COVERED
        return "finished" if whole and not found.lone_planes else "unclear"
    long = found.elongation >= LONG or found.lone_planes > 0 or found.coverage >= COVERED
    return "strokes" if long and not continued else "unclear"


def _of_one_value(found: Evidence) -> Opinion:
    if found.lone_planes:
        return "unclear"
    if not found.purity and not found.contrast:
        return "unmeasured"
    contrast, step = min(found.contrast.values(), default=0), min(found.step.values(), default=0)
    if _is_pure(found) or (found.continuity or 0) >= CONTINUED or (contrast >= DIFFERENT and step >= STEEP):
        return "finished"
    return "finished" if found.elongation < BLOB and contrast < ALIKE else "unclear"


def _is_pure(found: Evidence) -> bool:
    return max(found.purity.values(), default=0) >= PURE


def _most_alike(found: Evidence) -> int | None:
    return min(found.contrast, key=found.contrast.__getitem__) if found.contrast else None


def _background(found: Evidence) -> int | None:
    """Find the painted value that looks like the background of one image."""
    ranked = sorted(found.likeness, key=lambda value: -found.likeness[value])
    if len(ranked) < 2 or found.likeness[ranked[0]] < MOSTLY:
        return None
    clear = found.likeness[ranked[0]] >= TWICE * found.likeness[ranked[1]] or _encloses(found, ranked[0])
    return ranked[0] if clear else None


def _encloses(found: Evidence, value: int) -> bool:
    others = (share for other, share in found.enclosure.items() if other != value)
    return found.enclosure.get(value, 0) >= ENCLOSED and max(others, default=0) <= OPEN
