"""A set is what nibabel and arithmetic say of its files, and a result comes back to where they lie."""

import h5py
import nibabel as nib
import numpy as np
import pytest

from napari_unetvnet.cli.main import main
from napari_unetvnet.errors import DataProblem, FileProblem, SettingsProblem
from napari_unetvnet.images.io import read_labels, read_volume
from napari_unetvnet.images.subjects import placement_of, subjects_of
from napari_unetvnet.runs import convert as converting
from napari_unetvnet.runs.inputs import find_inputs, read_pair
from napari_unetvnet.settings import ConvertJob, TrainJob, checked

MODALITIES = ("t1", "t1ce", "flair", "t2")
AFFINE = np.array([[-1.0, 0, 0, 90], [0, 0, 2, -40], [0, -1.5, 0, 70], [0, 0, 0, 1]])
"""Left, inferior, anterior: x is mirrored, y and z are exchanged."""


def subject(folder, name, shape=(10, 12, 9), seed=0, affine=AFFINE, inside=((3, 6), (4, 9), (2, 7))):
    """Four modalities that are 0 but in a box (x, y, z), and labels in it."""
    rng, box = np.random.default_rng(seed), tuple(slice(*ends) for ends in inside)
    (folder / name).mkdir(parents=True, exist_ok=True)
    arrays = {}
    for number, modality in enumerate((*MODALITIES, "seg")):
        array = np.zeros(shape, np.float32)
        array[box] = (
            rng.integers(0, 4, array[box].shape)
            if modality == "seg"
            else rng.normal(9 * number + 5, 1, array[box].shape)
        )
        nib.save(nib.Nifti1Image(array, affine), folder / name / f"{name}_{modality}.nii.gz")
        arrays[modality] = array
    return arrays


def job(root, **chosen):
    values = {"folder": root / "set", "modalities": MODALITIES, "labels": "seg", "output": root / "set.h5"}
    return checked(ConvertJob, values | chosen)


def convert(job):
    """Run a conversion, and give what it says."""
    return list(converting.convert(job))


def canonical(array, box):
    """What nibabel makes of a part of an array, as (Z, Y, X)."""
    image = nib.Nifti1Image(array, AFFINE).slicer[box]
    closest = nib.as_closest_canonical(image)
    return np.asarray(closest.dataobj).transpose(2, 1, 0), closest.affine


