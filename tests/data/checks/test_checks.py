"""What the checks refuse, and with which words."""

from __future__ import annotations

import numpy as np
import pytest
from combinations import in_one_case

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.refusals import check_pair
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.model.card import ModelCard, check_channels


def image(shape=(1, 2, 4, 5), dtype=np.float32, name="cells"):
    return Volume(np.ones(shape, dtype), name=name)


def labels(shape=(1, 2, 4, 5), dtype=np.uint8, name="painted"):
    return Volume(np.ones(shape, dtype), name=name)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64])
def test_a_good_pair_passes(dtype):
    check_pair(image(), labels(dtype=dtype))
    check_pair(image((3, 2, 4, 5), np.uint16), labels(dtype=dtype))


def test_labels_of_another_size_are_refused_with_both_sizes():
    with pytest.raises(DataProblem, match=r"^Labels painted have 1 x 4 x 5 .* image cells has 2 x 4 x 5; .*\.$"):
        check_pair(image(), labels((1, 1, 4, 5)))


def test_labels_that_are_no_whole_numbers_are_refused_with_their_type():
    with pytest.raises(DataProblem, match=r"^Labels painted are float32; .*integers\.$"):
        check_pair(image(), labels(dtype=np.float32))


@in_one_case("bad", [np.nan, np.inf])
@in_one_case("at", [(0, 0, 0, 0), (0, 1, 3, 4)])
def test_an_image_with_nan_in_any_plane_is_refused(bad, at):
    broken = image()
    broken.data[at] = bad
    with pytest.raises(DataProblem, match=r"^cells: 1 voxels are NaN or infinite; .*\.$"):
        check_pair(broken, labels())


def card(channels):
    return ModelCard(network="unet3d", head="binary", view="2d", channels=channels, values=(0, 1), patch=(1, 8, 8))


def test_another_number_of_channels_is_refused_with_both():
    check_channels(card(3), image((3, 1, 4, 5)))
    with pytest.raises(DataProblem, match=r"^The model expects images with 3 channel\(s\), but cells has 1; .*\.$"):
        check_channels(card(3), image())
