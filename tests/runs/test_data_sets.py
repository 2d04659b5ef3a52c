"""Data sets as they are distributed, from the folder to scores on the grids of their own files, by four commands."""

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from napari_unetvnet.cli.main import main
from napari_unetvnet.errors import DataProblem
from napari_unetvnet.images.layouts.cases import cases_of
from napari_unetvnet.metrics import evaluate
from napari_unetvnet.model import model
from napari_unetvnet.model.card import read_card
from napari_unetvnet.model.model import load_model

TURNED = np.array([[0, 0, -2.0, 30], [-1.0, 0, 0, 20], [0, 1.0, 0, -7], [0, 0, 0, 1]])
TINY = ["--steps", "2", "--view", "2d", "--patch", "1", "16", "16", "--batch", "2", "--device", "cpu"]
TINY += ["--option", "width=4", "--option", "depth=2"]


def save(path, array, affine=TURNED, codes=(1, 4)):
    """Write a file with both forms, which differ in code, and in place."""
    image = nib.Nifti1Image(array, affine)
    moved = affine.copy()
    moved[:3, 3] += 0.25
    image.set_qform(moved, codes[0])
    image.set_sform(affine, codes[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)


def cases(values=(1, 2), count=3, channels=2, shape=(18, 20, 6)):
    """Blocks that are bright in one channel each, with a black frame."""
    for i in range(count):
        rng, labels = np.random.default_rng(i), np.zeros(shape, np.uint8)
        for edge, value in zip((5, 4, 3), values, strict=False):
            labels[8 - edge : 8 + edge, 9 - edge : 9 + edge, 1:5] = value
        shown = [labels == value for value in values]
        images = [100 + 90 * shown[c % len(shown)] + rng.normal(0, 4, shape) for c in range(channels)]
        frame = np.zeros(shape, bool)
        frame[1:-1, 1:-1] = True
        yield i, [(image * frame).astype(np.float32) for image in images], labels


def subjects(folder, names=("FLAIR", "T1", "T1POST", "T2"), label="GOLD_STANDARD", values=(1,), prefix=False):
    for i, images, labels in cases(values, channels=len(names)):
        for name, array in zip((*names, label), (*images, labels), strict=True):
            start = f"s{i}_" if prefix else ""
            save(folder / f"s{i}" / f"{start}{name}.nii.gz", array)
    return {f"s{i}": (18, 20, 6) for i in range(3)}


def brats(folder):
    return subjects(folder, ("t1", "t1ce", "t2", "flair"), "seg", (2, 1, 4), prefix=True)


def nnunet(folder):
    for i, images, labels in cases(count=4):
        place, name = ("imagesTr", f"case_{i}") if i < 3 else ("imagesTs", f"case_{i}")
        for c, image in enumerate(images):
            save(folder / place / f"{name}_{c:04}.nii.gz", image)
        if i < 3:
            save(folder / "labelsTr" / f"{name}.nii.gz", labels)
    described = {"channel_names": {"0": "T1", "1": "FLAIR"}, "file_ending": ".nii.gz"}
    described["labels"] = {"background": 0, "organ": 1, "lesion": 2}
    (folder / "dataset.json").write_text(json.dumps(described))
    return {f"case_{i}": (18, 20, 6) for i in range(3)}


def chase(folder):
    folder.mkdir()
    for i in range(3):
        rng, labels = np.random.default_rng(i), np.zeros((24, 28), np.uint8)
        labels[5:18, 10:13] = 255
        image = np.clip(60 + 120 * (labels > 0)[..., None] + rng.normal(0, 6, (24, 28, 3)), 1, 255).astype(np.uint8)
        Image.fromarray(image).save(folder / f"Image_0{i}L.jpg", quality=95)
        for observer in ("1stHO", "2ndHO"):
            Image.fromarray(labels).save(folder / f"Image_0{i}L_{observer}.png")
    return {f"Image_0{i}L": (24, 28) for i in range(3)}


def run(*words):
    assert main([str(word) for word in words]) == 0


def evaluated(results, data, capsys):
    capsys.readouterr()
    run("evaluate", results, data, "--no-surfaces")
    return capsys.readouterr().out


def images_in(folder, ending=".nii.gz"):
    return {path.name for path in folder.iterdir() if path.name.endswith(ending)}


def counted_loads(monkeypatch):
    loads = []
    monkeypatch.setattr(model, "load_model", lambda *given: loads.append(given) or load_model(*given))
    return loads


def stored(path):
    return np.asarray(nib.load(path).dataobj) if path.name.endswith(".nii.gz") else np.asarray(Image.open(path))


@pytest.mark.parametrize(
    ("make", "options"),
    [
        pytest.param(subjects, [], id="four channels", marks=pytest.mark.slow),
        pytest.param(brats, ["--regions", "brats"], id="brats"),
        pytest.param(nnunet, [], id="nnunet", marks=pytest.mark.slow),
        pytest.param(chase, [], id="chase"),
    ],
)
def test_four_commands_lead_from_a_data_set_to_scores_on_its_own_grids(tmp_path, make, options, capsys, monkeypatch):
    data, weights, results = tmp_path / "data", tmp_path / "m.safetensors", tmp_path / "results"
    shapes = make(data)
    run("convert", data, "--output", tmp_path / "set.h5")
    run("train", "--image", tmp_path / "set.h5", *TINY, *options, "--output", weights)
    loads = counted_loads(monkeypatch)
    run("segment", tmp_path / "set.h5", "--model", weights, "--output", results, "--device", "cpu")
    assert len(loads) == 1
    capsys.readouterr()
    run("evaluate", results, data, "--json", "--no-surfaces", *options)
    scores = json.loads(capsys.readouterr().out)
    ending = ".png" if make is chase else ".nii.gz"
    assert {case["case"] for case in scores["cases"]} == set(shapes)
    assert images_in(results, ending) == {f"{name}{ending}" for name in shapes}
    assert {name: stored(results / f"{name}{ending}").shape for name in shapes} == shapes
    for case in scores["cases"]:  # by hand
        predicted, true = (stored(Path(case[side])) > 0 for side in ("prediction", "truth"))
        both, all_voxels = np.count_nonzero(predicted & true), np.count_nonzero(predicted) + np.count_nonzero(true)
        assert case["foreground"]["dice"] == pytest.approx(2 * both / all_voxels)
        if ending == ".nii.gz":  # both forms, which differ, and their codes
            result, image = (nib.load(case[side]).header for side in ("prediction", "truth"))
            for form in ("get_qform", "get_sform"):
                of_result, of_image = (getattr(each, form)(coded=True) for each in (result, image))
                assert of_result[1] == of_image[1]
                np.testing.assert_allclose(of_result[0], of_image[0])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A raw folder of nnU-Net, and a model that was trained on it."""
    root = tmp_path_factory.mktemp("trained")
    nnunet(root / "data")
    runs = ("--run", root / "runs")
    run("train", "--image", root / "data", *TINY, "--output", root / "m.safetensors", *runs)
    return root


def test_all_images_of_a_data_set_get_results_with_their_names(trained, tmp_path, capsys, monkeypatch):
    loads = counted_loads(monkeypatch)
    run(
        "segment", trained / "data", "--model", trained / "m.safetensors", "--output", tmp_path / "r", "--device", "cpu"
    )
    assert len(loads) == 1
    assert "imagesTs has 1 more images" in capsys.readouterr().out
    assert images_in(tmp_path / "r") == {f"case_{i}.nii.gz" for i in range(4)}
    one = tmp_path / "one.nii.gz"
    files = "|".join(str(trained / f"data/imagesTr/case_2_{c:04}.nii.gz") for c in (1, 0))
    run("segment", files, "--model", trained / "m.safetensors", "--output", one, "--device", "cpu")
    np.testing.assert_array_equal(stored(one), stored(tmp_path / "r/case_2.nii.gz"))
    run("evaluate", tmp_path / "r", trained / "data", "--no-surfaces")
    assert "1 prediction(s) have no labels and are not scored: case_3." in capsys.readouterr().out


def test_a_folder_goes_on_after_an_image_that_fails(trained, tmp_path, capsys):
    shutil.copytree(trained / "data/imagesTr", tmp_path / "images")
    (tmp_path / "images/case_1_0001.nii.gz").write_bytes(b"no image")
    command = ["segment", str(tmp_path / "images"), "--model", str(trained / "m.safetensors"), "--device", "cpu"]
    command += ["--output", str(tmp_path / "r")]
    assert main(command) == 2
    said = capsys.readouterr()
    assert "2 of 3: case_1 failed" in said.out
    assert said.err.splitlines()[-1].startswith("case_1: case_1_0001.nii.gz")
    assert images_in(tmp_path / "r") == {"case_0.nii.gz", "case_2.nii.gz"}
    assert "1 labelled image(s) have no prediction" in evaluated(tmp_path / "r", trained / "data", capsys)

    (tmp_path / "r/case_2.nii.gz").write_bytes(b"mine")
    assert main(command) == 2
    assert "case_2.nii.gz exists and was changed" in capsys.readouterr().err
    assert (tmp_path / "r/case_2.nii.gz").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["{data}", "--output", "{data}/imagesTr"], "would lie among the images"),
        (["{data}", "--output", "r.nii.gz"], "named like a file"),
        (["{data}", "--output", "{data}/dataset.json"], "is a file"),
        (["{data}/labelsTr/case_0.nii.gz", "--output", "r.nii.gz", "--ending", "tif"], "of one image"),
        (["{empty}", "--output", "r"], "holds no image"),
    ],
)
def test_results_of_a_folder_need_a_folder_of_their_own(trained, tmp_path, words, problem, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    places = {"data": trained / "data", "empty": tmp_path / "empty"}
    words = [word.format(**places) for word in words]
    assert main(["segment", *words, "--model", str(trained / "m.safetensors")]) == 2
    assert problem in capsys.readouterr().err


def test_files_of_one_name_are_told_apart_by_letter_case_too(tmp_path):
    for name in ("a.png", "b.png", "B.tif"):
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / name)
    assert [case.name for case in cases_of(str(tmp_path)).cases] == ["B_tif", "a", "b_png"]


def test_enhancing_tumour_that_is_3_is_asked_about(tmp_path, capsys):
    folder = tmp_path / "data"
    subjects(folder, ("t1n", "t1c", "t2w", "t2f"), "seg", (2, 1, 3), prefix=True)
    command = ["train", "--image", str(folder), *TINY, "--output", str(tmp_path / "m.safetensors"), "--regions"]
    assert main([*command, "brats"]) == 2
    assert "There is the label 3" in capsys.readouterr().err
    assert main([*command, "brats2023"]) == 0
    assert read_card(tmp_path / "m.safetensors").values == (2, 1, 3)
    truth = str(folder / "s0/s0_seg.nii.gz")
    assert main(["evaluate", truth, truth, "--regions", "brats"]) == 2
    assert "brats2023 (WT=1+2+3 TC=1+3 ET=3)" in capsys.readouterr().err
    old = nib.load(truth)
    with pytest.raises(DataProblem, match="the label 4"):
        evaluate(np.where(np.asarray(old.dataobj) == 3, 4, 0), np.asarray(old.dataobj), regions="brats2023")
