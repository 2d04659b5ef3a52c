"""An image on another scale than the training is told where that changes the labels, and only there."""

import numpy as np
import pytest

from napari_unetvnet.images.intensity import intensity
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


def test_a_model_of_masked_images_asks_for_the_mask():
    measured = intensity(Volume(TRAINED[:, None]), "zscore", "mask")
    (line,) = scale_notices(card(normalise_in="mask"), measured, "cells", masked=False)
    assert "Give its mask" in line
    assert not scale_notices(card(normalise_in="mask"), measured, "cells", masked=True)
