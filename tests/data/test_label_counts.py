"""One pass over labels: right counts, whatever is asked for, and the labels are not read again."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from napari_unetvnet.data import label_counts as label_counts_module
from napari_unetvnet.data.checks import examine
from napari_unetvnet.data.checks.thumbnail import make_thumbnail
from napari_unetvnet.data.label_counts import label_counts
from napari_unetvnet.data.prepare import prepare_data
from napari_unetvnet.images import sampling
from napari_unetvnet.images.pairs import Pair
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.settings import TrainJob, checked
from napari_unetvnet.training.plan import plan


class Watched:
    """An array that counts the values that are read of it."""

    def __init__(self, array):
        self.array, self.read = array, 0
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim

    def __getitem__(self, where):
        part = self.array[where]
        self.read += part.size
        return part


@pytest.fixture
def labels():
    painted = np.zeros((1, 4, 6, 8), np.uint8)
    painted[0, 1, 2:4, 1:3] = 1  # centre z 1, y 2.5, x 1.5
    painted[0, 3, 5, 7] = 7
    return painted


def test_counts_and_centres_by_hand(labels):
    counted = label_counts(Volume(labels))
    assert counted.counts == counted.shown == (Counter({0: 187, 1: 4, 7: 1}),)
    assert (counted.unpainted, counted.painted, counted.painted_planes) == (187, 5, (False, True, False, True))
    assert counted.painted_share == pytest.approx(5 / 192)
    np.testing.assert_allclose(counted.centres[1], [1 / 4, 2.5 / 6, 1.5 / 8])
    np.testing.assert_allclose(counted.centres[7], [3 / 4, 5 / 6, 7 / 8])


def test_a_mask_hides_voxels_from_what_is_shown_only(labels):
    mask = np.ones_like(labels)
    mask[0, 1, 2] = 0
    counted = label_counts(Volume(labels), Volume(mask))
    assert counted.counts[0][1] == 4
    assert counted.shown[0][1] == 2
    assert counted.unpainted == 187 - 6


@pytest.mark.parametrize("shape", [(1, 40, 50), (30, 40, 50), (7, 11, 13)])
def test_the_thinned_copy_has_every_nth_voxel(monkeypatch, shape):
    monkeypatch.setattr(label_counts_module, "THINNED_VOXELS", 300)
    monkeypatch.setattr(sampling, "SLAB_VOXELS", 700)  # read in many parts
    values = np.random.default_rng(0).integers(0, 1000, (1, *shape)).astype(np.uint16)
    counted = label_counts(Volume(values))
    n = counted.step
    assert n > 1
    np.testing.assert_array_equal(counted.thinned, values[0, ::n, ::n, ::n])


def test_labels_are_read_once_for_all_who_ask(labels):
    """Checks, plan and classes share one pass, a second one makes the target; samples are read beside them."""
    rng = np.random.default_rng(0)
    stack = rng.integers(0, 3, (1, 400, 20, 20)).astype(np.uint8)
    watched, image = Watched(stack), Volume(rng.normal(size=stack.shape).astype(np.float32))
    values = {"image": "a", "label": "b", "patch": (1, 16, 16), "loss": "ce", "unlabelled": "background"}
    values |= {"start_from": "none"}  # otherwise shipped models are applied to a part
    job = checked(TrainJob, values)
    make_thumbnail(image, Volume(watched), (), job)
    planes, watched.read = watched.read, 0  # those that are compared with the image
    pair = Pair(image, Volume(watched))
    planned = plan([pair], job, "cpu")  # counts classes, to weight rare ones
    assert stack.size <= watched.read < 1.2 * stack.size
    examine([pair], planned.settings)
    prepare_data([pair], planned.settings, (1, 16, 16))
    assert 2 * stack.size + planes <= watched.read < 2.25 * stack.size + planes


def test_more_is_read_where_only_parts_were(labels):
    volume = Volume(labels)
    part = label_counts(volume, limit=48)
    assert part.read < 1
    assert part.painted_planes == ()
    whole = label_counts(volume)
    assert whole.read == 1
    assert whole.counts[0].total() == labels.size
    assert label_counts(volume, limit=48) is whole
