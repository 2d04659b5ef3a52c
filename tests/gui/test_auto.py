"""What is left open begins as auto and is not in the job; what a run chose instead is told in the row."""

from __future__ import annotations

import json

import numpy as np
import pytest
from combinations import in_one_case
from qtpy.QtWidgets import QComboBox, QLineEdit, QSpinBox

from napari_unetvnet import runs
from napari_unetvnet.events import Notice
from napari_unetvnet.images.pairs import Pair
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.model.card import read_card
from napari_unetvnet.runs.folder import PLAN
from napari_unetvnet.settings import TrainJob, checked
from napari_unetvnet.training.plan import plan
from napari_unetvnet.widgets.auto import Choice, planned_in, show_planned
from napari_unetvnet.widgets.form import SettingsForm
from napari_unetvnet.widgets.train import ADVANCED, MAIN, TrainWidget

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("qapp")]
FILES = {"image": "a.tif", "label": "b.tif"}
ROWS = [
    {"name": "view", "value": "2.5d", "reason": "planes are far apart"},
    {"name": "network", "value": "unet_padding", "reason": "it learns fast"},
    {"name": "option", "value": {"width": 16}, "reason": "quick"},
    {"name": "loss", "value": "dice_ce", "reason": "right"},
    {"name": "patch", "value": [1, 64, 64], "reason": "fits"},
    {"name": "mirror_axes", "value": [], "reason": "sides"},
]


@pytest.fixture
def opened(qtbot, painted_viewer):
    """The widget as it opens."""
    widget = TrainWidget(painted_viewer)
    qtbot.addWidget(widget)
    return widget


def text_of(row):
    if isinstance(row, QLineEdit):
        return row.text() or row.placeholderText()
    return row.currentText() if isinstance(row, QComboBox) else row.text()


def test_nothing_that_is_left_open_is_in_the_job_of_an_untouched_form(opened):
    made = checked(TrainJob, opened.values() | FILES)
    assert not made.model_fields_set & set(TrainJob.left_open)
    assert {"view", "patch", "batch", "mirror_axes", "augment"} <= set(opened.settings.auto_fields)


@in_one_case("name", [name for name in (*MAIN, *ADVANCED) if name != "context"])
def test_any_field_may_be_left_open(monkeypatch, name):
    """Whatever is added to the open fields begins as auto, and says nothing; the word can be chosen again."""
    monkeypatch.setattr(TrainJob, "left_open", (*TrainJob.left_open, name))
    form = SettingsForm(TrainJob, [name])
    assert form.values() == {}
    row = form.fields[name].widget
    assert text_of(row.native).startswith("auto")
    assert checked(TrainJob, FILES) == checked(TrainJob, form.values() | FILES)
    row.value = "auto"
    assert form.values() == {}


@in_one_case(
    "name, typed, value",
    [
        ("view", "2.5d", "2.5d"),
        ("batch", "6", 6),
        ("patch", "1 64 96", (1, 64, 96)),
        ("augment", "strong", "strong"),
        ("mirror_axes", "y x", ("y", "x")),
        ("mirror_axes", "none", ()),
    ],
)
def test_what_is_chosen_instead_is_in_the_job(name, typed, value):
    form = SettingsForm(TrainJob, [name])
    form.fields[name].widget.value = typed
    made = checked(TrainJob, form.values() | FILES)
    assert getattr(made, name) == value
    assert name in made.model_fields_set


def test_a_network_brings_its_options_and_a_width_may_be_chosen_without_one(opened):
    assert not opened.network.options.fields
    assert opened.network.values() == {}
    opened.network.width_box.setValue(8)
    assert opened.network.values() == {"option": {"width": 8}}
    opened.network.setCurrentText("vnet")
    assert opened.network.options.fields
    assert opened.network.values()["network"] == "vnet"
    opened.network.setCurrentText("auto")
    assert opened.network.width_box.text() == "auto"
    assert opened.network.values() == {}


def test_titles_without_options_are_left_out(opened):
    assert opened._titles["Network"].isHidden()
    assert opened._titles["Loss"].isHidden()
    opened.network.setCurrentText("unet_padding")
    opened.loss.setCurrentText("tversky")
    assert not opened._titles["Network"].isHidden()
    assert not opened._titles["Loss"].isHidden()


@pytest.fixture
def planned(opened, tmp_path):
    """The widget after a run has told its plan."""
    (tmp_path / PLAN).write_text(json.dumps(ROWS))
    opened.panel.task.folder = tmp_path
    for text in ("Labels look fine.", "Planned: view 2.5d (planes are far apart)."):
        opened.panel.task.event_received.emit(Notice(text))
    return opened


def test_what_was_chosen_stands_beside_the_word_and_why_below_the_row(planned):
    rows = {"view": "2.5d", "patch": "1 64 64", "mirror_axes": "none"}
    found = {name: planned.settings.fields[name].widget.native for name in rows}
    found |= {"network": planned.network, "width": planned.network.width_box, "loss": planned.loss}
    for name, value in (rows | {"network": "unet_padding", "width": "16", "loss": "dice_ce"}).items():
        assert text_of(found[name]) == f"auto: {value}"
        assert f"Auto chose {value}: " in found[name].toolTip().replace("\n", " ")
    assert text_of(planned.settings.fields["batch"].widget.native) == "auto"
    assert not planned.values().keys() & set(TrainJob.left_open)
    assert planned.network.currentText() == "auto: unet_padding"
    assert not planned.network.options.fields


