"""The shipped models: complete cards, a true README, and labels of what they were trained for."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
from combinations import in_one_case
from scipy.ndimage import gaussian_filter

from napari_unetvnet.images.geometry import Geometry
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.inference import steps
from napari_unetvnet.model.card import read_card, shipped_models
from napari_unetvnet.model.model import load_model
from napari_unetvnet.settings import ComputeSettings, SegmentSettings

ROOT = Path(__file__).parent.parent
WEIGHTS = ROOT / "weights"
FILES = sorted(WEIGHTS.glob("*.safetensors"))
LEAST = 0.5
LICENCES = {"CC0 1.0", "MIT", "CC BY 3.0", "CC BY 4.0", "CC BY-SA 4.0"}


def segmented(name, image, spacing=(1.0, 1.0, 1.0)):
    """Label an image (C, Z, Y, X) as a user would, with the model's own settings."""
    model = load_model(WEIGHTS / f"{name}.safetensors", ComputeSettings(device="cpu", precision="fp32"))
    volume = Volume(image.astype(np.float32), Geometry(spacing))
    return np.concatenate([slab.labels for slab in steps(model, volume, SegmentSettings())])


def balls(shape, radius, count, seed=0):
    """Distance to the nearest of some centres apart from each other, less the radius: negative inside."""
    rng, centres = np.random.default_rng(seed), []
    while len(centres) < count:
        centre = [rng.uniform(min(radius, n / 2), max(n - radius, n / 2)) for n in shape]
        if all(np.linalg.norm(np.subtract(centre, other)) > 2.5 * radius for other in centres):
            centres.append(centre)
    places = np.indices(shape)[None] - np.reshape(centres, (count, len(shape), *[1] * len(shape)))
    return np.sqrt((places**2).sum(axis=1)).min(axis=0) - radius


def dice(prediction, truth):
    return 2 * (prediction & truth).sum() / (prediction.sum() + truth.sum())


def test_there_are_models_and_they_are_small():
    assert set(shipped_models()) == {path.stem for path in FILES} != set()
    assert sum(path.stat().st_size for path in FILES) <= 40e6


@in_one_case("path", FILES)
def test_every_card_is_complete(path):
    card = read_card(path)
    assert all((card.task, card.data, card.attribution, card.inputs, card.device, card.versions, card.images)), path
    assert card.licence in LICENCES, path
    assert len(card.class_names) == len(card.values) >= 2, path
    assert 0.5 < card.scores["val_dice"] <= 1, path
    assert card.steps > 0, path
    assert card.intensity_range, path


def test_the_readme_says_what_the_files_hold():
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        from weights_readme import readme
    finally:
        sys.path.remove(str(ROOT / "scripts"))
    text = (WEIGHTS / "README.md").read_text(encoding="utf-8")
    assert text == readme(WEIGHTS)
    for path in FILES:
        (row,) = [line for line in text.splitlines() if line.startswith(f"| [`{path.stem}`]")]
        assert hashlib.sha256(path.read_bytes()).hexdigest() in row
        card = read_card(path)
        assert card.attribution in text
        assert f"{card.scores['val_dice']:.3f}" in row


def noisy(image, sigma=1.0, noise=2.0):
    """Blur an image, and add noise."""
    return gaussian_filter(image.astype(float), sigma) + np.random.default_rng(1).normal(0, noise, image.shape)


def nuclei_fluorescence():
    inside = balls((128, 128), 12, 8) < 0
    return noisy(inside * 80 + 10)[None, None], {1: inside}


def nuclei():
    image, classes = nuclei_fluorescence()
    return np.repeat(image, 3, axis=0), classes


def axon_myelin():
    """Rings of bright myelin around dark axons."""
    edge = balls((160, 160), 15, 9)
    axon, myelin = edge < -6, (edge < 0) & (edge >= -6)
    return noisy(myelin * 140 + axon * 25 + 5)[None, None], {1: axon, 2: myelin}


def retinal_vessels():
    """Dark, bent, tapering lines on an orange disc that gets darker to its edge, as the camera shows a retina."""
    y, x = np.indices((192, 192))
    rng, depths = np.random.default_rng(3), []
    for middle in (24, 72, 120, 168):
        slope, wave, phase = rng.uniform(-0.4, 0.4), rng.uniform(3, 6), rng.uniform(0, 6)
        line = middle + slope * (x - 96) + wave * np.sin(x / 25 + phase)
        depths.append(abs(y - line) / np.hypot(1, slope) - 4 * (1 - x / 384))
    away = np.hypot(y - 96, x - 96) / 96
    vessel, disc = np.min(depths, axis=0) < 0, away < 1
    soft, light = gaussian_filter(vessel.astype(float), 1), 1 - 0.35 * away**2
    colours = [disc * noisy((ground - soft * dark) * light, 0.7, 3) for ground, dark in ((190, 15), (110, 25), (50, 8))]
    return np.stack(colours)[:, None], {1: vessel & disc}


def neuron_boundaries():
    """Dark membranes between grey cells."""
    places = np.stack(np.indices((3, 128, 128))[1:])[None] - np.random.default_rng(2).uniform(0, 128, (16, 2, 1, 1, 1))
    nearest = np.sort(np.sqrt((places**2).sum(axis=1)), axis=0)
    apart = (nearest[1] - nearest[0]) / 2  # about the distance to the boundary
    return noisy(170 - 110 * (apart < 1.5), 0.7, 6)[None], {1: apart < 2}


def embryo_nuclei():
    inside = balls((32, 64, 64), 8, 4) < 0
    return noisy(inside * 400 + 100, 1, 10)[None], {1: inside}


def hippocampus():
    """A grey rod, of which the front half is anterior, in brain of another brightness."""
    z, y, x = np.indices((32, 48, 32))
    rod = ((z - 16) / 7) ** 2 + ((x - 16) / 6) ** 2 + ((y - 24) / 18) ** 2 < 1
    return noisy(100 + 60 * rod, 1, 3)[None], {}


GENERATED = (nuclei_fluorescence, nuclei, axon_myelin, retinal_vessels, neuron_boundaries, embryo_nuclei, hippocampus)


@in_one_case("path", FILES)
def test_a_generated_image_of_its_kind_is_segmented(path):
    """Classes that a drawing can show are found in it; the others are at least labels of the model."""
    (generated,) = [function for function in GENERATED if function.__name__ == path.stem]
    image, classes = generated()
    card = read_card(path)
    found = segmented(path.stem, image, card.spacing if card.resampled else (1.0, 1.0, 1.0))
    assert found.shape == image.shape[1:]
    assert set(np.unique(found)) <= set(card.values)
    for value, truth in classes.items():
        assert dice((found == value).reshape(truth.shape), truth) > LEAST, (path, value)
