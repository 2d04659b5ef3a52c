"""Cross-validation: parts that are disjoint, cover all labels and do not depend on patch or network."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unetvnet.conventions import IGNORE
from napari_unetvnet.data.prepare import prepare_data
from napari_unetvnet.errors import DataProblem, SettingsProblem
from napari_unetvnet.images.pairs import Pair
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.settings import TrainSettings, checked


def chosen(folds, fold, **more):
    return checked(TrainSettings, {"normalise": "none", "folds": folds, "fold": fold} | more)


def numbered(shape, name="image"):
    """An image in which every voxel has its own value, so that a region tells where it is from."""
    return Volume(np.arange(np.prod(shape), dtype=np.float64).reshape(1, *shape), name=name)


def values_of(regions):
    """Numbers of the labelled voxels of regions."""
    found = [np.asarray(region.image.data)[0][region.target != IGNORE] for region in regions]
    return np.concatenate(found) if found else np.empty(0)


def painted(shape, seed=0):
    return Volume(np.random.default_rng(seed).integers(1, 3, (1, *shape)).astype(np.uint8))


@settings(max_examples=25)
@given(
    st.tuples(st.integers(1, 6), st.integers(20, 40), st.integers(20, 40)),
    st.integers(2, 5),
    st.tuples(st.integers(1, 3), st.integers(4, 16), st.integers(4, 16)),
)
def test_blocks_are_disjoint_cover_all_labels_and_are_never_learnt_from(shape, folds, patch):
    pair = Pair(numbered(shape), painted(shape))
    every = []
    for fold in range(folds):
        data = prepare_data([pair], chosen(folds, fold), patch)
        held, learnt = values_of(data.hold_out), values_of(data.train)
        for region in (*data.train, *data.hold_out):  # a region knows where it is from
            (box,) = region.boxes
            np.testing.assert_array_equal(region.image.data, pair.image.crop(box).data)
        assert not np.isin(learnt, held).any()
        assert len(learnt)
        images, _, _ = data.batch(np.random.default_rng(fold), 2, patch, (0, 0, 0))
        assert not np.isin(images, held.astype(np.float32)).any()
        every.append(held)
    np.testing.assert_array_equal(np.sort(np.concatenate(every)), np.arange(np.prod(shape)))


def test_a_middle_fold_learns_from_both_sides_with_a_margin():
    pair = Pair(numbered((1, 20, 90)), painted((1, 20, 90)))
    data = prepare_data([pair], chosen(3, 1), (1, 8, 8))
    assert [region.image.shape for region in data.train] == [(1, 20, 22), (1, 20, 22)]
    assert data.hold_out[0].image.shape == (1, 20, 30)
    assert "x 30 to 60; 8 voxels beside them" in data.notices[0]
    learnt, held = data.parts(0)
    assert [(box.start[2], box.stop[2]) for box in learnt] == [(0, 22), (68, 90)]
    assert [(box.start[2], box.stop[2]) for box in held] == [(30, 60)]


def test_the_block_does_not_depend_on_the_patch():
    pair = Pair(numbered((4, 20, 90)), painted((4, 20, 90)))
    held = [prepare_data([pair], chosen(3, 2), patch).hold_out[0] for patch in ((1, 4, 4), (4, 16, 16))]
    np.testing.assert_array_equal(held[0].image.data, held[1].image.data)


def test_only_the_labelled_part_is_divided():
    labels = np.zeros((1, 1, 20, 100), np.uint8)
    labels[..., 40:100] = painted((1, 20, 60)).data
    pair = Pair(numbered((1, 20, 100)), Volume(labels))
    data = prepare_data([pair], chosen(3, 0, unlabelled="ignore"), (1, 4, 4))
    assert "x 40 to 60" in data.notices[0]
    assert len(data.train) == 1, "nothing is labelled before the block"


def test_whole_volumes_are_held_out_once_each():
    shape = (1, 12, 12)
    pairs = [Pair(numbered(shape, name=f"v{i}"), painted(shape, i)) for i in range(7)]
    parts = [prepare_data(pairs, chosen(3, fold, seed=4), (1, 8, 8)) for fold in range(3)]
    names = [[region.image.name for region in data.hold_out] for data in parts]
    assert sorted(name for part in names for name in part) == [f"v{i}" for i in range(7)]
    assert {len(part) for part in names} == {2, 3}
    for data, part in zip(parts, names, strict=True):
        assert not {region.image.name for region in data.train} & set(part)
        assert all(name in data.notices[0] for name in part)


def test_a_class_on_one_side_only_is_told():
    labels = np.ones((1, 1, 10, 60), np.uint8)
    labels[..., :15] = 2
    pair = Pair(numbered((1, 10, 60)), Volume(labels))
    settings = {"unlabelled": "ignore"}
    first = prepare_data([pair], chosen(3, 0, **settings), (1, 4, 4))
    last = prepare_data([pair], chosen(3, 2, **settings), (1, 4, 4))
    assert "Fold 0 of 3 has no labels of class 2 to train on." in first.notices
    assert "Fold 2 of 3 has no labels of class 2 to validate on." in last.notices


def test_what_cannot_be_divided_is_refused():
    labels = np.zeros((1, 1, 10, 60), np.uint8)
    labels[..., 5, 5:8] = (1, 2, 1)
    pair = Pair(numbered((1, 10, 60)), Volume(labels))
    with pytest.raises(DataProblem, match="too short for 4 folds"):
        prepare_data([pair], chosen(4, 0, unlabelled="ignore"), (1, 4, 4))
    marked = Pair(numbered((1, 20, 20)), painted((1, 20, 20)), "val")
    with pytest.raises(DataProblem, match="leave out folds or the marks"):
        prepare_data([marked, Pair(marked.image, marked.labels)], chosen(2, 0), (1, 4, 4))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"folds": 3, "fold": 3}, "Fold 3 is not one of 3 folds"),
        ({"fold": 1}, "Fold 1 is not one of 1 folds"),
        ({"folds": 3, "hold_out": 0.3}, "leave hold_out as it is"),
    ],
)
def test_folds_that_do_not_fit_are_refused(values, said):
    with pytest.raises(SettingsProblem, match=said):
        checked(TrainSettings, values)
