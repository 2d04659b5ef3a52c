"""Parts that are left out: background there, the same as ever elsewhere, and not computed where a tile allows it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from combinations import in_one_case
from hypothesis import given, settings
from hypothesis import strategies as st
from test_inference_orientations import lopsided, model_of
from test_inference_segment import Pointwise, pointwise_model, quick

from napari_unetvnet.errors import DataProblem, SettingsProblem
from napari_unetvnet.images.geometry import Geometry
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.inference import steps
from napari_unetvnet.inference.labels import background_logits, class_probabilities, label_values
from napari_unetvnet.model.card import ModelCard
from napari_unetvnet.settings import SegmentSettings, checked


def segmented(model, volume, mask=None, **chosen):
    """All labels (Z, Y, X) and probabilities (K, Z, Y, X) of a volume."""
    slabs = list(steps(model, volume, SegmentSettings(**chosen), probabilities=True, mask=mask))
    return np.concatenate([s.labels for s in slabs]), np.concatenate([s.probabilities for s in slabs], axis=1)


def counted(model):
    """The numbers of blocks that the network sees."""
    blocks = []
    model.network.register_forward_hook(lambda _, inputs, __: blocks.append(len(inputs[0])))
    return blocks


boxes = st.tuples(*(st.tuples(st.integers(0, n - 1), st.integers(1, n)) for n in (10, 20, 23)))


@settings(quick, max_examples=15)
@given(boxes, st.booleans(), st.sampled_from(["3d", "2d"]))
def test_inside_of_a_part_all_is_as_without_it_and_outside_is_background(ends, masked, view):
    start, stop = (tuple(edges) for edges in zip(*(sorted((a, a + b)) for a, b in ends), strict=True))
    model = lopsided(view, "unet_padding", (4, 8, 8) if view == "3d" else (1, 8, 8))
    volume = Volume(np.random.default_rng(1).normal(size=(1, 10, 20, 23)).astype(np.float32))
    there = np.zeros(volume.shape, bool)
    there[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = True
    how = {"mask": there[None].astype(np.uint8)} if masked else {"box_start": start, "box_stop": stop}
    chosen = {"tile": (4, 8, 8), "overlap": 0.5}
    labels, likely = segmented(model, volume, **chosen, **how)
    whole_labels, whole_likely = segmented(model, volume, **chosen)
    np.testing.assert_array_equal(labels, np.where(there, whole_labels, 0))
    certain = np.array([1, 0, 0], np.float16)[:, None, None, None]
    np.testing.assert_array_equal(likely, np.where(there, whole_likely, certain))


def test_on_another_grid_all_is_as_without_a_mask_where_it_is_not_0():
    model = lopsided("3d", "unet_padding", (4, 8, 8))
    model.card = model.card.model_copy(update={"spacing": (1.0, 1.0, 1.0), "unit": "micrometer"})
    for spacing in ((2.0, 0.5, 0.6), (0.5, 1.7, 2.0)):
        data = np.random.default_rng(1).normal(size=(1, 9, 20, 23)).astype(np.float32)
        volume = Volume(data, Geometry(spacing, "micrometer"))
        mask = np.zeros((1, *volume.shape), np.uint8)
        mask[0, 2:4, 3:9, 16:18] = 7
        for flips in ((), ("x",)):
            labels, likely = segmented(model, volume, mask=mask, tta=flips)
            whole_labels, whole_likely = segmented(model, volume, tta=flips)
            np.testing.assert_array_equal(labels, np.where(mask[0], whole_labels, 0))
            np.testing.assert_array_equal(likely[:, mask[0] != 0], whole_likely[:, mask[0] != 0])


@pytest.mark.parametrize(("own", "spacing"), [((3, 5, 13), (3.0, 1.7, 0.6)), ((7, 4, 9), (0.4, 2.0, 3.1))])
def test_a_single_voxel_has_all_that_it_depends_on_on_another_grid(own, spacing):
    model = model_of(Pointwise)
    model.card = model.card.model_copy(update={"spacing": (1.0, 1.0, 1.0), "unit": "micrometer"})
    volume = Volume(np.random.default_rng(0).normal(size=(1, *own)) * 3, Geometry(spacing, "micrometer"))
    chosen = {"tile": (2, 4, 4), "overlap": 0.0}
    _, whole_likely = segmented(model, volume, **chosen)
    for voxel in np.ndindex(*own):
        if sum(voxel) % 3 == 0:
            mask = np.zeros((1, *own), np.uint8)
            mask[(0, *voxel)] = 1
            likely = segmented(model, volume, mask=mask, **chosen)[1][(slice(None), *voxel)]
            np.testing.assert_array_equal(likely, whole_likely[(slice(None), *voxel)])


def test_tiles_in_which_nothing_is_wanted_are_neither_read_nor_computed():
    class Remembering:
        dtype, ndim, shape = np.dtype(np.float32), 4, (1, 12, 16, 16)

        def __init__(self):
            self.planes = set()

        def __getitem__(self, key):
            self.planes |= set(range(*key[-3].indices(12)))
            return np.zeros((1, 12, 16, 16), np.float32)[key]

    data, model = Remembering(), model_of(Pointwise, patch=(4, 8, 8))
    model.card = model.card.model_copy(update={"normalise_in": "all"})  # else a frame is looked for
    blocks = counted(model)
    chosen = {"tile": (4, 8, 8), "overlap": 0}
    segmented(model, Volume(data), box_start=(4, 0, 8), box_stop=(8, 8, 16), **chosen)
    assert blocks == [1]
    assert data.planes == {4, 5, 6, 7}


def test_a_mask_alone_decides_which_tiles_are_computed():
    model = model_of(Pointwise)
    blocks = counted(model)
    mask = np.zeros((1, 8, 16, 16), np.uint8)
    mask[0, 0, 0, 0] = mask[0, 7, 15, 15] = 1
    segmented(model, Volume(np.zeros(mask.shape, np.float32)), mask=mask, tile=(8, 8, 8), overlap=0)
    assert blocks == [1, 1]


def test_constant_tiles_are_background_without_being_computed():
    model = pointwise_model(patch=(4, 8, 8))
    blocks = counted(model)
    data = np.full((1, 4, 8, 24), -5.0, np.float32)  # of which the network says that it is class 1
    data[0, 2, 3, 20] = -4
    chosen = {"tile": (4, 8, 8), "overlap": 0}
    labels, likely = segmented(model, Volume(data), skip_constant=True, **chosen)
    assert blocks == [1]
    assert not labels[..., :16].any()
    assert labels[..., 16:].all()
    np.testing.assert_allclose(likely[0, ..., :16].astype(float), 1, atol=1e-3)
    assert segmented(model, Volume(data), **chosen)[0].all()


def test_a_tile_is_constant_only_if_all_its_channels_are():
    model = pointwise_model(patch=(4, 8, 8))
    model.card = model.card.model_copy(update={"channels": 2})
    blocks = counted(model)
    data = np.zeros((2, 4, 8, 16), np.float32)
    data[1] = 3.0
    data[1, 0, 0, 9] = 4.0
    segmented(model, Volume(data), skip_constant=True, tile=(4, 8, 8), overlap=0)
    assert blocks == [1]


@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_an_image_without_anything_is_background_whatever_the_tiles(overlap):
    model = pointwise_model(patch=(4, 8, 8))
    blocks = counted(model)
    labels, _ = segmented(model, Volume(np.full((1, 9, 20, 21), -5.0)), skip_constant=True, overlap=overlap)
    assert not labels.any()
    assert not blocks


@in_one_case(
    "card",
    [
        {"head": "binary", "values": (0, 3)},
        {"head": "binary", "values": (3, 0)},
        {"head": "multiclass", "values": (4, 0, 3)},
        {"head": "multilabel", "values": (4, 5)},
        {"head": "multilabel", "values": (4, 0)},
        {"head": "multilabel", "values": (0, 4, 5), "lines": (1,)},
        {"head": "multilabel", "values": (1, 2), "overlapping": True},
    ],
)
def test_what_is_background_for_certain_is_written_as_0_by_every_head(card):
    made = ModelCard(network="unet_padding", view="2d", patch=(1, 8, 8), **card)
    logits = background_logits(made)
    assert logits.shape == (made.outputs, 1, 1, 1)
    assert not label_values(logits, made).any()
    likely = class_probabilities(logits, made).ravel()
    np.testing.assert_allclose(likely.astype(float), [value == 0 for value in made.values], atol=1e-3)


def test_parts_that_cannot_be_are_refused():
    model, volume = model_of(Pointwise), Volume(np.zeros((1, 8, 16, 16), np.float32))
    with pytest.raises(SettingsProblem, match=r"starts at 0 16 0, outside .* 8 x 16 x 16"):
        next(steps(model, volume, SegmentSettings(box_start=(0, 16, 0))))
    with pytest.raises(DataProblem, match=r"mask has 8 x 16 x 15 voxels.*8 x 16 x 16"):
        next(steps(model, volume, SegmentSettings(), mask=np.ones((1, 8, 16, 15))))
    with pytest.raises(SettingsProblem, match=r"stops at \(4, 4, 4\), not after its start \(0, 4, 0\)"):
        checked(SegmentSettings, {"box_start": (0, 4, 0), "box_stop": (4, 4, 4)})
    model.card = model.card.model_copy(update={"values": (3, 7)})
    with pytest.raises(SettingsProblem, match=r"no background \(it writes 3, 7\)"):
        next(steps(model, volume, SegmentSettings(skip_constant=True)))


def test_going_on_from_a_plane_gives_the_same_bits_of_a_part():
    torch.manual_seed(0)
    model = lopsided("3d", "unet_padding", (4, 8, 8))
    volume = Volume(np.random.default_rng(2).normal(size=(1, 12, 17, 19)))
    chosen = SegmentSettings(box_start=(2, 3, 4), box_stop=(9, 9, 9), overlap=0.5, tta=("z",), skip_constant=True)
    everything = np.concatenate([slab.labels for slab in steps(model, volume, chosen)])
    rest = np.concatenate([slab.labels for slab in steps(model, volume, chosen, first_plane=5)])
    np.testing.assert_array_equal(rest, everything[5:])
    assert everything[2:9].any()
