"""What files say besides pixels: scenes, axes and names of bioio, names of channels, orientation, size of a pixel."""

from __future__ import annotations

import sys
from datetime import timedelta
from types import ModuleType, SimpleNamespace

import dask.array as da
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from napari_unetvnet.errors import DataProblem, FileProblem
from napari_unetvnet.images.io import read_volume
from napari_unetvnet.images.series import opened
from napari_unetvnet.runs.inputs import find_inputs, read_pair
from napari_unetvnet.settings import TrainJob, checked

FRAMES = np.arange(2 * 2 * 3 * 8 * 9, dtype=np.uint16).reshape(2, 2, 3, 8, 9)  # T C Z Y X


class UnsupportedFileFormatError(Exception):
    """As that of bioio."""


class Scenes:
    """What the reader uses of a BioImage: two scenes, the second is ten higher."""

    scenes = ("Overview", "Position 2")
    physical_pixel_sizes = SimpleNamespace(Z=2.0, Y=0.5, X=0.25)
    time_interval = timedelta(seconds=3)
    channel_names = ("DAPI", "GFP")

    def __init__(self, path):
        if path.suffix == ".lif":
            raise UnsupportedFileFormatError
        self._scene = 0

    def set_scene(self, number):
        self._scene = number

    @property
    def xarray_dask_data(self):
        chunked = da.from_array(FRAMES + 10 * self._scene, chunks=(1, 1, 1, 8, 9))
        return SimpleNamespace(data=chunked, dims=("T", "C", "Z", "Y", "X"))


@pytest.fixture
def bioio(tmp_path, monkeypatch):
    """A module that stands for bioio, which is not installed for the tests."""
    modules = {name: ModuleType(name) for name in ("bioio", "bioio_base", "bioio_base.exceptions")}
    modules["bioio"].BioImage = Scenes
    modules["bioio"].__spec__ = SimpleNamespace(loader=None)
    modules["bioio_base.exceptions"].UnsupportedFileFormatError = UnsupportedFileFormatError
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    for ending in ("czi", "lif"):
        (tmp_path / f"a.{ending}").write_bytes(b"scenes")
    return tmp_path


def test_a_scene_is_read_with_its_axes_geometry_and_names(bioio):
    for scene, higher in (("Overview", 0), ("1", 0), ("2", 10), ("Position 2", 10)):
        image = opened(f"{bioio}/a.czi:{scene}")
        assert (image.time.points, image.time.step, image.time.unit) == (2, 3, "second")
        volume = image.volume(1)
        np.testing.assert_array_equal(volume.data, FRAMES[1] + higher)
        assert (volume.spacing, volume.unit) == ((2.0, 0.5, 0.25), "micrometer")
        assert volume.channel_names == ("DAPI", "GFP")
    np.testing.assert_array_equal(read_volume(f"{bioio}/a.czi:2@t=0").data[:, 1:], FRAMES[0, :, 1:] + 10)


def test_scenes_are_asked_for_with_a_list(bioio):
    wanted = r"a.czi holds 2 scenes; name one by its number or name, such as a.czi:1: 1 \(Overview\), 2 \(Position 2\)"
    with pytest.raises(FileProblem, match=wanted):
        read_volume(bioio / "a.czi")
    with pytest.raises(FileProblem, match=r"a.czi has no scene Nowhere; it holds 2 scenes"):
        read_volume(f"{bioio}/a.czi:Nowhere")


def test_what_must_be_installed_is_said(bioio, monkeypatch):
    with pytest.raises(FileProblem, match=r"bioio has no reader for a.lif; install it: pip install bioio-lif\."):
        read_volume(bioio / "a.lif")
    monkeypatch.delitem(sys.modules, "bioio")
    with pytest.raises(FileProblem, match=r'a.czi is read by bioio, which is not installed: pip install "napari-unet'):
        read_volume(bioio / "a.czi")


# Names of channels ----------------------------------------------------------------------------------------------------

NAMES = ("DAPI", "GFP & more")


