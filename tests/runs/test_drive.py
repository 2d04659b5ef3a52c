"""A set of fundus images as it is distributed: GIF labels of 0 and 255, and a mask of the field of view."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_unetvnet.cli.main import main
from napari_unetvnet.errors import DataProblem, FileProblem
from napari_unetvnet.images.io import read_labels, read_volume
from napari_unetvnet.metrics import EvaluateSettings
from napari_unetvnet.model.card import read_card
from napari_unetvnet.runs.evaluate import score_files
from napari_unetvnet.runs.inputs import find_inputs
from napari_unetvnet.settings import TrainJob, TrainSettings, checked


def view():
    """A round field of view of 40 x 44 pixels, and vessels in it and beyond."""
    y, x = np.ogrid[:40, :44]
    inside = (y - 20) ** 2 + (x - 22) ** 2 < 17**2
    vessels = (x + y) % 9 < 3
    return np.broadcast_to(vessels, inside.shape), inside


@pytest.fixture
def drive(tmp_path):
    vessels, inside = view()
    for folder in ("images", "1st_manual", "mask"):
        (tmp_path / folder).mkdir()
    for number in (21, 22, 23):
        rng = np.random.default_rng(number)
        image = rng.normal(120, 5, (40, 44, 3)) - 60 * vessels[..., None]
        tifffile.imwrite(tmp_path / "images" / f"{number}_training.tif", (image * inside[..., None]).astype(np.uint8))
        for array, name in ((vessels, "1st_manual/{}_manual1.gif"), (inside, "mask/{}_training_mask.gif")):
            Image.fromarray((255 * array).astype(np.uint8)).save(tmp_path / name.format(number))
    return tmp_path


def test_gif_labels_keep_their_values_and_damage_is_told(tmp_path, drive):
    vessels, inside = view()
    labels = read_labels(drive / "1st_manual" / "21_manual1.gif")
    np.testing.assert_array_equal(labels.data[0, 0], 255 * vessels)
    numbers = np.add(vessels, inside, dtype=np.uint8)
    coloured = Image.fromarray(numbers)
    coloured.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    coloured.save(tmp_path / "p.gif")
    np.testing.assert_array_equal(read_labels(tmp_path / "p.gif").data[0, 0], numbers)
    with pytest.raises(DataProblem, match="palette colours"):
        read_volume(tmp_path / "p.gif")
    frames = [Image.fromarray((255 * each).astype(np.uint8)) for each in (vessels, inside)]
    frames[0].save(tmp_path / "f.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(DataProblem, match="2 frames"):
        read_labels(tmp_path / "f.gif")
    (tmp_path / "cut.gif").write_bytes((drive / "mask" / "21_training_mask.gif").read_bytes()[:60])
    with pytest.raises(FileProblem, match="cut off"):
        read_labels(tmp_path / "cut.gif")


def test_the_set_is_checked_trained_on_and_segmented_as_it_is(drive, capsys):
    files = ["--image", str(drive / "images"), "--label", str(drive / "1st_manual"), "--mask", str(drive / "mask")]
    assert main(["check", *files]) == 0
    out, runs = drive / "m.safetensors", ["--run", str(drive / "runs"), "--device", "cpu"]
    tiny = ["--steps", "2", "--patch", "1", "32", "32", "--batch", "2", "--option", "width=2", "--option", "depth=2"]
    assert main(["train", *files, *tiny, "--output", str(out), *runs]) == 0
    assert "results have 1 where they have 255" in capsys.readouterr().err
    assert read_card(out).values == (0, 1)
    image, mask = drive / "images" / "21_training.tif", drive / "mask" / "21_training_mask.gif"
    result = drive / "result.tif"
    segmenting = ["segment", str(image), "--model", str(out), "--mask", str(mask), "--output", str(result)]
    assert main([*segmenting, *runs]) == 0
    vessels, inside = view()
    labels = tifffile.imread(result)
    assert set(np.unique(labels)) <= {0, 1}
    assert not labels[~inside].any()

    tifffile.imwrite(result, vessels.astype(np.uint8))
    scored = score_files(result, drive / "1st_manual" / "21_manual1.gif", EvaluateSettings(no_surfaces=True))
    assert scored.mean_dice == 1
    assert "255 was read as 1" in scored.notices[0]


def test_outside_of_the_field_of_view_nothing_is_learnt(drive):
    from napari_unetvnet.conventions import IGNORE
    from napari_unetvnet.data.prepare import prepare_data
    from napari_unetvnet.runs.inputs import read_pair

    names = {"image": str(drive / "images"), "label": str(drive / "1st_manual"), "mask": str(drive / "mask")}
    job = checked(TrainJob, names)
    listed = find_inputs(job).files
    assert listed == find_inputs(checked(TrainJob, {"image": str(drive)})).files
    pairs = [read_pair(files, job) for files in listed]
    data = prepare_data(pairs, TrainSettings(hold_out=0), (1, 16, 16))
    vessels, inside = view()
    np.testing.assert_array_equal(data.train[0].target[0], np.where(inside, vessels, IGNORE))
    named = prepare_data(pairs, checked(TrainSettings, {"hold_out": 0, "classes": (0, 255)}), (1, 16, 16))
    assert named.classes.output_values == (0, 255)
