"""Where a result may be written, and whether the format of its ending can hold it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from napari_unetvnet.errors import DataProblem, FileProblem
from napari_unetvnet.images.formats import Format, Kind, endings_for, format_of, listed

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["check_fits", "check_writable", "writing_format"]

MODEL = (".safetensors",)


def check_writable(path: str | Path, kind: Kind | Literal["model"]) -> None:
    """Refuse a place or ending that cannot be written, before any work is done.

    Parameters
    ----------
    path : str or Path
    kind : {"labels", "probabilities", "uncertainty", "model"}

    Raises
    ------
    FileProblem
        If the ending is not one for this kind, the folder is missing or not writable, or the path is a folder and not
        an earlier result.
    """
    path = Path(path)
    chosen = None if kind == "model" else writing_format(path, kind)
    if chosen is None and not path.name.lower().endswith(MODEL):
        raise FileProblem(f"Cannot write model to {path.name}: the ending decides the format; use {listed(MODEL)}.")
    if chosen and chosen.folder_files:
        if not _replaceable(path, chosen.folder_files):
            raise FileProblem(
                f"{path} is there and is no {chosen.name} folder, so it is not replaced; choose another place."
            )
    elif path.is_dir():
        raise FileProblem(f"{path} is a folder; name a file in it.")
    if not path.parent.is_dir():
        raise FileProblem(f"There is no folder {path.parent} to write {path.name} to; create it or choose another.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise FileProblem(f"Folder {path.parent} is write-protected; choose another for {path.name}.")


def _replaceable(path: Path, folder_files: Sequence[str]) -> bool:
    """Whether a folder may be put in a place: where nothing is, or an empty folder, or another of its format."""
    if not path.is_dir():
        return not path.exists()
    return any((path / name).exists() for name in folder_files) or not any(path.iterdir())


def writing_format(path: Path, kind: Kind) -> Format:
    """Give the format in which a result is written.

    Parameters
    ----------
    path : Path
    kind : {"labels", "probabilities", "uncertainty"}

    Returns
    -------
    Format

    Raises
    ------
    FileProblem
        If the ending is of none that can hold it.
    """
    chosen = format_of(path.name)
    if chosen and chosen.writes(kind):
        return chosen
    if chosen and chosen.lossy:
        reason = f"{chosen.name} changes values"
    elif chosen and chosen.dtypes:
        fractions = "channels for classes" if chosen.writes("uncertainty") else "fractions"
        reason = f"{chosen.name} holds no {'integers' if kind == 'labels' else fractions}"
    elif chosen:
        reason = f"{chosen.name} is only read"
    else:
        reason = "the ending decides the format"
    raise FileProblem(f"Cannot write {kind} to {path.name}: {reason}; use {listed(endings_for(kind))}.")


def check_fits(path: Path, kind: Kind, shape: Sequence[int], highest: int = 0) -> Format:
    """Refuse a result that the format of its ending cannot hold.

    Parameters
    ----------
    path : Path
    kind : {"labels", "probabilities", "uncertainty"}
    shape : sequence of 3 or 4 int
        (Z, Y, X), or (K, Z, Y, X).
    highest : int
        The highest label.

    Returns
    -------
    Format

    Raises
    ------
    DataProblem
        If it has too many planes, masks or voxels along an axis, or too high labels.
    """
    chosen = writing_format(path, kind)
    if problem := chosen.misfit(shape, highest):
        others = listed(endings_for(kind, shape, highest))
        raise DataProblem(f"{path.name} cannot be written: {chosen.name} holds {problem}; use {others}.")
    return chosen
