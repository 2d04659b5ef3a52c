"""Training and segmenting from the widgets, in a child process: what is written, shown, stopped and survived."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from napari.utils.task_status import Status
from qtpy.QtCore import QTimer

from napari_unetvnet import runs
from napari_unetvnet.events import EpochDone, StepDone
from napari_unetvnet.model.card import read_card
from napari_unetvnet.settings import SegmentJob, TrainJob
from napari_unetvnet.widgets import task
from napari_unetvnet.widgets.models import MODEL_SIGNALS, ModelPicker
from napari_unetvnet.widgets.segment import SegmentWidget

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def segmenter(qtbot, painted_viewer, tiny_model):
    widget = SegmentWidget(painted_viewer)
    qtbot.addWidget(widget)
    widget.model.choose(tiny_model)
    widget.settings.fields["device"].widget.value = "cpu"
    return widget


@pytest.fixture
def no_child(monkeypatch):
    """Do not start anything; the folders of what would have been started."""
    started = []

    class Child:
        pid, returncode = 0, -9

        def poll(self):
            return self.returncode

        def kill(self):
            pass

    def start(folder):
        started.append(folder)
        return Child()

    monkeypatch.setattr(task.runs, "start", start)
    return started


def test_the_job_says_what_the_form_says(trainer, no_child, finish):
    trainer.loss.setCurrentText("dice + 10*bce")
    trainer.settings.fields["learning_rate"].widget.value = "1e-3"
    trainer.settings.fields["seed"].widget.value = 7
    trainer.panel.button.click()
    finish(trainer.panel)
    made = runs.read(no_child[0])
    assert isinstance(made, TrainJob)
    shown = {"width": 4, "depth": 3, "block": "none", "block_in": "both", "up": "nearest", "deep_supervision": 0}
    assert made.option == shown | {"norm": "batch"}
    assert [(term.name, term.weight) for term in made.loss] == [("dice", 1), ("bce", 10)]
    assert (made.learning_rate, made.seed, made.steps, made.patch) == (1e-3, 7, 10, (1, 48, 48))
    assert (made.unlabelled, made.background, made.view) == ("ignore", 1, "2d")
    stored = json.loads((no_child[0] / "job.json").read_text())
    assert stored["image"] == ["inputs/image/cells.npy"]  # relative: the folder can be moved to another machine


def test_strokes_as_background_are_asked_about_before_anything_starts(trainer, no_child, finish):
    trainer.unpainted.meaning.setCurrentText("background")
    assert not trainer.unpainted.background.isEnabled()
    trainer.panel.button.click()
    finish(trainer.panel)
    asking = trainer.asking
    assert not no_child
    assert "--" not in asking.text.text()
    assert "Only examples seem to be painted" in asking.text.text().replace("\n", " ")
    assert asking.text.minimumSizeHint().height() >= 2 * asking.text.fontMetrics().height(), "no line is cut off"
    anyway = asking.buttons[-1]
    anyway.click()
    finish(trainer.panel)
    made = runs.read(no_child[-1])
    assert (made.unlabelled, made.background, made.label_checks) == ("background", None, "warn")
    assert asking.isHidden()
    trainer.panel.button.click()
    finish(trainer.panel)
    asking.buttons[0].click()
    finish(trainer.panel)
    made = runs.read(no_child[-1])
    assert (made.unlabelled, made.background, made.label_checks) == ("ignore", 1, "refuse")
    assert trainer.unpainted.meaning.currentText() == "ignored"


def test_auto_leaves_the_meaning_to_the_run(trainer, painted_viewer, no_child, finish):
    unpainted = trainer.unpainted
    unpainted.meaning.setCurrentText("auto")
    unpainted.background.setValue(-1)
    assert unpainted.background.text() == "auto"
    made, stored = job_of(trainer, no_child, finish)
    assert made.unlabelled_is_open
    assert not {"unlabelled", "background"} & set(stored)
    for value, text in ((0, "no label"), (3, "label 3")):
        unpainted.background.setValue(value)
        assert (unpainted.background.text(), unpainted.values()) == (text, {"background": value})
    strokes = painted_viewer.layers["strokes"].data
    strokes[strokes == 1] = 0
    unpainted.background.setValue(-1)
    trainer.panel.button.click()
    finish(trainer.panel)
    assert "What does label 0 mean?" in trainer.asking.text.text().replace("\n", " ")
    assert trainer.panel.view.error.text() == ""


def job_of(widget, no_child, finish):
    widget.panel.button.click()
    finish(widget.panel)
    assert no_child, widget.panel.view.error.text()
    return runs.read(no_child[-1]), json.loads((no_child[-1] / "job.json").read_text())


def test_what_labels_mean_is_in_the_job(trainer, no_child, finish):
    fields = trainer.settings.fields
    fields["class_weights"].widget.value = "1 3"
    fields["label_blur"].widget.value = "1"
    fields["ignore_value"].widget.value = "9"
    fields["head"].widget.value = "multiclass"
    fields["deep_supervision_weights"].widget.value = "1 0.5"
    made, _ = job_of(trainer, no_child, finish)
    assert (made.class_weights, made.label_blur, made.ignore_value) == ((1, 3), 1, 9)
    assert (made.head, made.deep_supervision_weights, made.label_values) == ("multiclass", (1, 0.5), "classes")


def shown(trainer):
    rows = {
        name: trainer.settings.fields[name].widget.native for name in ("label_values", "objects_as", "regions", "lines")
    }
    rows["background"] = trainer.unpainted.background
    return {name for name, row in rows.items() if not row.isHidden()}


def test_object_ids_need_no_background(trainer, no_child, finish):
    assert shown(trainer) == {"label_values", "regions", "lines", "background"}
    trainer.settings.fields["regions"].widget.value = "no region"  # is hidden, and says nothing then
    trainer.settings.fields["label_values"].widget.value = "objects"
    trainer.settings.fields["objects_as"].widget.value = "borders"
    assert shown(trainer) == {"label_values", "objects_as"}
    made, _ = job_of(trainer, no_child, finish)
    assert (made.label_values, made.objects_as) == ("objects", "borders")
    assert (made.unlabelled, made.background, made.regions) == ("background", None, ())


def test_masks_are_proposed_to_be_painted_whole(trainer):
    label_values, meaning = trainer.settings.fields["label_values"].widget, trainer.unpainted.meaning
    label_values.value = "overlapping"
    assert meaning.currentText() == "background"
    assert shown(trainer) == {"label_values", "background"}
    label_values.value = "classes"
    assert meaning.currentText() == "ignored"


def test_lines_that_were_drawn_are_a_class(trainer, painted_viewer, no_child, finish):
    drawn = [np.array([[10, 10], [10, 90]]), np.array([[50, 20], [90, 60], [120, 60]])]
    lines = painted_viewer.add_shapes(drawn, shape_type=["line", "path"], name="lines")
    trainer.labels.box.choose(lines)
    assert shown(trainer) == set()
    made, stored = job_of(trainer, no_child, finish)
    assert (made.lines, made.unlabelled, made.background, made.label_values) == ((1,), "background", None, "classes")
    labels = np.load(no_child[0] / stored["label"][0])
    assert labels.shape == (160, 192)
    assert labels[10, 10:91].all()
    assert labels.sum() == 81 + 41 + 30
    trainer.labels.box.choose(painted_viewer.layers["strokes"])
    assert shown(trainer) == {"label_values", "regions", "lines", "background"}


def test_a_mask_is_in_the_job(trainer, painted_viewer, no_child, finish):
    inside = np.zeros((160, 192), np.uint8)
    inside[:100] = 1
    trainer.mask.choose(painted_viewer.add_labels(inside, name="inside"))
    _, stored = job_of(trainer, no_child, finish)
    assert stored["mask"] == ["inputs/mask/inside.npy"]
    assert np.array_equal(np.load(no_child[0] / stored["mask"][0]), inside)


def test_a_mask_is_found_from_everywhere(trainer, painted_viewer, no_child, finish):
    trainer.mask.choose(painted_viewer.layers["strokes"])
    made, _ = job_of(trainer, no_child, finish)
    assert made.mask == (str(no_child[0] / "inputs/mask/strokes.npy"),)


@pytest.mark.slow
def test_masks_that_overlap_come_back_as_masks(qtbot, trainer, painted_viewer, finish):
    """Two masks are learnt, each comes back as a layer of its own, and both can be corrected and learnt again."""
    masks = {name: np.zeros((160, 192), np.uint8) for name in ("left", "upper")}
    masks["left"][:, :120], masks["upper"][:100] = 1, 1
    left, upper = (painted_viewer.add_labels(data, name=name) for name, data in masks.items())
    trainer.settings.fields["label_values"].widget.value = "overlapping"
    trainer.labels.box.choose(left)
    trainer.labels.tick(upper)
    trainer.panel.button.click()
    finish(trainer.panel)
    assert trainer.panel.view.error.text() == ""
    assert runs.read(trainer.panel.task.folder).label[0].count("|") == 1
    segmenter = SegmentWidget(painted_viewer)
    qtbot.addWidget(segmenter)
    segmenter.model.choose(trainer.model)
    assert "overlapping masks left, upper" in segmenter.model.about.text()
    segmenter.panel.button.click()
    finish(segmenter.panel)
    assert segmenter.panel.view.error.text() == ""
    first, second = (painted_viewer.layers[f"cells segmented: {name}"] for name in masks)
    for value, layer in ((1, first), (2, second)):
        assert layer.editable
        assert layer.data.shape == (160, 192)
        assert set(np.unique(layer.data)) <= {0, value}
    first.data[:80], second.data[40:] = 1, 2  # the user corrects them
    trainer.labels.box.choose(first)
    painted_viewer.layers.remove(upper)
    trainer.labels.tick(second)
    assert trainer.labels.layers == [first, second]
    trainer.resume.click()
    finish(trainer.panel)
    assert trainer.panel.view.error.text() == ""


@pytest.mark.parametrize(("unit", "amount"), [("minutes", 0.5), ("epochs", 3), ("steps", 70)])
def test_one_budget_is_given(trainer, no_child, finish, unit, amount):
    trainer.budget.choose(amount, unit)
    trainer.panel.button.click()
    finish(trainer.panel)
    given = runs.read(no_child[0]).model_dump(include={"minutes", "epochs", "steps"}, exclude_none=True)
    assert given == {unit: amount}


def test_context_is_asked_for_in_2_5d_only(trainer):
    row = trainer.settings.fields["context"].widget.native
    assert row.isHidden()
    trainer.settings.fields["view"].widget.value = "2.5d"
    assert not row.isHidden()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda w, v: w.loss.setCurrentText("dice + nope"), "There is no loss 'nope'"),
        (lambda w, v: v.layers.remove("strokes"), "There is no labels layer"),
        (lambda w, v: v.layers.clear(), "There is no image layer"),
        (lambda w, v: setattr(w.settings.fields["view"].widget, "value", "3d"), "2D image; choose view 2d"),
        (lambda w, v: setattr(w.settings.fields["patch"].widget, "value", "64"), "give 3 numbers"),
        (lambda w, v: setattr(w.settings.fields["patch"].widget, "value", "8 64 64"), "must have z = 1"),
    ],
)
def test_a_refusal_is_shown_and_nothing_is_started(trainer, painted_viewer, no_child, runs_folder, spoil, sentence):
    spoil(trainer, painted_viewer)
    trainer.panel.button.click()
    assert sentence in trainer.panel.view.error.text()
    assert trainer.panel.task.state == "idle"
    assert trainer.panel.button.isEnabled()
    assert not runs_folder.exists()
    assert not no_child


def test_a_refusal_in_the_thread_is_shown_and_leaves_no_folder(trainer, painted_viewer, finish, runs_folder):
    painted_viewer.layers["strokes"].data[:] = 0
    trainer.panel.button.click()
    finish(trainer.panel)
    assert "Nothing is painted on strokes" in trainer.panel.view.error.text()
    assert trainer.panel.button.text() == "Train"
    assert not list(runs_folder.iterdir())


def test_a_fault_in_the_thread_brings_the_buttons_back(trainer, finish, monkeypatch):
    def broken(*_):
        raise RuntimeError("out of cheese")

    monkeypatch.setattr("napari_unetvnet.widgets.layers.write", broken)
    trainer.panel.button.click()
    finish(trainer.panel)
    assert "out of cheese" in trainer.panel.view.error.text()
    assert trainer.panel.button.text() == "Train"
    assert trainer.panel.button.isEnabled()


def check_continued(trainer):
    """The second training is never worse than the first, and its curves go on where that ended."""
    again = read_card(trainer.model)
    assert (again.steps, again.parent_steps) == (20, 10)
    assert again.scores["hold_out_dice"] >= again.parent_dice
    curves = trainer.panel.view.curves
    assert [step for step, _ in curves.dice] == [5, 10, 10, 15, 20]  # the earlier run, its model here, this run
    assert min(curves.loss)[0] < 10 < max(curves.loss)[0]


@pytest.mark.slow
def test_train_continue_segment_and_correct(qtbot, trainer, painted_viewer, finish):
    segmenter = SegmentWidget(painted_viewer)
    qtbot.addWidget(segmenter)
    painted_viewer.layers["cells"].scale = painted_viewer.layers["strokes"].scale = (0.5, 0.25)
    seen = []
    trainer.panel.task.event_received.connect(seen.append)
    assert not trainer.resume.isEnabled()
    trainer.panel.button.click()
    assert trainer.panel.button.text() == "Stop"
    finish(trainer.panel)
    assert trainer.panel.view.error.text() == ""
    assert {StepDone, EpochDone} <= {type(event) for event in seen}
    assert trainer.panel.view.curves.points[1] == 2
    first = trainer.model
    assert read_card(first).steps == 10
    assert read_card(first).spacing == (1.0, 0.5, 0.25)
    assert segmenter.model.path == first
    assert trainer.panel.button.text() == "Train"
    assert trainer.resume.isEnabled()
    trainer.resume.click()
    finish(trainer.panel)
    assert trainer.model != first
    assert runs.read(trainer.panel.task.folder).start_from == first
    check_continued(trainer)
    assert segmenter.model.path == trainer.model
    segmenter.panel.button.click()
    finish(segmenter.panel)
    layer = painted_viewer.layers["cells segmented"]
    assert layer.editable
    assert layer.data.shape == (160, 192)
    assert np.allclose(layer.scale, (0.5, 0.25))
    assert layer.metadata["napari-unetvnet"]["model"] == str(trainer.model)
    layer.data[:] = 5  # the user may correct it
    segmenter.panel.button.click()
    finish(segmenter.panel)
    assert (layer.data == 5).all()
    assert sum("cells segmented" in each.name for each in painted_viewer.layers) == 2


@pytest.mark.slow
def test_stop_keeps_the_best(qtbot, trainer, finish):
    trainer.budget.choose(100_000, "steps")
    trainer.panel.button.click()
    qtbot.waitUntil(lambda: trainer.panel.view.curves.points[1] >= 2, timeout=60_000)
    trainer.panel.button.click()
    assert trainer.panel.button.text() == "Stopping ..."
    finish(trainer.panel, 30)
    assert "Stopped after" in trainer.panel.view.status.text()
    assert trainer.model.is_file()
    assert 10 <= read_card(trainer.model).steps < 100_000
    assert trainer.resume.isEnabled()


@pytest.mark.slow
def test_a_killed_child_is_told_and_the_buttons_come_back(qtbot, trainer, finish):
    trainer.budget.choose(100_000, "steps")
    trainer.panel.button.click()
    qtbot.waitUntil(lambda: trainer.panel.view.curves.points[0] >= 1, timeout=60_000)
    os.kill(trainer.panel.task.process_id, signal.SIGKILL)
    finish(trainer.panel, 10)
    said = trainer.panel.view.error.text()
    assert "killed (signal 9)" in said
    assert str(trainer.panel.task.folder / "log.txt") in said
    assert trainer.panel.button.text() == "Train"
    assert trainer.panel.button.isEnabled()


@pytest.mark.slow
def test_what_the_child_refuses_is_shown(trainer, painted_viewer, finish):
    painted_viewer.layers["strokes"].data[painted_viewer.layers["strokes"].data == 1] = 2
    trainer.panel.button.click()
    finish(trainer.panel)
    assert "background value 1 is not painted" in trainer.panel.view.error.text().lower()
    assert trainer.panel.button.isEnabled()
    assert not trainer.resume.isEnabled()


def test_a_stop_while_inputs_are_written_starts_nothing(qtbot, trainer, finish, no_child, monkeypatch, runs_folder):
    def slow(_taken, _folder, cancelled):
        cancelled.wait(10)

    monkeypatch.setattr("napari_unetvnet.widgets.layers.write", slow)
    trainer.panel.button.click()
    qtbot.wait(150)
    assert trainer.panel.task.state == "preparing"
    trainer.panel.button.click()
    finish(trainer.panel, 10)
    assert not no_child
    assert not list(runs_folder.iterdir())
    assert trainer.panel.button.isEnabled()


def test_a_child_that_does_not_stop_can_be_ended(qtbot, trainer, finish, monkeypatch):
    def start(folder):
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])

    monkeypatch.setattr(task.runs, "start", start)
    trainer.panel._kill_timer.setInterval(100)
    trainer.panel.button.click()
    qtbot.waitUntil(lambda: trainer.panel.task.state == "running")
    trainer.panel.button.click()
    qtbot.waitUntil(lambda: trainer.panel.button.text() == "Stop now")
    trainer.panel.button.click()
    finish(trainer.panel, 10)
    assert trainer.panel.button.text() == "Train"


def test_a_closed_widget_is_followed_by_the_next_one(qtbot, painted_viewer, trainer, monkeypatch):
    from napari_unetvnet.widgets.train import TrainWidget

    monkeypatch.setattr("napari_unetvnet.widgets.layers.write", lambda taken, folder, cancelled: cancelled.wait(10))
    trainer.panel.button.click()
    trainer.close()
    again = TrainWidget(painted_viewer)
    qtbot.addWidget(again)
    assert again.panel.task is trainer.panel.task
    assert again.panel.button.text() == "Stop"


def test_the_job_says_which_objects_are_wanted(segmenter, no_child, finish):
    fields = segmenter.settings.fields
    fields["objects"].widget.value = "watershed"
    fields["min_size"].widget.value = "1=50 2=2.5"
    fields["fill_holes"].widget.value = "planes"
    fields["split_depth"].widget.value = "1.5"
    segmenter.panel.button.click()
    finish(segmenter.panel)
    made = runs.read(no_child[0])
    assert (made.objects, made.split_depth, made.keep_largest) == ("watershed", 1.5, ())
    assert (made.min_size, made.fill_holes) == (((1, 50.0), (2, 2.5)), ((0, "planes"),))


def test_the_wrong_number_of_channels_is_refused_at_once(segmenter, painted_viewer, no_child):
    second = painted_viewer.add_image(painted_viewer.layers["cells"].data, name="second")
    segmenter.image.tick(second)
    segmenter.panel.button.click()
    assert "expects images with 1 channel(s), cells has 2" in segmenter.panel.view.error.text()
    assert not no_child


def test_without_a_model_nothing_is_started(qtbot, painted_viewer, monkeypatch):
    monkeypatch.setattr("napari_unetvnet.runs.models.shipped_models", dict)
    widget = SegmentWidget(painted_viewer)
    qtbot.addWidget(widget)
    widget.panel.button.click()
    assert "no model yet" in widget.panel.view.error.text()


def test_napari_is_told_of_a_task_and_can_stop_it(trainer, no_child, finish, monkeypatch):
    from napari.utils.task_status import TaskStatusManager

    manager = TaskStatusManager()

    class Window:
        _register_task_status = staticmethod(manager.register_task_status)
        _update_task_status = staticmethod(manager.update_task_status)

    trainer.panel.task._window = Window
    monkeypatch.setattr("napari_unetvnet.widgets.layers.write", lambda taken, folder, cancelled: cancelled.wait(10))
    trainer.panel.button.click()
    assert manager.is_busy()
    assert "cells-unet_padding" in manager.get_status()[0]
    manager.cancel_all()  # what closing the window does
    finish(trainer.panel, 10)
    assert not manager.is_busy()
    assert [item.state()[2] for item in manager._tasks.values()] == [Status.COMPLETED]
    manager.cancel_all()  # napari cancels finished tasks too


@pytest.mark.slow
@pytest.mark.alone
def test_the_viewer_does_not_pause_while_a_run_is_on(qtbot, trainer, painted_viewer, finish):
    """A 10 ms heartbeat, from pressing the button to the end of the run; one of three at most is enough.

    A pause that the widget makes comes in every run, one that other work on the machine makes does not.
    """
    pauses, last = [], [time.monotonic()]

    def beat():
        now = time.monotonic()
        pauses.append(now - last[0])
        last[0] = now

    heart = QTimer()
    heart.setInterval(10)
    heart.timeout.connect(beat)
    trainer.show()
    qtbot.waitExposed(trainer)
    qtbot.wait(200)
    trainer.budget.choose(30, "steps")
    longest = []
    for _ in range(3):
        pauses.clear()
        last[0] = time.monotonic()
        heart.start()
        trainer.panel.button.click()
        finish(trainer.panel)
        heart.stop()
        assert trainer.panel.view.error.text() == ""
        assert len(pauses) > 50
        longest.append(max(pauses))
        if longest[-1] < 0.1:
            return
    pytest.fail(f"The viewer pauses for {min(longest):.2f} s.")


def run_by_hand(folder):
    """In a process of its own, as the viewer does: napari's colormaps change the number of threads of this one."""
    subprocess.run([sys.executable, "-m", "napari_unetvnet", "run", str(folder)], check=True, capture_output=True)


