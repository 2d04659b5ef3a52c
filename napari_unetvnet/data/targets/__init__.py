"""From labels as people paint them to what a loss wants, one file for each kind of target.

Everything here takes and gives arrays with axes (Z, Y, X), or (K, Z, Y, X) where there are channels; a 2D image has
Z = 1. What is not known stays unknown: IGNORE in class indices and channels, False in a mask of known voxels.
"""

from __future__ import annotations

from napari_unetvnet.data.targets.balance import class_weights
from napari_unetvnet.data.targets.channels import one_hot, region_channels, soft
from napari_unetvnet.data.targets.classes import Classes, loss_classes, loss_target, loss_weights, target_margin
from napari_unetvnet.data.targets.kinds import LABEL_KINDS, find_classes, label_margin, make_target
from napari_unetvnet.data.targets.lines import draw_paths, gaussian_masks, with_line_channels
from napari_unetvnet.data.targets.maps import TARGET_MAPS, TargetMap, for_loss, needed_maps
from napari_unetvnet.data.targets.objects import borders, boundaries, components_of, cores
from napari_unetvnet.data.targets.values import MANY_VALUES, encode, find_values, is_black_and_white, output_values
from napari_unetvnet.data.targets.weight_map import separation_weights

__all__ = [
    "LABEL_KINDS",
    "MANY_VALUES",
    "TARGET_MAPS",
    "Classes",
    "TargetMap",
    "borders",
    "boundaries",
    "class_weights",
    "components_of",
    "cores",
    "draw_paths",
    "encode",
    "find_classes",
    "find_values",
    "for_loss",
    "gaussian_masks",
    "is_black_and_white",
    "label_margin",
    "loss_classes",
    "loss_target",
    "loss_weights",
    "make_target",
    "needed_maps",
    "one_hot",
    "output_values",
    "region_channels",
    "separation_weights",
    "soft",
    "target_margin",
    "with_line_channels",
]
