"""Checks of label values and classes: each check on a case that shows it and on one that does not."""

from __future__ import annotations

import io

import numpy as np
import pytest
from checks_cases import discs, image_of, kinds, mask, pair, report, the
from PIL import Image
from scipy.ndimage import gaussian_filter


def test_good_pairs_have_no_findings():
    assert kinds(*(pair(seed=seed) for seed in range(4))) == set()


def test_truth_values_are_labels():
    found = report(pair(mask().astype(bool)))
    assert not found.findings
    assert [share.name for share in found.classes] == ["0 (background)", "1"]


def test_whole_numbers_stored_as_floats_are_an_error_and_are_counted_all_the_same():
    found = report(pair(mask().astype(np.float32)))
    assert [finding.kind for finding in found.findings] == ["float-labels"]
    assert found.classes[1].voxels == mask().sum()


def test_fractions_and_negative_values_are_errors():
    soft = gaussian_filter(mask().astype(np.float32), 1)
    assert the("fractions", pair(soft)).severity == "error"
    below = mask().astype(np.int16)
    below[:5, :5] = -1
    assert "-1" in the("negative", pair(below)).found
    assert "refused" not in kinds(pair(below))


def jpeg(array, quality):
    written = io.BytesIO()
    Image.fromarray(array).save(written, "JPEG", quality=quality)
    return np.array(Image.open(written))


@pytest.mark.parametrize(
    "soft",
    [
        lambda m: gaussian_filter(m * 255.0, 1).astype(np.uint8),
        lambda m: jpeg(m * np.uint8(255), 75),
        lambda m: np.array(Image.fromarray(m * np.uint8(255)).resize((60, 60), Image.Resampling.BOX)),
    ],
    ids=["blurred", "jpeg", "resized"],
)
def test_soft_masks_are_found_and_nothing_else_is_said_of_their_greys(soft):
    labels = soft(mask(size=192))
    found = the("soft-mask", pair(labels, image_of(labels > 127)))
    assert "0 or 255" in found.found
    assert "127" in found.remedy
    assert kinds(pair(labels, image_of(labels > 127))) <= {"soft-mask"}


def test_tiny_objects_are_no_soft_mask():
    ids = np.zeros((96, 96), np.uint16)
    ids[::8, ::8] = np.arange(1, 145).reshape(12, 12)
    assert "soft-mask" not in kinds(pair(ids), label_values="objects")


def test_ids_that_would_be_classes_are_found():
    found = the("object-ids", pair(discs(count=12)))
    assert "--label-values objects" in found.remedy
    assert "object-ids" not in kinds(pair(discs(count=12)), label_values="objects")


def test_many_ids_are_an_error_that_is_said_once():
    ids = np.arange(81).repeat(64).reshape(9, 9, 8, 8).swapaxes(1, 2).reshape(72, 72)
    found = report(pair(ids, image_of(ids % 2)))
    assert [finding.kind for finding in found.of("error")] == ["refused"]
    assert "--label-values objects" in found.of("error")[0].text
    assert not found.of("warning")


def test_classes_that_every_image_has_are_no_ids():
    organs = discs(count=8, size=160)
    pairs = [pair(np.roll(organs, 9 * seed, axis=1), seed=seed) for seed in range(3)]
    assert "object-ids" not in kinds(*pairs)


def test_scattered_classes_are_no_ids():
    tissue = np.kron(np.random.default_rng(0).integers(0, 8, (24, 24)), np.ones((4, 4), np.int64)).astype(np.uint8)
    assert kinds(pair(tissue)) == set()


def test_strays_are_found_in_one_image_and_in_several():
    labels = mask(size=256)
    labels[3, 3] = 7
    found = the("stray-values", pair(labels))
    assert "7 (1 voxel)" in found.found
    assert "--ignore-value 7" in found.remedy
    others = [pair(mask(seed, size=256), seed=seed) for seed in (1, 2)]
    assert the("stray-values", pair(labels), *others).about == "labels0"
    assert kinds(pair(labels), *others) == {"stray-values"}, "no gap, no tiny class beside it"


def test_a_rare_class_of_several_images_is_no_stray():
    pairs = []
    for seed in (0, 1):
        labels = mask(seed, size=512)
        labels[3:7, 3:7] = 2
        pairs.append(pair(labels, seed=seed))
    assert kinds(*pairs) == {"tiny-class"}


def test_a_value_beyond_the_listed_classes_is_an_error():
    labels = mask()
    labels[:9, :9] = 3
    assert "beyond the classes" in the("refused", pair(labels), classes=(0, 1)).found
    assert kinds(pair(labels), ignore_value=3) == set()


def test_values_that_only_trace_borders_are_found_if_there_are_several():
    labels = np.full((256, 256), 8, np.uint8)
    labels[40:200, 40:200] = 1
    one = labels.copy()
    one[39, 40:200] = 3
    assert "edge-values" not in kinds(pair(one, image_of(labels == 1)))
    one[200, 40:200] = 4
    found = the("edge-values", pair(one, image_of(labels == 1)))
    assert "3, 4" in found.found
    assert "edge-values" not in kinds(pair(one, image_of(labels == 1)), lines=(3, 4))


