"""Random changes of a batch of patches that leave its labels right, computed on the device of the batch."""

from __future__ import annotations

from napari_unetvnet.augment.batch import augment, preview
from napari_unetvnet.augment.cube import CubePermutation, cube_permutations, inverse, permute
from napari_unetvnet.augment.recipes import RECIPES, Axis, Change, Recipe, recipe

__all__ = [
    "RECIPES",
    "Axis",
    "Change",
    "CubePermutation",
    "Recipe",
    "augment",
    "cube_permutations",
    "inverse",
    "permute",
    "preview",
    "recipe",
]
