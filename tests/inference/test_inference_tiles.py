"""How tiles are joined: every kind of blending, in any order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_inference_orientations import lopsided
from test_inference_segment import pointwise_model, quick, rounding, shapes, tiles, whole

from napari_unetvnet.images.volume import Volume
from napari_unetvnet.inference import Tiles, plan_tiles
from napari_unetvnet.settings import SegmentSettings

WEIGHTS = ("gaussian", "constant", "centre")


@quick
@given(shapes, tiles, st.floats(0, 0.9), st.sampled_from(WEIGHTS))
def test_constant_in_gives_constant_out(shape, tile, overlap, blending):
    volume = Volume(np.full((1, *shape), 3.0, np.float32))
    out = whole(pointwise_model(), volume, tile=tile, overlap=overlap, blending=blending)
    np.testing.assert_allclose(out[0], 3.0, rtol=rounding(overlap))


@quick
@given(shapes, tiles, st.floats(0, 0.9), st.integers(1, 4))
def test_each_voxel_comes_from_one_tile_of_which_the_centre_is_nearest(shape, tile, overlap, divisor):
    chosen = SegmentSettings(tile=tile, overlap=overlap, blending="centre")
    laid = plan_tiles(pointwise_model(divisor=divisor), shape, chosen)
    for length, size, origins, windows in zip(shape, laid.size, laid.origins, laid.windows, strict=True):
        far = np.abs(np.arange(length)[:, None] - (np.array(origins) + (size - 1) / 2))
        for voxel, nearest in enumerate(far.argmin(axis=1)):
            shares = [w[voxel - o] if 0 <= voxel - o < size else 0 for o, w in zip(origins, windows, strict=True)]
            assert shares == [i == nearest for i in range(len(origins))]


def test_weights_by_hand():
    def windows(kind):
        chosen = SegmentSettings(tile=(1, 1, 4), overlap=0.5, blending=kind)
        return plan_tiles(pointwise_model(), (1, 1, 6), chosen).windows[2].tolist()

    assert windows("constant") == [[1, 1, 0.5, 0.5], [0.5, 0.5, 1, 1]]
    assert windows("centre") == [[1, 1, 1, 0], [0, 1, 1, 1]]
    first, second = windows("gaussian")
    assert first[2] > 0.5 > first[3]
    np.testing.assert_allclose(np.add(first[2:], second[:2]), 1)


@pytest.mark.parametrize("blending", WEIGHTS)
def test_the_order_of_tiles_changes_nothing(blending, monkeypatch):
    model = lopsided("3d", "unet3d", (8, 8, 8))
    volume = Volume(np.random.default_rng(1).normal(size=(1, 10, 20, 23)).astype(np.float32))
    chosen = {"overlap": 0.5, "batch": 3, "blending": blending}
    straight = whole(model, volume, **chosen)
    places = Tiles.places.fget
    shuffled = property(lambda laid: [tuple(p) for p in np.random.default_rng(0).permutation(places(laid))])
    monkeypatch.setattr(Tiles, "places", shuffled)
    np.testing.assert_allclose(whole(model, volume, **chosen), straight, atol=1e-5)
