"""Lines in label images: thinned, followed, and written as shapes."""

from __future__ import annotations

import numpy as np
import pytest
from combinations import in_one_case
from napari_builtins.io import napari_get_reader
from scipy.ndimage import distance_transform_edt

from napari_unetvnet.data.targets import draw_paths
from napari_unetvnet.errors import SettingsProblem
from napari_unetvnet.images.io import read_labels
from napari_unetvnet.postprocess import paths_of, postprocess, thinned
from napari_unetvnet.runs.clean import clean_file
from napari_unetvnet.settings import CleanJob, PostprocessSettings, checked

COURSES = {
    "bent": [[0, 4, 5], [0, 30, 40], [0, 55, 44]],
    "ring": [[0, 10, 10], [0, 10, 50], [0, 50, 50], [0, 50, 10], [0, 10, 10]],
    "upright": [[0, 3, 20], [0, 60, 20]],
}


def farthest(a, b):
    """The largest distance of a voxel of a mask from another mask."""
    return distance_transform_edt(~b)[a].max()


@in_one_case("name", COURSES)
def test_a_thick_line_becomes_the_course_it_was_drawn_along(name):
    course = np.array(COURSES[name], float)
    thick, drawn = (draw_paths([course], (1, 64, 64), width=width) for width in (3, 1))
    labels = np.where(thick, 4, np.where(np.arange(64) > 60, 2, 0))
    thin = thinned(labels, (4,))
    assert farthest((thin == 4)[0], drawn[0]) <= 1.5
    assert farthest(drawn[0], (thin == 4)[0]) <= 2.5  # ends are up to the thickness shorter
    assert (thin == 4).sum() < drawn.sum() * 1.1
    assert ((thin == 2) == (labels == 2)).all()
    again = draw_paths([path.vertices for path in paths_of(labels, (4,))], (1, 64, 64))
    assert farthest(again[0], (thin == 4)[0]) <= 1
    assert farthest((thin == 4)[0], again[0]) <= 1


def test_lines_are_divided_where_they_meet_and_lie_in_their_planes():
    labels = np.zeros((3, 21, 21), int)
    labels[1, 10, 2:19] = labels[1, 3:10, 10] = 1
    labels[2, 5, 5] = 1
    labels[2, 12, 3:9] = 7
    paths = paths_of(labels, (1, 7))
    assert [path.value for path in paths] == [1, 1, 1, 7]
    assert {int(path.vertices[0, 0]) for path in paths[:3]} == {1}
    assert paths[3].vertices.tolist() == [[2, 12, 3], [2, 12, 8]]


@pytest.mark.parametrize("planes", [1, 3])
def test_clean_thins_and_writes_lines_that_napari_opens_as_shapes(tmp_path, planes):
    labels = np.zeros((planes, 40, 40), np.uint8)
    labels[-1, 9:12, 4:36], labels[-1, 20:30, 20:30] = 3, 1
    np.save(tmp_path / "labels.npy", labels)
    job = checked(CleanJob, {"labels": str(tmp_path / "labels.npy"), "output": tmp_path / "thin.npy", "thin": "3"})
    assert clean_file(job).tables == {"Lines": [tmp_path / "thin_lines_3.csv"]}
    result = np.asarray(read_labels(str(tmp_path / "thin.npy")).data)[0]
    assert (result == postprocess(labels, checked(PostprocessSettings, {"thin": [3]})).labels).all()
    assert (result == 1).sum() == 100
    assert (result[-1] == 3).any(axis=0).sum() == (result == 3).sum() >= 29
    path = str(tmp_path / "thin_lines_3.csv")
    ((vertices, options, kind),) = napari_get_reader(path)(path)
    assert (kind, options["shape_type"]) == ("shapes", ["path"])
    assert vertices[0].shape[1] == (2 if planes == 1 else 3)
    assert (abs(vertices[0][:, -2] - 10) <= 1).all()
    assert np.ptp(vertices[0][:, -1]) >= 28


def test_lines_and_ids_of_objects_exclude_each_other():
    with pytest.raises(SettingsProblem, match="choose one"):
        checked(PostprocessSettings, {"thin": [1], "objects": "components"})
