"""The demonstration: a shipped model first, then a training that starts from it, and both scores."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from PIL import Image
from test_training_loop import squares, train
from tifffile import imread, imwrite

from napari_unetvnet.cli import demo
from napari_unetvnet.images.io import read_labels
from napari_unetvnet.model import card as cards
from napari_unetvnet.model.card import read_card
from napari_unetvnet.runs.folder import MODEL

pytestmark = pytest.mark.timeout(200)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The upper left of the sample, so that seconds are enough."""
    (tmp_path / "samples").mkdir()
    for name in ("nuclei.tif", "nuclei_objects.tif"):
        imwrite(tmp_path / "samples" / name, imread(demo.SAMPLES / name)[:96, :128])
    monkeypatch.setattr(demo, "SAMPLES", tmp_path / "samples")


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A model that learnt squares on dark noise, in place of the shipped ones."""
    train(tmp_path / "squares", steps=8)
    path = tmp_path / "squares" / MODEL
    monkeypatch.setattr(cards, "shipped_models", lambda: {"squares": path})
    return path


def test_a_shipped_model_comes_first_and_the_training_starts_from_it(small, shipped, tmp_path):
    told = list(demo.demo(tmp_path / "demo", 0.02, viewer=False))
    text = "\n".join(told)
    assert told[0].startswith("Segmenting with the model squares, which comes with the program")
    assert re.search(r"Done without any training, \d+ s after the start\. On the unpainted half: Dice", told[1])
    assert [line.partition(":")[0] for line in told if line.startswith(("Shipped:", "Trained:"))] == [
        "Shipped",
        "Trained",
    ]
    assert "Training on from that model" in text
    (folder,) = (tmp_path / "demo").iterdir()
    assert read_card(folder / "nuclei.safetensors").parent.startswith(MODEL)
    assert read_labels(folder / "shipped.tif").shape == read_labels(folder / "segmented.tif").shape
    with Image.open(folder / "overlay.png") as picture:
        assert picture.size == (256, 96)


def test_without_a_model_that_fits_one_is_trained_and_that_is_said(small, tmp_path, monkeypatch):
    monkeypatch.setattr(cards, "shipped_models", dict)
    told = list(demo.demo(tmp_path / "demo", 0.02, viewer=False))
    assert told[0].startswith("No model that comes with the program fits this image")
    assert not any(line.startswith("Shipped:") for line in told)
    assert any(line.startswith("Trained: On the unpainted half: Dice") for line in told)


def test_a_model_of_other_images_is_not_shown(nuclei, shipped):
    assert demo.best_shipped(squares().image) is not None
    bright = replace(nuclei, data=65535 - nuclei.data[:])
    assert demo.best_shipped(bright) is None
