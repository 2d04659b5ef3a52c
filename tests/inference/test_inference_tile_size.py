"""How large tiles become, and what that is decided by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_inference_segment import pointwise_model
from torch import nn

from napari_unetvnet.inference import Slab, decide, plan_tiles
from napari_unetvnet.model.card import ModelCard
from napari_unetvnet.model.model import build_model
from napari_unetvnet.networks import build_network
from napari_unetvnet.networks.base import SegmentationNetwork
from napari_unetvnet.networks.facts import voxel_bytes
from napari_unetvnet.runs.whole_chunks import whole_chunks
from napari_unetvnet.settings import SegmentJob, SegmentSettings

CPU = torch.device("cpu")


class Chain(SegmentationNetwork):
    """Convolutions of single voxels; the first result stays until the end."""

    def __init__(self, dims):
        super().__init__(dims, 1, 2)
        layer = nn.Conv2d if dims == 2 else nn.Conv3d
        self.first, self.second, self.last = layer(1, 8, 1), layer(8, 4, 1), layer(12, 2, 1)

    @property
    def divisor(self):
        return (1,) * self.dims

    def forward(self, x):
        first = self.first(x)
        second = self.second(first)
        return self.last(torch.cat([first, second], 1))


@pytest.mark.parametrize("dims", [2, 3])
def test_memory_of_a_voxel_is_what_is_alive_at_the_worst_moment(dims):
    # the input, both results, both side by side, and the logits: 1 + 8 + 4 + 12 + 2 numbers; then the first two go
    assert voxel_bytes(Chain(dims), CPU) == 4 * (1 + 8 + 4 + 12) + (4 * 2)


@pytest.mark.parametrize("training", [True, False])
def test_measuring_memory_changes_nothing(training):
    network = build_network("unet_padding", 2, 1, 2, {"width": 8}).train(training)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    voxel_bytes(network, CPU)
    assert network.training is training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def model_for(view, patch, width=8):
    chosen = {"head": "multiclass", "context": int(view == "2.5d"), "values": (0, 1, 2)}
    card = ModelCard(network="unet_padding", view=view, patch=patch, option={"width": width}, **chosen)
    return build_model(card, SegmentSettings(device="cpu"))


@pytest.mark.parametrize(("view", "patch"), [("2d", (1, 64, 64)), ("3d", (16, 32, 32))])
def test_an_image_that_fits_is_one_tile(view, patch):
    shape = (1, 320, 240) if view == "2d" else (48, 64, 80)
    tiles = plan_tiles(model_for(view, patch), shape, SegmentSettings())
    assert tiles.size == shape
    assert tiles.places == [(0, 0)]


@pytest.mark.parametrize(("view", "patch"), [("2d", (1, 64, 64)), ("2.5d", (1, 64, 64)), ("3d", (16, 32, 32))])
def test_more_memory_never_means_smaller_tiles(view, patch):
    model, shape = model_for(view, patch), (40, 500, 700)
    sizes = [
        np.prod(plan_tiles(model, shape, SegmentSettings(tile_memory=gib)).size) for gib in (0.01, 0.05, 0.2, 1, 5)
    ]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


def test_where_the_sums_need_the_memory_tiles_become_flat():
    model = model_for("3d", (16, 32, 32), width=4)
    wide = plan_tiles(model, (512, 2048, 2048), SegmentSettings(tile_memory=1)).size
    narrow = plan_tiles(model, (512, 256, 256), SegmentSettings(tile_memory=1)).size
    assert wide[0] < narrow[0]


def test_results_count_in_the_memory_for_a_tile():
    model = model_for("3d", (16, 32, 32), width=4)
    job = SegmentJob(image="a.npy", model="m.safetensors", tile_memory=1)
    likely = job.model_copy(update={"probabilities": Path("p.zarr"), "uncertainty_kind": "entropy"})
    assert (job.result_bytes(3), likely.result_bytes(3)) == (1, 1 + 2 + 3 * 2)
    few, many = (np.prod(plan_tiles(model, (512, 1024, 1024), chosen).size) for chosen in (job, likely))
    assert many < few


def test_what_is_held_back_of_a_chunk_is_a_copy_of_it_alone():
    labels = np.zeros((40, 4, 4), np.uint8)
    made = list(whole_chunks([Slab(0, labels[:35]), Slab(35, labels[35:])], 16, 40))
    assert [slab.labels.shape[0] for slab in made] == [32, 8]
    assert np.shares_memory(made[0].labels, labels)
    assert not np.shares_memory(made[1].labels, labels)


def test_a_tile_is_never_smaller_than_the_training_patch():
    assert plan_tiles(model_for("3d", (16, 48, 32)), (200, 300, 300), SegmentSettings(tile_memory=1e-6)).size == (
        16,
        48,
        32,
    )
    assert plan_tiles(model_for("3d", (16, 48, 32)), (9, 300, 300), SegmentSettings(tile_memory=1e-6)).size == (
        16,
        48,
        32,
    )


@given(
    st.tuples(st.integers(1, 90), st.integers(1, 300), st.integers(1, 300)), st.floats(1e-5, 1e-2), st.floats(0, 0.9)
)
def test_tiles_of_every_size_cover_the_volume(shape, memory, overlap):
    model = pointwise_model(patch=(4, 8, 8))
    tiles = plan_tiles(model, shape, SegmentSettings(tile_memory=memory, overlap=overlap))
    for origins, size, length in zip(tiles.origins, tiles.size, shape, strict=True):
        covered = np.zeros(max(length, origins[-1] + size), bool)
        for origin in origins:
            covered[origin : origin + size] = True
        assert covered[:length].all()


@given(st.integers(2, 6), st.integers(0, 2**32 - 1))
def test_the_class_of_a_voxel_is_the_first_of_the_highest_logits(classes, seed):
    logits = np.random.default_rng(seed).integers(-2, 3, (classes, 2, 3, 4)).astype(np.float32)
    found = decide(torch.from_numpy(logits), "multiclass").numpy()
    np.testing.assert_array_equal(found, logits.argmax(0))


def test_more_classes_than_a_byte_counts():
    logits = torch.zeros(300, 1, 1, 3)
    for voxel, k in enumerate((0, 256, 299)):
        logits[k, 0, 0, voxel] = 1
    assert decide(logits, "multiclass").flatten().tolist() == [0, 256, 299]
