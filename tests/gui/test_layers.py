"""Layers become files and labels become layers, with everything that cannot be used refused by a sentence."""

from __future__ import annotations

import threading

import dask.array as da
import numpy as np
import pytest
import zarr
from combinations import in_one_case
from napari.components import ViewerModel
from napari.layers import Image, Labels, Points, Shapes

from napari_unetvnet.errors import DataProblem, FileProblem
from napari_unetvnet.images.io import read_labels, read_volume
from napari_unetvnet.images.series import opened
from napari_unetvnet.runs import read_settings
from napari_unetvnet.widgets import layers
from napari_unetvnet.widgets.layer_axes import first_axis_question, name_first_axis
from napari_unetvnet.widgets.layer_questions import layer_question

pytestmark = [
    pytest.mark.timeout(60),
    # napari says so of every turned 3D layer
    pytest.mark.filterwarnings("ignore:Non-orthogonal slicing:UserWarning"),
]
RNG = np.random.default_rng(0)
NEVER = threading.Event()


def written(folder, images, labels=None, **how):
    taken = layers.snapshot(images, [labels] if labels else [], painted=labels is not None, **how)
    layers.write(taken, folder, NEVER)
    (folder / "job.json").write_text(f'{{"image": "{taken.files.image}", "label": "{taken.files.label}"}}')
    found = read_settings(folder / "job.json")
    image = read_volume(found["image"], taken.spacing, taken.axes)
    return image, read_labels(found["label"], axes=taken.axes) if labels is not None else None


def image(shape=(20, 24), **how):
    return Image(RNG.integers(0, 1000, shape).astype(np.uint16), name="image", **how)


def painted(shape=(20, 24), **how):
    data = np.zeros(shape, np.uint8)
    data[..., 3:6, 3:6] = 2
    return Labels(data, name="strokes", **how)


def test_an_image_and_labels_arrive_as_they_are(tmp_path):
    picture, strokes = image(scale=(0.5, 0.25)), painted(scale=(0.5, 0.25))
    volume, labels = written(tmp_path, [picture], strokes)
    assert np.array_equal(volume.data, picture.data[None, None])
    assert volume.spacing == (1.0, 0.5, 0.25)
    assert volume.name == "image"
    assert np.array_equal(labels.data, strokes.data[None, None])


TURN = np.array([[0, 0, 3.0, 5], [0.5, 0, 0, 6], [0, -0.25, 0, 7], [0, 0, 0, 1]])


@in_one_case(
    "place, spacing, unit",
    [
        ({"affine": np.diag([2, 0.5, 0.5, 1])}, (2.0, 0.5, 0.5), "pixel"),
        ({"affine": TURN}, (0.5, 0.25, 3.0), "pixel"),
        ({"scale": (2, 0.5, 0.5), "affine": np.diag([10, 10, 10, 1])}, (20.0, 5.0, 5.0), "pixel"),
        ({"scale": (2, 0.5, 0.5), "rotate": (10, 20, 30), "translate": (1e5, 1e6, 0)}, (2.0, 0.5, 0.5), "pixel"),
        ({"scale": (1, 500, 500), "units": ("um", "nm", "nm")}, (1000.0, 500.0, 500.0), "nm"),
        ({"scale": (1, 2, 2), "units": ("mm", "mm", "mm")}, (1.0, 2.0, 2.0), "mm"),
    ],
)
def test_the_voxel_size_is_that_of_the_whole_transform(place, spacing, unit):
    taken = layers.snapshot([image((5, 20, 24), **place)], painted=False)
    assert taken.spacing == pytest.approx(spacing)
    assert taken.unit == unit


