"""Which models there are, and how one is found by its name."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from napari_unetvnet.errors import FileProblem
from napari_unetvnet.model.card import shipped_models
from napari_unetvnet.runs import folder
from napari_unetvnet.runs.models import find_model, list_models


def write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()  # neither listed nor found by what is in it
    return path


def test_models_are_listed_without_torch():
    code = "import sys; from napari_unetvnet.runs import models; models.list_models(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_runs_are_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_UNETVNET_RUNS", str(tmp_path / "elsewhere"))
    assert folder.runs_folder() == tmp_path / "elsewhere"
    monkeypatch.delenv("NAPARI_UNETVNET_RUNS")
    assert folder.runs_folder().name == "runs"
    assert folder.runs_folder().parent.name == "napari-unetvnet"


def test_trained_models_are_listed_the_newest_first(runs_folder):
    for age, name in enumerate(["first", "second", "third"]):
        path = write(runs_folder / name / "model.safetensors")
        os.utime(path, (1000 + age, 1000 + age))
    (runs_folder / "without a model").mkdir()
    listed = list_models()
    assert list(listed)[:3] == ["third", "second", "first"]
    assert listed["first"] == runs_folder / "first" / "model.safetensors"
    assert "without a model" not in listed


def test_no_runs_yet_is_no_error(runs_folder):
    assert not runs_folder.exists()
    assert all(path.suffix == ".safetensors" for path in list_models().values())


def test_a_model_is_found_by_its_name_or_its_file(runs_folder, tmp_path):
    trained = write(runs_folder / "cells" / "model.safetensors")
    other = write(tmp_path / "my own.weights")
    assert find_model("cells") == trained
    assert find_model(str(trained)) == trained
    assert find_model(str(other)) == other


def test_a_run_that_is_named_like_a_shipped_model_is_not_hidden(runs_folder):
    own = write(runs_folder / "hippocampus" / "model.safetensors")
    models = list_models()
    assert models[str(own)] == own
    assert models["hippocampus"] == shipped_models()["hippocampus"]
    assert find_model(str(own)) == own
    with pytest.raises(FileProblem, match=r"Two models have the name hippocampus.*give the path of one"):
        find_model("hippocampus")


def test_a_mistyped_model_is_answered_with_near_names(runs_folder):
    write(runs_folder / "cells" / "model.safetensors")
    with pytest.raises(FileProblem, match=r"^There is no model 'celsl'; did you mean cells\?$"):
        find_model("celsl")


@pytest.mark.parametrize("name", ["gone.safetensors", "folder/gone", "", "x" * 300])
def test_a_model_that_is_nowhere_is_refused_with_a_sentence(runs_folder, name):
    write(runs_folder / "cells" / "model.safetensors")
    with pytest.raises(FileProblem, match=r"[.?]$"):
        find_model(name)
