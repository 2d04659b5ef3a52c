"""Mirrored overlap-tiles of valid convolutions: the same as one pass over an image that is mirrored at its border."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
from combinations import in_one_case
from test_inference_segment import RAW

from napari_unetvnet.images.volume import Volume
from napari_unetvnet.inference import plan_tiles, scores, steps
from napari_unetvnet.inference.slabs import read_block
from napari_unetvnet.model.card import ModelCard
from napari_unetvnet.model.model import build_model
from napari_unetvnet.networks.unet import UNetOriginal
from napari_unetvnet.settings import SegmentSettings

MIRRORS = ("reflect", "symmetric")


def valid(up="nearest", depth=5, view="2d"):
    """A model of valid convolutions, drawn by He's rule, without which its deepest path would be silent."""
    torch.manual_seed(0)
    card = ModelCard(network="unet_original", option={"width": 2, "depth": depth, "up": up}, head="binary", view=view,
                     values=(0, 1), patch=(4, 4, 4) if view == "3d" else (1, 20, 20), normalise="none")  # fmt: skip
    model = build_model(card, SegmentSettings(device="cpu", precision="fp32"))
    model.network.eval()
    return model


def image(*size):
    return Volume(np.random.default_rng(3).normal(size=(1, *size)))


def one_pass(model, volume, mirror):
    """What the network says of the image, mirrored by numpy, in float64."""
    size = model.fit(volume.shape)
    margins = model.margin if model.card.dims == 3 else ((0, 0), *model.margin[1:])
    pads = [(before, after + n - own) for (before, after), n, own in zip(margins, size, volume.shape, strict=True)]
    x = torch.from_numpy(np.pad(volume.data[0], pads, mode=mirror))[None]
    x = x[None] if model.card.dims == 3 else x.transpose(0, 1)
    with torch.no_grad():
        out = copy.deepcopy(model.network).double()(x)[:, 0]
    return (out[0] if model.card.dims == 3 else out)[tuple(slice(n) for n in volume.shape)].numpy()


def stitched(model, volume, settings):
    """The planned tiles one by one in float64, each where its centre is the nearest."""
    laid, out = plan_tiles(model, volume.shape, settings), np.full(volume.shape, np.nan)
    network = model.network.double()
    for numbers in itertools.product(*(range(len(axis)) for axis in laid.origins)):
        start = [axis[i] for axis, i in zip(laid.origins, numbers, strict=True)]
        stop = [a + n for a, n in zip(start, laid.size, strict=True)]
        raw = torch.from_numpy(read_block(model, volume, start, stop, model.margin, settings.mirror_edge))
        with torch.no_grad():
            tile = network(raw.transpose(0, 1))[:, 0].numpy()
        shares = np.ix_(*(windows[i] for windows, i in zip(laid.windows, numbers, strict=True)))
        chosen = (shares[0] * shares[1] * shares[2]).astype(bool)
        inside = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        part = out[inside]
        own = tuple(slice(n) for n in part.shape)
        part[chosen[own]] = tile[own][chosen[own]]
    assert np.isfinite(out).all()
    return out


@in_one_case("up", ["nearest", "transposed"])
@in_one_case("mirror", MIRRORS)
def test_tiles_equal_one_pass_over_the_mirrored_image(up, mirror):
    model, volume = valid(up), image(1, 211, 159)
    chosen = SegmentSettings(tile=(1, 84, 68), blending="centre", mirror_edge=mirror)
    tiles = stitched(model, volume, chosen)
    expected = one_pass(model, volume, mirror)
    assert np.abs(tiles - expected).max() < 1e-9 * expected.std()


@pytest.mark.parametrize("up", ["nearest", "transposed"])
def test_tiles_off_the_pooling_grid_do_not(up, monkeypatch):
    monkeypatch.setattr(UNetOriginal, "alignment", (8, 8))
    model, volume = valid(up), image(1, 211, 159)
    chosen = SegmentSettings(tile=(1, 84, 68), blending="centre")
    assert any(origin % 16 for origin in plan_tiles(model, volume.shape, chosen).origins[1])
    expected = one_pass(model, volume, "reflect")
    assert np.abs(stitched(model, volume, chosen) - expected).max() > 0.1 * expected.std()


@in_one_case("blending", ["gaussian", "constant", "centre"])
@in_one_case("mirror", MIRRORS)
def test_in_single_precision_and_blended_they_do_too(blending, mirror):
    model, volume = valid(), image(1, 211, 159)
    chosen = SegmentSettings(tile=(1, 84, 68), blending=blending, mirror_edge=mirror)
    found = torch.cat([logits[0] for _, logits in scores(model, volume, chosen, RAW)]).numpy()
    expected = one_pass(model, volume, mirror)
    assert found.shape == volume.shape
    assert np.abs(found - expected).max() < 1e-4 * expected.std()


def test_the_two_ways_to_mirror_differ_at_the_border_only():
    model, volume = valid(depth=3), image(1, 120, 110)
    reach = max(max(sides) for sides in model.margin[1:]) + model.alignment[1]
    both = [
        torch.cat([logits for _, logits in scores(model, volume, SegmentSettings(mirror_edge=mirror), RAW)]).numpy()
        for mirror in MIRRORS
    ]
    differs = np.abs(both[0] - both[1])[0, 0] > 1e-5 * both[0].std()
    assert differs[0].any()
    assert not differs[reach:-reach, reach:-reach].any()


@in_one_case("mirror", MIRRORS)
@in_one_case("size", [(1, 5, 3), (2, 31, 64), (1, 1, 17)])
def test_an_image_smaller_than_the_margin_is_mirrored_as_often_as_needed(mirror, size):
    model, volume = valid(), image(*size)
    found = torch.cat([logits[0] for _, logits in scores(model, volume, SegmentSettings(mirror_edge=mirror), RAW)])
    expected = one_pass(model, volume, mirror)
    assert np.abs(found.numpy() - expected).max() < 1e-4 * np.abs(expected).max()
    labels = np.concatenate([slab.labels for slab in steps(model, volume, SegmentSettings(mirror_edge=mirror))])
    assert labels.shape == size


@pytest.mark.parametrize("mirror", MIRRORS)
def test_blocks_are_mirrored_on_all_three_axes(mirror):
    model, volume = valid(depth=2, view="3d"), image(5, 9, 14)
    chosen = SegmentSettings(mirror_edge=mirror, tile=(4, 4, 8))
    found = torch.cat([logits[0] for _, logits in scores(model, volume, chosen, RAW)]).numpy()
    expected = one_pass(model, volume, mirror)
    assert np.abs(found - expected).max() < 1e-4 * expected.std()
