"""A training with the same constants for all images keeps them: in the card, in what starts from it, when resumed."""

from dataclasses import replace

import numpy as np
import pytest
from test_training_loop import TINY, squares

from napari_unetvnet.errors import RunProblem
from napari_unetvnet.events import Notice, StepDone
from napari_unetvnet.images.pairs import Pair
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.model.card import read_card
from napari_unetvnet.runs.folder import MODEL, training_files
from napari_unetvnet.settings import TrainJob, TrainSettings, checked
from napari_unetvnet.training import loop
from napari_unetvnet.training.plan import plan

SHORT = TINY | {"steps": 4, "steps_per_epoch": 2}


def pairs():
    """Three images of different brightness, of which the last one is held out."""
    rows = []
    for i, (mean, split) in enumerate(((100, "train"), (300, "train"), (9000, "val"))):
        pair = squares(seed=i)
        image = np.asarray(pair.image.data) * 10 * (i + 1) + mean
        rows.append(Pair(Volume(image.astype(np.float32), name=f"image{i}"), pair.labels, split))
    return rows


def train(folder, images, stop=None, resume=False, **changes):
    folder.mkdir(exist_ok=True)
    work = loop.steps(images, checked(TrainSettings, SHORT | changes), training_files(folder), resume=resume)
    events = []
    for event in work:
        events.append(event)
        if isinstance(event, StepDone) and event.step == stop:
            work.close()
    return [event.text for event in events if isinstance(event, Notice)], read_card(folder / MODEL)


def constants(card):
    return card.normalise, card.normalise_mean, card.normalise_std, card.normalise_window


def test_the_constants_of_a_dataset_are_those_of_the_images_that_are_trained_on(tmp_path):
    images = pairs()
    told, card = train(tmp_path / "run", images, normalise="dataset")
    data = [np.asarray(pair.image.data, float) for pair in images[:2]]
    mean, deviation = np.mean([each.mean() for each in data]), np.mean([each.std() for each in data])
    assert card.normalise == "fixed"
    np.testing.assert_allclose([*card.normalise_mean, *card.normalise_std], [mean, deviation], rtol=1e-5)
    assert f"normalised by mean {mean:.4g} and standard deviation {deviation:.4g}, measured on 2 training" in told[0]


def test_a_resumed_training_keeps_the_constants_it_began_with(tmp_path):
    images = pairs()
    _, first = train(tmp_path / "run", images, stop=2, normalise="dataset")
    images[1] = replace(images[1], image=Volume(np.asarray(images[1].image.data) * 50, name="brighter"))
    told, card = train(tmp_path / "run", images, resume=True, normalise="dataset")
    assert constants(card) == constants(first)
    assert card.steps == 4
    assert any("as at the start of the training" in text for text in told)


def test_a_resumed_training_refuses_other_constants(tmp_path):
    images, chosen = pairs(), {"normalise_mean": (200,), "normalise_std": (20,)}
    train(tmp_path / "run", images, stop=2, **chosen)
    with pytest.raises(RunProblem, match="normalise_std is 10 instead of 20"):
        train(tmp_path / "run", images, resume=True, **chosen | {"normalise_std": (10,)})


@pytest.mark.parametrize(
    "chosen",
    [{"normalise": "dataset"}, {"normalise_window": (0, 500)}, {"normalise_mean": (9,), "normalise_std": (2,)}],
)
def test_a_training_that_starts_from_a_model_keeps_its_constants(tmp_path, chosen):
    images = pairs()
    _, first = train(tmp_path / "first", images, **chosen)
    job = {"image": "a.npy", "label": "b.npy", "start_from": tmp_path / "first" / MODEL, "steps": 1}
    planned = plan(images, checked(TrainJob, job), "cpu")
    assert constants(planned.settings) == constants(first)
    assert "intensities scaled by fixed constants" in planned.text
    own = plan(images, checked(TrainJob, job | {"normalise_window": (0, 9)}), "cpu").settings
    assert constants(own) == ("fixed", (), (), (0, 9))
    told, card = train(tmp_path / "second", images, start_from=tmp_path / "first" / MODEL, **chosen)
    assert constants(card) == constants(first)
    assert not any("even if it is worse" in text for text in told)
    told, _ = train(tmp_path / "third", images, start_from=tmp_path / "first" / MODEL, normalise_window=(1, 2))
    assert any("even if it is worse" in text for text in told)
