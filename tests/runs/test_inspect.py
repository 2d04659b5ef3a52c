"""The inspect command: a file for each map on the grid of the image, and an index of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
import torch
from combinations import in_one_case
from PIL import Image

from napari_unetvnet import runs
from napari_unetvnet.cli.main import main
from napari_unetvnet.images.geometry import Geometry
from napari_unetvnet.images.io import read_volume, write_uncertainty
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.model.card import ModelCard
from napari_unetvnet.model.model import build_model, save_model
from napari_unetvnet.settings import InspectJob, SegmentSettings

VAE = {"width": 8, "vae": "paper", "patch_z": 16, "patch_y": 32, "patch_x": 32}
MODELS = {
    "unet_padding": ("unet_padding", {"width": 2, "depth": 3, "deep_supervision": 1}, "2d"),
    "unet25d": ("unet25d", {"width": 2, "depth": 3}, "3d"),
    "vae": ("segresnet_vae", VAE, "3d"),
}
KINDS = {"unet_padding": {"heatmaps", "levels"}, "unet25d": {"attention"}, "vae": {"reconstruction"}}


def save(folder, name, **facts):
    network, option, view = MODELS[name]
    card = ModelCard(
        network=network, option=option, head="binary", view=view, values=(0, 1), patch=(1, 32, 32), **facts
    )
    torch.manual_seed(0)
    network = build_model(card, SegmentSettings(device="cpu", precision="fp32")).network
    path = folder / f"{name}.safetensors"
    save_model(path, network.state_dict(), card)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inspect")
    for name in MODELS:
        save(folder, name)
    rng = np.random.default_rng(0)
    data = rng.normal(100, 20, (1, 8, 34, 40)).astype(np.float32)
    affine = np.array([[0, 1.5, 0, 7], [-1.0, 0, 0, 8], [0, 0, 3, 9], [0, 0, 0, 1]])
    volume = Volume(data, Geometry((3.0, 1.5, 1.0), "mm", affine))
    for ending in (".nii.gz", ".ome.tif", ".zarr"):
        write_uncertainty(folder / f"image{ending}", data[0], volume)
    Image.fromarray(data[0, 0].clip(0, 255).astype(np.uint8)).save(folder / "plane.png")
    return folder


def run(*words):
    return main(["inspect", *map(str, words), "--device", "cpu"])


def index_of(folder):
    return json.loads((folder / "index.json").read_text())["maps"]


@in_one_case("name, image", [("unet_padding", "image.nii.gz"), ("unet25d", "image.ome.tif"), ("vae", "image.zarr")])
def test_every_map_lies_on_the_grid_of_the_image_in_its_format(folder, tmp_path_factory, name, image):
    output = tmp_path_factory.mktemp("out") / "maps"
    assert run(folder / image, "--model", folder / f"{name}.safetensors", "--output", output) == 0
    original, index = read_volume(folder / image), index_of(output)
    assert {row["what"] for row in index} == KINDS[name]
    assert {path.name for path in output.iterdir()} == {"index.json", *(row["file"] for row in index)}
    for row in index:
        shown = read_volume(output / row["file"])
        assert row["file"].endswith(image.removeprefix("image"))
        assert shown.data.shape == (len(row["channels"]) or 1, *original.shape)
        assert (shown.spacing, shown.unit) == (original.spacing, original.unit)
        np.testing.assert_equal(shown.affine, original.affine)
        values = np.asarray(shown.data)
        if row["what"] == "heatmaps":
            assert (values.min(), values.max()) == (0, 1)
            assert 0 <= row["low"] < row["high"]
        else:
            np.testing.assert_allclose([values.min(), values.max()], [row["low"], row["high"]], atol=1e-3)
        assert row["meaning"]


def test_a_map_without_contrast_is_0(folder, tmp_path):
    """A constant image, and a network that answers with the same everywhere."""
    np.save(tmp_path / "flat.npy", np.full((32, 32), 7, np.uint8))
    model = build_model(ModelCard(**FLAT), SegmentSettings(device="cpu", precision="fp32"))
    for parameter in model.network.parameters():
        torch.nn.init.zeros_(parameter)
    save_model(tmp_path / "flat.safetensors", model.network.state_dict(), model.card)
    assert run(tmp_path / "flat.npy", "--model", tmp_path / "flat.safetensors", "--output", tmp_path / "maps") == 0
    for row in index_of(tmp_path / "maps"):
        assert not np.load(tmp_path / "maps" / row["file"]).any()


FLAT = {"network": "unet_padding", "option": {"width": 2, "depth": 2}, "head": "binary", "view": "2d"}
FLAT |= {"values": (0, 1), "patch": (1, 32, 32)}


def test_where_maps_are_written_is_said_and_nothing_else_is_replaced(folder, tmp_path, capsys):
    words = (folder / "plane.png", "--model", folder / "unet_padding.safetensors", "--output")
    chosen = ("--what", "levels")
    assert run(*words, tmp_path / "maps", *chosen) == 0
    assert "PNG cannot hold maps; they are written as .tif." in capsys.readouterr().err
    series = np.stack([np.zeros((32, 32), np.float32)] * 2)
    tifffile.imwrite(tmp_path / "series.tif", series, imagej=True, metadata={"axes": "TYX"})
    assert run(f"{tmp_path}/series.tif@t=1", *words[1:], tmp_path / "later", *chosen) == 0
    assert "cannot hold maps" not in capsys.readouterr().err
    assert run(*words, tmp_path / "maps", *chosen, "--ending", ".npy") == 0
    assert f"The maps in {tmp_path / 'maps'} are replaced." in capsys.readouterr().err
    assert np.load(tmp_path / "maps" / "levels-main.npy").shape == (2, 1, 34, 40)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("")
    refusals = {
        ("mine",): "is not empty and holds no earlier maps",
        ("mine/notes.txt",): "is a file; name a folder",
        ("none/maps",): "There is no folder",
        ("new", "--ending", ".png"): "Maps cannot be written as .png; use .nii.gz",
        ("new", "--what", "attention"): "has no attention; it has heatmaps and levels",
        ("new", "--what", "everything"): "should be 'heatmaps'",
    }
    for (output, *more), sentence in refusals.items():
        assert run(*words, tmp_path / output, *more) == 2
        assert sentence in capsys.readouterr().err
        assert not (tmp_path / "new").exists()


def test_without_a_folder_the_maps_stay_in_the_run(folder, tmp_path):
    """As the panel runs it; a run that was stopped begins again."""
    job = {"image": str(folder / "image.nii.gz"), "model": str(folder / "unet_padding.safetensors"), "device": "cpu"}
    runs.create(tmp_path, InspectJob(**job, what=("heatmaps",)))
    assert isinstance(runs.read(tmp_path), InspectJob)
    events = runs.run(tmp_path)
    while next(events).__class__.__name__ != "SlabDone":
        pass
    events.close()
    *_, last = runs.run(tmp_path, resume=True)
    assert last.results["maps"] == str(tmp_path / "maps")
    assert all(np.load(tmp_path / "maps" / row["file"]).shape == (8, 34, 40) for row in index_of(tmp_path / "maps"))
