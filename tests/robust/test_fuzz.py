"""Files that are damaged at random give a sentence or a value, in bounded time and memory."""

from __future__ import annotations

import shutil

import pytest
from fuzz import CORPUS, fuzz, outcome, readers

pytestmark = pytest.mark.slow

NAMES = [
    "nii", "nii.gz", "tif", "tif tiles", "png", "jpg", "npy", "h5", "zarr 2", "zarr 3", "nrrd", "mha", "model",
    "settings", "job", "events", "pairs",
]  # fmt: skip
INPUTS = 18
"""For each reader; ``make soak`` reads thousands."""


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_is_read_or_told(files, tmp_path, name):
    if name in {"nrrd", "mha"}:
        pytest.importorskip("SimpleITK")
    rows = readers(files)
    assert set(NAMES) == set(rows)
    counts, bad = fuzz(rows[name], tmp_path, name, range(INPUTS))
    assert not bad, "\n".join(f"{name} {number}: {text}" for number, text in bad)
    assert sum(counts.values()) == INPUTS


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*/*/*")), ids=lambda path: f"{path.parts[-3]}-{path.parts[-2]}")
def test_what_once_crashed(files, tmp_path, path):
    read = readers(files)[path.parts[-3].replace("-", " ")][2]
    copy = tmp_path / path.name
    (shutil.copytree if path.is_dir() else shutil.copyfile)(path, copy)
    assert outcome(read, copy) in {"read", "sentence"}
