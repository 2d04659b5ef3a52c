"""Compare label images with the truth: voxels, objects, surfaces, regions, cases.

Everything voxel-wise rests on one table: how often each pair (true value, predicted value) occurs (`counts`). It is
counted slab by slab, so memory-mapped, dask and zarr images are never held as a whole, and any integers may be values.
Objects are compared by the same table of their component numbers, surfaces by the distances between their voxels. A
score that has nothing to measure is None, never NaN, and is left out of means.
"""

from __future__ import annotations

from napari_unetvnet.metrics.cases import CaseScores, MeanScores, Summary, summarise
from napari_unetvnet.metrics.evaluation import Evaluation, evaluate
from napari_unetvnet.metrics.objects import ObjectScores, object_scores
from napari_unetvnet.metrics.options import EvaluateSettings, TruthIs
from napari_unetvnet.metrics.overlap import ConfusionMatrix, Overlap, confusion_matrix, overlap
from napari_unetvnet.metrics.surface import SurfaceScores, surface_scores

__all__ = [
    "CaseScores",
    "ConfusionMatrix",
    "EvaluateSettings",
    "Evaluation",
    "MeanScores",
    "ObjectScores",
    "Overlap",
    "Summary",
    "SurfaceScores",
    "TruthIs",
    "confusion_matrix",
    "evaluate",
    "object_scores",
    "overlap",
    "summarise",
    "surface_scores",
]
