"""Tiles that are mirrored and turned: what is turned comes back in its place, and the mean favours no direction."""

from __future__ import annotations

from itertools import chain, combinations

import numpy as np
import pytest
import torch
from combinations import in_one_case
from test_inference_segment import CPU, Pointwise, whole

from napari_unetvnet.errors import SettingsProblem
from napari_unetvnet.images.geometry import Geometry
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.inference import steps
from napari_unetvnet.inference.labels import mean_logits
from napari_unetvnet.inference.orientations import choose_orientations, widest_margin
from napari_unetvnet.model.card import ModelCard
from napari_unetvnet.model.model import Model, build_model
from napari_unetvnet.model.symmetry import cube_permutations
from napari_unetvnet.settings import SegmentSettings

AXES = ("z", "y", "x")
FLIPS = tuple(chain.from_iterable(combinations(AXES, n) for n in (1, 2, 3)))


class Shaved(Pointwise):
    """A pointwise network that loses other numbers of voxels before than after."""

    lost = ((2, 1), (0, 3), (4, 1))

    @property
    def margin(self):
        return self.lost[-self.dims :]

    def fit(self, size):
        return tuple(size)

    def forward(self, x):
        inside = tuple(slice(a, n - b) for n, (a, b) in zip(x.shape[2:], self.margin, strict=True))
        return super().forward(x[(..., *inside)])


class Below(Pointwise):
    """Says of each plane what the lowest of its neighbours holds."""

    def forward(self, x):
        return torch.cat([x[:, :1], -x[:, :1]], dim=1)


def model_of(network, view="3d", context=0, patch=(8, 8, 8)):
    card = ModelCard(network="unet3d", head="multiclass", view=view, context=context, values=(0, 1), patch=patch,
                     normalise="none")  # fmt: skip
    return Model(network(3 if view == "3d" else 2), card, CPU)


def odds(logits):
    return logits[0] - logits[1]


@pytest.mark.parametrize("view", ["2d", "2.5d", "3d"])
@in_one_case("flips", FLIPS)
def test_mirrored_tiles_come_back_in_their_place(view, flips):
    model = model_of(Shaved, view, context=1 if view == "2.5d" else 0)
    data = np.random.default_rng(0).normal(size=(1, 5, 19, 21)).astype(np.float32)
    out = whole(model, Volume(data), tile=(3, 8, 8), overlap=0.5, batch=2, tta=flips)
    np.testing.assert_allclose(odds(out), 2 * data[0], atol=1e-5)


def test_tiles_turned_like_cubes_come_back_in_their_place():
    data = np.random.default_rng(0).normal(size=(1, 5, 11, 9)).astype(np.float32)
    out = whole(model_of(Shaved), Volume(data), tile=(6, 6, 6), overlap=0.5, tta="rotations")
    np.testing.assert_allclose(odds(out), 2 * data[0], atol=1e-5)


def test_the_margin_is_enough_on_each_side_for_all_turns():
    model = model_of(Shaved)
    x_only = choose_orientations(model, (6, 6, 6), (1, 1, 1), SegmentSettings(tta=("x",)))
    assert widest_margin(model.margin, x_only) == ((2, 1), (0, 3), (4, 4))
    assert widest_margin(model.margin, cube_permutations()) == ((4, 4),) * 3


def test_neighbour_planes_change_sides_in_a_mirrored_stack():
    data = np.random.default_rng(0).normal(size=(1, 6, 4, 4)).astype(np.float32)
    out = whole(model_of(Below, "2.5d", context=1), Volume(data), tta=("z",))
    below, above = np.maximum(np.arange(6) - 1, 0), np.minimum(np.arange(6) + 1, 5)
    expected = [1 / (1 + np.exp(-2 * data[0, neighbours].astype(float))) for neighbours in (below, above)]
    np.testing.assert_allclose(1 / (1 + np.exp(-odds(out).astype(float))), np.mean(expected, axis=0), atol=1e-6)


def test_single_planes_are_not_computed_twice_for_a_mirrored_stack():
    turns = choose_orientations(model_of(Pointwise, "2d"), (1, 8, 8), (1, 1, 1), SegmentSettings(tta=AXES))
    assert len(turns) == 4


def lopsided(view, network, tile, **option):
    torch.manual_seed(0)
    card = ModelCard(network=network, option={"width": 2, "depth": 2, **option}, head="multiclass", view=view,
                     values=(0, 1, 2), patch=tile, normalise="none")  # fmt: skip
    model = build_model(card, SegmentSettings(device="cpu", precision="fp32"))
    model.network.eval()
    return model


