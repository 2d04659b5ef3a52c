"""Tiled prediction: what must hold for every tile, overlap and shape."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from combinations import in_one_case
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from napari_unetvnet.errors import DataProblem, SettingsProblem
from napari_unetvnet.images.intensity import Intensity
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.inference import label_values, plan_tiles, scores, small_image_notice, steps, sums
from napari_unetvnet.inference.tiles import smallest_image
from napari_unetvnet.model.card import ModelCard
from napari_unetvnet.model.model import Model, build_model
from napari_unetvnet.networks.base import SegmentationNetwork
from napari_unetvnet.settings import SegmentSettings

CPU = torch.device("cpu")
RAW = Intensity(np.zeros(1, np.float32), np.ones(1, np.float32))


class Pointwise(SegmentationNetwork):
    """Logits that depend on the voxel alone: x and -x. Stitching must give them back whatever the tiles."""

    def __init__(self, dims, divisor=1):
        super().__init__(dims, 1, 2)
        self._divisor = divisor
        self.none = nn.Identity()

    @property
    def divisor(self):
        return (self._divisor,) * self.dims

    def forward(self, x):
        self.check_size(x)
        middle = x[:, x.shape[1] // 2 : x.shape[1] // 2 + 1]
        return torch.cat([middle, -middle], dim=1)


def pointwise_model(view="3d", patch=(8, 16, 16), divisor=1, context=0):
    dims = 3 if view == "3d" else 2
    card = ModelCard(
        network="unet3d", head="multiclass", view=view, context=context, values=(0, 1), patch=patch, normalise="none"
    )
    model = Model(Pointwise(dims, divisor), card, CPU)
    assert model.voxel_bytes > 0  # runs the network, which tests count
    return model


def whole(model, volume, **chosen):
    """All blended logits of a volume, (K, Z, Y, X)."""
    parts = list(scores(model, volume, SegmentSettings(**chosen), RAW))
    assert [start for start, _ in parts] == list(np.cumsum([0, *(p.shape[1] for _, p in parts[:-1])]))
    return torch.cat([p for _, p in parts], dim=1).numpy()


def rounding(overlap):
    """Bound on the relative error of a float32 sum over all tiles that can touch a voxel."""
    tiles_touching = (1 / (1 - overlap) + 2) ** 3
    return 4 * np.finfo(np.float32).eps * np.sqrt(tiles_touching)


shapes = st.tuples(st.integers(1, 14), st.integers(1, 28), st.integers(1, 28))
tiles = st.tuples(st.integers(1, 9), st.integers(1, 19), st.integers(1, 19))
quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("slab_bytes", [0, 2**27], ids=["row by row", "slab by slab"])
@quick
@given(shapes, tiles, st.floats(0, 0.9), st.integers(1, 3), st.sampled_from(["2d", "2.5d", "3d"]), st.integers(1, 4))
def test_stitching_gives_the_pointwise_network_back(
    monkeypatch, slab_bytes, shape, tile, overlap, batch, view, divisor
):
    monkeypatch.setattr(sums, "SLAB_BYTES", slab_bytes)
    model = pointwise_model(view, divisor=divisor, context=1 if view == "2.5d" else 0)
    data = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    out = whole(model, Volume(data), tile=tile, overlap=overlap, batch=batch)
    allowed = rounding(overlap) * np.abs(data).max()
    np.testing.assert_allclose(out[0], data[0], atol=allowed)
    np.testing.assert_allclose(out[1], -data[0], atol=allowed)


@quick
@given(shapes, tiles, st.floats(0, 0.9))
def test_constant_in_gives_constant_out(shape, tile, overlap):
    out = whole(pointwise_model(), Volume(np.full((1, *shape), 3.0, np.float32)), tile=tile, overlap=overlap)
    np.testing.assert_allclose(out[0], 3.0, rtol=rounding(overlap))


@quick
@given(shapes, tiles, st.floats(0, 0.9), st.integers(1, 4))
def test_windows_of_all_tiles_sum_to_one(shape, tile, overlap, divisor):
    laid = plan_tiles(pointwise_model(divisor=divisor), shape, SegmentSettings(tile=tile, overlap=overlap))
    for length, origins, windows in zip(shape, laid.origins, laid.windows, strict=True):
        total = np.zeros(max(length, origins[-1] + windows.shape[1]))
        for origin, window in zip(origins, windows, strict=True):
            total[origin : origin + len(window)] += window
        np.testing.assert_allclose(total[:length], 1, rtol=1e-5)


def test_a_mirrored_volume_gives_a_mirrored_result():
    torch.manual_seed(0)
    card = ModelCard(network="unet3d", option={"width": 2, "depth": 2}, head="binary", view="3d", values=(0, 1),
                     patch=(8, 8, 8), normalise="none")  # fmt: skip
    model = build_model(card, SegmentSettings(device="cpu", precision="fp32"))
    model.network.eval()
    for layer in model.network.modules():  # a network that treats both directions alike
        if isinstance(layer, nn.Conv3d | nn.ConvTranspose3d):
            layer.weight.data = (layer.weight + layer.weight.flip(-1)) / 2
    data = np.random.default_rng(1).normal(size=(1, 12, 20, 24)).astype(np.float32)
    straight = whole(model, Volume(data), tile=(8, 8, 8), overlap=0.5)
    mirrored = whole(model, Volume(data[..., ::-1].copy()), tile=(8, 8, 8), overlap=0.5)
    np.testing.assert_allclose(mirrored[..., ::-1], straight, atol=1e-4)


@pytest.mark.parametrize("up", ["nearest", "transposed"])
def test_tiles_of_valid_convolutions_agree_with_one_whole_pass(up):
    torch.manual_seed(0)
    card = ModelCard(network="unet_original", option={"width": 4, "depth": 3, "up": up}, head="binary", view="2d",
                     values=(0, 1), patch=(1, 20, 20), normalise="none")  # fmt: skip
    model = build_model(card, SegmentSettings(device="cpu", precision="fp32"))
    model.network.eval()
    data = np.random.default_rng(1).normal(size=(1, 1, 90, 75)).astype(np.float32)
    one = whole(model, Volume(data), tile=(1, 200, 200))
    many = whole(model, Volume(data), tile=(1, 36, 36), overlap=0.25)
    np.testing.assert_allclose(many, one, atol=1e-4 * one.std())


@in_one_case("view", ["2d", "2.5d", "3d"])
@in_one_case("first", [1, 5, 11])
def test_going_on_from_a_plane_gives_the_same_bits(view, first):
    torch.manual_seed(0)
    card = ModelCard(network="unet_padding", option={"width": 2, "depth": 2}, head="multiclass", view=view,
                     context=1 if view == "2.5d" else 0, values=(3, 7, 300), patch=(4, 8, 8))  # fmt: skip
    model = build_model(card, SegmentSettings(device="cpu", precision="fp32"))
    volume = Volume(np.random.default_rng(2).normal(size=(1, 12, 17, 19)))
    chosen = SegmentSettings(tile=(4, 8, 8), overlap=0.5, batch=3)
    everything = np.concatenate([slab.labels for slab in steps(model, volume, chosen)])
    assert everything.dtype == np.uint16
    assert set(np.unique(everything)) <= {3, 7, 300}
    rest = list(steps(model, volume, chosen, first_plane=first))
    assert rest[0].start == first
    np.testing.assert_array_equal(np.concatenate([slab.labels for slab in rest]), everything[first:])


def test_probabilities_sum_to_one_and_agree_with_the_labels():
    torch.manual_seed(0)
    for head, values in (("binary", (0, 9)), ("multiclass", (0, 4, 9))):
        card = ModelCard(network="unet_padding", option={"width": 2, "depth": 2}, head=head, view="2d", values=values,
                         patch=(1, 8, 8))  # fmt: skip
        model = build_model(card, SegmentSettings(device="cpu", precision="fp32"))
        volume = Volume(np.random.default_rng(2).normal(size=(1, 2, 16, 16)))
        for slab in steps(model, volume, SegmentSettings(), probabilities=True):
            assert slab.probabilities.shape == (len(values), *slab.labels.shape)
            np.testing.assert_allclose(slab.probabilities.astype(float).sum(0), 1, atol=2e-3)
            chosen = np.array(values)[slab.probabilities.argmax(0)]
            first, second = np.sort(slab.probabilities.astype(float), axis=0)[[-1, -2]]
            clear = first - second > 2e-3  # float16 may tie
            assert clear.mean() > 0.5
            np.testing.assert_array_equal(chosen[clear], slab.labels[clear])


@pytest.mark.alone
def test_memory_holds_one_slab_whatever_the_depth():
    class Counting:
        """An array that forgets what was read and remembers how much at once."""

        dtype = np.dtype(np.float32)
        ndim = 4

        def __init__(self, shape):
            self.shape = shape
            self.most = 0

        def __getitem__(self, key):
            planes = len(range(*key[1].indices(self.shape[1]))) if len(key) == 4 else key[-3].stop - key[-3].start
            self.most = max(self.most, planes)
            return np.zeros((1, planes, 16, 16), np.float32)

    data = Counting((1, 400, 16, 16))
    for _ in scores(pointwise_model(patch=(8, 16, 16)), Volume(data), SegmentSettings(tile=(8, 16, 16)), RAW):
        pass
    assert data.most <= 8


def test_stopping_early_computes_no_more():
    model = pointwise_model("2d")
    calls = []
    model.network.register_forward_hook(lambda *_: calls.append(1))
    work = steps(model, Volume(np.zeros((1, 50, 8, 8), np.float32)), SegmentSettings())
    next(work)
    work.close()
    assert len(calls) == 1


def test_what_does_not_fit_the_model_is_refused():
    model = pointwise_model("2d", divisor=8)
    with pytest.raises(DataProblem, match=r"1 channel.*has 2"):
        next(steps(model, Volume(np.zeros((2, 1, 16, 16))), SegmentSettings()))
    with pytest.raises(SettingsProblem, match=r"trained for view 2d.*3d"):
        next(steps(model, Volume(np.zeros((1, 1, 16, 16))), SegmentSettings(view="3d")))
    bad = np.zeros((1, 3, 16, 16))
    bad[0, 2, 3, 4] = np.nan
    with pytest.raises(DataProblem, match="NaN"):
        list(steps(model, Volume(bad), SegmentSettings()))


def written_row(logits, **card):
    """Label values of voxels (V,) from their logits, a row for each channel."""
    made = ModelCard(network="unet_padding", head="multilabel", view="2d", patch=(1, 8, 8), **card)
    return label_values(torch.tensor(logits).reshape(len(logits), 1, 1, -1), made)[..., 0, 0, :].tolist()


def test_of_several_sigmoids_the_likeliest_that_reaches_one_half_is_written():
    logits = [[3.0, -1.0, -2.0, -1.0], [2.0, 1.0, -1.0, 0.0]]
    assert written_row(logits, values=(5, 7)) == [5, 7, 0, 7]


def test_a_background_of_its_own_does_not_cover_what_is_there():
    logits = [[9.0, 9.0, -1.0], [0.5, -0.5, -1.0]]
    assert written_row(logits, values=(0, 7)) == [7, 0, 0]


def test_outputs_that_only_serve_to_learn_are_left_out():
    logits = [[-9.0], [1.0], [9.0], [9.0], [9.0], [2.0]]
    assert written_row(logits, values=(0, 3, 4), lines=(1,)) == [4]


def test_inner_regions_are_written_over_outer_ones():
    logits = [[-1.0, 1.0, 1.0, 1.0, -1.0], [-1.0, -1.0, 1.0, 9.0, -1.0], [-1.0, -1.0, -1.0, 0.1, 5.0]]
    assert written_row(logits, values=(2, 1, 4), paint_order=(0, 1, 2)) == [0, 2, 1, 4, 4]


def test_overlapping_classes_are_written_each_for_itself():
    logits = [[1.0, -1.0, 0.0], [1.0, 1.0, -1.0]]
    assert written_row(logits, values=(1, 2), overlapping=True) == [[1, 0, 1], [2, 2, 0]]


@pytest.mark.parametrize(
    ("view", "shape"), [("3d", (1, 20, 9)), ("3d", (3, 5, 7)), ("2.5d", (1, 3, 20)), ("2d", (6, 1, 9))]
)
def test_a_small_image_is_segmented_as_if_it_were_mirrored_beyond_its_end(view, shape):
    torch.manual_seed(0)
    card = ModelCard(
        network="unet3d" if view == "3d" else "unet_padding", head="multiclass", view=view, values=(0, 1),
        context=1 if view == "2.5d" else 0, patch=(8, 8, 8) if view == "3d" else (1, 8, 8), normalise="none",
        option={"width": 2, "depth": 3},
    )  # fmt: skip
    model = build_model(card, SegmentSettings(device="cpu"))
    model.network.eval()
    image = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    size = model.fit(np.maximum(shape, smallest_image(model)).tolist())
    padding = [(0, 0), *((0, a - b if a > b else 0) for a, b in zip(size, shape, strict=True))]
    mirrored = np.pad(image, padding, "reflect")
    expected = whole(model, Volume(mirrored), tile=mirrored.shape[1:])[:, : shape[0], : shape[1], : shape[2]]
    assert small_image_notice(model, Volume(image, name="a")).startswith(f"a has {' x '.join(map(str, shape))} voxels")
    assert not small_image_notice(model, Volume(mirrored))
    assert small_image_notice(model, Volume(np.zeros((1, 9, 9, 2)))).endswith(
        "or --axes yxc if its last axis is channels."
    )
    # Tiles of the image begin where those of the larger one do, so that the network sees the same.
    np.testing.assert_allclose(whole(model, Volume(image), tile=mirrored.shape[1:]), expected, atol=1e-5)
