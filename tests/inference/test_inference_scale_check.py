"""An image on another scale than the training is told where that changes the labels, and only there."""

import numpy as np
import pytest

from napari_unetvnet.images.intensity import intensity, joint_brightness
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.inference import scale_notices
from napari_unetvnet.model.card import ModelCard
from napari_unetvnet.model.normalisation import measured_normalisation


def card(**chosen):
    seen = {"intensity_range": ((0, 10, 240, 255),), "normalise": "none", **chosen}
    return ModelCard(network="unet", head="binary", view="2d", values=(0, 1), patch=(1, 16, 16), **seen)


def told(card, image):
    image = image[:, None]
    measured = measured_normalisation(Volume(image), card)
    return scale_notices(card, measured, "cells", masked=False)


ALIKE = "brings all images to scale with the same constants (normalise fixed)"
TRAINED = np.linspace(5, 245, 2500).reshape(1, 50, 50)


@pytest.mark.parametrize(
    ("image", "differs"),
    [
        (TRAINED, False),
        (TRAINED * 0.6, False),
        (TRAINED * 257, True),
        (TRAINED / 255, True),
        (TRAINED + 1000, True),
    ],
)
def test_values_on_another_scale_are_told_unless_they_are_normalised(image, differs):
    lines = told(card(), image)
    assert len(lines) == differs
    assert all("trained on 10 to 240" in line and "--normalise zscore" in line for line in lines)
    alike = told(card(normalise="fixed", normalise_window=(0, 255)), image)
    assert alike == [line.replace("takes values as they are (normalise none)", ALIKE) for line in lines]
    assert not told(card(normalise="zscore"), image)
    assert not told(card(intensity_range=()), image)  # of an older model


def test_the_channel_that_differs_is_named_and_a_constant_one_in_any_case():
    two = card(channels=2, intensity_range=((0, 10, 240, 255),) * 2)
    (line,) = told(two, np.concatenate([TRAINED, TRAINED * 257]))
    assert line.startswith("Channel 2 of cells has intensities of ")
    (line,) = told(card(normalise="zscore"), 7 + 0 * TRAINED)
    assert line == "cells has the same value 7 everywhere, so there is nothing to recognise."


DARK = TRAINED**4
"""Median at 1/16 of its range."""


@pytest.mark.parametrize("normalise", ["zscore", "percentile", "none"])
def test_an_inverted_image_is_told_where_the_training_images_were_dark_or_bright(normalise):
    inverted = DARK.max() - DARK
    for image, other, words in ((DARK, inverted, ("bright", "dark")), (inverted, DARK, ("dark", "bright"))):
        seen = joint_brightness([intensity(Volume(image[:, None]), "none")])
        trained = card(normalise=normalise, brightness=seen, intensity_range=())
        assert not told(trained, image)
        assert not told(trained, image + TRAINED * image.max() / 500)
        (line,) = told(trained, other)
        assert line.startswith(f"cells is mostly {words[0]}, but the model was trained on mostly {words[1]} images. ")


def test_contrast_is_not_told_where_it_cannot_be_known():
    inverted = DARK.max() - DARK
    for brightness in ((), ((0.05, 0.9),), ((0.4, 0.6),)):  # older model; both kinds; as dark as bright
        assert not told(card(normalise="zscore", brightness=brightness), inverted)
    two = card(normalise="zscore", channels=2, intensity_range=(), brightness=((0.4, 0.6), (0.02, 0.1)))
    (line,) = told(two, np.concatenate([TRAINED, inverted]))
    assert line.startswith("Channel 2 of cells is mostly bright")


def test_a_model_of_masked_images_asks_for_the_mask():
    measured = intensity(Volume(TRAINED[:, None]), "zscore", "mask")
    (line,) = scale_notices(card(normalise_in="mask"), measured, "cells", masked=False)
    assert "Give its mask" in line
    assert not scale_notices(card(normalise_in="mask"), measured, "cells", masked=True)