@pytest.mark.parametrize(
    ("view", "network", "option", "shape"),
    [
        ("3d", "unet3d", {}, (12, 20, 24)),
        ("2d", "unet_original", {"up": "nearest"}, (2, 36, 54)),
        ("2d", "unet_padding", {}, (2, 27, 36)),
    ],
)
def test_mirrored_in_gives_mirrored_out_whatever_the_network(view, network, option, shape):
    tile = (8, 8, 8) if view == "3d" else (1, 18, 18)
    model = lopsided(view, network, tile, **option)
    data = np.random.default_rng(1).normal(size=(1, *shape)).astype(np.float32)
    chosen = {"tile": tile, "overlap": 0.5}
    for flips in (("x",), ("y", "x")):
        axes = tuple("zyx".index(flip) - 3 for flip in flips)
        straight = whole(model, Volume(data), tta=flips, **chosen)
        mirrored = whole(model, Volume(np.flip(data, axes).copy()), tta=flips, **chosen)
        np.testing.assert_allclose(np.flip(mirrored, axes), straight, atol=1e-5)
        alone = whole(model, Volume(data), **chosen)
        assert not np.allclose(np.flip(whole(model, Volume(np.flip(data, axes).copy()), **chosen), axes), alone)


def test_turned_in_gives_turned_out_of_a_cube():
    model = lopsided("3d", "unet3d", (8, 8, 8))
    data = np.random.default_rng(1).normal(size=(1, 8, 8, 8)).astype(np.float32)
    chosen = {"tile": (8, 8, 8), "tta": "rotations"}
    straight = whole(model, Volume(data), **chosen)
    turned = whole(model, Volume(data.transpose(0, 3, 1, 2).copy()), **chosen)
    np.testing.assert_allclose(turned, straight.transpose(0, 3, 1, 2), atol=1e-5)


def test_a_network_without_a_direction_says_the_same_with_flips():
    model = lopsided("3d", "unet3d", (8, 8, 8))
    for layer in model.network.modules():
        if isinstance(layer, torch.nn.Conv3d | torch.nn.ConvTranspose3d):
            layer.weight.data = (layer.weight + layer.weight.flip(-1)) / 2
    volume = Volume(np.random.default_rng(1).normal(size=(1, 8, 16, 20)).astype(np.float32))
    plain = torch.from_numpy(whole(model, volume, overlap=0.5)).softmax(0)
    flipped = torch.from_numpy(whole(model, volume, overlap=0.5, tta=("x",))).softmax(0)
    torch.testing.assert_close(flipped, plain, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("head", "activation"),
    [("multiclass", lambda x: x.softmax(1)), ("binary", torch.sigmoid), ("multilabel", torch.sigmoid)],
)
def test_probabilities_are_averaged_not_logits(head, activation):
    parts = torch.randn(3, 2, 1 if head == "binary" else 4, 2, 3, 4, generator=torch.manual_seed(0)) * 5
    mean = mean_logits(iter(parts), head)
    torch.testing.assert_close(activation(mean), torch.stack([activation(part) for part in parts]).mean(0))


@pytest.mark.parametrize("head", ["multiclass", "binary", "multilabel"])
def test_certain_voxels_have_finite_logits(head):
    certain = torch.full((1, 3, 1, 1, 2), 1e4) * torch.tensor([1.0, -1.0])
    assert torch.isfinite(mean_logits([certain, certain], head)).all()


def test_what_cannot_be_turned_like_a_cube_is_refused():
    volume = Volume(np.zeros((1, 8, 16, 16), np.float32))
    flat = Volume(np.zeros((1, 8, 16, 16), np.float32), Geometry((3.0, 1.0, 1.0), "micrometer"))
    with pytest.raises(SettingsProblem, match="three equal edges, not 4 x 8 x 8 voxels"):
        next(steps(model_of(Pointwise), volume, SegmentSettings(tta="rotations", tile=(4, 8, 8))))
    with pytest.raises(SettingsProblem, match="three equal edges, not 3 x 1 x 1"):
        next(steps(model_of(Pointwise), flat, SegmentSettings(tta="rotations")))
    with pytest.raises(SettingsProblem, match=r"view 3d only.*2d"):
        next(steps(model_of(Pointwise, "2d"), volume, SegmentSettings(tta="rotations")))
