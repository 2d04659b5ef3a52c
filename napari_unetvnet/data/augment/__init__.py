"""Random changes of a batch of patches that leave its labels right, computed on the device of the batch."""

from __future__ import annotations

from napari_unetvnet.data.augment.batch import augment, preview
from napari_unetvnet.data.augment.recipes import RECIPES, Axis, Change, Recipe, recipe

__all__ = [
    "RECIPES",
    "Axis",
    "Change",
    "Recipe",
    "augment",
    "preview",
    "recipe",
]
