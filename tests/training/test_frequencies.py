"""Models of strokes know nothing of how often classes are: it is estimated on unpainted voxels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_continue import notices
from test_training_loop import CPU, TINY, squares, train

from napari_unetvnet.events import EpochDone
from napari_unetvnet.images.pairs import Pair
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.inference import label_values, scores
from napari_unetvnet.model.card import read_card
from napari_unetvnet.model.model import load_model
from napari_unetvnet.model.normalisation import normalisation
from napari_unetvnet.runs.folder import MODEL, training_files
from napari_unetvnet.settings import TrainSettings, checked
from napari_unetvnet.training import frequencies, loop
from napari_unetvnet.training.frequencies import class_shares

STROKES = {"unlabelled": "ignore", "background": 1, "learning_rate": 0.01, "steps": 40, "hold_out": 0.2}


@pytest.mark.parametrize("share", [0.05, 0.3, 0.9])
def test_shares_are_found_from_answers_to_another_mixture(share):
    # A voxel shows a or b; of class 1, 80 % show a, of class 0, 20 %. Half of the strokes are of each class, so the
    # answer to a is 0.8 and to b 0.2. With the share s of class 1, 0.8 s + 0.2 (1 - s) of the voxels show a.
    n = 100_000
    shows_a = round(n * (0.8 * share + 0.2 * (1 - share)))
    one = np.repeat([0.8, 0.2], [shows_a, n - shows_a])
    found = class_shares(np.stack([1 - one, one]), np.array([0.5, 0.5]))
    assert found == pytest.approx([1 - share, share], abs=0.01)


def test_three_classes_that_are_certain_are_counted():
    answers = np.eye(3)[np.repeat([0, 1, 2], [70, 20, 10])].T.clip(1e-9, 1)
    assert class_shares(answers, np.ones(3) / 3) == pytest.approx([0.7, 0.2, 0.1], abs=1e-5)


def with_strokes(strokes=30):
    """Squares that overlap in brightness with what is around them; of each class, as many voxels are painted."""
    whole, rng = squares(), np.random.default_rng(1)
    truth = whole.labels.data[0]
    painted = np.zeros_like(truth)
    for value in (0, 1):
        flat = rng.choice(np.flatnonzero(truth == value), strokes, replace=False)
        painted.flat[flat] = value + 1
    noisy = truth + rng.normal(0, 0.6, truth.shape)
    return Pair(Volume(noisy[None], name="squares"), Volume(painted[None])), truth


def labelled(path, pair):
    model = load_model(path, CPU)
    parts = scores(model, pair.image, CPU, normalisation(pair.image, model.card))
    return np.concatenate([label_values(logits, model.card).numpy() for _, logits in parts])


def test_the_model_of_strokes_finds_a_class_about_as_often_as_it_is(tmp_path):
    pair, truth = with_strokes()
    events = train(tmp_path / "run", pair, **STROKES)
    assert any("how often the classes are" in text for text in notices(events))
    saved, state = load_file(tmp_path / "run" / MODEL), load_file(training_files(tmp_path / "run").state)
    best = {name.removeprefix("best."): each for name, each in state.items() if name.startswith("best.")}
    moved = [name for name in best if not torch.equal(best[name], saved[name])]
    assert len(moved) == 1
    assert -2 <= float(saved[moved[0]] - best[moved[0]]) < 0  # squares are rarer than strokes on them
    found = labelled(tmp_path / "run" / MODEL, pair)
    with torch.no_grad():
        plain = load_model(tmp_path / "run" / MODEL, CPU)
        plain.network.load_state_dict(best)
    before = np.concatenate([
        label_values(logits, plain.card).numpy()
        for _, logits in scores(plain, pair.image, CPU, normalisation(pair.image, plain.card))
    ])  # fmt: skip
    share = truth.mean()
    assert abs((found == 2).mean() - share) < abs((before == 2).mean() - share)


def test_full_labels_are_believed(tmp_path):
    events = train(tmp_path / "run")
    assert not any("how often" in text for text in notices(events))


def test_a_part_that_is_painted_whole_tells_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(frequencies, "PART", {2: (1, 8, 8), 3: (8, 8, 8)})
    whole = squares()
    painted = np.zeros((1, 1, 64, 64), np.uint8)
    painted[..., 20:32, 20:32] = whole.labels.data[..., 20:32, 20:32] + 1  # 144 of 4096 voxels
    painted[..., 20, 20:22] = 1, 2
    events = train(tmp_path / "run", Pair(whole.image, Volume(painted)), **STROKES | {"hold_out": 0, "steps": 4})
    assert not any("how often" in text for text in notices(events))


def test_a_stopped_training_is_adapted_too(tmp_path):
    (tmp_path / "run").mkdir()
    settings, files = checked(TrainSettings, TINY | STROKES), training_files(tmp_path / "run")
    work = loop.steps([with_strokes()[0]], settings, files)
    next(event for event in work if isinstance(event, EpochDone) and event.epoch == 4)
    raw = load_file(files.model)
    work.close()
    moved = [name for name, each in load_file(files.model).items() if not torch.equal(each, raw[name])]
    assert len(moved) == 1
    assert read_card(files.model).scores["hold_out_dice"] is not None