@in_one_case(
    "place, other, sentence",
    [
        ({"translate": (0, 1e5, 1e5)}, {"translate": (0, 1e5 + 0.2, 1e5)}, "lies beside image, by 2 voxels along y"),
        ({"translate": (0, 1e5, 1e5)}, {"translate": (0, 1e5 + 0.005, 1e5)}, ""),
        (
            {"units": ("um",) * 3},
            {"units": ("mm",) * 3},
            "voxels of 0.3 x 0.1 x 0.1 mm, image of",
        ),
        ({"units": ("um",) * 3}, {"units": ("nm",) * 3, "scale": (300, 100, 100)}, ""),
    ],
)
def test_layers_are_compared_in_voxels_and_with_their_units(place, other, sentence):
    near = {"scale": (0.3, 0.1, 0.1)}
    layers_of = image((5, 20, 24), **near | place), painted((5, 20, 24), **near | other)
    if not sentence:
        layers.snapshot([layers_of[0]], [layers_of[1]])
        return
    with pytest.raises(DataProblem, match=f"strokes .*{sentence}"):
        layers.snapshot([layers_of[0]], [layers_of[1]])


def test_a_stack_keeps_its_spacing(tmp_path):
    volume, _ = written(tmp_path, [image((5, 20, 24), scale=(2, -0.5, 0.5))], view="3d")
    assert volume.data.shape == (1, 5, 20, 24)
    assert volume.spacing == (2.0, 0.5, 0.5)  # a flipped axis has a size all the same


def test_layers_become_channels_in_order(tmp_path):
    first, second = image(), image()
    volume, _ = written(tmp_path, [first, second])
    assert np.array_equal(volume.data[:, 0], np.stack([first.data, second.data]))


@pytest.mark.parametrize("colours", [3, 4])
def test_colours_become_channels_and_alpha_is_dropped(tmp_path, colours):
    data = RNG.integers(0, 255, (20, 24, colours)).astype(np.uint8)
    volume, labels = written(tmp_path, [Image(data, rgb=True)], painted())
    assert np.array_equal(volume.data[:, 0], np.moveaxis(data[..., :3], -1, 0))
    assert labels.shape == volume.shape


def test_the_finest_level_of_a_multiscale_image_is_taken(tmp_path):
    fine = RNG.random((40, 48)).astype(np.float32)
    volume, _ = written(tmp_path, [Image([fine, fine[::2, ::2]], multiscale=True)])
    assert np.array_equal(volume.data[0, 0], fine)


def test_the_other_byte_order_is_turned(tmp_path):
    data = RNG.integers(0, 1000, (20, 24)).astype(">u2")
    volume, _ = written(tmp_path, [Image(data)])
    assert volume.data.dtype.isnative
    assert np.array_equal(volume.data[0, 0], data)


class Counting:
    """An array that tells how much of it was asked for at once."""

    def __init__(self, data, chunks=None):
        self.data, self.largest = data, 0
        self.shape, self.dtype, self.ndim = data.shape, data.dtype, data.ndim
        if chunks:
            self.chunks = chunks

    def __getitem__(self, key):
        block = self.data[key]
        self.largest = max(self.largest, block.nbytes)
        return block


@pytest.mark.parametrize("chunks", [None, (4, 16, 16)])
def test_no_array_is_read_whole(tmp_path, monkeypatch, chunks):
    monkeypatch.setattr(layers, "BLOCK_BYTES", 8192)
    data = RNG.integers(0, 9, (24, 40, 50)).astype(np.uint16)
    source = Counting(data, chunks)
    target = tmp_path / "a.npy"
    layers._copy(layers.Channel(source), target, NEVER)
    assert np.array_equal(np.load(target), data)
    assert source.largest <= 8192


@pytest.mark.parametrize("make", ["dask", "zarr"])
def test_lazy_arrays_are_copied_block_by_block(tmp_path, make):
    data = RNG.integers(0, 9, (7, 33, 41)).astype(np.uint16)
    lazy = da.from_array(data, chunks=(2, 16, 16)) if make == "dask" else zarr.array(data, chunks=(2, 16, 16))
    strokes = painted((7, 33, 41))
    strokes = Labels(da.from_array(strokes.data, chunks=(3, 10, 10)) if make == "dask" else zarr.array(strokes.data))
    volume, labels = written(tmp_path, [Image(lazy)], strokes, view="3d")
    assert np.array_equal(volume.data[0], data)
    assert np.array_equal(labels.data[0], np.asarray(strokes.data))


