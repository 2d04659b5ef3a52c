"""Names of classes from the labels to the model, its scores and its results, and losses by class that learn."""

from __future__ import annotations

import numpy as np
import pytest
from test_training import settings_of, train

from napari_unetvnet import runs
from napari_unetvnet.data.targets import find_classes, loss_classes
from napari_unetvnet.errors import DataProblem, SettingsProblem
from napari_unetvnet.images.io import read_labels
from napari_unetvnet.images.pairs import Pair
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.model.card import read_card
from napari_unetvnet.runs.clean import clean_file
from napari_unetvnet.runs.evaluate import as_text, score
from napari_unetvnet.runs.folder import MODEL
from napari_unetvnet.settings import CleanJob, SegmentJob, checked

NAMES = "1=cell 2=left line 3=right"
PLAIN = {"unlabelled": "background", "background": None, "steps": 2, "steps_per_epoch": 2}


@pytest.fixture(scope="module")
def pair():
    """A block and two lines on noise."""
    labels = np.zeros((1, 1, 48, 48), np.uint8)
    labels[..., 4:40:12, :], labels[..., 7:40:12, :] = 2, 3
    labels[..., 20:30, 10:40] = 1
    noise = np.random.default_rng(0).normal(0, 0.3, labels.shape)
    return Pair(Volume(labels + noise, name="lines"), Volume(labels))


def test_names_go_from_labels_to_scores_results_and_tables(pair, tmp_path):
    loss = "cell: dice + 10*reweighted_bce; background: dice; rest: 2*line"
    settings = settings_of(**PLAIN, class_names=NAMES, loss=loss)
    train(pair, settings, tmp_path)
    card = read_card(tmp_path / MODEL)
    assert card.names_by_value == ((0, "background"), (1, "cell"), (2, "left line"), (3, "right"))
    assert card.loss == "cell: dice + 10.0*reweighted_bce; background: dice; rest: 2.0*line"
    assert settings_of(**PLAIN, class_names=NAMES, loss=card.loss).loss == settings.loss
    named = {f"hold_out_dice_{name}" for name in ("cell", "left line", "right")}
    assert {"hold_out_dice"} < set(card.scores) <= {"hold_out_dice", *named}
    np.save(tmp_path / "a.npy", np.asarray(pair.image.data[0, 0]))
    output = tmp_path / "a.nii.gz"
    job = checked(SegmentJob, {"image": str(tmp_path / "a.npy"), "model": str(tmp_path / MODEL), "output": str(output)})
    (tmp_path / "run").mkdir()
    runs.create(tmp_path / "run", job)
    assert list(runs.run(tmp_path / "run"))[-1].results["class names"].endswith("a_slicer.ctbl")
    clean_file(checked(CleanJob, {"labels": str(output), "output": str(tmp_path / "b.ome.tif"), "min_size": 2}))
    assert read_labels(tmp_path / "b.ome.tif").class_names == card.names_by_value
    checked_names = score(str(tmp_path / "b.ome.tif"), str(output), None, checked_settings())
    assert "0 background" in as_text(checked_names, "table")
    other = as_text(score(str(output), str(output), None, checked_settings(class_names="1=axon")), "csv")
    assert other.startswith("case,part,name,")


def checked_settings(**changes):
    from napari_unetvnet.metrics import EvaluateSettings

    return checked(EvaluateSettings, {"no_surfaces": True, **changes})


def test_lines_and_a_block_learn_in_whatever_order(pair, tmp_path):
    settings = settings_of(**PLAIN, class_names=NAMES, lines="2 3", loss="ten_channel")
    known = loss_classes(find_classes([pair.labels], settings), settings)
    assert [known.channels(known.index(word)) for word in ("background", "cell", "left line")] == [
        (0,),
        (1,),
        (2, 3, 4, 5),
    ]
    train(pair, settings, tmp_path)
    assert read_card(tmp_path / MODEL).loss == "ten_channel"


@pytest.mark.parametrize(
    ("changes", "problem", "sentence"),
    [
        ({"class_names": "1=cell 8=nucleus"}, DataProblem, r"8=nucleus are of no class; the classes are 0, 1, 2, 3"),
        ({"class_names": NAMES, "loss": "4: dice; rest: bce"}, SettingsProblem, "no class '4'"),
        ({"class_names": NAMES, "loss": "cell: dice"}, SettingsProblem, "nothing for class left line, right"),
        ({"lines": "2", "loss": "ten_channel"}, SettingsProblem, "one class can be the block, not 1, 3"),
        ({"loss": "ten_channel", "head": "multilabel"}, SettingsProblem, "no class is a line"),
    ],
)
def test_what_does_not_fit_the_labels_is_refused(pair, changes, problem, sentence):
    with pytest.raises(problem, match=sentence):
        find_classes([pair.labels], settings_of(**PLAIN, **changes))


def test_the_background_comes_first_whatever_its_value(pair):
    labels = [Volume(np.where(pair.labels.data == 0, 9, pair.labels.data))]
    settings = settings_of(unlabelled="ignore", background=9, class_names="9=tissue 1=cell")
    classes = find_classes(labels, settings)
    assert (classes.values, classes.output_values) == ((9, 1, 2, 3), (0, 1, 2, 3))
    assert classes.names == ("tissue", "cell", "2", "3")
