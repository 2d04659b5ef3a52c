"""Names of classes as a setting, and where a name stands for a value."""

from __future__ import annotations

import pytest
from combinations import in_one_case

from napari_unetvnet.errors import SettingsProblem
from napari_unetvnet.settings import TrainSettings, checked
from napari_unetvnet.settings.class_names import parse_class_names


@in_one_case(
    "given",
    [
        "1=left line 2=cell",
        ["1=left line", "2=cell"],
        {1: "left line", "2": "cell"},
        "1 = left line, 2=cell",
        "1=left line;\n2=cell",
    ],
)
def test_names_are_read_from_text_lists_and_mappings(given):
    settings = checked(TrainSettings, {"class_names": given})
    assert [str(item) for item in settings.class_names] == ["1=left line", "2=cell"]
    assert checked(TrainSettings, settings.model_dump(mode="json")) == settings


@in_one_case(
    "text, sentence",
    [
        ("cell", "should be value=name"),
        ("1=", "should be value=name"),
        ("-1=cell", "should be value=name"),
        ("1=2", "give no number"),
        ("1=rest", "not 'rest'"),
        ("1=a:b", "none of"),
        ("1=a 1=b", "same value"),
        ("1=a 2=a", "same name"),
    ],
)
def test_what_is_no_name_is_refused(text, sentence):
    with pytest.raises(SettingsProblem, match=sentence):
        parse_class_names(text)
    with pytest.raises(SettingsProblem, match=sentence):
        checked(TrainSettings, {"class_names": text})


def test_a_name_stands_for_its_value():
    named = {"class_names": "1=tissue 2=left line 3=right 9=unclear", "unlabelled": "ignore"}
    chosen = {"lines": ["left line", "right"], "background": "tissue", "ignore_value": "unclear"}
    settings = checked(TrainSettings, named | chosen)
    assert (settings.lines, settings.background, settings.ignore_value) == ((2, 3), 1, 9)
    assert checked(TrainSettings, named | {"lines": "left line"}).lines == (2,)
    stored = settings.model_dump(mode="json") | {"lines": ["right"]}
    assert checked(TrainSettings, stored).lines == (3,)


@in_one_case(
    "values, sentence",
    [
        ({"class_names": "1=a", "regions": "X=1+2"}, "leave out class_names"),
        ({"class_names": "4=background"}, "not the background"),
        ({"loss": "cell: dice; rest: bce"}, "no class 'cell'.*--class-names"),
        ({"loss": "cel: dice; rest: bce", "class_names": "1=cell"}, "did you mean cell?"),
        ({"loss": "ten_channel(block=cel)", "class_names": "1=cell", "lines": "2"}, "did you mean cell?"),
        ({"loss": "border_dice"}, "such as border_dice [+] dice"),
        ({"loss": "dice_ce; 1: 1*ten_channel"}, "does not fit a single class"),
        ({"loss": "1: vae", "network": "segresnet_vae", "option": {"vae": "paper"}, "view": "3d"}, "give it no class"),
    ],
)
def test_what_does_not_fit_is_said(values, sentence):
    with pytest.raises(SettingsProblem, match=sentence):
        checked(TrainSettings, values)


def test_names_of_regions_and_objects_are_known_to_the_loss():
    checked(TrainSettings, {"regions": "brats", "loss": "ET: dice + focal; rest: dice"})
    checked(TrainSettings, {"label_values": "objects", "objects_as": "borders", "loss": "border: 2*dice; rest: dice"})
    checked(TrainSettings, {"loss": "border_dice + dice; 1: border_dice"})
