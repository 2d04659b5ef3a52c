"""Volumes at another voxel size: what stays, what is interpolated, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from combinations import in_one_case
from hypothesis import given
from hypothesis import strategies as st

from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.geometry import Geometry
from napari_unetvnet.images.resample import Resampled, at_spacing, grid_at, spacing_in
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.inference.regrid import plane_before, regrid

lengths = st.integers(1, 12)
shapes = st.tuples(lengths, lengths, lengths)


def noise(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@given(shapes, shapes)
def test_constant_in_constant_out_and_values_stay_between_the_darkest_and_the_brightest(own, seen):
    assert np.asarray(Resampled(np.full((2, *own), 7), seen, "linear")) == pytest.approx(7)
    data = noise((1, *own))
    found = np.asarray(Resampled(data, seen, "linear"))
    assert found.shape == (1, *seen)
    assert found.min() >= data.min() - 1e-5
    assert found.max() <= data.max() + 1e-5


@given(shapes, shapes, st.sampled_from(["linear", "nearest"]), st.data())
def test_a_part_is_the_same_as_that_part_of_the_whole(own, seen, rule, drawn):
    lazy = Resampled(noise((2, *own)), seen, rule)
    starts = [drawn.draw(st.integers(0, n - 1)) for n in seen]
    box = tuple(slice(a, drawn.draw(st.integers(a + 1, n))) for a, n in zip(starts, seen, strict=True))
    np.testing.assert_allclose(lazy[(..., *box)], np.asarray(lazy)[(..., *box)], rtol=1e-6, atol=1e-6)
    assert lazy[1, box[0]].shape == (len(range(*box[0].indices(seen[0]))), *seen[1:])
    assert lazy[:, starts[0]].shape == (2, *seen[1:])


@given(shapes, shapes, st.sampled_from(["linear", "nearest"]))
def test_mirrored_in_mirrored_out(own, seen, rule):
    data = noise((1, *own))
    there = np.asarray(Resampled(data, seen, "linear"))
    mirrored = np.asarray(Resampled(data[..., ::-1], seen, "linear"))[..., ::-1]
    np.testing.assert_allclose(there, mirrored, rtol=1e-5, atol=1e-5)


def test_halving_and_doubling_by_hand():
    line = np.array([0.0, 4, 8, 12]).reshape(1, 1, 1, 4)
    # Twice as many: centres at -.25, .25, .75 ...; half as many: triangles of width 2 around .5 and 2.5.
    doubled = np.asarray(Resampled(line, (1, 1, 8), "linear")).ravel()
    np.testing.assert_allclose(doubled, [0, 1, 3, 5, 7, 9, 11, 12], atol=1e-6)
    halved = np.asarray(Resampled(line, (1, 1, 2), "linear")).ravel()
    weights = np.array([0.75, 0.75, 0.25])  # of voxels .5, .5 and 1.5 away; the one at -1 does not exist
    np.testing.assert_allclose(halved, [weights @ [0, 4, 8] / 1.75, weights[::-1] @ [4, 8, 12] / 1.75], atol=1e-6)


def test_labels_keep_their_values_and_type():
    labels = np.array([1, 1, 255, 3], np.uint8).reshape(1, 1, 1, 4)
    found = np.asarray(Resampled(labels, (1, 1, 8), "nearest"))
    assert found.dtype == np.uint8
    assert found.ravel().tolist() == [1, 1, 1, 1, 255, 255, 3, 3]


@in_one_case("z", range(9))
def test_only_what_is_needed_is_read(z):
    class Watched:
        shape, dtype = (1, 90, 50, 50), np.dtype(np.uint8)

        def __getitem__(self, key):
            read.append(key)
            return np.zeros(self.shape, np.uint8)[key]

    read = []
    lazy = Resampled(Watched(), (9, 50, 50), "linear")
    assert lazy.shape == (1, 9, 50, 50)
    assert not read
    lazy[:, z]
    assert [key[1].stop - key[1].start <= 21 for key in read] == [True]


def test_units_are_converted_and_pixels_are_not():
    assert spacing_in((1, 0.5, 0.5), "mm", "micrometer") == pytest.approx((1000, 500, 500))
    assert spacing_in((1, 1, 1), "pixel", "mm") is None
    assert spacing_in((2, 1, 1), "pixel", "pixel") == (2, 1, 1)


@in_one_case(
    "wanted, planar, grid",
    [
        (None, False, (10, 20, 30)),
        ((2.1, 1, 1), False, (10, 20, 30)),  # hardly different
        ((1, 2, 2), False, (20, 10, 15)),
        ((1, 2, 2), True, (10, 10, 15)),  # planes stay
        ((4, 1, 1), True, (10, 20, 30)),
    ],
)
def test_the_grid_at_a_voxel_size(wanted, planar, grid):
    assert grid_at(Volume(np.zeros((1, 10, 20, 30)), Geometry((2, 1, 1))), wanted, planar=planar) == grid


def test_a_volume_keeps_its_extent_and_an_absurd_grid_is_refused():
    volume = Volume(noise((1, 10, 20, 30)), Geometry((2, 1, 1), "mm"))
    seen = at_spacing(volume, (20, 10, 15))
    assert [n * s for n, s in zip(seen.shape, seen.spacing, strict=True)] == [20, 20, 30]
    assert at_spacing(volume, volume.shape) is volume
    with pytest.raises(DataProblem, match=r"8000 times as many.*unit"):
        at_spacing(volume, (200, 400, 600))


def test_labels_of_another_size_are_refused_and_not_stretched():
    from napari_unetvnet.data.prepare import resample_pairs
    from napari_unetvnet.images.pairs import Pair
    from napari_unetvnet.settings import TrainSettings, checked

    pair = Pair(Volume(noise((1, 1, 20, 20))), Volume(np.ones((1, 1, 10, 10), np.uint8)))
    assert resample_pairs([pair], checked(TrainSettings, {}))[0] is pair
    with pytest.raises(DataProblem, match="20 x 20"):
        resample_pairs([pair], checked(TrainSettings, {"target_spacing": (1, 2, 2)}))


@given(shapes, shapes, st.integers(1, 5), st.data())
def test_scores_come_back_the_same_in_whatever_slabs_they_come(own, seen, slab, drawn):
    values = torch.from_numpy(noise((2, *seen)))
    first = drawn.draw(st.integers(0, own[0] - 1))
    whole = torch.cat([part for _, part in regrid([(0, values)], seen, own)], dim=1)
    expected = Resampled(values.numpy(), own, "linear")
    if all(n >= m for n, m in zip(own, seen, strict=True)):  # towards smaller voxels both are plain interpolation
        np.testing.assert_allclose(whole, np.asarray(expected), atol=1e-5)
    begin = plane_before(first, seen[0], own[0])
    slabs = [(z, values[:, z : min(z + slab, seen[0])]) for z in range(begin, seen[0], slab)]
    parts = list(regrid(slabs, seen, own, first))
    assert parts[0][0] == first
    assert [start for start, _ in parts] == [first + sum(p.shape[1] for _, p in parts[:i]) for i in range(len(parts))]
    assert torch.equal(torch.cat([part for _, part in parts], dim=1), whole[:, first:])


def test_a_training_at_another_voxel_size_labels_images_on_their_own_grids(tmp_path, monkeypatch):
    """Discs of the same size in millimetres, on a fine and on a coarse grid."""
    from napari_unetvnet.events import PreviewReady
    from napari_unetvnet.images.pairs import Pair
    from napari_unetvnet.inference import steps
    from napari_unetvnet.model.card import read_card
    from napari_unetvnet.model.model import load_model
    from napari_unetvnet.runs.folder import MODEL, training_files
    from napari_unetvnet.settings import SegmentSettings, TrainSettings, checked
    from napari_unetvnet.training import loop, preview

    def disc(edge, spacing, unit):
        place = (np.arange(edge) + 0.5) * spacing - 32
        there = (place[:, None] ** 2 + place**2 < 20**2)[None, None]
        image = there + np.random.default_rng(edge).normal(0, 0.2, there.shape)
        size = spacing * {"mm": 1, "micrometer": 1000}[unit]
        return Pair(Volume(image, Geometry((1, size, size), unit)), Volume(there.astype(np.uint8)))

    fine, coarse = disc(128, 0.5, "mm"), disc(32, 2.0, "micrometer")
    chosen = {"target_spacing": (1, 1, 1), "option": {"width": 4, "depth": 2}, "patch": (1, 32, 32), "steps": 60}
    settings = checked(TrainSettings, {"device": "cpu", "hold_out": 0, "preview": (0, 64, 64), **chosen})
    monkeypatch.setattr(preview, "FIRST_SECONDS", 1e-3)
    events = list(loop.steps([fine, coarse], settings, training_files(tmp_path)))
    shown = next(event for event in events if isinstance(event, PreviewReady))
    assert shown.start == (0, 0, 0)
    assert np.load(shown.path).shape == (1, 128, 128)
    card = read_card(tmp_path / MODEL)
    assert (card.spacing, card.unit) == ((1, 1, 1), "mm")
    model = load_model(tmp_path / MODEL, SegmentSettings(device="cpu"))
    for pair in (fine, coarse):
        found = np.concatenate([slab.labels for slab in steps(model, pair.image, SegmentSettings())])
        truth = pair.labels.data[0]
        assert found.shape == truth.shape
        assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.95
