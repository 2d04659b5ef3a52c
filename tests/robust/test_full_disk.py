"""A full disk is told with the file and the room that it takes, and after room was made the work goes on."""

from __future__ import annotations

import contextlib
import re
import resource
import threading

import numpy as np
import pytest
from disks import grow, small_disk
from napari.components import ViewerModel
from napari.layers import Image, Labels
from work import content, follow, in_child, segmentation, training

from napari_unetvnet import runs
from napari_unetvnet.cli.main import main
from napari_unetvnet.errors import FileProblem
from napari_unetvnet.images.arrays import FileArray, new_file
from napari_unetvnet.images.room import reserve
from napari_unetvnet.runs.folder import EVENTS, LABELS, LOG, STATE
from napari_unetvnet.widgets.layers import snapshot, write
from napari_unetvnet.widgets.task import Task

pytestmark = pytest.mark.slow

BYTES = 6 * 64 * 64
"""Of the labels of a segmentation: 24 KiB."""


def said(status, value):
    """Give the sentence of the error that ended the work of a child."""
    assert status == 1, f"ended by {status}"
    kind, text, trace = value
    assert kind == "FileProblem", trace
    return text


def painted():
    labels = np.zeros((48, 64, 64), np.uint8)
    labels[5, 8:20, 8:20] = 1
    return Image(np.ones((48, 64, 64), np.uint8), name="cells"), Labels(labels, name="strokes")


@pytest.mark.parametrize("kibibytes", [60, 190, 250])
def test_layers_that_do_not_fit_on_the_disk_are_told_and_stay(tmp_path, kibibytes):
    image, labels = painted()
    with small_disk(tmp_path / "small", kibibytes) as folder:
        status, value = in_child(lambda: write(snapshot([image], [labels]), folder, threading.Event()))
        name = "labels" if kibibytes < 192 else "image"
        told = (
            rf"small/inputs/{name}.*\.npy cannot be written \(No space left.*takes up to 192 KiB, and \d+ KiB are free"
        )
        assert re.search(told, said(status, value))
        assert labels.data.sum() == 144
        grow(folder, 600)
        write(snapshot([image], [labels]), folder, threading.Event())
        assert sum(np.load(path).sum() for path in folder.rglob("labels/*.npy")) == 144


@pytest.mark.parametrize("kibibytes", [0, 4, 8, 16, 24, 28, 32, 36])
def test_a_run_folder_on_a_full_disk(files, tmp_path, kibibytes, capfd):
    """Whatever the room: a sentence and no signal, and with more room the same labels as ever."""
    output = tmp_path / "out.npy"
    whole = segmentation(files, tmp_path / "whole", output=str(output))
    assert follow(whole).state == "done"
    reference = content(output)
    output.unlink()
    with small_disk(tmp_path / "small", max(kibibytes, 4)) as disk:
        if not kibibytes:
            (disk / "full").write_bytes(bytes(4096))
        options = ["--model", files / "model.safetensors", "--device", "cpu", "--output", output, "--run", disk]
        options += ["--precision", "fp32", "--tile", 1, 32, 32, "--batch", 2]
        arguments = ["segment", str(files / "image.npy"), *map(str, options)]
        status, value = in_child(lambda: main(arguments))
        errors = capfd.readouterr().err
        assert (status, value) in {(0, 2), (0, 0)}, errors
        assert "Traceback" not in errors
        if value == 2:
            assert "No space left" in errors or "are free there" in errors, errors
            assert not output.exists()
            grow(disk, 200)
            left = [path for path in disk.iterdir() if path.is_dir()]
            if left:
                assert main(["run", str(left[0]), "--resume"]) == 0
            else:
                assert main(arguments) == 0
    assert content(output) == reference


@pytest.mark.parametrize("name", ["o.tif", "o.npy", "o.nii", "o.nii.gz", "o.zarr", "o.nrrd", "o.mha", "o.png"])
def test_the_folder_of_the_output_on_a_full_disk(files, tmp_path, name):
    changes = {}
    if name in {"o.nrrd", "o.mha"}:
        pytest.importorskip("SimpleITK")
    if name == "o.png":
        np.save(tmp_path / "plane.npy", np.load(files / "image.npy")[0])
        changes = {"image": str(tmp_path / "plane.npy")}
    whole = segmentation(files, tmp_path / "whole", output=str(tmp_path / name), **changes)
    assert follow(whole).state == "done"
    reference = content(tmp_path / name)
    with small_disk(tmp_path / "small", 20) as disk:
        for room in (4, 0):
            (disk / "other").write_bytes(bytes(20 * 1024 - 1024 * room))
            if name in {"o.png", "o.nrrd", "o.mha"} and room:  # compressed, they take less
                continue
            folder = segmentation(files, tmp_path / f"run{room}", output=str(disk / name), **changes)
            with pytest.raises(FileProblem, match=rf"(small/{name}|small,) .*(No space left|are free there)"):
                follow(folder)
            names = {path.name for path in disk.iterdir()}
            assert all(each == "other" or each.startswith("part-") for each in names), names
        grow(disk, 400)
        resumed = follow(folder, resume=(folder / EVENTS).exists())
        assert resumed.state == "done"
        assert content(disk / name) == reference
        assert {path.name for path in disk.iterdir()} == {"other", name}


