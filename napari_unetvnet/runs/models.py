"""Which models there are: those that runs have trained here, and those that are shipped.

Nothing here loads torch, so that the viewer and ``models`` answer at once.
"""

from __future__ import annotations

import os
from pathlib import Path

from napari_unetvnet.errors import FileProblem, near_names
from napari_unetvnet.model.card import shipped_models
from napari_unetvnet.runs.folder import MODEL, runs_folder

__all__ = ["find_model", "list_models"]


def list_models() -> dict[str, Path]:
    """Find the shipped models and those that were trained here, the newest first.

    Returns
    -------
    dict of str to Path
        A shipped model has its file's name, a trained one its run folder's.
    """
    trained = sorted(runs_folder().glob(f"*/{MODEL}"), key=lambda path: path.stat().st_mtime, reverse=True)
    return {path.parent.name: path for path in trained} | shipped_models()


def find_model(name: str) -> Path:
    """Find a model by its name or file.

    Parameters
    ----------
    name : str
        A path, or a name that `list_models` gives.

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
    known = list_models()
    if name in known:
        return known[name]
    if name.endswith(".safetensors") or os.sep in name or not known:
        raise FileProblem(f"There is no model file {name}; train one, or see the models command.")
    raise FileProblem(f"There is no model {name!r}{near_names(name, known)}")
