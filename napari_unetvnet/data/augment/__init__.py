"""Augmentation: random changes of a batch of patches and its labels, on the device of the batch."""

from __future__ import annotations

from napari_unetvnet.data.augment.batch import augment, preview
from napari_unetvnet.data.augment.dropout import drop_channels
from napari_unetvnet.data.augment.recipes import RECIPES, Axis, Change, Recipe, recipe

__all__ = [
    "RECIPES",
    "Axis",
    "Change",
    "Recipe",
    "augment",
    "drop_channels",
    "preview",
    "recipe",
]
