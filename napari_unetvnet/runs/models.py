"""Available models: those trained by local runs, and those shipped with the package.

Nothing here imports torch, so that the viewer and the ``models`` command respond at once.
"""

from __future__ import annotations

import os
from pathlib import Path

from napari_unetvnet.errors import FileProblem, near_names
from napari_unetvnet.model.card import shipped_models
from napari_unetvnet.runs.folder import MODEL, runs_folder

__all__ = ["find_model", "list_models"]

MODELS_COMMAND = "napari-unetvnet models"


def list_models() -> dict[str, Path]:
    """List the models trained by local runs, newest first, and the shipped models.

    Returns
    -------
    dict of str to Path
        A shipped model is named after its file, a trained one after its run folder.
    """
    trained = sorted(runs_folder().glob(f"*/{MODEL}"), key=lambda path: path.stat().st_mtime, reverse=True)
    return {path.parent.name: path for path in trained} | shipped_models()


def find_model(name: str) -> Path:
    """Find a model by name or path.

    Parameters
    ----------
    name : str
        A path, or a name from `list_models`.

    Returns
    -------
    Path

    Raises
    ------
    FileProblem
        If there is neither such a file nor such a model.
    """
    if os.path.isfile(name):  # noqa: PTH113 (it takes a name of any length)
        return Path(name)
    models = list_models()
    if name in models:
        return models[name]
    if name.endswith(".safetensors") or os.sep in name or not models:
        raise FileProblem(f"There is no model file {name}; train a model, or list the models with: {MODELS_COMMAND}.")
    raise FileProblem(f"There is no model {name!r}{near_names(name, models)}")
