"""Single objects out of classes: pieces against a flood fill, necks by hand, borders there and back."""

from __future__ import annotations

import sys
from itertools import product

import numpy as np
import pytest
from combinations import in_one_case
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_unetvnet.data.targets import borders, cores
from napari_unetvnet.errors import DataProblem, SettingsProblem
from napari_unetvnet.metrics import object_scores
from napari_unetvnet.postprocess import components, objects
from napari_unetvnet.postprocess.components import AXES_CROSSED

CONNECTIVITIES = ("faces", "edges", "corners")
SHAPES = st.tuples(*[st.integers(1, 5)] * 3)
IMAGES = SHAPES.flatmap(lambda shape: arrays(np.uint8, shape, elements=st.integers(0, 2)))


@pytest.fixture(params=["cc3d", "scipy"])
def library(request, monkeypatch):
    """Both ways to find components; the first only where it is installed."""
    if request.param == "cc3d":
        pytest.importorskip("cc3d")
    else:
        monkeypatch.setitem(sys.modules, "cc3d", None)


def flood_fill(classes, axes_crossed):
    """Number the pieces one voxel after the other, in scan order."""
    steps = [step for step in product((-1, 0, 1), repeat=3) if 0 < np.abs(step).sum() <= axes_crossed]
    ids, count = np.zeros(classes.shape, int), 0
    for start in map(tuple, np.argwhere(classes)):
        if ids[start]:
            continue
        count += 1
        ids[start], front = count, [start]
        while front:
            place = front.pop()
            for near in (tuple(map(sum, zip(place, step, strict=True))) for step in steps):
                inside = all(0 <= a < n for a, n in zip(near, classes.shape, strict=True))
                if inside and not ids[near] and classes[near] == classes[place]:
                    ids[near] = count
                    front.append(near)
    return ids


def ball(shape, centre, radius, spacing=(1.0, 1.0, 1.0)):
    """Voxels whose centre is at most ``radius`` from a point, in physical units."""
    places = np.meshgrid(*(np.arange(n) * edge for n, edge in zip(shape, spacing, strict=True)), indexing="ij")
    return sum((place - c) ** 2 for place, c in zip(places, centre, strict=True)) <= radius**2


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("connectivity", CONNECTIVITIES)
def test_components_are_those_of_a_flood_fill_in_scan_order(connectivity):
    @given(IMAGES)
    def check(classes):
        expected = flood_fill(classes, AXES_CROSSED[connectivity])
        np.testing.assert_array_equal(components(classes, connectivity), expected)

    check()


@pytest.mark.usefixtures("library")
@in_one_case("dtype", [bool, np.uint8, np.int32, np.uint16, np.int64, np.uint64])
def test_components_of_every_integer_type(dtype):
    classes = np.array([[[1, 0, 1], [0, 0, 1]]], dtype)
    found = components(classes)
    assert found.dtype == np.int32
    assert found.tolist() == [[[1, 0, 2], [0, 0, 2]]]


@pytest.mark.usefixtures("library")
def test_large_values_and_arrays_that_cannot_be_written_are_fine(tmp_path):
    classes = np.array([[[4_000_000_000, 4_000_000_000, 0, 7]]], np.uint32)
    classes.flags.writeable = False
    assert components(classes).tolist() == [[[1, 1, 0, 2]]]
    blocks = np.zeros((6, 20, 20), np.uint8)
    blocks[0, :2], blocks[5] = 200, 7
    np.save(tmp_path / "blocks.npy", blocks)
    assert components(np.load(tmp_path / "blocks.npy", mmap_mode="r")).max() == 2


@in_one_case(
    "wrong", [np.zeros((2, 2), np.uint8), np.zeros((1, 0, 2), np.uint8), np.zeros((1, 2, 2)), np.full((1, 2, 2), -1)]
)
def test_what_is_no_class_image_is_refused(wrong):
    with pytest.raises(DataProblem):
        objects(wrong, "components")


