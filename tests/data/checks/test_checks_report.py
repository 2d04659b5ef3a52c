"""The report of the checks: suggestions, text, notices, and the check command."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from checks_cases import discs, image_of, mask, pair, report
from hypothesis import given
from hypothesis import strategies as st

from napari_unetvnet.cli.main import main
from napari_unetvnet.data.checks import notices, table
from napari_unetvnet.data.checks.findings import percent
from napari_unetvnet.images.sampling import boxes, covers


def told(*pairs, **settings):
    return " ".join(report(*pairs, **settings).suggestions)


def rare(voxels):
    labels = mask(size=400, radius=(40, 60))
    labels[2 : 2 + voxels // 8, 2:10] = 2
    return pair(labels)


def test_a_very_rare_class_gets_a_loss_and_weights_in_words():
    text = told(rare(80))
    assert "Class 2 covers 0.05 % of the labelled voxels" in text
    assert "--loss focal_tversky or --class-weights inverse_frequency" in text
    assert "--loss focal_tversky" not in told(rare(80), loss="focal_tversky")
    assert told(rare(80), class_weights="inverse_frequency") == ""


def test_a_loss_without_overlap_is_replaced_first_for_a_rare_class():
    assert "--loss dice_ce" in told(rare(800), loss="ce")
    assert "effective_number" in told(rare(800))


def test_even_classes_need_nothing():
    assert "No class is rare" in told(pair())


def test_lines_get_a_loss_that_keeps_them_whole():
    lines = np.zeros((256, 256), np.uint8)
    lines[16::32, :] = lines[:, 16::32] = lines[17::32, :] = 1
    assert "clDice" in told(pair(lines))
    assert "clDice" not in told(pair(mask(size=256))), "discs are no lines"
    dots = np.zeros((256, 256), np.uint8)
    dots[::16, ::16] = dots[1::16, ::16] = 1
    assert "clDice" not in told(pair(dots)), "dots are no lines"


def test_touching_objects_are_kept_apart_and_dense_ones_by_their_boundaries():
    cells = np.kron(np.arange(1, 65).reshape(8, 8), np.ones((16, 16), np.int64)).astype(np.uint16)
    assert "--objects-as boundaries" in told(pair(cells), label_values="objects")
    cells[:, ::3] = 0
    assert "--objects-as cores" in told(pair(cells), label_values="objects")
    assert "--objects-as" not in told(pair(cells), label_values="objects", objects_as="cores")
    apart = discs(size=256, count=3, radius=(8, 10))
    assert "--objects-as" not in told(pair(apart), label_values="objects")


def test_the_report_is_the_same_every_time_and_holds_the_counts():
    found = report(pair(), pair(seed=1))
    assert found == report(pair(), pair(seed=1))
    assert sum(share.voxels for share in found.classes) == 2 * 96 * 96
    assert sum(share.share for share in found.classes) == pytest.approx(1)
    assert sum(found.images[0].voxels.values()) == 96 * 96
    assert found.images[0].unknown == 0
    assert json.loads(json.dumps(found.as_dict()))["classes"][1]["images"] == 2


def test_unlabelled_voxels_are_in_no_share():
    half = np.where(discs() > 0, 2, 1).astype(np.uint8)
    half[:, 48:] = 0
    found = report(pair(half), unlabelled="ignore")
    assert sum(share.voxels for share in found.classes) == 96 * 48 == found.images[0].unknown


def test_the_table_groups_what_is_alike():
    bright = [
        pair(mask(seed), (image_of(mask(seed)) * 2.0).clip(0, 255).astype(np.uint8), seed=seed) for seed in (0, 1)
    ]
    text = table(report(*bright))
    assert text.count("highest value") == 1
    assert "(Likewise image1.)" in text
    assert text.endswith("No errors, 2 warnings: training is possible; check them first.")
    assert max(map(len, text.splitlines())) <= 120


def test_notices_are_few_short_and_ordered():
    assert notices(report(pair(), pair(seed=1))) == []
    assert notices(report(pair(mask()[:50], image_of(mask())))) == [], "errors are raised by training itself"
    odd = pair(mask() * np.uint8(255), np.zeros((96, 96), np.uint8))
    turned = discs(3, size=96, count=5) > 0
    lines = notices(report(odd, pair(turned[:, ::-1].astype(np.uint8), image_of(turned), seed=1)))
    assert 2 <= len(lines) <= 5
    assert lines[0].startswith("labels1: The labels follow the edges")


@given(st.floats(0, 1))
def test_a_share_is_neither_rounded_to_nothing_nor_to_all(share):
    text = percent(share)
    assert (text == "0 %") == (share == 0)
    assert (text == "100 %") == (share == 1)


@given(st.tuples(*[st.integers(1, 40)] * 3), st.integers(1, 5000))
def test_boxes_do_not_overlap_and_cover_all_of_what_is_small(shape, limit):
    seen = np.zeros(shape, int)
    for box in boxes(shape, limit):
        seen[box.slices] += 1
    assert seen.max() == 1
    assert (seen.min() == 1) == (covers(boxes(shape, limit), shape) == 1)
    if seen.size <= limit:
        assert seen.all()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, seed in (("a", 0), ("b", 1)):
        tifffile.imwrite(tmp_path / f"{name}.tif", image_of(mask(seed, size=160)))
        tifffile.imwrite(tmp_path / f"{name}_labels.tif", mask(seed, size=160))
    monkeypatch.chdir(tmp_path)
    return tmp_path


GIVEN = ["check", "--image", "a.tif", "b.tif", "--label", "a_labels.tif", "b_labels.tif"]


def test_the_check_command_prints_a_report(folder, capsys):
    assert main(GIVEN) == 0
    text = capsys.readouterr().out
    assert "0 (background)" in text
    assert "No errors, no warnings." in text
    assert main([*GIVEN, "--json", "--output", "m.safetensors", "--steps", "5"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [image["image"] for image in found["images"]] == ["a", "b"]
    assert not (folder / "m.safetensors").exists()


def test_errors_are_told_all_at_once_and_exit_with_2(folder, capsys):
    tifffile.imwrite(folder / "b_labels.tif", np.full((160, 160), 0.5, np.float32))
    tifffile.imwrite(folder / "a_labels.tif", mask(0))
    assert main(GIVEN) == 2
    text = " ".join(capsys.readouterr().out.split())
    assert "fractional values such as 0.5" in text
    assert "have 1 x 96 x 96 voxels" in text


def test_files_that_are_missing_and_wrong_options_are_refused(folder, capsys):
    assert main(["check", "--image", "a.tif", "--label", "no.tif"]) == 2
    assert "no.tif" in capsys.readouterr().err
    assert main([*GIVEN, "--classes", "0", "1", "--regions", "all=1"]) == 2
    assert main(["check"]) == 2


def test_a_table_of_pairs_and_files_of_one_name(folder, capsys):
    for name, seed in (("one", 0), ("two", 1)):
        (folder / name).mkdir()
        tifffile.imwrite(folder / name / "image.tif", image_of(mask(seed, size=160)))
        tifffile.imwrite(folder / name / "labels.tif", mask(seed, size=160))
    rows = "one/image.tif,one/labels.tif,train\ntwo/image.tif,two/labels.tif,val\n"
    (folder / "pairs.csv").write_text("image,label,split\n" + rows)
    assert main(["check", "--pairs", "pairs.csv", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(image["image"], image["split"]) for image in found["images"]] == [
        ("one/image", "train"),
        ("two/image", "val"),
    ]


def test_checking_loads_no_torch_and_no_viewer(folder):
    code = (
        f"import sys; from napari_unetvnet.cli.main import main; status = main({GIVEN}); "
        "sys.exit(status or bool({'torch', 'napari', 'qtpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
