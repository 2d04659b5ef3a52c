"""Images are normalised by themselves, or all alike; the card of a model says how, and inference does the same."""

import numpy as np
import pytest
import torch

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.intensity import intensity
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.inference import steps
from napari_unetvnet.model.card import ModelCard
from napari_unetvnet.model.model import build_model
from napari_unetvnet.model.normalisation import joint_constants, measured_normalisation, normalisation
from napari_unetvnet.settings import Normalisation, SegmentSettings, TrainSettings, checked


def volume(*channels):
    return Volume(np.array(channels, np.int16).reshape(len(channels), 1, 1, -1), name="cells")


def test_constants_of_each_channel_are_subtracted_and_divided_by():
    image = volume([100, 130, 40], [80, 90, 60])
    how = checked(Normalisation, {"normalise_mean": (100, 80), "normalise_std": (20, 10)})
    expected = [[0, 1.5, -3], [0, 1, -2]]
    np.testing.assert_allclose(normalisation(image, how).apply(image.data)[:, 0, 0], expected)
    one = checked(Normalisation, {"normalise_mean": 100, "normalise_std": (20,)} | {"normalise_mean": (100,)})
    np.testing.assert_allclose(normalisation(image, one).apply(image.data)[1, 0, 0], [-1, -0.5, -2])


def test_a_window_is_clipped():
    image = volume([-1000, -160, 40, 240, 3000])
    how = checked(Normalisation, {"normalise_window": (-160, 240)})
    np.testing.assert_allclose(normalisation(image, how).apply(image.data)[0, 0, 0], [0, 0, 0.5, 1, 1])


def test_constants_depend_on_no_image_but_its_range_is_measured():
    how = checked(Normalisation, {"normalise_mean": (10,), "normalise_std": (2,)})
    a, b = (measured_normalisation(volume(values), how) for values in ([0, 1, 2, 3], [100, 200, 300, 400]))
    assert (a.shift, a.scale) == (b.shift, b.scale) == (10, 2)
    assert (a.range[0, 0], b.range[0, 3]) == (0, 400)
    assert normalisation(volume([0, 1]), how).range is None


def test_constants_for_other_channels_are_refused():
    how = checked(Normalisation, {"normalise_window": (0, 1, 0, 2)})
    with pytest.raises(DataProblem, match="constants for 2 channels, but cells has 3"):
        normalisation(volume([0], [1], [2]), how)


def test_the_constants_of_a_dataset_are_the_means_of_those_of_its_images():
    """The worked example of the HDF5 protocol: [0, 2] and [4, 8] have mean 3.5 and standard deviation 1.5."""
    images = [volume([0, 2]), volume([4, 8])]
    joint = joint_constants([intensity(image, "zscore") for image in images])
    assert (joint.shift, joint.scale) == (3.5, 1.5)
    scaled = [joint.apply(image.data).ravel() for image in images]
    np.testing.assert_allclose(scaled, [[-7 / 3, -1], [1 / 3, 3]], rtol=1e-6)


@pytest.mark.parametrize(
    ("chosen", "by_hand"),
    [
        ({"normalise_mean": (50,), "normalise_std": (9,)}, lambda x: (x - 50) / 9),
        ({"normalise_window": (45, 60)}, lambda x: np.clip((x - 45) / 15, 0, 1)),
    ],
)
def test_a_segmentation_applies_the_constants_of_the_card(chosen, by_hand):
    image = np.random.default_rng(0).normal(50, 9, (1, 1, 20, 24)).astype(np.float32)
    torch.manual_seed(0)
    facts = {"network": "unet_padding", "option": {"width": 4, "depth": 2}, "view": "2d", "values": (0, 1, 2)}
    card = ModelCard(**facts, head="multiclass", patch=(1, 8, 8), **chosen)
    settings = SegmentSettings(device="cpu", precision="fp32")
    model = build_model(card, settings)
    probabilities = []
    for data, how in ((image, card), (by_hand(image), card.model_copy(update={"normalise": "none"}))):
        model.card = how
        (slab,) = steps(model, Volume(data.astype(np.float32)), settings, probabilities=True)
        probabilities.append(slab.probabilities)
    np.testing.assert_allclose(*probabilities, atol=1e-5)
    assert np.ptp(probabilities[0]) > 0.01


def test_a_card_has_constants_and_not_the_way_they_were_measured():
    with pytest.raises(ValueError, match="normalise=dataset has no constants"):
        ModelCard(network="unet", head="binary", view="2d", values=(0, 1), patch=(1, 16, 16), normalise="dataset")
    assert TrainSettings(normalise="dataset").normalise == "dataset"
