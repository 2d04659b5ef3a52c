"""A frame of one value changes nothing of what it surrounds, and is background itself."""

import numpy as np
import pytest
import torch
from combinations import in_one_case

from napari_unetvnet.errors import DataProblem, SettingsProblem
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.inference import steps
from napari_unetvnet.model.card import ModelCard
from napari_unetvnet.model.model import build_model
from napari_unetvnet.settings import SegmentSettings

SIDES = ((2, 3), (5, 1), (0, 4))


def a_model(view, **chosen):
    """A network of random weights that looks around each voxel."""
    torch.manual_seed(0)
    values = {"view": view, "values": (0, 1, 2), "head": "multiclass", "normalise_in": "content"} | chosen
    patch = (8, 8, 8) if view == "3d" else (1, 8, 8)
    context = int(view == "2.5d")
    card = ModelCard(network="unet_padding", option={"width": 4, "depth": 2}, context=context, patch=patch, **values)
    return build_model(card, SegmentSettings(device="cpu", precision="fp32"))


def arrays(model, image, mask=None, first_plane=0, **chosen):
    """All that a segmentation gives, with the planes joined."""
    settings = SegmentSettings(device="cpu", precision="fp32", uncertainty_kind="entropy", **chosen)
    slabs = list(steps(model, Volume(image), settings, first_plane=first_plane, probabilities=True, mask=mask))
    depths = [slab.labels.shape[-3] for slab in slabs]
    assert [slab.start for slab in slabs] == list(first_plane + np.cumsum([0, *depths[:-1]]))
    return {name: np.concatenate([slab.arrays[name] for slab in slabs], axis=-3) for name in slabs[0].arrays}


def padded(array, value=0):
    return np.pad(array, [*[(0, 0)] * (array.ndim - 3), *SIDES], constant_values=value)


def whole(found):
    """What is expected around what was found: background with certainty."""
    expected = {name: padded(array) for name, array in found.items()}
    expected["probabilities"][0] = padded(found["probabilities"][0], 1)
    return expected


def image_and_mask():
    rng = np.random.default_rng(0)
    return rng.normal(50, 9, (1, 9, 20, 23)).astype(np.float32), (rng.random((1, 9, 20, 23)) > 0.3).astype(np.uint8)


@in_one_case("value", [0, -1024])
@pytest.mark.parametrize(
    ("view", "chosen"), [("3d", {"tile": (8, 16, 16)}), ("2d", {}), ("2.5d", {}), ("2d", {"view": "multi-view"})]
)
def test_the_labels_of_an_image_in_a_frame_are_those_without(view, chosen, value):
    model, (image, mask) = a_model(view), image_and_mask()
    wide = padded(image, value)
    expected, masked = whole(arrays(model, image, **chosen)), whole(arrays(model, image, mask, **chosen))
    for name, array in arrays(model, wide, **chosen).items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
    for name, array in arrays(model, wide, padded(mask, 1), **chosen).items():
        np.testing.assert_array_equal(array, masked[name], err_msg=name)
    for first in (1, 6, 13):  # in the frame, in the content, in the frame after it
        for name, array in arrays(model, wide, first_plane=first, **chosen).items():
            np.testing.assert_array_equal(array, expected[name][..., first:, :, :], err_msg=name)


def test_a_box_is_one_of_the_whole_image():
    model, (image, _) = a_model("3d"), image_and_mask()
    inner = arrays(model, image, box_start=(1, 0, 3), box_stop=(8, 11, 20))
    wide = arrays(model, padded(image), box_start=(3, 2, 3), box_stop=(10, 16, 20))
    for name, expected in whole(inner).items():
        np.testing.assert_array_equal(wide[name], expected, err_msg=name)
    assert not arrays(model, padded(image), box_stop=(2, 9, 9))["labels"].any()
    with pytest.raises(SettingsProblem, match="outside"):
        arrays(model, padded(image), box_start=(20, 0, 0))
    with pytest.raises(DataProblem, match="mask"):
        arrays(model, padded(image), np.ones(image.shape))


def test_little_content_is_segmented_with_some_frame_and_an_older_model_sees_the_frame():
    image = np.zeros((1, 12, 16, 16), np.float32)
    image[0, 5, 7, 7:9] = 1, 2
    assert arrays(a_model("3d"), image)["labels"].shape == (12, 16, 16)
    wide = padded(image_and_mask()[0])
    old = arrays(a_model("3d", normalise_in="all"), wide)["probabilities"]
    assert (old[0, :2] < 1).any()
