"""What the axes of a file are is said by the file or by the user, and asked where it matters."""

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from combinations import in_one_case

from napari_unetvnet.errors import DataProblem, SettingsProblem
from napari_unetvnet.images.io import read_labels, read_volume
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
    for axes in ("zyz", "tyx", "zy"):
        with pytest.raises(SettingsProblem, match="'zyx', 'cyx'"):
            checked(SegmentJob, {"image": "a.tif", "model": "m", "axes": axes})
    assert checked(TrainJob, {"image": "a", "label": "b", "axes": "zyx"}).axes == "zyx"


def test_time_points_of_planes_can_be_read_as_planes_where_that_is_said(tmp_path):
    cases = (("TYX", (3, 5, 7), "zyx"), ("TCYX", (3, 2, 5, 7), "zcyx"), ("TZYX", (3, 2, 5, 7), ""))
    for axes, shape, given in cases:
        frames = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
        path = tmp_path / f"{axes}.ome.tif"
        tifffile.imwrite(path, frames, metadata={"axes": axes}, photometric="minisblack")
        advice = f", or give --axes {given} to take them as planes, for a model of view 2d" if given else ""
        with pytest.raises(DataProblem, match=rf"holds 3 time points; save one time point as a file{advice}\.$"):
            read_volume(path)
        if given:
            expected = frames[None] if axes == "TYX" else frames.swapaxes(0, 1)
            assert np.array_equal(read_volume(path, axes=given).data, expected)
