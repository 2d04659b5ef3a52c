"""Every row of the table of formats says what its module does, and a new format is one module and one row."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from napari_unetvnet.errors import DataProblem, FileProblem
from napari_unetvnet.images import formats
from napari_unetvnet.images.formats import FLOATS, FORMATS, INTEGERS, endings, endings_for, format_of
from napari_unetvnet.images.formats.nifti import INTENT, SPACE, TEXT
from napari_unetvnet.images.geometry import Geometry
from napari_unetvnet.images.io import (
    check_writable,
    read_labels,
    read_volume,
    write_labels,
    write_probabilities,
    write_uncertainty,
)
from napari_unetvnet.images.volume import Volume

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "add-a-file-format.md"
SHEARED = np.array([[0.5, 1.2, 0, 1], [0, 1.6, 0, 2], [0, 0, 4, 3], [0, 0, 0, 1.0]])
"""With voxels of 0.5 x 2 x 4 (x y z); y is not at right angles to x."""
EACH = pytest.mark.parametrize("row", FORMATS, ids=lambda row: row.name)
WRITTEN = pytest.mark.parametrize("row", [row for row in FORMATS if row.dtypes], ids=lambda row: row.name)


def like(shape, **facts):
    return Volume(np.broadcast_to(np.zeros((), np.uint8), (1, *shape)), Geometry(**facts))


@EACH
def test_a_row_names_functions_that_exist(row):
    names = ["read"] + ["write"] * bool(row.dtypes) + ["create", "open_image", "completing"] * row.grows
    assert all(callable(row.function(name)) for name in names)
    assert set(row.dtypes) <= {*INTEGERS, *FLOATS}
    assert all(ending.endswith(row.endings) for ending in row.long_endings)
    assert set(row.in_parts) <= set(row.endings)


def test_an_ending_is_of_one_format_and_its_case_does_not_matter():
    assert len(set(endings())) == len(endings())
    for row in FORMATS:
        assert all(format_of(Path(f"a.b{ending}")) is row for ending in (*row.endings, *row.long_endings))
        assert all(format_of(f"A{ending.upper()}") is row for ending in row.endings)
    assert format_of("a.gz") is format_of("nii") is None


def two_places():
    """The geometry of a NIfTI file whose sform and qform differ."""
    image = nibabel.Nifti1Image(np.zeros((4, 3, 1), np.uint8), None)
    image.set_sform(SHEARED, 2)
    image.set_qform(np.diag([0.5, 2, 4, 1]), 1)
    return Geometry(
        (4.0, 2.0, 0.5),
        "mm",
        SHEARED,
        image.get_qform(),
        {name: image.header[name] for name in (*SPACE, *INTENT, *TEXT)},
    )


@WRITTEN
def test_what_a_row_keeps_comes_back_and_nothing_else(row, tmp_path):
    image = like((1, 3, 4), spacing=(4.0, 2.0, 0.5), unit="micrometer", affine=SHEARED)
    image = replace(image, class_names=((1, "cell"),))
    write_labels(tmp_path / f"a{row.endings[0]}", np.ones((1, 3, 4), np.uint8), image)
    back = read_labels(tmp_path / f"a{row.endings[0]}")
    kept = {"spacing": back.spacing == pytest.approx(image.spacing), "unit": back.unit == image.unit}
    kept["class names"] = back.class_names == image.class_names
    kept["affine"] = back.affine is not None and np.allclose(back.affine, SHEARED)
    upright = Geometry.upright((4.0, 2.0, 0.5), "micrometer", (-7.5, 3.0, 1e5))
    write_labels(tmp_path / f"b{row.endings[0]}", np.ones((1, 3, 4), np.uint8), replace(image, geometry=upright))
    origin = read_labels(tmp_path / f"b{row.endings[0]}").geometry.origin
    kept["position"] = origin is not None and np.allclose(origin, upright.origin)
    write_labels(tmp_path / f"c{row.endings[0]}", np.ones((1, 3, 4), np.uint8), replace(image, geometry=two_places()))
    kept["second affine"] = read_labels(tmp_path / f"c{row.endings[0]}").geometry.other_affine is not None
    assert {fact for fact, is_kept in kept.items() if is_kept} == set(row.keeps)


@WRITTEN
def test_each_type_of_a_row_is_read_back_as_it_was_written(row, tmp_path):
    place = tmp_path / f"a{row.endings[0]}"
    for dtype in set(row.dtypes) & set(INTEGERS):
        labels = np.array([[[0, INTEGERS[dtype]]] * 2], dtype)
        write_labels(place, labels, like((1, 2, 2)))
        back = read_volume(place).data[...]
        assert back.dtype == np.dtype(dtype)
        assert np.array_equal(back[0], labels)
    for dtype in set(row.dtypes) & set(FLOATS):
        fractions = np.array([[[0, 0.25], [0.5, 1]]], dtype)
        write_uncertainty(place, fractions, like((1, 2, 2)))
        back = read_volume(place).data[...]
        assert back.dtype == np.dtype(dtype)
        assert np.array_equal(back[0], fractions)
        if row.writes("probabilities"):
            write_probabilities(place, np.stack([fractions, 1 - fractions]), like((1, 2, 2)))
            assert np.array_equal(read_volume(place).data, np.stack([fractions, 1 - fractions]))


@WRITTEN
def test_more_than_a_row_allows_is_refused_and_other_endings_are_named(row, tmp_path):
    shapes = {"planes": (2, 3, 4), "masks": (2, 1, 3, 4)}
    for limit, shape in shapes.items():
        problem = row.misfit(shape)
        assert bool(problem) == (getattr(row, limit) is not None)
        if problem:
            with pytest.raises(DataProblem, match=f"{row.name} holds {problem}; use \\.") as caught:
                write_labels(tmp_path / f"a{row.endings[0]}", np.ones(shape, np.uint8), like(shape[-3:]))
            assert not set(row.endings) & set(re.findall(r"\.[\w.]+\b", str(caught.value).split("use ")[1]))
    highest = max(INTEGERS[dtype] for dtype in row.dtypes if dtype in INTEGERS)
    assert not row.misfit((1, 1, 1), highest)
    assert row.misfit((1, 1, 1), highest + 1) == f"labels to {highest}, not {highest + 1}"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [
        ("a.jpeg", "labels", "JPEG changes values"),
        ("a.png", "uncertainty", "PNG holds no fractions"),
        ("a.h5", "probabilities", "HDF5 is only read"),
        ("a.nii.txt", "labels", "the ending decides the format"),
    ],
)
def test_a_format_that_does_not_fit_is_refused_with_the_reason_and_what_would(tmp_path, name, kind, reason):
    with pytest.raises(FileProblem) as caught:
        check_writable(tmp_path / name, kind)
    assert str(caught.value) == f"Cannot write {kind} to {name}: {reason}; use {', '.join(endings_for(kind))}."


def test_labels_are_not_read_from_a_lossy_format_whatever_its_place_in_the_list(tmp_path):
    for source in ("a.jpg", "a.png|b.JPG"):
        with pytest.raises(DataProblem, match="JPEG changes values"):
            read_labels(source)


def test_the_table_loads_no_library():
    code = (
        "import sys, napari_unetvnet.images.formats; print({'numpy', 'pydantic', 'nibabel', 'zarr'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


# Does with the example of the how-to page what the page says: one module, one row, and everything else follows.
TRIED = """
from pathlib import Path
import numpy as np
from napari_unetvnet.images import formats
from napari_unetvnet.images.formats import Format
formats.FORMATS += (ROW)
from napari_unetvnet.cli.main import main
from napari_unetvnet.images.io import find_pairs, read_labels, read_volume, write_labels
from napari_unetvnet.images.volume import Volume
from napari_unetvnet.model.card import ModelCard
from napari_unetvnet.model.model import build_model, save_model
from napari_unetvnet.settings import ComputeSettings