@pytest.mark.parametrize("kibibytes", [4, 12, 20, 28, 40])
def test_a_training_on_a_full_disk(files, tmp_path, kibibytes):
    whole = training(files, tmp_path / "whole", output=str(tmp_path / "a.safetensors"))
    assert follow(whole).state == "done"
    with small_disk(tmp_path / "small", 600) as disk:
        folder = training(files, disk / "run", output=str(tmp_path / "b.safetensors"))
        grow(disk, kibibytes)
        with pytest.raises(FileProblem, match=r"small/run/.* cannot be written \(No space left.*\d+ \w+ are free in"):
            follow(folder)
        grow(disk, 600)
        assert follow(folder, resume=True).state == "done"
        assert (folder / STATE).exists()
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_the_last_event_of_a_full_disk_is_whole_or_missing(files, tmp_path):
    """A line that is cut off would hide the next one."""
    with small_disk(tmp_path / "small", 200) as disk:
        folder = segmentation(files, disk / "run", output=str(tmp_path / "o.npy"))
        assert follow(folder, stop_at=2).state == "stopped"
        (disk / "other").write_bytes(bytes(1))
        while (disk / "other").stat().st_size < 200 * 1024:
            try:
                with (disk / "other").open("ab") as other:
                    other.write(bytes(1024))
            except OSError:
                break
        before = (folder / EVENTS).read_bytes()
        try:
            follow(folder, resume=True)
        except FileProblem:
            assert (folder / EVENTS).read_bytes().startswith(before)
        assert (folder / EVENTS).read_bytes().endswith(b"\n")
        runs.follow(folder)
        (disk / "other").unlink()
        assert follow(folder, resume=True).state == "done"


def test_a_sparse_copy_of_a_run_folder_gets_its_room_back(files, tmp_path):
    """Tools that copy folders make holes of zeros, which a memory map would have to fill."""
    with small_disk(tmp_path / "small", 64) as disk:
        new_file(disk / LABELS, (BYTES,), np.uint8)
        with (disk / LABELS).open("r+b") as file:
            size = file.seek(0, 2)
            head = (disk / LABELS).read_bytes()[:128]
            file.truncate(0)
            file.write(head)
            file.truncate(size)
        (disk / "other").write_bytes(bytes(52 * 1024))
        status, value = in_child(lambda: FileArray.to_fill(disk / LABELS))
        assert "labels.npy cannot be written (No space left" in said(status, value)


@pytest.mark.parametrize("fallback", [False, True])
def test_room_is_set_aside_also_where_the_system_has_no_call_for_it(tmp_path, monkeypatch, fallback):
    if fallback:
        monkeypatch.delattr("os.posix_fallocate", raising=False)
    with (tmp_path / "a").open("w+b") as file:
        file.write(b"kept")
        reserve(file, 3 << 20)
    facts = (tmp_path / "a").stat()
    assert facts.st_size == 3 << 20
    assert facts.st_blocks * 512 >= 3 << 20
    assert (tmp_path / "a").read_bytes().strip(b"\0") == b"kept"


@pytest.mark.parametrize("fallback", [False, True])
def test_a_limit_on_the_size_of_a_file_is_told(tmp_path, monkeypatch, fallback):
    """The same where no small disk can be mounted."""
    if fallback:
        monkeypatch.delattr("os.posix_fallocate", raising=False)

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
        new_file(tmp_path / "a.npy", (1 << 17,), np.uint8)

    assert re.match(r".*a\.npy cannot be written \(File too large\): it takes up to 128 KiB", said(*in_child(limited)))
    assert not (tmp_path / "a.npy").exists()


def test_the_viewer_tells_a_run_that_could_not_say_that_the_disk_is_full(files, tmp_path, qapp):
    """The run cannot write its last event, nor its log."""
    with small_disk(tmp_path / "small", 200) as disk:
        folder = segmentation(files, disk / "run", output=str(tmp_path / "o.npy"))
        (folder / LOG).touch()
        for size in (1024, 1):
            with contextlib.suppress(OSError), (disk / "other").open("ab", buffering=0) as other:
                while other.write(bytes(size)):
                    pass
        child = runs.start(folder)
        assert child.wait(60) == 2
        task = Task("segment", ViewerModel())
        task.folder, task._child = folder, child
        assert f"perhaps the room on the disk of {folder} ran out." in task._error_lines()[0]
