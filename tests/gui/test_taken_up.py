"""Runs that were killed, stopped or removed, and runs of other viewers: what is said, shown, and taken up again."""

from __future__ import annotations

import shutil
import time

import numpy as np
import pytest
from filelock import FileLock
from napari.components import ViewerModel

from napari_unetvnet import runs
from napari_unetvnet.events import EpochDone, RunFinished, SlabDone, StepDone, to_line
from napari_unetvnet.widgets import task
from napari_unetvnet.widgets.segment import SegmentWidget

pytestmark = pytest.mark.timeout(60)


class Child:
    """A child process that has written events and files, and is killed when ``ended`` is set."""

    pid = 0

    def __init__(self, code=-9):
        self.returncode, self.ended = code, False

    def poll(self):
        return self.returncode if self.ended else None

    def kill(self):
        self.ended = True


@pytest.fixture
def children(monkeypatch):
    started = []

    def start(folder, *, resume=False):
        started.append((folder, resume, Child()))
        return started[-1][2]

    monkeypatch.setattr(task.runs, "start", start)
    yield started
    for *_, child in started:
        child.ended = True


@pytest.fixture
def stack_viewer(viewer):
    viewer.add_image(np.random.default_rng(0).random((6, 32, 40)).astype(np.float32), name="stack")
    return viewer


@pytest.fixture
def segmenter(qtbot, stack_viewer, tiny_model):
    return segmenting(qtbot, stack_viewer, tiny_model)


def segmenting(qtbot, viewer, model):
    widget = SegmentWidget(viewer)
    qtbot.addWidget(widget)
    widget.model.choose(model)
    widget.settings.fields["device"].widget.value = "cpu"
    return widget


def say(folder, *events):
    with (folder / runs.EVENTS).open("a") as file:
        file.write("".join(to_line(event) + "\n" for event in events))


def begun(qtbot, widget, children):
    """Press the button, and write two of six planes; the run folder."""
    widget.panel.button.click()
    qtbot.waitUntil(lambda: widget.panel.task.state == "running")
    folder = children[-1][0]
    labels = np.zeros((6, 32, 40), np.uint8)
    labels[:2] = 2
    np.save(folder / "labels.npy", labels)
    say(folder, SlabDone(0, 2, 6))
    qtbot.waitUntil(lambda: widget.result is not None and bool(widget.result.layers))
    return folder


def names(viewer):
    return [layer.name for layer in viewer.layers]


def test_a_killed_segmentation_leaves_no_layer_that_looks_like_a_result(qtbot, segmenter, children, finish):
    viewer = segmenter.panel.task.viewer
    folder = begun(qtbot, segmenter, children)
    children[-1][2].ended = True
    finish(segmenter.panel, 10)
    assert names(viewer) == ["stack", "stack segmented (unfinished: 2 of 6 planes)"]
    layer = viewer.layers[-1]
    assert layer.metadata["napari-unetvnet"]["unfinished"] == "unfinished: 2 of 6 planes"
    assert layer.editable
    said = segmenter.panel.view.error.text()
    assert f"napari-unetvnet run {folder} --resume" in said.replace("\n", " ")
    assert not segmenter.panel.again.isHidden()

    segmenter.panel.again.click()
    assert children[-1][:2] == (folder, True)
    assert segmenter.panel.again.isHidden()
    assert segmenter.panel.view.error.text() == ""
    np.save(folder / "labels.npy", np.full((6, 32, 40), 2, np.uint8))
    say(folder, SlabDone(2, 6, 6), RunFinished("done"))
    children[-1][2].ended = True
    finish(segmenter.panel, 10)
    assert names(viewer)[2:] == ["stack segmented"]
    assert (viewer.layers[-1].data == 2).all()
    assert "unfinished" not in viewer.layers[-1].metadata["napari-unetvnet"]
    assert segmenter.panel.again.isHidden()


def test_a_stopped_segmentation_says_how_far_it_is_and_can_be_resumed(qtbot, segmenter, children, finish):
    folder = begun(qtbot, segmenter, children)
    say(folder, RunFinished("stopped"))
    children[-1][2].ended = True
    finish(segmenter.panel, 10)
    assert names(segmenter.panel.task.viewer)[1] == "stack segmented (unfinished: 2 of 6 planes)"
    assert not segmenter.panel.again.isHidden()


def test_a_run_folder_that_is_removed_is_the_reason_that_is_told(qtbot, segmenter, children, finish):
    folder = begun(qtbot, segmenter, children)
    shutil.rmtree(folder)
    children[-1][2].returncode, children[-1][2].ended = 2, True
    finish(segmenter.panel, 10)
    assert segmenter.panel.view.error.text() == (
        f"The run folder {folder} was removed while the run was under way; its progress is lost."
    )
    layer = segmenter.panel.task.viewer.layers[-1]
    assert layer.editable
    assert (layer.data[:2] == 2).all()
    assert "unfinished" in layer.name
    assert segmenter.panel.again.isHidden()


