"""Inputs, and a model of a few weights, for all tests of faults."""

from __future__ import annotations

import shutil

import pytest
from work import follow, training, write_inputs

from napari_unetvnet.runs.folder import MODEL


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """A folder with an image, its labels and a model."""
    folder = write_inputs(tmp_path_factory.mktemp("inputs"))
    run = training(folder, folder / "run")
    assert follow(run).state == "done"
    shutil.copyfile(run / MODEL, folder / "model.safetensors")
    return folder
