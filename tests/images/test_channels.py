"""Channels are told apart by what their names say, in whatever order they are given."""

import numpy as np
import pytest

from napari_unetvnet.images.channels import arranged, distinct_names, match_channels
from napari_unetvnet.images.geometry import Geometry
from napari_unetvnet.images.volume import Volume


@pytest.mark.parametrize(
    ("names", "own"),
    [
        (("p1_T1", "p1_FLAIR"), ("T1", "FLAIR")),
        (("a-t1n", "a-t1c", "a-t2w"), ("t1n", "t1c", "t2w")),
        (("DAPI raw", "GFP raw"), ("DAPI", "GFP")),
        (("sub-01_T1w_brain", "sub-01_T2w_brain"), ("T1w", "T2w")),
        (("c_0000", "c_0001"), ("0000", "0001")),
        (("far red channel", "red channel"), ()),
        (("nuclei", "nuclei_1"), ()),
        (("a", "A"), ()),
        (("t1",), ()),
    ],
)
def test_a_channel_is_named_by_what_tells_it_from_the_others(names, own):
    assert distinct_names(names) == own


@pytest.mark.parametrize(
    ("given", "wanted", "places"),
    [
        (("p2_flair", "p2_t1"), ("T1", "FLAIR"), [1, 0]),
        (("x_t1ce", "x_t1"), ("t1", "t1ce"), [1, 0]),
        (("t1_t1", "t1_t2"), ("t2", "t1"), [1, 0]),
        (("c_0001", "c_0000", "c_0002"), ("T1", "T2", "CT"), [1, 0, 2]),
        (("c_0001", "c_0000"), ("0000", "0001"), [1, 0]),
        (("far red", "red"), ("red", "far red"), [1, 0]),
        (("cells DAPI 2",), ("GFP", "DAPI"), [None, 0]),
        (("a", "b"), ("c", "d"), [None, None]),
        (("p_t1_a", "p_t1_b"), ("t1", "t2"), [None, None]),
    ],
)
def test_channels_of_a_model_are_found_by_name(given, wanted, places):
    assert match_channels(given, wanted) == places


@pytest.mark.parametrize("lazy", [False, True])
def test_channels_are_put_in_order_and_missing_ones_filled(lazy, monkeypatch):
    monkeypatch.setattr("napari_unetvnet.images.image_file.LARGE_BYTES", 0 if lazy else 1 << 30)
    data = np.arange(2 * 3 * 4 * 5, dtype=np.uint8).reshape(2, 3, 4, 5)
    volume = Volume(data, Geometry((2.0, 1.0, 1.0), "um"), name="a")
    turned = arranged(volume, [1, 0], [0, 0])
    assert isinstance(turned.data, np.ndarray) != lazy
    assert turned.data.dtype == np.uint8
    assert turned.geometry is volume.geometry
    np.testing.assert_array_equal(np.asarray(turned.data), data[::-1])
    filled = arranged(volume, [1, None, 0], [0, 2.5, 0])
    np.testing.assert_array_equal(
        np.asarray(filled.data[:, 1:3]), np.stack([data[1], np.full((3, 4, 5), 2.5), data[0]])[:, 1:3]
    )
