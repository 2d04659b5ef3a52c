"""A table of commands, names of one file and kinds of output: no file that is there is lost."""

import os
import shutil
import sys

import h5py
import numpy as np
import pytest
import tifffile

from napari_unetvnet.cli.main import main
from napari_unetvnet.images.geometry import Geometry
from napari_unetvnet.images.io import write_labels
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.images.written import delivering
from napari_unetvnet.model.card import ModelCard
from napari_unetvnet.model.model import build_model, save_model
from napari_unetvnet.settings import SegmentSettings

KINDS = ("nii.gz", "tif", "png", "zarr", "npy", "h5", "safetensors", "csv")
IMAGES = KINDS[:6]
LABELS = np.zeros((1, 20, 24), np.uint8)
LABELS[0, 3:9, 3:9] = 1


def _other(path, folder):
    return folder / f"other{path.name[path.name.index('.') :]}"


def _link(path, folder):
    _other(path, folder).symlink_to(path)
    return str(_other(path, folder))


def _hard(path, folder):
    if path.is_dir():
        return None
    os.link(path, _other(path, folder))
    return str(_other(path, folder))


def _folder_link(path, folder):
    (folder / "there").symlink_to(path.parent)
    return str(folder / "there" / path.name)


def _case(path, folder):
    """A second name of the file in other letter case, as a file system that ignores it would find it."""
    if path.is_dir():
        return None
    os.link(path, path.with_name(path.name.replace("x.", "X.")))
    return str(path.with_name(path.name.replace("x.", "X.")))


def _from_elsewhere(path, folder):
    os.chdir(folder)
    return os.path.relpath(path, folder)


NAMES = {
    "plain": lambda path, folder: path.name,
    "./": lambda path, folder: f"./{path.name}",
    "absolute": lambda path, folder: str(path),
    "..": lambda path, folder: f"../{path.parent.name}/{path.name}",
    "symbolic link": _link,
    "hard link": _hard,
    "link to the folder": _folder_link,
    "other letter case": _case,
    "~": lambda path, folder: f"~/{path.name}",
    "another folder": _from_elsewhere,
}
TRAIN = ["--image", "images", "--label", "labels", "--steps", "1", "--device", "cpu"]
COMMANDS = {
    "segment": lambda image, output: ["segment", image, "--model", "m.safetensors", "--output", output],
    "clean": lambda image, output: ["clean", image, "--min-size", "2", "--output", output],
    "inspect": lambda image, output: ["inspect", image, "--model", "m.safetensors", "--output", output],
    "augment": lambda image, output: ["augment", "--image", image, "--label", "labels/a.tif", "--steps", "1",
                                      "--patches", output],
    "train": lambda image, output: ["train", *TRAIN, "--output", output],
    "sweep": lambda image, output: ["sweep", *TRAIN, "--run", "runs", "--output", output],
    "convert": lambda image, output: ["convert", "subjects", "--modalities", "x", "--output", output],
}  # fmt: skip


def make(kind, path):
    """Write a file of a kind as this program does, so that only what it is used for keeps it."""
    if kind in ("zarr", "nii.gz", "tif", "png", "npy"):
        write_labels(path, LABELS, Volume(LABELS[None], Geometry((1, 1, 1), "mm", np.eye(4))))
        return
    with delivering(path) as (part,):
        if kind == "h5":
            with h5py.File(part, "w") as file:
                file["image"] = LABELS
        elif kind == "csv":
            part.write_text("image,label\nimages/a.tif,labels/a.tif\n")
        else:
            shutil.copyfile("m.safetensors", part)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    card = ModelCard(network="unet_padding", option={"width": 2, "depth": 2}, head="multiclass", view="2d",
                     values=(0, 1), patch=(1, 16, 16), normalise="none")  # fmt: skip
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    save_model(path, build_model(card, SegmentSettings(device="cpu")).network.state_dict(), card)
    return path


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and not path.is_symlink()}


def lost(command, kind, name, home, model, monkeypatch):
    """Run a command whose output is a file that is there; say what was lost of all that was there."""
    work, away = home / "work", home / "away"
    for folder in (work / "images", work / "labels", work / "subjects" / "p1", away):
        folder.mkdir(parents=True)
    monkeypatch.chdir(work)
    shutil.copyfile(model, "m.safetensors")
    for file in ("images/a.tif", "labels/a.tif"):
        tifffile.imwrite(file, LABELS)
    path = (work / "subjects/p1" if command == "convert" else work) / f"x.{kind}"
    if kind not in IMAGES:
        tifffile.imwrite("subjects/p1/x.tif", LABELS)
    make(kind, path)
    monkeypatch.chdir(path.parent)
    monkeypatch.setenv("HOME", str(path.parent))
    before = contents(home)
    output = NAMES[name](path, away)
    if output is None:
        return "-"
    words = COMMANDS[command](str(path) if kind in IMAGES else str(work / "images/a.tif"), output)
    words = [str(work / word) if (work / word).exists() and not word.startswith((".", "~")) and word != output else word
             for word in words]  # fmt: skip
    status = main(words)
    changed = [file.name for file, data in before.items() if not file.is_file() or file.read_bytes() != data]
    return "lost" if changed else "kept" if status == 2 else f"kept ({status})"


@pytest.mark.slow
def test_no_file_is_lost_under_any_of_its_names(tmp_path, model, monkeypatch, capsys):
    table = {}
    for command in COMMANDS:
        for kind in KINDS:
            if (command, kind) in {("train", "safetensors"), ("sweep", "safetensors")}:
                continue  # a model takes the place of a worse one, which the run folder keeps: see test_delivery
            for name in NAMES:
                home = tmp_path / f"{len(table)}"
                home.mkdir()
                table[command, kind, name] = lost(command, kind, name, home, model, monkeypatch)
    capsys.readouterr()
    with capsys.disabled():
        for command in COMMANDS:
            for kind in KINDS:
                cells = [table.get((command, kind, name), "see above") for name in NAMES]
                sys.stdout.write(" ".join([f"{command:8} {kind:12}", *(f"{cell:9}" for cell in cells)]) + "\n")
    assert [key for key, cell in table.items() if cell == "lost"] == []