pixels = np.random.default_rng(0).integers(0, 9, (16, 16))
np.savetxt("image.txt", pixels, fmt="%d", delimiter="\\t")
assert np.array_equal(read_volume("image.txt").data[0, 0], pixels)
np.savetxt("folder/a.txt", pixels)
assert find_pairs(["folder"], ["image.txt"])[0][0].endswith("a.txt")

np.savetxt("labels.txt", np.eye(16), fmt="%d", delimiter="\\t")
assert main(["clean", "labels.txt", "--output", "cleaned.txt", "--min-size", "1"]) == 0
assert np.array_equal(read_labels("cleaned.txt").data[0, 0], np.eye(16))

card = ModelCard(network="unet_padding", view="2d", head="multiclass", values=(0, 3), patch=(1, 16, 16))
save_model(Path("m.safetensors"), build_model(card, ComputeSettings(device="cpu")).network.state_dict(), card)
assert main(["segment", "image.txt", "--model", "m.safetensors", "--output", "result.txt", "--device", "cpu"]) == 0
assert set(np.unique(np.loadtxt("result.txt"))) <= {0, 3}

assert main(["clean", "labels.txt", "--output", "cleaned.xyz", "--min-size", "1"]) == 2
assert main(["segment", "image.txt", "--model", "m.safetensors", "--output", "r.nii", "--probabilities", "p.txt"]) == 2
try:
    write_labels("deep.txt", np.ones((2, 3, 4), np.uint8), Volume(np.ones((1, 2, 3, 4))))
except Exception as problem:
    print(problem)
main(["segment", "--help"])
"""


def test_the_format_of_the_page_is_one_module_and_one_row(tmp_path, monkeypatch):
    blocks = re.findall(r"^ *```python\n(.*?)^ *```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    module, row = map(textwrap.dedent, blocks)
    (tmp_path / "text_image.py").write_text(module)
    (tmp_path / "folder").mkdir()
    row = row.replace("napari_unetvnet.images.formats.text_image", "text_image")
    code = TRIED.replace("ROW", row)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{Path(formats.__file__).parents[3]}")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 0, said
    known = ", ".join((*endings_for("labels"), ".txt"))
    assert f"cleaned.xyz: the ending decides the format; use {known}." in said
    assert "Cannot write probabilities to p.txt: text image holds no fractions" in said
    assert "deep.txt cannot be written: text image holds one plane, not 2" in said
    assert f"the ending decides the format ({known})" in said
