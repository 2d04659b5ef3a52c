"""Checks of images: grids, places in space, intensities, repeated images, images that do not go together."""

from __future__ import annotations

import numpy as np
import pytest
from checks_cases import discs, image_of, kinds, mask, pair, report, the
from combinations import in_one_case

from napari_unetvnet.data.checks import examine
from napari_unetvnet.data.checks.thumbnail import TURNS
from napari_unetvnet.data.prepare import prepare_data
from napari_unetvnet.images.pairs import Pair
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.settings import TrainJob, TrainSettings, checked
from napari_unetvnet.training.plan import plan


def oblong():
    return mask(size=96)[:64]


@in_one_case(
    "image, labels, guess",
    [
        (np.ones((1, 1, 64, 96)), np.ones((96, 64), np.uint8), "transposed to z x y"),
        (np.ones((40, 64, 96)), np.ones((96, 64, 40), np.uint8), "transposed to x y z"),
        (np.ones((64, 96, 3)), np.ones((64, 96), np.uint8), "stored y x channel"),
        (np.ones((3, 64, 96)), np.ones((64, 96), np.uint8), "3 planes of the image may be channels"),
        (np.ones((64, 96)), np.ones((32, 48), np.uint8), "0.5 times as large"),
    ],
)
def test_labels_of_another_size_are_an_error_with_a_guess(image, labels, guess):
    found = the("other-size", pair(labels, image))
    assert found.severity == "error"
    assert guess in found.remedy


def test_a_table_of_one_bad_and_one_good_pair_still_counts_the_good_one():
    found = report(pair(), pair(mask()[:50], image_of(mask()), seed=1))
    assert [finding.kind for finding in found.findings] == ["other-size"]
    assert found.classes[1].voxels == mask().sum()
    assert found.images[1].voxels == {}


@in_one_case("turn", [name for name in TURNS if name and "planes" not in name])
def test_turned_labels_are_found(turn):
    labels = discs(3, size=128, count=5) > 0
    stored = TURNS[turn](labels[None])[0]
    # What was done to the labels is undone by the same turn, but for the quarter turns.
    back = {"to the left": "to the right", "to the right": "to the left"}
    undo = next((turn.replace(a, b) for a, b in back.items() if a in turn), turn)
    assert undo in the("turned", pair(stored.astype(np.uint8), image_of(labels))).found


def test_reversed_planes_are_found():
    stack = np.stack([mask(seed) for seed in range(8)])
    assert "reversed order" in the("turned", pair(stack[::-1], image_of(stack))).found
    assert "turned" not in kinds(pair(stack, image_of(stack)))


def test_noise_and_faint_images_are_not_called_turned():
    noise = np.random.default_rng(0).integers(0, 200, (128, 128)).astype(np.uint8)
    assert "turned" not in kinds(pair(mask(size=128), noise))


def test_rare_blobs_beside_stronger_edges_are_not_called_turned():
    found = set()
    for seed in range(12):
        rng = np.random.default_rng(seed)
        z, y, x = np.mgrid[:12, :64, :64]
        head = ((y - 32) / 27) ** 2 + ((x - 32) / 23) ** 2 < 1
        blob = ((z - 6) / 3) ** 2 + ((y - rng.integers(20, 44)) / 5) ** 2 + ((x - rng.integers(20, 44)) / 5) ** 2 < 1
        image = 100.0 * head + rng.normal(0, 8, (3, 12, 64, 64)) + 15 * blob
        image += 60 * (((y - 32) / 9) ** 2 + (np.abs(x - 32) - 6) ** 2 / 9 < 1)
        pairs = [Pair(Volume(image, name=str(seed)), Volume(blob[None].astype(np.uint8)))]
        found |= {finding.kind for finding in report(*pairs).findings}
    assert "turned" not in found


def test_what_is_unclear_in_each_image_is_found_in_all():
    pairs = []
    for seed in range(6):
        truth, noise = mask(seed, size=160), np.random.default_rng(seed).normal(0, 140, (160, 160))
        pairs.append(pair(truth[:, ::-1], truth * 100 + noise, seed=seed))
    (found,) = [finding for finding in report(*pairs).findings if finding.kind == "turned" and not finding.about]
    assert "mirrored in x" in found.found


