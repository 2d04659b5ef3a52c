"""What the axes of a file are is said by the file or by the user, and asked where it matters."""

import h5py
import nibabel
import numpy as np
import pytest
import tifffile
import zarr
from combinations import in_one_case

from napari_unetvnet.errors import DataProblem, SettingsProblem
from napari_unetvnet.images.axes import UnclearAxes
from napari_unetvnet.images.io import read_labels, read_volume
from napari_unetvnet.images.series import opened
from napari_unetvnet.settings import SegmentJob, TrainJob, checked

THREE = np.arange(3 * 5 * 7, dtype=np.uint8).reshape(3, 5, 7)
FOUR = np.arange(2 * 3 * 5 * 7, dtype=np.uint8).reshape(2, 3, 5, 7)


def stored(folder, ending, array, **how):
    path = folder / f"a{ending}"
    if ending == ".tif":
        tifffile.imwrite(path, array, **({"photometric": "rgb"} | how))
    elif ending == ".npy":
        np.save(path, array)
    elif ending == ".h5":
        with h5py.File(path, "w") as file:
            file["image"] = array
    else:
        zarr.save_array(path, array)
    return path


@in_one_case("ending", [".tif", ".npy", ".h5", ".zarr"])
def test_the_axes_that_are_given_are_those_of_the_array(tmp_path, ending):
    path = stored(tmp_path, ending, THREE)
    for axes, expected in (("zyx", THREE[None]), ("cyx", THREE[:, None]), ("yxz", THREE.transpose(2, 0, 1)[None])):
        np.testing.assert_array_equal(read_volume(path, axes=axes).data[...], expected)
    np.testing.assert_array_equal(read_labels(path, axes="czyx").data[...], THREE[None])  # labels have no channels
    with pytest.raises(DataProblem, match=r"has the shape \(3, 5, 7\), which does not fit --axes yx; name each"):
        read_volume(path, axes="yx")


@in_one_case("ending", [".npy", ".h5", ".zarr"])
def test_four_axes_may_be_in_any_order(tmp_path, ending):
    path = stored(tmp_path, ending, FOUR)
    np.testing.assert_array_equal(read_volume(path, axes="czyx").data[...], FOUR)
    np.testing.assert_array_equal(read_volume(path, axes="zcyx").data[...], FOUR.transpose(1, 0, 2, 3))
    np.testing.assert_array_equal(read_volume(path).data[...], FOUR)


@in_one_case("how", [{}, {"photometric": "minisblack", "imagej": True, "metadata": {"axes": "CYX"}}])
def test_three_planes_of_labels_that_look_like_channels_are_asked_about(tmp_path, how):
    path = stored(tmp_path, ".tif", THREE, **how)
    with pytest.raises(DataProblem, match=r"\(3, 5, 7\): give --axes zyx for planes or --axes cyx for channels"):
        read_labels(path)
    np.testing.assert_array_equal(read_labels(path, axes="zyx").data, THREE[None])


def test_axes_that_are_none_are_refused():
    for axes in ("zyz", "tty", "zy"):
        with pytest.raises(SettingsProblem, match="'zyx', 'cyx'"):
            checked(SegmentJob, {"image": "a.tif", "model": "m", "axes": axes})
    assert checked(TrainJob, {"image": "a", "label": "b", "axes": "zyx"}).axes == "zyx"


def test_time_points_are_named_or_read_as_planes_where_that_is_said(tmp_path):
    cases = (("TYX", (3, 5, 7), "zyx"), ("TCYX", (3, 2, 5, 7), "zcyx"), ("TZYX", (3, 2, 5, 7), ""))
    for axes, shape, given in cases:
        frames = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
        path = tmp_path / f"{axes}.ome.tif"
        tifffile.imwrite(path, frames, metadata={"axes": axes}, photometric="minisblack")
        with pytest.raises(DataProblem, match=rf"{axes}.ome.tif holds 3 time points, 0 to 2; name one"):
            read_volume(path)
        one = read_volume(f"{path}@t=1").data
        assert one.shape == (*((2, 1) if "C" in axes else (1, 2) if "Z" in axes else (1, 1)), 5, 7)
        assert np.array_equal(one.ravel(), frames[1].ravel())
        with pytest.raises(DataProblem, match=r"has the time points 0 to 2, not 3; choose another"):
            read_volume(f"{path}@t=3")
        if given:
            expected = frames[None] if axes == "TYX" else frames.swapaxes(0, 1)
            assert np.array_equal(read_volume(path, axes=given).data, expected)


