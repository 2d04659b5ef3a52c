"""Which models fit an image: hand-made cards in the order that a person would choose, and a sentence for the others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from napari_unetvnet.images.geometry import Geometry
from napari_unetvnet.images.identity import content_hash
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.model.card import ImageRecord, ModelCard
from napari_unetvnet.model.ranking import ImageFacts, cards_of, facts_of, fit, purpose, rank
from tests.combinations import in_one_case

MICROMETRE = {"unit": "micrometer"}
PLANE = ImageFacts("cells.tif", 1, 1)
STACK = ImageFacts("stack.tif", 1, 40)


def card(**chosen):
    values = {"network": "unet_padding", "head": "binary", "view": "2d", "values": (0, 1), "patch": (1, 64, 64)}
    return ModelCard(**values | chosen)


def write(folder, name, **chosen):
    path = folder / f"{name}.safetensors"
    save_file({"w": np.zeros(1, np.float32)}, path, {"card": card(**chosen).model_dump_json()})
    return path


def judged(image=PLANE, **chosen):
    resample = chosen.pop("resample", True)
    return fit("m", Path("m"), card(**chosen), image, resample=resample)


def test_models_that_fit_come_first_and_the_most_alike_of_them_before_the_others(tmp_path):
    image = ImageFacts("cells.tif", 1, 1, (1.0, 0.5, 0.5), "micrometer", brightness=(0.05,))
    alike = {"brightness": ((0.0, 0.1),), **MICROMETRE}
    models = {
        "colour": write(tmp_path, "colour", channels=3, brightness=((0.0, 0.1),) * 3),
        "volumes of colours": write(tmp_path, "both", channels=3, view="3d"),
        "bright": write(tmp_path, "bright", brightness=((0.5, 0.6),), spacing=(1, 0.5, 0.5), **MICROMETRE),
        "far": write(tmp_path, "far", spacing=(1, 4, 4), **alike),
        "near": write(tmp_path, "near", spacing=(1, 0.8, 0.8), **alike),
        "same": write(tmp_path, "same", spacing=(1, 0.5, 0.5), **alike),
    }
    fits = rank(models, image)
    assert [each.name for each in fits] == ["same", "near", "bright", "far", "colour", "volumes of colours"]
    assert [each.fits for each in fits] == [True] * 4 + [False] * 2
    assert [each.alike for each in fits] == [True, True, False, False, False, False]
    assert [each.name for each in rank(models, None)] == list(models)


def test_equals_stay_in_order_and_the_model_of_this_image_is_the_first(tmp_path):
    own = ImageRecord(content="abc", shape=(1, 9, 9), trained=((0, 0, 0, 1, 9, 9),))
    held_out = own.model_copy(update={"trained": (), "held_out": own.trained})
    models = {name: write(tmp_path, name) for name in "ba"}
    models |= {"d": write(tmp_path, "d", images=(held_out,)), "c": write(tmp_path, "c", images=(own,))}
    fits = rank(models, ImageFacts("cells.tif", 1, 1, content="abc"))
    assert [(each.name, each.trained_on_it) for each in fits] == [("c", True), ("b", False), ("a", False), ("d", False)]


def test_what_does_not_fit_is_said_with_both_numbers():
    assert judged(channels=3).misfits == ("It needs images of 3 channels; cells.tif has 1.",)
    assert judged(view="3d").misfits == ("It needs a volume; cells.tif is a single plane.",)
    (text,) = judged(view="2.5d", context=2).misfits
    assert text == "It needs a stack, because it looks at 5 planes; cells.tif is a single plane."
    assert judged(ImageFacts("rgb.png", 3, 1), view="3d").misfits[0].startswith("It needs images of 1 channel;")


def test_models_of_planes_serve_volumes_but_models_of_volumes_are_preferred(tmp_path):
    models = {view: write(tmp_path, view, view=view, context=view == "2.5d") for view in ("2d", "2.5d", "3d")}
    assert [each.name for each in rank(models, STACK)] == ["2.5d", "3d", "2d"]
    assert rank(models, PLANE)[0].name == "2d"


@in_one_case("unit, spacing", [("pixel", (1, 1, 1)), ("pixel", (2.0, 1.0, 1.0)), ("micrometer", (1, 0.1, 0.1))])
def test_an_unknown_voxel_size_counts_for_nothing(unit, spacing):
    known = judged(spacing=(1, 0.5, 0.5), unit="mm")
    assert (known.distance, known.remarks) == (0, ())
    unknown = judged(ImageFacts("a", 1, 1, spacing, unit))
    assert (unknown.distance, unknown.remarks) == (0, ())


def test_voxel_sizes_are_compared_across_units_and_told_from_a_factor_of_two_on():
    image = ImageFacts("a.tif", 1, 1, (1, 0.001, 0.001), "mm")
    assert judged(image, spacing=(1, 1, 1), unit="micrometer").distance == pytest.approx(0)
    assert not judged(image, spacing=(1, 0.55, 0.55), unit="micrometer").remarks
    coarse = judged(image, spacing=(1, 0.25, 0.25), unit="micrometer")
    assert coarse.distance == pytest.approx(2)
    assert coarse.remarks == (
        "The voxels of a.tif are 4.0 times as large as those of its training images; it is resampled for the model, "
        "but what is smaller than its voxels stays lost.",
    )
    (fine,) = judged(image, spacing=(1, 4, 4), unit="micrometer").remarks
    assert "4.0 times as fine" in fine
    (without,) = judged(image, spacing=(1, 4, 4), unit="micrometer", resample=False).remarks
    assert "turn on resample" in without


def test_the_distance_between_planes_counts_for_models_of_volumes_only():
    image = ImageFacts("a", 1, 40, (8, 1, 1), "micrometer")
    assert not judged(image, spacing=(1, 1, 1), **MICROMETRE).remarks
    assert judged(image, spacing=(1, 1, 1), view="3d", **MICROMETRE).distance == pytest.approx(3)


def test_dark_and_bright_images_are_told_apart_unless_one_is_not_known():
    dark = ImageFacts("a.tif", 1, 1, brightness=(0.05,))
    assert judged(dark, brightness=((0.0, 0.02),)).alike
    other = judged(dark, brightness=((0.5, 0.6),))
    assert other.fits
    assert other.remarks == (
        "Most of a.tif is darker than of its training images, so they probably show another thing.",
    )
    assert (
        judged(ImageFacts("b", 1, 1, brightness=(0.9,)), brightness=((0.5, 0.6),))
        .remarks[0]
        .startswith("Most of b is brighter than of its training images")
    )
    assert judged(PLANE, brightness=((0.5, 0.6),)).alike
    assert judged(dark).alike


def test_the_range_of_intensities_counts_only_where_values_are_taken_as_they_are():
    image = ImageFacts("a", 1, 1, range=((0, 100, 60000, 65535),))
    trained = {"intensity_range": ((0, 10, 240, 255),)}
    assert judged(image, **trained).alike
    assert judged(image, normalise="none", **trained).remarks[0].startswith("a has another range")
    assert judged(ImageFacts("a", 1, 1, range=((0, 12, 250, 255),)), normalise="none", **trained).alike


def test_facts_are_measured_on_the_image():
    values = np.random.default_rng(0).gamma(0.5, 100, (2, 3, 32, 32)).astype(np.float32)
    volume = Volume(values, Geometry((2.0, 0.5, 0.5), "micrometer"), "a")
    facts = facts_of(volume)
    assert (facts.channels, facts.planes, facts.spacing, facts.unit) == (2, 3, (2.0, 0.5, 0.5), "micrometer")
    assert facts.content == content_hash(volume)
    assert all(0 < each < 0.2 for each in facts.brightness)
    assert [row[3] for row in facts.range] == [float(values[c].max()) for c in (0, 1)]


def test_a_model_without_a_task_is_described_by_its_classes_and_images():
    record = ImageRecord(content="x", name="cells.tif", shape=(1, 4, 4))
    assert purpose(card(task="nuclei in fluorescence images")) == "nuclei in fluorescence images"
    assert purpose(card(values=(0, 2))) == "label 2"
    assert (
        purpose(card(class_names=("rest", "cell"), images=(record, record)))
        == "rest, cell, trained on cells and 1 more"
    )


def test_cards_are_read_again_only_if_the_file_changed_and_bad_files_are_told(tmp_path, monkeypatch):
    from napari_unetvnet.model import ranking

    read, counted = ranking.read_card, []
    monkeypatch.setattr(ranking, "read_card", lambda path: counted.append(path) or read(path))
    models = {"a": write(tmp_path, "a"), "b": tmp_path / "b", "gone": tmp_path / "gone"}
    models["b"].write_bytes(b"no model")
    cards, problems = cards_of(models)
    assert (list(cards), sorted(problems)) == (["a"], ["b", "gone"])
    counted.clear()
    assert cards_of({"a": models["a"]})[0] == cards
    assert not counted
    write(tmp_path, "a", task="something else")
    assert cards_of({"a": models["a"]})[0]["a"].task == "something else"


def test_ranking_needs_no_torch(tmp_path):
    path = write(tmp_path, "a")
    code = (
        "import sys; from pathlib import Path; from napari_unetvnet.model import ranking as r; "
        "assert r.rank({'a': Path(sys.argv[1])}, r.ImageFacts('i', 1, 1))[0].fits; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 0
