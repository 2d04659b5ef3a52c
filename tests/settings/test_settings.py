"""Settings: what is refused, with which words, and that they survive being written down."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from combinations import in_one_case
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from napari_unetvnet.errors import SettingsProblem
from napari_unetvnet.losses import LossTerm
from napari_unetvnet.networks import NETWORKS
from napari_unetvnet.settings import CleanJob, SegmentJob, SegmentSettings, TrainJob, TrainSettings, checked

FILES = {"image": "a.tif", "label": "b.tif"}


def refusal(kind, **values):
    """The lines with which values are refused."""
    with pytest.raises(SettingsProblem) as caught:
        checked(kind, values)
    assert all(line.endswith((".", "?")) for line in caught.value.lines), caught.value.lines
    return caught.value.lines


# A wrong choice, and what its sentence must hold: the name, the value and what was expected.
REFUSED = [
    ({"network": "unet_3d"}, ["network", "'unet_3d'", "unet3d"]),
    ({"option": {"widht": 3}}, ["unet_padding", "'widht'", "width"]),
    ({"option": {"width": "wide"}}, ["width=wide", "whole number"]),
    ({"option": {"up": "linear"}}, ["up=linear", "nearest", "transposed"]),
    ({"option": {"width": "inf"}}, ["width=inf", "whole number"]),
    ({"loss": "dise"}, ["'dise'", "dice"]),
    ({"loss": "dice -"}, ["'dice -'", "number*name"]),
    ({"loss": "0*dice"}, ["'0*dice'", "above 0"]),
    ({"loss": ()}, ["loss", "dice_ce"]),
    ({"loss": 5}, ["loss=5"]),
    ({"loss": [{"name": "dise"}]}, ["'dise'", "dice"]),
    ({"loss": [{"name": "dice", "weight": -1}]}, ["loss.0.weight=-1", "greater than 0"]),
    ({"loss": [{"name": "dice", "option": {"smoth": 1}}]}, ["dice", "'smoth'", "smooth"]),
    ({"loss": [{"name": "dice", "wieght": 1}]}, ["wieght", "weight"]),
    ({"loss": [{"weight": 1}]}, ["loss.0.name"]),
    ({"head": "softmax"}, ["head=softmax", "'binary'", "'multiclass'"]),
    ({"head": "multiclass", "loss": "bce"}, ["bce", "multiclass", "dice", "ce"]),
    ({"view": "4d"}, ["view=4d", "'2.5d'"]),
    ({"context": 0}, ["context=0", "1"]),
    ({"context": 17}, ["context=17", "16"]),
    ({"patch": (1, 64)}, ["patch", "(1, 64)"]),
    ({"patch": (1, 64, 64, 64)}, ["patch", "3", "64"]),
    ({"patch": (1, 0, 64)}, ["patch.1=0", "greater than or equal to 1"]),
    ({"patch": (8, 64, 64)}, ["(8, 64, 64)", "z = 1", "2d"]),
    ({"patch": (8, 64, 64), "view": "2.5d", "context": 2}, ["(8, 64, 64)", "z = 1", "2.5d"]),
    ({"batch": 0}, ["batch=0", "1"]),
    ({"batch": "many"}, ["batch=many", "integer"]),
    ({"minutes": 0}, ["minutes=0", "greater than 0"]),
    ({"minutes": float("nan")}, ["minutes=nan"]),
    ({"epochs": 0}, ["epochs=0", "1"]),
    ({"steps": -5}, ["steps=-5", "1"]),
    ({"steps_per_epoch": 0}, ["steps_per_epoch=0", "1"]),
    ({"learning_rate": 0}, ["learning_rate=0", "greater than 0"]),
    ({"learning_rate": 11}, ["learning_rate=11", "10"]),
    ({"seed": -1}, ["seed=-1", "0"]),
    ({"seed": 2**31}, [f"seed={2**31}", "less than"]),
    ({"unlabelled": "unknown"}, ["unlabelled=unknown", "'ignore'"]),
    ({"background": -1}, ["background=-1", "0"]),
    ({"background": 1}, ["background", "unlabelled=ignore"]),
    ({"label_values": "ids"}, ["label_values=ids", "'objects'"]),
    ({"label_values": "objects", "unlabelled": "ignore"}, ["bject", "unlabelled=background"]),
    ({"hold_out": 0.6}, ["hold_out=0.6", "0.5"]),
    ({"augment": "heavy"}, ["augment=heavy", "'light'"]),
    ({"normalise": "minmax"}, ["normalise=minmax", "'zscore'"]),
    ({"device": "tpu"}, ["device=tpu", "'cuda'"]),
    ({"precision": "fp8"}, ["precision=fp8", "'bf16'"]),
    ({"netwrok": "unet3d"}, ["'netwrok'", "network"]),
    ({"minutes": 1, "epochs": 2}, ["minutes", "epochs", "one of"]),
    ({"epochs": 1, "steps": 2}, ["epochs", "steps", "one of"]),
    ({"minutes": 1, "epochs": 2, "steps": 3}, ["minutes", "epochs", "steps"]),
]


@in_one_case("values, fragments", REFUSED)
def test_a_wrong_choice_is_refused_with_a_sentence_that_names_it(values, fragments):
    (line,) = refusal(TrainSettings, **values)
    for fragment in fragments:
        assert fragment in line


@pytest.mark.parametrize("value", [None, [1], {"a": 1}])
def test_an_option_that_is_no_plain_value_is_refused_with_one_sentence(value):
    (line,) = refusal(TrainSettings, option={"width": value})
    assert "width" in line


@in_one_case(
    "values, fragments",
    [
        ({"overlap": 0.95}, ["overlap=0.95", "0.9"]),
        ({"overlap": -0.1}, ["overlap=-0.1", "0"]),
        ({"batch": 0}, ["batch=0", "1"]),
        ({"view": "1d"}, ["view=1d", "'3d'"]),
        ({"tile": (16, 16)}, ["tile", "(16, 16)"]),
        ({"tile": "big"}, ["tile=big"]),
        ({"overlpa": 0.1}, ["'overlpa'", "overlap"]),
    ],
)
def test_a_wrong_choice_for_segmentation_is_refused_too(values, fragments):
    (line,) = refusal(SegmentSettings, **values)
    for fragment in fragments:
        assert fragment in line


def test_several_mistakes_have_a_line_each():
    lines = refusal(TrainSettings, batch=0, view="4d", networ="x", loss="dise", learning_rate="fast")
    assert len(lines) == 5
    for name in ("batch=0", "view=4d", "'networ'", "'dise'", "learning_rate=fast"):
        assert sum(name in line for line in lines) == 1


def test_choices_that_do_not_fit_each_other_have_a_line_each():
    lines = refusal(TrainSettings, minutes=1, steps=2, patch=(4, 8, 8), background=1, head="multiclass", loss="bce")
    assert len(lines) == 4


def test_jobs_name_what_is_missing():
    assert refusal(TrainJob) == refusal(TrainJob, image="a.tif") == ("Give --image and --label, or --pairs.",)
    both = refusal(TrainJob, pairs="list.csv", **FILES)
    assert "not both" in both[0]
    image, model = refusal(SegmentJob)
    assert image.startswith("Setting image is missing: ")
    assert model.startswith("Setting model is missing: ")


@pytest.mark.parametrize("kind", [TrainJob, SegmentJob])
def test_every_setting_has_a_sentence(kind):
    for name, field in kind.model_fields.items():
        assert field.description, name
        assert field.description.rstrip().endswith((".", ")")), name


def test_settings_are_frozen():
    with pytest.raises(ValidationError):
        TrainSettings().batch = 3


def test_a_single_file_is_a_list_of_one():
    job = checked(TrainJob, FILES)
    assert (job.image, job.label) == (("a.tif",), ("b.tif",))


@pytest.mark.parametrize(
    ("given_options", "kept"),
    [
        ({"width": "16", "depth": 4.0}, {"width": 16, "depth": 4}),
        ({"block": "add"}, {"block": "add"}),
        ({}, {}),
    ],
)
def test_options_are_brought_to_the_type_of_the_network(given_options, kept):
    option = checked(TrainSettings, {"option": given_options}).option
    assert option == kept
    assert [type(value) for value in option.values()] == [type(value) for value in kept.values()]


def test_a_truth_value_as_text_becomes_one():
    assert checked(TrainSettings, {"network": "unet3d", "option": {"norm": "false"}}).option == {"norm": False}


def test_a_loss_is_given_as_text_or_as_terms():
    terms = (LossTerm(name="dice"), LossTerm(name="bce", weight=10))
    assert checked(TrainSettings, {"loss": "dice + 10*bce"}).loss == terms
    assert checked(TrainSettings, {"loss": [{"name": "dice"}, {"name": "bce", "weight": 10}]}).loss == terms


options = st.sampled_from(
    [n for n in NETWORKS if 2 in NETWORKS.describe(n).facts.get("supported_dims", (2, 3))]
).flatmap(
    lambda name: st.tuples(
        st.just(name),
        st.fixed_dictionaries(
            {},
            optional={
                option.name: st.sampled_from(option.choices) if option.choices else st.just(option.default)
                for option in NETWORKS.describe(name).options
            },
        ),
    )
)
terms = st.builds(
    LossTerm,
    name=st.sampled_from(["dice", "ce", "dice_ce"]),
    weight=st.floats(1e-6, 1e6),
    option=st.just({}),
)
budgets = st.one_of(
    st.just({}),
    st.builds(lambda n: {"minutes": n}, st.floats(0.01, 1e4)),
    st.builds(lambda n: {"epochs": n}, st.integers(1, 9999)),
    st.builds(lambda n: {"steps": n}, st.integers(1, 9999)),
)


@given(
    options,
    st.lists(terms, min_size=1, max_size=3).map(tuple),
    budgets,
    st.fixed_dictionaries(
        {},
        optional={
            "view": st.sampled_from(["2d", "2.5d", "3d"]),
            "context": st.integers(1, 16),
            "patch": st.tuples(st.just(1), st.integers(1, 999), st.integers(1, 999)),
            "learning_rate": st.floats(1e-9, 10),
            "seed": st.integers(0, 2**31 - 1),
            "classes": st.lists(st.integers(0, 9)).map(tuple),
            "hold_out": st.floats(0, 0.5),
            "spacing": st.tuples(*[st.floats(1e-3, 1e3)] * 3),
            "start_from": st.just("models/first.safetensors"),
            "output": st.just("out.safetensors"),
        },
    ),
)
def test_a_training_job_survives_json(network, loss, budget, rest):
    values = {"network": network[0], "option": network[1], "loss": loss, **budget, **rest, **FILES}
    job = checked(TrainJob, values)
    assert checked(TrainJob, json.loads(json.dumps(job.model_dump(mode="json")))) == job


@given(
    st.fixed_dictionaries(
        {"image": st.text(min_size=1), "model": st.text(min_size=1)},
        optional={
            "view": st.sampled_from(["2d", "2.5d", "3d"]),
            "tile": st.tuples(*[st.integers(1, 999)] * 3),
            "overlap": st.floats(0, 0.9),
            "batch": st.integers(1, 1024),
            "device": st.sampled_from(["auto", "cpu", "cuda"]),
            "output": st.just("labels.nii.gz"),
            "probabilities": st.just("p.npy"),
        },
    )
)
def test_a_segmentation_job_survives_json(values):
    job = checked(SegmentJob, values)
    assert checked(SegmentJob, json.loads(json.dumps(job.model_dump(mode="json")))) == job


@in_one_case(
    "budget, minutes, steps",
    [
        ({}, 5.0, None),
        ({"minutes": 2}, 2.0, None),
        ({"steps": 70}, None, 70),
        ({"epochs": 3, "steps_per_epoch": 20}, None, 60),
    ],
)
def test_the_budget_is_planned_in_minutes_or_in_steps(budget, minutes, steps):
    settings = checked(TrainSettings, budget)
    assert settings.planned_minutes == minutes
    assert settings.planned_steps == steps


@pytest.mark.parametrize(("view", "dims"), [("2d", 2), ("2.5d", 2), ("3d", 3)])
def test_only_the_3d_view_wants_a_3d_network(view, dims):
    assert checked(TrainSettings, {"view": view}).dims == dims


@in_one_case(
    "head, loss, classes, expected",
    [
        ("auto", "dice_ce", 2, "binary"),
        ("auto", "dice_ce", 3, "multiclass"),
        ("auto", "bce", 2, "binary"),
        ("auto", "ce", 5, "multiclass"),
        ("binary", "bce", 2, "binary"),
        ("multiclass", "ce", 2, "multiclass"),
    ],
)
def test_two_classes_make_one_sigmoid_and_more_a_softmax(head, loss, classes, expected):
    assert checked(TrainSettings, {"head": head, "loss": loss}).head_for(classes) == expected


@pytest.mark.parametrize(
    ("head", "loss", "classes", "fragments"),
    [
        ("binary", "dice", 3, ["binary", "3", "multiclass"]),
        ("auto", "bce", 3, ["3 classes", "bce", "multiclass", "ce"]),
        ("auto", "dice + 2*bce", 4, ["4 classes", "bce"]),
    ],
)
def test_a_head_that_cannot_hold_the_classes_is_refused(head, loss, classes, fragments):
    with pytest.raises(SettingsProblem) as caught:
        checked(TrainSettings, {"head": head, "loss": loss}).head_for(classes)
    for fragment in fragments:
        assert re.search(fragment, str(caught.value))


def test_settings_load_no_torch():
    code = "import sys, napari_unetvnet.settings; sys.exit('torch' in sys.modules or 'napari' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture
def spelled(tmp_path, monkeypatch):
    """Other ways to name scan.npy in the working directory: another spelling, a link, a folder's link, a hard link."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "scan.npy").write_bytes(b"")
    (folder / "link.npy").symlink_to(folder / "scan.npy")
    (folder / "hard.npy").hardlink_to(folder / "scan.npy")
    (tmp_path / "other").symlink_to(folder)
    monkeypatch.chdir(folder)
    names = ("scan.npy", "./scan.npy", "../data/scan.npy", "link.npy", "hard.npy", "../other/scan.npy")
    return [*names, str(folder / "scan.npy")]


