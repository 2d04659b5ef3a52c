"""No command loses a file: an output never replaces an input, whatever both are called."""

from __future__ import annotations

import itertools
import os

import numpy as np
import pytest
import tifffile

from napari_unetvnet.cli.main import main
from napari_unetvnet.images.geometry import Geometry
from napari_unetvnet.images.io import write_labels
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.model.card import ModelCard
from napari_unetvnet.model.model import build_model, save_model
from napari_unetvnet.settings import SegmentSettings

SHAPE = (2, 20, 24)
SPELLINGS = {
    "plain": lambda path: path.name,
    "dot": lambda path: f"./{path.name}",
    "parent": lambda path: f"../{path.parent.name}/{path.name}",
    "absolute": str,
    "slash": lambda path: f"{path.name}/",
    "symbolic link": lambda path: _linked(path, os.symlink),
    "link of the folder": lambda path: f"../{_linked(path.parent, os.symlink)}/{path.name}",
    "hard link": lambda path: _linked(path, os.link),
    "link in a row": lambda path: _linked(path.with_name(_linked(path, os.symlink)), os.symlink),
}
"""Ways to name one file in the working directory."""


NUMBERS = itertools.count()


def _linked(path, link):
    name = f"link{next(NUMBERS)}{path.suffix}"
    link(path, path.with_name(name))
    return name


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder with an image and labels as TIFF and as Zarr, a model, and a table of pairs."""
    folder = tmp_path / "data"
    (folder / "labels").mkdir(parents=True)
    (folder / "images").mkdir()
    monkeypatch.chdir(folder)
    labels = np.zeros(SHAPE, np.uint8)
    labels[:, 3:9, 3:9], labels[0, 15, 20] = 1, 1
    for name in ("im.tif", "lab.tif", "images/im.tif", "labels/im.tif"):
        tifffile.imwrite(name, labels)
    like = Volume(labels[None], Geometry((1, 1, 1), "pixel"))
    write_labels(folder / "im.zarr", labels, like)
    write_labels(folder / "lab.zarr", labels, like)
    card = ModelCard(network="unet_padding", option={"width": 2, "depth": 2}, head="multiclass", view="2d",
                     values=(0, 1), patch=(1, 16, 16), normalise="none")  # fmt: skip
    model = build_model(card, SegmentSettings(device="cpu"))
    save_model(folder / "m.safetensors", model.network.state_dict(), card)
    (folder / "pairs.csv").write_text("image,label\nim.tif,lab.tif\n")
    return folder


def contents(folder):
    """The bytes of every file of a folder, without links."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and not path.is_symlink()}


def run(command, before, capsys):
    """Run a command that must be refused, and find every file as it was."""
    assert main(command) == 2, command
    assert capsys.readouterr().err.count("is read; give another output") == 1, command
    assert {path: path.read_bytes() for path in before} == before, command


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_command_replaces_what_it_reads(files, spelling, capsys):
    before, training = contents(files), ["--steps", "1", "--device", "cpu"]

    def name(file):
        return SPELLINGS[spelling](files / file)

    if spelling != "hard link":  # of a folder there is none
        for inner in ("im.zarr", "im.zarr/0"):
            run(["segment", inner, "--model", "m.safetensors", "--output", name("im.zarr")], before, capsys)
        run(["clean", name("lab.zarr"), "--output", "lab.zarr", "--min-size", "2"], before, capsys)
    image, labels = name("im.tif"), os.path.relpath(name("lab.tif"))
    run(["segment", "im.tif", "--model", "m.safetensors", "--output", image], before, capsys)
    run(["segment", image, "--model", "m.safetensors", "--output", "im.tif"], before, capsys)
    given = ["segment", "lab.tif", "--model", "m.safetensors", "--output", "new.tif"]
    run([*given[:1], "im.tif:1", *given[2:-1], image], before, capsys)
    run([*given, "--probabilities", image, "--mask", "im.tif"], before, capsys)
    run(["clean", "im.tif", "--output", image, "--min-size", "2"], before, capsys)
    run(["clean", image, "--output", "im.tif", "--min-size", "2"], before, capsys)
    run(["inspect", image, "--model", "m.safetensors", "--output", "."], before, capsys)
    for inputs in (["--image", "im.tif", "--label", "lab.tif"], ["--pairs", "pairs.csv"]):
        run(["augment", *inputs, *training, "--patches", image], before, capsys)
    folders = ["--image", "images/im.tif", "--label", labels, *training]
    run(["augment", *folders, "--patches", labels], before, capsys)


def test_an_output_in_the_place_of_an_input_by_a_link_is_refused(files, capsys):
    before = contents(files)
    (files / "new.safetensors").symlink_to(files / "labels" / "im.tif")
    for command, inputs in (
        ("train", ["--image", "images", "--label", "labels"]),
        ("sweep", ["--image", "images", "--label", "labels", "--run", "runs"]),
    ):
        run([command, *inputs, "--steps", "1", "--output", "new.safetensors"], before, capsys)
    (files / "im_objects.csv").symlink_to("im.tif")
    (files / "new_objects.csv").symlink_to("lab.tif")
    run(["clean", "lab.tif", "--objects", "components", "--output", "new.tif"], before, capsys)
    given = ["--model", "m.safetensors", "--objects", "components", "--output", "im.npy"]
    run(["segment", "im.tif", *given], before, capsys)


def test_nothing_is_written_into_a_folder_that_is_read(files, capsys):
    before = contents(files)
    (files / "link").symlink_to("im.zarr")
    for image in ("im.zarr", "im.zarr/0"):
        for output in ("im.zarr/zarr.tif", "im.zarr/labels.zarr", "link/0/c/a.tif"):
            (files / output).parent.mkdir(exist_ok=True)
            run(["segment", image, "--model", "m.safetensors", "--output", output], before, capsys)
    assert contents(files).keys() == before.keys()
