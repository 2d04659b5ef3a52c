"""What does not fit is greyed out with the sentence of the settings, and options are rows and text alike."""

from __future__ import annotations

import itertools

import pytest
from combinations import in_one_case

from napari_unetvnet.errors import SettingsProblem
from napari_unetvnet.losses import LOSSES
from napari_unetvnet.settings import TrainSettings, checked
from napari_unetvnet.widgets.form import form_layout
from napari_unetvnet.widgets.losses import LossBox, LossOptions, loss_conflicts

pytestmark = pytest.mark.timeout(60)


def items(box):
    return {box.itemText(i): box.model().item(i) for i in range(box.count())}


def greyed(box):
    return {name for name, item in items(box).items() if not item.isEnabled()}


def told(item):
    return " ".join(item.toolTip().split())


def solid(text):
    """Without white space: lines may be broken at hyphens."""
    return "".join(text.split())


@pytest.fixture
def options(qtbot):
    box = LossBox()
    qtbot.addWidget(box)
    return LossOptions(box, form_layout())


CHOICES = [
    {"head": head, **labels, "network": network}
    for head, labels, network in itertools.product(
        ("auto", "binary", "multiclass", "multilabel"),
        ({}, {"label_values": "objects"}, {"label_values": "overlapping"}, {"regions": "brats"}, {"lines": "2"}),
        ("unet_padding", "attention_unet", "segresnet_vae"),
    )
]


def test_a_loss_is_greyed_out_exactly_when_the_settings_refuse_it(qtbot):
    """Wherever the other choices go together; where they do not, no loss is to blame."""
    box, together = LossBox(), 0
    qtbot.addWidget(box)
    for values in CHOICES:
        refused = {}
        for name in LOSSES:
            try:
                checked(TrainSettings, values | {"loss": name})
            except SettingsProblem as problem:
                refused[name] = problem.lines
        box.refresh(values)
        if set(refused) == set(LOSSES):
            assert not set.intersection(*(set(lines) for lines in loss_conflicts(values, list(LOSSES)).values()))
            continue
        together += 1
        assert greyed(box) == set(refused)
        for name, lines in refused.items():
            assert all(solid(line) in solid(items(box)[name].toolTip()) for line in lines)
    assert together > len(CHOICES) / 2


def test_every_loss_tells_what_it_is(qtbot):
    box = LossBox()
    qtbot.addWidget(box)
    for name, item in items(box).items():
        if name == "auto":
            continue
        assert solid(LOSSES.describe(name).summary.replace("``", "")) in solid(item.toolTip())


def test_losses_are_greyed_out_as_the_form_changes(trainer):
    label_values = trainer.settings.fields["label_values"].widget
    assert "ce" not in greyed(trainer.loss)
    label_values.value = "overlapping"
    assert "ce" in greyed(trainer.loss)
    assert "does not fit a multilabel head" in told(items(trainer.loss)["ce"])
    label_values.value = "classes"
    assert "ce" not in greyed(trainer.loss)
    trainer.settings.fields["regions"].widget.value = "WT=1+2 ET=2"
    assert "ce" in greyed(trainer.loss)
    trainer.settings.fields["regions"].widget.value = ""
    trainer.settings.fields["head"].widget.value = "binary"
    assert "bce" not in greyed(trainer.loss)
    trainer.settings.fields["head"].widget.value = "multiclass"
    assert "bce" in greyed(trainer.loss)


def test_losses_are_greyed_out_as_the_network_changes(trainer):
    if not any("reconstruction" in LOSSES.describe(name).facts.get("needs", ()) for name in LOSSES):
        pytest.skip("no loss learns from a reconstruction")
    before = greyed(trainer.loss)
    trainer.network.setCurrentText("segresnet_vae")
    trainer.network.options.fields["vae"].widget.value = "paper"
    able = before - greyed(trainer.loss)
    assert able
    trainer.network.options.fields["vae"].widget.value = "none"
    assert able <= greyed(trainer.loss)
    assert "option vae" in told(items(trainer.loss)[able.pop()])


