"""Odd names and odd surroundings: each gives the right work, or one sentence before any work."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import numpy as np
import pytest
import tifffile
from filelock import FileLock

from napari_unetvnet import runs
from napari_unetvnet.cli.main import main
from napari_unetvnet.errors import FileProblem, SettingsProblem
from napari_unetvnet.images.io import find_pairs, read_pairs_csv, read_volume
from napari_unetvnet.images.sources import joined, parts_of, paths_of
from napari_unetvnet.settings import SegmentJob, checked


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("a.tif", np.arange(48, dtype=np.uint8).reshape(6, 8))
    (tmp_path / "m.safetensors").touch()
    return tmp_path


def refused(capsys, *arguments):
    """The one line that a command says; it made no run and no file."""
    before = sorted(path.name for path in Path.cwd().iterdir())
    assert main(list(arguments)) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert sorted(path.name for path in Path.cwd().iterdir()) == before
    return error


def segment(image="a.tif", output="o.tif", *more):
    return ["segment", image, "--model", "m.safetensors", "--output", output, *more]


def test_a_bar_in_a_name_is_doubled(folder, capsys):
    """A single one separates channel files."""
    assert parts_of("a||b.tif|c.tif") == ["a||b.tif", "c.tif"]
    assert [str(path) for path in paths_of("a||b.tif | c|||d||")] == ["a|b.tif", "c|", "d|"]
    assert [str(path) for path in paths_of(joined(["|", "a||b", "c"]))] == ["|", "a||b", "c"]
    (folder / "x|y").mkdir()
    for name in ("i|1.tif", "i|2.tif"):
        tifffile.imwrite(folder / "x|y" / name, np.full((6, 8), int(name[2]), np.uint8))
    one, two = "x||y/i||1.tif", "x||y/i||2.tif"
    assert read_volume(one).data[0, 0, 0, 0] == 1
    assert read_volume(f"{one}|{two}").data[:, 0, 0, 0].tolist() == [1, 2]
    assert "write ||" in refused(capsys, *segment("x|y/i|1.tif"))
    (folder / "pairs.csv").write_text(f"image,label\n{one},{two}\n")
    (pair,) = read_pairs_csv("pairs.csv")
    assert [paths_of(source) for source in (pair.image, pair.label)] == [
        [folder / "x|y" / "i|1.tif"], [folder / "x|y" / "i|2.tif"],
    ]  # fmt: skip
    (folder / "l|s").mkdir()
    for name in ("i|1.tif", "i|2.tif"):
        (folder / "l|s" / name).touch()
    listed = find_pairs(["x||y"], ["l||s"])
    assert [paths_of(image)[0].name for image, _ in listed] == ["i|1.tif", "i|2.tif"]
    job = checked(SegmentJob, runs.absolute_paths({"image": f"{one}|{two}", "model": "m"}, folder))
    assert paths_of(job.image) == [folder / "x|y" / "i|1.tif", folder / "x|y" / "i|2.tif"]


def test_bytes_that_are_no_utf_8_are_one_sentence(folder, capsys):
    os.link("a.tif", b"\xff.tif")
    error = refused(capsys, *segment("\udcff.tif"))
    assert "holds bytes that are no UTF-8; rename the file" in error
    error.encode("utf-8")  # it can be printed


def test_a_nul_and_a_name_that_is_too_long_are_one_sentence(folder, capsys):
    for arguments in (segment("a\0.tif"), segment(output="o\0.tif"), ["runs", "show", "\0"], ["run", "a\0b"]):
        assert "holds a NUL character" in refused(capsys, *arguments)
    with pytest.raises(SettingsProblem, match="holds a NUL character"):
        checked(runs.folder.TrainJob, {"pairs": "a\0"})
    for arguments in (segment(output="x" * 300 + ".tif"), segment("x" * 300 + ".tif"), ["run", "y" * 300]):
        error = refused(capsys, *arguments)
        assert len(error.splitlines()) == 1


@pytest.mark.parametrize("library", ["raises", "gives a relative path"])
def test_a_user_without_a_home_is_told_what_to_set(folder, capsys, monkeypatch, library):
    """In a container with an id that no user has."""

    def nobody(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    for name in ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "NAPARI_UNETVNET_RUNS", "NAPARI_UNETVNET_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    if library == "gives a relative path":
        monkeypatch.setattr("platformdirs.user_data_path", lambda *_, **__: runs.folder.Path("~/.local"))
    error = refused(capsys, "models")
    assert error == "This user has no home folder; set HOME, or NAPARI_UNETVNET_RUNS, to a folder.\n"
    monkeypatch.setenv("NAPARI_UNETVNET_RUNS", str(folder / "runs"))
    assert main(["models"]) == 0


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_folder_of_someone_else_is_one_sentence(folder, monkeypatch, resume):
    (folder / "run").mkdir()
    runs.create(folder / "run", checked(SegmentJob, {"image": "a.tif", "model": "m.safetensors"}))

    def forbidden(self, *_, **__):
        raise PermissionError(13, "Permission denied", self.lock_file)

    monkeypatch.setattr(FileLock, "acquire", forbidden)
    with pytest.raises(FileProblem, match="Permission denied"):
        list(runs.run(folder / "run", resume=resume))


def test_more_hdf5_images_than_file_handles_are_read_and_files_are_closed(folder):
    """MacOS gives 256 handles to a process; of each file only what is being read is open."""
    import gc
    import resource

    import h5py

    gc.collect()
    before, names = resource.getrlimit(resource.RLIMIT_NOFILE), [f"{k}.h5" for k in range(70)]
    for k, name in enumerate(names):
        with h5py.File(name, "w") as file:
            file.create_dataset("image", data=np.full((4, 6, 8), k, np.uint8), compression="gzip" if k % 2 else None)
    used = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 30, before[1]))
    try:
        volumes = [read_volume(name, axes="zyx") for name in names]
        for _ in range(2):
            assert [int(volume.data[0, 3, 0, 0]) for volume in volumes] == list(range(70))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    del volumes
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) <= used
    with h5py.File(names[-1], "w") as file:  # not open any more
        file.create_dataset("image", data=np.zeros((4, 6, 8), np.uint8))
    assert read_volume(names[-1], axes="zyx").data[0, 0, 0, 0] == 0


@pytest.mark.slow
def test_a_clock_that_goes_backwards_changes_no_training(folder, monkeypatch):
    """Steps and budgets are timed by a clock that only goes forward."""
    import time

    image = np.random.default_rng(0).random((32, 32)).astype(np.float32)
    np.save("image.npy", image)
    np.save("labels.npy", (image > 0.5).astype(np.uint8))
    now = [2e9]

    def backwards():
        now[0] -= 3600
        return now[0]

    monkeypatch.setattr(time, "time", backwards)
    values = ["--unlabelled", "background", "--network", "unet_padding", "--option", "width=2", "--option", "depth=2"]
    values += ["--patch", "1", "16", "16", "--batch", "2", "--device", "cpu", "--start-from", "none"]
    values += ["--minutes", "0.02", "--label-checks", "warn", "--output", "m2.safetensors"]
    begun = time.monotonic()
    assert main(["train", "--image", "image.npy", "--label", "labels.npy", *values]) == 0
    assert time.monotonic() - begun < 60