def test_an_unknown_rule_is_refused():
    with pytest.raises(SettingsProblem, match="watershed"):
        objects(np.ones((1, 2, 2), np.uint8), "split")


# Two squares of 7 x 7 with a corridor of 3 x 5 between: the distance to the edge is 4 in the middle of a square, and 2
# in the middle of the corridor, so the neck is 2 deep.
DUMBBELL = np.zeros((1, 9, 21), np.uint8)
DUMBBELL[0, 1:8, 1:8] = DUMBBELL[0, 1:8, 13:20] = DUMBBELL[0, 3:6, 8:13] = 1


@in_one_case(
    "spacing, depth, count",
    [
        ((1, 1, 1), None, 2),
        ((1, 1, 1), 1.99, 2),
        ((1, 1, 1), 2, 1),
        ((1, 0.5, 0.5), 0.99, 2),
        ((1, 0.5, 0.5), 1, 1),
        ((9, 1, 1), None, 2),  # an axis of one voxel does not count
    ],
)
def test_a_neck_is_cut_where_it_is_deep_enough(spacing, depth, count):
    found = objects(DUMBBELL, "watershed", spacing=spacing, split_depth=depth)
    assert found.max() == count
    np.testing.assert_array_equal(found > 0, DUMBBELL > 0)
    if count == 2:
        assert set(found[0, 1:8, 1:8].ravel()) == {1}
        assert set(found[0, 1:8, 13:20].ravel()) == {2}


@given(
    radius=st.floats(1, 14),
    stretch=st.floats(1, 2.5),
    shift=st.tuples(*[st.floats(0, 1)] * 3),
    thick=st.sampled_from([1.0, 2.0, 3.0, 5.0]),
    angle=st.floats(0, np.pi),
    connectivity=st.sampled_from(CONNECTIVITIES),
)
def test_a_round_or_long_object_stays_whole(radius, stretch, shift, thick, angle, connectivity):
    """An ellipse of any direction, in planes that may lie far apart."""
    spacing = (thick, 1.0, 1.0)
    half = radius * stretch + 2
    sizes = (int(radius / thick) * 2 + 3, int(half) * 2 + 1, int(half) * 2 + 1)
    z, y, x = (np.arange(n) * edge - (n // 2 + s) * edge for n, edge, s in zip(sizes, spacing, shift, strict=True))
    z, y, x = np.meshgrid(z, y, x, indexing="ij")
    along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    solid = (along / stretch) ** 2 + across**2 + z**2 <= radius**2
    pieces = components(solid, connectivity)
    np.testing.assert_array_equal(objects(solid, "watershed", connectivity=connectivity, spacing=spacing), pieces)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 1.0, 1.0), (1.0, 0.5, 2.0)])
def test_two_balls_that_touch_are_cut_half_way(spacing):
    extent = (24, 24, 44)
    shape = tuple(int(length / edge) + 1 for length, edge in zip(extent, spacing, strict=True))
    one, other = (ball(shape, (12, 12, x), 10, spacing) for x in (12, 30))
    found = objects(one | other, "watershed", spacing=spacing)
    x = np.broadcast_to(np.arange(shape[2]) * spacing[2], shape)
    assert found.max() == 2
    assert set(found[(one | other) & (x < 21 - spacing[2])]) == {1}
    assert set(found[(one | other) & (x > 21 + spacing[2])]) == {2}


@given(IMAGES, st.sampled_from(CONNECTIVITIES))
def test_watershed_only_divides_components(classes, connectivity):
    found = objects(classes, "watershed", connectivity=connectivity, split_depth=0.1)
    np.testing.assert_array_equal(found > 0, classes > 0)
    for value in range(1, found.max() + 1):
        mask = found == value
        assert mask.any()
        assert len(np.unique(classes[mask])) == 1
        assert components(mask, connectivity).max() == 1
    firsts = [np.flatnonzero(found == value)[0] for value in range(1, found.max() + 1)]
    assert firsts == sorted(firsts)


