"""Check whether a result can be written to a path, in the format of its ending, without replacing what is read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from napari_unetvnet.errors import DataProblem, FileProblem
from napari_unetvnet.images.formats import FORMATS, Format, Kind, endings_for, format_of, listed
from napari_unetvnet.images.same_file import same_or_inside
from napari_unetvnet.images.same_grid import states_two_places
from napari_unetvnet.images.sources import files_of, folder_image

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari_unetvnet.images.volume import Volume

__all__ = [
    "check_fits", "check_folder", "check_place", "check_writable", "place_not_kept", "refuse_replacing",
    "replaced_input", "writing_format",
]  # fmt: skip

MODEL = (".safetensors",)


def replaced_input(outputs: Iterable[Path], sources: Iterable[str | Path]) -> str:
    """Say which output would replace what is read, or change a folder that is an image which is read.

    Parameters
    ----------
    sources : iterable of str or Path
        Named as images are: channel files separated by ``|``, ``file.h5:/path``, ``file.tif:2``, ``a.zarr/labels``.

    Returns
    -------
    str
        A sentence; empty if there is none, however the paths are spelled.
    """
    read = [path for source in sources for path in files_of(source)]
    for output in outputs:
        for path in read:
            if same_or_inside(path, output):
                held = "" if same_or_inside(output, path) else f"holds {path}, which "
                return f"The result would replace {output}, which {held}is read; give another output."
            folder = folder_image(path)
            if folder is not None and same_or_inside(output, folder):
                return f"The result would be written into {folder}, which is read; give another output than {output}."
    return ""


def refuse_replacing(outputs: Iterable[Path], sources: Iterable[str | Path]) -> None:
    """Refuse outputs for which `replaced_input` has a sentence.

    Raises
    ------
    FileProblem
    """
    if problem := replaced_input(outputs, sources):
        raise FileProblem(problem)


def check_writable(path: str | Path, kind: Kind | Literal["model"]) -> None:
    """Refuse a path or ending that cannot be written, before any work is done.

    Parameters
    ----------
    kind : {"labels", "probabilities", "uncertainty", "model"}

    Raises
    ------
    FileProblem
        If the ending is not one for this kind, its library is not installed, the folder is missing or not writable, or
        the path is a folder but not an earlier result.
    """
    path = Path(path)
    file_format = None if kind == "model" else writing_format(path, kind)
    if file_format is None and not path.name.lower().endswith(MODEL):
        raise FileProblem(f"Cannot write model to {path.name}: the ending decides the format; use {listed(MODEL)}.")
    if file_format and file_format.missing:
        raise FileProblem(f"{path.name} is written by {file_format.missing}")
    if file_format and file_format.folder_files:
        if not _replaceable(path, file_format.folder_files):
            raise FileProblem(
                f"{path} exists and is not an {file_format.name} folder, so it is not replaced; choose another path."
            )
        check_folder(path)
    else:
        check_place(path)


def check_place(path: Path) -> None:
    """Refuse a path at which no file can be written.

    Raises
    ------
    FileProblem
        If it is a folder, or its folder is missing or not writable.
    """
    if path.is_dir():
        raise FileProblem(f"{path} is a folder; name a file in it.")
    check_folder(path)


def check_folder(path: Path) -> None:
    """Refuse a path in a folder that is missing or not writable; of a link, that of its target.

    Raises
    ------
    FileProblem
    """
    path = Path(os.path.realpath(path))
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


def check_fits(path: Path, kind: Kind, shape: Sequence[int], highest: int = 0, *, points: int = 1) -> Format:
    """Refuse a result that the format of its ending cannot hold.

    Parameters
    ----------
    kind : {"labels", "probabilities", "uncertainty"}
    shape : sequence of 3 or 4 int
        (Z, Y, X), or (K, Z, Y, X).
    highest : int
        The highest label.
    points : int
        How many time points.

    Returns
    -------
    Format

    Raises
    ------
    DataProblem
        If it has time points that the format does not hold, too many planes, masks or voxels along an axis, or too
        high labels.
    """
    file_format = writing_format(path, kind)
    if problem := file_format.misfit(shape, highest, points=points):
        alternatives = listed(endings_for(kind, shape, highest, points=points))
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
    if file_format is None or geometry.affine is None:
        return ""
    if "affine" in file_format.keeps:
        if not states_two_places(like.grid) or "second affine" in file_format.keeps:
            return ""
        others = listed(ending for row in FORMATS if "second affine" in row.keeps for ending in row.endings)
        return (
            f"The image states two positions that differ, as sform and qform; {path.name} can hold one and has that of "
            f"the sform. Programs that read the qform, as ITK does, show it elsewhere; to keep both, use {others}."
        )
    if geometry.origin is None:
        lost = "how the voxels of the image are turned in space, and where they lie"
    elif "position" not in file_format.keeps:
        lost = "where the voxels of the image lie"
    else:
        return ""
    others = listed(ending for row in FORMATS if "affine" in row.keeps for ending in row.endings)
    return f"{path.name} cannot hold {lost}; to overlay both by their position, use {others}."
