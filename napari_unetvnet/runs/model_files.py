"""Rename, remove, export and import the models of the list: each is the ``model.safetensors`` of a run folder.

A model that was imported lies alone in its folder; one that was trained here keeps its run. Shipped models stay.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from napari_unetvnet.errors import FileProblem, RunProblem, UserError
from napari_unetvnet.files import put_if_free, writing
from napari_unetvnet.images.outputs import check_writable
from napari_unetvnet.images.written import delivering, refuse_foreign
from napari_unetvnet.model.card import read_card, shipped_models
from napari_unetvnet.runs.folder import MODEL, clean_name, runs_folder
from napari_unetvnet.runs.kept import kept_runs, size_of, used_by
from napari_unetvnet.runs.models import find_model, list_models
from napari_unetvnet.runs.state import is_held
from napari_unetvnet.temporary import beside, remove

if TYPE_CHECKING:
    from pathlib import Path

    from napari_unetvnet.model.card import ModelCard

__all__ = ["export_model", "import_model", "remove_model", "rename_model"]


def rename_model(name: str, new: str) -> Path:
    """Give a model, and its run folder, another name.

    Parameters
    ----------
    name : str
        From the list of models.

    Returns
    -------
    Path
        Of the model.

    Raises
    ------
    FileProblem
        If there is no such model, it is a shipped one, or the new name is taken or cannot be one.
    RunProblem
        If its run is under way, or another one needs it by its old name.
    """
    folder = _own_folder(name)
    target = _free_folder(new)
    _refuse_in_use(folder)
    try:
        folder.rename(target)
    except OSError as error:
        raise FileProblem(f"{folder} cannot be renamed ({error.strerror or error}).") from error
    return target / MODEL


def remove_model(name: str) -> int:
    """Remove a model from its run folder, and the folder if nothing else is in it.

    Parameters
    ----------
    name : str
        From the list of models.

    Returns
    -------
    int
        Bytes that are left of its run.

    Raises
    ------
    FileProblem
        If there is no such model, it is a shipped one, or it cannot be removed.
    RunProblem
        If its run is under way, or another one needs it to continue.
    """
    folder = _own_folder(name)
    _refuse_in_use(folder)
    try:
        (folder / MODEL).unlink()
        if not any(folder.iterdir()):
            folder.rmdir()
    except OSError as error:
        raise FileProblem(f"{folder / MODEL} cannot be removed ({error.strerror or error}).") from error
    return size_of(folder)


def export_model(name: str, output: Path, *, overwrite: bool = False) -> ModelCard:
    """Copy a model to a file that can be passed on.

    Parameters
    ----------
    name : str
        From the list of models, or a file.
    overwrite : bool
        Whether a file that is there already is replaced.

    Returns
    -------
    ModelCard
        Which says its licence and whom to name.

    Raises
    ------
    FileProblem
        If there is no such model, or the file is there already or cannot be written.
    """
    model = find_model(name)
    card = read_card(model)
    check_writable(output, "model")
    if output.exists() and output.samefile(model):
        raise FileProblem(f"{output} is that model already; give another output.")
    refuse_foreign([output], overwrite=overwrite)
    with writing(output), delivering(output) as (part,):
        shutil.copyfile(model, part)
    return card


def import_model(file: Path, name: str = "") -> tuple[Path, ModelCard]:
    """Copy a model file to the list of models, after all of it was read.

    Parameters
    ----------
    file : Path
    name : str
        In the list; by default that of the file.

    Returns
    -------
    model : Path
    card : ModelCard

    Raises
    ------
    FileProblem
        If there is no such file, or the name is taken or cannot be one.
    ModelProblem
        If it is no model, or its weights do not fit its card.
    """
    from napari_unetvnet.model.model import load_model
    from napari_unetvnet.settings import SegmentSettings

    read_card(file)
    folder = _free_folder(name or clean_name(file.stem))
    with writing(folder, "set NAPARI_UNETVNET_RUNS to another folder"):
        folder.mkdir(parents=True)  # which no one else can have now
    part = beside(folder / MODEL)
    try:
        with writing(folder, "set NAPARI_UNETVNET_RUNS to another folder"):
            shutil.copyfile(file, part)
        card = load_model(part, SegmentSettings(device="cpu", precision="fp32")).card  # of the copy: it does not change
        put_if_free(part, folder / MODEL)
    except UserError as problem:
        raise type(problem)(*(line.replace(str(part), str(file)) for line in problem.lines)) from problem
    finally:
        remove(part)
        if not any(folder.iterdir()):
            folder.rmdir()
    return folder / MODEL, card


def _own_folder(name: str) -> Path:
    """Give the run folder of a model of the list that was trained or imported here."""
    listed = list_models()
    if name in shipped_models() and not (runs_folder() / name / MODEL).is_file():
        raise FileProblem(f"{name} comes with the program and stays as it is; export it to have a copy.")
    for each, model in listed.items():
        if name in (each, model.parent.name, str(model)) and model.parent.parent == runs_folder():
            return model.parent
    find_model(name)  # says what there is, if it is no file
    raise FileProblem(f"{name} is a file elsewhere and not in the list of models; rename or remove it there.")


def _free_folder(name: str) -> Path:
    """Give the folder of a new name in the list."""
    if name != clean_name(name):
        raise FileProblem(f"{name!r} cannot be the name of a model; use letters, digits, - _ and . only (at most 80).")
    if os.path.lexists(runs_folder() / name) or name in shipped_models():
        raise FileProblem(f"There is a model or a run named {name} already; give another name.")
    return runs_folder() / name


def _refuse_in_use(folder: Path) -> None:
    if is_held(folder):
        raise RunProblem(f"{folder.name} is under way; stop it first.")
    if folder.is_symlink() or (folder / MODEL).is_symlink():
        raise FileProblem(f"{folder} is a link; change what it points to.")
    if users := used_by(folder, kept_runs()):
        raise RunProblem(f"{', '.join(users[:3])} needs {folder.name} to continue; end or remove that run first.")
