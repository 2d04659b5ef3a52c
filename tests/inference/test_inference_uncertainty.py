"""How unsure a network is: 0 where it is certain, 1 where all classes are alike, and how its views of a tile vary."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from test_inference_segment import CPU, RAW, Pointwise, pointwise_model

from napari_unetvnet.images.geometry import Geometry
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.inference import scores, steps
from napari_unetvnet.inference.uncertainty import entropy, with_variance
from napari_unetvnet.model.card import ModelCard
from napari_unetvnet.model.model import Model
from napari_unetvnet.settings import SegmentSettings

CARDS = {
    "binary": ModelCard(network="unet3d", head="binary", view="3d", values=(0, 1), patch=(8, 8, 8)),
    "multiclass": ModelCard(network="unet3d", head="multiclass", view="3d", values=(0, 1, 2), patch=(8, 8, 8)),
    "multilabel": ModelCard(network="unet3d", head="multilabel", view="3d", values=(1, 2, 3), patch=(8, 8, 8)),
}
HEADS = pytest.mark.parametrize("head", list(CARDS))


@HEADS
def test_entropy_is_1_where_all_is_alike_and_0_where_one_class_is_certain(head):
    card = CARDS[head]
    alike = torch.zeros(card.outputs, 1, 1, 1)
    certain = torch.full((card.outputs, 1, 1, 1), -math.inf)
    certain[0] = 0.0 if head == "multiclass" else math.inf
    assert entropy(alike, card).item() == pytest.approx(1, abs=1e-6)
    assert entropy(certain, card).item() == 0


def test_entropy_by_hand():
    def given(*likely):
        return torch.tensor(likely)[:, None, None, None]

    shannon = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75)) / math.log(2)
    assert entropy(given(0.25).logit(), CARDS["binary"]).item() == pytest.approx(shannon, rel=1e-5)
    three = -(0.5 * math.log(0.5) + 2 * 0.25 * math.log(0.25)) / math.log(3)
    assert entropy(given(0.5, 0.25, 0.25).log(), CARDS["multiclass"]).item() == pytest.approx(three, rel=1e-5)
    highest = entropy(given(0.99, 0.25, 0.01).logit(), CARDS["multilabel"]).item()
    assert highest == pytest.approx(shannon, rel=1e-5)


@HEADS
def test_the_variance_is_that_of_the_probabilities(head):
    torch.manual_seed(0)
    parts = [torch.randn(2, 3, 1, 4, 5) for _ in range(6)]
    likely = torch.stack([p.softmax(1) if head == "multiclass" else p.sigmoid() for p in parts])
    found = with_variance(iter(parts), head)
    assert found.shape == (2, 4, 1, 4, 5)
    torch.testing.assert_close(found[:, 3], likely.var(0, correction=0).mean(1), rtol=1e-4, atol=1e-7)
    mean = found[:, :3].softmax(1) if head == "multiclass" else found[:, :3].sigmoid()
    torch.testing.assert_close(mean, likely.mean(0), rtol=1e-4, atol=1e-6)


def test_views_that_agree_do_not_vary():
    same = torch.randn(1, 2, 2, 3, 3)
    assert with_variance([same] * 8, "multiclass")[:, 2].max() == 0


class Lopsided(Pointwise):
    """Logits with the column's number in them, so that a mirrored tile says something else."""

    def forward(self, x):
        ramp = torch.arange(x.shape[-1], dtype=x.dtype) / x.shape[-1]
        return torch.cat([x + ramp, -x - ramp], dim=1)


def model_of(network):
    return Model(network, pointwise_model().card, CPU)


def unsure(model, data, **chosen):
    slabs = list(steps(model, Volume(data), SegmentSettings(device="cpu", **chosen)))
    return np.concatenate([slab.uncertainty for slab in slabs])


def test_a_network_to_which_mirrored_is_the_same_does_not_vary_and_another_does():
    data = np.random.default_rng(0).normal(size=(1, 12, 20, 24)).astype(np.float32)
    chosen = {"uncertainty_kind": "variance", "tta": ("x",), "tile": (8, 16, 16)}
    assert unsure(model_of(Pointwise(3)), data, **chosen).max() < 1e-6
    assert unsure(model_of(Lopsided(3)), data, **chosen).min() >= 0
    assert unsure(model_of(Lopsided(3)), data, **chosen).mean() > 1e-3


def test_the_variance_changes_nothing_about_the_logits():
    data = np.random.default_rng(0).normal(size=(1, 12, 20, 24)).astype(np.float32)
    ways = [
        torch.cat([found for _, found in scores(model_of(Lopsided(3)), Volume(data), settings, RAW)], 1)
        for settings in (
            SegmentSettings(device="cpu", tta=("z", "x"), tile=(8, 16, 16), uncertainty_kind=kind)
            for kind in ("entropy", "variance")
        )
    ]
    assert (ways[0].shape[0], ways[1].shape[0]) == (2, 3)
    assert torch.equal(ways[0], ways[1][:2])


@pytest.mark.parametrize("kind", ["entropy", "variance"])
def test_uncertainty_is_the_same_from_any_plane_on_and_0_where_nothing_is_wanted(kind):
    data = np.random.default_rng(0).normal(size=(1, 13, 20, 24)).astype(np.float32)
    chosen = SegmentSettings(device="cpu", tta=("x",), tile=(4, 16, 16), uncertainty_kind=kind, box_stop=(13, 20, 20))
    model = model_of(Lopsided(3))
    whole = np.concatenate([slab.uncertainty for slab in steps(model, Volume(data), chosen)])
    rest = np.concatenate([slab.uncertainty for slab in steps(model, Volume(data), chosen, first_plane=5)])
    assert (whole.shape, whole.dtype) == (data.shape[1:], np.float16)
    np.testing.assert_array_equal(whole[5:], rest)
    assert not whole[..., 20:].any()
    assert whole[..., :20].any()


@pytest.mark.parametrize("kind", ["entropy", "variance"])
def test_uncertainty_lies_on_the_images_grid_when_the_network_sees_another(kind):
    card = pointwise_model().card.model_copy(update={"spacing": (2.0, 1.0, 1.0), "unit": "micrometer"})
    model = Model(Lopsided(3), card, CPU)
    data = np.random.default_rng(0).normal(size=(1, 24, 20, 24)).astype(np.float32)
    volume = Volume(data, Geometry((1.0, 1.0, 1.0), "micrometer"))
    chosen = SegmentSettings(device="cpu", tta=("x",), uncertainty_kind=kind, skip_constant=True)
    slabs = list(steps(model, volume, chosen))
    found = np.concatenate([slab.uncertainty for slab in slabs])
    assert found.shape == data.shape[1:]
    assert 0 <= found.min() <= found.max() <= 1
    assert np.concatenate([slab.labels for slab in slabs]).shape == data.shape[1:]


def test_without_a_kind_there_is_none():
    slab = next(steps(pointwise_model(), Volume(np.zeros((1, 8, 16, 16), np.float32)), SegmentSettings(device="cpu")))
    assert slab.uncertainty is None