def test_an_image_that_is_all_object_is_one():
    assert objects(np.ones((3, 4, 5), np.uint8), "watershed").max() == 1


def test_the_edge_of_the_image_is_no_edge_of_an_object():
    """Two halves that leave the image would have a neck between them if its edge counted."""
    classes = np.ones((1, 9, 9), np.uint8)
    classes[0, 0, 0] = 0
    assert objects(classes, "watershed").max() == 1


@st.composite
def cells(draw):
    """Boxes of at least 3 voxels on each side that fill an image, some of them empty; ids in scan order."""
    edges = [np.cumsum([0, *draw(st.lists(st.integers(3, 6), min_size=1, max_size=3))]) for _ in range(3)]
    ids = np.zeros([edge[-1] for edge in edges], np.int32)
    for corner in product(*(range(len(edge) - 1) for edge in edges)):
        box = tuple(slice(edge[i], edge[i + 1]) for edge, i in zip(edges, corner, strict=True))
        ids[box] = draw(st.booleans()) * (ids.max() + 1)
    return ids


@given(cells(), st.booleans())
def test_objects_come_back_from_inside_and_border(ids, touching):
    found = objects(borders(ids, touching=touching), "border")
    np.testing.assert_array_equal(found, components(ids))


def test_border_grows_along_the_image_and_not_across_the_gap():
    classes = np.array([[[2, 1, 2, 2, 2, 2, 1, 0, 2, 2]]], np.uint8)
    assert objects(classes, "border").tolist() == [[[1, 1, 1, 1, 2, 2, 2, 0, 3, 3]]]


@pytest.mark.parametrize(("edge", "expected"), [(1, 1), (4, 2)])
def test_a_border_voxel_goes_to_the_inside_that_is_nearer_in_physical_units(edge, expected):
    """It has one inside two planes above, another three voxels beside."""
    classes = np.array([[[1, 0, 0, 0]], [[2, 0, 0, 0]], [[2, 2, 2, 1]]], np.uint8)
    assert objects(classes, "border", connectivity="faces", spacing=(edge, 1, 1))[2, 0, 0] == expected


@in_one_case("depth, count", [(None, 2), (1.99, 2), (2, 1)])
def test_cores_are_split_at_their_necks_and_grown_into_the_rim(depth, count):
    classes = np.where(DUMBBELL, 1, 2).astype(np.uint8)  # rim all around
    found = objects(classes, "cores", split_depth=depth)
    assert (found.max(), found.min()) == (count, 1)
    if count == 2:
        assert set(found[0, :, :8].ravel()) == {1}
        assert set(found[0, :, 13:].ravel()) == {2}
    assert (objects(classes, "border") == 1).all()


@given(cells())
def test_a_rim_without_a_core_is_an_object(ids):
    rims = np.where(ids != 0, 2, 0).astype(np.uint8)
    np.testing.assert_array_equal(objects(rims, "cores"), components(ids != 0))


@pytest.mark.parametrize("rule", ["border", "cores"])
def test_other_classes_than_inside_and_border_are_refused(rule):
    with pytest.raises(DataProblem, match="not 3"):
        objects(np.full((1, 2, 2), 3, np.uint8), rule)


@pytest.mark.parametrize(
    ("rule", "least"), [("components", 0.85), ("watershed", 0.97), ("border", 0.999), ("cores", 0.98)]
)
def test_real_nuclei_are_told_apart(nuclei_objects, rule, least):
    """Of the truth's own foreground, or inside and border: the more is known, the more objects are right."""
    truth = nuclei_objects[None]
    classes = (truth > 0).astype(np.uint8)
    classes = {"border": borders(truth, touching=True), "cores": cores(truth, planar=True)}.get(rule, classes)
    assert object_scores(objects(classes, rule), truth).f1 > least
