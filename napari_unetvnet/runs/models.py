"""Available models: those trained by local runs, and those shipped with the package.

Nothing here imports torch, so that the viewer and the ``models`` command respond at once.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from napari_unetvnet.errors import FileProblem, UserError, near_names
from napari_unetvnet.events import EpochDone, Event, StepDone
from napari_unetvnet.model.card import shipped_models
from napari_unetvnet.runs.folder import JOB, MODEL, follow, read, runs_folder

__all__ = ["earlier_events", "find_model", "list_models", "named_start"]

MODELS_COMMAND = "napari-unetvnet models"


def list_models() -> dict[str, Path]:
    """List the models trained by local runs, newest first, and the shipped models.

    Returns
    -------
    dict of str to Path
        A shipped model is named after its file, a trained one after its run folder, or by its path where both have
        the same name.
    """
    trained = sorted(runs_folder().glob(f"*/{MODEL}"), key=lambda path: path.stat().st_mtime, reverse=True)
    shipped = shipped_models()
    return {str(path) if path.parent.name in shipped else path.parent.name: path for path in trained} | shipped


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
        If there is neither such a file nor such a model, or a trained and a shipped one of that name.
    """
    if os.path.isfile(name):  # noqa: PTH113 (it takes a name of any length)
        return Path(name)
    models = list_models()
    own = runs_folder() / name / MODEL
    if str(own) in models:
        raise FileProblem(f"Two models have the name {name}: {own} and {models[name]}; give the path of one.")
    if name in models:
        return models[name]
    if name.endswith(".safetensors") or os.sep in name or not models:
        raise FileProblem(f"There is no model file {name}; train a model, or list the models with: {MODELS_COMMAND}.")
    raise FileProblem(f"There is no model {name!r}{near_names(name, models)}")


def named_start(values: dict[str, Any]) -> dict[str, Any]:
    """Replace the name of the model that a training starts from by its file.

    Parameters
    ----------
    values : dict
        Settings before validation; "auto", "none" and nothing stay.

    Returns
    -------
    dict

    Raises
    ------
    FileProblem
        If there is no such model.
    """
    name = values.get("start_from")
    if not isinstance(name, str) or name in ("auto", "none"):
        return values
    return values | {"start_from": str(find_model(name).absolute())}


def earlier_events(model: Path) -> list[Event]:
    """Read the steps and epochs of the run that trained a model, and of the runs that it continues.

    Parameters
    ----------
    model : Path
        In its run folder; of a model elsewhere nothing is known.

    Returns
    -------
    list of Event
        In order and without the steps that a resumed run repeated.
    """
    events, folders = list[Event](), list[Path]()
    while model.name == MODEL and model.parent not in folders and (model.parent / JOB).is_file():
        folders.append(model.parent)
        try:
            events = follow(model.parent)[0] + events
            start = getattr(read(model.parent), "start_from", None)
        except UserError:
            break
        if start is None:
            break
        model = start
    kept, lowest = list[Event](), math.inf
    for event in reversed(events):
        if isinstance(event, StepDone | EpochDone) and event.step <= lowest:
            kept.append(event)
            lowest = event.step
    return kept[::-1]
