"""What label 0 means: read from generated cells that are finished, painted in strokes, or in one value only."""

from dataclasses import replace

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from napari_unetvnet.cli.main import main
from napari_unetvnet.data.checks import examine, is_of_meaning
from napari_unetvnet.data.meaning import UnclearLabels, contradictions, measured, understand
from napari_unetvnet.images.pairs import Pair
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.settings import TrainJob

SIZE = 160


def cells(seed=0):
    """An image of bright cells, and the labels 0 and 1."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    labels = np.zeros((SIZE, SIZE), np.uint8)
    for y, x in [(30 + 50 * i, 30 + 50 * j) for i in range(3) for j in range(3)]:
        labels |= (rows - y - rng.integers(-6, 6)) ** 2 + (columns - x - rng.integers(-6, 6)) ** 2 < 14**2
    image = ndimage.gaussian_filter(60 + 100.0 * labels, 1) + rng.normal(0, 12, labels.shape)
    return image.astype(np.float32), labels


def strokes(labels, values, seed=0):
    """Paint curved strokes three pixels wide inside each class; the value of class k is values[k], 0 for none."""
    rng = np.random.default_rng(seed)
    painted = np.zeros_like(labels)
    for value, paint in enumerate(values):
        inside = np.argwhere(ndimage.binary_erosion(labels == value, iterations=2))
        for y, x in inside[rng.integers(0, len(inside), 14 if paint else 0)].astype(float):
            angle = rng.uniform(0, 2 * np.pi)
            for _ in range(18):
                if labels[round(y) % SIZE, round(x) % SIZE] != value or not (1 < y < SIZE - 2 and 1 < x < SIZE - 2):
                    break
                around = np.s_[round(y) - 1 : round(y) + 2, round(x) - 1 : round(x) + 2]
                painted[around][labels[around] == value] = paint
                angle += rng.normal(0, 0.2)
                y, x = y + np.sin(angle), x + np.cos(angle)
    return painted


def pair(labels, seed=0):
    image = cells(seed)[0]
    return Pair(Volume(image[None, None], name=f"image{seed}"), Volume(labels[None, None], name=f"labels{seed}"))


def job(**settings):
    return TrainJob(image=("a.tif",), label=("b.tif",), **settings)


FINISHED = cells()[1]
STROKES, SWAPPED = strokes(FINISHED, (1, 2)), strokes(FINISHED, (2, 1))
ONE = strokes(FINISHED, (0, 1))
PLANE = np.where(FINISHED, 2, 1).astype(np.uint8)


@pytest.mark.parametrize(
    ("labels", "settings", "expected"),
    [
        (FINISHED, {}, ("background", None)),
        (STROKES, {}, ("ignore", 1)),
        (SWAPPED, {}, ("ignore", 2)),
        (PLANE, {}, ("ignore", 1)),
        (STROKES, {"unlabelled": "ignore"}, ("ignore", 1)),
        (STROKES, {"background": 2}, ("ignore", 2)),
        (STROKES, {"unlabelled": "ignore", "background": 0}, ("ignore", None)),
        (STROKES, {"unlabelled": "background"}, ("background", None)),
        (STROKES, {"label_values": "objects"}, ("background", None)),
        (ONE, {"regions": "A=1"}, ("background", None)),
    ],
)
def test_the_meaning_is_read_from_labels_and_image_unless_it_is_set(labels, settings, expected):
    found = understand([pair(labels)], job(**settings))
    assert (found.unlabelled, found.background) == expected


def test_what_cannot_be_told_is_asked_with_the_options_that_answer():
    with pytest.raises(UnclearLabels) as asked:
        understand([pair(ONE)], job())
    (line,) = asked.value.lines
    assert "Only the value 1 is painted" in line
    assert "--unlabelled background if" in line and "--unlabelled ignore if" in line
    other = strokes(cells(1)[1], (3, 2))
    with pytest.raises(UnclearLabels, match=r"1 in labels0, 3 in labels1.*--background 1 if.*--background 3 if"):
        understand([pair(STROKES), pair(other, 1)], job())
    with pytest.raises(UnclearLabels, match="labels1 look finished, labels labels0 look like a few strokes"):
        understand([pair(STROKES), pair(cells(1)[1], 1)], job())


@pytest.mark.parametrize(
    ("labels", "settings", "kind", "senseless"),
    [
        (FINISHED, {"unlabelled": "background"}, None, False),
        (STROKES, {"unlabelled": "ignore", "background": 1}, None, False),
        (PLANE, {"unlabelled": "ignore", "background": 1}, None, False),
        (FINISHED, {"unlabelled": "ignore"}, "finished-as-ignored", True),
        (FINISHED, {"unlabelled": "ignore", "background": 1}, "finished-as-ignored", True),
        (STROKES, {"unlabelled": "background"}, "strokes-as-background", True),
        (SWAPPED, {"unlabelled": "ignore", "background": 1}, "other-background", True),
        (ONE, {"unlabelled": "background"}, "maybe-strokes", False),
    ],
)
def test_settings_that_the_labels_contradict_are_found(labels, settings, kind, senseless):
    chosen = job(**settings)
    found = contradictions(measured([pair(labels)], chosen), chosen)
    assert [(each.kind, each.senseless) for each in found] == ([(kind, senseless)] if kind else [])
    report = examine([pair(labels)], chosen)
    assert {each.kind for each in report.of("error") if is_of_meaning(each)} == (
        {f"meaning-{kind}"} if senseless else set()
    )
    allowed = examine([pair(labels)], chosen.model_copy(update={"label_checks": "warn"}))
    assert not any(is_of_meaning(finding) for finding in allowed.of("error"))
    assert not kind or f"meaning-{kind}" in {finding.kind for finding in allowed.of("warning")}


def test_backgrounds_that_differ_between_images_are_refused():
    chosen = job(unlabelled="ignore", background=1)
    other = strokes(cells(1)[1], (3, 2))
    (found,) = contradictions(measured([pair(STROKES), pair(other, 1)], chosen), chosen)
    assert (found.kind, found.senseless) == ("backgrounds-differ", True)


def test_where_the_image_shows_nothing_no_training_is_refused():
    noise = Volume(np.random.default_rng(0).normal(100, 10, (1, 1, SIZE, SIZE)).astype(np.float32), name="noise")
    for labels, settings in (
        (FINISHED, {"unlabelled": "background"}),
        (STROKES, {"unlabelled": "ignore", "background": 1}),
    ):
        chosen = job(**settings)
        assert not contradictions(measured([replace(pair(labels), image=noise)], chosen), chosen)
    assert understand([replace(pair(FINISHED), image=noise)], job()).unlabelled == "background"


def test_the_command_line_asks_and_refuses_before_the_first_step(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("image.tif", cells()[0])
    for name, labels in (("one", ONE), ("strokes", STROKES)):
        tifffile.imwrite(f"{name}.tif", labels)
    tiny = [
        "--patch",
        "1",
        "32",
        "32",
        "--batch",
        "2",
        "--option",
        "width=2",
        "--steps",
        "1",
        "--output",
        "m.safetensors",
    ]
    for label, options, word in (
        ("one.tif", [], "What does label 0 mean?"),
        ("strokes.tif", ["--unlabelled", "background"], "--label-checks warn"),
    ):
        assert main(["train", "--image", "image.tif", "--label", label, *options, *tiny]) == 2
        assert word in capsys.readouterr().err
        assert main(["check", "--image", "image.tif", "--label", label, *options]) == 2
        assert word.split()[0] in capsys.readouterr().out
    assert not (tmp_path / "m.safetensors").exists()
    assert main(["train", "--image", "image.tif", "--label", "strokes.tif", *tiny]) == 0
    told = capsys.readouterr().err
    assert "Label 0 was taken as not painted" in told
    assert "Label 1 was taken as background" in told
    assert main(["check", "--image", "image.tif", "--label", "strokes.tif"]) == 0
    assert "label 1 as background" in capsys.readouterr().out
