"""The form says what the settings say, and whatever is typed becomes valid settings or a sentence."""

from __future__ import annotations

import pytest
from combinations import in_one_case

from napari_unetvnet.errors import SettingsProblem
from napari_unetvnet.metrics import EvaluateSettings
from napari_unetvnet.networks import NETWORKS
from napari_unetvnet.settings import CleanJob, SegmentJob, TrainJob, checked
from napari_unetvnet.settings.describe import describe_settings
from napari_unetvnet.widgets.form import OptionsForm, SettingsForm, form_layout
from napari_unetvnet.widgets.segment import ADVANCED as SEGMENT_ADVANCED
from napari_unetvnet.widgets.segment import OBJECTS
from napari_unetvnet.widgets.train import ADVANCED, MAIN

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("qapp")]
FILES = {"image": "a.tif", "label": "b.tif"}


def test_an_untouched_form_gives_the_defaults():
    form = SettingsForm(TrainJob, (*MAIN, *ADVANCED))
    assert checked(TrainJob, form.values() | FILES) == checked(TrainJob, FILES)


def test_an_untouched_segment_form_gives_the_defaults():
    form = SettingsForm(SegmentJob, (*OBJECTS, *SEGMENT_ADVANCED))
    files = {"image": "a.tif", "model": "m"}
    assert checked(SegmentJob, form.values() | files) == checked(SegmentJob, files)


def test_every_row_has_the_sentence_of_its_setting():
    form = SettingsForm(TrainJob, (*MAIN, *ADVANCED))
    for name, field in form.fields.items():
        said = " ".join(field.widget.tooltip.split())
        assert said.startswith(" ".join(TrainJob.model_fields[name].description.split()))


@pytest.mark.parametrize("kind", [TrainJob, SegmentJob, CleanJob, EvaluateSettings])
def test_every_setting_can_be_a_row_that_opens_with_its_default(kind):
    form, described = SettingsForm(kind, list(kind.model_fields)), describe_settings(kind)
    opened = form.values()
    assert not opened.keys() & {name for name, setting in described.items() if setting.auto or setting.default is None}
    for name, value in opened.items():
        assert str(value) == str(described[name].default)


@pytest.mark.parametrize("text", ["1e-3", "0.001", " 1E-03 "])
def test_small_numbers_are_not_rounded(text):
    form = SettingsForm(TrainJob, ["learning_rate"])
    form.fields["learning_rate"].widget.value = text
    assert checked(TrainJob, form.values() | FILES).learning_rate == 1e-3


@in_one_case("text", ["1 64 96", "1,64,96", "(1, 64, 96)", "1 x 64 x 96"])
def test_a_patch_is_three_numbers(text):
    form = SettingsForm(TrainJob, ["patch"])
    form.fields["patch"].widget.value = text
    assert checked(TrainJob, form.values() | FILES).patch == (1, 64, 96)


@in_one_case(
    "name, text, value",
    [
        ("class_weights", "inverse_frequency", "inverse_frequency"),
        ("class_weights", "1, 2.5", (1.0, 2.5)),
        ("class_weights", "", "none"),
        ("lines", "2 3", (2, 3)),
        ("deep_supervision_weights", "1, 0.5", (1.0, 0.5)),
        ("ignore_value", "255", 255),
        ("label_blur", "1.5", 1.5),
        ("roi_weight", "0.5", 0.5),
    ],
)
def test_rows_of_numbers_are_typed_as_people_type_them(name, text, value):
    form = SettingsForm(TrainJob, [name])
    form.fields[name].widget.value = text
    assert getattr(checked(TrainJob, form.values() | FILES), name) == value


def test_regions_are_typed():
    form = SettingsForm(TrainJob, ["regions"])
    form.fields["regions"].widget.value = "WT=1+2+4 TC=1+4"
    made = checked(TrainJob, form.values() | FILES)
    assert [str(region) for region in made.regions] == ["WT=1+2+4", "TC=1+4"]


def test_a_hidden_row_says_nothing():
    form, layout = SettingsForm(TrainJob, ["lines", "seed"]), form_layout()
    form.add_to(layout)
    form.fields["lines"].widget.value = "2"
    form.show("lines", visible=False)
    assert form.fields["lines"].widget.native.isHidden()
    assert form.values() == {"seed": 0}
    form.show("lines", visible=True)
    assert form.values() == {"lines": "2", "seed": 0}


@in_one_case(
    "name, text, sentence",
    [
        ("patch", "64 64", "give 3 numbers z y x"),
        ("patch", "a b c", "patch"),
        ("learning_rate", "fast", "learning_rate"),
        ("learning_rate", "-1", "learning_rate"),
        ("learning_rate", "nan", "learning_rate"),
        ("class_weights", "heavy", "should be one of none, inverse_frequency"),
        ("regions", "WT:1", "Region 'WT:1' should be name=value"),
        ("lines", "thin", "lines"),
        ("deep_supervision_weights", "0 0", "All deep_supervision_weights are 0"),
    ],
)
def test_what_does_not_fit_is_a_sentence(name, text, sentence):
    form = SettingsForm(TrainJob, [name])
    form.fields[name].widget.value = text
    with pytest.raises(SettingsProblem, match=sentence):
        checked(TrainJob, form.values() | FILES)


def test_ranges_come_from_the_settings():
    form = SettingsForm(TrainJob, ["folds", "seed"])
    assert (form.fields["folds"].widget.min, form.fields["folds"].widget.max) == (1, 100)
    assert (form.fields["seed"].widget.min, form.fields["seed"].widget.max) == (0, 2**31 - 1)
    overlap = SettingsForm(SegmentJob, ["overlap"]).fields["overlap"].widget
    assert (overlap.min, overlap.max) == (0, 0.9)


@in_one_case("network", list(NETWORKS))
def test_the_options_of_every_network_are_accepted_as_they_open(network):
    form = OptionsForm(NETWORKS, form_layout())
    form.choose(network)
    defaults = NETWORKS.describe(network).defaults
    assert form.fields.keys() == defaults.keys()
    filled = {
        name: value for name, value in defaults.items() if value not in ("", ())
    }  # an empty row leaves the default
    assert NETWORKS.check_options(network, form.values()) == filled


def test_rows_of_another_network_replace_the_old_ones():
    layout = form_layout()
    form = OptionsForm(NETWORKS, layout, without=("width",))
    for name in (*NETWORKS, *NETWORKS):
        form.choose(name)
        shown = set(NETWORKS.describe(name).defaults) - {"width"}
        assert layout.rowCount() == len(shown)
