"""A model gets the channels that it was trained on, whatever the order of the files, and says what is missing."""

import numpy as np
import pytest
import torch

from napari_unetvnet.cli.main import main
from napari_unetvnet.data.augment import drop_channels
from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.io import read_labels
from napari_unetvnet.images.pairs import PairFiles
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.model.card import ModelCard, read_card
from napari_unetvnet.runs.channels import NamedFiles, as_in_model, given_names, image_for, in_one_order, order_for

CARD = ModelCard(
    network="unet_padding", head="binary", view="2d", values=(0, 1), patch=(1, 16, 16), channels=2,
    channel_names=("T1", "FLAIR"),
)  # fmt: skip
TINY = ["--patch", "1", "16", "16", "--batch", "4", "--option", "width=4", "--option", "depth=2", "--device", "cpu"]


def files(*names):
    return PairFiles("|".join(f"/x/{name}.nii" for name in names), f"/x/{names[0]}_seg.nii")


def test_the_images_of_a_training_are_brought_into_one_order():
    named = in_one_order([files("a_t1", "a_flair"), files("b_flair", "b_t1")])
    assert named.names == ("t1", "flair")
    assert named.files[1].image == "/x/b_t1.nii|/x/b_flair.nii"
    assert named.notices == ["The channels of 1 image(s) were put in the order t1, flair."]
    odd = in_one_order([files("a_t1", "a_flair"), files("b_t1", "b_t2")])
    assert (odd.names, odd.files[1]) == ((), files("b_t1", "b_t2"))
    assert "b_t1.nii + b_t2.nii are not named like a_t1.nii + a_flair.nii" in odd.notices[0]
    assert in_one_order([files("a"), files("b")]) == NamedFiles([files("a"), files("b")], (), [])


def test_a_training_that_starts_from_a_model_has_its_order():
    named = NamedFiles([files("a_flair", "a_t1")], ("flair", "t1"), [])
    ordered = as_in_model(named, CARD.channel_names)
    assert ordered.files == [PairFiles("/x/a_t1.nii|/x/a_flair.nii", named.files[0].label)]
    assert ordered.names == ("T1", "FLAIR")
    assert "in another order than those of the model" in ordered.notices[0]
    whole = NamedFiles([PairFiles("/x/a.nii", "/x/l.nii")], ("flair", "t1"), [])
    assert as_in_model(whole, CARD.channel_names).files == whole.files
    assert "save them in its order" in as_in_model(whole, CARD.channel_names).notices[0]
    assert as_in_model(named, ("ct", "pet")) == named


def test_order_missing_and_other_channels_are_told():
    assert order_for(CARD, ("b_t1", "b_flair")) == ([0, 1], [])
    assert order_for(CARD, ("b_flair", "b_t1")) == (
        [1, 0],
        ["The channels were put in the order of the model: T1, FLAIR."],
    )
    places, notices = order_for(CARD, ("u", "v"))
    assert places == [0, 1]
    assert "None of u, v has such a name, so they were taken in this order" in notices[0]
    assert order_for(CARD, ("t1", "t2", "flair"))[0] == [0, 2]
    assert "t2 was left out" in order_for(CARD, ("t1", "t2", "flair"))[1][0]
    with pytest.raises(DataProblem, match=r"T1, FLAIR; FLAIR is missing: give it.*without --channel-dropout"):
        order_for(CARD, ("b_t1",))
    with pytest.raises(DataProblem, match=r"FLAIR is missing, and b_t2 is none of them: give it, or .*--channel-names"):
        order_for(CARD, ("b_t1", "b_t2"))
    able = CARD.model_copy(update={"channel_dropout": 0.3})
    assert order_for(able, ("b_flair",))[0] == [None, 0]
    assert "T1 is missing and taken as 0" in order_for(able, ("b_flair",))[1][0]
    with pytest.raises(DataProblem, match="b_t2 is none of them"):
        order_for(able, ("b_t1", "b_t2"))


