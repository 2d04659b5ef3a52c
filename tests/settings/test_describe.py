"""Descriptions of settings agree with what the models accept, and no setting is described as what it is not."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated, Literal, get_args

import pytest
from combinations import in_one_case
from pydantic import Field, ValidationError, create_model

from napari_unetvnet.losses import LOSSES
from napari_unetvnet.model.card import ModelCard
from napari_unetvnet.networks import NETWORKS
from napari_unetvnet.settings import CleanJob, SegmentJob, Settings, TrainJob
from napari_unetvnet.settings.describe import Bounds, Values, describe_option, describe_settings
from napari_unetvnet.settings.labels import Rule

importlib.import_module("napari_unetvnet.metrics.options")


def models(kind=Settings):
    """The models with all settings of a command; what is in a model card is not chosen by anyone."""
    derived = [each for each in kind.__subclasses__() if each.__module__.startswith("napari_unetvnet")]
    derived = [each for each in derived if each.__module__ != ModelCard.__module__]
    return list(dict.fromkeys(found for each in derived for found in models(each))) or [kind]


EVERY = [(kind, name) for kind in models() for name in kind.model_fields]
FAR = 10**9
"""Beyond every limit of a whole number or a fraction but that of a voxel size and a seed."""


def accepts(kind, name, value):
    """Whether pydantic finds nothing wrong with this one value; what does not fit other settings does not count."""
    try:
        kind(**{name: value})
    except ValidationError as error:
        return not any(item["loc"][:1] == (name,) for item in error.errors())
    return True


def whole(setting, value):
    """Write a single value as the whole setting."""
    each = (1, value) if setting.by_class else value
    return each if setting.count == 1 else (each,) * (setting.count or 1)


def test_the_models_are_found():
    assert {kind.__name__ for kind in models()} >= {"TrainJob", "SegmentJob", "CleanJob", "EvaluateSettings"}


@in_one_case("kind, name", EVERY)
def test_a_description_agrees_with_what_the_model_accepts(kind, name):
    setting = describe_settings(kind)[name]
    assert accepts(kind, name, None) == setting.optional
    assert setting.help == " ".join(kind.model_fields[name].description.split())
    for value, fit in wrong_and_right(setting).items():
        assert accepts(kind, name, whole(setting, value)) == fit, value
    for word in setting.words:
        assert accepts(kind, name, word)
    if setting.auto:
        assert accepts(kind, name, "auto")


def wrong_and_right(setting):
    """Values that a kind takes or does not."""
    near = near_the_ends(setting) if setting.kind in {"int", "float"} else {}
    return (
        near
        | {
            "int": {"no number": False, 1.5: False},
            "float": {"no number": False},
            "choice": {"no such word": False, 12: False} | dict.fromkeys(setting.choices, True),
            "bool": {True: True, False: True, "perhaps": False},
            "str": {str(setting.default or "a.tif"): True, 12: False},
            "path": {"a.tif": True, 12: False},
            "region": {"WT=1+2": True, "WT": False},
            "time": {"0:10:2": True, "3": True, "last": False},
            "class_name": {"1=left cell": True, "cell": False, "1=2": False},
            "sum": {"dice + 10*bce": True, "dice -": False},
            "options": {"width=16": False},  # the command line splits it
        }[setting.kind]
    )


def near_the_ends(setting):
    """Numbers at and beyond the limits, and far away where there is no limit, with whether they fit."""
    ge, gt, le, lt = setting.bounds
    step = 1 if setting.kind == "int" else 1e-6
    fits = {ge: True, gt: False, le: True, lt: False}
    fits |= {ge - step: False} if ge is not None else {}
    fits |= {le + step: False} if le is not None else {}
    fits |= {-FAR: True} if ge is gt is None else {}
    fits |= {FAR: True} if le is lt is None else {}
    return {value: fit for value, fit in fits.items() if value is not None}


@in_one_case("kind, name", EVERY)
def test_the_count_is_how_many_values_the_model_takes(kind, name):
    setting = describe_settings(kind)[name]
    if setting.kind in {"int", "float", "choice"}:
        value = setting.choices[0] if setting.kind == "choice" else 1
        one = (1, value) if setting.by_class else value
        for length in (1, 2, 3, 4):
            assert accepts(kind, name, (one,) * length) == (setting.count in {None, length} and setting.count != 1)


@in_one_case(
    "name, values",
    [
        ("network", Values(kind="str")),
        ("batch", Values(kind="int", bounds=Bounds(ge=1, le=1024))),
        ("seed", Values(kind="int", bounds=Bounds(ge=0, le=2**31 - 1))),
        ("ema_decay", Values(kind="float", bounds=Bounds(ge=0, lt=1))),
        ("learning_rate", Values(kind="float", bounds=Bounds(gt=0, le=10), optional=True)),
        ("view", Values(kind="choice", choices=("2d", "2.5d", "3d"))),
        ("patch", Values(kind="int", count=3, bounds=Bounds(ge=1), optional=True)),
        ("mirror_axes", Values(kind="choice", count=None, choices=("z", "y", "x"))),
        ("class_weights", Values(kind="float", count=None, bounds=Bounds(ge=0), words=get_args(Rule))),
        ("regions", Values(kind="region", count=None)),
        ("class_names", Values(kind="class_name", count=None)),
        ("loss", Values(kind="sum")),
        ("option", Values(kind="options")),
        ("start_from", Values(kind="path", optional=True)),
        ("image", Values(kind="str", count=None)),
    ],
)
def test_each_kind_of_setting(name, values):
    setting = describe_settings(TrainJob)[name]
    assert {key: getattr(setting, key) for key in vars(values)} == vars(values)
    assert setting.auto == (name in TrainJob.left_open)
    assert setting.default == TrainJob.model_fields[name].default


def test_what_can_be_left_out_or_replaced_by_a_word():
    found = describe_settings(SegmentJob)
    assert (found["tta"].words, found["tta"].choices, found["tta"].count) == (("rotations",), ("z", "y", "x"), None)
    assert (found["view"].optional, found["blending"].optional) == (True, False)


def test_what_may_differ_between_classes():
    found = describe_settings(CleanJob)
    assert [name for name, setting in found.items() if setting.by_class] == ["keep_largest", "min_size", "fill_holes"]
    assert [found[name].kind for name in ("keep_largest", "min_size", "fill_holes")] == ["int", "float", "choice"]


@in_one_case(
    "unknown",
    [
        bytes,
        list[int],
        tuple[()],
        tuple[int, float],
        tuple[int, Annotated[int, Field(ge=1)]],
        tuple[int | None, ...],
        tuple[tuple[int, int, int], ...],
        tuple[tuple[str, int], ...],
        int | str,
        tuple[int | Literal["all"], ...],
        dict[str, Path],
        Settings,
    ],
)
def test_a_type_that_is_not_known_is_refused(unknown):
    model = create_model("Strange", __base__=Settings, odd=(unknown, Field(description="What it is.")))
    with pytest.raises(TypeError, match=r"Setting Strange\.odd: "):
        describe_settings(model)


def test_a_setting_without_a_sentence_is_refused():
    with pytest.raises(TypeError, match=r"Setting Bare\.width has no sentence"):
        describe_settings(create_model("Bare", __base__=Settings, width=(int, 3)))


@pytest.mark.parametrize("table", [NETWORKS, LOSSES], ids=lambda table: table.noun)
def test_options_of_networks_and_losses_are_described_like_settings(table):
    for name in table:
        for option in table.describe(name).options:
            setting = describe_option(option)
            assert (setting.name, setting.default, setting.help) == (option.name, option.default, option.help)
            assert (setting.kind == "choice") == bool(option.choices)
            assert (setting.count is None) == (option.kind == "floats")