def test_a_result_never_replaces_what_is_read_however_it_is_named(spelled):
    for name in spelled:
        for values in ({"image": f"a.npy | {name}"}, {"image": "a.npy", "mask": name}):
            with pytest.raises(SettingsProblem, match="would replace"):
                checked(SegmentJob, values | {"model": "m", "output": "scan.npy"})
        with pytest.raises(SettingsProblem, match="would replace"):
            checked(CleanJob, {"labels": name, "output": "scan.npy", "min_size": 2})
        with pytest.raises(SettingsProblem, match="would replace"):
            checked(TrainJob, {"image": "a.npy", "label": name, "output": "scan.npy"})
    checked(SegmentJob, {"image": "scan.npy", "model": "m", "output": "new.npy"})


def test_two_results_never_share_a_place_however_it_is_named(spelled):
    for name in (*spelled[1:], "scan.npy/inside.zarr"):
        with pytest.raises(SettingsProblem, match="Two results"):
            checked(SegmentJob, {"image": "a", "model": "m", "output": "scan.npy", "probabilities": name})
    for first, second in (("new.npy", "./new.npy"), ("new.zarr/p.zarr", "new.zarr")):
        with pytest.raises(SettingsProblem, match="Two results"):
            checked(SegmentJob, {"image": "a", "model": "m", "output": first, "probabilities": second})
