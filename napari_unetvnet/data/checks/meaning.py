"""Labels whose look contradicts the meaning that is set for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unetvnet.data.checks.findings import Finding
from napari_unetvnet.data.checks.kinds import has_many, looks_soft
from napari_unetvnet.data.meaning import contradictions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_unetvnet.data.checks.facts import PairFacts
    from napari_unetvnet.settings import TrainSettings

__all__ = ["check_meaning", "is_of_meaning"]

MEANING = "meaning-"
"""The kinds of these findings begin with this."""
OVERRIDE = "To train all the same, add --label-checks warn."


def is_of_meaning(finding: Finding) -> bool:
    """Whether a finding is about the meaning of label 0."""
    return finding.kind.startswith(MEANING)


def check_meaning(pairs: Sequence[PairFacts], settings: TrainSettings) -> Iterator[Finding]:
    """Find strokes taken for finished labels, finished labels taken for strokes, and another background."""
    if has_many(pairs, settings) or any(looks_soft(pair.labels) for pair in pairs):
        return
    evidence = [pair.evidence for pair in pairs if pair.evidence is not None]
    for found in contradictions(evidence, settings):
        refused = found.senseless and settings.label_checks == "refuse"
        yield Finding(
            "error" if refused else "warning",
            MEANING + found.kind,
            found.about,
            found.question.text,
            remedy=f"{found.question.advice} {OVERRIDE}" if refused else found.question.advice,
        )