def test_a_set_holds_the_foreground_on_canonical_axes(tmp_path):
    arrays = [subject(tmp_path / "set", name, seed=i) for i, name in enumerate(("p1", "p2"))]
    assert convert(job(tmp_path)) == [f"Set of 2 subject(s): {tmp_path}/set.h5"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set", "set.h5"]
    box = tuple(slice(*ends) for ends in ((2, 7), (3, 10), (1, 8)))
    with h5py.File(tmp_path / "set.h5") as file:
        assert list(file["subject_ids"].asstr()) == ["p1", "p2"]
        assert file["data"].dtype == np.float32
        assert file["truth"].dtype == np.uint8
        assert file["data"].compression == "gzip"
        for i, each in enumerate(arrays):
            for c, modality in enumerate(MODALITIES):
                expected, affine = canonical(each[modality], box)
                np.testing.assert_array_equal(file["data"][i, c], expected)
                np.testing.assert_allclose(file["affine"][i], affine)
            np.testing.assert_array_equal(file["truth"][i, 0], canonical(each["seg"], box)[0])
    with h5py.File(tmp_path / "set.h5", "a") as file:
        file.attrs["note"] = "added by hand"
    with pytest.raises(FileProblem, match="exists and was changed"):
        convert(job(tmp_path))


def test_the_foreground_of_any_file_counts_and_the_box_is_cut_at_the_border(tmp_path):
    arrays = subject(tmp_path / "set", "p1", shape=(10, 10, 10), affine=np.eye(4), inside=((3, 7),) * 3)
    far = arrays["seg"] * 0
    far[0, 5, 9] = 1
    nib.save(nib.Nifti1Image(far, np.eye(4)), tmp_path / "set/p1/p1_seg.nii.gz")
    faint = np.full((10, 10, 10), 1e-6, np.float32)
    nib.save(nib.Nifti1Image(faint, np.eye(4)), tmp_path / "set/p1/p1_t2.nii.gz")
    convert(job(tmp_path))
    placement = placement_of(f"{tmp_path}/set.h5:/data[0]")
    assert (placement.box.start, placement.box.stop) == ((2, 2, 0), (10, 8, 8))


def test_the_statistics_are_means_of_those_of_the_images(tmp_path):
    for name, values in (("a", (0, 2)), ("b", (4, 8))):
        (tmp_path / "set" / name).mkdir(parents=True)
        np.save(tmp_path / "set" / name / f"{name}_t1.npy", np.array(values, float).reshape(1, 1, 2))
    chosen = {"modalities": "t1", "labels": ""}
    convert(job(tmp_path, **chosen))
    convert(job(tmp_path, **chosen, standardise=True, output=tmp_path / "z.h5"))
    with h5py.File(tmp_path / "set.h5") as file, h5py.File(tmp_path / "z.h5") as standardised:
        assert (file.attrs["mean"], file.attrs["std"]) == (3.5, 1.5)
        np.testing.assert_allclose(file["data"][:, 0, 0, 0], [[0, 2], [4, 8]])
        np.testing.assert_allclose(standardised["data"][:, 0, 0, 0], [[-7 / 3, -1], [1 / 3, 3]], rtol=1e-6)


def test_a_set_is_trained_on_and_its_results_come_back(tmp_path):
    arrays = [
        subject(tmp_path / "set", name, seed=i, inside=((3, 7 + i), (4, 11), (2, 8)))
        for i, name in enumerate(("p1", "p2"))
    ]
    convert(job(tmp_path))  # of two sizes
    read = checked(TrainJob, {"image": str(tmp_path / "set.h5")})
    pairs = [read_pair(files, read) for files in find_inputs(read).files]
    assert [pair.image.name for pair in pairs] == ["p1", "p2"]
    assert [pair.image.data.shape for pair in pairs] == [(4, 9, 8, 6), (4, 9, 8, 7)]
    assert pairs[0].image.spacing == (1.5, 2, 1)
    for source, truth in subjects_of(str(tmp_path / "set.h5")):
        labels = read_labels(truth)
        back, like = placement_of(source).put_back(labels.data[0], read_volume(source))
        original = arrays[source.endswith("p2/data")]["seg"].transpose(2, 1, 0)
        np.testing.assert_array_equal(back, original)
        np.testing.assert_array_equal(like.affine, AFFINE)

    model, result = tmp_path / "m.safetensors", tmp_path / "r.nii.gz"
    tiny = ["--steps", "2", "--view", "3d", "--patch", "8", "8", "8", "--batch", "2", "--unlabelled", "background"]
    tiny += ["--option", "width=2", "--option", "depth=2"]
    common = ["--run", str(tmp_path / "runs"), "--device", "cpu"]
    assert main(["train", "--image", str(tmp_path / "set.h5"), *tiny, "--output", str(model), *common]) == 0
    source = f"{tmp_path}/set.h5:/subjects/p2/data"
    assert main(["segment", source, "--model", str(model), "--output", str(result), *common]) == 0
    written = nib.load(result)
    assert written.shape == (10, 12, 9)
    np.testing.assert_allclose(written.affine, AFFINE)
    labels = np.asarray(written.dataobj)
    box = tuple(slice(*ends) for ends in ((2, 9), (3, 12), (1, 9)))
    outside = labels.copy()
    outside[box] = 0
    assert not outside.any()


def test_resized_images_cover_the_same_extent(tmp_path):
    subject(tmp_path / "set", "p1")
    convert(job(tmp_path, size=(14, 7, 5)))
    image = read_volume(f"{tmp_path}/set.h5:/data[0]")
    assert image.data.shape == (4, 14, 7, 5)
    box = tuple(slice(*ends) for ends in ((2, 7), (3, 10), (1, 8)))
    before, affine = canonical(np.zeros((10, 12, 9)), box)
    for corner in (-0.5, 1):  # the outer corners of the first voxel, and those of the last one
        ends = [
            np.array([n - 0.5 if corner == 1 else -0.5 for n in shape[::-1]] + [1])
            for shape in (before.shape, image.shape)
        ]
        np.testing.assert_allclose(affine @ ends[0], image.affine @ ends[1], atol=1e-5)
    placed, _ = placement_of(f"{tmp_path}/set.h5:/data[0]").put_back(np.ones(image.shape, np.uint8), image)
    assert placed.sum() == before.size


def test_the_layout_of_others_is_many_images_not_time(tmp_path):
    rng = np.random.default_rng(0)
    data, truth = rng.normal(size=(3, 4, 8, 9, 10)).astype(np.float32), rng.integers(0, 3, (3, 1, 8, 9, 10))
    with h5py.File(tmp_path / "o.h5", "w") as file:
        file["data"], file["truth"], file["affine"] = data, truth.astype(np.uint8), np.stack([np.eye(4)] * 3)
    read = checked(TrainJob, {"image": str(tmp_path / "o.h5")})
    pairs = [read_pair(files, read) for files in find_inputs(read).files]
    assert [pair.image.name for pair in pairs] == ["o[0]", "o[1]", "o[2]"]
    for i, pair in enumerate(pairs):
        np.testing.assert_array_equal(pair.image.data[...], data[i])
        np.testing.assert_array_equal(pair.labels.data[...], truth[i])
    with pytest.raises(FileProblem, match="no image 3"):
        read_volume(f"{tmp_path}/o.h5:/data[3]")
    with h5py.File(tmp_path / "n.h5", "w") as file:
        file["data"] = data
    with pytest.raises(DataProblem, match="give --label"):
        find_inputs(checked(TrainJob, {"image": str(tmp_path / "n.h5")}))


def test_what_is_wrong_with_a_subject_is_named_and_leaves_no_file(tmp_path):
    subject(tmp_path / "set", "p1")
    subject(tmp_path / "set", "p2")
    (tmp_path / "set/p1/p1_t1ce.nii.gz").unlink()
    (tmp_path / "set/p2/p2_seg.nii.gz").rename(tmp_path / "set/p2/p2_other.nii.gz")
    with pytest.raises(DataProblem) as caught:
        convert(job(tmp_path))
    assert caught.value.lines == (
        "p1 has no file of t1ce; expected one, such as p1_t1ce.nii.gz.",
        "p2 has no file of seg; expected one, such as p2_seg.nii.gz.",
    )
    subject(tmp_path / "other", "p3", shape=(10, 12, 9))
    nib.save(nib.Nifti1Image(np.ones((10, 12, 8)), AFFINE), tmp_path / "other/p3/p3_seg.nii.gz")
    subject(tmp_path / "other", "p4", inside=((0, 0),) * 3)
    with pytest.raises(DataProblem, match=r"^p3: p3_seg.nii.gz has 8 x 12 x 10 .*\np4: all files hold only zeros"):
        convert(job(tmp_path, folder=tmp_path / "other"))
    with pytest.raises(FileProblem, match="no folders of subjects"):
        convert(job(tmp_path, folder=tmp_path / "none"))
    assert not list(tmp_path.glob("*.h5*"))


def test_files_on_other_grids_are_brought_to_the_first_and_that_is_said(tmp_path, capsys):
    arrays = subject(tmp_path / "set", "p1", inside=((0, 10), (0, 12), (0, 9)))
    mirrored = AFFINE @ np.diag([-1.0, 1, 1, 1])
    mirrored[:3, 3] += AFFINE[:3, 0] * 9
    nib.save(nib.Nifti1Image(arrays["seg"][::-1], mirrored), tmp_path / "set/p1/p1_seg.nii.gz")
    coarse = AFFINE @ np.diag([1, 2.0, 1, 1])
    ramp = np.broadcast_to(2.0 * np.arange(6)[None, :, None], (10, 6, 9)).astype(np.float32)
    nib.save(nib.Nifti1Image(ramp, coarse), tmp_path / "set/p1/p1_t2.nii.gz")
    said = convert(job(tmp_path))
    assert "p1: p1_seg.nii.gz is stored along other axes than p1_t1, and was turned to them." in said
    resampled = "It was resampled to the grid of p1_t1.nii.gz by linear interpolation."
    assert any(line.startswith("p1: p1_t2.nii.gz has") and resampled in line for line in said)
    with h5py.File(tmp_path / "set.h5") as file:
        expected = np.minimum(np.broadcast_to(np.arange(12.0)[None, :, None], (10, 12, 9)), 10)
        whole = (slice(0, 10), slice(0, 12), slice(0, 9))
        np.testing.assert_allclose(file["data"][0, 3], canonical(expected, whole)[0], atol=1e-5)
        np.testing.assert_array_equal(file["truth"][0, 0], canonical(arrays["seg"], whole)[0])
    files = "|".join(str(tmp_path / f"set/p1/p1_{name}.nii.gz") for name in ("t1", "t2"))
    assert main(["models", "--for", files]) == 0
    assert resampled in capsys.readouterr().err


def test_an_interrupted_conversion_is_resumed(tmp_path, monkeypatch):
    for i, name in enumerate(("p1", "p2", "p3")):
        subject(tmp_path / "set", name, seed=i)
    convert(job(tmp_path, output=tmp_path / "whole.h5", standardise=True))
    calls, load = [], converting._load

    def interrupted(files, settings):
        calls.append(files.name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return load(files, settings)

    monkeypatch.setattr(converting, "_load", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert(job(tmp_path, standardise=True))
    assert not (tmp_path / "set.h5").exists()
    subject(tmp_path / "set", "p1", seed=7)  # changed since
    said = convert(job(tmp_path, standardise=True))
    assert said[0] == f"Resuming: 1 of 3 subjects are in {tmp_path}/set.h5.partial already."
    assert calls == ["p1", "p2", "p3", "p1", "p3"]
    assert not (tmp_path / "set.h5.partial").exists()
    subject(tmp_path / "set", "p1", seed=0)
    (tmp_path / "set.h5").unlink()
    convert(job(tmp_path, standardise=True))
    with h5py.File(tmp_path / "set.h5") as file, h5py.File(tmp_path / "whole.h5") as whole:
        assert file.keys() == whole.keys()
        for name in file:
            np.testing.assert_array_equal(file[name][:], whole[name][:])


def test_what_is_not_said_is_read_from_the_names(tmp_path):
    for name in ("p1", "p2"):
        subject(tmp_path / "set", name)
    convert(job(tmp_path, modalities=(), labels=""))
    with h5py.File(tmp_path / "set.h5") as file:
        assert list(file.attrs["modalities"]) == ["t1", "t1ce", "t2", "flair"]
        assert "truth" in file
    assert find_inputs(checked(TrainJob, {"image": str(tmp_path / "set.h5")})).job.channel_names[1] == "t1ce"
    with pytest.raises(SettingsProblem, match="Labels were named without modalities"):
        job(tmp_path, modalities=())
    (tmp_path / "set/p1/p1_t2.nii.gz").unlink()
    with pytest.raises(DataProblem, match="p1 has no t2; others have"):
        convert(job(tmp_path, modalities=(), labels="", output=tmp_path / "o.h5"))
    (tmp_path / "none").mkdir()
    with pytest.raises(FileProblem, match="say what is in the folders of its subjects with --modalities"):
        convert(job(tmp_path, modalities=(), labels="", folder=tmp_path / "none", output=tmp_path / "o.h5"))
