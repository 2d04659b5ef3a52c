"""Tiled prediction as a generator of finished slabs, one loop for 2D, 2.5D and 3D.

The volume is cut along z in overlapping slabs of one tile depth. Each is read once, tiled in y and x, and the weighted
logits are summed in float32. What no later tile can touch is reduced to labels, and finished planes are yielded, so
memory holds one slab whatever the depth.
"""

from __future__ import annotations

from napari_unetvnet.inference.background_writer import behind
from napari_unetvnet.inference.fallback import FallbackSteps
from napari_unetvnet.inference.labels import decide, label_values
from napari_unetvnet.inference.precision_check import choose_precision
from napari_unetvnet.inference.segment import Slab, resample_for, steps
from napari_unetvnet.inference.slabs import scores
from napari_unetvnet.inference.tiles import Tiles, plan_tiles

__all__ = [
    "FallbackSteps",
    "Slab",
    "Tiles",
    "behind",
    "choose_precision",
    "decide",
    "label_values",
    "plan_tiles",
    "resample_for",
    "scores",
    "steps",
]
