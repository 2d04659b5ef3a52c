"""Time series: each time point is segmented, trained on and scored as it would be alone, and results keep the axis."""

from __future__ import annotations

from dataclasses import replace

import h5py
import nibabel
import numpy as np
import pytest
import tifffile
import zarr
from combinations import in_one_case
from test_inference_segment import pointwise_model

from napari_unetvnet import runs
from napari_unetvnet.cli.main import main
from napari_unetvnet.errors import DataProblem
from napari_unetvnet.events import SlabDone
from napari_unetvnet.images.formats import ome_zarr
from napari_unetvnet.images.geometry import Geometry
from napari_unetvnet.images.io import read_volume
from napari_unetvnet.images.series import opened
from napari_unetvnet.images.time_axis import TimeAxis
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.metrics import EvaluateSettings
from napari_unetvnet.runs.evaluate import score
from napari_unetvnet.runs.inputs import find_inputs, read_pair
from napari_unetvnet.settings import SegmentJob, TrainJob, checked

POINTS = 4
PLANES = np.random.default_rng(0).normal(size=(POINTS, 20, 24)).astype(np.float32)
VOLUMES = np.random.default_rng(1).normal(size=(POINTS, 9, 20, 24)).astype(np.float32)


def stored(folder, ending, frames):
    """Write a series as another program does, with voxels of 2 x 0.5 x 0.25 um, 3 s from one time point to the next."""
    path, axes = folder / f"series{frames.ndim}{ending}", "TZYX"[-frames.ndim :] if frames.ndim > 3 else "TYX"
    if ending == ".ome.tif":
        sizes = {"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5, "PhysicalSizeZ": 2.0, "TimeIncrement": 3.0}
        tifffile.imwrite(path, frames, metadata={"axes": axes, **sizes}, compression="zlib", photometric="minisblack")
    elif ending == ".tif":
        facts = {"axes": axes, "spacing": 2.0, "unit": "um", "finterval": 3.0}
        tifffile.imwrite(path, frames, imagej=True, resolution=(4, 2), metadata=facts)
    elif ending == ".zarr":
        group, units = zarr.open_group(path, mode="w"), {"t": {"unit": "second"}}
        group.create_array("0", data=frames, chunks=(1, *frames.shape[1:]))
        names = [{"name": name, **units.get(name, {"unit": "micrometer"})} for name in axes.lower()]
        scale = dict(zip("tzyx", (3.0, 2.0, 0.5, 0.25), strict=True))
        steps = [{"type": "scale", "scale": [scale[name] for name in axes.lower()]}]
        levels = [{"path": "0", "coordinateTransformations": steps}]
        group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": names, "datasets": levels}]}
    elif ending in {".nii", ".nii.gz"}:
        image = nibabel.Nifti1Image(np.atleast_3d(frames.T) if frames.ndim > 3 else frames.T[:, :, None], np.eye(4))
        image.header.set_zooms((0.25, 0.5, 2.0, 3.0))
        image.header.set_xyzt_units("micron", "sec")
        nibabel.save(image, path)
    elif ending == ".h5":
        with h5py.File(path, "w") as file:
            file["image"] = frames
    else:
        np.save(path, frames)
    return path


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A model whose class is 1 where a voxel is below 0."""
    (tmp_path / "m.safetensors").write_bytes(b"")
    monkeypatch.setattr("napari_unetvnet.model.model.load_model", lambda *_: pointwise_model())
    return tmp_path / "m.safetensors"


def segmented(model, path, **changes):
    folder = runs.new_folder("run")
    values = {"image": str(path), "model": str(model), "device": "cpu", "tile": (8, 16, 16), **changes}
    runs.create(folder, checked(SegmentJob, values))
    return list(runs.run(folder))


@in_one_case("frames", [PLANES, VOLUMES])
@pytest.mark.parametrize("ending", [".ome.tif", ".tif", ".zarr", ".nii", ".nii.gz", ".h5", ".npy"])
def test_every_time_point_is_segmented_and_the_result_has_the_axes_of_the_image(model, tmp_path, ending, frames):
    axes = {"axes": "tzyx" if frames.ndim == 4 else "tyx"} if ending in {".nii", ".nii.gz", ".h5", ".npy"} else {}
    if ending in {".nii", ".nii.gz"}:
        axes = {"axes": "tzyx"}
    path = stored(tmp_path, ending, frames)
    output = tmp_path / f"labels{'.npy' if ending == '.h5' else ending}"
    events = segmented(model, path, output=str(output), **axes)
    depth = 9 if frames.ndim == 4 else 1
    slabs = [event for event in events if isinstance(event, SlabDone)]
    assert (slabs[-1].stop, slabs[-1].depth) == (POINTS * depth, POINTS * depth)
    if output.suffix == ".npy":
        assert np.load(output).shape == frames.shape
        axes = {"axes": "tzyx" if frames.ndim == 4 else "tyx"}
    result, given = opened(output, axes.get("axes", "")), opened(path, axes.get("axes", ""))
    assert (result.time.points, result.time.step, result.time.unit) == (POINTS, given.time.step, given.time.unit)
    if ending not in {".npy", ".h5"}:
        assert (given.time.step, given.time.unit) == (3, "second")
        assert given.volume(0).spacing[1:] == (0.5, 0.25)
    for t in range(POINTS):
        one = result.volume(t)
        np.testing.assert_array_equal(one.data[0], (frames[t] < 0).reshape(one.shape))
        assert (one.spacing, one.unit) == (given.volume(t).spacing, given.volume(t).unit)


def test_other_programs_read_the_time_axis_of_results(model, tmp_path):
    path = stored(tmp_path, ".ome.tif", VOLUMES)
    for ending in (".ome.tif", ".tif", ".nii.gz", ".zarr"):
        segmented(model, path, output=str(tmp_path / f"labels{ending}"))
    with tifffile.TiffFile(tmp_path / "labels.ome.tif") as file:
        assert (file.series[0].axes, file.series[0].shape) == ("TZYX", VOLUMES.shape)
        assert 'TimeIncrement="3.0"' in file.ome_metadata
    with tifffile.TiffFile(tmp_path / "labels.tif") as file:
        assert (file.series[0].axes, file.imagej_metadata["finterval"]) == ("TZYX", 3)
        assert np.array_equal(file.asarray(), VOLUMES < 0)
    nifti = nibabel.load(tmp_path / "labels.nii.gz")
    assert (nifti.shape, nifti.header.get_zooms()[3], nifti.header.get_xyzt_units()[1]) == ((24, 20, 9, 4), 3, "sec")
    assert np.array_equal(np.asarray(nifti.dataobj).T, VOLUMES < 0)
    group = zarr.open_group(tmp_path / "labels.zarr", mode="r")
    (image,) = group.attrs["ome"]["multiscales"]
    assert [axis["name"] for axis in image["axes"]] == list("tzyx")
    assert image["datasets"][0]["coordinateTransformations"][0]["scale"] == [3, 2, 0.5, 0.25]
    assert np.array_equal(group["0"][:], VOLUMES < 0)


@in_one_case("times", [("0", "3"), ("0:4:2",), ("2",), (":",)])
def test_chosen_time_points_are_segmented(model, tmp_path, times):
    path = stored(tmp_path, ".ome.tif", VOLUMES)
    chosen = {("0", "3"): [0, 3], ("0:4:2",): [0, 2], ("2",): [2], (":",): [0, 1, 2, 3]}[times]
    segmented(model, path, output=str(tmp_path / "l.ome.tif"), time=times)
    with tifffile.TiffFile(tmp_path / "l.ome.tif") as file:
        expected = (VOLUMES < 0)[chosen] if len(chosen) > 1 else (VOLUMES < 0)[chosen[0]]
        assert np.array_equal(file.asarray(), expected)
        if chosen == [0, 2]:
            assert 'TimeIncrement="6.0"' in file.ome_metadata


def test_time_points_that_are_not_there_are_refused(model, tmp_path):
    path = stored(tmp_path, ".ome.tif", VOLUMES)
    with pytest.raises(DataProblem, match=r"series4.ome.tif has the time points 0 to 3, not 4, 9; choose others"):
        segmented(model, path, time=("4", "1", "9"))
    with pytest.raises(DataProblem, match=r"--time 5: names no time point of series4.ome.tif, which has 0 to 3"):
        segmented(model, path, time="5:")
    np.save(tmp_path / "plane.npy", PLANES[0])
    with pytest.raises(DataProblem, match=r"plane.npy holds a single time point; leave out --time"):
        segmented(model, tmp_path / "plane.npy", time="1")


def test_probabilities_of_a_series_have_the_axes_time_class_z_y_x(model, tmp_path):
    path = stored(tmp_path, ".ome.tif", VOLUMES)
    for ending in (".ome.tif", ".nii", ".zarr", ".npy"):
        segmented(model, path, output=str(tmp_path / f"l{ending}"), probabilities=str(tmp_path / f"p{ending}"))
        likely = opened(tmp_path / f"p{ending}", "tczyx" if ending == ".npy" else "")
        for t in range(POINTS):
            one = likely.volume(t).data
            assert one.shape == (2, 9, 20, 24)
            np.testing.assert_allclose(one[1], 1 / (1 + np.exp(2 * VOLUMES[t])), atol=1e-3)


def test_a_series_goes_on_in_the_middle_of_a_time_point(model, tmp_path):
    """Stopped after the first slab of the second time point; what is resumed is the rest, and nothing else."""
    path = stored(tmp_path, ".ome.tif", VOLUMES)
    folder = tmp_path / "run"
    folder.mkdir()
    values = {"image": str(path), "model": str(model), "device": "cpu", "tile": (4, 16, 16)}
    runs.create(folder, checked(SegmentJob, values | {"output": str(tmp_path / "l.npy")}))
    for event in runs.run(folder):
        if isinstance(event, SlabDone) and event.stop > 9:
            runs.ask_to_stop(folder)
    assert not (tmp_path / "l.npy").exists()
    resumed = [event for event in runs.run(folder, resume=True) if isinstance(event, SlabDone)]
    assert 9 < resumed[0].start < 18
    np.testing.assert_array_equal(np.load(tmp_path / "l.npy"), VOLUMES < 0)


def test_a_series_fills_its_ome_zarr_time_point_by_time_point(model, tmp_path):
    """Of a run that stops, the chunks that are complete stay, also where the last one of a time point is thin."""
    frames = np.random.default_rng(2).normal(size=(3, 20, 16, 16)).astype(np.float32)
    path, folder = stored(tmp_path, ".zarr", frames), tmp_path / "run"
    folder.mkdir()
    kinds = {"output": "l.zarr", "probabilities": "p.zarr", "uncertainty": "u.zarr"}
    outputs = {name: str(tmp_path / file) for name, file in kinds.items()}
    values = {"image": str(path), "model": str(model), "device": "cpu", "tile": (8, 16, 16)}
    runs.create(folder, checked(SegmentJob, values | outputs))
    for event in runs.run(folder):
        if isinstance(event, SlabDone) and event.stop > 20:
            runs.ask_to_stop(folder)
    assert list(folder.rglob("*.npy")) == []  # nothing is stored twice
    (growing,) = tmp_path.glob("part-*l.zarr")
    assert np.array_equal(ome_zarr.open_image(growing)[0], frames[0] < 0)
    resumed = [event for event in runs.run(folder, resume=True) if isinstance(event, SlabDone)]
    assert (resumed[0].start, resumed[-1].stop) == (36, 60)
    result = opened(tmp_path / "l.zarr")
    assert (result.time.step, result.time.unit) == (3, "second")
    for t in range(3):
        np.testing.assert_array_equal(result.volume(t).data[0], frames[t] < 0)
        likely = opened(tmp_path / "p.zarr").volume(t).data[1]
        np.testing.assert_allclose(likely, 1 / (1 + np.exp(2 * frames[t])), atol=1e-3)


def test_objects_are_numbered_in_each_time_point_and_the_table_says_in_which(model, tmp_path):
    frames = np.ones((2, 16, 16), np.float32)
    frames[0, 2:4, 2:4] = frames[1, 2:4, 2:4] = frames[1, 8:12, 8:12] = -1
    path = stored(tmp_path, ".ome.tif", frames)
    segmented(model, path, output=str(tmp_path / "l.tif"), objects="components")
    ids = tifffile.imread(tmp_path / "l.tif")
    assert [sorted(np.unique(frame)) for frame in ids] == [[0, 1], [0, 1, 2]]
    rows = (tmp_path / "l_objects.csv").read_text().splitlines()
    assert rows[0].startswith("time,index")
    assert [row.split(",")[:2] for row in rows[1:]] == [["0", "1"], ["1", "1"], ["1", "2"]]


def test_a_series_of_labels_is_cleaned_time_point_by_time_point(tmp_path, capsys):
    frames = np.zeros((3, 5, 16, 16), np.uint8)
    frames[0, :, 2:5, 2:5], frames[1, :, 2:5, 2:5], frames[1, :, 9:13, 9:13], frames[2, 0, 0, 0] = 1, 1, 1, 1
    tifffile.imwrite(tmp_path / "l.ome.tif", frames, metadata={"axes": "TZYX", "TimeIncrement": 3.0})
    chosen = ["--min-size", "4", "--objects", "components"]
    assert main(["clean", str(tmp_path / "l.ome.tif"), "--output", str(tmp_path / "c.zarr"), *chosen]) == 0
    result = opened(tmp_path / "c.zarr")
    assert (result.time.points, result.time.step) == (3, 3)
    assert [np.unique(result.volume(t).data).tolist() for t in range(3)] == [[0, 1], [0, 1, 2], [0]]
    rows = (tmp_path / "c_objects.csv").read_text().splitlines()
    assert [row.split(",")[:2] for row in rows] == [["time", "index"], ["0", "1"], ["1", "1"], ["1", "2"]]
    assert main(["clean", str(tmp_path / "l.ome.tif"), "--output", str(tmp_path / "c.nrrd"), "--min-size", "4"]) == 2
    assert "NRRD holds one time point, not 3" in capsys.readouterr().err
    assert main(["clean", f"{tmp_path}/l.ome.tif@t=1", "--output", str(tmp_path / "d.tif"), "--min-size", "4"]) == 0
    assert np.array_equal(tifffile.imread(tmp_path / "d.tif"), frames[1])


def test_a_mask_is_for_all_time_points_or_for_each(model, tmp_path):
    path = stored(tmp_path, ".ome.tif", VOLUMES)
    masks = (np.arange(POINTS)[:, None, None, None] * np.ones((1, 9, 20, 24)) % 2).astype(np.uint8)
    tifffile.imwrite(tmp_path / "each.ome.tif", masks, metadata={"axes": "TZYX"}, photometric="minisblack")
    segmented(model, path, output=str(tmp_path / "e.npy"), mask=str(tmp_path / "each.ome.tif"))
    np.testing.assert_array_equal(np.load(tmp_path / "e.npy"), (VOLUMES < 0) & (masks > 0))
    np.save(tmp_path / "one.npy", np.indices((9, 20, 24))[0] % 2)
    segmented(model, path, output=str(tmp_path / "o.npy"), mask=str(tmp_path / "one.npy"))
    np.testing.assert_array_equal(np.load(tmp_path / "o.npy"), (VOLUMES < 0) & (np.indices((9, 20, 24))[0] % 2 > 0))


def test_a_format_without_time_is_refused_before_the_work(model, tmp_path):
    path = stored(tmp_path, ".ome.tif", PLANES)
    with pytest.raises(DataProblem, match=r"l.png cannot be written: PNG holds one time point, not 4; use"):
        segmented(model, path, output=str(tmp_path / "l.png"))


def test_a_time_point_of_a_compressed_file_is_read_alone(tmp_path, monkeypatch):
    path = stored(tmp_path, ".ome.tif", VOLUMES)
    read = []
    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", lambda *_, **__: read.append(1))
    np.testing.assert_array_equal(read_volume(f"{path}@t=2").data[0], VOLUMES[2])
    assert (read_volume(f"{path}@t=2").name, read) == ("series4_t2", [])


def test_coarser_levels_of_a_series_keep_the_time_step(tmp_path):
    image = Volume(np.zeros((1, 1, 1030, 8), np.uint8), Geometry((1.0, 0.5, 0.5), "micrometer"))
    like = replace(image, time=TimeAxis(2, 3.0, "second"))
    ome_zarr.write(tmp_path / "a.zarr", np.zeros((2, 1, 1030, 8), np.uint8), like)
    (written,) = zarr.open_group(tmp_path / "a.zarr", mode="r").attrs["ome"]["multiscales"]
    scales = [each["coordinateTransformations"][0]["scale"] for each in written["datasets"]]
    assert len(scales) > 1 and [scale[0] for scale in scales] == [3.0] * len(scales)


# Training -------------------------------------------------------------------------------------------------------------


def inputs_of(**values):
    return find_inputs(checked(TrainJob, {"label_checks": "warn", **values}))


def test_chosen_time_points_are_images_with_the_labels_of_their_time_point(tmp_path):
    image, labels = stored(tmp_path, ".ome.tif", VOLUMES), tmp_path / "labels.ome.tif"
    tifffile.imwrite(labels, (VOLUMES < 0).astype(np.uint8), metadata={"axes": "TZYX"}, photometric="minisblack")
    inputs = inputs_of(image=str(image), label=str(labels), time="1:4:2")
    assert [pair.image.rpartition("@")[2] for pair in inputs.files] == ["t=1", "t=3"]
    assert "series4.ome.tif@t=3 <- labels.ome.tif@t=3" in "\n".join(inputs.notices)
    for t, files in zip((1, 3), inputs.files, strict=True):
        pair = read_pair(files, inputs.job)
        assert pair.image.name == f"series4_t{t}"
        np.testing.assert_array_equal(pair.image.data[0], VOLUMES[t])
        np.testing.assert_array_equal(pair.labels.data[0], VOLUMES[t] < 0)


def test_labels_of_one_time_point_go_with_the_one_that_is_named(tmp_path):
    image, labels = stored(tmp_path, ".npy", VOLUMES), tmp_path / "labels.npy"
    np.save(labels, (VOLUMES[2] < 0).astype(np.uint8))
    common = {"image": str(image), "label": str(labels), "mask": str(labels), "axes": "tzyx"}
    inputs = inputs_of(**common, time=2)
    pair = read_pair(inputs.files[0], inputs.job)
    np.testing.assert_array_equal(pair.image.data[0] < 0, pair.labels.data[0])
    np.testing.assert_array_equal(pair.mask.data, pair.labels.data)
    with pytest.raises(DataProblem, match=r"labels.npy holds labels of a single time point, but 2 of series4.npy are"):
        inputs_of(**common, time=(1, 2))
    with pytest.raises(DataProblem, match=r"series4.npy has the time points 0 to 3, not 7; choose others"):
        inputs_of(**common, time="7")


def test_a_series_without_time_points_is_asked_about(tmp_path):
    image, labels = stored(tmp_path, ".ome.tif", VOLUMES), tmp_path / "labels.npy"
    np.save(labels, np.ones(VOLUMES.shape[1:], np.uint8))
    inputs = inputs_of(image=str(image), label=str(labels))
    with pytest.raises(DataProblem, match=r"holds 4 time points, 0 to 3; name one \(series4.ome.tif@t=0\), or"):
        read_pair(inputs.files[0], inputs.job)
    inputs = inputs_of(image=f"{image}@t=3", label=str(labels))
    np.testing.assert_array_equal(read_pair(inputs.files[0], inputs.job).image.data[0], VOLUMES[3])


def test_labels_of_another_number_of_time_points_are_refused(tmp_path):
    image, labels = stored(tmp_path, ".ome.tif", VOLUMES), tmp_path / "labels.ome.tif"
    tifffile.imwrite(labels, np.ones((2, 20, 24), np.uint8), metadata={"axes": "TYX"}, photometric="minisblack")
    with pytest.raises(DataProblem, match=r"labels.ome.tif holds 2 time points, and series4.ome.tif 4; give labels of"):
        inputs_of(image=str(image), label=str(labels), time=":")


@in_one_case("planes, shape", [(3, (1, 3, 20, 24)), (1, (3, 1, 20, 24))])
def test_labels_say_whether_the_first_axis_is_planes_or_channels(tmp_path, planes, shape):
    np.save(tmp_path / "image.npy", VOLUMES[0, :3])
    np.save(tmp_path / "labels.npy", np.ones((planes, 20, 24), np.uint8)[0 if planes == 1 else slice(None)])
    inputs, notices = inputs_of(image=str(tmp_path / "image.npy"), label=str(tmp_path / "labels.npy")), []
    pair = read_pair(inputs.files[0], inputs.job, notices)
    assert (pair.image.data.shape, pair.labels.shape) == (shape, (planes, 20, 24))
    assert notices[0].startswith("image.npy does not say what its axes are; its first axis was read as 3 ")


def test_a_model_says_whether_the_first_axis_is_planes_or_channels(model, tmp_path):
    np.save(tmp_path / "image.npy", VOLUMES[0, :3])
    events = segmented(model, tmp_path / "image.npy", output=str(tmp_path / "l.npy"))
    text = "first axis was read as 3 planes, because the model takes 1 channel(s). To say otherwise, give --axes."
    assert any(text in getattr(event, "text", "") for event in events)
    np.testing.assert_array_equal(np.load(tmp_path / "l.npy"), VOLUMES[0, :3] < 0)


# Evaluation -----------------------------------------------------------------------------------------------------------


def test_each_time_point_is_scored_as_it_would_be_alone(tmp_path):
    truth = (VOLUMES < 0).astype(np.uint8)
    prediction = truth.copy()
    prediction[2] = 1 - prediction[2]
    for name, array in (("truth", truth), ("prediction", prediction)):
        tifffile.imwrite(tmp_path / f"{name}.ome.tif", array, metadata={"axes": "TZYX"}, photometric="minisblack")
    sources = str(tmp_path / "prediction.ome.tif"), str(tmp_path / "truth.ome.tif")
    summary = score(*sources, None, EvaluateSettings())
    assert list(summary.cases) == [f"prediction_t{t}" for t in range(POINTS)]
    dice = [case.rows[0].dice if hasattr(case, "rows") else case for case in summary.cases.values()]
    alone = score(f"{sources[0]}@t=2", f"{sources[1]}@t=2", None, EvaluateSettings())
    assert (summary.cases["prediction_t2"].as_dict(), len(dice)) == (alone.as_dict(), POINTS)
    tifffile.imwrite(tmp_path / "one.tif", truth[0], imagej=True, metadata={"axes": "ZYX"})
    with pytest.raises(DataProblem, match=r"prediction.ome.tif holds 4 time point\(s\) and one.tif 1; name those that"):
        score(sources[0], str(tmp_path / "one.tif"), None, EvaluateSettings())