@in_one_case("shape, found", [((64, 64, 3), True), ((64, 64, 10), True), ((10, 64, 64), False), ((20, 64, 48), False)])
def test_axes_in_an_unusual_order_are_found(shape, found):
    labels = np.zeros(shape, np.uint8)
    labels[shape[0] // 2 :] = 1
    assert ("axes" in kinds(pair(labels))) == found
    known = {"spacing": (1.0, 1.0, 5.0), "unit": "mm"}
    assert "axes" not in kinds(pair(labels, space=known, label_space=known))


def test_another_place_in_space_is_found():
    mm, um = {"spacing": (2.0, 1.0, 1.0), "unit": "mm"}, {"spacing": (2.0, 1.0, 1.0), "unit": "micrometer"}
    assert kinds(pair(space=mm, label_space=mm)) == set()
    assert kinds(pair(space=mm)) == set(), "labels in a PNG say nothing"
    assert "2 x 1 x 1 micrometer" in the("other-place", pair(space=mm, label_space=um)).found
    wider = mm | {"spacing": (2.0, 1.5, 1.5)}
    assert "2 x 1.5 x 1.5 mm" in the("other-place", pair(space=mm, label_space=wider)).found


def test_another_affine_is_found():
    here = np.diag([1.0, 1, 1, 1])
    there, flipped, same = here.copy(), np.diag([-1.0, 1, 1, 1]), here + 1e-4
    there[0, 3] = 12
    space = {"affine": here}
    assert "12 voxels along x" in the("other-place", pair(space=space, label_space={"affine": there})).found
    assert (
        "mirrored along x against the image"
        in the("other-place", pair(space=space, label_space={"affine": flipped})).found
    )
    assert kinds(pair(space=space, label_space={"affine": same})) == set()


def test_views_that_do_not_suit_the_stack_are_told():
    stack = np.stack([mask(size=64)] * 4)
    coarse, even = ({"spacing": (z, 1.0, 1.0), "unit": "mm"} for z in (6.0, 2.0))
    small = {"view": "3d", "patch": (4, 32, 32)}
    assert "--view 2.5d" in the("anisotropic", pair(stack, space=coarse), **small).remedy
    assert "anisotropic" not in kinds(pair(stack, space=even), **small)
    assert "anisotropic" not in kinds(pair(stack, space=coarse))
    assert "--view 2d" in the("one-plane", pair(), view="3d").remedy


def test_nan_is_an_error_with_the_number_of_voxels():
    broken = image_of(mask()).astype(np.float32)
    broken[3, 4:6] = np.nan, np.inf
    assert the("not-finite", pair(image=broken)).found == "2 voxels are NaN or infinite."
    broken[:] = np.nan
    assert kinds(pair(image=broken)) == {"not-finite", "constant"}


def test_constant_images_channels_and_planes_are_found():
    assert "Every voxel of the image is 7" in the("constant", pair(image=np.full((96, 96), 7, np.uint8))).found
    grey = image_of(mask())
    rgba = np.stack([grey, 255 - grey, grey // 2, np.full_like(grey, 255)])[:, None]
    assert "alpha" in the("constant-channel", pair(image=rgba)).why
    assert kinds(pair(image=rgba[:3])) == set()


def test_lost_planes_are_found_and_padding_is_not_told():
    labels = np.stack([mask(size=64)] * 6)
    labels[[0, 5]] = 0
    image = image_of(labels)
    image[[0, 5]] = 0
    assert "flat-planes" not in kinds(pair(labels, image))
    image[3] = 0
    assert "--mask" in the("flat-planes", pair(labels, image)).remedy


def test_saturated_and_mostly_empty_images_are_found():
    bright = image_of(mask()).astype(int) * 2
    assert the("saturated", pair(image=bright.clip(0, 255).astype(np.uint8))).severity == "warning"
    assert "saturated" not in kinds(pair())
    small = np.zeros((400, 400), np.uint8)
    small[:70, :70] = image_of(mask(size=70))
    assert "percentile" in the("mostly-empty", pair(mask(size=400), small)).remedy


def test_grey_saved_as_colours_is_told():
    grey = image_of(mask())
    assert (
        "Channels 1 and 2 and 3 of 3 are the same"
        in the("same-channels", pair(image=np.stack([grey] * 3)[:, None])).found
    )
    assert "same-channels" not in kinds(pair(image=np.stack([grey, grey // 2])[:, None]))


def test_an_image_that_is_its_labels_is_found():
    assert "image-is-labels" in kinds(pair(mask(), mask()))
    assert "image-is-labels" not in kinds(pair())


def test_images_given_twice_are_found_and_more_so_across_the_split():
    one, two = image_of(mask()), image_of(mask(1), 1)
    twice = [pair(image=one), pair(mask(1), two, seed=1), pair(image=one.copy(), seed=2)]
    assert "image0, image2" in the("duplicates", *twice).found
    assert "duplicates" not in kinds(*twice[:2])
    split = [pair(image=one, split="train"), pair(image=one, seed=2, split="val")]
    assert "leak" in kinds(*split)
    black = [pair(image=np.zeros((96, 96), np.uint8), seed=seed) for seed in (0, 1)]
    assert "duplicates" not in kinds(*black)


def test_one_label_file_for_two_images_is_found():
    assert "same-labels" in kinds(pair(mask()), pair(mask(), image_of(mask(), 7), seed=1))
    assert "same-labels" not in kinds(pair(), pair(seed=1))


def test_other_channels_are_an_error_and_other_ranges_matter_without_normalisation():
    grey = image_of(mask(1))
    colours = pair(mask(1), np.stack([grey, grey // 2, grey // 3])[:, None], seed=1)
    assert the("channel-counts", pair(), colours).severity == "error"
    dim = pair(mask(1), image_of(mask(1), 1).astype(np.uint16) * 100, seed=1)
    assert the("ranges", pair(), dim).severity == "advice"
    assert the("ranges", pair(), dim, normalise="none").severity == "warning"
    assert the("ranges", pair(), dim, normalise="dataset").severity == "warning"
    assert "ranges" not in kinds(pair(), pair(seed=1))


@pytest.mark.parametrize(
    ("chosen", "misfit"),
    [
        ({"normalise_mean": (0.5,), "normalise_std": (0.1,)}, "not on the scale of the mean"),
        ({"normalise_mean": (100,), "normalise_std": (5000,)}, "not on the scale of the mean"),
        ({"normalise_window": (1000, 2000)}, "beside the window"),
        ({"normalise_mean": (100,), "normalise_std": (30,)}, ""),
        ({"normalise_window": (20, 200)}, ""),
    ],
)
def test_constants_that_do_not_fit_the_images_are_found(chosen, misfit):
    if misfit:
        found = the("constants", pair(), **chosen)
        assert (found.severity, found.about) == ("warning", "image0")
        assert misfit in found.found
    else:
        assert "constants" not in kinds(pair(), **chosen)


def test_constants_for_other_channels_are_an_error():
    found = the("constants", pair(), normalise_mean=(1, 2), normalise_std=(1, 2))
    assert (found.severity, found.found) == ("error", "There are constants for 2 channels, but image0 has 1.")


def test_other_voxel_sizes_and_missing_ones_are_found():
    fine, coarse = ({"spacing": (1.0, edge, edge), "unit": "micrometer"} for edge in (0.2, 0.5))
    assert "0.2" in the("voxel-sizes", pair(space=fine), pair(seed=1, space=coarse)).found
    assert kinds(pair(space=fine), pair(seed=1, space=fine)) == set()
    assert the("no-spacing", pair(space=fine), pair(seed=1)).about == "image1"


def test_images_smaller_than_a_patch_are_told_with_one_that_fits():
    assert "--patch 1 96 96" in the("small-images", pair(), patch=(1, 128, 128)).remedy
    assert "small-images" in kinds(pair(), patch=None)
    assert "small-images" not in kinds(pair(), patch=(1, 96, 96))


class Watched:
    """An array that remembers how much was read of it."""

    def __init__(self, array):
        self.array, self.read, self.largest = array, 0, 0
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim

    def __getitem__(self, where):
        part = self.array[where]
        self.read += part.size
        self.largest = max(self.largest, part.size)
        return part


def test_large_images_are_read_in_parts_and_said_to_be(monkeypatch):
    monkeypatch.setattr("napari_unetvnet.data.checks.measure.IMAGE_VALUES", 4000)
    monkeypatch.setattr("napari_unetvnet.images.sampling.SLAB_VOXELS", 1000)
    monkeypatch.setattr("napari_unetvnet.data.checks.thumbnail.PLANE_VOXELS", 1000)
    labels = np.zeros((40, 30, 20), np.uint8)
    labels[10:30, 5:25, 5:15] = 1
    image, seen = Watched(image_of(labels)[None]), Watched(labels[None])
    found = examine([Pair(Volume(image, name="image"), Volume(seen, name="labels"))], TrainSettings(patch=(1, 16, 16)))
    assert image.largest <= 1000
    assert image.read < image.array.size / 2
    assert found.classes[1].voxels == 20 * 20 * 10, "labels of this size are counted in full"
    assert seen.largest <= 1000
    assert found.images[0].read < 0.5


@pytest.mark.parametrize("where", ["a voxel", "everywhere"])
def test_huge_intensities_end_in_no_warning_of_numpy(where):
    """Squares of 1e30 are beyond single precision; warnings are errors in these tests."""
    image = image_of(mask()).astype(np.float32)
    if where == "a voxel":
        image[0, 0] = 1e30
    else:
        image *= 1e30 / image.max()
    huge = pair(mask(), image)
    report(huge)
    planned = plan([huge], checked(TrainJob, {"image": "a", "label": "b"}), "cpu").settings
    data = prepare_data([huge], planned, (1, 32, 32))
    patches = data.train[0].scale.apply(huge.image.data)
    assert np.isfinite(patches).all()