def test_a_killed_training_can_be_continued_and_resumed(qtbot, trainer, children, finish, tiny_model):
    trainer.panel.button.click()
    qtbot.waitUntil(lambda: trainer.panel.task.state == "running")
    folder = children[-1][0]
    shutil.copy(tiny_model, folder / "model.safetensors")
    say(folder, StepDone(1, 9, 1, 0.5, 0.1, 1.0))
    children[-1][2].ended = True
    finish(trainer.panel, 10)
    assert trainer.resume.isEnabled()
    assert trainer.model == folder / "model.safetensors"
    assert not trainer.panel.again.isHidden()
    assert "--resume" in trainer.panel.view.error.text()
    trainer.panel.again.click()
    assert children[-1][:2] == (folder, True)
    assert trainer.panel.view.curves.points[0] == 1, "the steps before"
    trainer.panel.button.click()
    assert (folder / "stop").exists()


def test_a_run_of_another_viewer_goes_on_and_is_followed_and_stopped(qtbot, segmenter, children, finish, tiny_model):
    """The viewer that started it is gone: its process holds the lock, and another viewer shows its labels."""
    folder = begun(qtbot, segmenter, children)
    other = ViewerModel()
    other.add_image(np.zeros((6, 32, 40), np.float32), name="of the same size")
    widget = segmenting(qtbot, other, tiny_model)
    with FileLock(folder / ".lock"):
        widget.panel.follow(folder)
        assert widget.panel.task.state == "running"
        say(folder, SlabDone(2, 4, 6))
        qtbot.waitUntil(lambda: "stack segmented" in names(other))
        assert names(other)[1] == "stack", "the image of the run, not that of the same size"
        assert widget.panel.view.numbers.text() == "4 of 6 planes"
        widget.panel.button.click()
        assert (folder / "stop").exists()
        say(folder, RunFinished("stopped"))
    finish(widget.panel, 10)
    assert widget.panel.view.error.text() == ""
    assert names(other)[-1] == "stack segmented (unfinished: 4 of 6 planes)"
    widget.panel.follow(folder)
    assert "has ended" in widget.panel.view.error.text()


def test_a_followed_training_shows_its_curve_and_its_end_without_a_last_word(qtbot, trainer, runs_folder, finish):
    folder = runs_folder / "elsewhere"
    folder.mkdir(parents=True)
    (folder / "job.json").write_text('{"command": "train"}')
    say(folder, StepDone(1, 9, 1, 0.5, 0.1, 1.0), EpochDone(1, 1, 0.5, 0.7, 0.1, 1.0))
    with (folder / "events.jsonl").open("a") as file:
        file.write('{"event": "Ste')  # it is just being written
    with FileLock(folder / ".lock"):
        trainer.panel.follow(folder)
        assert trainer.panel.view.curves.points == (1, 1)
        with (folder / "events.jsonl").open("a") as file:
            file.write(to_line(StepDone(2, 9, 1, 0.4, 0.2, 0.9))[len('{"event": "Ste') :] + "\n")
        qtbot.waitUntil(lambda: trainer.panel.view.curves.points[0] == 2)
        time.sleep(0.1)
        assert trainer.panel.task.state == "running"
    finish(trainer.panel, 10)
    assert "The run ended without an error message" in trainer.panel.view.error.text()


def test_the_list_of_runs_offers_what_can_be_done(qtbot, segmenter, children, finish, runs_folder, monkeypatch):
    folder = begun(qtbot, segmenter, children)
    children[-1][2].ended = True
    finish(segmenter.panel, 10)
    listed, buttons = segmenter.panel.list, segmenter.panel.list.buttons
    listed.refresh()
    assert [listed.table.item(0, column).text() for column in range(2)] == [folder.name, "interrupted"]
    assert not any(button.isEnabled() for button in buttons.values())
    listed.table.selectRow(0)
    assert [name for name, button in buttons.items() if button.isEnabled()] == ["Resume", "Remove"]
    with FileLock(folder / ".lock"):
        listed.refresh()
        assert [name for name, button in buttons.items() if button.isEnabled()] == ["Follow", "Stop"]
        buttons["Stop"].click()
        assert (folder / "stop").exists()
        buttons["Follow"].click()
        assert segmenter.panel.task.state == "running"
        say(folder, RunFinished("stopped"))
    finish(segmenter.panel, 10)
    listed.refresh()
    buttons["Resume"].click()
    assert children[-1][:2] == (folder, True)
    children[-1][2].ended = True
    finish(segmenter.panel, 10)

    asked = []
    monkeypatch.setattr(listed, "asked", lambda run: asked.append(run.name) or len(asked) > 1)
    listed.refresh()
    buttons["Remove"].click()
    assert folder.exists()
    buttons["Remove"].click()
    assert not folder.exists()
    assert listed.table.rowCount() == 0


def test_the_limit_of_the_disk_is_set_in_the_panel(segmenter, runs_folder):
    listed = segmenter.panel.list
    listed.refresh()
    assert listed.limit.text() == ""
    listed.limit.setText("2 GiB")
    listed.limit.editingFinished.emit()
    assert (runs_folder / "preferences.json").exists()
    assert listed.limit.text() == "2.00GiB"
    listed.limit.setText("much")
    listed.limit.editingFinished.emit()
    assert "is no size" in listed.said.text()
    listed.limit.setText("")
    listed.limit.editingFinished.emit()
    assert listed.said.text() == "All runs keep 0 bytes, at most:"