def test_painting_after_the_button_does_not_change_what_is_trained_on(tmp_path):
    strokes = painted()
    before = strokes.data.copy()
    taken = layers.snapshot([image()], [strokes])
    strokes.data[:] = 1
    layers.write(taken, tmp_path, NEVER)
    assert np.array_equal(np.load(tmp_path / taken.files.label), before)


def test_names_that_are_no_file_names_are_written_all_the_same(tmp_path):
    picture = image()
    picture.name = "a/b: c|d " + 200 * "x"
    volume, _ = written(tmp_path, [picture])
    assert volume.shape == (1, 20, 24)


def test_writing_can_be_cancelled(tmp_path):
    stopped = threading.Event()
    stopped.set()
    layers.write(layers.snapshot([image()], [painted()]), tmp_path, stopped)  # returns without a complaint


def test_a_full_disk_is_a_sentence(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("napari_unetvnet.images.arrays.reserve", full)
    with pytest.raises(FileProblem, match=r"inputs/labels/.*No space left.*set NAPARI_UNETVNET_RUNS to another folder"):
        layers.write(layers.snapshot([image()], [painted()]), tmp_path, NEVER)
    assert not list(tmp_path.rglob("*.npy"))


REFUSED = {
    "no image": ([], painted(), "2d", "no image layer"),
    "no labels": ([image()], None, "2d", "no labels layer"),
    "labels as image": ([painted()], painted(), "2d", "strokes is a Labels layer; choose an Image layer"),
    "points as labels": ([image()], Points(np.zeros((1, 2)), name="dots"), "2d", "dots is a Points layer"),
    "other shape": ([image((20, 25))], painted(), "2d", "strokes has 20 x 24 voxels, image has 20 x 25"),
    "channels of other shapes": ([image(), image((20, 25))], painted(), "2d", "20 x 25 voxels"),
    "channels of other scale": ([image(), image(scale=(2, 2))], painted(), "2d", "voxels of 1 x 2 x 2 pixel, image of"),
    "labels elsewhere": ([image()], painted(translate=(5, 0)), "2d", "lies beside image, by 5 voxels along y"),
    "labels turned": ([image()], painted(rotate=30), "2d", "is turned by 30 degrees against image"),
    "five axes": ([image((2, 3, 4, 20, 24))], painted((2, 3, 4, 20, 24)), "2d", "has 5 axes .* slice one channel"),
    "time as z": ([image((3, 20, 24), axis_labels=("t", "y", "x"))], painted((3, 20, 24)), "3d", "first axis .* is t"),
    "time as z in 2.5d": (
        [image((3, 20, 24), axis_labels=("time", "y", "x"))],
        painted((3, 20, 24)),
        "2.5d",
        "first axis .* is time",
    ),
    "channels as z": (
        [image((3, 20, 24), axis_labels=("c", "y", "x"))],
        painted((3, 20, 24)),
        "2d",
        "Split Stack",
    ),
    "2D in 3d": ([image()], painted(), "3d", "2D image; choose view 2d"),
}


@in_one_case("case", REFUSED)
def test_what_cannot_be_used_is_refused_by_a_sentence(case):
    images, labels, view, sentence = REFUSED[case]
    with pytest.raises(DataProblem, match=sentence):
        layers.snapshot(images, [labels] if labels else [], view=view)


@in_one_case(
    "shape, names, series",
    [
        ((4, 20, 24), ("t", "y", "x"), (4, 1, 20, 24)),
        ((4, 5, 20, 24), ("time", "z", "y", "x"), (4, 5, 20, 24)),
        ((4, 5, 20, 24), None, (4, 5, 20, 24)),
        ((4, 1, 20, 24), ("t", "z", "y", "x"), (4, 1, 20, 24)),
    ],
)
def test_a_series_is_written_whole_and_its_result_has_all_axes(tmp_path, shape, names, series):
    picture = image(shape, scale=(3.0, 2.0, 0.5, 0.25)[-len(shape) :], axis_labels=names)
    taken = layers.snapshot([picture], painted=False)
    assert (taken.time_points, taken.spacing[1:]) == (4, (picture.scale[-2], picture.scale[-1]))
    layers.write(taken, tmp_path, NEVER)
    stored = opened(tmp_path / taken.files.image, taken.axes)
    read = np.stack([stored.volume(t).data[0] for t in range(4)])
    assert read.shape == series
    assert np.array_equal(read.reshape(shape), picture.data)
    viewer = ViewerModel()
    viewer.add_layer(picture)
    result = layers.add_labels_layer(viewer, (read > 100).astype(np.uint8), picture, "result")
    assert np.array_equal(result.data, picture.data > 100)
    assert np.array_equal(result.scale, picture.scale)
    assert result.axis_labels == picture.axis_labels


@in_one_case("shape", [(5, 1, 20, 24), (1, 5, 1, 20, 24), (5, 20, 24), (1, 1, 20, 24)])
def test_axes_of_length_one_anywhere_are_left_out_and_there_again_in_results(tmp_path, shape):
    place = {"scale": (9.0, 2.0, 7.0, 0.5, 0.25)[-len(shape) :]}
    picture, strokes = image(shape, **place), painted(shape, **place)
    volume, labels = written(tmp_path, [picture], strokes)
    assert volume.shape == (5 if 5 in shape else 1, 20, 24)
    assert np.array_equal(volume.data.ravel(), picture.data.ravel())
    assert np.array_equal(labels.data.ravel(), strokes.data.ravel())
    viewer = ViewerModel()
    viewer.add_layer(picture)
    result = layers.add_labels_layer(viewer, labels.data[0], picture, "result")
    assert np.array_equal(result.data, strokes.data)
    assert np.array_equal(result.scale, picture.scale)
    shown = layers.as_shown(labels.data[0], picture)
    preview = Labels(shown, **layers.place_of(picture, (1, 2, 3)))
    first = preview.data_to_world((0,) * preview.ndim)
    at = [0] * len(shape)
    at[-2:] = 2, 3
    if 5 in shape:
        at[shape.index(5)] = 1
    assert first[-2:] == pytest.approx(picture.data_to_world(at)[-2:])
    if 5 in shape:
        z = len(shape) - shape.index(5)
        assert first[-z] == pytest.approx(picture.data_to_world(at)[-z])


def test_a_first_axis_without_a_name_is_asked_about_and_named():
    cases = {(3, 20, 24): ["z", "t", "c"], (5, 20, 24): None, (4, 5, 20, 24): ["t", "c"], (20, 24): None}
    for shape, expected in cases.items():
        picture = image(shape)
        question = first_axis_question(picture)
        assert (question and [answer.settings["first_axis"] for answer in question.answers]) == expected
        if expected:
            name_first_axis([picture], "t")
            assert first_axis_question(picture) is None
            assert layers.is_time_series(picture)


def test_which_time_points_are_trained_on_is_asked():
    viewer = ViewerModel()
    picture = viewer.add_layer(image((4, 20, 24), axis_labels=("t", "y", "x")))
    strokes = viewer.add_layer(painted((4, 20, 24), axis_labels=("t", "y", "x")))
    strokes.data = np.zeros((4, 20, 24), np.uint8)
    strokes.data[[1, 3], 4:6] = 1
    viewer.dims.set_point(0, 2)
    question = layer_question(viewer, [picture], [strokes], ())
    assert [answer.settings["time"] for answer in question.answers] == ["1 3", "2", ":"]
    assert layer_question(viewer, [picture], [strokes], ("1",)) is None
    taken = layers.snapshot([picture], [strokes]).chosen(("3",)).parts[0]
    assert (taken.axes, taken.labels[0].shape) == ("yx", (20, 24))
    assert np.array_equal(taken.labels[0].read((slice(None),) * 2), strokes.data[3])


def test_only_the_chosen_time_points_are_copied(tmp_path):
    picture = image((4, 3, 20, 24), axis_labels=("t", "z", "y", "x"))
    picture.name = "a" * 70  # file names are shorter, and still differ
    strokes = painted((4, 3, 20, 24), axis_labels=("t", "z", "y", "x"))
    strokes.data = np.zeros(picture.data.shape, np.uint8)
    strokes.data[1, :, 4:6] = 1
    taken = layers.snapshot([picture], [strokes], mask=painted((4, 3, 20, 24))).chosen(("1", "3"))
    layers.write(taken, tmp_path, NEVER)
    files = taken.training_files
    assert (len(files["mask"]), files["in_order"], taken.parts[0].axes) == (2, True, "zyx")
    for point, name, label in zip((1, 3), files["image"], files["label"], strict=True):
        assert np.array_equal(np.load(tmp_path / name), picture.data[point])
        assert np.array_equal(np.load(tmp_path / label), strokes.data[point])
    assert sorted(path.name for path in tmp_path.glob("inputs/labels/*")) == ["strokes_t1.npy", "strokes_t3.npy"]
    with pytest.raises(DataProblem, match=r"Nothing is painted on strokes at time points 0, 2; paint some labels"):
        layers.write(layers.snapshot([picture], [strokes]).chosen(("0:4:2",)), tmp_path, NEVER)
    with pytest.raises(
        DataProblem, match=r"strokes has no time axis, so it belongs to one time point, but 4 of a+ are"
    ):
        layers.snapshot([picture], [painted((3, 20, 24))]).chosen((":",))


def test_nothing_painted_is_refused_when_it_is_seen(tmp_path):
    empty = Labels(np.zeros((20, 24), np.uint8), name="strokes")
    with pytest.raises(DataProblem, match="Nothing is painted on strokes"):
        layers.write(layers.snapshot([image()], [empty]), tmp_path, NEVER)


def test_labels_of_napari_s_own_button_fit(viewer):
    picture = viewer.add_layer(image((5, 20, 24), scale=(2, 0.5, 0.5), translate=(1, 2, 3), rotate=(0, 20, 0)))
    viewer.layers.selection.active = picture
    viewer._new_labels()
    taken = layers.snapshot([picture], [viewer.layers[-1]], view="3d")
    assert taken.labels[0].shape == (5, 20, 24)


def test_masks_of_several_classes_are_several_files(tmp_path):
    masks = [Labels((RNG.random((20, 24)) < 0.5).astype(np.uint8), name=name) for name in ("a/b", "a:b", "A_b")]
    inside = painted()
    inside.name = "inside"
    taken = layers.snapshot([image()], masks, mask=inside)
    layers.write(taken, tmp_path, NEVER)
    files = taken.files.label.split("|")
    assert len({file.lower() for file in files}) == 3
    for mask, file in zip(masks, files, strict=True):
        assert np.array_equal(np.load(tmp_path / file), mask.data)
    assert taken.files.mask == "inputs/mask/inside.npy"
    assert np.array_equal(np.load(tmp_path / taken.files.mask), inside.data)


def test_an_empty_mask_is_named(tmp_path):
    masks = [painted(), Labels(np.zeros((20, 24), np.uint8), name="second")]
    with pytest.raises(DataProblem, match="Nothing is painted on second"):
        layers.write(layers.snapshot([image()], masks), tmp_path, NEVER)


def lines(shapes, kinds, **how):
    return Shapes([np.array(shape, float) for shape in shapes], shape_type=kinds, name="lines", **how)


def test_lines_of_a_shapes_layer_are_drawn(tmp_path):
    drawn = lines([[[2, 3], [2, 9]], [[4, 0], [10, 0], [10, 5]], [[13, 3], [13, 6], [17, 6], [17, 3]]],
                  ["line", "path", "rectangle"])  # fmt: skip
    _, labels = written(tmp_path, [image()], drawn)
    expected = np.zeros((20, 24), np.uint8)
    expected[2, 3:10] = expected[4:11, 0] = expected[10, :6] = 1
    expected[13:18, 3:7] = 1
    expected[14:17, 4:6] = 0  # of a rectangle the outline
    assert labels.data.dtype == np.uint8
    assert np.array_equal(labels.data[0, 0], expected)


def test_lines_are_drawn_where_they_are_in_the_world(tmp_path):
    """A shapes layer has a place of its own, and vertices carry the plane they were drawn in."""
    picture = image((5, 20, 24), scale=(2, 0.5, 0.25), translate=(1, 2, 3), rotate=(0, 20, 0))
    ends = np.array([[3, 2, 4], [3, 12, 4]])
    world = np.array([picture.data_to_world(end) for end in ends])
    drawn = lines([(world - (1, 1, 1)) / (2, 1, 1)], ["line"], scale=(2, 1, 1), translate=(1, 1, 1))
    _, labels = written(tmp_path, [picture], drawn, view="3d")
    expected = np.zeros((5, 20, 24), np.uint8)
    expected[3, 2:13, 4] = 1
    assert np.array_equal(labels.data[0], expected)


@pytest.mark.parametrize(
    ("shapes", "kinds", "sentence"),
    [
        ([], [], "Nothing is drawn on lines"),
        ([[[0, 0], [0, 9], [9, 9], [9, 0]]], ["ellipse"], "ellipse shapes; draw lines"),
        ([[[0, 0, 0], [0, 9, 9]]], ["line"], "lines has 3 axes, image has 2"),
    ],
)
def test_shapes_that_are_no_lines_are_refused(shapes, kinds, sentence):
    drawn = lines(shapes, kinds) if shapes else Shapes(ndim=2, name="lines")
    with pytest.raises(DataProblem, match=sentence):
        layers.snapshot([image()], [drawn])


def test_lines_beside_the_image_are_refused_when_it_is_seen(tmp_path):
    taken = layers.snapshot([image()], [lines([[[50, 50], [60, 60]]], ["line"])])
    with pytest.raises(DataProblem, match="Nothing is painted on lines"):
        layers.write(taken, tmp_path, NEVER)


AFFINE = np.array([[1, 0.1, 0, 4], [0, 0.9, 0.2, 5], [0, 0, 1.1, 6], [0, 0, 0, 1]])
PLACES = {
    "plain": {},
    "scale": {"scale": (2, 0.5, 0.25)},
    "translate": {"translate": (1, -2, 3)},
    "rotate": {"rotate": (10, 20, 30)},
    "shear": {"shear": (0.1, 0.2, 0.3)},
    "affine": {"affine": AFFINE},
    "all": {"scale": (2, 0.5, 0.25), "translate": (1, -2, 3), "rotate": (10, 20, 30), "shear": (0.1, 0, 0.3)}
    | {"affine": AFFINE, "units": ("um", "um", "um"), "axis_labels": ("z", "y", "x")},
    "units": {"units": ("mm", "um", "um"), "axis_labels": ("depth", "row", "column")},
}


@pytest.mark.parametrize("place", PLACES)
def test_results_lie_on_their_image(viewer, place):
    picture = viewer.add_layer(image((5, 20, 24), **PLACES[place]))
    result = layers.add_labels_layer(viewer, painted((5, 20, 24)).data, picture, "result", {"model": "a"})
    for point in RNG.random((10, 3)) * 20:
        assert np.allclose(result.data_to_world(point), picture.data_to_world(point))
    assert result.units == picture.units
    assert result.axis_labels == picture.axis_labels
    assert np.allclose(result.affine.affine_matrix, picture.affine.affine_matrix)
    assert result.metadata == {"model": "a"}
    assert result in viewer.layers
    part = Image(np.zeros((2, 20, 24)), **layers.place_of(picture, (3, 0, 0)))
    assert np.allclose(part.data_to_world((1, 4, 5)), picture.data_to_world((4, 4, 5)))


@pytest.mark.parametrize("colours", [False, True])
def test_results_of_a_2d_image_are_2d(viewer, colours):
    data = RNG.integers(0, 255, (20, 24, 3) if colours else (20, 24)).astype(np.uint8)
    picture = viewer.add_image(data, rgb=colours, scale=(0.5, 2), rotate=30, units=("um", "um"))
    result = layers.add_labels_layer(viewer, np.ones((1, 20, 24), np.uint8), picture, "result")
    assert result.data.shape == (20, 24)
    assert np.allclose(result.data_to_world((3, 4)), picture.data_to_world((3, 4)))


def test_a_second_result_gets_a_number_and_the_first_stays(viewer):
    picture = viewer.add_layer(image())
    first = layers.add_labels_layer(viewer, np.ones((1, 20, 24), np.uint8), picture, "result")
    second = layers.add_labels_layer(viewer, np.zeros((1, 20, 24), np.uint8), picture, "result")
    assert second.name != first.name
    assert first.data.all()


def test_axes_of_length_one_before_z_are_left_out_and_results_lie_on_the_others(tmp_path):
    place = {
        "scale": (1, 2, 0.5, 0.25),
        "translate": (0, 10, 20, 30),
        "units": ("s", *["um"] * 3),
    }
    place |= {"axis_labels": ("t", "z", "y", "x")}
    picture, strokes = image((1, 3, 20, 24), **place), painted((1, 3, 20, 24), **place)
    volume, labels = written(tmp_path, [picture], strokes)
    assert np.array_equal(volume.data[0], picture.data[0])
    assert np.array_equal(labels.data[0], strokes.data[0])
    assert volume.spacing == (2.0, 0.5, 0.25)
    viewer = ViewerModel()
    viewer.add_layer(picture)
    result = layers.add_labels_layer(viewer, strokes.data[0], picture, "result")
    for voxel in ((0, 0, 0, 0), (0, 2, 5, 7)):
        assert result.data_to_world(voxel) == pytest.approx(picture.data_to_world(voxel))
    assert result.units == picture.units
    layers.snapshot([picture], [result])  # a result can be corrected and learnt
    shifted = layers.place_of(picture, (1, 0, 2), (1, 2, 2))
    assert Labels(strokes.data[0], **shifted).data_to_world((1, 1, 1)) == pytest.approx((14, 21, 31.0))
    lazy = Image(da.zeros((1, 3, 20, 24), np.uint8, chunks=(1, 1, 20, 24)), name="lazy")
    assert layers.snapshot([lazy], painted=False).channels[0].read((slice(1), slice(20), slice(24))).shape == (
        1,
        20,
        24,
    )
    lines = Shapes([np.array([[0, 1, 2, 3], [0, 1, 2, 9]])], shape_type="line", name="lines", **place)
    drawn = layers.snapshot([picture], [lines]).labels[0].data
    assert np.argwhere(drawn)[:, 0].tolist() == [1] * 7


@pytest.mark.parametrize("before", [0, 1])
def test_layers_that_are_stored_along_other_axes_are_brought_together(tmp_path, before):
    """Labels (x, z, y) with z mirrored, and a channel with y mirrored; napari shows them in the places of the image."""
    values = RNG.integers(0, 4, (5, 20, 24)).astype(np.uint8)
    first = Image(RNG.random(values.shape), scale=(2, 0.5, 0.5), translate=(10, -3, 7))
    affine = np.zeros((4, 4))
    affine[0, 1], affine[1, 2], affine[2, 0], affine[3, 3] = -2, 0.5, 0.5, 1
    affine[:3, 3] = 10 + 2 * 4, -3, 7
    stored = values[::-1].transpose(2, 0, 1)
    whole = np.eye(4 + before)
    whole[before:, before:] = affine
    labels = Labels(stored.reshape((1,) * before + stored.shape), affine=whole)
    second = Image(first.data[:, ::-1], scale=(2, -0.5, 0.5), translate=(10, -3 + 19 * 0.5, 7))
    volume, written_labels = written(tmp_path, [first, second], labels)
    np.testing.assert_array_equal(np.asarray(written_labels.data[0]), values)
    np.testing.assert_array_equal(np.asarray(volume.data[0]), np.asarray(volume.data[1]))
    for place in ((0, 3, 5), (4, 19, 0)):  # as napari itself converts positions
        world = first.data_to_world(place)
        there = tuple(round(i) for i in labels.world_to_data((*(0,) * before, *world)))
        assert labels.data[there] == values[place]