def test_the_panel_tells_the_choices_once_and_the_reasons_on_hover(planned):
    view = planned.panel.view
    assert view.plan.text() == "Planned: view 2.5d (planes are far apart)."
    assert "view 2.5d: planes are far apart" in view.plan.toolTip().splitlines()
    assert view.notices.text() == "Labels look fine."
    view.clear()
    assert view.plan.isHidden()


def test_a_plan_that_cannot_be_read_leaves_the_notice(opened, tmp_path):
    (tmp_path / PLAN).write_text("[{]")
    assert planned_in(tmp_path / PLAN) == planned_in(tmp_path / "none.json") == ()
    opened.panel.task.folder = tmp_path
    opened.panel.task.event_received.emit(Notice("Planned: view 2d (planes)."))
    assert opened.panel.view.notices.text() == "Planned: view 2d (planes)."
    assert opened.panel.view.plan.isHidden()


def test_another_image_is_planned_anew(planned, painted_viewer):
    painted_viewer.add_image(np.zeros((20, 20)), name="other")
    planned.image.box.setCurrentIndex(1)
    assert text_of(planned.settings.fields["view"].widget.native) == "auto"
    assert planned.network.currentText() == planned.loss.currentText() == "auto"
    assert "Auto chose" not in planned.network.toolTip() + planned.loss.toolTip()


def test_what_somebody_typed_stays_when_a_plan_is_shown(qtbot):
    box, spin = Choice(("auto", "none"), "auto", ""), QSpinBox()
    qtbot.addWidget(box)
    qtbot.addWidget(spin)
    box.value = "1, 2"
    show_planned(box, "none", "because")
    assert box.value == "1, 2"
    box.value = "auto"
    assert box.currentText() == "auto: none"
    assert box.value == "auto"
    spin.setRange(1, 9)
    show_planned(spin, "4", "because")
    assert spin.text() == "1"  # this one is not left open


def test_time_points_of_a_movie_are_asked_for(qtbot, viewer):
    viewer.add_image(np.zeros((6, 20, 24), np.float32), name="movie", axis_labels=("t", "y", "x"))
    viewer.add_labels(np.ones((6, 20, 24), np.uint8), name="strokes")
    widget = TrainWidget(viewer)
    qtbot.addWidget(widget)
    widget.panel.button.click()  # all are painted, so all are offered
    assert "movie has 6 time points. Which ones" in widget.asking.text.text().replace("\n", " ")
    assert [button.text().replace("\n", " ") for button in widget.asking.buttons][-1] == "All 6 time points"
    widget.settings.fields["time"].widget.value = "1 3"
    job = widget._read_job()[1]
    assert (job.image, job.time) == (("inputs/image/movie_t1.npy", "inputs/image/movie_t3.npy"), ())
    assert (job.label, job.axes) == (("inputs/labels/strokes_t1.npy", "inputs/labels/strokes_t3.npy"), "yx")
    widget.settings.fields["view"].widget.value = "3d"
    widget.panel.button.click()
    assert "so it is a series of 2D images; choose view 2d" in widget.panel.view.error.text().replace("\n", " ")


def test_a_stack_leaves_the_view_to_the_data(qtbot, viewer):
    viewer.add_image(np.zeros((6, 20, 24), np.float32), name="stack")
    viewer.add_labels(np.ones((6, 20, 24), np.uint8), name="strokes")
    widget = TrainWidget(viewer)
    qtbot.addWidget(widget)
    assert "view" not in widget._read_job()[1].model_fields_set


def test_a_model_that_goes_on_keeps_its_network_and_view(opened, tiny_model):
    card = read_card(tiny_model)
    made = opened._read_job(tiny_model)[1]
    pair = Pair(Volume(np.zeros((1, 1, 64, 64)), name="i"), Volume(np.ones((1, 1, 64, 64), np.uint8)))
    planned = plan([pair], made, "cpu").settings
    assert (planned.network, planned.option, planned.view) == (card.network, card.option, card.view)
    assert planned.option["width"] == 4
    opened.network.setCurrentText("vnet")
    assert opened._read_job(tiny_model)[1].network == "vnet"


@pytest.mark.slow
def test_a_run_plans_what_is_open_and_says_so(opened, finish):
    opened.network.width_box.setValue(4)
    opened.settings.fields["device"].widget.value = "cpu"
    opened.budget.choose(1, "steps")
    opened.panel.button.click()
    finish(opened.panel)
    assert opened.panel.view.error.text() == ""
    assert not runs.read(opened.panel.task.folder).model_fields_set & set(TrainJob.left_open) - {"option"}
    chosen = {item.name for item in planned_in(opened.panel.task.folder / PLAN)}
    assert {"view", "network", "loss", "patch", "batch", "mirror_axes", "augment"} <= chosen
    assert opened.settings.fields["view"].widget.native.currentText() == "auto: 2d"
    assert not opened.panel.view.plan.isHidden()
    assert "Planned" not in opened.panel.view.notices.text()
