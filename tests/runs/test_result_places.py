"""The results of segment and clean lie on their image: labels, probabilities and uncertainty, in every format."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
from combinations import in_one_case
from test_inference_segment import pointwise_model

from napari_unetvnet import runs
from napari_unetvnet.cli.main import main
from napari_unetvnet.data.checks import examine
from napari_unetvnet.events import Notice
from napari_unetvnet.images.geometry import Geometry
from napari_unetvnet.images.io import PairFiles, read_volume, write_labels
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.runs.check import check_files
from napari_unetvnet.runs.inputs import find_inputs, read_pair
from napari_unetvnet.settings import SegmentJob, TrainJob, checked

SHAPE = (4, 18, 20)
OBLIQUE = nibabel.affines.from_matvec(
    nibabel.eulerangles.euler2mat(0.1, 0.2, 0.3) @ np.diag([0.5, 0.7, 3.0]), (10, -20, 30)
)
OTHER = nibabel.affines.from_matvec(np.diag([0.5, 0.7, 3.0]), (1, 2, 3))


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.setattr("napari_unetvnet.model.model.load_model", lambda *_: pointwise_model())
    (tmp_path / "m.safetensors").write_bytes(b"")
    return str(tmp_path / "m.safetensors")


def values(seed=0):
    return np.random.default_rng(seed).integers(-9, 9, SHAPE).astype(np.int16)


def segmented(tmp_path, model, image, ending):
    """Segment a file to all kinds of result, and give their paths and the notices."""
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    paths = {name: str(tmp_path / f"{name}{ending}") for name in ("output", "probabilities", "uncertainty")}
    chosen = {"image": str(image), "model": model, "device": "cpu", "uncertainty_kind": "entropy"}
    runs.create(folder, checked(SegmentJob, chosen | paths))
    notices = [event.text for event in runs.run(folder) if isinstance(event, Notice)]
    return paths, " ".join(notices)


@in_one_case("forms", [((None, 0), (None, 0)), ((OBLIQUE, 1), (OTHER, 2)), ((OBLIQUE, 1), (None, 0))])
def test_results_of_a_nifti_image_have_its_header(tmp_path, model, forms):
    (qform, qcode), (sform, scode) = forms
    image = nibabel.Nifti1Image(values().transpose(2, 1, 0), None)
    image.header["pixdim"][1:4] = 0.5, 0.7, 3
    image.header.set_qform(qform, qcode)
    image.header.set_sform(sform, scode)
    nibabel.save(image, tmp_path / "image.nii")
    paths, notices = segmented(tmp_path, model, tmp_path / "image.nii", ".nii.gz")
    assert "cannot hold" not in notices
    cleaned = str(tmp_path / "cleaned.nii")
    assert main(["clean", paths["output"], "--output", cleaned, "--min-size", "2"]) == 0
    for path in (*paths.values(), cleaned):
        header = nibabel.load(path).header
        for name in ("qform_code", "sform_code", "quatern_b", "quatern_d", "qoffset_x", "srow_x", "srow_z"):
            assert np.array_equal(header[name], image.header[name])
        assert np.array_equal(header["pixdim"][:4], image.header["pixdim"][:4])
        assert header.get_data_shape()[:3] == SHAPE[::-1]


@in_one_case("ending", [".zarr", ".ome.tif", ".tif", ".nii.gz"])
def test_results_of_an_ome_zarr_lie_at_its_translation(tmp_path, model, ending):
    geometry = Geometry.upright((3.0, 0.7, 0.5), "micrometer", (100, -200, 3e4))
    image = Volume(np.abs(values())[None], geometry)
    write_labels(tmp_path / "image.zarr", image.data[0], image)
    paths, notices = segmented(tmp_path, model, tmp_path / "image.zarr", ending)
    assert "cannot hold" not in notices
    for path in paths.values():
        volume = read_volume(path)
        assert volume.geometry.origin == pytest.approx((100, -200, 3e4))
        assert (volume.spacing, volume.unit) == (pytest.approx((3, 0.7, 0.5)), "micrometer")


def test_what_a_format_cannot_hold_is_told(tmp_path, model, capsys):
    nibabel.save(nibabel.Nifti1Image(values().transpose(2, 1, 0), OBLIQUE), tmp_path / "image.nii")
    paths, notices = segmented(tmp_path, model, tmp_path / "image.nii", ".ome.tif")
    for path in paths.values():
        name = path.rpartition("/")[2]
        assert f"{name} cannot hold how the voxels of the image are turned in space, and where they lie" in notices
    labels, lost = str(tmp_path / "labels.nii"), tmp_path / "lost.npy"
    image = Volume(np.abs(values())[None], Geometry.upright((3.0, 0.7, 0.5), "mm", (1, 2, 3)))
    write_labels(labels, image.data[0], image)
    assert main(["clean", labels, "--output", str(lost), "--min-size", "2"]) == 0
    assert "lost.npy cannot hold where the voxels of the image lie; to overlay both" in capsys.readouterr().err


def test_a_second_position_that_a_format_cannot_hold_is_told(tmp_path, capsys):
    image = nibabel.Nifti1Image(np.abs(values()).astype(np.uint8).transpose(2, 1, 0), None)
    for second, is_told in ((OTHER, True), (OBLIQUE + 1e-6, False)):
        image.header.set_qform(OBLIQUE, 1)
        image.header.set_sform(second, 2)
        nibabel.save(image, tmp_path / "image.nii")
        for ending in (".nrrd", ".mha", ".nii.gz"):
            output = tmp_path / f"cleaned{ending}"
            code = main(
                ["clean", str(tmp_path / "image.nii"), "--output", str(output), "--min-size", "2", "--overwrite"]
            )
            told = f"cleaned{ending} can hold one and has that of the sform" in capsys.readouterr().err
            assert (code, told) == (0, is_told and ending != ".nii.gz")


def test_a_mask_that_is_stored_along_other_axes_is_turned(tmp_path, model):
    inside = np.zeros(SHAPE, np.uint8)
    inside[:2, :5, 3:] = 1
    nibabel.save(nibabel.Nifti1Image(-np.abs(values()).transpose(2, 1, 0) - 1, OBLIQUE), tmp_path / "image.nii")
    mask = nibabel.Nifti1Image(inside.transpose(2, 1, 0), OBLIQUE)
    nibabel.save(mask.as_reoriented(np.array(((1, -1), (0, 1), (2, -1)))), tmp_path / "mask.nii")
    moved = nibabel.affines.from_matvec(OBLIQUE[:3, :3], (OBLIQUE @ (0, 2, 0, 1))[:3])
    nibabel.save(nibabel.Nifti1Image(mask.dataobj, moved), tmp_path / "moved.nii")
    for name, sentence in (
        ("mask", "Mask mask is stored along other axes than image, and was turned to them."),
        ("moved", "Mask moved lies beside image, by 2 voxels along y. It is used voxel by voxel as it is stored."),
    ):
        output = tmp_path / f"labels-{name}.npy"
        chosen = {"image": str(tmp_path / "image.nii"), "model": model, "device": "cpu", "output": str(output)}
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        runs.create(folder, checked(SegmentJob, chosen | {"mask": str(tmp_path / f"{name}.nii")}))
        events = list(runs.run(folder))
        assert sentence in [event.text for event in events if isinstance(event, Notice)]
        np.testing.assert_array_equal(np.load(output), inside)


def test_labels_that_are_stored_along_other_axes_are_turned_to_their_image(tmp_path):
    labels = np.random.default_rng(0).integers(0, 3, SHAPE).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(values().transpose(2, 1, 0), OBLIQUE), tmp_path / "image.nii")
    stored = nibabel.Nifti1Image(labels.transpose(2, 1, 0), OBLIQUE).as_reoriented(np.array(((2, -1), (0, 1), (1, -1))))
    nibabel.save(stored, tmp_path / "labels.nii")
    job = checked(TrainJob, {"image": [str(tmp_path / "image.nii")], "label": [str(tmp_path / "labels.nii")]})
    pair = read_pair(PairFiles(job.image[0], job.label[0], mask=job.label[0]), job)
    for volume in (pair.labels, pair.mask):
        np.testing.assert_array_equal(volume.data[0], labels)
        np.testing.assert_array_equal(volume.data[:, 1:3, ::2, 4], labels[None, 1:3, ::2, 4])
    (found,) = [each for each in examine([pair], job).findings if each.kind == "other-axes"]
    assert "turned to them" in found.found


def test_a_voxel_size_that_is_not_used_is_told(tmp_path, model, capsys):
    image = Volume(np.abs(values())[None], Geometry((3.0, 0.7, 0.5), "mm"))
    write_labels(tmp_path / "image.ome.tif", image.data[0], image)
    chosen = ["clean", str(tmp_path / "image.ome.tif"), "--output", str(tmp_path / "o.ome.tif"), "--min-size", "2"]
    sentence = "image states voxels of 3 x 0.7 x 0.5 mm, which are used; --spacing and --unit are for files that state"
    for options, is_told in (
        (["--spacing", "9", "9", "9"], True),
        (["--spacing", "3", "0.7", "0.5", "--unit", "micrometer"], True),
        (["--unit", "micrometer"], True),
        (["--spacing", "3", "0.7", "0.5"], False),
        (["--spacing", "3000", "700", "500", "--unit", "um"], False),
        ([], False),
    ):
        assert main([*chosen, *options]) == 0
        assert (sentence in capsys.readouterr().err) == is_told
    job = {"image": [str(tmp_path / "image.ome.tif")], "label": [str(tmp_path / "o.ome.tif")], "spacing": (9, 9, 9)}
    report = check_files(find_inputs(checked(TrainJob, job)))
    assert [each.found[:29] for each in report.findings if each.kind == "spacing-not-used"] == [sentence[:29]]
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    job = {"image": job["image"][0], "model": model, "device": "cpu", "spacing": (9, 9, 9)}
    runs.create(folder, checked(SegmentJob, job))
    assert any(isinstance(event, Notice) and event.text.startswith(sentence) for event in runs.run(folder))


def orientations():
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            yield np.diag(signs) @ np.eye(3)[list(order)]


def test_labels_of_all_48_orientations_keep_them(tmp_path):
    labels = np.zeros(SHAPE, np.uint8)
    for number, matrix in enumerate(orientations()):
        affine = nibabel.affines.from_matvec(matrix @ np.diag([0.5, 0.7, 3.0]), (10, -20, 30))
        nifti = nibabel.Nifti1Image(labels.transpose(2, 1, 0), affine)
        nifti.set_qform(affine, 1)
        nibabel.save(nifti, tmp_path / "image.nii")
        image = read_volume(tmp_path / "image.nii")
        write_labels(tmp_path / "labels.nii", labels, image)
        back = nibabel.load(tmp_path / "labels.nii")
        assert np.array_equal(back.get_qform(), nibabel.load(tmp_path / "image.nii").get_qform()), number
        assert np.array_equal(back.affine, affine.astype(np.float32)), number
