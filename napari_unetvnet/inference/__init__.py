"""Tiled prediction as a generator of finished slabs, one loop for 2D, 2.5D and 3D.

The volume is cut along z into overlapping slabs of one tile depth. Each is read once and tiled in y and x, and the
weighted logits are summed in float32. Planes that no later tile touches are reduced to labels and yielded, so memory
holds one slab, whatever the depth of the volume.
"""

from __future__ import annotations

from napari_unetvnet.inference.background_writer import finish_in_background
from napari_unetvnet.inference.fallback import FallbackSteps
from napari_unetvnet.inference.labels import decide, label_values
from napari_unetvnet.inference.maps import map_steps
from napari_unetvnet.inference.precision_check import choose_precision
from napari_unetvnet.inference.scale_check import scale_notices
from napari_unetvnet.inference.segment import check_fits, resample_for, steps
from napari_unetvnet.inference.slab import MapSlab, Slab
from napari_unetvnet.inference.slabs import scores
from napari_unetvnet.inference.tiles import Tiles, plan_tiles, small_image_notice

__all__ = [
    "FallbackSteps",
    "MapSlab",
    "Slab",
    "Tiles",
    "check_fits",
    "choose_precision",
    "decide",
    "finish_in_background",
    "label_values",
    "map_steps",
    "plan_tiles",
    "resample_for",
    "scale_notices",
    "scores",
    "small_image_notice",
    "steps",
]
