"""What the label 0 means: measured on labels and images, chosen where it is left open, compared with the settings.

`evidence` measures a pair, `reading` turns the measurements of all pairs into an opinion, `decide` chooses or asks.
"""

from __future__ import annotations

from napari_unetvnet.data.meaning.decide import (
    Answer,
    Contradiction,
    Meaning,
    Question,
    UnclearLabels,
    contradictions,
    understand,
)
from napari_unetvnet.data.meaning.evidence import Evidence, evidence, lone_planes
from napari_unetvnet.data.meaning.reading import MOST_IMAGES, measured

__all__ = [
    "MOST_IMAGES",
    "Answer",
    "Contradiction",
    "Evidence",
    "Meaning",
    "Question",
    "UnclearLabels",
    "contradictions",
    "evidence",
    "lone_planes",
    "measured",
    "understand",
]
