"""Sources of images: a file, channel files joined by |, a folder that is one image, a dataset in a file, a time point.

A time point of any of them is named ``a.tif@t=3``, of channel files ``a.tif@t=3|b.tif@t=3``. A ``|`` in the name of a
file is doubled.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from napari_unetvnet.errors import FileProblem, UserError
from napari_unetvnet.files import check_regular
from napari_unetvnet.images.formats import FORMATS, Format, format_of

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "at_time", "existing", "files_of", "folder_image", "is_folder", "joined", "parts_of", "paths_of",
    "source_format", "split_dataset", "split_time", "stem_of",
]  # fmt: skip

TIME_POINT = re.compile(r"(?P<source>.+)@t=(?P<point>\d+)")


def parts_of(source: str | Path) -> list[str]:
    """Split a source at each ``|``; ``||`` stands for one in a name and stays."""
    return [part.replace("\0", "||") for part in str(source).replace("||", "\0").split("|")]


def joined(paths: Iterable[str | Path]) -> str:
    """Name channel files as one source."""
    return "|".join(str(path).replace("|", "||") for path in paths)


def paths_of(source: str | Path) -> list[Path]:
    """Split a source into its channel files.

    Returns
    -------
    list of Path

    Raises
    ------
    FileProblem
        If all of it is one file, in whose name each ``|`` was not doubled.
    """
    parts = parts_of(source)
    if len(parts) > 1 and os.path.lexists(str(source)):
        raise FileProblem(f"{source} is one file, but a | separates channel files; write || for each | in its name.")
    # Not that of a path, which fails where there is no such user.
    return [Path(os.path.expanduser(part.replace("||", "|").strip())) for part in parts]  # noqa: PTH111


def files_of(source: str | Path) -> list[Path]:
    """Give the files that a source reads, without the names of images in them; also those that a file leads to."""
    parts = [part for part in parts_of(source) if part.strip()]
    named = [split_dataset(path)[0] for part in parts for path in paths_of(part)]
    return [*named, *(further for path in named for further in _further_files(path))]


def _further_files(path: Path) -> list[Path]:
    """List the other files in which an image lies; none of a file that cannot be read, which its reader tells."""
    kind = format_of(path)
    if kind is None or not kind.in_several or not path.is_file():
        return []
    try:
        found: list[Path] = kind.function("further_files")(path)
    except (UserError, OSError, ImportError):
        return []
    return found


def at_time(source: str, point: int) -> str:
    """Name a time point of a source."""
    return "|".join(f"{part}@t={point}" for part in parts_of(source))


def split_time(path: Path) -> tuple[Path, int | None]:
    """Split ``file.tif@t=3``.

    Returns
    -------
    file : Path
        With the name of a dataset in it, if it has one.
    point : int or None
        None if no time point is named.
    """
    match = TIME_POINT.fullmatch(str(path))
    if match is None or os.path.exists(path):  # noqa: PTH110 (of any length)
        return path, None
    return Path(match["source"]), int(match["point"])


def existing(path: Path) -> Path:
    """Refuse a path that is not a file or an image in one, or is a device."""
    if is_folder(path):
        raise FileProblem(f"{path} is a folder; name a file in it.")
    if not os.path.exists(file := split_dataset(path)[0]):  # noqa: PTH110 (of any length)
        raise FileProblem(f"There is no file {path}.")
    check_regular(file)
    return path


def is_folder(path: Path) -> bool:
    """Whether a path is a folder of images, not an image itself or inside one."""
    return os.path.isdir(path) and source_format(path) is None  # noqa: PTH112 (of any length)


def folder_image(path: Path) -> Path | None:
    """Give the outermost folder that is an image and holds a path or is it, such as ``a.zarr`` of ``a.zarr/labels``."""
    path, _ = split_time(path)
    inside = (path, *path.parents)
    folders = [each for each in inside if os.path.isdir(each) and _folder_format(each)]  # noqa: PTH112 (of any length)
    return folders[-1] if folders else None


def _folder_format(folder: Path) -> Format | None:
    """Give the format of a folder that is an image, by its ending or by a file that such a folder has."""
    rows = [row for row in FORMATS if row.folder_files]
    by_name = (row for row in rows if folder.name.lower().endswith(row.endings))
    by_file = (row for row in rows if any((folder / name).is_file() for name in row.folder_files))
    return next(by_name, None) or next(by_file, None)


def source_format(path: Path) -> Format | None:
    """Give the format of a file, of a folder that is an image, or of a path inside one; None if unknown."""
    path, _ = split_time(path)
    if os.path.isdir(path):  # noqa: PTH112 (of any length)
        return next((row for each in (path, *path.parents) if (row := _folder_format(each))), None)
    return format_of(split_dataset(path)[0])


def split_dataset(path: Path) -> tuple[Path, str]:
    """Split ``file.h5:/path`` or ``file.tif:2``, without a time point.

    Returns
    -------
    file : Path
    inside : str
        The path of a dataset in it, or the number of an image, or empty.
    """
    path, _ = split_time(path)
    named = "|".join(re.escape(ending) for row in FORMATS if row.datasets for ending in row.endings)
    numbered = "|".join(re.escape(ending) for row in FORMATS if row.numbered for ending in row.endings)
    pattern = rf"(?P<file>.+({named})(?=:.)|.+({numbered})(?=:\d+$)):(?P<inside>.+)"
    match = re.fullmatch(pattern, str(path), re.IGNORECASE)
    return (Path(match["file"]), match["inside"].replace("\\", "/")) if match else (path, "")


def stem_of(path: Path) -> str:
    """Name of a file without its ending; for an image inside a folder or file, that of the folder or file.

    Returns
    -------
    str
        One of many images in a file has its number or name as well, a time point its number.
    """
    path, point = split_time(path)
    if point is not None:
        return f"{stem_of(path)}_t{point}"
    path, inside = split_dataset(path)
    if inside.isdecimal():
        return f"{stem_of(path)}_{inside}"
    if one := re.search(r"subjects/(.+)/[^/]+$|(\[\d+\])$", inside):
        return one[1] or stem_of(path) + one[2]
    folders = tuple(ending for row in FORMATS if row.folder_files for ending in row.endings)
    name = next((part.name for part in (path, *path.parents) if part.name.lower().endswith(folders)), "")
    name = name or (folder_image(path) or path).name
    by_length = sorted((ending for row in FORMATS for ending in (*row.long_endings, *row.endings)), key=len)
    ending = next((ending for ending in reversed(by_length) if name.lower().endswith(ending)), None)
    return name[: -len(ending)] if ending else re.sub(r"\.\w+$", "", name)