@pytest.mark.slow
def test_a_run_of_the_viewer_is_a_run_of_the_command_line(trainer, painted_viewer, qtbot, finish, tmp_path):
    """The same arrays, saved by hand, and the same settings give the same model and the same labels, to the byte."""
    trainer.panel.button.click()
    finish(trainer.panel)
    folder = tmp_path / "by_hand"
    folder.mkdir()
    np.save(folder / "cells.npy", painted_viewer.layers["cells"].data)
    np.save(folder / "label.npy", painted_viewer.layers["strokes"].data)
    files = {"image": (str(folder / "cells.npy"),), "label": (str(folder / "label.npy"),)}
    made = runs.read(trainer.panel.task.folder)
    runs.create(folder, made.model_copy(update=files))
    run_by_hand(folder)
    assert (folder / "model.safetensors").read_bytes() == trainer.model.read_bytes()

    segmenter = SegmentWidget(painted_viewer)
    qtbot.addWidget(segmenter)
    segmenter.model.choose(trainer.model)
    segmenter.settings.fields["device"].widget.value = "cpu"
    segmenter.panel.button.click()
    finish(segmenter.panel)
    again = tmp_path / "segment_by_hand"
    again.mkdir()
    files = {"image": str(folder / "cells.npy"), "model": str(folder / "model.safetensors")}
    runs.create(again, SegmentJob(**files, device="cpu"))
    run_by_hand(again)
    labels = np.load(again / "labels.npy")
    assert np.array_equal(labels[0], painted_viewer.layers["cells segmented"].data)


def test_a_model_picker_that_is_gone_hears_no_news(qtbot):
    picker = ModelPicker()
    picker.deleteLater()
    qtbot.wait(50)
    MODEL_SIGNALS.model_saved.emit("")  # raises if a deleted box were told


def test_the_region_of_another_model_reaches_the_job(segmenter, tmp_path):
    fields = segmenter.settings.fields
    fields["region_model"].widget.value, fields["region_class"].widget.value = "coarse.safetensors", "1 nucleus"
    job = segmenter._start()[1](tmp_path, threading.Event())
    assert (job.region_model, job.region_class) == ("coarse.safetensors", ("1", "nucleus"))