def test_a_missing_channel_is_what_the_normalisation_brings_to_zero():
    constants = {
        "normalise": "fixed",
        "normalise_mean": (3.0, 7.0),
        "normalise_std": (1.0, 2.0),
        "channel_dropout": 0.5,
    }
    volume = Volume(np.ones((1, 2, 3, 4), np.uint8))
    for update, value in (({}, 0), (constants, 7)):
        found = image_for(CARD.model_copy(update={"channel_dropout": 0.5, **update}), volume, ("t1",))
        assert found.missing == (1,)
        np.testing.assert_array_equal(np.asarray(found.volume.data)[:, 0, 0, 0], [1, value])
    window = {"normalise": "fixed", "normalise_window": (-5.0, 5.0), "channel_dropout": 0.5}
    assert image_for(CARD.model_copy(update=window), volume, ("t1",)).volume.data[1].min() == -5
    with pytest.raises(DataProblem, match=r"expects images with 2 channel\(s\) \(T1, FLAIR\), but image has 1"):
        image_for(CARD, volume, ())


def test_names_that_are_given_come_first():
    assert given_names("/x/a_t1.nii|/x/a_t2.nii", (), 2) == ("a_t1", "a_t2")
    assert given_names("/x/a.nii", (), 3) == ()
    assert given_names("/x/a.nii", ("r", "g", "b"), 3) == ("r", "g", "b")
    with pytest.raises(DataProblem, match=r"2 channel names \(r, g\), but a.nii has 3 channel"):
        given_names("/x/a.nii", ("r", "g"), 3)


def test_channels_are_dropped_but_never_all_of_a_patch():
    images = torch.ones(400, 3, 1, 2, 2)
    dropped = drop_channels(images, 0.6, np.random.default_rng(0))
    kept = dropped.amax(dim=(2, 3, 4))
    assert set(kept.unique().tolist()) == {0.0, 1.0}
    assert kept.sum(dim=1).min() == 1
    # A channel stays with .4, or as the one of three that is kept where all would go.
    assert abs(float(kept.mean()) - (0.4 + 0.6**3 / 3)) < 0.05
    assert images.min() == 1
    assert drop_channels(images, 0, np.random.default_rng(0)) is images
    assert drop_channels(images[:, :1], 0.9, np.random.default_rng(0)).min() == 1


def test_channels_by_name_from_the_training_to_the_result(tmp_path, capsys):
    rng, shape = np.random.default_rng(0), (32, 32)
    for name in "abc":
        labels = np.zeros(shape, np.uint8)
        labels[8:20, 10:24] = 1
        np.save(tmp_path / f"{name}_seg.npy", labels)
        np.save(tmp_path / f"{name}_t1.npy", (100 + 80 * labels + rng.normal(0, 3, shape)).astype("f4"))
        np.save(tmp_path / f"{name}_t2.npy", (500 - 60 * labels.astype("f4") + rng.normal(0, 9, shape)).astype("f4"))
    (tmp_path / "p.csv").write_text("image,label\na_t1.npy|a_t2.npy,a_seg.npy\nb_t2.npy|b_t1.npy,b_seg.npy\n")
    model, run = tmp_path / "m.safetensors", ["--run", str(tmp_path / "runs")]
    steps = ["--steps", "60", "--channel-dropout", "0.3", "--final-fit", "0", "--normalise", "zscore"]
    assert main(["train", "--pairs", str(tmp_path / "p.csv"), *TINY, *steps, *run, "--output", str(model)]) == 0
    assert "The channels of 1 image(s) were put in the order t1, t2." in capsys.readouterr().err
    card = read_card(model)
    assert (card.channel_names, card.channel_dropout) == (("t1", "t2"), 0.3)
    truth, results = np.load(tmp_path / "c_seg.npy"), {}
    for given, said in (
        ("c_t1|c_t2", ""),
        ("c_t2|c_t1", "put in the order of the model: t1, t2"),
        ("c_t2", "t1 is missing and taken as 0"),
    ):
        source = "|".join(f"{tmp_path}/{part}.npy" for part in given.split("|"))
        out = tmp_path / "o.npy"
        assert main(["segment", source, "--model", str(model), "--output", str(out), "--device", "cpu", *run]) == 0
        assert said in (err := capsys.readouterr().err)
        assert "same value" not in err
        results[given] = read_labels(out).data[0, 0]
    np.testing.assert_array_equal(results["c_t1|c_t2"], results["c_t2|c_t1"])
    for labels in results.values():
        assert np.sum(labels & truth) > 0.6 * np.sum(labels | truth)
    wrong = ["segment", f"{tmp_path}/c_t1.npy|{tmp_path}/c_seg.npy", "--model", str(model), "--output", str(out)]
    assert main([*wrong, *run]) == 2
    assert "t2 is missing, and c_seg is none of them" in capsys.readouterr().err