def test_auto_always_fits_and_has_no_options(trainer):
    assert trainer.loss.currentText() == "auto"
    assert not trainer.loss_options.form.fields
    trainer.settings.fields["label_values"].widget.value = "overlapping"
    assert "auto" not in greyed(trainer.loss)
    assert trainer.loss.hint.isHidden()
    trainer.loss.setCurrentText("tversky")
    assert trainer.loss_options.form.fields
    trainer.loss.setCurrentText("auto")
    assert not trainer.loss_options.form.fields
    assert trainer.loss.values() == {}


def test_losses_are_greyed_out_for_the_default_network_while_it_is_open(trainer):
    trainer.network.setCurrentText("unet_padding")
    chosen = greyed(trainer.loss)
    trainer.network.setCurrentText("auto")
    assert greyed(trainer.loss) == chosen
    assert chosen


def test_a_chosen_loss_that_no_longer_fits_is_told_and_refused(trainer):
    trainer.loss.setCurrentText("dice + ce")
    assert trainer.loss.hint.isHidden()
    trainer.settings.fields["label_values"].widget.value = "overlapping"
    assert trainer.loss.currentText() == "dice + ce"
    assert "Loss ce does not fit a multilabel head" in trainer.loss.hint.text()
    assert not trainer.loss.hint.isHidden()
    trainer.panel.button.click()
    assert "Loss ce does not fit a multilabel head; choose one of" in trainer.panel.view.error.text()
    assert trainer.panel.task.state == "idle"
    trainer.loss.setCurrentText("dice")
    assert trainer.loss.hint.isHidden()


def test_a_typed_loss_that_does_not_exist_is_told(trainer):
    trainer.loss.setCurrentText("dise")
    assert "did you mean" in trainer.loss.hint.text()


def test_choices_that_do_not_go_together_are_no_fault_of_the_losses(trainer):
    before = greyed(trainer.loss)
    trainer.settings.fields["regions"].widget.value = "no regions"
    assert greyed(trainer.loss) == set()
    trainer.settings.fields["regions"].widget.value = ""
    assert greyed(trainer.loss) == before


def test_a_changed_option_is_written_into_the_box(options):
    box, fields = options._box, options.form.fields
    box.setCurrentText("tversky")
    fields = options.form.fields
    assert {"alpha", "beta"} <= fields.keys()
    fields["alpha"].widget.value = "0.2"
    assert box.currentText() == "tversky(alpha=0.2)"
    assert options.form.fields["alpha"] is fields["alpha"]  # the row that is edited stays
    fields["beta"].widget.value = "much"
    assert "Option beta=much must be a number" in box.hint.text()
    fields["beta"].widget.value = ""
    fields["alpha"].widget.value = "0.3"  # the default
    assert box.currentText() == "tversky"
    assert box.hint.isHidden()


def test_a_typed_option_is_shown_in_its_row(options):
    box = options._box
    box.setCurrentText("10*tversky(alpha=0.2)")
    assert options.form.fields["alpha"].read() == "0.2"
    options.form.fields["beta"].widget.value = "0.8"
    (term,) = checked(TrainSettings, {"loss": box.currentText()}).loss
    assert (term.name, term.weight, term.option) == ("tversky", 10, {"alpha": 0.2, "beta": 0.8})
    box.setCurrentText("tversky(")  # half typed
    assert options.form.fields["alpha"].read() == "0.2"
    box.setCurrentText("dice + tversky")
    assert not options.form.fields


@in_one_case("name", list(LOSSES))
def test_the_rows_of_every_loss_are_its_options(options, name):
    options._box.setCurrentText(name)
    assert options.form.fields.keys() == LOSSES.describe(name).defaults.keys()
    options._write()
    assert options._box.currentText() == name  # untouched rows are the defaults
