"""Folders are recognised as they are distributed: which labels each image has, and what the folder says of them."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_unetvnet.cli.main import main
from napari_unetvnet.errors import DataProblem, FileProblem
from napari_unetvnet.images.io import read_pairs_csv
from napari_unetvnet.images.layouts import recognise
from napari_unetvnet.images.layouts.cases import cases_of
from napari_unetvnet.metrics import EvaluateSettings
from napari_unetvnet.model.card import read_card
from napari_unetvnet.runs.evaluate import score
from napari_unetvnet.runs.inputs import find_inputs
from napari_unetvnet.settings import TrainJob, checked


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def pairs_in(folder):
    """Image, labels and mask of each pair, relative to the folder."""
    listed = []
    for pair in recognise(folder).pairs:
        image = "|".join(str(Path(part).relative_to(folder)) for part in pair.image.split("|"))
        listed.append((image, *(str(Path(part).relative_to(folder)) for part in (pair.label, pair.mask) if part)))
    return listed


def nnunet(folder, described, *, channels=2):
    touch(
        folder,
        *(f"imagesTr/c_{n}_{c:04}.nii.gz" for n in (1, 2, 10) for c in range(channels)),
        "imagesTs/c_3_0000.nii.gz",
    )
    touch(folder, *(f"labelsTr/c_{n}.nii.gz" for n in (1, 2, 10)))
    (folder / "dataset.json").write_text(json.dumps({"file_ending": ".nii.gz", **described}))
    return folder


def test_nnunet_names_classes_channels_and_what_is_ignored(tmp_path):
    labels = {"background": 0, "edema, outer": 1, "core": 2, "ignore": 3}
    folder = nnunet(tmp_path / "Dataset007_X", {"channel_names": {"0": "T1", "1": "FLAIR"}, "labels": labels})
    assert pairs_in(folder)[0] == ("imagesTr/c_10_0000.nii.gz|imagesTr/c_10_0001.nii.gz", "labelsTr/c_10.nii.gz")
    layout = recognise(folder)
    assert layout.channel_names == ("T1", "FLAIR")
    assert layout.settings == {"ignore_value": 3, "class_names": ["0=background", "1=edema outer", "2=core"]}
    assert layout.sentence == (
        "Dataset007_X is a raw folder of nnU-Net with 3 cases in imagesTr and labelsTr: channels T1, FLAIR; "
        "classes 0=background, 1=edema outer, 2=core; 3 is ignored."
    )
    job = find_inputs(checked(TrainJob, {"image": str(folder)})).job
    assert (job.ignore_value, job.name_of(2)) == (3, "core")
    chosen = {"image": str(folder), "class_names": "1=a", "ignore_value": 9}
    assert find_inputs(checked(TrainJob, chosen)).job.name_of(2) == "2"
    assert find_inputs(checked(TrainJob, chosen)).job.ignore_value == 9


def test_nnunet_regions_and_the_first_version(tmp_path):
    regions = {"background": 0, "whole tumor": [1, 2, 3], "core": [2, 3], "enhancing": 3}
    folder = nnunet(tmp_path / "r", {"channel_names": {"0": "CT"}, "labels": regions}, channels=1)
    assert recognise(folder).settings == {"regions": ["whole_tumor=1+2+3", "core=2+3", "enhancing=3"]}
    assert pairs_in(folder)[0] == ("imagesTr/c_10_0000.nii.gz", "labelsTr/c_10.nii.gz")
    touch(tmp_path / "t", "imagesTr/h_1.nii.gz", "imagesTr/._h_1.nii.gz", "labelsTr/h_1.nii.gz")
    first = {"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "Anterior"}}
    (tmp_path / "t" / "dataset.json").write_text(json.dumps(first))
    layout = recognise(tmp_path / "t")
    assert pairs_in(tmp_path / "t") == [("imagesTr/h_1.nii.gz", "labelsTr/h_1.nii.gz")]
    assert (layout.channel_names, layout.settings) == (("MRI",), {"class_names": ["0=background", "1=Anterior"]})


def test_nnunet_that_is_not_complete(tmp_path):
    folder = nnunet(tmp_path / "d", {"channel_names": {"0": "a", "1": "b", "2": "c"}})
    with pytest.raises(DataProblem, match=r"names 3 channels \(a, b, c\), but c_10_0000.nii.gz is one of 2"):
        recognise(folder)
    (folder / "imagesTr" / "c_2_0001.nii.gz").unlink()
    with pytest.raises(DataProblem, match="c_2 has no 0001"):
        recognise(folder)
    (folder / "dataset.json").write_text("{")
    with pytest.raises(FileProblem, match="repair it"):
        recognise(folder)
    (folder / "dataset.json").write_text('{"file_ending": ".mha"}')
    with pytest.raises(DataProblem, match=r"no files \.mha in imagesTr"):
        recognise(folder)


def test_bids_pairs_entities_and_leaves_out_other_contrasts(tmp_path):
    for n in ("01", "02"):
        touch(tmp_path, f"sub-{n}/anat/sub-{n}_T1w.nii.gz", f"sub-{n}/anat/sub-{n}_T2w.nii.gz")
        touch(
            tmp_path,
            f"derivatives/labels/sub-{n}/anat/sub-{n}_T2w_label-lesion_seg.nii.gz",
            "derivatives/other/x_seg.tif",
        )
    assert pairs_in(tmp_path)[1] == (
        "sub-02/anat/sub-02_T2w.nii.gz",
        "derivatives/labels/sub-02/anat/sub-02_T2w_label-lesion_seg.nii.gz",
    )
    assert "2 labelled images; 2 image files without labels are left out" in recognise(tmp_path).sentence
    touch(tmp_path, "derivatives/labels/sub-02/anat/sub-02_T2w_label-cord_seg.nii.gz")
    kinds = r"kinds of labels: label-lesion_seg \(2 files\), label-cord_seg \(1 files\)"
    with pytest.raises(DataProblem, match=kinds + r"\. Choose one, such as --label-kind label-lesion_seg"):
        recognise(tmp_path)
    with pytest.raises(DataProblem, match=kinds + ", and 'seg' is more than one of them"):
        recognise(tmp_path, "seg")
    (chosen,) = recognise(tmp_path, "Cord").pairs
    assert chosen.label.endswith("sub-02_T2w_label-cord_seg.nii.gz")
    assert "labels label-cord_seg are used, not label-lesion_seg" in recognise(tmp_path, "cord").sentence
    assert find_inputs(checked(TrainJob, {"image": str(tmp_path), "label_kind": "cord"})).files == [chosen]
    assert len(cases_of(str(tmp_path)).cases) == 2
    with pytest.raises(DataProblem, match=kinds):
        score(str(tmp_path / "sub-01"), str(tmp_path), None, EvaluateSettings())
    touch(tmp_path / "two", "sub-1/sub-1_T1w.nii", "derivatives/a/sub-1_seg.nii", "derivatives/b/sub-1_seg.nii")
    with pytest.raises(DataProblem, match=r"a \(1 files\), b \(1 files\)"):
        recognise(tmp_path / "two")
    assert recognise(tmp_path / "two", "b").pairs[0].label.endswith("b/sub-1_seg.nii")


def test_bids_labels_of_all_contrasts_join_them(tmp_path):
    for n in ("1", "2"):
        touch(
            tmp_path,
            f"sub-{n}/ses-1/sub-{n}_T1w.nii",
            f"sub-{n}/ses-1/sub-{n}_T2w.nii",
            f"derivatives/seg/sub-{n}_dseg.nii",
        )
    assert pairs_in(tmp_path)[0] == (
        "sub-1/ses-1/sub-1_T1w.nii|sub-1/ses-1/sub-1_T2w.nii",
        "derivatives/seg/sub-1_dseg.nii",
    )


@pytest.mark.parametrize(
    ("form", "modalities"),
    [("{0}/{0}_{1}.nii.gz", ("t1", "t1ce", "t2", "flair")), ("{0}/{0}-{1}.nii.gz", ("t1n", "t1c", "t2w", "t2f"))],
)
def test_brats_has_a_folder_for_each_subject(tmp_path, form, modalities):
    names = ("BraTS-GLI-00000-000", "BraTS-GLI-00002-000")
    touch(tmp_path, *(form.format(name, each) for name in names for each in (*modalities, "seg")), "mapping.csv")
    layout = recognise(tmp_path)
    assert layout.channel_names == modalities
    assert "is a BraTS folder with 2 subjects" in layout.sentence
    assert pairs_in(tmp_path)[0] == (
        "|".join(form.format(names[0], each) for each in modalities),
        form.format(names[0], "seg"),
    )
    (tmp_path / form.format(names[1], modalities[1])).unlink()
    (tmp_path / form.format(names[0], "seg")).unlink()
    with pytest.raises(
        DataProblem, match=f"{names[0]} has no labels.*\n{names[1]} has no {modalities[1]}; others have"
    ):
        recognise(tmp_path)


def test_other_subjects_with_bare_names(tmp_path):
    for n in ("case_00000", "case_00001"):
        touch(tmp_path, f"{n}/imaging.nii.gz", f"{n}/segmentation.nii.gz")
    assert pairs_in(tmp_path)[1] == ("case_00001/imaging.nii.gz", "case_00001/segmentation.nii.gz")
    touch(tmp_path, "case_00001/truth.nii.gz")
    with pytest.raises(DataProblem, match=r"case_00001 has several labels \(segmentation.nii.gz, truth.nii.gz\)"):
        recognise(tmp_path)


def test_drive_with_its_field_of_view_and_without_the_second_observer(tmp_path):
    for n in (21, 22):
        touch(tmp_path, f"training/images/{n}_training.tif", f"training/1st_manual/{n}_manual1.gif")
        touch(tmp_path, f"training/mask/{n}_training_mask.gif")
    for n in ("01", "02"):
        touch(
            tmp_path,
            f"test/images/{n}_test.tif",
            f"test/1st_manual/{n}_manual1.gif",
            f"test/2nd_manual/{n}_manual2.gif",
        )
        touch(tmp_path, f"test/mask/{n}_test_mask.gif")
    assert pairs_in(tmp_path) == [
        (
            f"training/images/{n}_training.tif",
            f"training/1st_manual/{n}_manual1.gif",
            f"training/mask/{n}_training_mask.gif",
        )
        for n in (21, 22)
    ]
    assert pairs_in(tmp_path / "test")[0] == (
        "images/01_test.tif",
        "1st_manual/01_manual1.gif",
        "mask/01_test_mask.gif",
    )
    assert recognise(tmp_path / "test").sentence == (
        "test holds 2 images in images with labels in 1st_manual; nothing is learnt where mask is 0; "
        "2nd_manual (of a second observer) is left out."
    )


def test_folders_of_images_and_labels(tmp_path):
    for images, labels in (("images", "masks"), ("imagesTr", "labelsTr"), ("img", "gt"), ("raw", "annotations")):
        folder = tmp_path / images
        touch(folder, f"{images}/a.png", f"{images}/b.png", f"{labels}/a.png", f"{labels}/b.png", "notes/readme.txt")
        assert pairs_in(folder) == [(f"{images}/{n}.png", f"{labels}/{n}.png") for n in "ab"]
    touch(tmp_path / "img", "labels/a.png")
    with pytest.raises(DataProblem, match=r"several folders of labels \(gt, labels\); choose one with --image"):
        recognise(tmp_path / "img")


def test_labels_beside_their_images(tmp_path):
    for eye in ("01L", "01R"):
        touch(tmp_path / "chase", *(f"Image_{eye}{end}" for end in (".jpg", "_1stHO.png", "_2ndHO.png", "_mask.png")))
    assert pairs_in(tmp_path / "chase")[1] == ("Image_01R.jpg", "Image_01R_1stHO.png", "Image_01R_mask.png")
    assert "2 labels of a second observer are left out" in recognise(tmp_path / "chase").sentence
    touch(tmp_path / "cp", "a.tif", "b.tif", "a_cp_masks.tif", "b_cp_masks.tif")
    assert pairs_in(tmp_path / "cp") == [("a.tif", "a_cp_masks.tif"), ("b.tif", "b_cp_masks.tif")]
    touch(tmp_path / "cp", "c.tif")
    with pytest.raises(DataProblem, match=r"Images without labels \(1\): c\.tif"):
        recognise(tmp_path / "cp")
    touch(tmp_path / "only", "a.tif", "b.tif")
    with pytest.raises(DataProblem, match="only holds no labels that belong to its images"):
        recognise(tmp_path / "only")


def test_a_folder_is_checked_and_trained_on_as_it_is(tmp_path, capsys):
    folder, rng = tmp_path / "Dataset1_S", np.random.default_rng(0)
    nnunet(folder, {"channel_names": {"0": "T1", "1": "T2"}, "labels": {"background": 0, "spot": 1, "ignore": 2}})
    for path in folder.rglob("*.nii.gz"):
        spots = np.zeros((24, 24, 4), np.uint8)
        spots[8:16, 8:16] = 1
        spots[:2] = 2
        image = ((spots == 1) * 50 + rng.normal(100, 9, spots.shape)).astype(np.float32)
        nib.save(nib.Nifti1Image(spots if path.parent.name == "labelsTr" else image, np.eye(4)), path)
    assert main(["check", "--image", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "raw folder of nnU-Net with 3 cases" in said
    assert "  c_1_0000.nii.gz + c_1_0001.nii.gz <- c_1.nii.gz" in said
    out = tmp_path / "m.safetensors"
    tiny = ["--steps", "2", "--view", "2d", "--patch", "1", "16", "16", "--option", "width=2", "--option", "depth=2"]
    runs = ["--run", str(tmp_path / "runs"), "--device", "cpu", "--output", str(out)]
    assert main(["train", "--image", str(folder), *tiny, *runs]) == 0
    card = read_card(out)
    assert (card.channels, card.names_by_value) == (2, ((0, "background"), (1, "spot")))
    table = read_pairs_csv(next((tmp_path / "runs").glob("*/pairs.csv")))
    assert [Path(pair.label).name for pair in table] == ["c_10.nii.gz", "c_1.nii.gz", "c_2.nii.gz"]