def test_gaps_are_told():
    labels = mask()
    assert "gaps" not in kinds(pair(labels))
    assert "255" in the("gaps", pair(labels * np.uint8(255))).found
    assert the("gaps", pair(labels * np.uint8(255))).severity == "advice"
    assert "gaps" not in kinds(pair(labels * np.uint8(255)), label_values="objects")


def test_two_codes_of_one_grey_are_found_and_can_be_joined():
    codes = [np.where(discs(seed) > 3, 255, np.where(discs(seed) > 0, 127 + seed, 0)) for seed in (0, 1)]
    pairs = [pair(code.astype(np.uint8), seed=seed) for seed, code in enumerate(codes)]
    found = the("near-codes", *pairs)
    assert "127/128" in found.found
    assert "--regions a=127+128 b=255" in found.remedy
    regions = found.remedy.split("--regions ")[1].rstrip(".")
    assert "near-codes" not in kinds(*pairs, regions=regions)
    assert "near-codes" not in kinds(pairs[0])


def test_a_255_beside_small_classes_may_mean_unknown():
    labels = np.where(discs() > 3, 2, discs() > 0).astype(np.uint8)
    labels[:20, :20] = 255
    assert "--ignore-value 255" in the("value-255", pair(labels)).remedy
    assert kinds(pair(labels), ignore_value=255) == set()
    assert "value-255" not in kinds(pair(mask() * np.uint8(255)))


def test_empty_labels_are_advice_among_others_and_an_error_alone():
    nothing = np.zeros((96, 96), np.uint8)
    blank = pair(nothing, image_of(mask(9)), seed=9)
    assert the("empty-labels", pair(), blank).severity == "advice"
    assert the("empty-labels", blank).severity == "error"
    assert kinds(blank) == {"empty-labels"}
    both = mask() + np.uint8(1)
    assert the("empty-labels", pair(both), blank, unlabelled="ignore").severity == "error"


def test_tiny_classes_and_classes_of_one_image_are_found():
    pairs = [pair(seed=seed) for seed in range(4)]
    labels = mask()
    labels[:6, :6] = 2
    assert "Class 2 has only 36 voxels" in the("tiny-class", pair(labels), *pairs[1:]).found
    labels[:12, :12] = 2
    assert kinds(pair(labels), *pairs[1:]) == {"in-one-image"}


def test_classes_missing_on_one_side_of_the_split_are_found():
    more = np.where(discs() > 3, 2, discs() > 0).astype(np.uint8)
    rest = pair(seed=1, split="val")
    assert the("not-in-validation", pair(more, split="train"), rest).severity == "warning"
    assert the("not-in-training", pair(more, split="val"), pair(seed=1, split="train")).severity == "error"
    assert kinds(pair(split="train"), rest) == set()
    assert "All pairs are marked val" in the("refused", rest).found


def test_masks_that_hide_everything_are_found():
    hidden = np.zeros((96, 96), np.uint8)
    assert the("mask-hides", pair(hidden=hidden)).about == "mask0"
    hidden[:48] = 1
    assert kinds(pair(hidden=hidden)) == set()
    assert the("mask-hides", pair(hidden=1 - mask())).found == "The mask hides everything that is painted."


def test_single_painted_planes_of_a_stack_are_found():
    stack = np.stack([mask(size=64)] * 12)
    few = stack.copy()
    few[[0, 1, 2, 4, 5, 6, 7, 9, 10, 11]] = 0
    assert "2 of 12 planes" in the("unpainted", pair(few, image_of(stack))).found
    body = stack.copy()
    body[:3] = body[8:] = 0
    assert "unpainted" not in kinds(pair(body, image_of(body)))


def test_regions_masks_and_objects_are_counted_as_such():
    labels = np.where(discs() > 3, 2, discs() > 0).astype(np.uint8)
    found = report(pair(labels), regions="all=1+2 core=2")
    assert [share.name for share in found.classes] == ["none", "all=1+2", "core=2"]
    assert found.classes[1].voxels == (labels > 0).sum()
    both = np.stack([labels > 0, labels > 1]).astype(np.uint8)[:, None]
    shares = {share.name: share.voxels for share in report(pair(both), label_values="overlapping").classes}
    assert shares == {"none": (labels == 0).sum(), "mask 1": (labels > 0).sum(), "mask 2": (labels > 1).sum()}
    assert report(pair(both), label_values="overlapping").findings == ()
    shares = {share.name: share.images for share in report(pair(discs()), label_values="objects").classes}
    assert shares == {"background": 1, "objects": 1}


def test_what_training_refuses_is_an_error_in_its_words():
    assert "painted nowhere" in the("refused", pair(), regions="all=1 core=2").found
    assert "no classes" in the("refused", pair(), lines=(5,)).found
    assert "class weights" in the("refused", pair(), class_weights=(1, 2, 3)).found
    assert "Background value 4" in the("refused", pair(mask() + 1), unlabelled="ignore", background=4).found