def named_files(folder):
    pixels = FRAMES[0]
    tifffile.imwrite(
        folder / "a.ome.tif", pixels, photometric="minisblack", metadata={"axes": "CZYX", "Channel": {"Name": NAMES}}
    )
    labels = list(NAMES) * 3
    stack = np.ascontiguousarray(pixels.swapaxes(0, 1))
    tifffile.imwrite(folder / "a.tif", stack, imagej=True, metadata={"axes": "ZCYX", "Labels": labels})
    group = zarr.open_group(folder / "a.zarr", mode="w")
    group.create_array("0", data=pixels)
    levels = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1, 1, 1, 1]}]}]
    shown = {"channels": [{"label": name} for name in NAMES]}
    group.attrs["ome"] = {"multiscales": [{"axes": [{"name": n} for n in "czyx"], "datasets": levels}], "omero": shown}
    return [folder / name for name in ("a.ome.tif", "a.tif", "a.zarr")]


def test_files_name_their_channels(tmp_path):
    for path in named_files(tmp_path):
        assert read_volume(path).channel_names == NAMES, path
    tifffile.imwrite(tmp_path / "plain.ome.tif", FRAMES[0], photometric="minisblack", metadata={"axes": "CZYX"})
    assert read_volume(tmp_path / "plain.ome.tif").channel_names == ()


def test_a_training_takes_over_the_names_and_puts_other_files_in_their_order(tmp_path):
    first, second = tmp_path / "a.ome.tif", tmp_path / "b.ome.tif"
    for path, order in ((first, [0, 1]), (second, [1, 0])):
        facts = {"axes": "CZYX", "Channel": {"Name": [NAMES[i] for i in order]}}
        tifffile.imwrite(path, FRAMES[0][order], photometric="minisblack", metadata=facts)
        np.save(path.with_name(f"{path.name[0]}_labels.npy"), np.ones((3, 8, 9), np.uint8))
    files = {"image": [str(first), str(second)], "label": [str(tmp_path / f"{name}_labels.npy") for name in "ab"]}
    inputs, notices = find_inputs(checked(TrainJob, files)), []
    assert inputs.job.channel_names == NAMES
    pairs = [read_pair(each, inputs.job, notices) for each in inputs.files]
    for pair in pairs:
        np.testing.assert_array_equal(pair.image.data, FRAMES[0])
    assert notices == ["The channels of b were put in the order DAPI, GFP & more."]


# Orientation and resolution -------------------------------------------------------------------------------------------


def turned(path, shape=(6, 9)):
    pixels = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    if path.suffix == ".tif":
        tifffile.imwrite(path, pixels, photometric="minisblack", extratags=[(274, 3, 1, 6, True)])
    else:
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(pixels).save(path, exif=exif)
    return pixels


@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif"])
def test_a_picture_that_viewers_turn_is_read_as_it_is_stored_and_that_is_told(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    pixels, notices = turned(path), []
    volume = read_volume(path, notices=notices)
    assert volume.shape == (1, *pixels.shape)
    assert notices[0].startswith(
        f"a{ending} has the orientation tag 6, so viewers show it turned by 90 degrees. It was"
    )
    np.save(tmp_path / "labels.npy", np.ones(pixels.shape[::-1], np.uint8))
    inputs = find_inputs(checked(TrainJob, {"image": str(path), "label": str(tmp_path / "labels.npy")}))
    with pytest.raises(DataProblem, match=r"labels.npy has the size of the turned picture; save the picture as it is"):
        read_pair(inputs.files[0], inputs.job)


def test_the_resolution_of_a_tiff_is_the_size_of_a_pixel_unless_it_is_for_printers(tmp_path):
    cases = {
        ((20000, 10000), "CENTIMETER"): ((0.5, 1.0), "micrometer"),
        ((25400, 25400), "INCH"): ((1.0, 1.0), "micrometer"),
        ((300, 300), "INCH"): ((1.0, 1.0), "pixel"),
        ((118, 118), "CENTIMETER"): ((1.0, 1.0), "pixel"),
        ((20000, 20000), "NONE"): ((1.0, 1.0), "pixel"),
    }
    for (resolution, unit), ((x, y), expected) in cases.items():
        how = {"resolution": resolution, "resolutionunit": unit, "metadata": None}
        tifffile.imwrite(tmp_path / "a.tif", np.zeros((6, 9), np.uint8), photometric="minisblack", **how)
        volume = read_volume(tmp_path / "a.tif")
        assert (volume.spacing[1:], volume.unit) == ((pytest.approx(y), pytest.approx(x)), expected)
