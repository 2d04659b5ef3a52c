"""Check whether a result can be written to a path and in the format of its ending."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from napari_unetvnet.errors import DataProblem, FileProblem
from napari_unetvnet.images.formats import FORMATS, Format, Kind, endings_for, format_of, listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unetvnet.images.volume import Volume

__all__ = ["check_fits", "check_writable", "place_not_kept", "writing_format"]

MODEL = (".safetensors",)


def check_writable(path: str | Path, kind: Kind | Literal["model"]) -> None:
    """Refuse a path or ending that cannot be written, before any work is done.

    Parameters
    ----------
    kind : {"labels", "probabilities", "uncertainty", "model"}

    Raises
    ------
    FileProblem
        If the ending is not one for this kind, the folder is missing or not writable, or the path is a folder but not
        an earlier result.
    """
    path = Path(path)
    file_format = None if kind == "model" else writing_format(path, kind)
    if file_format is None and not path.name.lower().endswith(MODEL):
        raise FileProblem(f"Cannot write model to {path.name}: the ending decides the format; use {listed(MODEL)}.")
    if file_format and file_format.folder_files:
        if not _replaceable(path, file_format.folder_files):
            raise FileProblem(
                f"{path} exists and is not an {file_format.name} folder, so it is not replaced; choose another path."
            )
    elif path.is_dir():
        raise FileProblem(f"{path} is a folder; name a file in it.")
    if not path.parent.is_dir():
        raise FileProblem(f"There is no folder {path.parent} to write {path.name} to; create it, or choose another.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise FileProblem(f"Folder {path.parent} is write-protected; choose another for {path.name}.")


def _replaceable(path: Path, folder_files: Sequence[str]) -> bool:
    """Whether a folder may be written to a path: if there is nothing, an empty folder, or one of the same format."""
    if not path.is_dir():
        return not path.exists()
    return any((path / name).exists() for name in folder_files) or not any(path.iterdir())


def writing_format(path: Path, kind: Kind) -> Format:
    """Give the format in which a result is written.

    Parameters
    ----------
    kind : {"labels", "probabilities", "uncertainty"}

    Returns
    -------
    Format

    Raises
    ------
    FileProblem
        If no format of this ending can hold it.
    """
    file_format = format_of(path.name)
    if file_format and file_format.writes(kind):
        return file_format
    if file_format and file_format.lossy:
        reason = f"{file_format.name} changes values"
    elif file_format and file_format.dtypes:
        fractions = "channels for classes" if file_format.writes("uncertainty") else "fractions"
        reason = f"{file_format.name} holds no {'integers' if kind == 'labels' else fractions}"
    elif file_format:
        reason = f"{file_format.name} is only read"
    else:
        reason = "the ending decides the format"
    raise FileProblem(f"Cannot write {kind} to {path.name}: {reason}; use {listed(endings_for(kind))}.")


def check_fits(path: Path, kind: Kind, shape: Sequence[int], highest: int = 0) -> Format:
    """Refuse a result that the format of its ending cannot hold.

    Parameters
    ----------
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
    file_format = writing_format(path, kind)
    if problem := file_format.misfit(shape, highest):
        alternatives = listed(endings_for(kind, shape, highest))
        raise DataProblem(f"{path.name} cannot be written: {file_format.name} holds {problem}; use {alternatives}.")
    return file_format


def place_not_kept(path: Path, like: Volume) -> str:
    """Say what a file cannot hold of the place of its image.

    Returns
    -------
    str
        A sentence; empty if the format holds all, or nothing is known.
    """
    file_format, geometry = format_of(path), like.geometry
    if file_format is None or geometry.affine is None or "affine" in file_format.keeps:
        return ""
    if geometry.origin is None:
        lost = "how the voxels of the image are turned in space, and where they lie"
    elif "position" not in file_format.keeps:
        lost = "where the voxels of the image lie"
    else:
        return ""
    others = listed(ending for row in FORMATS if "affine" in row.keeps for ending in row.endings)
    return f"{path.name} cannot hold {lost}; to overlay both by their position, use {others}."
