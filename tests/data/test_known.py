"""A training that starts from a model keeps what was held out, by content, and never scores on what was trained on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_unetvnet.data.boxes import from_numbers, intersection
from napari_unetvnet.data.known import records
from napari_unetvnet.data.prepare import prepare_data, resample_pairs
from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.pairs import Pair
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.model.card import ModelCard, read_card
from napari_unetvnet.model.model import save_model
from napari_unetvnet.settings import TrainSettings, checked

PATCH = (1, 16, 16)


def pair(seed, shape=(1, 40, 40), split=""):
    rng = np.random.default_rng(seed)
    labels = np.kron(rng.integers(0, 2, (1, 1, shape[1] // 4, shape[2] // 4)), np.ones((1, 1, 4, 4))).astype(np.uint8)
    image = rng.integers(0, 200, (1, *shape)).astype(np.uint8)
    return Pair(Volume(image, name=f"i{seed}"), Volume(labels), split)


def prepared(pairs, **chosen):
    return prepare_data(pairs, checked(TrainSettings, {"normalise": "none", **chosen}), PATCH)


def model_of(path, data, pairs, **changes):
    card = ModelCard(network="unet_padding", head="binary", view="2d", values=(0, 1), patch=PATCH,
                     images=records(data, [each.image for each in pairs]), scored=data.scored)  # fmt: skip
    save_model(path, {"weight": torch.zeros(1)}, card.model_copy(update=changes))
    return path


def trained(path, pairs, **chosen):
    """Give what a training would do with the pairs, and write its model."""
    data = prepared(pairs, **chosen)
    model_of(path, data, pairs)
    return data


def held_out(data, pairs):
    return {each.image.name: data.parts(i)[1] for i, each in enumerate(pairs) if data.parts(i)[1]}


def check_never_scored_on(card):
    for image in card.images:
        for box in map(from_numbers, image.held_out):
            assert not any(intersection(box, from_numbers(row)) for row in image.trained)


def test_images_keep_their_part_whatever_their_order_number_and_storage(tmp_path):
    pairs = [pair(seed) for seed in range(4)]
    first = held_out(trained(tmp_path / "m", pairs), pairs)
    assert len(first) == 1
    again = [replace(each, image=replace(each.image, data=each.image.data.astype(np.float32), name=f"i{i}"))
             for i, each in enumerate(pairs)][::-1]  # fmt: skip
    for seed in range(3):
        data = prepared(again, start_from=tmp_path / "m", seed=seed, hold_out=0.4)
        assert held_out(data, again) == first
        assert data.notices[0].startswith("Held out as for m, whatever hold-out and seed say: ")
    more = [pair(9), *again, pair(8)]
    grown = trained(tmp_path / "m2", more, start_from=tmp_path / "m")
    kept = held_out(grown, more)
    assert {name: boxes for name, boxes in kept.items() if name in first} == first
    assert set(kept) == {*first, "i8", "i9"}, "new images have a block of their own, and none that was trained on"
    card = read_card(tmp_path / "m2")
    check_never_scored_on(card)
    fewer = [pair(9), pair(0), pair(1)]
    last = held_out(trained(tmp_path / "m3", fewer, start_from=tmp_path / "m2"), fewer)
    assert last == {name: boxes for name, boxes in kept.items() if name in {"i9", "i0", "i1"}}
    assert {each.name for each in read_card(tmp_path / "m3").images} == {"i0", "i1", "i2", "i3", "i8", "i9"}


def test_an_image_that_only_scored_a_model_can_be_trained_on_in_part(tmp_path):
    scored = pair(3)
    pairs = [pair(0), pair(1), replace(scored, split="val")]
    trained(tmp_path / "m", pairs)
    data = trained(tmp_path / "m2", [scored], start_from=tmp_path / "m")
    assert data.notices[0] == ("m was scored on all of i3; a part goes on scoring, and the rest is trained on.")
    assert all(data.parts(0)), "trained on and held out"
    assert held_out(data, [scored]) == held_out(prepared([scored]), [scored])
    check_never_scored_on(read_card(tmp_path / "m2"))
    again = trained(tmp_path / "m3", [scored], start_from=tmp_path / "m2", seed=5)
    assert held_out(again, [scored]) == held_out(data, [scored])
    both = prepared([pair(0), scored], start_from=tmp_path / "m")
    assert set(held_out(both, [pair(0), scored])) == {"i3"}, "with others to train on, it stays whole"


def test_a_block_is_kept_after_more_labels_were_painted_and_what_it_lacks_is_told(tmp_path):
    one = pair(0)
    first = trained(tmp_path / "m", [one])
    other = one.labels.data.copy()
    other[..., :20] = 1
    other[..., 30:32] = 0
    painted = replace(one, labels=Volume(other))
    again = prepared([painted], start_from=tmp_path / "m")
    assert prepared([painted]).parts(0)[1] != first.parts(0)[1]
    assert again.parts(0)[1] == first.parts(0)[1]
    for box in first.parts(0)[1]:
        other[(0, *box.slices)] = 0
    data = prepared([replace(one, labels=Volume(other))], start_from=tmp_path / "m")
    assert any("holds no labels of a class now" in text for text in data.notices)
    assert any(text == "Class 1 is not held out, so it is trained on and not scored." for text in data.notices)


def test_what_was_trained_on_never_scores(tmp_path):
    pairs = [pair(seed) for seed in range(3)]
    everything = trained(tmp_path / "m", pairs, hold_out=0)
    assert everything.scored is None
    none = prepared(pairs, start_from=tmp_path / "m")
    assert not none.hold_out
    assert any("m was trained on all of these images. Nothing is left to score" in text for text in none.notices)
    marked = [replace(pairs[0], split="val"), pairs[1], replace(pair(7), split="val")]
    data = trained(tmp_path / "m2", marked, start_from=tmp_path / "m")
    assert set(held_out(data, marked)) == {"i7"}
    assert "m was trained on i0, so that does not score." in data.notices
    assert data.scored.images == 1
    folds = [prepared(pairs, start_from=tmp_path / "m", folds=3, fold=fold) for fold in range(3)]
    assert not any(data.hold_out for data in folds)
    check_never_scored_on(read_card(tmp_path / "m2"))
    # A fold that goes on from the model of another fold scores on what neither was trained on.
    one = [pair(5, (1, 40, 120))]
    trained(tmp_path / "f0", one, folds=3, fold=0)
    other = trained(tmp_path / "f1", one, folds=3, fold=1, start_from=tmp_path / "f0")
    check_never_scored_on(read_card(tmp_path / "f1"))
    assert [box.slices[2] for box in other.parts(0)[1]] == [slice(40, 56)], "the margin beside the first one"


def test_a_card_without_images_keeps_its_order_and_says_so(tmp_path):
    one = pair(0)
    old = ((0, 0, 0, 1, 40, 30, 0, 0, 32, 1, 40, 40),)
    model_of(tmp_path / "m", prepared([one]), [one], images=(), split=old)
    data = prepared([one], start_from=tmp_path / "m")
    assert [box.slices[2] for box in data.parts(0)[1]] == [slice(32, 40)]
    assert any("does not say which images it was trained on" in text for text in data.notices)
    model_of(tmp_path / "m", prepared([one]), [one], images=(), split=())
    assert any("does not say which" in text for text in prepared([one], start_from=tmp_path / "m").notices)


def test_boxes_are_those_of_the_image_before_it_was_resampled(tmp_path):
    one = pair(0)
    coarse = checked(TrainSettings, {"normalise": "none", "target_spacing": (1, 2, 2)})
    pairs = resample_pairs([one], coarse)
    assert pairs[0].image.shape == (1, 20, 20)
    data = prepare_data(pairs, coarse, PATCH)
    model_of(tmp_path / "m", data, pairs)
    (record,) = read_card(tmp_path / "m").images
    assert record.shape == (1, 40, 40)
    check_never_scored_on(read_card(tmp_path / "m"))
    fine = prepared([one], start_from=tmp_path / "m")
    assert [box.shape for box in fine.parts(0)[1]] == [
        (1, 2 * box.shape[1], 2 * box.shape[2]) for box in data.parts(0)[1]
    ]


def test_labels_in_the_hold_out_only_are_refused(tmp_path):
    one = pair(0)
    first = trained(tmp_path / "m", [one])
    labels = np.zeros((1, 1, 40, 40), np.uint8)
    box = first.parts(0)[1][0]
    labels[(0, *box.slices)] = 1 + np.arange(box.shape[2]) % 2
    with pytest.raises(DataProblem, match="All labels are held out"):
        prepared([replace(one, labels=Volume(labels))], start_from=tmp_path / "m", unlabelled="ignore")