@in_one_case("axes", ["tczyx", "tzcyx", "ctzyx"])
@in_one_case("ending", [".npy", ".h5", ".zarr"])
def test_time_points_with_channels(tmp_path, ending, axes):
    """Each time point is (C, Z, Y, X), in whatever order the axes are stored, and nothing else is read."""
    series = np.arange(2 * 3 * 4 * 5 * 7).reshape(2, 3, 4, 5, 7)  # T C Z Y X
    folder = tmp_path / f"{axes}{ending}"
    folder.mkdir()
    path = stored(folder, ending, np.einsum(f"tczyx->{axes}", series))
    for t in range(2):
        np.testing.assert_array_equal(opened(path, axes).volume(t).data[...], series[t])
    np.testing.assert_array_equal(read_volume(f"{path}@t=1", axes=axes).data[:, 1:3, 2], series[1, :, 1:3, 2])


def test_labels_of_a_series_may_lack_channels_or_time(tmp_path):
    series = np.arange(6 * 4 * 5 * 7, dtype=np.uint16).reshape(6, 4, 5, 7)
    labels = stored(tmp_path, ".npy", series)
    assert np.array_equal(read_labels(f"{labels}@t=4", axes="tczyx").data[0], series[4])
    labels = stored(tmp_path, ".npy", series[0])
    assert np.array_equal(read_labels(labels, axes="tzyx").data[0], series[0])


def test_the_fourth_axis_of_nifti_is_time_if_that_is_said_and_the_fifth_is_channels(tmp_path):
    series = np.arange(2 * 3 * 4 * 5 * 7, dtype=np.int16).reshape(2, 3, 4, 5, 7)  # channel time z y x
    nibabel.save(nibabel.Nifti1Image(series[0].T, np.eye(4)), tmp_path / "a.nii")
    assert np.array_equal(read_volume(tmp_path / "a.nii").data, series[0])
    for axes in ("tzyx", "xyzt"):
        assert np.array_equal(read_volume(tmp_path / "a.nii@t=2", axes=axes).data[0], series[0, 2])
    nibabel.save(nibabel.Nifti1Image(series.T, np.eye(4)), tmp_path / "b.nii")
    assert np.array_equal(read_volume(tmp_path / "b.nii@t=2").data, series[:, 2])
    nibabel.save(nibabel.Nifti1Image(series[:, :1].T, np.eye(4)), tmp_path / "c.nii")
    assert np.array_equal(read_volume(tmp_path / "c.nii").data, series[:, 0])


@in_one_case("ending", [".tif", ".npy", ".h5", ".zarr"])
def test_a_short_first_axis_without_a_name_is_asked_about(tmp_path, ending):
    path = stored(tmp_path, ending, THREE, photometric="minisblack")
    wanted = (
        rf"a{ending} has the shape \(3, 5, 7\) and does not say what its first axis is; give --axes zyx for 3 planes,"
    )
    with pytest.raises(UnclearAxes, match=wanted):
        read_volume(path)
    assert np.array_equal(read_labels(path).data[...], THREE[None])  # labels have no channels
    for axes, shape in (("zyx", (1, 3, 5, 7)), ("cyx", (3, 1, 5, 7))):
        assert read_volume(path, axes=axes).data.shape == shape
    assert opened(path, "tyx").time.points == 3


@in_one_case(
    "how",
    [
        {"photometric": "rgb", "planarconfig": "separate"},
        {"photometric": "minisblack", "imagej": True, "metadata": {"axes": "ZYX"}},
        {"photometric": "minisblack", "metadata": {"axes": "ZYX"}},
    ],
)
def test_a_short_first_axis_with_a_name_is_not_asked_about(tmp_path, how):
    path = stored(tmp_path, ".tif", THREE, **how)
    assert read_volume(path).data.shape == ((3, 1, 5, 7) if how["photometric"] == "rgb" else (1, 3, 5, 7))
