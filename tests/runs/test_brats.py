"""A set of subjects with four modalities and nested regions, from its folder to scores, by the command line alone."""

import json

import h5py
import nibabel as nib
import numpy as np
import pytest

from napari_unetvnet.cli.main import main
from napari_unetvnet.model.card import read_card

MODALITIES = ("t1", "t1ce", "t2", "flair")
SHAPE = (16, 18, 10)


@pytest.fixture
def brats(tmp_path):
    """Three subjects with a tumour: 2 around 1, and 4 inside, each bright in its own modality."""
    for n in range(3):
        name, rng = f"BraTS20_Training_00{n}", np.random.default_rng(n)
        labels = np.zeros(SHAPE, np.uint8)
        for value, edge in ((2, 4), (1, 3), (4, 2)):
            labels[8 - edge : 8 + edge, 9 - edge : 9 + edge, 5 - edge : 5 + edge] = value
        bright = {"t1": labels == 1, "t1ce": labels == 4, "t2": np.isin(labels, (1, 4)), "flair": labels > 0}
        (tmp_path / "set" / name).mkdir(parents=True)
        for modality, inside in bright.items():
            image = 100 + 200 * inside + rng.normal(0, 5, SHAPE)
            nib.save(
                nib.Nifti1Image(image.astype(np.float32), np.eye(4)), tmp_path / f"set/{name}/{name}_{modality}.nii.gz"
            )
        nib.save(nib.Nifti1Image(labels, np.eye(4)), tmp_path / f"set/{name}/{name}_seg.nii.gz")
    return tmp_path


@pytest.mark.parametrize("converted", [False, True])
def test_regions_from_the_folder_to_the_scores(brats, converted, capsys):
    source = brats / "set"
    if converted:
        assert main(["convert", str(source), "--output", str(brats / "set.h5")]) == 0
        with h5py.File(brats / "set.h5") as file:
            assert list(file.attrs["modalities"]) == list(MODALITIES)
        source = brats / "set.h5"
    model, result, runs = brats / "m.safetensors", brats / "r.nii.gz", ["--run", str(brats / "runs"), "--device", "cpu"]
    tiny = ["--steps", "40", "--view", "2d", "--patch", "1", "16", "16", "--batch", "8"]
    tiny += ["--option", "width=4", "--option", "depth=2", "--normalise-in", "nonzero", "--regions", "brats"]
    assert main(["train", "--image", str(source), *tiny, "--output", str(model), *runs]) == 0
    card = read_card(model)
    assert (card.class_names, card.channel_names) == (("WT", "TC", "ET"), MODALITIES)
    folder = brats / "set" / "BraTS20_Training_002"
    files = [str(folder / f"{folder.name}_{modality}.nii.gz") for modality in reversed(MODALITIES)]
    given = f"{brats}/set.h5:/data[2]" if converted else "|".join(files)
    capsys.readouterr()
    assert main(["segment", given, "--model", str(model), "--output", str(result), *runs]) == 0
    assert ("put in the order of the model: t1, t1ce, t2, flair" in capsys.readouterr().err) != converted
    truth = str(folder / f"{folder.name}_seg.nii.gz")
    assert main(["evaluate", str(result), truth, "--regions", "brats", "--json", "--no-surfaces"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert nib.load(result).shape == SHAPE
    assert min(scores["regions"][name]["dice"] for name in ("WT", "TC", "ET")) > 0.2
