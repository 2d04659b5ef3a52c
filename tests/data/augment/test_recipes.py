"""Recipes must fit the data: what may be turned, mirrored and exchanged."""

from __future__ import annotations

import numpy as np
import pytest
from combinations import in_one_case

from napari_unetvnet.data.augment import RECIPES, Change, Recipe, recipe

DATA = {"view": "3d", "spacing": (1, 1, 1), "mirror": "zyx", "patch": (32, 32, 32)}


def fitted(name="standard", **data):
    return recipe(name, **DATA | data)


@in_one_case("name", RECIPES)
def test_recipes_are_plain_and_hashable(name):
    assert hash(fitted(name)) == hash(fitted(name))
    assert fitted(name) == fitted(name)
    assert (fitted(name) == Recipe()) == (name == "none")


@in_one_case(
    "view, spacing, moving",
    [
        ("3d", (1, 1, 1), "zyx"),
        ("3d", (2.9, 1, 1), "zyx"),
        ("3d", (3, 1, 1), "yx"),
        ("3d", (1, 1, 4), "zy"),
        ("3d", (0.2, 1, 1), "z"),
        ("2d", (0.1, 1, 1), "yx"),
        ("2.5d", (1, 1, 1), "yx"),
        ("2d", (1, 5, 1), "x"),
    ],
)
def test_coarse_axes_do_not_move(view, spacing, moving):
    assert fitted(view=view, spacing=spacing).moving == tuple(moving)


@in_one_case(
    "data, degrees",
    [
        ({"view": "2d"}, 180),
        ({"view": "2d", "mirror": "x"}, 15),
        ({"view": "2d", "patch": (1, 64, 128)}, 15),
        ({"spacing": (5, 1, 1)}, 180),
        ({}, 30),
    ],
)
def test_only_planes_free_to_be_mirrored_are_turned_by_any_angle(data, degrees):
    assert fitted(**data).rotation == Change(0.2, -degrees, degrees)


@in_one_case(
    "data, exchange",
    [
        ({}, "zyx"),
        ({"patch": (16, 32, 32)}, "yx"),
        ({"patch": (32, 32, 16)}, "zy"),
        ({"spacing": (2, 1, 1)}, "yx"),
        ({"mirror": "zy"}, "zy"),
        ({"mirror": "x"}, ""),
        ({"view": "2d", "patch": (1, 64, 64)}, "yx"),
        ({"view": "2d", "patch": (1, 64, 32)}, ""),
    ],
)
def test_only_axes_of_equal_kind_are_exchanged(data, exchange):
    assert fitted("strong", **data).exchange == tuple(exchange)
    assert fitted("standard", **data).exchange == ()


def test_mirroring_is_the_callers_choice():
    assert fitted(mirror="xz").mirror == ("z", "x")
    assert fitted(mirror="").mirror == ()
    assert fitted("light").mirror == ("y", "x")
    assert fitted(view="2d").mirror == ("y", "x")
    assert fitted(view="2.5d").mirror == ("z", "y", "x")


def test_values_lie_evenly_below_and_above_the_neutral_one():
    _, values = Change(1, 0.7, 1.5, 1).draw(np.random.default_rng(0), 10_000, 1.0)
    assert 0.7 <= values.min() < 0.71
    assert 1.49 < values.max() <= 1.5
    assert (values < 1).mean() == pytest.approx(0.5, abs=0.02)
    _, values = Change(1, 0.5, 1, 1).draw(np.random.default_rng(0), 10_000, 0.5)
    assert 0.75 <= values.min() < 0.76
    assert 0.99 < values.max() <= 1


@pytest.mark.parametrize("strength", [0, 0.5, 1])
def test_strength_scales_the_probability(strength):
    items, values = Change(0.4, 1, 2).draw(np.random.default_rng(0), 10_000, strength, 3)
    assert len(items) / 10_000 == pytest.approx(0.4 * strength, abs=0.02)
    assert values.shape == (len(items), 3)
